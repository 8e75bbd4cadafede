"""Figures: what matplotlib draws is whole and readable at any width, and small as a file."""

import base64
import io
from collections import defaultdict
from dataclasses import replace
from itertools import filterfalse

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from matplotlib.colors import to_hex
from matplotlib.offsetbox import TextArea
from matplotlib.text import Text
from PIL import Image

from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.plots import paint, plot_intervals, plot_maps
from gradeclip_utils.plots.colours import to_rgb
from gradeclip_utils.plots.drawing import of_explanation
from gradeclip_utils.plots.figures import PALETTE, bundle
from gradeclip_utils.plots.maps import draw

from .cases import NULLS, OVER_OTHERS, explanation, interactions
from .legible import legible  # noqa: F401  (a fixture of every test here)

ODD = ["$x_1$", "<script>alert(1)</script>", "a&b", "\\frac{1}", "$"]
IMAGE = Image.effect_noise((90, 90), 60).convert("RGB")
MAPS = {
    "a": np.eye(5),
    "b": -np.eye(5),
    "c": np.ones((90, 90)),
}
TABLE = pd.DataFrame(
    [
        ["rollout", "emoji", 0.3, 0.2, 0.4],
        ["Grad-ECLIP", "emoji", 0.8, 0.7, 0.9],
        ["random", "emoji", 0.9, 0.1, 0.95],
        ["rollout", "bag", 0.2, 0.1, 0.3],
        ["Grad-ECLIP", "bag", 0.5, 0.4, 0.6],
        ["random", "bag", 0.1, 0.0, 0.2],
    ],
    columns=["label", "model", "mean", "low", "high"],
)
EMOJI = TABLE[:3].drop(columns="model")


def texts(figure):
    contents = [text.get_text() for text in figure.findobj(Text)]
    return [content for content in contents if content]


def panels(figure):
    """The axes of image and maps."""
    return [axes for axes in figure.axes if axes.images]


def rows_and_columns(axes):
    """How many rows and columns axes stand in."""
    positions = [part.get_position() for part in axes]
    tops = {round(position.y1, 2) for position in positions}
    starts = {round(position.x0, 2) for position in positions}
    return len(tops), len(starts)


def ends_of(bar):
    """Where a bar begins and ends."""
    start = bar.get_x()
    return start, start + bar.get_width()


def decoded(png):
    """The image of a notebook's output."""
    return Image.open(io.BytesIO(base64.b64decode(png)))


def assert_whole(figure):
    """Nothing lies outside of the figure."""
    box = figure.get_tightbbox()
    assert box.width <= figure.get_figwidth() + 0.1
    assert box.height <= figure.get_figheight() + 0.1


@pytest.mark.parametrize("width", [3.5, 8.1])
@pytest.mark.parametrize("prompts", [("a dog", "a piano"), ("a dog",) * 5])
@pytest.mark.parametrize("size", [(120, 90), (80, 300), (400, 60)])
def test_a_figure_is_whole_and_readable_at_every_width_and_shape(width, prompts, size):
    nulls = NULLS if len(prompts) == 2 else {}
    figure = explanation(*prompts, size=size, **nulls).plot(width=width)
    assert_whole(figure)
    image, first, *_ = panels(figure)
    height = first.get_position().height
    assert image.get_position().height == pytest.approx(height, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("prompt", ["an extraordinarily unbelievable car " * 12, "a" * 70, *ODD])
def test_any_prompt_can_be_drawn(prompt):
    assert_whole(explanation(prompt, "a dog").plot())
    assert_whole(explanation(prompt, against="a red dog").plot())


@pytest.mark.parametrize(("count", "expected"), [(3, (1, 3)), (4, (2, 2)), (7, (3, 3))])
def test_more_than_three_prompts_wrap_and_the_image_is_there_once(count, expected):
    prompts = ["a dog"] * count
    _, *maps = panels(explanation(*prompts).plot())
    assert len(maps) == count
    assert rows_and_columns(maps) == expected


def test_below_six_inches_one_prompt_is_in_a_row_beside_the_image():
    figure = explanation("a dog", "a piano").plot(width=3.6)
    _, *maps = panels(figure)
    assert rows_and_columns(maps) == (2, 1)
    foot = " ".join(figure.get_supxlabel().split())
    assert foot.endswith("Grad-ECLIP: explains the model's own similarity, last 4 layers")


def test_words_are_shaded_by_the_law_and_the_legend_is_there_once():
    figure = explanation("a red car", "a dog").plot()
    shades = {}
    for text in figure.findobj(Text):
        if shade := text.get_bbox_patch():
            shades[text.get_text()] = to_hex(shade.get_facecolor())
    assert shades["car"] == to_hex(to_rgb(1.0))  # scores go from -0.01 to 0.02
    assert shades["a"] == to_hex(to_rgb(-0.5))
    areas = [area.get_text() for area in figure.findobj(TextArea)]
    assert sum("relevance: darkest" in text for text in areas) == 1
    assert areas.count("for") == 1


def test_each_bar_has_its_own_tick_where_half_of_the_other_captions_lie():
    drawing = of_explanation(explanation("a dog", "a piano", **NULLS))
    dog, piano = drawing.panels
    moved = replace(piano, tick=0.2)
    without = replace(piano, tick=None)
    figure = draw(replace(drawing, panels=(dog, moved, without)))
    ticks = [line.get_xdata()[0] for axes in figure.axes for line in axes.lines]
    assert ticks == pytest.approx([0.34, 0.2])
    assert "0.30, above 33 % of captions" in texts(figure)


def test_a_lead_is_coloured_from_the_mean_of_the_other_captions_on():
    figure = explanation("a dog", "a piano", **OVER_OTHERS).plot()
    bars = [axes.patches for axes in figure.axes if axes.patches]
    for patches, similarity in zip(bars, (0.4, 0.3), strict=True):
        _, grey, lead = patches  # before the grey bar its track
        assert ends_of(grey) == pytest.approx((0, min(similarity, 0.35)))
        assert ends_of(lead) == pytest.approx((0.35, similarity))
        red, _, blue, _ = lead.get_facecolor()
        assert np.sign(red - blue) == np.sign(similarity - 0.35)
    assert_whole(figure)


def test_what_the_model_saw_is_framed_in_the_image():
    figure = explanation("a dog", box=(15, 0, 105, 90)).plot()
    image, *_ = panels(figure)
    assert [patch.get_linestyle() for patch in image.patches] == ["--"]


@pytest.mark.slow
def test_maps_and_word_x_region_are_whole():
    assert_whole(plot_maps(IMAGE, MAPS))
    assert_whole(plot_maps(IMAGE, MAPS, signed=True))
    assert_whole(plot_maps(IMAGE, MAPS, shared_scale=False, upsample="nearest"))
    assert_whole(plot_maps(IMAGE, {}))
    six_maps = dict.fromkeys("abcdef", np.eye(5))
    assert_whole(plot_maps(IMAGE, six_maps, columns=99))  # as many as there is room for
    assert_whole(interactions().plot())
    assert_whole(interactions().plot(words="all", columns=2, width=5))


def test_one_word_is_drawn_by_its_name():
    _, *maps = panels(interactions("a red car and a ball").plot(words="ball"))
    assert len(maps) == 1


# ------------------------------------------------------------------------------- axes of one's own


def test_one_prompt_one_word_or_one_map_is_drawn_into_axes_of_ones_own():
    figure, (first, second, third) = plt.subplots(1, 3, figsize=(8, 4), dpi=110)
    figure.set_layout_engine("constrained")
    assert explanation("a dog", "a cat").plot(prompts="a cat", ax=first) is figure
    assert interactions().plot(words=["ball"], ax=second) is figure
    assert plot_maps(IMAGE, {"rollout": np.eye(5)}, ax=third) is figure
    for axes in (first, second, third):
        assert len(axes.images) == 1
    text = " ".join(texts(figure))
    assert {"cat", "ball", "rollout", "0.30"} <= set(text.split())
    assert_whole(figure)


@pytest.mark.parametrize(
    ("plot", "message"),
    [
        (lambda ax: explanation("a dog", "a cat").plot(ax=ax), "ax= takes one map"),
        (lambda ax: explanation("a dog").plot(prompts=["a dgo"]), "did you mean a dog"),
        (lambda ax: plot_maps(IMAGE, MAPS, upsample="x"), "must be 'bilinear' or 'nearest'"),
        (lambda ax: paint(IMAGE, np.arange(4.0)), r"has rows and columns, \(H, W\), got shape"),
        (lambda ax: paint(IMAGE, np.full((4, 4), np.nan)), "16 of 16 values of the map are NaN"),
        (lambda ax: plot_intervals(TABLE.drop(columns="low")), "has no column 'low'"),
        (lambda ax: plot_intervals(TABLE[:0]), "the table has none"),
    ],
)
def test_what_cannot_be_drawn_is_refused(plot, message):
    with pytest.raises(GradeclipError, match=message):
        plot(plt.figure().subplots())


# ---------------------------------------------------------------------------- pyplot and notebooks


def test_pyplot_writes_the_last_figure(tmp_path):
    figure = explanation("a dog").plot()
    assert plt.gcf() is figure
    plt.savefig(tmp_path / "dog.png")
    grey = Image.open(tmp_path / "dog.png").convert("L")
    darkest, lightest = grey.getextrema()
    assert lightest - darkest > 100


def test_a_notebook_shows_a_figure_once_as_a_small_png():
    figure = explanation("a dog").plot()
    shell = InteractiveShell.instance()
    with capture_output() as captured:
        formats, _ = shell.display_formatter.format(figure)
    assert formats == {}  # the figure has shown itself
    (output,) = captured.outputs
    assert decoded(output.data["image/png"]).mode == "P"
    assert plt.get_fignums() == []  # so the end of the cell has none to show


def test_a_notebook_keeps_a_small_png_with_its_alternative_text():
    data, metadata = explanation("a dog", "a piano")._repr_mimebundle_()
    assert set(data) == {"image/png", "text/plain"}
    assert "a piano" in metadata["image/png"]["alt"]
    png = data["image/png"]
    assert len(png) < 200_000
    image = decoded(png)
    assert image.mode == "P"
    assert image.width <= 900


def test_a_palette_keeps_grey_grey_white_white_and_rare_colours():
    random = np.random.default_rng(0)
    ramp = to_rgb(np.linspace(-1, 1, 200)) * 255
    grey = random.integers(0, 255, (200, 200, 1))
    pixels = grey.repeat(3, axis=2).astype(np.uint8)
    pixels[:, 50:90] = random.integers(0, 255, (200, 40, 3))
    pixels[:5, :5] = (200, 30, 20)
    pixels[190:] = ramp
    pixels[:5, 100:] = 255

    data, _ = bundle(Image.fromarray(pixels), "")
    image = decoded(data["image/png"]).convert("RGB")
    decoded_pixels = np.asarray(image, dtype=int)
    rare_colour = decoded_pixels[:5, :5]
    error = rare_colour - (200, 30, 20)
    assert np.abs(error).max() < 40
    grey = decoded_pixels[100:190, 120:]
    assert np.ptp(grey, axis=-1).mean() < 25
    error = decoded_pixels[190:].mean(axis=0) - ramp
    assert np.abs(error).mean() < 5
    white = decoded_pixels[:4, 120:]
    assert white.min() == 255  # a figure has no edge on the white page


# --------------------------------------------------------------------------------------- intervals


def row_names(figure):
    labels = figure.axes[0].get_yticklabels()
    return [label.get_text() for label in labels]


def is_point(line):
    return line.get_marker() not in ("None", None, "")


def points(figure):
    """x of the points by colour."""
    values_of = defaultdict(list)
    for line in filter(is_point, figure.axes[0].lines):
        colour = to_hex(line.get_color())
        values_of[colour] += filter(np.isfinite, line.get_xdata())
    return {colour: sorted(values) for colour, values in values_of.items() if values}


def test_rows_are_sorted_controls_are_last_and_grey_and_chance_is_named_on_its_line():
    figure = plot_intervals(TABLE, group="model", control=["random"], chance=0.25, label="hits")
    assert_whole(figure)
    assert row_names(figure) == ["Grad-ECLIP", "rollout", "random"]
    first, second, *_ = map(to_hex, PALETTE)
    assert points(figure) == {
        first: pytest.approx([0.3, 0.8]),
        second: pytest.approx([0.2, 0.5]),
        to_hex("0.6"): pytest.approx([0.1, 0.9]),
    }
    assert "chance" in texts(figure)
    assert "Grad-ECLIP emoji 0.80, 0.70 to 0.90" in figure.alt


def test_intervals_reach_from_low_to_high_in_the_order_of_the_table_on_request():
    table = EMOJI.rename(columns={"mean": "estimate"})
    figure = plot_intervals(table, sort=False, title="Pointing game")
    assert row_names(figure) == ["rollout", "Grad-ECLIP", "random"]
    assert_whole(figure)

    ends = set()
    for line in filterfalse(is_point, figure.axes[0].lines):
        low, high = np.round(sorted(line.get_xdata()), 2)
        ends.add((low, high))
    assert ends == {(0.2, 0.4), (0.7, 0.9), (0.1, 0.95)}


def test_a_row_without_an_interval_has_its_point_alone_and_is_undecided():
    unknown = EMOJI.copy()
    unknown.loc[[0, 2], ["low", "high"]] = np.nan
    unknown.loc[2, "mean"] = np.nan
    figure = plot_intervals(unknown)
    assert points(figure) == {to_hex(PALETTE[0]): pytest.approx([0.3, 0.8])}
    assert texts(figure).count("undecided") == 2
    assert len(row_names(figure)) == 3

    nothing = EMOJI.assign(mean=np.nan, low=np.nan, high=np.nan)
    figure = plot_intervals(nothing)
    assert texts(figure).count("undecided") == 3
