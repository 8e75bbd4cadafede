"""Colours: from values to colours, and a map laid over its image without axes or words.

    Explanation -> colours -> axes -> figures

One reading for maps and words alike: white is "no relevance", a dark colour is "much". Unsigned relevance goes from
white to dark (`magma`, reversed), signed relevance from purple through white to orange (`PuOr`, reversed), always
centred on zero; both are safe for colour-blind eyes. Colour is linear in the value; nothing is clipped, squared or
smoothed.
"""

import math
from collections.abc import Iterable

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Colormap, ListedColormap, Normalize
from PIL import Image

from .. import checks
from ..images import onto_image, read_image

# Dark ends are cut where colour would hide the image below it or the word above it; and the pale one begins at white,
# because magma's own is a yellow that would tint the whole image.
_WHITE = np.clip(1 - np.linspace(0, 1, 256) / 0.3, 0, 1)[:, None]
UNSIGNED = ListedColormap(_WHITE + (1 - _WHITE) * colormaps["magma_r"](np.linspace(0.0, 0.72, 256)), "unsigned")
SIGNED = ListedColormap(colormaps["PuOr_r"](np.linspace(0.1, 0.9, 257)), "signed")
# Perceptually uniform and safe for colour-blind eyes, all of them; "white" is the one that leaves the image readable.
COLOURS = {"white": UNSIGNED, **{name: colormaps[name] for name in ("viridis", "cividis", "magma")}}
OWN = "image"  # instead of a name in COLOURS: the image keeps its own colours, and relevance is how much of it is seen
VEIL, AGAINST, CONTRARY = (246, 246, 246), (94, 60, 153), 0.75  # what hides the rest; what is against, and how opaque
_SMALL, _LARGE = 320, 640  # pixels of the longest side that `paint` gives


def paint(
    image: Image.Image,
    heat: np.ndarray,
    *,
    box: tuple[float, float, float, float] | None = None,
    signed: bool = False,
    vmax: float | None = None,
    threshold: float = 0.0,
    opacity: float = 1.0,
    colours: str = "white",
) -> Image.Image:
    """One bare map on the image, as an RGB image whose longest side has 320 to 640 pixels: no axes, no words."""
    for name, value, most in ("threshold", threshold, 1), ("opacity", opacity, 1), ("vmax", vmax or 0, math.inf):
        checks.number(name, value, 0, most)
    image, heat = read_image(image), shown(checks.as_map(heat).astype(np.float32), signed)
    vmax = largest([heat]) if vmax is None else vmax
    base = _panel_sized(image)
    across, down = base.width / image.width, base.height / image.height
    there = tuple(np.array(checks.as_box(box, *image.size)) * (across, down, across, down))
    values = onto_image(heat, there, base.size)  # (H, W)
    x, y = (np.arange(side) + 0.5 for side in base.size)
    seen = np.outer((y >= there[1]) & (y <= there[3]), (x >= there[0]) & (x <= there[2]))
    if colours == OWN:
        return _seen_through(base, np.where(seen, values, 0) / (vmax or 1), threshold, opacity)
    norm, palette = scale(signed, vmax, colours)
    table = palette(np.linspace(0, 1, 256))[:, :3].astype(np.float32)
    chosen = table[np.clip(norm(values) * 255 + 0.5, 0, 255).astype(np.uint8)]  # (H, W, 3)
    chosen[~seen | (np.abs(values) < threshold * vmax)] = 1.0
    mixed = opacity * 255 * grey_background(base) * chosen + (1 - opacity) * np.asarray(base, dtype=np.float32)
    return Image.fromarray((mixed + 0.5).astype(np.uint8))


def _seen_through(base: Image.Image, values: np.ndarray, threshold: float, opacity: float) -> Image.Image:
    """The image below a veil; `values` (H, W) in -1 to 1. `front/view.js` has the same arithmetic."""
    strength = np.where(np.abs(values) < threshold, 0, np.minimum(np.abs(values), 1))[..., None]
    veil = opacity * np.where(values[..., None] < 0, 1, 1 - strength)
    mixed = (1 - veil) * np.asarray(base, dtype=np.float32) + veil * np.array(VEIL)
    purple = CONTRARY * np.where(values[..., None] < 0, strength, 0) * (opacity > 0)
    return Image.fromarray(((1 - purple) * mixed + purple * np.array(AGAINST) + 0.5).astype(np.uint8))


def shown(value, signed: bool):
    """What a display shows of relevance: all of it, or its relu."""
    return value if signed else np.maximum(value, 0)


def largest(values: Iterable) -> float:
    """The largest magnitude in any of the arrays; 0 of nothing."""
    return max((float(np.abs(array).max()) for array in map(np.asarray, values) if array.size), default=0.0)


def scale(signed: bool, vmax: float, colours: str = "white") -> tuple[Normalize, Colormap]:
    """From values to colours; the darkest colour is `vmax`."""
    checks.chosen("colours", colours, COLOURS)
    vmax = vmax or 1.0  # an all-zero map: everything is white
    return Normalize(-vmax if signed else 0, vmax), SIGNED if signed else COLOURS[colours]


def number(value: float, vmax: float) -> str:
    """A number with enough digits for its scale, and no minus in front of nothing."""
    if not vmax:
        return "0"
    digits = max(0, min(6, 2 - int(np.floor(np.log10(vmax)))))
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}") if round(value, digits) else "0"


def range_in_words(label: str, signed: bool, vmax: float, note: str = "", colours: str = "white") -> str:
    """What the two ends of the scale stand for."""
    if not vmax:
        return f"{label}: zero everywhere" if signed else f"{label}: nowhere above zero"
    top = number(vmax, vmax)
    note = f", {note}" if note else ""
    if colours == OWN:
        against = f"; purple \N{MINUS SIGN}{top}: against" if signed else ""
        return f"{label}: hidden 0 to clear {top}{against}{note}"
    if signed:
        return f"{label}: purple \N{MINUS SIGN}{top} (against) to orange +{top} (for){note}"
    low, high = ("pale", "dark") if colours == "white" else ("dark", "bright")  # as matplotlib's own maps run
    return f"{label}: {low} 0 to {high} {top}{note}"


def grey_background(image: Image.Image) -> np.ndarray:
    """An image as a pale grey background, (H, W, 1) in 0.5 to 1."""
    return 0.5 + 0.5 * np.asarray(image.convert("L"), dtype=np.float32)[..., None] / 255


def _panel_sized(image: Image.Image) -> Image.Image:
    """An RGB copy of 320 to 640 pixels; a small image is enlarged by a whole factor, so that it is never blurred."""
    image, factor = image.convert("RGB"), -(-_SMALL // max(image.size))
    if factor > 1:
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    image.thumbnail((_LARGE, _LARGE))
    return image
