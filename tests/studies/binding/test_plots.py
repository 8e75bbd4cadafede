"""Figures of the study of binding."""

import numpy as np
import pytest

from gradeclip_utils import Explainer
from gradeclip_utils.evaluation.attributes import draw_pairs
from gradeclip_utils.studies.binding.plots import plot_contrasts, plot_pair


def test_a_pair_is_drawn_with_both_images_and_all_four_similarities():
    figure = plot_pair(draw_pairs("colour", 1, nouns=16)[0], np.array([[0.5, 0.4], [0.3, 0.6]]))
    text = " ".join(t.get_text() for axes in figure.axes for t in axes.texts)
    assert all(f"{value:.3f}" in text for value in (0.5, 0.4, 0.3, 0.6)) and text.count("(true)") == 2


def test_contrasts_are_drawn_and_nothing_else(tiny, picture):
    contrast = Explainer(tiny).explain(picture, "a red dog", against="a blue dog")
    assert len(plot_contrasts([("one", contrast), ("two", contrast)]).axes) >= 4
    with pytest.raises(ValueError, match="contrastive"):
        plot_contrasts([("one", Explainer(tiny).explain(picture, "a red dog"))])
