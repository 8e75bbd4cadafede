"""The measure of what can be read in a figure: it finds what cannot."""

from gradeclip_utils.plots import InlineFigure

from .legible import unreadable


def test_a_text_that_is_too_small_or_upon_another_is_found():
    figure = InlineFigure(8, 2)
    figure.text(0.1, 0.5, "small", fontsize=7.5)
    figure.text(0.1, 0.2, "one")
    figure.text(0.12, 0.2, "other")
    assert unreadable(figure) == ["'small' has 8.6 points", "'one' lies upon 'other'"]


def test_a_figure_that_a_page_makes_smaller_needs_larger_type():
    figure = InlineFigure(12, 2)
    figure.text(0, 0.5, "left", fontsize=12)
    figure.text(1, 0.5, "right", fontsize=9, ha="right")
    assert unreadable(figure) == ["'right' has 7.0 points"]


def test_ticks_of_hidden_axes_are_not_seen_and_those_of_others_are():
    figure = InlineFigure(4, 2)
    axes = figure.add_axes((0.2, 0.2, 0.6, 0.6))
    axes.tick_params(labelsize=5)
    assert len(unreadable(figure)) > 3
    axes.set_axis_off()
    axes.tick_params(labelsize=10)
    assert not unreadable(figure)
