"""METAGAME: Shapley values by their definition, and what they add up to."""

import doctest
from itertools import permutations

import numpy as np
import pytest
import torch

from gradeclip_utils import Explainer
from gradeclip_utils.towers import open_text_tower
from studies.rivals import metagame
from studies.rivals.metagame import sampled_weights, shapley_weights
from tests import plain
from tests.conftest import build, wrap

CAPTION = "a red car and a blue ball on grass"
SPANS = "a red car", "and a blue ball", "on grass"


def value_by_orders(players, value):
    """Shapley values by their first definition: the mean over all orders of what a player adds when it joins."""
    found = np.zeros((players, *np.shape(value(()))))
    orders = list(permutations(range(players)))
    for order in orders:
        for place, player in enumerate(order):
            found[player] += (value(order[: place + 1]) - value(order[:place])) / len(orders)
    return found


def game(players, seed=0):
    """A random game: a number for each set of players."""
    values = np.random.default_rng(seed).normal(size=2**players)
    return values, lambda some: values[sum(2**player for player in some)]


def said(parts, some):
    return " ".join(part for i, part in enumerate(parts) if i in some)


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(metagame).failed == 0


@pytest.mark.parametrize("players", [1, 2, 5])
def test_weights_give_the_mean_over_all_orders(players):
    values, value = game(players)
    coalitions, weights = shapley_weights(players)
    assert [sum(2**i for i in np.flatnonzero(row)) for row in coalitions] == list(range(2**players))
    np.testing.assert_allclose(weights.numpy() @ values, value_by_orders(players, value), atol=1e-12)


def test_the_index_of_a_pair_is_what_it_does_beyond_its_members():
    values, value = game(4)
    found = (shapley_weights(4, order=2)[1].numpy() @ values).tolist()
    pairs = [(j, k) for j in range(4) for k in range(j + 1, 4)]
    for (j, k), index in zip(pairs, found, strict=True):  # the Shapley value of k, with j there less without j
        others = [i for i in range(4) if i != j]
        with_j = value_by_orders(3, lambda some, j=j, others=others: value([others[i] for i in some] + [j]))
        without = value_by_orders(3, lambda some, others=others: value([others[i] for i in some]))
        assert index == pytest.approx((with_j - without)[others.index(k)])


def test_a_game_without_interaction_has_none_and_a_game_of_a_pair_alone_has_all_in_it():
    coalitions, _ = shapley_weights(4)
    weights = shapley_weights(4, order=2)[1]
    np.testing.assert_allclose(weights @ (coalitions.double() @ torch.tensor([3.0, 1, 4, 1.5]).double()), 0, atol=1e-12)
    together = (coalitions[:, 1] & coalitions[:, 2]).double()
    np.testing.assert_allclose(weights @ together, [0, 0, 0, 1, 0, 0], atol=1e-12)


def test_sampled_values_add_up_however_few_orders_are_drawn_and_come_near_with_many():
    values, value = game(6)
    exact = value_by_orders(6, value)
    errors = []
    for orders in (3, 400):
        coalitions, weights = sampled_weights(6, orders, seed=1)
        numbers = coalitions.int() @ 2 ** torch.arange(6, dtype=torch.int)
        assert len(set(numbers.tolist())) == len(numbers) <= orders * 5 + 2
        found = weights.numpy() @ values[numbers]
        assert found.sum() == pytest.approx(values[-1] - values[0])
        errors.append(np.abs(found - exact).max())
    assert errors[1] < 0.2 * errors[0]


def test_scores_of_words_are_those_of_a_person_who_writes_every_shorter_prompt(tiny, picture):
    words = "a dog and cat".split()
    found = Explainer(tiny, method="metagame").explain(picture, " ".join(words)).words[0]
    with torch.no_grad():
        image = plain.embed(tiny.model, "image", tiny.preprocess(picture)[None])[0]

        def similarity(some):
            return float(plain.embed(tiny.model, "text", tiny.tokenizer([said(words, some)]))[0].detach() @ image)

    np.testing.assert_allclose([word.score for word in found], value_by_orders(4, similarity), atol=1e-6)


def test_scores_of_a_long_prompt_add_up_to_what_it_has_beyond_the_empty_one(tiny, picture):
    prompt = "one two three four five six seven eight nine ten"
    scores = [
        [word.score for word in Explainer(tiny, method="metagame", seed=seed).explain(picture, prompt).words[0]]
        for seed in (0, 0, 1)
    ]
    explainer = Explainer(tiny)
    full, empty = (explainer.embed_images(picture) @ explainer.embed_texts([prompt, ""]).T)[0].tolist()
    np.testing.assert_allclose(np.sum(scores, axis=1), full - empty, atol=1e-6)
    assert scores[0] == scores[1] != scores[2]


@pytest.mark.parametrize("method", ["grad-eclip", "maskclip", "game", "clip-surgery"])
def test_word_maps_are_shapley_values_of_the_maps_of_shorter_prompts_and_add_up(method, tiny, picture):
    explainer = Explainer(tiny, method=method)
    found = explainer.metagame(picture, CAPTION)
    assert [word.text for word in found.words] == list(SPANS)

    def map_of(some):
        return explainer.maps(picture, explainer.embed_texts([said(SPANS, some)]))[0, 0].double().numpy()

    expected = value_by_orders(3, map_of)
    scale = np.abs(map_of(range(3))).max()
    np.testing.assert_allclose(found.maps, expected, atol=1e-5 * scale)
    np.testing.assert_allclose(found.maps.sum(0), map_of(range(3)) - map_of(()), atol=1e-5 * scale)
    pair = map_of((0, 1)) - map_of((0,)) - map_of((1,)) + map_of(())
    all_three = map_of((0, 1, 2)) - map_of((0, 2)) - map_of((1, 2)) + map_of((2,))
    np.testing.assert_allclose(found.pairs[0, 1], (pair + all_three) / 2, atol=1e-5 * scale)
    np.testing.assert_array_equal(found.pairs, found.pairs.swapaxes(0, 1))


def test_scores_of_players_add_up_to_what_the_similarity_owes_to_them(tiny, picture):
    explainer = Explainer(tiny)
    found = explainer.metagame(picture, CAPTION)
    full, without = (explainer.embed_images(picture) @ explainer.embed_texts([CAPTION, said(SPANS, ())]).T)[0].tolist()
    assert sum(word.score for word in found.words) == pytest.approx(full - without, abs=1e-6)


def test_words_of_no_player_stay_in_every_prompt(tiny, picture):
    explainer = Explainer(tiny)
    found = explainer.metagame(picture, "a red dog", over=[(1,)])
    maps = explainer.explain(picture, ["a red dog", "a dog"]).image_maps
    assert found.words[0].text == "red" and found.pairs.shape == (1, 1, 4, 4)
    np.testing.assert_allclose(found.maps[0], maps[0] - maps[1], atol=1e-6)
    assert found.origin.startswith("tiny (own weights), METAGAME of Grad-ECLIP") and found.plot() is not None


def test_what_cannot_be_played_is_refused(tiny, picture):
    explainer = Explainer(tiny)
    for over in ([(0,), (0, 1)], [(3,)], [()], []):
        with pytest.raises(ValueError, match="over must hold words 0 to 2, each at most once, got"):
            explainer.metagame(picture, "a red dog", over=over)
    with pytest.raises(ValueError, match="'red' has no noun to share its words out among: give the words in over="):
        explainer.metagame(picture, "red")
    with pytest.raises(ValueError, match="Leave one word out explains prompts only"):
        Explainer(tiny, method="leave-one-out").metagame(picture, "a dog")
    with pytest.raises(TypeError, match=r"caption must be a text, got \['a dog'\]"):
        explainer.metagame(picture, ["a dog"])


@pytest.mark.parametrize("text", [{}, {"no_causal_mask": True, "pool_type": "last"}, {"embed_cls": True}])
def test_prompts_embedded_together_are_what_each_is_alone(text):
    clip = wrap(build(text=text, custom_text=bool(text)))
    tower = open_text_tower(clip.model)
    ids = clip.tokenizer(["a red car", "a red dog", "", "a", "a red car", "red " * 30])
    with torch.no_grad():
        expected = plain.embed(clip.model, "text", ids)
    np.testing.assert_allclose(tower.embed_prompts(ids), expected, atol=1e-6)


def test_a_beginning_that_prompts_share_is_computed_once():
    clip, seen = wrap(build()), []
    tower, norm = open_text_tower(clip.model), clip.model.transformer.resblocks[0].mlp.gelu
    ids = clip.tokenizer(["a red car", "a red dog", "a red car and a dog"])
    tower.trace(ids[:1])  # the first is compared with the model's own
    norm.register_forward_hook(lambda _, entering, out: seen.append(out.shape[1]))
    tower.embed_prompts(ids)
    assert seen == [1 + 2 + 2 + 3 + 3]  # SOT, "a red", "car" and "dog", "and a dog", and three ends
