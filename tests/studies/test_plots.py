"""Groups of means with their intervals, as several lessons draw them."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from gradeclip_utils.measures.statistics import summarise
from studies.plots import plot_groups

pytestmark = pytest.mark.usefixtures("legible")

NUMBERS = {"mean": [0.4, 0.6], "low": [0.3, 0.5], "high": [0.5, 0.7]}
TABLE = pd.DataFrame({"kind": ["a", "b"], **NUMBERS, "who": ["x", "y"]})


@pytest.fixture(scope="module")
def moved():
    rng = np.random.default_rng(0)
    rows = [
        {"image": i, "prompt": prompt, "second": second, "moved": rng.normal()}
        for i in range(5) for prompt in ("red", "blue", "neither") for second in ("tinted", "plain")
        if (prompt, second) != ("blue", "plain")
    ]  # fmt: skip
    return summarise(pd.DataFrame(rows), "moved", by=["prompt", "second"])


def test_groups_are_drawn_at_their_means_with_their_intervals(moved):
    axes = plot_groups(moved, "prompt", "second", label="moved", reference=0, reference_label="nothing").axes[0]
    lines = [line.get_xdata() for line in axes.lines if line.get_marker() in ("o", "s")]
    drawn = np.concatenate([np.asarray(x, float) for x in lines])
    assert np.allclose(sorted(drawn[np.isfinite(drawn)]), sorted(moved["mean"]))
    bars = [line.get_xdata() for line in axes.lines if line.get_marker() == "None" and len(line.get_xdata()) == 2]
    bars = sorted(tuple(bar) for bar in bars if np.isfinite(bar).all() and bar[0] != bar[1])
    assert np.allclose(bars, sorted(zip(moved["low"], moved["high"], strict=True)))
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["tinted", "plain", "nothing"]
    written = {text.get_text().replace("\N{MINUS SIGN}", "-") for text in axes.texts}
    assert written == {f"{value:.2f}" for value in moved["mean"]}


def test_panels_share_their_rows_and_each_has_a_line_of_its_own():
    figure = plot_groups({"one": TABLE, "two": TABLE}, "kind", "who", reference={"one": 0.5}, title="both")
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["a", "b"]
    dashed = [sum(line.get_linestyle() == "--" for line in axes.lines) for axes in figure.axes]
    assert dashed == [1, 0] and "two b y: 0.600, 0.500 to 0.700" in figure.alt


def test_long_names_and_titles_keep_a_figure_within_the_column_of_a_notebook():
    long = TABLE.assign(kind=["a row with a name of some forty letters in it", "b"], who=["of another image", "own"])
    title = "A claim that was judged, in a sentence of a hundred letters and more, as titles of figures say it: yes"
    for panels in ({title: long}, {title: long, "other": long, "third": long}):
        figure = plot_groups(panels, "kind", "who", label="a fraction", reference_label="a guess", reference=0)
        assert Image.open(io.BytesIO(figure._repr_png_())).width <= 900
        words = figure.texts[0].get_text() or figure.axes[0].get_title("left")
        assert " ".join(words.split()) == title and "\n" in words and "\N{WHITE SQUARE}" not in words


def test_what_a_table_lacks_is_named():
    with pytest.raises(ValueError, match="no column 'high'"):
        plot_groups({"one": TABLE.drop(columns="high")}, "kind")
    with pytest.raises(ValueError, match="no column 'third'"):
        plot_groups(TABLE, "kind", "third")
    with pytest.raises(ValueError, match="nobody"):
        plot_groups(TABLE, "kind", order=["nobody"])
    with pytest.raises(ValueError, match="it has none"):
        plot_groups({}, "kind")
