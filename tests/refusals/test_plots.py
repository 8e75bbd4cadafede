"""Plots: values that no scale has, and what figures say of what they do not draw."""

import numpy as np
import pandas as pd
from PIL import Image

from gradeclip_utils.plots import paint, plot_explanation, plot_intervals, plot_maps
from tests.refusals.cases import refused

ROW = pd.DataFrame({"mean": [0.5], "low": [0.0], "high": [1.0]})
MANY = ROW.loc[[0] * 3000].reset_index(drop=True)
HEAT = np.arange(16.0, dtype=np.float32).reshape(4, 4)
GREY = Image.new("RGB", (32, 32), "grey")

DRAWN = [
    ("vmax below zero", lambda: paint(GREY, HEAT, vmax=-1), "vmax must be 0 or more, got -1"),
    ("words for a map", lambda: paint(GREY, [["a"]]), "the map must be an array of numbers"),
    (
        "a map of 1e300",
        lambda: paint(GREY, np.full((4, 4), 1e300)),
        "a map has values up to 1e.30, got 1e.300",
    ),
    (
        "NaN in a map",
        lambda: paint(GREY, HEAT * np.nan),
        "16 of 16 values of the map are NaN or infinite",
    ),
    (
        "a map of one row",
        lambda: paint(GREY, HEAT[0]),
        r"a map has rows and columns, \(H, W\), got shape \(4,\)",
    ),
    ("no image", lambda: paint(None, HEAT), "an image must be a PIL image.*got None"),
    (
        "a box turned round",
        lambda: paint(GREY, HEAT, box=(9, 0, 1, 9)),
        r"a box is \(left, top, right, bottom\)",
    ),
    ("no maps", lambda: plot_maps(GREY, None), "maps must be a list, got None"),
    (
        "maps without titles",
        lambda: plot_maps(GREY, [HEAT]),
        "maps must be pairs of a title and a map",
    ),
    (
        "no columns",
        lambda: plot_maps(GREY, {"a": HEAT}, columns=0),
        "columns must be at least 1, got 0",
    ),
    (
        "columns without end",
        lambda: plot_maps(GREY, {"a": HEAT}, columns=10**9),
        "columns must be at most 100",
    ),
    (
        "upsample x",
        lambda: plot_maps(GREY, {"a": HEAT}, upsample="x"),
        "upsample must be 'bilinear' or 'nearest'",
    ),
    (
        "images without maps",
        lambda: plot_maps([GREY, GREY], [{"a": HEAT}]),
        "got 2 images and 1 sets of maps",
    ),
    (
        "width 1",
        lambda: plot_maps(GREY, {"a": HEAT}, width=1),
        "width must be from 3 to 100, got 1",
    ),
    (
        "width 10^6",
        lambda: plot_maps(GREY, {"a": HEAT}, width=1e6),
        "width must be from 3 to 100, got 1000000",
    ),
    (
        "3,000 rows",
        lambda: plot_intervals(MANY),
        "have 8 x 810 inches, and 500 can be drawn: draw fewer things",
    ),
    (
        "signed by a word",
        lambda: paint(GREY, HEAT, signed="no"),
        "signed must be False or True, got 'no'",
    ),
    (
        "no explanation",
        lambda: plot_explanation("x"),
        "an Explanation is needed, as Explainer returns it, got 'x'",
    ),
    (
        "an interval upside down",
        lambda: plot_intervals(ROW.assign(low=2)),
        "got mean 0.5, low 2, high 1",
    ),
    (
        "a mean beside its interval",
        lambda: plot_intervals(ROW.assign(mean=5)),
        "got mean 5, low 0, high 1",
    ),
    (
        "an interval of 1e308",
        lambda: plot_intervals(ROW.assign(high=1e308)),
        "got mean 0.5, low 0, high 1e.308",
    ),
    (
        "an interval without end",
        lambda: plot_intervals(ROW.assign(high=np.inf)),
        "got mean 0.5, low 0, high inf",
    ),
    ("a title of numbers", lambda: plot_intervals(ROW, title=5), "title must be a text, got 5"),
    (
        "no intervals",
        lambda: plot_intervals(pd.DataFrame({"mean": [1.0]})),
        "no column 'low'; it has 'mean'",
    ),
    (
        "words for means",
        lambda: plot_intervals(pd.DataFrame([["x", 0, 1]], columns=["mean", "low", "high"])),
        "the columns mean, low, high must hold numbers .could not convert string to float: 'x'",
    ),
    (
        "no rows",
        lambda: plot_intervals(pd.DataFrame(columns=["mean", "low", "high"])),
        "needs rows, and a name",
    ),
]

test_what_cannot_be_drawn_is_refused = refused(DRAWN)


def test_any_value_may_have_the_darkest_colour():
    assert paint(GREY, HEAT + 1, vmax=1e-320) == paint(GREY, HEAT + 1, vmax=1)
