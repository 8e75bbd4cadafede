"""Figures: a drawing by matplotlib, and plots of intervals. Nothing here computes relevance.

    Drawing, table -> here -> a matplotlib figure

pyplot knows the figures (`plt.savefig` writes the last one), and a notebook shows them once.
"""

from __future__ import annotations

import base64
import html
import io
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import Rectangle
from matplotlib.textpath import text_to_path
from PIL import Image

from .. import checks
from ..errors import GradeclipError, first_line, short, warn
from ..images import read_image
from .colours import is_whole, paint, to_rgb
from .drawing import OWN_SCALE, Drawing, Panel, of_explanation, of_interactions, of_maps, scaled

PALETTE = (
    "#1b7f79",
    "#4d4d4d",
    "#7cc5bd",
    "#a6a6a6",
)  # teal and grey: groups, told apart by their markers too
_MARKERS = ("o", "s", "D", "^")
_SMALLEST = (
    8  # points of type: nine where it is shown, because a figure has 110 dots an inch and a page 96
)
_LARGEST = 13  # points of type of the words of a title
_NOTE: dict[str, Any] = {"color": "0.35", "fontsize": _SMALLEST, "parse_math": False}
_LARGEST_SIDE = 500  # inches: matplotlib draws up to 65,536 pixels
_WIDTH = 8.1  # inches: as wide as the column of a notebook, 860 pixels
_MARGIN, _GAP, _LINE = (
    0.12,
    0.22,
    0.16,
)  # inches: at the sides, between panels, of a line of the smallest type
_TALLEST, _TALLEST_OF_MANY = 3.3, 2.4  # inches of a panel


class InlineFigure(Figure):
    """A figure that a notebook shows once, as a small PNG with `alt`, which says what it shows."""

    alt = ""

    def savefig(self, fname, **options: Any) -> None:
        """Write the whole figure; options as in matplotlib, whose `bbox_inches` is "tight" here."""
        super().savefig(fname, **{"bbox_inches": "tight", "pad_inches": 0.05, **options})

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        return bundle(_rendered(self), alternative(self))


def new_figure(width: float, height: float, alt: str = "", **options: Any) -> InlineFigure:
    """A figure of this size in inches, known to pyplot; `alt` says what it shows to those who cannot see it."""
    if max(width, height) > _LARGEST_SIDE:
        size = f"{width:.0f} x {height:.0f} inches, and {_LARGEST_SIDE} can be drawn"
        raise GradeclipError(f"a figure of all this would have {size}: draw fewer things")
    figure = plt.figure(FigureClass=InlineFigure, figsize=(width, height), dpi=110, **options)
    figure.alt = alt
    return figure


def bundle(image: Image.Image, alt: str) -> tuple[dict, dict]:
    """An image as a notebook keeps it, with what it shows in words: data and metadata, by media type."""
    png = base64.b64encode(_small_png(image)).decode("ascii")
    return {"image/png": png, "text/plain": alt}, {"image/png": {"alt": alt}}


def _small_png(image: Image.Image) -> bytes:
    """A PNG file of 256 colours, which a notebook can afford to keep."""
    image, buffer = image.convert("RGB"), io.BytesIO()
    palette = image.quantize(
        255, Image.Quantize.MAXCOVERAGE, kmeans=1
    )  # keeps colours that are rare, such as blue
    colours = np.reshape([*(palette.getpalette() or [])[: 3 * 255], 255, 255, 255], (-1, 3))
    colours[(colours > 247).all(axis=1)] = (
        255  # the white of the page, of which Pillow would take a neighbour
    )
    palette.putpalette(colours.ravel().tolist())
    image.quantize(palette=palette).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def _rendered(figure: Figure) -> Image.Image:
    """All that is drawn of a figure as an RGB image. It is shown with this, so pyplot shall not show it again."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=figure.dpi, bbox_inches="tight", pad_inches=0.05)
    plt.close(figure)
    return Image.open(buffer).convert("RGB")


def alternative(figure) -> str:
    """What a figure shows: its own `alt`, or its titles and the names of its axes."""
    if getattr(figure, "alt", ""):
        return figure.alt
    parts = [figure.get_suptitle()]
    for axes in figure.axes:
        title = " ".join(axes.get_title(place) for place in ("left", "center", "right")).strip()
        across, up = axes.get_xlabel(), axes.get_ylabel()
        parts += [title, f"{up} over {across}" if across and up else across or up]
    return (
        "; ".join(dict.fromkeys(" ".join(part.split()) for part in parts if part))
        or "a figure without a title"
    )


def axes_at(figure: Figure, x: float, top: float, width: float, height: float) -> Axes:
    """New axes at a place given in inches from the upper left corner."""
    across, down = figure.get_size_inches()
    return figure.add_axes((x / across, 1 - (top + height) / down, width / across, height / down))


def _reduced(image: Image.Image, size: int = 720) -> Image.Image:
    """An RGB copy of an image, no larger than a panel needs."""
    image = image.convert("RGB")
    image.thumbnail((size, size))  # on the copy that convert made; never enlarges
    return image


def image_url(image: Image.Image, size: int = 720) -> str:
    """An image, made smaller if it is large, as an address that needs no network."""
    buffer = io.BytesIO()
    _reduced(image, size).save(buffer, "webp", quality=90, method=1)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def figure_tag(figure: Figure) -> str:
    """A figure as HTML: every pixel is inside, so that nothing has to be fetched."""
    alt, shape = (
        html.escape(alternative(figure)),
        'style="display:block;max-width:100%;height:auto"',
    )
    return f'<img class="gradeclip-figure" alt="{alt}" {shape} src="{image_url(_rendered(figure), 10_000)}">'


def show_image(axes: Axes, image: Image.Image, box=None) -> None:
    """Draw an image from the upper left of the axes, without ticks, with a frame around what the model saw."""
    small = _reduced(image)
    axes.set_axis_off()
    axes.set_anchor("NW")
    axes.imshow(small, interpolation="nearest" if max(small.size) < 200 else "antialiased")
    if not is_whole(box, image):
        left, top, right, bottom = np.maximum(box, 0) * small.width / image.width
        frame = {"fill": False, "color": "0.2", "linewidth": 1, "linestyle": "--"}
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, **frame))


# ----------------------------------------------------------------------------------------- drawings


def plot_explanation(
    explanation, *, shared_scale: bool = True, width: float = _WIDTH, most: int = 9
) -> InlineFigure:
    """Draw an explanation: the image in colour, then a panel per prompt with its shaded words, map and similarity.

    Args:
        explanation: an `Explanation`.
        shared_scale: one colour scale for all prompts, so that they can be compared; else one for
            each.
        width: inches, 3 to 100. Below 6 there is one prompt per row, beside the image.
        most: how many prompts are drawn, at most 100; of more the most similar ones, or those that
            lead by most.

    Raises:
        GradeclipError: another width, or no `Explanation`.
    """
    _check_drawn("an Explanation", explanation, "image_maps")
    checks.flag("shared_scale", shared_scale)
    width, most = _checked_width(width), checks.whole("most", most, 1, 100)
    return draw([of_explanation(explanation, shared=shared_scale, most=most)], width=width)


def plot_interactions(
    interactions, *, words: str = "content", columns: int = 4, width: float = _WIDTH
) -> InlineFigure:
    """Draw word x region: a signed map per word, all on one scale.

    Args:
        interactions: an `Interactions`.
        words: "content" draws nouns and adjectives, "all" function words too.
        columns: maps in a row, beside the image, 1 to 100; fewer where they would be narrow.
        width: inches, 3 to 100.
    """
    _check_drawn("an Interactions", interactions, "maps")
    checks.chosen("words", words, ("content", "all"))
    width, columns = _checked_width(width), checks.whole("columns", columns, 1, 100)
    return draw([of_interactions(interactions, words)], width=width, columns=columns)


def plot_maps(
    image,
    maps,
    *,
    signed: bool = False,
    shared_scale: bool = True,
    columns: int = 3,
    upsample: str = "bilinear",
    width: float = _WIDTH,
) -> InlineFigure:
    """Draw maps of one image beside it, or several images, a row each, with their maps.

        plot_maps(image, {"a dog": e.heatmap(0), "a red car": e.heatmap(1)})
        plot_maps([one, other], [{"rollout": a, "Grad-ECLIP": b}, {"rollout": c, "Grad-ECLIP": d}])

    Args:
        image: the image that was explained, or a list of images.
        maps: title -> map, (H, W) or (h, w), or pairs of both; for a list of images a list of
            these, one an image.
        signed: draw relevance against as well.
        shared_scale: one scale for all maps; else each has its own, and the legend says so.
        columns: maps in a row, beside the image, 1 to 100; fewer where they would be narrow.
        upsample: "bilinear" or "nearest", for maps on the token grid.
        width: inches, 3 to 100.

    Raises:
        GradeclipError: something is not an image or not a map, or lists differ in length.
    """
    width, columns = _checked_width(width), checks.whole("columns", columns, 1, 100)
    checks.flag("signed", signed)
    checks.flag("shared_scale", shared_scale)
    checks.chosen("upsample", upsample, ("bilinear", "nearest"))
    several = isinstance(image, (list, tuple))
    images, each = (list(image), checks.listed("maps", maps)) if several else ([image], [maps])
    if len(images) != len(each) or not images:
        raise GradeclipError(
            f"each image needs its maps, got {len(images)} images and {len(each)} sets of maps"
        )
    look = {"signed": signed, "shared": shared_scale, "upsample": upsample}
    drawings = [
        of_maps(read_image(one), _titled_maps(its), **look)
        for one, its in zip(images, each, strict=True)
    ]
    return draw(scaled(drawings), width=width, columns=columns, compact=several)


_checked_width = partial(checks.number, "width", least=3, most=100)


def _check_drawn(kind: str, given: Any, part: str) -> None:
    if not hasattr(given, part):
        raise GradeclipError(f"{kind} is needed, as Explainer returns it, got {short(given)}")


def _titled_maps(maps: Any) -> list[tuple[str, np.ndarray]]:
    found = list(maps.items()) if isinstance(maps, Mapping) else checks.listed("maps", maps)
    for one in found:
        if not isinstance(one, tuple) or len(one) != 2 or not isinstance(one[0], str):
            raise GradeclipError(f"maps must be pairs of a title and a map, got {short(one)}")
    return [(title, checks.as_map(map_)) for title, map_ in found]


def draw(
    drawings: Sequence[Drawing], *, width: float = _WIDTH, columns: int = 3, compact: bool = False
) -> InlineFigure:
    """Draw drawings, each from a new row. `compact` has smaller maps, and the legend at the end."""
    panels = [panel for one in drawings for panel in one.panels]
    columns = min(
        1 if width < 6 and not compact else columns, max(len(one.panels) for one in drawings)
    )
    columns = min(columns, int(width / (0.6 if compact else 1.5)) - 1)
    tallest = _TALLEST_OF_MANY if compact else _TALLEST
    side = min((width - 2 * _MARGIN - columns * _GAP) / (columns + 1), tallest)
    wide, size = 2 * _MARGIN + (columns + 1) * side + columns * _GAP, _type_size(panels, side)
    rows = []  # drawing, panels, inches above the maps, of the maps, below them
    for one in drawings:
        factor = min(side / one.image.width, tallest / one.image.height)
        below = 0.16 + 0.36 * any(panel.value is not None for panel in one.panels)
        for start in range(0, max(len(one.panels), 1), columns or 1):
            some = one.panels[start : start + columns]
            above = max(
                (_flow(panel.cells, side * 72, size)[1] / 72 + 0.07 for panel in some), default=0.0
            )
            rows.append(
                (one, some, above, (one.image.width * factor, one.image.height * factor), below)
            )
    legend = _legend_lines(drawings, wide - 2 * _MARGIN if compact else side)
    foot = _folded([drawings[0].origin] if len(drawings) == 1 else [], wide - 2 * _MARGIN)
    tall = (0.28 + _LINE * len(legend)) * bool(panels)
    needed = [above + panel[1] + below for _, _, above, panel, below in rows]
    under_image = rows[0][2] + rows[0][3][1]
    spare = 0.0 if compact else sum(needed) - under_image
    height = (
        0.1 + sum(needed) + max(0.0, tall + 0.05 - spare) + 0.04 * bool(foot) + _LINE * len(foot)
    )
    figure = new_figure(wide, height, ". ".join(one.alt for one in drawings))
    top, before = 0.06, None
    for one, some, above, panel, below in rows:
        if one is not before:
            show_image(axes_at(figure, _MARGIN, top + above, *panel), one.image, one.box)
        for i, each in enumerate(some):
            x, deep = _MARGIN + (i + 1) * (side + _GAP), _flow(each.cells, side * 72, size)[1] / 72
            _draw_cells(
                axes_at(figure, x, top + above - 0.07 - deep, side, deep),
                each.cells,
                one.word_scale,
                size,
            )
            _draw_map(axes_at(figure, x, top + above, *panel), one, each)
            if each.value is not None:
                _draw_bar(axes_at(figure, x, top + above + panel[1] + 0.07, side, 0.16), one, each)
        top, before = top + above + panel[1] + below, one
    if panels:
        place = (top + 0.02, wide) if compact else (0.06 + under_image + 0.1, side)
        _draw_legend(figure, drawings[0], legend, *place)
    for i, line in enumerate(foot):
        _write(
            figure, (0.05 + _LINE * (len(foot) - 1 - i)) / height, line, va="bottom", color="0.55"
        )
    return figure


def _write(figure: Figure, y: float, text: str, **look: Any) -> None:
    """Write a line at the left edge."""
    figure.text(_MARGIN / figure.get_figwidth(), y, text, **{"va": "top", **_NOTE, **look})


def _draw_map(axes: Axes, one: Drawing, panel: Panel) -> None:
    heat = np.zeros((1, 1), np.float32) if panel.map is None else panel.map
    show_image(
        axes,
        paint(
            one.image, heat, box=one.box, signed=one.signed, vmax=panel.scale, upsample=one.upsample
        ),
    )
    if panel.map is None:
        axes.text(
            0.5,
            0.5,
            "no map: words alone",
            ha="center",
            va="center",
            transform=axes.transAxes,
            fontsize=10,
        )


def _draw_bar(axes: Axes, one: Drawing, panel: Panel) -> None:
    """Draw the similarity or the lead as a bar, the tick, and what the bar is."""
    low, high = one.bars
    axes.set(xlim=(low, high), ylim=(0, 1))
    axes.set_axis_off()
    axes.add_patch(Rectangle((low, 0.36), high - low, 0.28, color="0.92", linewidth=0))
    axes.add_patch(
        Rectangle((0, 0.1), panel.value, 0.8, color="0.25" if panel.best else "0.65", linewidth=0)
    )
    for place in [0.0] * (low < 0) + [panel.median] * (panel.median is not None):
        axes.plot(
            [place, place],
            [-0.3, 1.3],
            color="black",
            linewidth=1.4,
            clip_on=False,
            solid_capstyle="butt",
        )
    points = 72 * axes.get_position().width * axes.get_figure().get_figwidth()
    label = next(
        (text for text in panel.labels if _ems(text) * _SMALLEST <= points), panel.labels[-1]
    )
    axes.text(0, -0.35, _drawable(label), va="top", transform=axes.transAxes, **_NOTE)


def _legend_lines(drawings: Sequence[Drawing], room: float) -> list[str]:
    """The lines of the legend, folded to a width."""
    lines = list(dict.fromkeys(line for one in drawings for line in one.legend))
    if sum("darkest" in line for line in lines) > 1:
        own = [] if OWN_SCALE in lines else ["each row has its own scale"]
        lines = [*own, *(line for line in lines if "darkest" not in line)]
    return _folded(lines, room)


def _folded(lines: Iterable[str], room: float) -> list[str]:
    """Lines of the smallest type, folded to a width in inches."""
    return [
        part
        for line in lines
        for part in textwrap.wrap(_drawable(line), int(room * 72 / _SMALLEST / 0.53))
    ]


def _draw_legend(
    figure: Figure, one: Drawing, lines: Sequence[str], top: float, room: float
) -> None:
    """Draw the strip of colours, with its ends named, and the lines below it."""
    before = (_ems("against") * _SMALLEST / 72 + 0.08) * one.both
    (across, down), strip = figure.get_size_inches(), float(np.clip(room - before - 0.3, 0.4, 1.3))
    start, middle = _MARGIN + before, 1 - (top + 0.06) / down
    axes = axes_at(figure, start, top, strip, 0.12)
    axes.imshow(to_rgb(np.linspace(-1 if one.both else 0, 1, 256))[None], aspect="auto")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color="0.8", linewidth=0.5)
    figure.text((start + strip + 0.08) / across, middle, "for", va="center", **_NOTE)
    _write(figure, middle, "against" if one.both else "", va="center")
    for i, line in enumerate(lines):
        _write(figure, 1 - (top + 0.2 + _LINE * i) / down, line)


# --------------------------------------------------------------------------------------------- text


def _type_size(panels: Sequence[Panel], room: float) -> float:
    """The largest type in which every title takes at most two lines, or the smallest."""
    widest = max((_ems(_drawable(word.text)) for one in panels for word in one.words), default=0)
    for size in np.arange(_LARGEST, _SMALLEST, -0.5):
        if widest * size < room * 72 and all(
            _flow(panel.cells, room * 72, size)[2] <= 2 for panel in panels
        ):
            return float(size)
    return float(_SMALLEST)


def _draw_cells(axes: Axes, cells: Sequence[tuple], vmax: float, size: float) -> None:
    """Write the cells of a title from the upper left of the axes, in lines."""
    across, down = 72 * axes.get_position().size * axes.get_figure().get_size_inches()
    axes.set_axis_off()
    place: dict[str, Any] = {"transform": axes.transAxes, "clip_on": False}
    for word, text, x, y, width, height, type_size in _flow(cells, across, size)[0]:
        shade = to_rgb(0.0 if not word.score or not vmax else word.score / vmax)
        if (shade < 0.995).any():
            corner, area = (x / across, 1 - (y + height) / down), (width / across, height / down)
            axes.add_patch(Rectangle(corner, *area, facecolor=shade, linewidth=0, **place))
        dark = (
            np.dot(shade**2.2, (0.2126, 0.7152, 0.0722)) < 0.179
        )  # white letters have more contrast, by WCAG
        look = {"color": "white" if dark else "black", "fontsize": type_size}
        at = (x + width / 2) / across, 1 - (y + 0.72 * height) / down
        axes.text(*at, text, ha="center", va="baseline", parse_math=False, **look, **place)


def _flow(cells: Sequence[tuple], line_width: float, size: float) -> tuple[list, float, int]:
    """Words, texts, x, y from the top, width, height and size of type (points); where they end; lines."""
    height, gap, x, y, lines, placed = 1.5 * size, 0.16 * size, 0.0, 0.0, 1, []
    deep = any(below for _, below in cells)
    for cell in cells:
        sizes = [max(0.82 * size, _SMALLEST) if word and word.small else size for word in cell]
        pairs = list(zip(cell, sizes, strict=True))
        texts = [
            _shortened(word.text, (line_width - 0.5 * size) / 72, s) if word else ""
            for word, s in pairs
        ]
        width = max(_ems(text) * s + 0.5 * size for text, s in zip(texts, sizes, strict=True))
        if x and x + width > line_width:
            x, y, lines = 0.0, y + (height + gap) * (1 + deep) + gap * deep, lines + 1
        for row, (word, type_size) in enumerate(pairs):
            if word:
                middle = 0.5 * height * (deep and cell[1] is None)
                placed.append(
                    (word, texts[row], x, y + row * (height + 1) + middle, width, height, type_size)
                )
        x += width + gap
    return placed, y + (height + 1) * (1 + deep), lines


@lru_cache(maxsize=4096)
def _ems(text: str) -> float:
    """How wide a text is, in units of the size of its type."""
    return (
        text_to_path.get_text_width_height_descent(text, FontProperties(size=100), ismath=False)[0]
        / 100
    )


def _drawable(text: str) -> str:
    """A text with a box in place of letters that matplotlib's fonts lack (emoji, CJK)."""
    fonts = [
        get_font(findfont(FontProperties(family=[family])))
        for family in FontProperties().get_family()
    ]
    lacks = sorted(
        {letter for letter in text if not any(font.get_char_index(ord(letter)) for font in fonts)}
    )
    if lacks:
        warn(
            f"the font of figures lacks {' '.join(lacks[:10])} and draws boxes: choose another (font.family)"
        )
    return "".join("\N{WHITE SQUARE}" if letter in lacks else letter for letter in text)


def _shortened(text: str, inches: float, size: float = _SMALLEST) -> str:
    """A text cut with an ellipsis where it is wider than some inches."""
    text = _drawable(text if len(text) <= 400 else f"{text[:400]}…")
    while _ems(text) * size > inches * 72 and len(text) > 2:
        text = text.rstrip("…")[:-1].rstrip() + "…"
    return text


# ---------------------------------------------------------------------------------------- intervals


def plot_intervals(
    table,
    *,
    names: Sequence[str] | None = None,
    group: str | None = None,
    control: Sequence[str] = (),
    chance: float | None = None,
    chance_label: str = "chance",
    label: str = "",
    title: str = "",
    sort: bool = True,
) -> InlineFigure:
    """Draw estimates with their intervals, one row each, the highest on top.

        plot_intervals(group_means(rows, by="method", value="pointing_game", cluster="image"),
        chance=0.25)

    Args:
        table: a DataFrame with the columns mean (or estimate), low and high, as
            `statistics.group_means` gives it.
        names: the names of the rows; by default the columns beside the numbers, or the index.
        group: a column whose values get a colour and a marker each; rows of one name share a line.
        control: names of reference rows; they are grey, below a rule.
        chance: the value of a guess; a dashed line.
        chance_label: the name of that line.
        label: what the values are, under the axis.
        title: what is measured, in one line.
        sort: highest first; False keeps the order of the table.

    Raises:
        GradeclipError: the table lacks a column, has no row, or an interval that is none.
    """
    texts = {
        "chance_label": chance_label,
        "label": label,
        "title": title,
        "group": "" if group is None else group,
    }
    for name, value in texts.items():
        checks.text(name, value)
    checks.flag("sort", sort)
    chance = None if chance is None else checks.number("chance", chance, -1e30, 1e30)
    rows = _interval_rows(table, names, group)
    kinds = list(dict.fromkeys(rows["kind"]))
    if len(kinds) > len(PALETTE):
        raise GradeclipError(
            f"plot_intervals draws at most {len(PALETTE)} groups, got {len(kinds)}: {kinds}"
        )
    highest = rows.groupby("name", sort=False)["mean"].max()
    grey = set(map(str, checks.listed("control", control, (str,))))
    lines = sorted(highest.index, key=lambda name: (name in grey, -highest[name] if sort else 0))
    left = 0.35 + min(max(_ems(_drawable(name)) for name in lines) * 9 / 72, _WIDTH * 0.45)
    above = 0.12 + 0.26 * bool(title) + 0.22 * (chance is not None) + 0.24 * bool(group)
    tall = (0.27 + 0.13 * (len(kinds) - 1)) * len(lines)
    each = list(rows.itertuples(index=False))
    intervals = (
        f"{one.name} {one.kind} {one.mean:.2f}, {one.low:.2f} to {one.high:.2f}" for one in each
    )
    alt = f"{title or label}: {'; '.join(intervals)}".replace("  ", " ")
    figure = new_figure(_WIDTH, above + tall + 0.3 + 0.2 * bool(label), alt)
    axes = axes_at(figure, left, above, _WIDTH - left - 0.65, tall)
    _name_rows(axes, [_shortened(name, left - 0.2, 9) for name in lines], label)
    for one in each:
        kind = kinds.index(one.kind)
        y = lines.index(one.name) + (
            0.42 * (kind / (len(kinds) - 1) - 0.5) if len(kinds) > 1 else 0
        )
        look = {"color": "0.6" if one.name in grey else PALETTE[kind]}
        axes.plot([one.low, one.high], [y, y], linewidth=2, solid_capstyle="butt", **look)
        axes.plot(one.mean, y, marker=_MARKERS[kind], markersize=5.5, **look)
        value = f"{one.mean:.2f}".replace("-", "\N{MINUS SIGN}")
        axes.text(
            1.02,
            y,
            value,
            va="center",
            fontsize=_SMALLEST,
            transform=axes.get_yaxis_transform(),
            **look,
        )
    for tick, name in zip(axes.get_yticklabels(), lines, strict=True):
        tick.set_color("0.5" if name in grey else "black")
    if 0 < (candidates := sum(name not in grey for name in lines)) < len(lines):
        axes.axhline(candidates - 0.5, color="0.8", linewidth=0.8)
    if chance is not None:
        axes.axvline(chance, color="0.4", linestyle="--", linewidth=1, zorder=0)
        over = {
            "xycoords": axes.get_xaxis_transform(),
            "xytext": (0, 2),
            "textcoords": "offset points",
        }
        axes.annotate(chance_label, (chance, 1), ha="center", va="bottom", **over, **_NOTE)
    across, down = figure.get_size_inches()
    _write(
        figure,
        1 - 0.06 / down,
        _shortened(title, across - 2 * _MARGIN, 10.5),
        fontsize=10.5,
        color="black",
    )
    x = left
    for kind, colour, sign in zip(kinds if group else (), PALETTE, "●■◆▲", strict=False):
        y = 1 - (0.18 + 0.26 * bool(title)) / down
        figure.text(
            x / across,
            y,
            f"{sign} {_drawable(kind)}",
            color=colour,
            va="center",
            fontsize=9,
            parse_math=False,
        )
        x += _ems(kind) * 9 / 72 + 0.35
    return figure


def _interval_rows(table: Any, names: Sequence[str] | None, group: str | None) -> Any:
    """The rows of a table of intervals: mean, low, high, name, and kind, which is the value of the group."""
    checks.columns(table, [group] if group else [])
    given = table if "mean" in table else table.rename(columns={"estimate": "mean"})
    checks.columns(given, bounds := ["mean", "low", "high"])
    try:
        rows = given[bounds].astype(float)
    except (TypeError, ValueError) as error:
        raise GradeclipError(
            f"the columns mean, low, high must hold numbers ({first_line(error)})"
        ) from None
    mean, low, high = (rows[name] for name in bounds)
    if len(
        wrong := rows[mean.isna() | (rows.abs() > 1e30).any(axis=1) | (low > mean) | (mean > high)]
    ):
        row = ", ".join(f"{name} {value:g}" for name, value in wrong.iloc[0].items())
        raise GradeclipError(
            f"an interval is a low, a mean and a high up to 1e30, in this order, got {row}"
        )
    if names is None:
        others = [name for name in given.columns if name not in (*bounds, "n", group)]
        names = (
            [" ".join(map(str, row)) for row in given[others].to_numpy()]
            if others
            else list(given.index)
        )
    names = checks.listed("names", names)
    if not len(rows) or len(names) != len(rows):
        raise GradeclipError(
            f"plot_intervals needs rows, and a name for each, got {len(rows)} and {len(names)} names"
        )
    return rows.assign(
        name=[str(name) for name in names],
        kind=given[group].astype(str).to_numpy() if group else "",
    )


def _name_rows(axes: Axes, names: Sequence[str], label: str) -> None:
    """Give axes a named row for each of `names`, the first one on top, and a label below."""
    axes.set(yticks=range(len(names)), ylim=(len(names) - 0.5, -0.5))
    axes.tick_params(labelsize=_SMALLEST)
    axes.tick_params(axis="y", length=0)
    axes.set_yticklabels(names, fontsize=9, parse_math=False)
    axes.set_xlabel(_drawable(label), fontsize=9, parse_math=False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
