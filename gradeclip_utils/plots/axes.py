"""Axes: one map, one prompt or one image drawn onto matplotlib axes.

Explanation -> colours -> axes -> figures
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.image import BboxImage
from matplotlib.lines import TICKRIGHT, Line2D
from matplotlib.patches import Rectangle
from matplotlib.textpath import text_to_path
from matplotlib.transforms import Bbox, TransformedBbox
from PIL import Image

from ..checks import chosen
from .colours import grey_background, largest, number, range_in_words, scale, shown

if TYPE_CHECKING:
    import pandas as pd

SMALLEST = 8  # points of type: nine where it is shown, because a figure has 110 dots an inch and a page 96
NOTE: dict[str, Any] = {"color": "0.35", "fontsize": SMALLEST}
PALETTE = ("#5b3a86", "#c4670d", "0.45")  # purple, orange, grey: groups, which are told apart by their markers too
MARKERS = ("o", "s", "D")
FULL_WIDTH = 8.1  # inches: as wide as the column of a notebook, 900 pixels
MARGIN = 0.12  # inches
HEADLINE = 42  # letters in a line: as many as a telephone shows of a figure that is wider than itself
LARGEST, _SENTENCE = 12, 0.38  # of words: points of type, and inches for what stands below them
_PANEL_PIXELS = 720  # what a panel needs; a 20-megapixel image is reduced to it before it is coloured


def draw_heatmap(
    axes: Axes,
    image: Image.Image,
    heat: np.ndarray,
    *,
    signed: bool = False,
    vmax: float | None = None,
    label: str = "relevance",
    note: str = "the largest in this map",
    upsample: str = "bilinear",
    colour_bar: bool = True,
) -> None:
    """Lay a map over the image, which turns into a pale grey background so that only the map has colour."""
    heat = shown(np.asarray(heat, dtype=np.float32), signed)
    vmax = largest([heat]) if vmax is None else vmax
    norm, colours = scale(signed, vmax)
    small = reduced(image)
    method = Image.Resampling[chosen("upsample", upsample, ("bilinear", "nearest")).upper()]
    stretched = np.asarray(Image.fromarray(heat).resize(small.size, method))
    overlay = grey_background(small) * colours(norm(stretched))[..., :3]
    blank(axes).imshow(overlay, interpolation=sampling(image))
    if colour_bar:
        draw_colour_bar(axes, image, signed, vmax)
    if colour_bar and note:
        letters = int((_inches(axes)[0] + 0.75) * 13.5)
        sentence = textwrap.fill(range_in_words(label, signed, vmax, note), max(letters, 24))
        axes.text(0, -0.06 / _inches(axes)[1], sentence, va="top", transform=axes.transAxes, **NOTE)


def draw_words(
    axes: Axes,
    words: Sequence,
    *,
    signed: bool = False,
    vmax: float | None = None,
    values: bool = True,
    sentence: str | None = None,
    most: float = LARGEST,
) -> None:
    """Write a prompt as words shaded by their score, wrapped into lines; the type shrinks until everything fits."""
    blank(axes)
    vmax = largest([[word.score for word in words]]) if vmax is None else vmax
    norm, colours = scale(signed, vmax)
    inches = _inches(axes)
    across, down = inches[0] * 72, inches[1] * 72
    for size in np.arange(most, SMALLEST - 0.1, -0.5):
        places, bottom = _flow(words, across, vmax, values, float(size))
        if bottom <= down - _SENTENCE * 72 and all(x + width <= across for x, _, width, _ in places):
            break
    shades = [colours(norm(shown(word.score, signed))) for word in words]
    corners = [
        [(left / across, 1 - top / down) for left, top in ((x, y), (x + w, y), (x + w, y + h), (x, y + h))]
        for x, y, w, h in places
    ]
    outline = {"edgecolors": "0.8", "linewidths": 0.5, "transform": axes.transAxes, "clip_on": False}
    axes.add_collection(PolyCollection(corners, facecolors=shades, **outline), autolim=False)
    for word, colour, (x, y, width, height) in zip(words, shades, places, strict=True):
        centre, middle = (x + width / 2) / across, 0.85 * size if values else height / 2
        text = {"ha": "center", "va": "center", "transform": axes.transAxes, "parse_math": False}
        text["color"] = _text_colour(colour)
        axes.text(centre, 1 - (y + middle) / down, drawable(word.text), fontsize=size, **text)
        if values:
            lower = 1 - (y + height - 0.8 * SMALLEST) / down
            axes.text(centre, lower, number(word.score, vmax), fontsize=SMALLEST, **text)
    if not words:
        return
    below = bottom + 0.09 * 72
    sentence = range_in_words("words", signed, vmax) if sentence is None else sentence
    axes.text(0, 1 - below / down, sentence, va="top", transform=axes.transAxes, parse_math=False, **NOTE)


def _text_colour(shade: Sequence[float]) -> str:
    """Black or white, whichever is read on a shade of red, green and blue, each 0 to 1."""
    return "white" if np.dot(shade[:3], (0.2126, 0.7152, 0.0722)) < 0.45 else "black"


def drawable(text: str) -> str:
    """A text with a box in place of what matplotlib's font cannot draw (emoji, CJK), instead of a warning each."""
    text = re.sub(r"(?<![^\s\[(])-(?=\d)", "\N{MINUS SIGN}", text)
    font = get_font(findfont(FontProperties()))
    return "".join(
        letter if letter == "\n" or font.get_char_index(ord(letter)) else "\N{WHITE SQUARE}" for letter in text
    )


def draw_colour_bar(axes: Axes, image: Image.Image, signed: bool, vmax: float) -> None:
    """The scale beside an image, in inches that do not depend on the shape of the image."""
    norm, colours = scale(signed, vmax)
    inch = 1 / min(_inches(axes)[0], _inches(axes)[1] * image.width / image.height)  # of what the image will fill
    left, width, outside = 1 + 0.09 * inch, 0.1 * inch, {"transform": axes.transAxes, "clip_on": False}
    place = TransformedBbox(Bbox.from_bounds(left, 0, width, 1), axes.transAxes)
    bar = BboxImage(place, interpolation="nearest", clip_on=False)
    bar.set_data(colours(np.linspace(1, 0, 256), bytes=True)[:, None])
    ticks = [norm.vmin, 0, norm.vmax] if signed else [0, norm.vmax / 2, norm.vmax]
    axes.add_artist(bar)
    axes.add_artist(Rectangle((left, 0), width, 1, fill=False, linewidth=0.4, **outside))
    axes.add_artist(Line2D([left + width] * 3, [0, 0.5, 1], linestyle="", color="black", marker=TICKRIGHT,
                           markersize=2, markeredgewidth=0.8, **outside))  # fmt: skip
    flat = image.height / image.width / inch < 3 * SMALLEST / 72  # inches: three labels would lie on each other
    places = ("top", "", "bottom") if flat else ("center_baseline",) * 3
    for height, tick, sits in zip((0, 0.5, 1), ticks, places, strict=True):
        if sits:
            label = number(tick, vmax) if vmax or not tick else ""
            axes.text(left + width + 0.06 * inch, height, label, va=sits, fontsize=SMALLEST, gid="scale", **outside)


def _inches(axes: Axes) -> tuple[float, float]:
    across, down = axes.get_figure().get_size_inches()
    box = axes.get_position(original=True)
    return box.width * across, box.height * down


def blank(axes: Axes) -> Axes:
    """The axes without ticks and frame, filled from the upper left."""
    axes.set_axis_off()
    axes.set_anchor("NW")
    if not any(axes.get_title(place) for place in ("left", "center", "right")):
        entitle(axes, "")
    return axes


def entitle(axes: Axes, title: str, loc: str = "left", fontsize: float = 9) -> None:
    """A title right above blank axes."""
    axes.set_title(title, loc=loc, fontsize=fontsize, y=1.0, parse_math=False)


def reduced(image: Image.Image) -> Image.Image:
    """An RGB copy of an image, no larger than a panel needs."""
    image = image.convert("RGB")
    image.thumbnail((_PANEL_PIXELS, _PANEL_PIXELS))  # on the copy that convert made; never enlarges
    return image


def sampling(image: Image.Image) -> str:
    """How matplotlib interpolates an image: a small one keeps its pixels, and is never blurred."""
    return "nearest" if max(image.size) < 200 else "auto"


def words_height(words: Sequence, width: float, *, vmax: float, size: float = SMALLEST) -> float:
    """Inches that `draw_words` needs in axes of a width, with the sentence below in two lines."""
    return _flow(words, width * 72, vmax, True, size)[1] / 72 + _SENTENCE


def _flow(words: Sequence, line_width: float, vmax: float, values: bool, size: float):
    """Boxes (x, y from the top, width, height) of words in lines, and where the last line ends, all in points."""
    height, gap = 1.35 * (size + SMALLEST) if values else 1.55 * size, 0.22 * size
    x, y, places = 0.0, 0.0, []
    for word in words:
        score = _ems(number(word.score, vmax)) * SMALLEST if values else 0.0
        width = max(_ems(drawable(word.text)) * size, score) + 0.7 * size
        if x and x + width > line_width:
            x, y = 0.0, y + height + gap
        places.append((x, y, width, height))
        x += width + gap
    return places, y + height


@lru_cache(maxsize=4096)
def _ems(text: str) -> float:
    """How wide a text is, in units of the size of its type."""
    return text_to_path.get_text_width_height_descent(text, FontProperties(size=100), ismath=False)[0] / 100


def draw_intervals(
    axes: Axes,
    table: pd.DataFrame,
    by: str,
    group: str | None = None,
    *,
    order: Sequence | None = None,
    groups: Sequence | None = None,
    colour: str = PALETTE[0],
) -> None:
    """Means with their intervals by seaborn's `pointplot`, a row for each value of a column, the first one on top."""
    import seaborn  # slow to import, and most figures do without

    rows = list(dict.fromkeys(table[by]) if order is None else order)
    own: dict[str, Any] = {"color": colour, "markers": MARKERS[0]}
    if group:
        groups = list(dict.fromkeys(table[group]) if groups is None else groups)
        own = {"hue": group, "hue_order": groups, "palette": list(PALETTE[: len(groups)]), "legend": "full",
               "markers": list(MARKERS[: len(groups)]), "dodge": 0.26 * (len(groups) - 1)}  # fmt: skip
    # low, mean and high as three draws: their median is the mean, and they span the interval
    draws = table[table[by].isin(rows)].melt([by, *([group] if group else [])], ["low", "mean", "high"])
    seaborn.pointplot(
        draws, x="value", y=by, orient="h", order=rows, ax=axes,
        estimator="median", errorbar=("pi", 100), linestyle="none", markersize=5, err_kws={"linewidth": 2}, **own,
    )  # fmt: skip
    if legend := axes.get_legend():
        legend.remove()


def name_rows(axes: Axes, names: Sequence[str], label: str, title: str = "") -> None:
    """Axes with a named row for each of `names`, the first one on top, and what the values are under them."""
    axes.set(yticks=range(len(names)), ylim=(len(names) - 0.5, -0.5))
    style(axes, label, title=title)
    axes.set_yticklabels(names, fontsize=9, parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)


def style(axes: Axes, across: str = "", up: str = "", title: str = "") -> Axes:
    """The axes in the theme of all statistical ones: an open frame, small type, and nothing taken for a formula."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=SMALLEST)
    axes.set_xlabel(drawable(across), fontsize=9, parse_math=False)
    axes.set_ylabel(drawable(up), fontsize=9, parse_math=False)
    axes.set_title(drawable(title), loc="left", fontsize=9, parse_math=False)
    return axes


def headed(figure: Figure, title: str) -> float:
    """Write over a figure what it comes to, in lines that a telephone shows whole; the figure grows by what they take."""
    across, down = figure.get_size_inches()
    lines = textwrap.fill(drawable(title), min(int(across * 12), HEADLINE), break_on_hyphens=False)
    head = 0.18 * (lines.count("\n") + 1) + 0.06 if lines else 0.0
    figure.set_size_inches(across, down + head)
    figure.text(MARGIN / across, 1 - 0.08 / (down + head), lines, va="top", fontsize=10, parse_math=False)
    return head


def axes_at(figure: Figure, x: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place given in inches from the upper left corner."""
    across, down = figure.get_size_inches()
    return figure.add_axes((x / across, 1 - (top + height) / down, width / across, height / down))


def show_image(axes: Axes, image: Image.Image, title: str) -> None:
    """The image itself, never blurred."""
    blank(axes).imshow(reduced(image), interpolation=sampling(image))
    entitle(axes, title)
