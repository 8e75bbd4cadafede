"""Figures of the study of binding."""

import numpy as np
import pytest

from gradeclip_utils import Explainer
from studies.pairs import draw_pairs
from studies.binding.plots import plot_contrasts, plot_map_grid, plot_pair

from ...legible import headline

pytestmark = pytest.mark.usefixtures("legible")


def test_a_pair_is_drawn_with_both_images_and_all_four_similarities():
    figure = plot_pair(draw_pairs("colour", 1, nouns=16)[0], np.array([[0.5, 0.4], [0.3, 0.6]]))
    text = " ".join(t.get_text() for axes in figure.axes for t in axes.texts)
    assert all(f"{value:.3f}" in text for value in (0.5, 0.4, 0.3, 0.6)) and text.count("(true)") == 2
    assert headline(figure) == "2 of 2 images are nearer to their own caption"
    one = plot_pair(draw_pairs("colour", 1, nouns=16)[0], np.array([[0.5, 0.4], [0.6, 0.3]]))
    assert one.texts[0].get_text().startswith("1 of 2")


def test_contrasts_are_drawn_and_nothing_else(tiny, picture):
    contrast = Explainer(tiny).explain(picture, "a red dog", against="a blue dog")
    figure = plot_contrasts([("one", contrast), ("two", contrast)])
    ahead = 2 * int(contrast.image_maps[0].sum() > 0)
    assert len(figure.axes) >= 4 and figure.texts[0].get_text().startswith(f"in {ahead} of 2 maps more")
    with pytest.raises(ValueError, match="contrastive"):
        plot_contrasts([("one", Explainer(tiny).explain(picture, "a red dog"))])


def test_maps_in_a_grid_have_one_row_a_name_and_each_its_title(picture):
    map_ = np.linspace(-1, 1, 16).reshape(4, 4)
    figure = plot_map_grid(picture, {"one": {"red": map_, "blue": -map_}, "other": {"red": 0 * map_}})
    titles = [axes.get_title("left").replace("\n", " ") for axes in figure.axes]
    assert titles == ["one", "red", "blue", "other", "red: zero everywhere"]
    assert figure.alt.startswith("Maps of an image: one, red")
    told = plot_map_grid(picture, {"one": {"red": map_}}, "red lies on its own thing: 80 %")
    assert told.alt.startswith("red lies on its own thing: 80 %: one, red")
    assert "red lies on its own thing: 80 %" in [text.get_text() for text in told.texts]
    assert told.get_figheight() > plot_map_grid(picture, {"one": {"red": map_}}).get_figheight()
