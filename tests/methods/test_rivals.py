"""Rivals: their definitions, worked out over all coalitions or by full Jacobians, against what they compute."""

import copy
from itertools import permutations, product

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from torch.nn import functional as F

from gradeclip_utils import METHODS, Explainer
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.methods import Options
from gradeclip_utils.towers import open_image_tower, open_text_tower
from studies.rivals import RIVALS, exclip, fixlip, metagame
from studies.rivals.attention import cci, integrated_attention
from studies.rivals.metagame import sampled_weights
from studies.rivals.second_order import banzhaf_weights, fixlip_of_patches, fixlip_of_words
from tests import plain
from tests.conftest import build, wrap
from tests.methods.helpers import close, directions

CAPTION = "a red car"
NOUNS, SPANS = "a red car and a blue ball on grass", ("a red car", "and a blue ball", "on grass")


def near(found, expected, tolerance):
    found, expected = (torch.as_tensor(np.asarray(one)) for one in (found, expected))
    assert found.shape == expected.shape and expected.abs().max() > 0
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


def said(parts, some):
    return " ".join(part for i, part in enumerate(parts) if i in some)


def test_rivals_are_registered_beside_the_methods_of_the_package():
    assert [METHODS[rival.name] for rival in RIVALS] == list(RIVALS)
    assert "Attributions All the Way Down?" in METHODS["metagame"].paper


def value_by_orders(players, value):
    """Shapley values by their first definition: the mean over all orders of what a player adds when it joins."""
    found = np.zeros((players, *np.shape(value(()))))
    orders = list(permutations(range(players)))
    for order in orders:
        for place, player in enumerate(order):
            found[player] += (value(order[: place + 1]) - value(order[:place])) / len(orders)
    return found


def test_sampled_values_add_up_however_few_orders_are_drawn_and_come_near_with_many():
    values = np.random.default_rng(0).normal(
        size=2**6
    )  # a random game: a number for each set of players
    exact, errors = value_by_orders(6, lambda some: values[sum(2**player for player in some)]), []
    for orders in (3, 400):
        coalitions, weights = sampled_weights(6, orders, seed=1)
        found = weights.numpy() @ values[coalitions.int() @ 2 ** torch.arange(6, dtype=torch.int)]
        assert found.sum() == pytest.approx(values[-1] - values[0])
        errors.append(np.abs(found - exact).max())
    assert errors[1] < 0.2 * errors[0]


@pytest.mark.parametrize("full", [False, True])
def test_scores_of_words_are_shapley_values_of_the_similarity_of_every_shorter_prompt(
    full, tiny, picture
):
    if full:  # a prompt without padding, for an encoder whose padding is hidden by its id
        tiny = wrap(
            build(text={"embed_cls": True, "pad_id": 0, "context_length": 6}, custom_text=True)
        )
    words, explainer = "a dog and cat".split(), Explainer(tiny, method="metagame")
    found = explainer.explain(picture, " ".join(words)).words[0]
    image = explainer.embed_images(picture)[0]

    def similarity(some):
        return float(
            plain.embed(tiny.model, "text", tiny.tokenizer([said(words, some)]))[0].detach() @ image
        )

    expected = value_by_orders(4, similarity)
    np.testing.assert_allclose([word.score for word in found], expected, atol=1e-6)
    maps = metagame(Explainer(tiny), picture, " ".join(words), over=[(i,) for i in range(4)])
    np.testing.assert_allclose([word.score for word in maps.words[0]], expected, atol=1e-6)


def test_metagame_maps_are_shapley_values_of_the_maps_of_shorter_prompts_and_add_up(tiny, picture):
    explainer = Explainer(tiny, method="clip-surgery")
    found = metagame(explainer, picture, NOUNS)
    assert [word.text for word in found.words[0]] == list(SPANS)

    def map_of(some):
        return (
            explainer.maps(picture, explainer.embed_texts([said(SPANS, some)]))[0, 0]
            .double()
            .numpy()
        )

    near(found.image_maps, value_by_orders(3, map_of).astype(np.float32), 1e-5)
    near(found.image_maps.sum(0), (map_of(range(3)) - map_of(())).astype(np.float32), 1e-5)
    pair = map_of((0, 1)) - map_of((0,)) - map_of((1,)) + map_of(())
    all_three = map_of((0, 1, 2)) - map_of((0, 2)) - map_of((1, 2)) + map_of((2,))
    near(found.pairs[0, 1], ((pair + all_three) / 2).astype(np.float32), 1e-4)
    full, without = (explainer.embed_images(picture) @ explainer.embed_texts([NOUNS, ""]).T)[
        0
    ].tolist()
    assert sum(word.score for word in found.words[0]) == pytest.approx(full - without, abs=1e-6)
    assert found.provenance.title == f"METAGAME of {explainer.method.title}"


def test_words_of_no_player_stay_in_every_prompt(tiny, picture):
    explainer = Explainer(tiny)
    found = metagame(explainer, picture, "a red dog", over=[(1,)])
    maps = explainer.explain(picture, ["a red dog", "a dog"]).image_maps
    assert found.words[0][0].text == "red" and found.pairs.shape == (1, 1, 4, 4)
    np.testing.assert_allclose(found.image_maps[0], maps[0] - maps[1], atol=1e-6)


@pytest.fixture(scope="module")
def small():
    """A model with four patches in float64: all coalitions and full Jacobians are cheap."""
    return wrap(build({"patch_size": 16}).double())


@pytest.fixture(scope="module")
def scene(small):
    """An explainer of it, an image with its pixels, and the caption's trace with all layers explained."""
    from PIL import Image

    small = wrap(small.model)
    image = Image.fromarray(np.random.default_rng(3).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    object.__setattr__(small, "preprocess", lambda one, own=small.preprocess: own(one).double())
    explainer, tower = Explainer(small), open_text_tower(small.model, 3)
    return (
        explainer,
        image,
        small.preprocess(image)[None],
        tower,
        tower.trace(small.tokenizer([CAPTION])),
    )


def test_exclip_is_the_product_of_two_integrated_jacobians(small, scene):
    explainer, image, pixels, _, text = scene
    model, end = small.model, text.tokens.shape[1] - 1
    found = exclip(explainer, image, CAPTION, steps=3)
    places, weights = np.polynomial.legendre.leggauss(3)
    ids = small.tokenizer([CAPTION])[0, : end + 1]
    tokens = (model.token_embedding(ids) + model.positional_embedding[: end + 1]).detach()
    start = tokens.clone()
    start[1:end] = 0

    def prompt_of(tokens):
        """Unit embedding of tokens (N, D) with their positions, by the model's own modules."""
        x = model.transformer(tokens[None], attn_mask=model.attn_mask[: end + 1, : end + 1])
        return F.normalize(model.ln_final(x)[0, end] @ model.text_projection, dim=-1)

    of_pixels = of_tokens = 0
    for place, weight in zip((places + 1) / 2, weights / 2, strict=True):
        slope = torch.autograd.functional.jacobian(
            lambda x: plain.embed(model, "image", x)[0], place * pixels
        )
        of_pixels = of_pixels + weight * slope * pixels  # (E, 1, 3, 32, 32)
        at = start + place * (tokens - start)
        slope = torch.autograd.functional.jacobian(prompt_of, at)
        of_tokens = of_tokens + weight * slope * (tokens - start)  # (E, N, D)
    of_patches = (
        of_pixels[:, 0].sum(1).unflatten(1, (2, 16)).unflatten(3, (2, 16)).sum((2, 4)).flatten(1)
    )  # (E, P)
    expected = torch.einsum("en,ep->np", of_tokens.sum(-1), of_patches)[1:end]
    near(found.image_maps.reshape(3, 4), expected.float(), 1e-5)  # a word is one token here
    assert found.provenance.title == "exCLIP"


def nearest_game_of_second_order(values, players, p):
    """Coefficients of all pairs in the game of order two that is nearest to the values of all coalitions."""
    coalitions = np.array(list(product([0, 1], repeat=players)))
    pairs = [(i, j) for i in range(players) for j in range(i)]
    design = np.column_stack(
        [
            np.ones(len(coalitions)),
            coalitions,
            *(coalitions[:, i] * coalitions[:, j] for i, j in pairs),
        ]
    )
    root = np.sqrt(np.prod(np.where(coalitions, p, 1 - p), axis=1))
    heights = np.array([values(row) for row in coalitions])
    fitted = np.linalg.lstsq(root[:, None] * design, root * heights, rcond=None)[0]
    return dict(zip(pairs, fitted[1 + players :], strict=True))


def test_fixlip_is_the_nearest_game_of_second_order_over_all_coalitions_of_words_and_patches(
    small, scene
):
    explainer, image, pixels, _, _ = scene

    def value(row):
        there = (
            torch.tensor(row[:4], dtype=torch.float64)
            .reshape(2, 2)
            .kron(torch.ones(16, 16, dtype=torch.float64))
        )
        with torch.no_grad():
            seen = plain.embed(small.model, "image", pixels * there)[0]
            caption = said(CAPTION.split(), np.flatnonzero(row[4:]))
            return float(seen @ plain.embed(small.model, "text", small.tokenizer([caption]))[0])

    pairs = nearest_game_of_second_order(value, 7, p=0.3)
    expected = np.array([[pairs[4 + j, i] for i in range(4)] for j in range(3)])
    near(
        fixlip(explainer, image, CAPTION, p=0.3).image_maps.reshape(3, 4),
        expected.astype(np.float32),
        1e-4,
    )


def test_drawn_coalitions_find_an_additive_game_exactly():
    parts = np.random.default_rng(1).normal(size=12)
    coalitions, weights = banzhaf_weights(12, samples=200, seed=2)
    np.testing.assert_allclose(
        weights @ (coalitions.double() @ torch.from_numpy(parts) + 3), parts, atol=1e-9
    )


def test_fixlip_of_one_side_has_the_first_order_of_the_same_game(small, scene):
    explainer, image, pixels, tower, text = scene
    image_tower = open_image_tower(small.model)
    trace = image_tower.trace(pixels)
    with torch.no_grad():
        found = fixlip_of_patches(image_tower, trace, text.embedding[None])[0, 0, 1:]
        coalitions = torch.tensor(list(product([0.0, 1.0], repeat=4)), dtype=torch.float64)
        shown = F.interpolate(coalitions.unflatten(1, (1, 2, 2)), (32, 32))
        seen = plain.embed(small.model, "image", pixels * shown) @ text.embedding[0]
        scores = fixlip_of_words(tower, text, trace.embedding[None])[0, 0, 1:4]
    adds = [
        seen[coalitions[:, i] == 1].mean() - seen[coalitions[:, i] == 0].mean() for i in range(4)
    ]
    near(found, torch.stack(adds), 1e-6)
    near(scores, [word.score for word in fixlip(explainer, image, CAPTION).words[0]], 1e-6)


@pytest.mark.parametrize("over", [[(0,), (0, 1)], [(3,)], [()]])
def test_players_hold_each_word_once_at_most(tiny, picture, over):
    message = "over must hold words 0 to 2, each at most once, got"
    with pytest.raises(GradeclipError, match=message):
        metagame(Explainer(tiny), picture, "a red dog", over)


def test_a_caption_without_a_noun_has_no_players(tiny, picture):
    with pytest.raises(GradeclipError, match="'red' has no noun: give the words in over="):
        metagame(Explainer(tiny), picture, "red")


def test_cci_is_the_fall_without_a_cluster_over_the_sum_of_all_falls(tiny, pixels):
    tower, target, leaving = open_image_tower(tiny.model, 3), directions(1, 2), []
    found = cci(tower, tower.trace(pixels[:1]), target, Options(seed=3), clusters=4)[0]
    model = copy.deepcopy(tiny.model)
    model.visual.transformer.resblocks[-1].register_forward_hook(
        lambda _, entering, out: leaving.append(out)
    )
    with torch.no_grad():
        whole = plain.embed(model, "image", pixels[:1])[0]
    labels = KMeans(4, random_state=3).fit_predict(leaving[0][0, 1:].numpy())

    def hidden_everywhere(patches):
        def change(_, alpha):
            alpha = alpha.clone()
            alpha[..., [1 + patch for patch in patches]] = 0
            return alpha / alpha.sum(-1, keepdim=True)

        with plain.attention(change), torch.no_grad():
            return plain.embed(tiny.model, "image", pixels[:1])[0]

    falls = torch.stack(
        [target[0] @ (whole - hidden_everywhere(np.flatnonzero(labels == k))) for k in range(4)]
    )
    close(found[:, 1:], (falls / falls.abs().sum(0)).T[:, labels])
    assert found[:, 0].eq(0).all()


@pytest.mark.parametrize("layers", [1, 3])
def test_integrated_attention_adds_up_to_what_words_bring(small, layers):
    tower = open_text_tower(small.model, layers)
    trace = tower.trace(small.tokenizer([CAPTION]))
    with torch.no_grad():
        target = directions(1, 1).double()
        found = integrated_attention(tower, trace, target, steps=24)[0, 0]
        gone = [
            -torch.einsum("hn,nhc->hc", layer.attention[0, :, 0, 1:-1], layer.v[0, 1:-1]).flatten()
            for layer in trace.layers
        ]
        less = tower.embed_from_attention(trace, torch.stack(gone)[:, None, None])
    near(found.sum(), ((trace.embedding - less)[0] @ target[0, 0]), 1e-5)
