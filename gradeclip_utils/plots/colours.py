"""Colours: from relevance to colours, and a map laid over its image without axes or words.

    Explanation -> colours -> drawing -> figures, page

One law for maps and words alike. The image beneath is light grey. Relevance *for* is warm, from
pale orange to dark red; relevance *against* is blue; no relevance is no colour. Colour is linear in
the value and opacity rises with it.
"""

import math
from functools import cache

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from PIL import Image, ImageDraw

from ..errors import GradeclipError
from ..images import onto_image, read_image

# From weak to strong; both ramps get darker all the way, so they survive a grey printer and
# colour-blind eyes.
_FOR = ("#fdd0a8", "#fb9f66", "#ee6237", "#c42a1c", "#7a0c10")
_AGAINST = ("#c6dcf0", "#86b8df", "#4389c6", "#1f5fa6", "#0b3371")
_OPAQUE = 0.9  # at the largest value: the image stays visible below it
# Pixels of the longest side of an image that `paint` returns.
_SMALL = 320
_LARGE = 640


@cache
def colormap() -> np.ndarray:
    """Red, green, blue and alpha (513, 4), each 0 to 1, of values from -1 to 1."""
    against = LinearSegmentedColormap.from_list("against", _AGAINST, 257)
    warm = LinearSegmentedColormap.from_list("for", _FOR, 257)
    steps = np.arange(257)
    table = np.concatenate([against(steps)[::-1], warm(steps)[1:]])
    table[:, 3] = _OPAQUE * np.abs(np.linspace(-1, 1, 513)) ** 0.55
    table.flags.writeable = False
    return table


def to_rgb(values, base=1.0) -> np.ndarray:
    """Values (...) of -1 to 1 as red, green and blue (..., 3), over a grey `base` of 0 to 1."""
    indices = np.rint((np.clip(values, -1, 1) + 1) * 256).astype(int)
    rgba = colormap()[indices]
    alpha = rgba[..., 3:]
    return base * (1 - alpha) + rgba[..., :3] * alpha


def ink_on(colour: np.ndarray) -> str:
    """Black or white, the one with more contrast to red, green and blue (WCAG's luminance)."""
    luminance = colour**2.2 @ np.array([0.2126, 0.7152, 0.0722])
    return "white" if luminance < 0.179 else "black"


def paint(
    image: Image.Image,
    heat: np.ndarray,
    *,
    box: tuple[float, float, float, float] | None = None,
    signed: bool = False,
    vmax: float | None = None,
    upsample: str = "bilinear",
) -> Image.Image:
    """Lay a map over its image, which turns light grey.

        paint(explanation.image, explanation.image_maps[0], box=explanation.box).save("map.png")

    Args:
        image: the image that was explained.
        heat: (h, w) relevance on the token grid, or (H, W) in pixels.
        box: left, top, right, bottom of what the model saw, in pixels of the image; a frame marks
            it. None: all of it.
        signed: show relevance against as well.
        vmax: the value of the darkest colour; None takes the largest of this map.
        upsample: "bilinear", or "nearest" to see the patches.

    Returns:
        An RGB image, 320 to 640 pixels on its longer side, without axes or words.

    Raises:
        GradeclipError: `heat` is not a map, or `upsample` is something else.
    """
    if upsample not in ("bilinear", "nearest"):
        raise GradeclipError(f"upsample must be 'bilinear' or 'nearest', got {upsample!r}")
    image = read_image(image)
    relevance = positive_part(_checked(heat), signed)
    if vmax is None:
        vmax = abs_max(relevance)

    base = _panel_sized(image)
    across = base.width / image.width
    down = base.height / image.height
    x0, y0, x1, y1 = box or (0, 0, *image.size)
    place = (x0 * across, y0 * down, x1 * across, y1 * down)
    if upsample == "nearest":
        relevance = _enlarged(relevance, base.size)
    # Below 1e-37 a number is zero in single precision.
    values = onto_image(relevance, place, base.size) / max(vmax, 1e-37)  # (H, W)
    pixels = to_rgb(values, _grey(base)) * 255 + 0.5
    painted = Image.fromarray(pixels.astype(np.uint8))
    if not is_whole(box, image):
        width = max(1, round(max(base.size) / 200))
        ImageDraw.Draw(painted).rectangle(place, outline=(90, 90, 90), width=width)
    return painted


def _checked(heat) -> np.ndarray:
    """A map as a finite array (h, w)."""
    values = np.asarray(heat, dtype=np.float32)
    if values.ndim != 2 or not values.size:
        raise GradeclipError(f"a map has rows and columns, (H, W), got shape {values.shape}")
    count = np.sum(~np.isfinite(values))
    if count:
        raise GradeclipError(f"{count} of {values.size} values of the map are NaN or infinite")
    return values


def _enlarged(relevance: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map with each cell repeated, so that bilinear resizing leaves its edges sharp."""
    width, height = size
    rows = max(1, round(2 * height / relevance.shape[0]))
    columns = max(1, round(2 * width / relevance.shape[1]))
    return np.kron(relevance, np.ones((rows, columns), np.float32))


def is_whole(box, image: Image.Image) -> bool:
    """Whether a box is the whole image, within half a percent of its longer side."""
    if box is None:
        return True
    x0, y0, x1, y1 = box
    cut_off = max(x0, y0, image.width - x1, image.height - y1)
    return cut_off < 0.005 * max(image.size)


def positive_part(value, signed: bool):
    """What a display shows of relevance: all of it, or its positive part."""
    return value if signed else np.maximum(value, 0)


def abs_max(values) -> float:
    """The largest magnitude in an array; 0 if it is empty."""
    return float(np.abs(values).max(initial=0))


def _grey(image: Image.Image) -> np.ndarray:
    """An RGB image as a light grey background (H, W, 1) of 0.62 to 1."""
    luminance = image.convert("L", (0.2126, 0.7152, 0.0722, 0))
    values = np.asarray(luminance, dtype=np.float32)[..., None]
    return 0.62 + 0.38 * values / 255


def _panel_sized(image: Image.Image) -> Image.Image:
    """An RGB copy of 320 to 640 pixels. A small image grows by a whole factor, without blur."""
    copy = image.convert("RGB")
    factor = math.ceil(_SMALL / max(copy.size))
    if factor > 1:
        size = (copy.width * factor, copy.height * factor)
        return copy.resize(size, Image.Resampling.NEAREST)
    copy.thumbnail((_LARGE, _LARGE))
    return copy
