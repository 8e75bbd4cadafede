"""The parts of Grad-ECLIP: each row measures the map or the scores that it names."""

import numpy as np
import pytest

from gradeclip_utils import Explainer
from gradeclip_utils.scenes import draw_scene, phrase
from studies.lesson import prompts_of, shown_scenes
from studies.methods import mean_precision
from studies.parts import (
    CONTRAST,
    IMAGE,
    IMAGE_LEAD,
    LEAD,
    PROMPT,
    TARGETS,
    absent_nouns,
    map_parts,
    measures_of,
    plot_targets,
    word_parts,
)
from studies.relevance import null_mean


@pytest.fixture(scope="module")
def scenes():
    return shown_scenes(3, whole=False)


@pytest.fixture(scope="module")
def maps(bundled, scenes):
    rows = map_parts(bundled, scenes, (1, 2))
    return rows.set_index(["spatial", "layers", "target", "scene"]).sort_index()


@pytest.fixture(scope="module")
def words(bundled, scenes):
    return word_parts(bundled, scenes).set_index(["scores", "target", "scene"])


def test_absent_nouns_are_not_in_their_scenes(scenes):
    for noun, scene in zip(absent_nouns(scenes), scenes, strict=True):
        assert noun not in [thing.noun for thing in scene.objects]


def test_rows_are_those_of_the_package_for_the_same_target(bundled, scenes, maps):
    explainer = Explainer(bundled, image_layers=2)
    mean = null_mean(explainer)
    for k, scene in enumerate(scenes):
        first, second = explainer.embed_texts(prompts_of(scene))
        directions = {
            PROMPT: [first, second],
            CONTRAST: [first - second, second - first],
            LEAD: [first - mean, second - mean],
        }
        for target, pair in directions.items():
            expected = explainer.maps(scene.image(96), np.stack(pair)).numpy()
            row = maps.loc["loosened", 2, target, k]
            precision = mean_precision(expected[0], scene.masks(96))
            assert row["average precision"] == pytest.approx(precision, abs=1e-4)


def test_parts_of_the_relevance_are_between_none_and_all(maps):
    parts = maps[["on the thing", "on the other", "on its highest", "over absent"]]
    assert parts.ge(0).all(axis=None)
    assert parts.le(1).all(axis=None)
    on_things = maps["on the thing"] + maps["on the other"]
    assert on_things.max() <= 1 + 1e-6


def test_leaving_out_agrees_with_itself_and_a_false_word_is_lower_or_not(words):
    assert words.xs("leaving out")["like leaving out"].to_numpy() == pytest.approx(1)
    assert set(words["false word"]) <= {0, 0.5, 1}
    assert set(words.index.get_level_values("target")) == {IMAGE, IMAGE_LEAD}


@pytest.mark.parametrize("noun", ["bread", "owl"])
def test_a_second_noun_counts_with_and_without_an_article(bundled, monkeypatch, noun):
    monkeypatch.setattr("studies.parts.absent_nouns", lambda scenes: [noun] * len(scenes))
    groups = [("dog", None, 1), (noun, None, 1)]  # it is there, so that it may be the higher one
    scenes = [draw_scene([seed], groups=groups) for seed in range(6)]
    rows = word_parts(bundled, scenes).set_index(["scores", "target", "scene"])["false word"]

    explainer = Explainer(bundled, words="leave-one-out")
    images = explainer.embed_images([scene.image(96) for scene in scenes])
    captions = [" and ".join([prompts_of(scene)[0], phrase(noun)]) for scene in scenes]
    for k, words in enumerate(explainer.score_words(captions, images)):
        scores = {word.text: word.score for word in words}
        present = scenes[k].objects[0].noun
        assert rows["leaving out", IMAGE, k] == float(scores[noun] < scores[present])


def test_measures_of_an_explainer_are_those_of_the_same_row(bundled, scenes, maps):
    explainer = Explainer(bundled, method="grad-eclip-softmax", image_layers=1)
    table = measures_of({"softmax": explainer}, scenes)
    columns = ["on the thing", "average precision", "over absent", "on its highest"]
    expected = maps.loc["softmax", 1, PROMPT]
    np.testing.assert_allclose(table[columns], expected[columns], atol=1e-3)


def test_the_figure_has_a_panel_a_model_and_a_line_a_target(maps):
    rows = maps.loc["loosened"].reset_index()
    figure = plot_targets({"first": rows, "second": rows})
    assert [axes.get_title("left") for axes in figure.axes] == ["first", "second"]
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert names == list(TARGETS)
