"""The playground: its answers are the model's own, and what cannot be asked is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gradeclip_utils import Explainer
from gradeclip_utils.images import onto_image
from gradeclip_utils.panels.jobs import Interrupted
from gradeclip_utils.panels.lesson import panel
from gradeclip_utils.plots import InlineFigure, draw_heatmap
from studies.binding.cached_explainer import CachedExplainer
from studies.binding.playground import playground, playground_scene

pytestmark = pytest.mark.usefixtures("legible")


def test_the_playground_shows_the_models_own_similarities(bundled_shape):
    answers = playground(CachedExplainer(bundled_shape))
    things = ("car", "red", "upper left"), ("cat", "blue", "lower right")
    scene, false = playground_scene(things, "colours exchanged")
    assert (scene.caption, false) == ("a red car and a blue cat", "a blue car and a red cat")
    plain = Explainer(bundled_shape).explain(scene.image(), [scene.caption, false]).similarity
    text = " ".join(t.get_text() for axes in answers.figure().axes for t in axes.texts)
    assert all(f"{value:.3f}" in text.replace("\N{MINUS SIGN}", "-") for value in plain)


def test_the_maps_of_the_playground_are_the_explainers_own(bundled_shape):
    answers = playground(CachedExplainer(bundled_shape))
    explainer, (true, false) = Explainer(bundled_shape), answers.captions
    own = explainer.explain(answers.image, [true, false]).image_maps
    lead = explainer.explain(answers.image, true, against=false).image_maps[0]
    for found, expected in zip(answers.maps.values(), [*np.maximum(own, 0), lead], strict=False):
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    assert list(answers.maps)[3:] == ["the word 'red'", "the word 'blue'"]


def test_autocast_around_the_playground_changes_nothing(bundled_shape):
    plain, cached = playground(CachedExplainer(bundled_shape)), CachedExplainer(bundled_shape)
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            around = playground(cached)
        assert around.similarity == plain.similarity


def test_the_playground_tells_how_far_it_is_and_ends_when_nobody_waits(bundled_shape):
    cached, told = CachedExplainer(bundled_shape), []
    playground(cached, report=told.append)
    assert told == [0, 0.5]

    def stop(fraction):
        if fraction:
            raise Interrupted

    with pytest.raises(Interrupted):
        playground(cached, second="dog", report=stop)
    assert playground(cached, second="dog").captions[0] == "a red car and a blue dog"


def has_scale(axes):
    return any(text.get_gid() == "scale" for text in axes.texts)


def test_the_figure_of_the_playground_has_every_map_on_its_scale(bundled_shape):
    answers = playground(CachedExplainer(bundled_shape))
    shown = [axes for axes in answers.figure().axes if axes.images]
    drawn = {axes.get_title(loc="left").replace("\n", " "): axes.images[0].get_array() for axes in shown}
    assert list(drawn) == ["image", *answers.maps]
    scales = {axes.get_title(loc="left").replace("\n", " ") for axes in shown if has_scale(axes)}
    assert scales == set(answers.maps) - {"the true caption"}, "the first map has the scale of the second"
    shared = max(map_.max() for map_ in list(answers.maps.values())[:2])
    for i, (name, map_) in enumerate(answers.maps.items()):
        axes, heat = InlineFigure(2, 2).add_axes((0, 0, 1, 1)), onto_image(map_, answers.box, answers.image.size)
        draw_heatmap(axes, answers.image, heat, signed=i == 2, vmax=shared if i < 2 else np.abs(map_).max())
        assert np.array_equal(drawn[name], axes.images[0].get_array())


def test_exchanged_places_are_asked_by_a_relation():
    things = ("car", "no colour", "upper left"), ("cat", "red", "lower left")
    scene, false = playground_scene(things, "places exchanged")
    assert (scene.caption, false) == ("a car above a red cat", "a car below a red cat")


def test_the_playground_refuses_what_cannot_be_asked(bundled_shape):
    cached = CachedExplainer(bundled_shape)
    for change, message in (
        ({"second": "car"}, "both are a car"),
        ({"second_place": "upper left"}, "both are upper left"),
        ({"second_colour": "red"}, "nothing to exchange between 'red' and 'red': choose two different colours"),
        ({"first": "zebra crossing"}, "'zebra crossing' is not in the world"),
        ({"first_colour": "teal"}, "a colour must be one of red, .*got 'teal'"),
        ({"question": "why"}, "the question must be 'colours exchanged' or"),
    ):
        with pytest.raises(ValueError, match=message):
            playground(cached, **change)


def test_a_gap_that_three_digits_hide_is_said_in_five(bundled_shape):
    answers = playground(CachedExplainer(bundled_shape))
    for similarity, gap in (((0.46, 0.45985), "+0.00015: the model is right"), ((0.46, 0.479), "\u22120.019: the")):
        assert gap in replace(answers, similarity=similarity).gap


def test_the_playground_is_a_panel_that_keeps_the_last_good_view(bundled_shape):
    choices = {"first_colour": ["red", "green", "blue"], "first_place": ["upper left", "upper right"]}
    cached = CachedExplainer(bundled_shape)
    shown = panel(lambda **asked: playground(cached, **asked).figure(), **choices)
    before = shown.figure
    shown.change(first_colour="blue")
    assert "nothing to exchange" in shown.message and shown.figure is before
    shown.change(first_colour="green")
    assert not shown.message and shown.figure is not before
