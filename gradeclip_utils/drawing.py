"""Drawing: one map or one prompt onto matplotlib axes, and the colours that all pictures share.

    architecture -> trace -> method -> explanation -> drawing -> plots

One reading for maps and words alike: paper is "no relevance", ink is "much". Unsigned relevance goes from white to dark
(`magma`, reversed), signed relevance from purple through white to orange (`PuOr`, reversed), always centred on zero;
both are safe for colour-blind eyes. Colour is linear in the value, with nothing clipped, squared or smoothed.
"""

from __future__ import annotations

import base64
import html
import io
import textwrap
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, ListedColormap, Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import FancyBboxPatch
from PIL import Image


def _from_paper(colours: np.ndarray) -> np.ndarray:
    """Let (N, 4) colours begin at white: magma's own pale end is a yellow that would tint the whole picture."""
    paper = np.clip(1 - np.linspace(0, 1, len(colours)) / 0.3, 0, 1)[:, None]
    return paper + (1 - paper) * colours


# Dark ends are cut where ink would hide the picture below it or the word above it.
UNSIGNED = ListedColormap(_from_paper(colormaps["magma_r"](np.linspace(0.0, 0.72, 256))), "unsigned")
SIGNED = ListedColormap(colormaps["PuOr_r"](np.linspace(0.1, 0.9, 257)), "signed")
NOTE = {"color": "0.35", "fontsize": 8}
_PANEL_PIXELS = 720  # what a panel needs; a 20-megapixel picture is reduced to it before it is coloured


class Picture(Figure):
    """A matplotlib figure that a notebook displays by itself, and only once, because pyplot does not hold it.

    Args:
        width, height: inches.
        alt: what the figure shows, for those who cannot see it.
    """

    def __init__(self, width: float, height: float, alt: str = ""):
        super().__init__(figsize=(width, height), dpi=110)
        FigureCanvasAgg(self)
        self.alt = alt

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        picture = base64.b64encode(self._repr_png_()).decode("ascii")
        return {"image/png": picture, "text/plain": self.alt or repr(self)}, {"image/png": {"alt": self.alt}}

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", bbox_inches="tight")
        return buffer.getvalue()


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
    norm, colours = _scale(signed, vmax)
    small = reduced(picture)
    grey = 0.5 + 0.5 * np.asarray(small.convert("L"), dtype=np.float32)[..., None] / 255
    printed = grey * colours(norm(_stretched(heat, small.size, upsample)))[..., :3]
    blank(axes).imshow(printed, interpolation=sampling(picture))
    if colour_bar:
        draw_colour_bar(axes, picture, signed, vmax)
    if colour_bar and note:
        letters = int((_inches(axes)[0] + 0.75) * 13.5)
        sentence = textwrap.fill(range_in_words(label, signed, vmax, note), max(letters, 24))
        axes.text(0, -0.06 / _inches(axes)[1], sentence, va="top", transform=axes.transAxes, **NOTE)


def draw_words(
    axes: Axes, words: Sequence, *, signed: bool = False, vmax: float | None = None, values: bool = True
) -> None:
    """Write a prompt as words shaded by their score, wrapped into lines; the type shrinks until everything fits.

    Args:
        axes: where to write; its size must be final.
        words: `Word(text, score, start, end)` in reading order.
        signed: shade negative scores too; else they count as zero (their value is still written).
        vmax: the score of the darkest ink; the words' own largest magnitude by default, of either sign, so that a
            trifle is pale even where every other word speaks against.
        values: write every score under its word.
    """
    blank(axes)
    vmax = largest([[word.score for word in words]]) if vmax is None else vmax
    norm, colours = _scale(signed, vmax)
    places, size = _fitted(axes, words, values)
    box = axes.get_window_extent()
    for word, (x, y, width, height) in zip(words, places, strict=True):
        colour = colours(norm(shown(word.score, signed)))
        patch = FancyBboxPatch(
            (x / box.width, 1 - (y + height) / box.height), width / box.width, height / box.height,
            boxstyle="square,pad=0", facecolor=colour, edgecolor="0.8", linewidth=0.5, transform=axes.transAxes,
        )  # fmt: skip
        axes.add_patch(patch)
        centre = (x + width / 2) / box.width
        share = 0.36 if values else 0.5
        text = {"ha": "center", "va": "center", "transform": axes.transAxes, "color": _ink(colour), "parse_math": False}
        axes.text(centre, 1 - (y + height * share) / box.height, drawable(word.text), fontsize=size, **text)
        if values:
            score = _number(word.score, vmax)
            axes.text(centre, 1 - (y + height * 0.78) / box.height, score, fontsize=size * 0.62, **text)
    if not words:
        return
    below = max(y + height for _, y, _, height in places) + 0.09 * axes.get_figure().dpi
    axes.text(
        0, 1 - below / box.height, range_in_words("words", signed, vmax), va="top", transform=axes.transAxes, **NOTE
    )


def words_html(words: Sequence, *, signed: bool = False, vmax: float | None = None) -> str:
    """The shaded words as one HTML line, for rich display; the text is escaped, the score stands in the tooltip."""
    vmax = largest([[word.score for word in words]]) if vmax is None else vmax
    norm, colours = _scale(signed, vmax)
    spans = []
    for word in words:
        colour = colours(norm(shown(word.score, signed)))
        style = f"background:{to_hex(colour)};color:{_ink(colour)};padding:1px 4px;border-radius:3px"
        spans.append(f'<span style="{style}" title="{_number(word.score, vmax)}">{html.escape(word.text)}</span>')
    return f'<div style="line-height:1.9">{" ".join(spans)}</div>'


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


def _scale(signed: bool, vmax: float) -> tuple[Normalize, Colormap]:
    vmax = vmax or 1.0  # an all-zero map: everything is paper
    return Normalize(-vmax if signed else 0, vmax), SIGNED if signed else UNSIGNED


def _number(value: float, vmax: float) -> str:
    """Enough digits for the scale at hand, and no minus in front of nothing."""
    if not vmax:
        return "0"
    digits = max(0, min(6, 2 - int(np.floor(np.log10(vmax)))))
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}") if round(value, digits) else "0"


def range_in_words(label: str, signed: bool, vmax: float, note: str = "") -> str:
    """What the palest and the darkest ink stand for."""
    if not vmax:
        return f"{label}: zero everywhere" if signed else f"{label}: nowhere above zero"
    top = _number(vmax, vmax)
    note = f", {note}" if note else ""
    if signed:
        return f"{label}: purple \N{MINUS SIGN}{top} (against) to orange +{top} (for){note}"
    return f"{label}: pale 0 to dark {top}{note}"


def draw_colour_bar(axes: Axes, picture: Image.Image, signed: bool, vmax: float) -> None:
    """The scale beside a picture, in inches that do not depend on the shape of the picture."""
    norm, colours = _scale(signed, vmax)
    inch = 1 / min(_inches(axes)[0], _inches(axes)[1] * picture.width / picture.height)  # of what the picture will fill
    bar = axes.inset_axes((1 + 0.09 * inch, 0, 0.1 * inch, 1))
    ticks = [norm.vmin, 0, norm.vmax] if signed else [0, norm.vmax / 2, norm.vmax]
    axes.get_figure().colorbar(ScalarMappable(norm, colours), cax=bar, ticks=ticks)
    bar.set_yticklabels([_number(tick, vmax) if vmax or not tick else "" for tick in ticks], fontsize=7.5)
    bar.tick_params(length=2, pad=2)
    bar.spines[:].set_linewidth(0.4)


def _inches(axes: Axes) -> tuple[float, float]:
    across, down = axes.get_figure().get_size_inches()
    box = axes.get_position(original=True)
    return box.width * across, box.height * down


def blank(axes: Axes) -> Axes:
    """The axes without ticks and frame, filled from the upper left."""
    axes.set(xticks=[], yticks=[], anchor="NW")
    axes.spines[:].set_visible(False)
    return axes


def reduced(picture: Image.Image) -> Image.Image:
    """An RGB copy, no larger than a panel needs."""
    picture = picture.convert("RGB")
    picture.thumbnail((_PANEL_PIXELS, _PANEL_PIXELS))  # on the copy that convert made; never enlarges
    return picture


def sampling(picture: Image.Image) -> str:
    """How matplotlib shows the picture: a small one keeps its pixels, and is never blurred."""
    return "nearest" if max(picture.size) < 200 else "auto"


def _stretched(heat: np.ndarray, size: tuple[int, int], upsample: str) -> np.ndarray:
    if upsample not in ("bilinear", "nearest"):
        raise ValueError(f"upsample must be 'bilinear' or 'nearest', got {upsample!r}")
    method = Image.Resampling.BILINEAR if upsample == "bilinear" else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(heat).resize(size, method))


def _ink(colour) -> str:
    red, green, blue = colour[:3]
    return "white" if 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.45 else "black"


def _fitted(axes: Axes, words: Sequence, values: bool) -> tuple[list[tuple[float, float, float, float]], float]:
    """Boxes (x, y from the top, width, height), in pixels of the axes, at the largest type size that fits."""
    box = axes.get_window_extent()
    for size in np.arange(12, 3.9, -0.5):
        places, bottom = _flow(axes, words, values, size, box.width)
        if bottom <= box.height - 0.25 * axes.get_figure().dpi and all(
            x + width <= box.width for x, _, width, _ in places
        ):
            break
    return places, float(size)


def _flow(axes: Axes, words: Sequence, values: bool, size: float, line_width: float):
    figure = axes.get_figure()
    renderer, pixels = figure.canvas.get_renderer(), figure.dpi / 72 * size
    font, small = FontProperties(size=size), FontProperties(size=size * 0.62)
    height, gap = pixels * (2.35 if values else 1.55), pixels * 0.22
    x, y, places = 0.0, 0.0, []
    for word in words:
        width = renderer.get_text_width_height_descent(drawable(word.text), font, False)[0]
        if values:
            width = max(width, renderer.get_text_width_height_descent("\N{MINUS SIGN}0.00000", small, False)[0])
        width += pixels * 0.7
        if x and x + width > line_width:
            x, y = 0.0, y + height + gap
        places.append((x, y, width, height))
        x += width + gap
    return places, y + height
