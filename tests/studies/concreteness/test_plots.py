"""Figures of the study of words."""

import io
import re
from graphlib import TopologicalSorter

import numpy as np
import pytest
from PIL import Image
from scipy.stats import rankdata

from gradeclip_utils import Explainer
from gradeclip_utils.panels.jobs import Interrupted
from studies.concreteness.correlations import Permutation, correlate
from studies.concreteness.plots import (
    importance_fractions,
    plot_causes,
    plot_correlations,
    plot_importance,
    plot_permutations,
    plot_words,
)
from studies.concreteness.saliency import METHODS
from studies.concreteness.word_study import study_questions, word_study

from ...legible import headline

pytestmark = pytest.mark.usefixtures("legible")

WORDS = "apple dog car fruit food drink pet music game dessert insect flower weather".split()


@pytest.fixture(scope="module")
def small(bundled):
    return word_study(bundled, WORDS, each=3, draw=3000)


def texts(figure):
    own = [text.get_text() for text in figure.texts]
    return own + [text.get_text() for axes in figure.axes for text in [*axes.texts, axes.title, axes._left_title]]


def test_every_rated_word_is_a_point_and_the_headline_counts_them(small):
    figure = plot_words(small, draws=20)
    points = len(figure.axes[0].collections[0].get_offsets())
    assert headline(figure).endswith(f"{points} words") and points >= 10
    said, low, high = re.fullmatch(r"(.*) concreteness: Spearman .* \[(.*), (.*)\], .*", headline(figure)).groups()
    low, high = (float(value.replace("\N{MINUS SIGN}", "-")) for value in (low, high))
    ways = {low > 0: "saliency grows with", high < 0: "saliency falls with"}
    assert said == ways.get(True, "cannot tell if saliency goes with")
    assert "Name a word to see its captions" in " ".join(texts(figure))


def test_a_searched_word_is_marked_and_shown_with_its_captions_and_maps(small):
    figure = plot_words(small, word=" Food ", draws=20)
    assert "food" in texts(figure)
    pictures = [axes for axes in figure.axes if axes.images]
    assert len(pictures) in (4, 6), "the image and the map of two or three captions"
    assert figure.alt.endswith("; food")


def test_every_point_says_its_word_under_the_mouse(small):
    figure = plot_words(small, norm="visual", part="noun", method="grad-eclip", word="drink", draws=20)
    points = figure.axes[0].collections[0].get_offsets().tolist()
    assert [[x, y] for _, x, y, _ in figure.points] == points
    ratings = [small.table.loc[said.split(":")[0], "visual"] for *_, said in figure.points]
    np.testing.assert_allclose([x for x, _ in points], rankdata(ratings))  # words of like ratings stand apart
    ticks = zip(figure.axes[0].get_xticks(), figure.axes[0].get_xticklabels(), strict=True)
    ticks = {x: one.get_text() for x, one in ticks}
    told = {rating for (x, _), rating in zip(points, ratings, strict=True) if ticks.get(x) == f"{rating:.3g}"}
    assert {min(ratings), max(ratings)} <= told and len(told) == len(ticks) > 2


def test_a_figure_tells_how_far_it_is_and_ends_when_nobody_waits(small):
    told = []
    plot_words(small, word="music", draws=20, report=told.append)
    assert told[0] == 0 and told == sorted(told) and len(told) <= 3

    def stop(share):
        raise Interrupted

    with pytest.raises(Interrupted):
        plot_words(small, word="music", draws=20, report=stop)


def test_norm_part_and_method_choose_what_is_shown(small):
    every, nouns = (plot_words(small, part=part, draws=20) for part in ("all", "noun"))
    assert nouns.alt != every.alt
    assert "visual strength" in plot_words(small, norm="visual", draws=20).axes[0].get_xlabel()
    assert (
        "Grad-ECLIP, other image" in plot_words(small, method="grad-eclip, other image", draws=20).axes[0].get_ylabel()
    )


def test_a_caption_is_read_once_whatever_is_then_plotted(small, monkeypatch):
    plot_words(small, word="drink", draws=20)
    monkeypatch.setattr(Explainer, "interactions", None)
    assert "drink" in texts(plot_words(small, norm="visual", part="noun", word="drink", draws=20))


def test_a_word_without_a_rating_is_found_but_not_marked(small):
    unrated = small.table.index[small.table["concreteness"].isna() & (small.table["captions"] > 0)][0]
    assert any("is not in this plot" in text for text in texts(plot_words(small, word=unrated, draws=20)))


def test_what_cannot_be_shown_is_answered_with_a_sentence(small):
    with pytest.raises(ValueError, match=r"no caption of the study holds 'foood'; words like it are .*food"):
        plot_words(small, word="foood")
    with pytest.raises(ValueError, match="norm must be .*place.*, got 'weight'"):
        plot_words(small, norm="weight")
    with pytest.raises(ValueError, match="method must be .*got 'rise'"):
        plot_words(small, method="rise")
    with pytest.raises(ValueError, match="part must be one of all, .*got 'clause'"):
        plot_words(small, part="clause")


def test_fractions_of_a_caption_add_up_to_one_and_follow_the_scores(small):
    for method in METHODS:
        words = importance_fractions(small, 0, method)
        mine = small.rows[small.rows["caption"] == 0]
        positive = mine[method].clip(lower=0)
        assert [word.text.lower() for word in words] == mine["word"].tolist()
        np.testing.assert_allclose([word.score for word in words], positive / positive.sum(), atol=1e-9)
        assert all(small.scenes[0].caption[word.start : word.end] == word.text for word in words)


def test_fractions_are_drawn_one_row_a_method(small):
    figure = plot_importance(small, 1, METHODS)
    assert len(figure.axes) == len(METHODS) and "Leave one word out" in texts(figure)
    (most,) = small.rows[small.rows["caption"] == 1].nlargest(1, "leave-one-out")["word"]
    assert f"“{most}” by Leave one word out" in figure.texts[0].get_text()


def test_answers_and_permutations_are_drawn_with_their_numbers(small):
    asked = [question for question in study_questions(small) if question.figure == "leave-one-out: all words"]
    found = correlate(asked, small.rows, small.values, small.table, draws=20)
    figure = plot_correlations(found, "a title")
    assert figure.axes[0].get_yticklabels()[0].get_text() == f"leave-one-out: all words ({found['n'][0]})"
    null = np.linspace(-0.1, 0.1, 50)
    drawn = plot_permutations({"one": Permutation(0.3, null, 0.0004), "two": Permutation(0.0, null, 0.5)})
    assert {"p < 0.001", "p = 0.500"} <= set(texts(drawn))
    assert headline(drawn) == "permuted ratings do as well as the true ones within: two"


def test_figures_fit_the_column_of_a_notebook(small):
    figures = [plot_words(small, word="food", draws=20), plot_importance(small, 1, METHODS), plot_causes()]
    assert max(Image.open(io.BytesIO(figure._repr_png_())).width for figure in figures) <= 900


def test_the_causal_graph_has_one_direct_arrow_and_no_circle():
    figure = plot_causes()
    said, drawn_as = figure.alt.split(". A causal graph with arrows from ")
    arrows = [arrow.split(" to ") for arrow in drawn_as.split("; ")]
    order = TopologicalSorter({effect: set() for _, effect in arrows})
    for cause, effect in arrows:
        order.add(effect, cause)
    assert list(order.static_order())[-1] == "saliency"
    assert [cause for cause, effect in arrows if effect == "saliency"][-1] == "concreteness"
    drawn = [text for text in figure.axes[0].texts if getattr(text, "arrow_patch", None) is not None]
    assert len(drawn) == len(arrows)
    (only,) = {effect for cause, effect in arrows if cause == "concreteness"} - {
        "saliency"
    }  # all others lead through it
    ways = sum([cause, "saliency"] in arrows for cause in {effect for cause, effect in arrows if cause == only})
    assert only.startswith("role") and f"by {ways + 1} paths through the word's role" in said == headline(figure)
