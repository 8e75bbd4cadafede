"""Drawing: one map or one prompt onto matplotlib axes, and the colours that all pictures share.

    architecture -> trace -> method -> explanation -> drawing -> plots

One reading for maps and words alike: paper is "no relevance", ink is "much". Unsigned relevance goes from white to dark
(`magma`, reversed), signed relevance from purple through white to orange (`PuOr`, reversed), always centred on zero;
both are safe for colour-blind eyes. Colour is linear in the value, with nothing clipped, squared or smoothed.
"""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.colors import Colormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.image import BboxImage
from matplotlib.lines import TICKRIGHT, Line2D
from matplotlib.patches import Rectangle
from matplotlib.transforms import Bbox, TransformedBbox
from PIL import Image

from .images import onto_picture


def _from_paper(colours: np.ndarray) -> np.ndarray:
    """Let (N, 4) colours begin at white: magma's own pale end is a yellow that would tint the whole picture."""
    paper = np.clip(1 - np.linspace(0, 1, len(colours)) / 0.3, 0, 1)[:, None]
    return paper + (1 - paper) * colours


# Dark ends are cut where ink would hide the picture below it or the word above it.
UNSIGNED = ListedColormap(_from_paper(colormaps["magma_r"](np.linspace(0.0, 0.72, 256))), "unsigned")
SIGNED = ListedColormap(colormaps["PuOr_r"](np.linspace(0.1, 0.9, 257)), "signed")
# Perceptually uniform and safe for colour-blind eyes, all of them; "paper" is the one that leaves the picture readable.
COLOURS = {"paper": UNSIGNED, **{name: colormaps[name] for name in ("viridis", "cividis", "magma")}}
NOTE = {"color": "0.35", "fontsize": 8}
_PANEL_PIXELS = 720  # what a panel needs; a 20-megapixel picture is reduced to it before it is coloured
_SMALL, _LARGE = 320, 640  # pixels of the longest side that `paint` gives


class Picture(Figure):
    """A matplotlib figure that a notebook displays by itself, and only once, because pyplot does not hold it.

    Args:
        width, height: inches.
        alt: what the figure shows, for those who cannot see it; by default its titles and the names of its axes.
        **options: of a matplotlib figure, such as ``layout="constrained"``.
    """

    def __init__(self, width: float, height: float, alt: str = "", **options):
        super().__init__(figsize=(width, height), dpi=110, **options)
        FigureCanvasAgg(self)
        self.alt = alt

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        picture = base64.b64encode(self._repr_png_()).decode("ascii")
        alt = alternative(self)
        return {"image/png": picture, "text/plain": alt}, {"image/png": {"alt": alt}}

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", bbox_inches="tight")
        return buffer.getvalue()


def alternative(figure) -> str:
    """What is shown, to those who cannot see it: its own `alt`, or else a figure's titles and the names of its axes."""
    if getattr(figure, "alt", ""):
        return figure.alt
    parts = [figure.get_suptitle()]
    for axes in figure.axes:
        title = " ".join(axes.get_title(place) for place in ("left", "center", "right")).strip()
        across, up = axes.get_xlabel(), axes.get_ylabel()
        parts += [title, f"{up} over {across}" if across and up else across or up]
    return "; ".join(dict.fromkeys(" ".join(part.split()) for part in parts if part)) or "a figure without a title"


def draw_heatmap(
    axes: Axes,
    picture: Image.Image,
    heat: np.ndarray,
    *,
    signed: bool = False,
    vmax: float | None = None,
    label: str = "relevance",
    note: str = "the most in this map",
    upsample: str = "bilinear",
    colour_bar: bool = True,
) -> None:
    """Print a map over the picture, which turns into a pale grey print of itself so that only the map has colour.

    Args:
        axes: where to draw.
        picture: the picture that was explained.
        heat: (H, W) of the picture, or (h, w) on the token grid, which is then stretched over the whole picture.
        signed: draw negative values too, centred on zero; else they count as zero.
        vmax: the value of the darkest ink; the map's own largest by default.
        label: what the values are.
        note: what `vmax` is, in words; "" leaves the whole sentence out, where another panel says it.
        upsample: "bilinear" or "nearest", for a map on the token grid.
        colour_bar: draw the scale and say its range.
    """
    heat = shown(np.asarray(heat, dtype=np.float32), signed)
    vmax = largest([heat]) if vmax is None else vmax
    norm, colours = scale(signed, vmax)
    small = reduced(picture)
    printed = _grey(small) * colours(norm(_stretched(heat, small.size, upsample)))[..., :3]
    blank(axes).imshow(printed, interpolation=sampling(picture))
    if colour_bar:
        draw_colour_bar(axes, picture, signed, vmax)
    if colour_bar and note:
        letters = int((_inches(axes)[0] + 0.75) * 13.5)
        sentence = textwrap.fill(range_in_words(label, signed, vmax, note), max(letters, 24))
        axes.text(0, -0.06 / _inches(axes)[1], sentence, va="top", transform=axes.transAxes, **NOTE)


def paint(
    picture: Image.Image,
    heat: np.ndarray,
    *,
    box: tuple[float, float, float, float] | None = None,
    signed: bool = False,
    vmax: float | None = None,
    threshold: float = 0.0,
    opacity: float = 1.0,
    colours: str = "paper",
) -> Image.Image:
    """One bare map on the picture, as an RGB image whose longest side has 320 to 640 pixels: no axes, no words.

    The print of `draw_heatmap` without its layout, in milliseconds. A small picture is enlarged by a whole factor.

        paint(explanation.image, explanation.image_maps[0], box=explanation.box, opacity=0.8)

    Args:
        picture: the picture that was explained.
        heat: (h, w) on the token grid.
        box: left, top, right, bottom of what the model saw, in the picture's pixels (no ink beyond it); all by default.
        signed: paint negative values too, centred on zero; else they count as zero.
        vmax: the value of the darkest ink; the map's own largest by default.
        threshold: ink is left out where the magnitude is below this share of `vmax`.
        opacity: 1 is the print, where only the map has colour, 0 the picture as it is, and between them they mix.
        colours: a name in `COLOURS`, for what is unsigned; signed maps are always purple to orange.

    Raises:
        ValueError: threshold or opacity is not in 0 to 1, or `colours` is no name in `COLOURS`.
    """
    if not (0 <= threshold <= 1 and 0 <= opacity <= 1):
        raise ValueError(f"threshold and opacity must lie in 0 to 1, got {threshold!r} and {opacity!r}")
    heat = shown(np.asarray(heat, dtype=np.float32), signed)
    vmax = largest([heat]) if vmax is None else vmax
    norm, palette = scale(signed, vmax, colours)
    base = _panel_sized(picture)
    across, down = base.width / picture.width, base.height / picture.height
    there = tuple(np.array(box or (0, 0, *picture.size)) * (across, down, across, down))
    values = onto_picture(heat, there, base.size)  # (H, W)
    x, y = (np.arange(side) + 0.5 for side in base.size)
    seen = np.outer((y >= there[1]) & (y <= there[3]), (x >= there[0]) & (x <= there[2]))
    table = palette(np.linspace(0, 1, 256))[:, :3].astype(np.float32)
    chosen = table[np.clip(norm(values) * 255 + 0.5, 0, 255).astype(np.uint8)]  # (H, W, 3)
    chosen[~seen | (np.abs(values) < threshold * vmax)] = 1.0
    mixed = opacity * 255 * _grey(base) * chosen + (1 - opacity) * np.asarray(base, dtype=np.float32)
    return Image.fromarray((mixed + 0.5).astype(np.uint8))


def draw_words(
    axes: Axes,
    words: Sequence,
    *,
    signed: bool = False,
    vmax: float | None = None,
    values: bool = True,
    sentence: str | None = None,
) -> None:
    """Write a prompt as words shaded by their score, wrapped into lines; the type shrinks until everything fits.

    Args:
        axes: where to write; its size must be final.
        words: `Word(text, score, start, end)` in reading order.
        signed: shade negative scores too; else they count as zero (their value is still written).
        vmax: the score of the darkest ink; the words' own largest magnitude by default, of either sign, so that a
            trifle is pale even where every other word speaks against.
        values: write every score under its word.
        sentence: written below; by default what the palest and the darkest ink stand for.
    """
    blank(axes)
    vmax = largest([[word.score for word in words]]) if vmax is None else vmax
    norm, colours = scale(signed, vmax)
    places, size = _fitted(axes, words, values)
    box = axes.get_window_extent()
    shades = [colours(norm(shown(word.score, signed))) for word in words]
    corners = [
        [(left / box.width, 1 - top / box.height) for left, top in ((x, y), (x + w, y), (x + w, y + h), (x, y + h))]
        for x, y, w, h in places
    ]
    outline = {"edgecolors": "0.8", "linewidths": 0.5, "transform": axes.transAxes, "clip_on": False}
    axes.add_collection(PolyCollection(corners, facecolors=shades, **outline), autolim=False)
    for word, colour, (x, y, width, height) in zip(words, shades, places, strict=True):
        centre = (x + width / 2) / box.width
        share = 0.36 if values else 0.5
        text = {"ha": "center", "va": "center", "transform": axes.transAxes, "color": ink(colour), "parse_math": False}
        axes.text(centre, 1 - (y + height * share) / box.height, drawable(word.text), fontsize=size, **text)
        if values:
            score = number(word.score, vmax)
            axes.text(centre, 1 - (y + height * 0.78) / box.height, score, fontsize=size * 0.62, **text)
    if not words:
        return
    below = max(y + height for _, y, _, height in places) + 0.09 * axes.get_figure().dpi
    sentence = range_in_words("words", signed, vmax) if sentence is None else sentence
    axes.text(0, 1 - below / box.height, sentence, va="top", transform=axes.transAxes, **NOTE)


def drawable(text: str) -> str:
    """The text with a box in place of what matplotlib's font cannot draw (emoji, CJK), instead of a warning each."""
    font = get_font(findfont(FontProperties()))
    return "".join(letter if font.get_char_index(ord(letter)) else "\N{WHITE SQUARE}" for letter in text)


def shown(value, signed: bool):
    """The display's relu, for a score or an array."""
    return value if signed else np.maximum(value, 0)


def largest(values: Iterable) -> float:
    """The largest magnitude in any of the arrays; 0 of nothing."""
    return max((float(np.abs(array).max()) for array in map(np.asarray, values) if array.size), default=0.0)


def scale(signed: bool, vmax: float, colours: str = "paper") -> tuple[Normalize, Colormap]:
    """From values to colours; the darkest ink is `vmax`."""
    if colours not in COLOURS:
        raise ValueError(f"colours must be one of {', '.join(COLOURS)}, got {colours!r}")
    vmax = vmax or 1.0  # an all-zero map: everything is paper
    return Normalize(-vmax if signed else 0, vmax), SIGNED if signed else COLOURS[colours]


def number(value: float, vmax: float) -> str:
    """Enough digits for the scale at hand, and no minus in front of nothing."""
    if not vmax:
        return "0"
    digits = max(0, min(6, 2 - int(np.floor(np.log10(vmax)))))
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}") if round(value, digits) else "0"


def range_in_words(label: str, signed: bool, vmax: float, note: str = "", colours: str = "paper") -> str:
    """What the two ends of the scale stand for."""
    if not vmax:
        return f"{label}: zero everywhere" if signed else f"{label}: nowhere above zero"
    top = number(vmax, vmax)
    note = f", {note}" if note else ""
    if signed:
        return f"{label}: purple \N{MINUS SIGN}{top} (against) to orange +{top} (for){note}"
    low, high = ("pale", "dark") if colours == "paper" else ("dark", "bright")  # as matplotlib's own maps run
    return f"{label}: {low} 0 to {high} {top}{note}"


def draw_colour_bar(axes: Axes, picture: Image.Image, signed: bool, vmax: float) -> None:
    """The scale beside a picture, in inches that do not depend on the shape of the picture.

    An image, a frame and three words in the same axes: axes of its own cost a panel five times as long.
    """
    norm, colours = scale(signed, vmax)
    inch = 1 / min(_inches(axes)[0], _inches(axes)[1] * picture.width / picture.height)  # of what the picture will fill
    left, width, outside = 1 + 0.09 * inch, 0.1 * inch, {"transform": axes.transAxes, "clip_on": False}
    place = TransformedBbox(Bbox.from_bounds(left, 0, width, 1), axes.transAxes)
    bar = BboxImage(place, interpolation="nearest", clip_on=False)
    bar.set_data(colours(np.linspace(1, 0, 256), bytes=True)[:, None])
    ticks = [norm.vmin, 0, norm.vmax] if signed else [0, norm.vmax / 2, norm.vmax]
    axes.add_artist(bar)
    axes.add_artist(Rectangle((left, 0), width, 1, fill=False, linewidth=0.4, **outside))
    axes.add_artist(Line2D([left + width] * 3, [0, 0.5, 1], linestyle="", color="black", marker=TICKRIGHT,
                           markersize=2, markeredgewidth=0.8, **outside))  # fmt: skip
    for height, tick in zip((0, 0.5, 1), ticks, strict=True):
        label = number(tick, vmax) if vmax or not tick else ""
        axes.text(left + width + 0.06 * inch, height, label, va="center_baseline", fontsize=7.5, gid="scale", **outside)


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
    """A title right above blank axes.

    Left to find its place, matplotlib makes ticks to keep clear of, which nobody sees: half the time of a figure.
    """
    axes.set_title(title, loc=loc, fontsize=fontsize, y=1.0, parse_math=False)


def reduced(picture: Image.Image) -> Image.Image:
    """An RGB copy, no larger than a panel needs."""
    picture = picture.convert("RGB")
    picture.thumbnail((_PANEL_PIXELS, _PANEL_PIXELS))  # on the copy that convert made; never enlarges
    return picture


def sampling(picture: Image.Image) -> str:
    """How matplotlib shows the picture: a small one keeps its pixels, and is never blurred."""
    return "nearest" if max(picture.size) < 200 else "auto"


def _grey(picture: Image.Image) -> np.ndarray:
    """A pale grey print of the picture, (H, W, 1) in 0.5 to 1."""
    return 0.5 + 0.5 * np.asarray(picture.convert("L"), dtype=np.float32)[..., None] / 255


def _panel_sized(picture: Image.Image) -> Image.Image:
    """An RGB copy of 320 to 640 pixels; a small picture is enlarged by a whole factor, so that it is never blurred."""
    picture, factor = picture.convert("RGB"), -(-_SMALL // max(picture.size))
    if factor > 1:
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    picture.thumbnail((_LARGE, _LARGE))
    return picture


def _stretched(heat: np.ndarray, size: tuple[int, int], upsample: str) -> np.ndarray:
    if upsample not in ("bilinear", "nearest"):
        raise ValueError(f"upsample must be 'bilinear' or 'nearest', got {upsample!r}")
    method = Image.Resampling.BILINEAR if upsample == "bilinear" else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(heat).resize(size, method))


def ink(colour) -> str:
    """Black or white, whichever is read on this colour."""
    red, green, blue = colour[:3]
    return "white" if 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.45 else "black"


def _fitted(axes: Axes, words: Sequence, values: bool) -> tuple[list[tuple[float, float, float, float]], float]:
    """Boxes (x, y from the top, width, height), in pixels of the axes, at the largest type size that fits."""
    box, figure = axes.get_window_extent(), axes.get_figure()
    renderer, em = figure.canvas.get_renderer(), figure.dpi / 72  # pixels of a type of one point
    texts = [(drawable(word.text), 12) for word in words] + [("\N{MINUS SIGN}0.00000", 12 * 0.62)]
    *widths, score = (
        renderer.get_text_width_height_descent(text, FontProperties(size=size), False)[0] / 12 for text, size in texts
    )
    ems = [max(width, score if values else 0) / em + 0.7 for width in widths]
    for size in np.arange(12, 3.9, -0.5):
        places, bottom = _flow(ems, values, em * size, box.width)
        if bottom <= box.height - 0.25 * figure.dpi and all(x + width <= box.width for x, _, width, _ in places):
            break
    return places, float(size)


def _flow(ems: Sequence[float], values: bool, pixels: float, line_width: float):
    """Boxes of these widths in lines, and where the last line ends; ``pixels`` is the size of the type."""
    height, gap = pixels * (2.35 if values else 1.55), pixels * 0.22
    x, y, places = 0.0, 0.0, []
    for wide in ems:
        width = wide * pixels
        if x and x + width > line_width:
            x, y = 0.0, y + height + gap
        places.append((x, y, width, height))
        x += width + gap
    return places, y + height
