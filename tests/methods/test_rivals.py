"""The rivals of `studies`, against their definitions over all coalitions or by full Jacobians."""

from dataclasses import replace
from itertools import combinations, permutations, product
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.cluster import KMeans
from torch.nn import functional as F

from gradeclip_utils import Explainer
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.methods import Options
from gradeclip_utils.towers import Tower, Trace, open_image_tower, open_text_tower
from studies.rivals import exclip, fixlip, metagame
from studies.rivals.attention import cci, integrated_attention
from studies.rivals.metagame import sampled_weights
from studies.rivals.second_order import banzhaf_weights, fixlip_of_patches, fixlip_of_words
from tests import plain
from tests.conftest import build, wrap
from tests.methods.helpers import close, directions

CAPTION = "a red car"
NOUNS = "a red car and a blue ball on grass"
SPANS = ("a red car", "and a blue ball", "on grass")


def near(actual, expected, tolerance):
    """`close` for arrays and lists."""
    actual = torch.tensor(np.asarray(actual))
    expected = torch.as_tensor(np.asarray(expected), dtype=actual.dtype)
    close(actual, expected, tolerance)


def join(parts, indices):
    chosen = [part for i, part in enumerate(parts) if i in indices]
    return " ".join(chosen)


def scores_of(words):
    return [word.score for word in words]


def value_by_orders(players, value):
    """Shapley values by definition: the mean over all orders of what a player adds by joining."""
    values = np.zeros((players, *np.shape(value(()))))
    orders = list(permutations(range(players)))
    for order in orders:
        for place, player in enumerate(order):
            without_player = value(order[:place])
            with_player = value(order[: place + 1])
            values[player] += with_player - without_player
    return values / len(orders)


def test_sampled_values_add_up_however_few_orders_are_drawn_and_come_near_with_many():
    random = np.random.default_rng(0)
    game = random.normal(size=[2] * 6)  # a number for each set of players

    def value(players):
        joins = [int(player in players) for player in range(6)]
        return game[tuple(joins)]

    exact = value_by_orders(6, value)
    errors = []
    for orders in (3, 400):
        coalitions, weights = sampled_weights(6, orders, seed=1)
        heights = game[tuple(coalitions.int().T)]
        values = weights.numpy() @ heights
        total = value(range(6)) - value(())
        assert values.sum() == pytest.approx(total)
        error = np.abs(values - exact)
        errors.append(error.max())
    error_of_few, error_of_many = errors
    assert error_of_many < 0.2 * error_of_few


@pytest.mark.parametrize("full", [False, True])
def test_scores_of_words_are_shapley_values_of_the_similarity_of_every_shorter_prompt(
    full, tiny, picture
):
    if full:  # a prompt without padding, for an encoder whose padding is hidden by its id
        text = {"embed_cls": True, "pad_id": 0, "context_length": 6}
        tiny = wrap(build(text=text, custom_text=True))
    words = "a dog and cat".split()
    prompt = " ".join(words)
    explainer = Explainer(tiny, words="metagame")

    def similarity(players):
        shorter = join(words, players)
        return float(plain.similarities(tiny, picture, [shorter]))

    expected = value_by_orders(4, similarity)
    by_method = explainer.explain(picture, prompt)
    every_word = [(0,), (1,), (2,), (3,)]
    by_metagame = metagame(Explainer(tiny), picture, prompt, over=every_word)
    for explanation in (by_method, by_metagame):
        scores = scores_of(explanation.words[0])
        np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_metagame_maps_are_shapley_values_of_the_maps_of_shorter_prompts_and_add_up(tiny, picture):
    explainer = Explainer(tiny, method="clip-surgery")
    explanation = metagame(explainer, picture, NOUNS)
    maps = explanation.image_maps
    assert [word.text for word in explanation.words[0]] == list(SPANS)

    def map_of(players):
        shorter = join(SPANS, players)
        map_ = explainer.maps(picture, explainer.embed_texts([shorter]))[0, 0]
        return map_.double().numpy()

    expected = value_by_orders(3, map_of)
    near(maps, expected, 1e-5)
    total = map_of(range(3)) - map_of(())
    near(maps.sum(axis=0), total, 1e-5)

    def brought_by_first(beside):
        return map_of((0, *beside)) - map_of(beside)

    pair = brought_by_first((1,)) - brought_by_first(())
    pair_beside_third = brought_by_first((1, 2)) - brought_by_first((2,))
    expected = (pair + pair_beside_third) / 2
    near(explanation.pairs[0, 1], expected, 1e-4)

    full, empty = plain.similarities(tiny, picture, [NOUNS, ""])
    gain = float(full - empty)
    assert sum(scores_of(explanation.words[0])) == pytest.approx(gain, abs=1e-6)
    assert explanation.provenance.title == f"METAGAME of {explainer.method.title}"


def test_words_of_no_player_stay_in_every_prompt(tiny, picture):
    explainer = Explainer(tiny)
    explanation = metagame(explainer, picture, "a red dog", over=[(1,)])
    ((red,),) = explanation.words
    assert red.text == "red"
    assert explanation.pairs.shape == (1, 1, 4, 4)
    with_red, without_red = explainer.explain(picture, ["a red dog", "a dog"]).image_maps
    (map_,) = explanation.image_maps
    np.testing.assert_allclose(map_, with_red - without_red, atol=1e-6)


@pytest.fixture(scope="module")
def small():
    """A model with four patches in float64: all coalitions and full Jacobians are cheap."""
    return wrap(build({"patch_size": 16}).double())


class Scene(NamedTuple):
    """A random image and the caption, in float64, with all text layers explained."""

    explainer: Explainer
    image: Image.Image
    pixels: torch.Tensor
    text_tower: Tower
    text_trace: Trace


@pytest.fixture(scope="module")
def scene(small):
    random = np.random.default_rng(3)
    noise = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    clip = replace(small, preprocess=lambda image: small.preprocess(image).double())
    tower = open_text_tower(clip.model, 3)
    return Scene(
        explainer=Explainer(clip),
        image=image,
        pixels=clip.preprocess(image)[None],
        text_tower=tower,
        text_trace=tower.trace(clip.tokenizer([CAPTION])),
    )


def test_exclip_is_the_product_of_two_integrated_jacobians(small, scene):
    model = small.model
    count = scene.text_trace.tokens.shape[1]
    end = count - 1
    ids = small.tokenizer([CAPTION])[0, :count]
    positions = model.positional_embedding[:count]
    tokens = (model.token_embedding(ids) + positions).detach()
    start = tokens.clone()
    start[1:end] = 0
    change = tokens - start

    def embed_pixels(pixels):
        return plain.embed(model, "image", pixels)[0]

    def embed_tokens(tokens):
        """Unit embedding of tokens (N, D) with their positions, by the model's own modules."""
        causal = model.attn_mask[:count, :count]
        x = model.transformer(tokens[None], attn_mask=causal)
        eot = model.ln_final(x)[0, end]
        return F.normalize(eot @ model.text_projection, dim=-1)

    def integrated(function, start, change):
        """The mean Jacobian on the way from the start to the changed input, times the change."""
        total = 0
        places, weights = np.polynomial.legendre.leggauss(3)  # from -1 to 1
        for place, weight in zip(places, weights, strict=True):
            part = (place + 1) / 2
            slope = torch.autograd.functional.jacobian(function, start + part * change)
            total = total + weight / 2 * slope * change
        return total

    by_pixel = integrated(embed_pixels, 0, scene.pixels)  # (E, 1, 3, 32, 32)
    by_token = integrated(embed_tokens, start, change)  # (E, N, D)
    by_patch = by_pixel.reshape(-1, 3, 2, 16, 2, 16)
    by_patch = by_patch.sum(dim=(1, 3, 5)).flatten(1)  # (E, P)
    by_word = by_token[:, 1:end].sum(dim=-1)  # (E, N): a word is one token
    expected = by_word.T @ by_patch

    explanation = exclip(scene.explainer, scene.image, CAPTION, steps=3)
    near(explanation.image_maps.reshape(3, 4), expected, 1e-5)
    assert explanation.provenance.title == "exCLIP"


def nearest_game_of_second_order(value, players, p):
    """Coefficients of all pairs in the game of order two that is nearest to all values."""
    coalitions = np.array(list(product([0, 1], repeat=players)))
    pairs = list(combinations(range(players), 2))
    products = [coalitions[:, pair].prod(axis=1) for pair in pairs]
    constant = np.ones(len(coalitions))
    design = np.column_stack([constant, coalitions, *products])
    heights = np.array([value(coalition) for coalition in coalitions])

    probability = np.where(coalitions, p, 1 - p).prod(axis=1)
    root = np.sqrt(probability)
    weighted_design = root[:, None] * design
    coefficients, *_ = np.linalg.lstsq(weighted_design, root * heights, rcond=None)
    of_pairs = coefficients[1 + players :]
    return dict(zip(pairs, of_pairs, strict=True))


def test_fixlip_is_the_nearest_game_of_second_order_over_all_coalitions_of_words_and_patches(
    small, scene
):
    def value(coalition):
        patches, words = np.split(coalition, [4])
        visible = np.kron(patches.reshape(2, 2), np.ones((16, 16)))
        pixels = scene.pixels * torch.tensor(visible)
        caption = join(CAPTION.split(), np.flatnonzero(words))
        ids = small.tokenizer([caption])
        with torch.no_grad():
            (image,) = plain.embed(small.model, "image", pixels)
            (text,) = plain.embed(small.model, "text", ids)
        return float(image @ text)

    pairs = nearest_game_of_second_order(value, 7, p=0.3)
    expected = np.zeros((3, 4))
    for word, patch in np.ndindex(3, 4):
        expected[word, patch] = pairs[patch, 4 + word]

    maps = fixlip(scene.explainer, scene.image, CAPTION, p=0.3).image_maps
    near(maps.reshape(3, 4), expected, 1e-4)


def test_drawn_coalitions_find_an_additive_game_exactly():
    generator = torch.Generator().manual_seed(1)
    parts = torch.randn(12, generator=generator).double()
    coalitions, weights = banzhaf_weights(12, samples=200, seed=2)
    game = coalitions.double() @ parts + 3
    np.testing.assert_allclose(weights @ game, parts, atol=1e-9)


def test_fixlip_of_one_side_has_the_first_order_of_the_same_game(small, scene):
    image_tower = open_image_tower(small.model)
    trace = image_tower.trace(scene.pixels)
    text = scene.text_trace
    coalitions = torch.tensor(list(product([0.0, 1.0], repeat=4)))
    grids = coalitions.double().reshape(-1, 1, 2, 2)
    visible = F.interpolate(grids, (32, 32))
    with torch.no_grad():
        maps = fixlip_of_patches(image_tower, trace, text.embedding[None])
        scores = fixlip_of_words(scene.text_tower, text, trace.embedding[None])
        images = plain.embed(small.model, "image", scene.pixels * visible)
    similarities = images @ text.embedding[0]

    differences = []
    for is_visible in coalitions.bool().T:
        with_patch = similarities[is_visible].mean()
        without_patch = similarities[~is_visible].mean()
        differences.append(with_patch - without_patch)
    on_patches = maps[0, 0, 1:]
    near(on_patches, torch.stack(differences), 1e-6)

    explanation = fixlip(scene.explainer, scene.image, CAPTION)
    expected = scores_of(explanation.words[0])
    on_words = scores[0, 0, 1:4]
    near(on_words, expected, 1e-6)


def test_players_are_nouns_or_hold_each_word_once_at_most(tiny, picture):
    explainer = Explainer(tiny)
    with pytest.raises(GradeclipError, match="words 0 to 2, each at most once, got"):
        metagame(explainer, picture, "a red dog", over=[(0,), (0, 1)])
    with pytest.raises(GradeclipError, match="'red' has no noun: give the words in over="):
        metagame(explainer, picture, "red")


def test_cci_is_the_fall_without_a_cluster_over_the_sum_of_all_falls(tiny, pixels):
    image = pixels[:1]
    tower = open_image_tower(tiny.model, 3)
    target = directions(1, 2)
    trace = tower.trace(image)
    maps = cci(tower, trace, target, Options(seed=3), clusters=4)[0]

    recording = plain.Recording(tiny.model, "image", image)
    patches = recording.leaving[-1][0, 1:]
    clusters = KMeans(4, random_state=3)
    labels = clusters.fit_predict(patches.detach().numpy())

    def embed_without(cluster):
        hidden_tokens = torch.tensor(1 + np.flatnonzero(labels == cluster))

        def hide(_, alpha):
            alpha = alpha.index_fill(-1, hidden_tokens, 0)
            return alpha / alpha.sum(dim=-1, keepdim=True)

        return plain.Recording(tiny.model, "image", image, hide).embedding[0]

    without = torch.stack([embed_without(cluster) for cluster in range(4)])
    changes = recording.embedding - without  # (K, E)
    falls = target[0] @ changes.detach().T  # (T, K)
    parts = falls / falls.abs().sum(dim=1, keepdim=True)
    on_patches = maps[:, 1:]
    close(on_patches, parts[:, labels])
    assert maps[:, 0].eq(0).all()


@pytest.mark.parametrize("layers", [1, 3])
def test_integrated_attention_adds_up_to_what_words_bring(small, layers):
    tower = open_text_tower(small.model, layers)
    trace = tower.trace(small.tokenizer([CAPTION]))
    target = directions(1, 1).double()
    changes = []
    for layer in trace.layers:
        alpha = layer.attention[..., 1:-1]  # of the words
        values = layer.v[:, 1:-1]
        o = torch.einsum("bhrn,bnhc->brhc", alpha, values)
        changes.append(-o.flatten(2))  # (B, R, D)

    with torch.no_grad():
        scores = integrated_attention(tower, trace, target, steps=24)
        without_words = tower.embed_from_attention(trace, torch.stack(changes))
    (change,) = trace.embedding - without_words
    expected = change @ target[0, 0]
    near(scores.sum(), expected, 1e-5)
