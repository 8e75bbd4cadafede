"""Axes: the parts of a figure on matplotlib axes: a map, shaded words, intervals, and the theme of statistical plots.

Drawing, table -> here -> figures
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import Rectangle
from matplotlib.textpath import text_to_path
from PIL import Image

from .colours import coloured, is_whole, largest, paint
from .drawing import Cell, title_of

SMALLEST = 8  # points of type: nine where it is shown, because a figure has 110 dots an inch and a page 96
NOTE: dict[str, Any] = {"color": "0.35", "fontsize": SMALLEST}
PALETTE = ("#1b7f79", "#4d4d4d", "#7cc5bd", "#a6a6a6")  # teal and grey: groups, told apart by their markers too
MARKERS = ("o", "s", "D", "^")
FULL_WIDTH = 8.1  # inches: as wide as the column of a notebook, 860 pixels
MARGIN = 0.12  # inches
LARGEST = 13  # points of type of the words of a title
_PANEL_PIXELS = 720  # a larger image is reduced before it is drawn


def draw_heatmap(
    axes: Axes,
    image: Image.Image,
    heat: np.ndarray,
    *,
    signed: bool = False,
    vmax: float | None = None,
    box: tuple[float, float, float, float] | None = None,
    upsample: str = "bilinear",
) -> None:
    """Draw a map over the image, which turns light grey; arguments as in `paint`."""
    painted = paint(image, heat, box=box, signed=signed, vmax=vmax, upsample=upsample)
    blank(axes).imshow(painted, interpolation="antialiased")


def draw_words(axes: Axes, words: Sequence, *, vmax: float | None = None, size: float = LARGEST) -> None:
    """Write a prompt from the upper left of the axes, its words shaded by their signed scores."""
    vmax = largest([[word.score for word in words]]) if vmax is None else vmax
    draw_cells(axes, title_of(words, ""), vmax, size)


def draw_cells(axes: Axes, cells: Sequence[Cell], vmax: float, size: float) -> None:
    """Write the cells of a title from the upper left of the axes, in lines."""
    across, down = (72 * side for side in _inches(blank(axes)))
    place: dict[str, Any] = {"transform": axes.transAxes, "clip_on": False}
    for word, text, x, y, width, height, type_size in flow(cells, across, size)[0]:
        shade = coloured(0.0 if not word.score or not vmax else word.score / vmax)
        if (shade < 0.995).any():
            corner, area = (x / across, 1 - (y + height) / down), (width / across, height / down)
            axes.add_patch(Rectangle(corner, *area, facecolor=shade, linewidth=0, **place))
        place["color"] = "white" if np.dot(shade, (0.2126, 0.7152, 0.0722)) < 0.5 else "black"
        at = (x + width / 2) / across, 1 - (y + 0.72 * height) / down
        axes.text(*at, text, ha="center", va="baseline", fontsize=type_size, parse_math=False, **place)
        del place["color"]


def flow(cells: Sequence[Cell], line_width: float, size: float) -> tuple[list, float, int]:
    """Return words, texts, x, y from the top, width, height and size of type (points); where they end; lines."""
    height, gap, x, y, lines, placed = 1.5 * size, 0.16 * size, 0.0, 0.0, 1, []
    deep = any(below for _, below in cells)
    for cell in cells:
        sizes = [max(0.82 * size, SMALLEST) if word and word.small else size for word in cell]
        pairs = list(zip(cell, sizes, strict=True))
        texts = [shortened(word.text, (line_width - 0.5 * size) / 72, s) if word else "" for word, s in pairs]
        width = max(ems(text) * s + 0.5 * size for text, s in zip(texts, sizes, strict=True))
        if x and x + width > line_width:
            x, y, lines = 0.0, y + (height + gap) * (1 + deep) + gap * deep, lines + 1
        for row, (word, type_size) in enumerate(pairs):
            if word:
                middle = 0.5 * height * (deep and cell[1] is None)
                placed.append((word, texts[row], x, y + row * (height + 1) + middle, width, height, type_size))
        x += width + gap
    return placed, y + (height + 1) * (1 + deep), lines


@lru_cache(maxsize=4096)
def ems(text: str) -> float:
    """Return how wide a text is, in units of the size of its type."""
    return text_to_path.get_text_width_height_descent(text, FontProperties(size=100), ismath=False)[0] / 100


def drawable(text: str) -> str:
    """Return a text with a box in place of letters that matplotlib's font lacks (emoji, CJK)."""
    text = re.sub(r"(?<![^\s\[(])-(?=\d)", "\N{MINUS SIGN}", text)
    font = get_font(findfont(FontProperties()))
    return "".join(
        letter if letter == "\n" or font.get_char_index(ord(letter)) else "\N{WHITE SQUARE}" for letter in text
    )


def fitting(texts: Sequence[str], inches: float, size: float = SMALLEST) -> str:
    """Return the first of several wordings that fits into a width, or the last one."""
    return next((text for text in texts if ems(text) * size <= inches * 72), texts[-1] if texts else "")


def shortened(text: str, inches: float, size: float) -> str:
    """Return a text cut with an ellipsis where it is wider than some inches."""
    text = drawable(text)
    while ems(text) * size > inches * 72 and len(text) > 2:
        text = text.rstrip("…")[:-1].rstrip() + "…"
    return text


def _inches(axes: Axes) -> tuple[float, float]:
    across, down = axes.get_figure().get_size_inches()
    box = axes.get_position(original=True)
    return box.width * across, box.height * down


def blank(axes: Axes) -> Axes:
    """Return the axes without ticks and frame, filled from the upper left."""
    axes.set_axis_off()
    axes.set_anchor("NW")
    return axes


def entitle(axes: Axes, title: str, loc: str = "left", fontsize: float = 9) -> None:
    """Write a title right above blank axes."""
    axes.set_title(title, loc=loc, fontsize=fontsize, y=1.0, parse_math=False)


def reduced(image: Image.Image) -> Image.Image:
    """Return an RGB copy of an image, no larger than a panel needs."""
    image = image.convert("RGB")
    image.thumbnail((_PANEL_PIXELS, _PANEL_PIXELS))  # on the copy that convert made; never enlarges
    return image


def show_image(axes: Axes, image: Image.Image, title: str = "", box=None) -> None:
    """Draw the image itself, with a frame around what the model saw."""
    small = reduced(image)
    blank(axes).imshow(small, interpolation="nearest" if max(small.size) < 200 else "antialiased")
    if not is_whole(box, image):
        left, top, right, bottom = np.array(box) * small.width / image.width
        left, top = max(left, 0), max(top, 0)
        axes.add_patch(
            Rectangle((left, top), right - left, bottom - top, fill=False, color="0.2", linewidth=1, linestyle="--")
        )
    if title:
        entitle(axes, title)


def name_rows(axes: Axes, names: Sequence[str], label: str, title: str = "") -> None:
    """Give axes a named row for each of `names`, the first one on top, and a label below."""
    axes.set(yticks=range(len(names)), ylim=(len(names) - 0.5, -0.5))
    style(axes, label, title=title)
    axes.set_yticklabels(names, fontsize=9, parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)


def style(axes: Axes, across: str = "", up: str = "", title: str = "") -> Axes:
    """Return the axes in the theme of all statistical plots: an open frame and small type."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=SMALLEST)
    axes.set_xlabel(drawable(across), fontsize=9, parse_math=False)
    axes.set_ylabel(drawable(up), fontsize=9, parse_math=False)
    axes.set_title(drawable(title), loc="left", fontsize=9, parse_math=False)
    return axes


def headed(figure: Figure, title: str) -> float:
    """Write a title over a figure and return the inches that it takes; the figure grows by them."""
    across, down = figure.get_size_inches()
    lines = textwrap.fill(drawable(title), int(across * 12), break_on_hyphens=False)
    head = 0.18 * (lines.count("\n") + 1) + 0.06 if lines else 0.0
    figure.set_size_inches(across, down + head)
    figure.text(MARGIN / across, 1 - 0.08 / (down + head), lines, va="top", fontsize=10, parse_math=False)
    return head


def axes_at(figure: Figure, x: float, top: float, width: float, height: float) -> Axes:
    """Return new axes at a place given in inches from the upper left corner."""
    across, down = figure.get_size_inches()
    return figure.add_axes((x / across, 1 - (top + height) / down, width / across, height / down))
