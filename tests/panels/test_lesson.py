"""A lesson's panel without a browser: what is shown, what is refused, and which change wins."""

import re

import matplotlib.pyplot as plt
import numpy as np
import pytest

from gradeclip_utils.errors import ExplanationWarning, GradeclipError, warn
from gradeclip_utils.panels import panel
from gradeclip_utils.plots import InlineFigure


def curve(power=2, colour="red", caption="a dog"):
    """A pure draw function; text that is empty cannot be drawn."""
    if not caption.strip():
        raise ValueError("the caption is empty")
    made = InlineFigure(3, 2, f"x to the power of {power} in {colour} for {caption}")
    made.subplots().plot(np.linspace(0, 1, 20) ** power, color=colour)
    return made


@pytest.fixture
def shown():
    return panel(curve, power=(1, 5), colour=["red", "green"], caption="a dog")


def source(shown):
    return re.search(r'src="([^"]+)"', shown.image.value).group(1)


def test_a_panel_has_named_controls_and_the_figure_of_their_values(shown):
    assert [control.description for control in shown.controls.values()] == ["power", "colour", "caption"]
    assert shown.figure.alt == "x to the power of 3 in red for a dog" and shown.message == ""
    assert f'alt="{shown.figure.alt}"' in shown.image.value and "turn power, colour, caption" in repr(shown)


@pytest.mark.parametrize(("name", "value"), [("power", 5), ("colour", "green"), ("caption", "a cat")])
def test_every_control_redraws_the_figure(shown, name, value):
    before = source(shown)
    shown.controls[name].value = value
    assert str(value) in shown.figure.alt
    assert (source(shown) == before) == (name == "caption")  # which is in the alternative text alone


def test_several_controls_are_turned_at_once_and_drawn_once():
    drawn = []
    shown = panel(lambda a, b: drawn.append((a, b)) or curve(a), a=(1, 5), b=(1, 5))
    drawn.clear()
    shown.change(a=2, b=4)
    assert drawn == [(2, 4)]


def test_what_cannot_be_drawn_is_answered_and_the_last_figure_stays(shown):
    before = shown.image.value
    shown.controls["caption"].value = " "
    assert "The caption is empty" in shown.message and shown.image.value == before
    shown.change(caption="<b>a cat</b>")
    assert shown.message == "" and "<b>" not in shown.image.value


def test_a_value_that_a_control_refuses_leaves_all_controls_as_they_were(shown):
    shown.change(power=2, colour="blue")
    assert "colour cannot be 'blue'" in shown.message and shown.values["power"] == 3
    with pytest.raises(GradeclipError, match="there is no control size"):
        shown.change(size=3)


@pytest.mark.parametrize(("controls", "message"), [
    ({"size": 3}, "are not the arguments of draw"), ({}, "needs at least one control"),
    ({"power": object()}, "makes no control"),
])  # fmt: skip
def test_controls_that_draw_does_not_take_are_refused(controls, message):
    with pytest.raises(GradeclipError, match=message):
        panel(curve, **controls)


def test_only_figures_are_shown_and_faults_of_a_lesson_are_raised():
    with pytest.raises(GradeclipError, match="must return a matplotlib figure, got str"):
        panel(lambda power: "no figure", power=3)
    with pytest.raises(ZeroDivisionError):
        panel(lambda power: 1 / 0, power=3)


def test_warnings_of_explanations_are_said_in_the_panel():
    def draw(power):
        warn("the map is empty", ExplanationWarning)
        return curve(power)

    assert panel(draw, power=3).message == "the map is empty."


def test_a_figure_of_pyplot_is_shown_once():
    def draw(power):
        figure, axes = plt.subplots()
        axes.set_title(f"power {power}")
        return figure

    assert "power 3" in panel(draw, power=3).image.value and plt.get_fignums() == []
