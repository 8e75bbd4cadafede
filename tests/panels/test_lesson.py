"""A lesson's panel without a browser: what is shown, what is refused, and which change wins."""

import re

import matplotlib.pyplot as plt
import numpy as np
import pytest

from gradeclip_utils.errors import ExplanationWarning, GradeclipError, warn
from gradeclip_utils.panels import panel
from gradeclip_utils.plots.figures import new_figure


def curve(power=2, colour="red", caption="a dog"):
    """A function that draws; an empty text cannot be drawn."""
    if not caption.strip():
        raise ValueError("the caption is empty")
    figure = new_figure(3, 2, f"x to the power of {power} in {colour} for {caption}")
    figure.subplots().plot(np.linspace(0, 1, 20) ** power, color=colour)
    return figure


@pytest.fixture
def curves():
    return panel(curve, power=(1, 5), colour=["red", "green"], caption="a dog")


def image_of(panel):
    """The HTML of the image."""
    return panel.children[-1].value


def source_of(panel):
    return re.search(r'src="([^"]+)"', image_of(panel)).group(1)


def test_a_panel_has_named_controls_and_the_figure_of_their_values(curves):
    names = [control.description for control in curves.controls.values()]
    assert names == ["power", "colour", "caption"]
    assert curves.figure.alt == "x to the power of 3 in red for a dog"
    assert curves.message == ""
    image = image_of(curves)
    assert f'alt="{curves.figure.alt}"' in image
    assert "turn power, colour, caption" in repr(curves)
    assert curves._repr_mimebundle_()["text/html"] == image  # of a page without a kernel


@pytest.mark.parametrize(("name", "value"), [("power", 5), ("colour", "green")])
def test_every_control_redraws_the_figure(curves, name, value):
    before = source_of(curves)
    curves.controls[name].value = value
    assert str(value) in curves.figure.alt
    assert source_of(curves) != before


def test_what_cannot_be_drawn_is_answered_and_the_last_figure_stays(curves):
    before = image_of(curves)
    caption = curves.controls["caption"]
    caption.value = " "
    assert "the caption is empty" in curves.message
    assert image_of(curves) == before
    caption.value = "<b>a cat</b>"
    assert curves.message == ""
    assert "<b>" not in image_of(curves)


@pytest.mark.parametrize(
    ("controls", "message"),
    [({"size": 3}, "are not the arguments of draw"), ({"power": object()}, "makes no control")],
)
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

    before = plt.get_fignums()
    assert "power 3" in image_of(panel(draw, power=3))
    assert plt.get_fignums() == before
