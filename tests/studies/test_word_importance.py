"""Word importance: captions with one false word, exact Shapley values, and the parts of a score."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest

from gradeclip_utils import Explainer
from gradeclip_utils.scenes import arrange
from studies import word_importance
from studies.matching import two_coloured, word_kinds


@pytest.fixture(scope="module")
def explainer(bundled):
    return Explainer(bundled)


def test_a_false_caption_differs_in_one_word_that_is_not_in_the_scene():
    captions = word_importance.false_captions(9)
    assert [false.kind for false in captions] == ["noun", "colour"] * 9
    for false in captions:
        true_words = np.array(false.scene.caption.split())
        false_words = np.array(false.caption.split())
        (changed,) = np.nonzero(true_words != false_words)
        assert false.index in changed
        true_word = true_words[false.index]
        assert set(true_words[changed]) <= {true_word, "a", "an"}

        kinds = word_kinds(false.scene)
        assert kinds[false.index] == false.kind
        false_word = false_words[false.index]
        for thing in false.scene.objects:
            assert false_word not in (thing.noun, thing.colour)


def test_shapley_values_are_means_over_all_orders_and_add_up():
    rng = np.random.default_rng(0)
    similarities = rng.normal(size=2**4)
    gains = np.zeros((24, 4))
    for gain, order in zip(gains, permutations(range(4)), strict=True):
        before = 0
        for word in order:
            after = before | 1 << word
            gain[word] = similarities[after] - similarities[before]
            before = after

    values = word_importance.shapley_values(similarities)
    np.testing.assert_allclose(values, gains.mean(axis=0))
    total = similarities[-1] - similarities[0]
    assert values.sum() == pytest.approx(total)


def test_the_parts_of_a_caption_hold_the_caption_and_the_prompts_with_one_word_left_out(explainer):
    scene = arrange(["red dog"])
    images = explainer.embed_images(scene.image(96))
    (image,) = images.double().numpy()
    similarities = word_importance.coalition_similarities(explainer, "a red dog", image)
    assert len(similarities) == 8
    whole = similarities[0b111]
    falls = whole - similarities[[0b110, 0b101, 0b011]]

    left_out = Explainer(explainer.clip, words="leave-one-out")
    (words,) = left_out.score_words(["a red dog"], images)
    scores = [word.score for word in words]
    np.testing.assert_allclose(falls, scores, atol=1e-5)


def test_a_score_that_knows_the_truth_finds_every_false_word_and_a_blind_one_half(bundled):
    captions = word_importance.false_captions(4)
    hits = word_importance.false_word_hits(bundled, captions, ["leave-one-out", "rollout"])
    assert len(hits) == 2 * len(captions)
    assert set(hits["image"]) == {0, 1, 2, 3}
    assert set(hits["below"]) <= {0, 0.5, 1}
    lowest = hits[hits["lowest"] == 1]
    assert set(lowest["below"]) == {1}
    left_out = hits[hits["method"] == "leave-one-out"]
    assert left_out["lowest"].mean() > 0.7
    assert left_out["below"].mean() > 0.7


def test_scores_by_a_method_are_those_of_an_explanation(bundled):
    (scene,) = two_coloured(1)
    image = scene.image(96)
    explainer = Explainer(bundled, words="game")
    embedding = explainer.embed_images(image)
    (words,) = explainer.score_words([scene.caption], embedding)
    expected = [word.score for word in words]
    by_method = word_importance.scores_by(bundled, [scene.caption], [image], ["game"])
    (scores,) = by_method["game"]
    assert scores == pytest.approx(expected, abs=1e-6)


def test_the_figure_of_scores_has_a_row_for_each_method_and_one_for_shapley_values(bundled):
    caption = word_importance.shown_caption(word_importance.false_captions(12))
    figure = word_importance.plot_scores(bundled, caption, ["leave-one-out", "rollout"])
    _, axes = figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["Exact Shapley values", "Leave one word out", "Attention rollout"]
    words = [label.get_text() for label in axes.get_xticklabels()]
    assert words == caption.caption.split()


def test_agreement_of_shapley_values_with_themselves_is_one():
    shapley = pd.DataFrame(
        {
            "image": [0, 0, 0, 1, 1],
            "index": [0, 1, 2, 0, 1],
            "shapley": [0.1, 0.3, 0.2, 0.0, 1.0],
        }
    )
    values = shapley["shapley"]
    same = shapley.assign(method="same", score=2 * values)
    opposite = shapley.assign(method="opposite", score=-values)
    scores = pd.concat([same, opposite]).drop(columns="shapley")
    rows = word_importance.agreement(scores, shapley)
    means = rows.groupby("method")["correlation"].mean()
    assert means["same"] == pytest.approx(1)
    assert means["opposite"] == pytest.approx(-1)


def test_the_highest_word_of_each_caption_is_counted_if_it_is_a_function_word():
    scores = pd.DataFrame(
        {
            "method": "m",
            "image": [0, 0, 1, 1],
            "kind": ["function", "noun", "function", "noun"],
            "score": [0.2, 0.1, 0.1, 0.2],
        }
    )
    rows = word_importance.function_word_wins(scores)
    assert rows["wins"].tolist() == [True, False]


def test_the_parts_of_a_score_multiply_and_add_up_to_the_score(explainer):
    scene = arrange(["red dog"])
    image = scene.image(96)
    parts = word_importance.score_parts(explainer, image, "a red dog")
    published = explainer.with_method(words="grad-eclip")
    embedding = explainer.embed_images(image)
    (words,) = published.score_words(["a red dog"], embedding)
    product = parts["lam"] * parts["gradient"]
    np.testing.assert_allclose(parts["product"], product, atol=1e-6)
    total = parts.groupby("word")["product"].sum()
    for word in words:
        assert total[word.text] == pytest.approx(word.score, abs=1e-6)


def test_a_comma_is_a_word_of_its_own_in_the_tables_of_scores_and_of_shapley_values(bundled):
    scene = arrange(["dog", "piano", "drum"])
    assert "," in scene.caption
    scores = word_importance.score_table(bundled, [scene], ["leave-one-out"])
    shapley = word_importance.shapley_table(bundled, [scene])
    assert scores["word"].tolist() == shapley["word"].tolist()
    is_mark = scores["kind"] == "punctuation"
    assert is_mark.sum() == scene.caption.count(",")


def test_scores_of_a_caption_beside_another_image_differ_from_those_beside_its_own(bundled):
    scenes = two_coloured(2)
    table = word_importance.score_table(bundled, scenes, ["grad-eclip"])
    swapped = word_importance.score_table(bundled, scenes, ["grad-eclip"], shown=scenes[::-1])
    assert table["word"].equals(swapped["word"])
    assert not np.allclose(table["score"], swapped["score"])


def test_what_both_words_lose_is_measured_beside_what_each_loses(bundled):
    rows = word_importance.redundancy(bundled, 5)
    assert len(rows) == 5
    assert (rows["without_both"] > 0).mean() > 0.5
