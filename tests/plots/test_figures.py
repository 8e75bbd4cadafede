"""Figures: what matplotlib draws is whole and readable at any width, and small as a file."""

import base64
import io
from dataclasses import replace

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
from gradeclip_utils.plots import plot_intervals, plot_maps
from gradeclip_utils.plots.colours import to_rgb
from gradeclip_utils.plots.drawing import of_explanation
from gradeclip_utils.plots.figures import PALETTE, bundle, new_figure
from gradeclip_utils.plots.maps import draw

from .cases import NULLS, explanation, interactions
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


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def panels(figure):
    """The axes of image and maps."""
    return [axes for axes in figure.axes if axes.images]


def columns_of(axes):
    """How many columns axes stand in."""
    return len({round(part.get_position().x0, 2) for part in axes})


def rows_of(axes):
    return len({round(part.get_position().y1, 2) for part in axes})


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


def test_more_than_three_prompts_wrap_and_the_image_is_there_once():
    prompts = ["a dog"] * 7
    axes = panels(explanation(*prompts).plot())
    assert len(axes) == 8
    assert rows_of(axes) == 3


def test_four_prompts_stand_two_by_two():
    prompts = ["a dog"] * 4
    _, *maps = panels(explanation(*prompts).plot())
    assert columns_of(maps) == 2


def test_below_six_inches_one_prompt_is_in_a_row_beside_the_image():
    figure = explanation("a dog", "a piano").plot(width=3.6)
    _, *maps = panels(figure)
    assert columns_of(maps) == 1
    assert rows_of(maps) == 2
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
    figure = draw([replace(drawing, panels=(dog, moved, without))])
    ticks = [line.get_xdata()[0] for axes in figure.axes for line in axes.lines]
    assert ticks == pytest.approx([0.34, 0.2])
    assert "0.30, above 33 % of captions" in texts(figure)


def test_a_lead_is_coloured_from_the_mean_of_the_other_captions_on():
    nulls = {**NULLS, "null_mean": 0.35, "against_others": True}
    figure = explanation("a dog", "a piano", **nulls).plot()
    dog, piano = (axes.patches for axes in figure.axes if axes.patches)
    _, grey, lead = dog  # before the grey bar its track
    assert ends_of(grey) == pytest.approx((0, 0.35))
    assert ends_of(lead) == pytest.approx((0.35, 0.4))
    red, _, blue, _ = lead.get_facecolor()
    assert red > blue

    _, grey, lead = piano
    assert ends_of(grey) == pytest.approx((0, 0.3))
    assert ends_of(lead) == pytest.approx((0.35, 0.3))
    red, _, blue, _ = lead.get_facecolor()
    assert blue > red
    assert_whole(figure)


def test_what_the_model_saw_is_framed_in_the_image():
    figure = explanation("a dog", box=(15, 0, 105, 90)).plot()
    image, *_ = panels(figure)
    assert [patch.get_linestyle() for patch in image.patches] == ["--"]


@pytest.mark.slow
def test_maps_and_word_x_region_are_whole():
    for options in ({}, {"signed": True}, {"shared_scale": False, "upsample": "nearest"}):
        assert_whole(plot_maps(IMAGE, MAPS, **options))
    assert_whole(plot_maps(IMAGE, {}))
    many = {str(i): np.eye(5) for i in range(6)}
    assert_whole(plot_maps(IMAGE, many, columns=99))  # as many as there is room for
    assert_whole(plot_maps([IMAGE, IMAGE], [MAPS, {"a": np.eye(5)}]))
    assert_whole(interactions().plot())
    assert_whole(interactions().plot(words="all", columns=2, width=5))


@pytest.mark.parametrize("size", [(120, 90), (80, 300)])
def test_each_layer_is_a_row_of_its_heads_and_their_sum(size):
    random = np.random.default_rng(0)
    head_maps = random.normal(size=(2, 3, 5, 6, 8)).astype(np.float32)  # prompts, layers, heads
    result = replace(explanation("a dog", "a cat", size=size), head_maps=head_maps)
    figure = result.plot_heads("a cat")
    assert_whole(figure)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == [f"head {head}" for head in range(1, 6)] + ["sum"]
    assert {"\N{MINUS SIGN}2", "\N{MINUS SIGN}1", "last"} <= set(texts(figure))
    _, *maps = panels(figure)
    assert (rows_of(maps), columns_of(maps)) == (3, 6)

    darkest = np.abs(head_maps[1]).max()
    darkest_sum = np.abs(head_maps[1].sum(1)).max()
    assert f"heads: darkest {darkest:.1f}" in texts(figure)
    assert f"sum: darkest {darkest_sum:.1f}" in texts(figure)


# ------------------------------------------------------------------------------- axes of one's own


def test_one_prompt_one_word_or_one_map_is_drawn_into_axes_of_ones_own():
    figure, (first, second, third) = plt.subplots(1, 3, figsize=(8, 4), dpi=110)
    figure.set_layout_engine("constrained")
    assert explanation("a dog", "a cat").plot(prompts="a cat", ax=first) is figure
    assert interactions().plot(words=["ball"], ax=second) is figure
    assert plot_maps(IMAGE, {"rollout": np.eye(5)}, ax=third) is figure
    for axes in (first, second, third):
        assert len(axes.images) == 1
    words = " ".join(texts(figure)).split()
    assert {"cat", "ball", "rollout", "0.30"} <= set(words)
    assert_whole(figure)


@pytest.mark.parametrize(
    ("plot", "message"),
    [
        (lambda ax: explanation("a dog", "a cat").plot(ax=ax), "ax= takes one map"),
        (lambda ax: explanation("a dog").plot(prompts=["a dgo"]), "did you mean a dog"),
        (lambda ax: explanation("a dog").plot_heads(), 'ask for explain.*heads="separate"'),
        (lambda ax: plot_maps([IMAGE, IMAGE], [MAPS]), "got 2 images and 1 sets of maps"),
        (lambda ax: plot_maps(IMAGE, MAPS, upsample="x"), "must be 'bilinear' or 'nearest'"),
        (lambda ax: plot_intervals(TABLE.drop(columns="low")), "has no column 'low'"),
        (lambda ax: plot_intervals(TABLE.assign(low=2)), "in this order, got low 2"),
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
    assert np.ptp(np.asarray(grey)) > 100


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
    image = decoded(data["image/png"])
    assert image.mode == "P"
    assert len(data["image/png"]) < 200_000
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
    kept_pixels = np.asarray(image, dtype=int)
    rare_colour = kept_pixels[:5, :5]
    assert np.abs(rare_colour - (200, 30, 20)).max() < 40
    grey = kept_pixels[100:190, 120:]
    assert np.ptp(grey, axis=-1).mean() < 25
    kept_ramp = kept_pixels[190:].mean(axis=0)
    assert np.abs(kept_ramp - ramp).mean() < 5
    assert (kept_pixels[:4, 120:] == 255).all()  # a figure has no edge on the white page


def test_a_figure_of_ones_own_is_described_by_its_titles():
    figure = new_figure(3, 2)
    figure.subplots().set(title="Height", xlabel="years", ylabel="metres")
    data, _ = figure._repr_mimebundle_()
    assert data["text/plain"] == "Height; metres over years"


# --------------------------------------------------------------------------------------- intervals


def row_names(figure):
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def points(figure):
    """x of the points by colour."""
    result = {}
    for line in figure.axes[0].lines:
        if line.get_marker() not in ("None", None, ""):
            values = [value for value in line.get_xdata() if np.isfinite(value)]
            result.setdefault(to_hex(line.get_color()), []).extend(values)
    return {colour: sorted(values) for colour, values in result.items() if values}


def test_rows_are_sorted_controls_are_last_and_grey_and_chance_is_named_on_its_line():
    figure = plot_intervals(TABLE, group="model", control=["random"], chance=0.25, label="hits")
    assert_whole(figure)
    assert row_names(figure) == ["Grad-ECLIP", "rollout", "random"]
    first_colour = to_hex(PALETTE[0])
    second_colour = to_hex(PALETTE[1])
    grey = to_hex("0.6")
    assert points(figure) == {
        first_colour: pytest.approx([0.3, 0.8]),
        second_colour: pytest.approx([0.2, 0.5]),
        grey: pytest.approx([0.1, 0.9]),
    }
    assert "chance" in texts(figure)
    assert "Grad-ECLIP emoji 0.80, 0.70 to 0.90" in figure.alt


def test_intervals_reach_from_low_to_high():
    figure = plot_intervals(TABLE[:3].drop(columns="model"))
    ends = set()
    for line in figure.axes[0].lines:
        values = line.get_xdata()
        if line.get_marker() in ("None", None, "") and len(values) == 2:
            low, high = np.round(sorted(values), 2)
            ends.add((low, high))
    assert ends == {(0.2, 0.4), (0.7, 0.9), (0.1, 0.95)}


def test_the_order_of_the_table_is_kept_on_request_and_estimate_is_another_name_of_mean():
    table = TABLE[:3].drop(columns="model").rename(columns={"mean": "estimate"})
    figure = plot_intervals(table, sort=False, title="Pointing game")
    assert row_names(figure) == ["rollout", "Grad-ECLIP", "random"]
    assert_whole(figure)


def test_a_row_without_an_interval_has_its_point_alone_and_is_undecided():
    table = TABLE[:3].drop(columns="model")
    unknown = table.copy()
    unknown.loc[[0, 2], ["low", "high"]] = np.nan
    unknown.loc[2, "mean"] = np.nan
    figure = plot_intervals(unknown)
    first_colour = to_hex(PALETTE[0])
    assert points(figure) == {first_colour: pytest.approx([0.3, 0.8])}
    assert texts(figure).count("undecided") == 2
    assert len(row_names(figure)) == 3

    nothing = table.assign(mean=np.nan, low=np.nan, high=np.nan)
    figure = plot_intervals(nothing)
    assert texts(figure).count("undecided") == 3
