"""Methods: the algebra that Grad-ECLIP promises, confirmed by plain forward passes that share none of its code."""

import copy
import warnings

import pytest
import torch

from gradeclip_utils import Explainer
from gradeclip_utils.errors import ExplanationWarning
from gradeclip_utils.methods import grad_eclip as method
from gradeclip_utils.methods.interactions import word_directions
from gradeclip_utils.towers import open_image_tower, open_text_tower
from tests import plain
from tests.shrinking import small
from tests.towers.test_architectures import EXECUTED, inputs_of

STEP = 1e-4  # of alpha, in float64: the error of a central difference is about 1e-8 here


def unit(width, seed=0, dtype=torch.float32):
    vector = torch.randn(width, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return vector / vector.norm()


def close(found, expected, tolerance=1e-5):
    assert found.shape == expected.shape and expected.abs().max() > 0
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize(
    ("name", "opened", "layers", "reader"),
    [
        ("ViT-B-16", open_image_tower, 2, 0),
        ("ViT-B-16", open_text_tower, 2, 5),
        ("RN50", open_image_tower, 1, 0),
        ("ViT-B-16-SigLIP", open_image_tower, 1, 0),
        ("ViT-B-16-SigLIP", open_text_tower, 1, -1),
        ("PE-Core-T-16-384", open_image_tower, 1, 0),
        ("coca_ViT-B-32", open_image_tower, 1, 0),
        ("coca_ViT-B-32", open_text_tower, 1, -1),
        ("EVA02-B-16", open_image_tower, 1, 0),
        ("EVA02-E-14", open_image_tower, 1, 0),
        ("ViTamin-S", open_image_tower, 1, 3),
        ("ViT-L-14-CLIPA", open_image_tower, 2, 4),
        ("MobileCLIP2-L-14", open_text_tower, 1, 5),
    ],
)
def test_channel_weights_times_values_are_the_derivative_by_attention(name, opened, layers, reader):
    tower = opened(copy.deepcopy(small(name)).double(), layers)
    inputs = inputs_of(tower)[:1]
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    direction = unit(tower.width, 2, torch.float64)
    trace = tower.trace(inputs)
    weights = method.channel_weights(tower, trace, direction[None, None])
    place = (trace.query_index[0] == reader).nonzero()[0, 0] if reader > 0 else 0
    with plain.attention() as calls:
        tower.forward(inputs)
    for position, layer in enumerate(trace.layers):
        found = method.attention_gradient(weights[:, 0, position], layer.v)[0, :, place].sum(
            0
        )  # heads summed: (N,)
        for token in (0, 1, 3):
            scores = []
            for amount in (STEP, -STEP):
                with plain.attention(
                    plain.adding([len(calls) - layers + position], reader, token, amount)
                ):
                    scores.append(tower.forward(inputs)[0] @ direction)
            torch.testing.assert_close(
                found[token], (scores[0] - scores[1]) / (2 * STEP), rtol=1e-5, atol=1e-9
            )


@pytest.mark.parametrize(
    ("name", "side", "layers", "count"),
    [
        ("tiny", "image", 3, 3),
        ("averaging", "image", 2, 1),
        ("averaging", "image", 1, 3),
        ("tiny", "text", 3, 3),
    ],
)
def test_a_trace_that_keeps_its_graph_gives_the_same_weights(
    name, side, layers, count, request, pixels, ids
):
    opened = open_image_tower if side == "image" else open_text_tower
    tower, inputs = (
        opened(request.getfixturevalue(name).model, layers),
        pixels if side == "image" else ids,
    )
    directions = torch.stack(
        [torch.stack([unit(48, 3 * i + t) for t in range(count)]) for i in range(2)]
    )
    trace, kept = tower.trace(inputs), tower.trace(inputs, graph=True)
    for _ in range(2):  # it can be asked again
        close(
            method.channel_weights(tower, kept, directions),
            method.channel_weights(tower, trace, directions),
        )
    close(kept.embedding, trace.embedding)
    assert not any(part.requires_grad for layer in kept.layers for part in vars(layer).values())
    assert trace.graph is None and len(kept.graph[1]) == layers


TOWERS = [
    *[
        (name, open_image_tower, 1)
        for name in EXECUTED
        if name not in ("RN50-quickgelu", "ViT-B-16-quickgelu")
    ],
    *[
        (name, open_text_tower, 1)
        for name in ("ViT-B-16-SigLIP", "MobileCLIP2-L-14", "coca_ViT-B-32")
    ],
    ("ViT-B-16", open_image_tower, 2),
    ("ViT-L-14-CLIPA", open_image_tower, 2),
    ("ViT-B-16", open_text_tower, 2),
]


@pytest.mark.parametrize(("name", "opened", "layers"), TOWERS)
def test_every_towers_map_is_the_formula_on_the_models_own_attention(name, opened, layers):
    tower = opened(small(name), layers)
    inputs, direction = inputs_of(tower)[:1], unit(tower.width, 2)
    trace = tower.trace(inputs)
    readers = trace.query_index[0].tolist() or range(trace.layers[0].o.shape[1])
    expected = plain.grad_eclip(
        lambda: tower.embed_pixels(inputs), direction, layers, readers, trace.valid_mask[0]
    )
    close(method.grad_eclip(tower, trace, direction[None, None])[0, 0].detach(), expected)


@pytest.mark.parametrize(("image_layers", "text_layers"), [(1, 1), (1, 3), (2, 2)])
def test_interactions_without_lam_are_the_mixed_second_difference(
    image_layers, text_layers, precise, pixels
):
    """d2S / d alpha_i d beta_j, in all heads and explained layers at once, from plain forward passes alone."""
    model, picture, ids = (
        precise.model,
        pixels[:1].double(),
        precise.tokenizer(["a red car and a blue ball"]),
    )
    image_tower, text_tower = (
        open_image_tower(model, image_layers),
        open_text_tower(model, text_layers),
    )
    image_trace, text_trace = image_tower.trace(picture), text_tower.trace(ids)
    members = torch.eye(text_trace.tokens.shape[1], dtype=torch.bool)[1:-1]
    directions = word_directions(text_tower, text_trace, members, "none")
    found = method.grad_eclip(image_tower, image_trace, directions[None], spatial="none")[0]
    eot = int(ids[0].argmax())

    def slope(side, inputs, explained, reader, token):
        """d embedding / d alpha: a layer at a time for the image, whose patches see what CLS becomes."""
        total = 0
        for layers in [explained] if side == "text" else [[layer] for layer in explained]:
            ends = []
            for amount in (STEP, -STEP):
                with plain.attention(plain.adding(layers, reader, token, amount)), torch.no_grad():
                    ends.append(plain.embed(model, side, inputs)[0])
            total = total + (ends[0] - ends[1]) / (2 * STEP)
        return total

    for word, region in ((0, 1), (3, 8), (6, 16)):
        regions = slope("image", picture, range(3 - image_layers, 3), 0, region)
        words = slope("text", ids, range(3 - text_layers, 3), eot, word + 1)
        assert abs(found[word, region] - regions @ words) < 1e-6 * found.abs().max()


@pytest.mark.parametrize("name", ["tiny", "bundled"])
def test_the_plain_method_gives_what_the_explainer_gives(name, request, picture):
    clip, prompt = request.getfixturevalue(name), "a red car and a blue ball"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExplanationWarning)
        expected = Explainer(clip, image_layers=1).explain(picture, prompt)
    pixels, tokens = clip.preprocess(picture)[None], clip.tokenizer([prompt])
    image_map, scores = method.grad_eclip_plain(clip.model, pixels, tokens, clip.text_layers)
    close(torch.tensor(expected.image_maps[0]), image_map)
    close(torch.tensor([word.score for word in expected.words[0]]), scores)


def test_the_plain_method_leaves_no_hook_and_no_gradient(tiny, pixels, ids):
    with pytest.raises(RuntimeError):
        method.grad_eclip_plain(tiny.model, pixels[:1, :1], ids[:1])
    method.grad_eclip_plain(tiny.model, pixels[:1], ids[:1])
    assert not any(module._forward_hooks for module in tiny.model.modules())
    assert all(parameter.grad is None for parameter in tiny.model.parameters())
