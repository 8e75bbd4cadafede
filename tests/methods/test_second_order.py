"""exCLIP and FIxLIP: their definitions, worked out pair by pair or over all coalitions, against the products."""

import doctest
from itertools import product

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gradeclip_utils import Explainer
from gradeclip_utils.methods.attention import integrated_attention
from gradeclip_utils.methods.grad_eclip import grad_eclip
from gradeclip_utils.methods.input_gradients import path_points
from gradeclip_utils.methods.interactions import word_masks
from gradeclip_utils.towers import open_image_tower, open_text_tower
from gradeclip_utils.words import split_read
from studies.rivals import second_order
from studies.rivals.second_order import (
    banzhaf_weights,
    fixlip,
    fixlip_of_words,
    integrated_word_directions,
    interactions,
)
from tests.conftest import build, wrap

CAPTION = "a red car"


@pytest.fixture(scope="module")
def small():
    """Four patches and few words, in float64: all coalitions and full Jacobians are cheap."""
    return wrap(build({"patch_size": 16}).double())


@pytest.fixture(scope="module")
def traces(small):
    """Towers with all layers explained, one image's trace, and the caption's; which tokens are its words'."""
    image_tower, text_tower = open_image_tower(small.model, 3), open_text_tower(small.model, 3)
    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    ids = small.tokenizer([CAPTION])
    split = split_read(CAPTION, small.tokenizer, text_tower)
    with torch.no_grad():
        image, text = image_tower.trace(pixels), text_tower.trace(ids)
    return image_tower, image, text_tower, text, word_masks(split, text)


def near(found, expected, tolerance):
    found, expected = (torch.as_tensor(one) for one in (found, expected))
    assert found.shape == expected.shape and expected.abs().max() > 0
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


def embeds(model, side, inputs):
    encode = model.encode_image if side == "image" else model.encode_text
    return encode(inputs, normalize=True)


def test_a_path_has_a_point_and_a_sample_a_coalition():
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        next(path_points(0))
    with pytest.raises(ValueError, match="masks must be at least 1, got 0"):
        banzhaf_weights(3, samples=0)


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(second_order).failed == 0


# --- exCLIP -------------------------------------------------------------------------------------------------------


def prompt_of(model, tokens, end):
    """Unit embedding of tokens (N, D) with their positions, by the model's own modules and nothing of the package."""
    x = model.transformer(tokens[None], attn_mask=model.attn_mask[: len(tokens), : len(tokens)])
    return F.normalize(model.ln_final(x)[0, end] @ model.text_projection, dim=-1)


def test_exclip_is_the_product_of_two_integrated_jacobians(small, traces):
    _, image, _, text, _ = traces
    model, end = small.model, text.tokens.shape[1] - 1
    with torch.no_grad():
        maps, _ = interactions("exclip", *traces, steps=3)
    places, weights = np.polynomial.legendre.leggauss(3)
    ids = small.tokenizer([CAPTION])[0, : end + 1]
    tokens = (model.token_embedding(ids) + model.positional_embedding[: end + 1]).detach()
    start = tokens.clone()
    start[1:end] = 0
    of_pixels = of_tokens = 0
    for place, weight in zip((places + 1) / 2, weights / 2, strict=True):
        slope = torch.autograd.functional.jacobian(lambda x: embeds(model, "image", x)[0], place * image.inputs)
        of_pixels = of_pixels + weight * slope * image.inputs  # (E, 1, 3, 32, 32)
        at = start + place * (tokens - start)
        slope = torch.autograd.functional.jacobian(lambda x: prompt_of(model, x, end), at)
        of_tokens = of_tokens + weight * slope * (tokens - start)  # (E, N, D)
    of_patches = of_pixels[:, 0].sum(1).unflatten(1, (2, 16)).unflatten(3, (2, 16)).sum((2, 4)).flatten(1)  # (E, P)
    expected = torch.einsum("en,ep->np", of_tokens.sum(-1), of_patches)[1:end]
    near(maps[:, 1:], expected, 1e-6)  # a word is one token here


def test_exclip_entries_add_up_to_what_both_references_leave(small, traces):
    _, image, _, text, _ = traces
    with torch.no_grad():
        maps, directions = interactions("exclip", *traces, steps=40)
        (x, x0), y = embeds(small.model, "image", torch.cat([image.inputs, 0 * image.inputs])), text.embedding[0]
        tokens, end = text.tokens[0].clone(), text.tokens.shape[1] - 1
        tokens[1:end] = 0
        y0 = prompt_of(small.model, tokens, end)
        near(maps.sum(), (x - x0) @ (y - y0), 1e-3)
        near(directions.sum(0), y - y0, 1e-3)


def test_exclip_runs_all_text_layers_however_many_are_explained(small, traces):
    image_tower, image, _, text, words = traces
    fewer = open_text_tower(small.model, 1)
    with torch.no_grad():
        expected = interactions("exclip", *traces, steps=2)[0]
        found = interactions("exclip", image_tower, image, fewer, fewer.trace(text.inputs), words, steps=2)[0]
    near(found, expected, 1e-9)


def test_a_word_of_two_tokens_has_the_sum_of_their_directions(traces):
    _, _, tower, text, words = traces
    with torch.no_grad():
        apart = integrated_word_directions(tower, text, words, steps=4)
        together = integrated_word_directions(tower, text, torch.stack([words[0], words[1] | words[2]]), steps=4)
    near(together, torch.stack([apart[0], apart[1] + apart[2]]), 1e-9)


# --- FIxLIP -------------------------------------------------------------------------------------------------------


def nearest_game_of_second_order(values, players, p):
    """Coefficients of all pairs in the game of order two that is nearest to the values of all coalitions."""
    coalitions = np.array(list(product([0, 1], repeat=players)))
    pairs = [(i, j) for i in range(players) for j in range(i)]
    design = np.column_stack(
        [np.ones(len(coalitions)), coalitions, *(coalitions[:, i] * coalitions[:, j] for i, j in pairs)]
    )
    root = np.sqrt(np.prod(np.where(coalitions, p, 1 - p), axis=1))
    heights = np.array([values(row) for row in coalitions])
    fitted = np.linalg.lstsq(root[:, None] * design, root * heights, rcond=None)[0]
    return dict(zip(pairs, fitted[1 + players :], strict=True))


@pytest.mark.parametrize("p", [0.5, 0.3])
def test_fixlip_is_the_nearest_game_of_second_order_over_all_coalitions_of_words_and_patches(small, traces, p):
    _, image, _, _, _ = traces

    def value(row):
        there = torch.tensor(row[:4], dtype=torch.float64).reshape(2, 2).kron(torch.ones(16, 16, dtype=torch.float64))
        caption = " ".join(word for word, kept in zip(CAPTION.split(), row[4:], strict=True) if kept)
        with torch.no_grad():
            seen = embeds(small.model, "image", image.inputs * there)[0]
            return float(seen @ embeds(small.model, "text", small.tokenizer([caption]))[0])

    pairs = nearest_game_of_second_order(value, 7, p)
    expected = torch.tensor([[pairs[4 + j, i] for i in range(4)] for j in range(3)])
    with torch.no_grad():
        found = interactions("fixlip", *traces, p=p)[0][:, 1:]
    near(found, expected.to(found), 1e-6)


def test_banzhaf_values_are_means_of_what_a_player_adds():
    coalitions, weights = banzhaf_weights(4, p=0.3)
    values = np.random.default_rng(0).normal(size=16)
    of = {tuple(row): value for row, value in zip(coalitions.int().tolist(), values, strict=True)}
    for i, found in enumerate((weights.numpy() @ values).tolist()):
        adds = 0.0
        for others in product([0, 1], repeat=3):
            with_i, without = ((*others[:i], there, *others[i:]) for there in (1, 0))
            adds += np.prod([0.3 if one else 0.7 for one in others]) * (of[with_i] - of[without])
        assert found == pytest.approx(adds)


def test_drawn_coalitions_find_an_additive_game_exactly_and_any_game_nearly():
    rng = np.random.default_rng(1)
    parts = rng.normal(size=12)
    coalitions, weights = banzhaf_weights(12, samples=200, seed=2)
    assert coalitions.shape == (200, 12)
    np.testing.assert_allclose(weights @ (coalitions.double() @ torch.from_numpy(parts) + 3), parts, atol=1e-9)
    bent = {n: np.tanh(banzhaf_weights(12, samples=n, seed=2)[0].double() @ parts) for n in (200, 4000, 4096)}
    exact, few, many = (banzhaf_weights(12, samples=n, seed=2)[1] @ bent[n] for n in (4096, 200, 4000))
    assert (many - exact).abs().max() < (few - exact).abs().max() < 0.2


def test_an_image_asked_with_the_whole_prompt_has_the_first_order_of_the_same_game(small, traces):
    image_tower, image, _, text, _ = traces
    with torch.no_grad():
        found = fixlip(image_tower, image, text.embedding[None])[0, 0, 1:]
        coalitions = torch.tensor(list(product([0.0, 1.0], repeat=4)), dtype=torch.float64)
        shown = torch.einsum("cp,pq->cq", coalitions, torch.eye(4, dtype=torch.float64)).unflatten(1, (2, 2))
        seen = embeds(small.model, "image", image.inputs * F.interpolate(shown[:, None], (32, 32))) @ text.embedding[0]
    adds = [seen[coalitions[:, i] == 1].mean() - seen[coalitions[:, i] == 0].mean() for i in range(4)]
    near(found, torch.stack(adds), 1e-6)


def test_scores_of_words_are_their_directions_seen_from_the_image(traces):
    _, image, tower, text, _ = traces
    with torch.no_grad():
        scores = fixlip_of_words(tower, text, image.embedding[None])[0, 0, 1:4]
        near(scores, interactions("fixlip", *traces)[1] @ image.embedding[0], 1e-9)


# --- through the door ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("by", "title", "options"), [("exclip", "exCLIP", {"steps": 1}), ("fixlip", "FIxLIP", {"masks": 5})]
)
def test_an_explainer_has_the_interactions_of_every_method_by_name(by, title, options, tiny, picture):
    explainer = Explainer(tiny)
    found = explainer.interactions(picture, "a dog", by=by)
    assert found.maps.shape == (2, 4, 4) and np.isfinite(found.maps).all() and found.maps.any()
    assert found.provenance["method"] == title and [word.text for word in found.words] == ["a", "dog"]
    assert not np.allclose(found.maps, explainer.interactions(picture, "a dog").maps)
    assert not np.allclose(found.maps, explainer.interactions(picture, "a dog", by=by, **options).maps)


def test_interactions_that_nobody_knows_are_refused(tiny, picture):
    with pytest.raises(ValueError, match="by must be one of grad-eclip, exclip, fixlip, got 'shap'"):
        Explainer(tiny).interactions(picture, "a dog", by="shap")
    with pytest.raises(ValueError, match="by must be one of grad-eclip, got 'exclip'|by must be 'grad-eclip'"):
        Explainer(tiny, attention="single-head").interactions(picture, "a dog", by="exclip")


# --- integrated attention -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [1, 3])
def test_integrated_attention_adds_up_to_what_words_bring(small, layers):
    tower = open_text_tower(small.model, layers)
    with torch.no_grad():
        trace = tower.trace(small.tokenizer([CAPTION]))
        target = F.normalize(torch.randn(1, 1, 48, generator=torch.Generator().manual_seed(4)).double(), dim=-1)
        found = integrated_attention(tower, trace, target, steps=24)[0, 0]
        gone = [
            -torch.einsum("hn,nhc->hc", layer.attention[0, :, 0, 1:-1], layer.v[0, 1:-1]).flatten()
            for layer in trace.layers
        ]
        less = tower.readout(trace, torch.stack(gone)[:, None, None])
    assert found[0] == found[-1] == 0
    near(found.sum(), ((trace.embedding - less)[0] @ target[0, 0]), 1e-5)


def test_integrated_attention_of_a_short_path_is_attention_times_gradient(small):
    """A path of one point in the middle, on values so small that the readout is straight."""
    tower = open_text_tower(small.model, 1)
    with torch.no_grad():
        trace = tower.trace(small.tokenizer([CAPTION]))
        (layer,) = trace.layers
        for token in range(1, 4):
            layer.v[0, token] *= 1e-6
        target = torch.ones(1, 1, 48, dtype=torch.float64)
        expected = grad_eclip(tower, trace, target, spatial="softmax")[0, 0, 1:-1]
        near(integrated_attention(tower, trace, target, steps=1)[0, 0, 1:-1], expected, 1e-4)
