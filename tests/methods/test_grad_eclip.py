"""Grad-ECLIP's algebra, confirmed by plain forward passes that share none of its code."""

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
from tests.methods.helpers import close, directions, tower_of
from tests.shrinking import small
from tests.towers.test_architectures import EXECUTED, inputs_of

STEP = 1e-4  # of alpha, in float64: the error of a central difference is about 1e-8 here
TOLERANCE = 1e-5  # of a map's largest value


@pytest.mark.parametrize(
    ("name", "side", "layers", "reader"),
    [
        ("ViT-B-16", "image", 2, 0),
        ("ViT-B-16", "text", 2, 5),
        ("RN50", "image", 1, 0),
        ("ViT-B-16-SigLIP", "text", 1, -1),
        ("coca_ViT-B-32", "image", 1, 0),
        ("EVA02-B-16", "image", 1, 0),
        ("ViT-L-14-CLIPA", "image", 2, 4),
    ],
)
def test_channel_weights_times_values_are_the_derivative_by_attention(name, side, layers, reader):
    model = copy.deepcopy(small(name)).double()
    tower = tower_of(model, side, layers)
    inputs = inputs_of(tower)[:1]
    if inputs.is_floating_point():
        inputs = inputs.double()
    direction = directions(1, 1, width=tower.width, seed=2, dtype=torch.float64)
    trace = tower.trace(inputs)
    weights = method.channel_weights(tower, trace, direction)
    query = 0
    if reader > 0:
        query = trace.query_index[0].tolist().index(reader)

    with plain.attention() as calls:
        tower.forward(inputs)
    first_call = len(calls) - layers

    def score(call, token, amount):
        with plain.attention(plain.adding([call], reader, token, amount)):
            return tower.forward(inputs)[0] @ direction[0, 0]

    for position, layer in enumerate(trace.layers):
        call = first_call + position
        layer_weights = weights[:, 0, position]
        gradient = method.attention_gradient(layer_weights, layer.v)  # (1, H, R, N)
        by_token = gradient[0, :, query].sum(dim=0)
        for token in (0, 1, 3):
            more = score(call, token, STEP)
            less = score(call, token, -STEP)
            slope = (more - less) / (2 * STEP)
            torch.testing.assert_close(by_token[token], slope, rtol=1e-5, atol=1e-9)


UNLIKE = ("RN50-quickgelu", "ViT-B-16-quickgelu")  # of an activation that others have
IMAGE_TOWERS = [name for name in EXECUTED if name not in UNLIKE]
TEXT_TOWERS = ["ViT-B-16-SigLIP", "MobileCLIP2-L-14", "coca_ViT-B-32"]
TOWERS = [
    *[(name, "image", 1) for name in IMAGE_TOWERS],
    *[(name, "text", 1) for name in TEXT_TOWERS],
    ("ViT-B-16", "image", 2),
    ("ViT-L-14-CLIPA", "image", 2),
    ("ViT-B-16", "text", 2),
]


@pytest.mark.parametrize(("name", "side", "layers"), TOWERS)
def test_every_towers_map_is_the_formula_on_the_models_own_attention(name, side, layers):
    tower = tower_of(small(name), side, layers)
    inputs = inputs_of(tower)[:1]
    direction = directions(1, 1, width=tower.width, seed=2)
    trace = tower.trace(inputs)
    readers = trace.query_index[0].tolist()
    if not readers:  # all read
        readers = range(trace.layers[0].o.shape[1])
    expected = plain.grad_eclip(
        lambda: tower.embed_pixels(inputs),
        direction[0, 0],
        layers,
        readers,
        trace.valid_mask[0],
    )
    maps = method.grad_eclip(tower, trace, direction)
    close(maps[0, 0], expected, TOLERANCE)


@pytest.mark.parametrize(("image_layers", "text_layers"), [(1, 1), (1, 3), (2, 2)])
def test_interactions_without_lam_are_the_mixed_second_difference(
    image_layers, text_layers, precise, pixels
):
    """d2S / d alpha_i d beta_j over all heads and explained layers, from plain forward passes."""
    model = precise.model
    picture = pixels[:1].double()
    ids = precise.tokenizer(["a red car and a blue ball"])
    eot = int(ids[0].argmax())

    text_tower = open_text_tower(model, text_layers)
    text_trace = text_tower.trace(ids)
    every_token = torch.eye(text_trace.tokens.shape[1], dtype=torch.bool)
    members = every_token[1:-1]  # each word is a token
    targets = word_directions(text_tower, text_trace, members, "none")
    image_tower = open_image_tower(model, image_layers)
    image_trace = image_tower.trace(picture)
    maps = method.grad_eclip(image_tower, image_trace, targets[None], spatial="none")[0]
    tolerance = 1e-6 * maps.abs().max()

    def slope(side, inputs, layers, reader, token):
        """d embedding / d alpha, of all these layers at once."""

        def embedding(amount):
            with plain.attention(plain.adding(layers, reader, token, amount)), torch.no_grad():
                return plain.embed(model, side, inputs)[0]

        return (embedding(STEP) - embedding(-STEP)) / (2 * STEP)

    explained_image_layers = range(3 - image_layers, 3)
    explained_text_layers = range(3 - text_layers, 3)
    for word, region in ((0, 1), (3, 8), (6, 16)):
        # the patches see what CLS becomes, so that image layers are changed one at a time
        by_region = 0
        for layer in explained_image_layers:
            by_region = by_region + slope("image", picture, [layer], 0, region)
        by_word = slope("text", ids, explained_text_layers, eot, word + 1)
        expected = by_region @ by_word
        assert abs(maps[word, region] - expected) < tolerance


@pytest.mark.parametrize("name", ["tiny", "bundled"])
def test_the_plain_method_gives_what_the_explainer_gives(name, request, picture):
    clip = request.getfixturevalue(name)
    prompt = "a red car and a blue ball"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExplanationWarning)
        explainer = Explainer(clip, words="grad-eclip", image_layers=1)
        explanation = explainer.explain(picture, prompt)

    pixels = clip.preprocess(picture)[None]
    tokens = clip.tokenizer([prompt])
    image_map, scores = method.grad_eclip_plain(clip.model, pixels, tokens, clip.text_layers)
    close(torch.tensor(explanation.image_maps[0]), image_map, TOLERANCE)
    scores_of_explainer = [word.score for word in explanation.words[0]]
    close(torch.tensor(scores_of_explainer), scores, TOLERANCE)


def test_the_plain_method_leaves_no_hook_and_no_gradient(tiny, pixels, ids):
    grey_pixels = pixels[:1, :1]
    with pytest.raises(RuntimeError):
        method.grad_eclip_plain(tiny.model, grey_pixels, ids[:1])
    method.grad_eclip_plain(tiny.model, pixels[:1], ids[:1])
    for module in tiny.model.modules():
        assert not module._forward_hooks
    for parameter in tiny.model.parameters():
        assert parameter.grad is None
