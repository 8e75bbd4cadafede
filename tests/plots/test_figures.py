"""Figures: what matplotlib draws of a drawing is whole and readable at any width, and small as a file."""

import base64
import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib import rc_context
from matplotlib.colors import to_rgb as as_rgb
from PIL import Image

from gradeclip_utils.plots import new_figure, plot_intervals, plot_maps
from gradeclip_utils.plots.colours import to_rgb
from gradeclip_utils.plots.drawing import of_explanation
from gradeclip_utils.plots.figures import PALETTE, bundle, draw

from .cases import explanation, interactions
from .legible import legible  # noqa: F401  (a fixture of every test here)

ODD = ["\N{GRINNING FACE}", "\u732b", "$x_1$", "<script>alert(1)</script>", "a&b", "\\frac{1}", "$"]
MORE = {"percentile": np.array([98.0, 33.0]), "null_median": 0.34, "null_count": 243}
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
    return [
        text.get_text()
        for text in figure.findobj(lambda one: hasattr(one, "get_text"))
        if text.get_text()
    ]


def assert_whole(figure):
    """Nothing lies outside of what is saved, and what is saved is not much wider than what was asked."""
    box = figure.get_tightbbox()
    assert box.width <= figure.get_figwidth() + 0.1 and box.height <= figure.get_figheight() + 0.1


@pytest.mark.parametrize("width", [3.5, 8.1])
@pytest.mark.parametrize("prompts", [("a dog", "a piano"), ("a dog",) * 5])
@pytest.mark.parametrize("size", [(120, 90), (80, 300), (400, 60)])
def test_a_figure_is_whole_and_readable_at_every_width_and_shape(width, prompts, size):
    more = MORE if len(prompts) == 2 else {}
    assert_whole(explanation(*prompts, size=size, **more).plot(width=width))


@pytest.mark.slow
@pytest.mark.parametrize(
    "prompt", [" ".join(["an extraordinarily unbelievable car"] * 12), "a" * 70, *ODD]
)
def test_any_prompt_can_be_drawn(prompt):
    assert_whole(explanation(prompt, "a dog").plot())
    assert_whole(explanation(prompt, against="a red dog").plot())


def test_a_letter_that_the_first_font_lacks_comes_from_the_next():
    with rc_context({"font.family": ["STIXGeneral", "DejaVu Sans"]}):
        assert "\u10d0" in texts(explanation("\u10d0").plot())  # Georgian


def test_more_than_three_prompts_wrap_and_the_image_is_there_once():
    figure = explanation(*["a dog"] * 7).plot()
    pictures = [axes for axes in figure.axes if axes.images and axes.get_position().height > 0.05]
    assert len(pictures) == 8 and len({round(axes.get_position().y0, 2) for axes in pictures}) == 3


def test_below_six_inches_one_prompt_is_in_a_row_beside_the_image():
    figure = explanation("a dog", "a piano").plot(width=3.6)
    maps = [axes for axes in figure.axes if axes.images and axes.get_position().height > 0.1][1:]
    assert len({round(axes.get_position().x0, 2) for axes in maps}) == 1
    assert len({round(axes.get_position().y0, 2) for axes in maps}) == 2
    assert (
        "tiny (weights not named), Grad-ECLIP with the model's own heads, last 4 layers"
        in " ".join(texts(figure))
    )


def test_words_are_shaded_by_the_law_and_the_legend_is_there_once():
    found = explanation("a red car", "a dog")
    figure = found.plot()
    shades = [
        tuple(np.round(patch.get_facecolor()[:3], 3))
        for axes in figure.axes
        for patch in axes.patches
    ]
    assert tuple(np.round(to_rgb(1.0), 3)) in shades and tuple(np.round(to_rgb(-0.5), 3)) in shades
    assert sum("darkest" in text for text in texts(figure)) == 1 and texts(figure).count("for") == 1


def test_each_bar_has_its_own_tick_where_half_of_the_other_captions_lie():
    drawing = of_explanation(explanation("a dog", "a piano", **MORE))
    one, other = drawing.panels
    figure = draw(
        [replace(drawing, panels=(one, replace(other, median=0.2), replace(other, median=None)))]
    )
    ticks = [line.get_xdata()[0] for axes in figure.axes for line in axes.lines]
    assert ticks == pytest.approx([0.34, 0.2])
    assert "0.30, above 33 % of captions" in texts(figure)


def test_what_the_model_saw_is_framed_in_the_image_and_in_the_map():
    figure = explanation("a dog", box=(15, 0, 105, 90)).plot()
    assert sum(patch.get_linestyle() == "--" for patch in figure.axes[0].patches) == 1
    assert "frame: what the model saw" in texts(figure)


def test_a_notebook_keeps_one_small_png_with_its_alternative_text():
    data, metadata = explanation("a dog", "a piano")._repr_mimebundle_()
    assert set(data) == {"image/png", "text/plain"} and "a piano" in metadata["image/png"]["alt"]
    image = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert image.mode == "P" and len(data["image/png"]) < 200_000 and image.width <= 900


def test_a_palette_keeps_grey_grey_white_white_and_rare_colours():
    random = np.random.default_rng(0)
    pixels = np.repeat(random.integers(0, 255, (200, 200, 1)), 3, axis=2).astype(np.uint8)
    pixels[:, 50:90] = random.integers(0, 255, (200, 40, 3))
    pixels[:5, :5] = (200, 30, 20)
    pixels[190:] = ramp = to_rgb(np.linspace(-1, 1, 200)) * 255
    pixels[:5, 100:] = 255
    png = bundle(Image.fromarray(pixels), "")[0]["image/png"]
    found = np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"), dtype=int)
    assert np.abs(found[:5, :5] - (200, 30, 20)).max() < 40
    assert np.ptp(found[100:190, 120:], axis=-1).mean() < 25
    assert np.abs(found[190:].mean(0) - ramp).mean() < 5
    assert (found[:4, 120:] == 255).all()  # a figure has no edge on the white page


@pytest.mark.slow
def test_maps_and_word_x_region_are_whole():
    image = Image.effect_noise((90, 90), 60).convert("RGB")
    maps = {"a": np.eye(5), "b": -np.eye(5), "c": np.ones((90, 90))}
    for options in ({}, {"signed": True}, {"shared_scale": False, "upsample": "nearest"}):
        assert_whole(plot_maps(image, maps, **options))
    assert_whole(plot_maps(image, {}))
    assert_whole(
        plot_maps(image, {str(i): np.eye(5) for i in range(6)}, columns=99)
    )  # as many as there is room for
    assert_whole(plot_maps([image, image], [maps, {"a": np.eye(5)}]))
    assert_whole(interactions().plot())
    assert_whole(interactions().plot(words="all", columns=2, width=5))
    for figure in (
        interactions().plot(),
        interactions().plot(words="all", columns=6),
        interactions().plot(width=3.5),
    ):
        strip = min(
            (axes for axes in figure.axes if axes.images),
            key=lambda axes: axes.get_position().height,
        )
        assert strip.get_window_extent().width >= 0.4 * figure.dpi  # it can be read


def test_rows_are_sorted_controls_are_last_and_grey_and_chance_is_named_on_its_line():
    figure = plot_intervals(TABLE, group="model", control=["random"], chance=0.25, label="hits")
    assert_whole(figure)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "Grad-ECLIP",
        "rollout",
        "random",
    ]
    colours = {
        as_rgb(line.get_color())
        for line in axes.lines
        if line.get_marker() not in ("None", None, "")
    }
    assert colours == {as_rgb(PALETTE[0]), as_rgb(PALETTE[1]), as_rgb("0.6")}
    assert "chance" in texts(figure) and "Grad-ECLIP emoji 0.80, 0.70 to 0.90" in figure.alt


def test_the_order_of_the_table_is_kept_on_request_and_estimate_is_another_name_of_mean():
    table = TABLE[:3].drop(columns="model").rename(columns={"mean": "estimate"})
    assert_whole(
        plot_intervals(table.assign(mean=table["estimate"]), title="Pointing game")
    )  # a table may have both
    (axes,) = plot_intervals(table, sort=False).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "rollout",
        "Grad-ECLIP",
        "random",
    ]


def test_a_figure_of_ones_own_is_described_by_its_titles():
    figure = new_figure(3, 2)
    figure.subplots().set(title="Height", xlabel="years", ylabel="metres")
    assert figure._repr_mimebundle_()[0]["text/plain"] == "Height; metres over years"
