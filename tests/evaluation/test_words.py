"""Scores of words: what is measured is what it says, on captions whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest

from gradeclip_utils import Explainer
from gradeclip_utils.evaluation.statistics import spearman
from gradeclip_utils.evaluation.words import MEASURES, Captioned, captioned_scenes, text_methods, word_rows


@pytest.fixture(scope="module")
def captions():
    return captioned_scenes(3)


@pytest.fixture(scope="module")
def rows(bundled, captions):
    return word_rows(bundled, captions)


def value(rows, one, measure, method):
    some = rows[(rows["caption"] == one.caption) & (rows["measure"] == measure) & (rows["method"] == method)]
    assert len(some) == 1
    return some["value"].iloc[0]


def test_a_scene_has_its_caption_and_one_with_a_single_noun_that_it_does_not_show():
    for true, false in zip(*[iter(captioned_scenes(20))] * 2, strict=True):
        assert true.true and true.key == false.key and sum(not shown for shown in false.shown) == 1
        told = [[one.caption[a:b] for a, b in one.nouns] for one in (true, false)]
        differs = [a != b for a, b in zip(*told, strict=True)]
        assert differs == [not shown for shown in false.shown] and len(told[0]) > 1
        place = differs.index(True)
        start = true.nouns[place][0]
        assert true.caption[:start] == false.caption[:start]
        assert true.caption[true.nouns[place][1] :] == false.caption[false.nouns[place][1] :]
        assert told[1][place] not in true.caption.split()
    again = [[one.caption for one in captioned_scenes(3, seed=seed)] for seed in (0, 0, 1)]
    assert again[0] == again[1] != again[2]


def test_every_method_has_every_measure(bundled, rows, captions):
    names = [*text_methods(Explainer(bundled).text_tower.depth), "Random"]
    assert [name for name in names if "Grad-ECLIP" in name] == [f"Grad-ECLIP, {i} of 3 layers" for i in (1, 2, 3)]
    counts = rows.groupby(["method", "measure"]).size().unstack()
    assert sorted(counts.index) == sorted(names) and set(counts.columns) == set(MEASURES)
    assert counts[["deletion", "insertion", "shown above zero", "absent above zero"]].eq(3).all(axis=None)
    compared = rows[rows["measure"] == "as leave-one-out"]
    assert set(compared["method"]) == set(names) - {"Leave one word out"}  # which is the same as itself


def test_fractions_are_counted_over_the_nouns_of_the_caption(bundled, rows, captions):
    true, false = captions[:2]
    for one in (true, false):
        words = Explainer(bundled, text_layers=1).explain(one.image, one.caption).words[0]
        nouns = [sum(word.score for word in words if word.start < b and word.end > a) for a, b in one.nouns]
        name = "Grad-ECLIP, 1 of 3 layers"
        if one.true:
            assert value(rows, one, "shown above zero", name) == np.mean([score > 0 for score in nouns])
        else:
            absent = nouns[one.shown.index(False)]
            there = [score for score, shown in zip(nouns, one.shown, strict=True) if shown]
            assert value(rows, one, "absent above zero", name) == float(absent > 0)
            assert value(rows, one, "shown above absent", name) == np.mean([score > absent for score in there])


def test_deletion_takes_the_highest_word_out_first_and_correlation_is_spearmans(bundled, rows, captions):
    one, explainer = captions[0], Explainer(bundled)
    words = Explainer(bundled, method="attention").explain(one.image, one.caption).words[0]
    alone = Explainer(bundled, method="leave-one-out").explain(one.image, one.caption).words[0]
    order = sorted(words, key=lambda word: -word.score)
    texts = []
    for taken in range(len(words) + 1):
        kept = sorted((word for word in order[taken:]), key=lambda word: word.start)
        texts.append(" ".join(word.text for word in kept))
    heights = (explainer.embed_texts(texts) @ explainer.embed_images(one.image)[0]).tolist()
    area = np.trapezoid(heights) / (len(heights) - 1)
    assert value(rows, one, "deletion", "Raw attention") == pytest.approx(area, abs=1e-5)
    expected = spearman([word.score for word in words], [word.score for word in alone])
    assert value(rows, one, "as leave-one-out", "Raw attention") == pytest.approx(expected)


def test_scores_of_words_need_no_image_and_are_those_of_an_explanation(bundled, captions):
    explainer = Explainer(bundled)
    found = explainer.score_words(
        [one.caption for one in captions], explainer.embed_images([c.image for c in captions])
    )
    for words, one in zip(found, captions, strict=True):
        explained = explainer.explain(one.image, one.caption).words[0]
        assert [word.text for word in words] == [word.text for word in explained]
        np.testing.assert_allclose([w.score for w in words], [w.score for w in explained], atol=1e-6)
    with pytest.raises(ValueError, match="each caption needs its direction, got 2 and 1"):
        explainer.score_words(["a dog", "a cat"], explainer.embed_images(captions[0].image))


def test_what_cannot_be_measured_is_refused(bundled, captions):
    with pytest.raises(ValueError, match="'mine' is RISE, which has no scores of words"):
        word_rows(bundled, captions, {"mine": ("rise", None)})
    with pytest.raises(ValueError, match="there are no captions to score"):
        word_rows(bundled, [])


def test_a_caption_whose_nouns_are_all_false_has_no_noun_to_compare(bundled, captions):
    one = replace(captions[1], shown=(False,) * len(captions[1].nouns))
    rows = word_rows(bundled, [one], {"attention": ("attention", None)})
    assert set(rows["measure"]) == {"absent above zero"} and isinstance(one, Captioned)
