"""Plots: values that no scale has, and what figures say of what they do not draw."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from gradeclip_utils import read_image
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.plots import paint, plot_intervals, plot_maps
from tests.refusals.cases import named

HEAT = np.arange(16.0, dtype=np.float32).reshape(4, 4)
GREY = Image.new("RGB", (32, 32), "grey")

DRAWN = [
    ("vmax below zero", lambda: paint(GREY, HEAT, vmax=-1), "vmax must be 0 or more, got -1"),
    ("vmax NaN", lambda: paint(GREY, HEAT, vmax=np.nan), "vmax must be 0 or more, got nan"),
    ("words for a map", lambda: paint(GREY, [["a"]]), "the map must be an array of numbers"),
    ("complex numbers in a map", lambda: paint(GREY, HEAT * 1j), "the map must be an array of numbers"),
    ("NaN in a map", lambda: paint(GREY, HEAT * np.nan), "16 of 16 values of the map are NaN or infinite"),
    ("a map of one row", lambda: paint(GREY, HEAT[0]), r"a map has rows and columns, \(H, W\), got shape \(4,\)"),
    ("maps of three prompts", lambda: paint(GREY, [HEAT] * 3), r"a map has rows and columns, .*\(3, 4, 4\)"),
    ("no image", lambda: paint(None, HEAT), "an image must be a PIL image.*got None"),
    ("a box turned round", lambda: paint(GREY, HEAT, box=(9, 0, 1, 9)), r"a box is \(left, top, right, bottom\)"),
    ("a box of three", lambda: paint(GREY, HEAT, box=(0, 0, 4)), r"a box is .*, got \(0, 0, 4\)"),
    ("a box of words", lambda: paint(GREY, HEAT, box="dogs"), "a box must be an array of numbers, got 'dogs'"),
    ("a box of NaN", lambda: paint(GREY, HEAT, box=(0, 0, np.nan, 9)), "1 of 4 values of a box are NaN"),
    ("no maps", lambda: plot_maps(GREY, None), "maps must be a list, got None"),
    ("maps without titles", lambda: plot_maps(GREY, [HEAT]), "maps must be pairs of a title and a thing"),
    ("maps by number", lambda: plot_maps(GREY, {5: HEAT}), "maps must be pairs of a title and a thing, got .5, "),
    ("maps of no image", lambda: plot_maps(None, {"a": HEAT}), "an image must be a PIL image.*got None"),
    ("columns -1", lambda: plot_maps(GREY, {"a": HEAT}, columns=-1), "columns must be at least 1, got -1"),
    ("no columns", lambda: plot_maps(GREY, {"a": HEAT}, columns=0), "columns must be at least 1, got 0"),
    ("upsample x", lambda: plot_maps(GREY, {"a": HEAT}, upsample="x"), "upsample must be 'bilinear' or 'nearest'"),
    ("images without maps", lambda: plot_maps([GREY, GREY], [{"a": HEAT}]), "got 2 images and 1 sets of maps"),
    ("upsample in paint", lambda: paint(GREY, HEAT, upsample="x"), "upsample must be"),
    ("width 1", lambda: plot_maps(GREY, {"a": HEAT}, width=1), "width must be 3 or more, got 1"),
    ("no intervals", lambda: plot_intervals(pd.DataFrame({"mean": [1.0]})), "no column 'low'; it has 'mean'"),
    ("words for means", lambda: plot_intervals(pd.DataFrame([["x", 0, 1]], columns=["mean", "low", "high"])),
     "the columns mean, low, high must hold numbers .could not convert string to float: 'x'"),
    ("no rows", lambda: plot_intervals(pd.DataFrame(columns=["mean", "low", "high"])), "needs rows, and a name"),
]  # fmt: skip


@pytest.mark.parametrize(("draw", "message"), named(DRAWN))
def test_what_cannot_be_drawn_is_refused(draw, message):
    with pytest.raises(GradeclipError, match=message):
        draw()


def test_an_image_of_32_bits_a_channel_is_scaled_or_refused_and_never_clipped_to_white(tmp_path):
    for most, shown in ((65535, 255), (200, 200)):
        values = np.linspace(0, most, 16).astype(np.int32).reshape(4, 4)
        Image.fromarray(values).save(tmp_path / "x.tif")
        found = np.asarray(read_image(tmp_path / "x.tif"))[..., 0]
        assert found.max() == shown and len(np.unique(found)) == 16
    Image.fromarray(np.full((2, 2), 70000, np.int32)).save(tmp_path / "x.tif")
    with pytest.raises(GradeclipError, match="beyond 16 bits; scale it to 8 bits"):
        read_image(tmp_path / "x.tif")
