"""Colours: from relevance to colours, and a map laid over its image without axes or words.

    Explanation -> colours -> drawing -> figures, page

One law for maps and words alike. The image beneath is light grey. Relevance *for* is warm, from
pale orange to dark red; relevance *against* is blue; no relevance is no colour. Colour is linear in
the value and opacity rises with it.
"""

from functools import cache

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from PIL import Image, ImageDraw

from .. import checks
from ..images import onto_image, read_image

# From weak to strong; both ramps get darker all the way, so they survive a grey printer and
# colour-blind eyes.
_FOR = ("#fdd0a8", "#fb9f66", "#ee6237", "#c42a1c", "#7a0c10")
_AGAINST = ("#c6dcf0", "#86b8df", "#4389c6", "#1f5fa6", "#0b3371")
_OPAQUE = 0.9  # at the largest value: the image stays visible below it
_SMALL, _LARGE = 320, 640  # pixels of the longest side of an image that `paint` returns


@cache
def colormap() -> np.ndarray:
    """Red, green, blue and alpha (513, 4), each 0 to 1, of relevance from -1 to 1 of the largest value."""
    against, warm = (
        LinearSegmentedColormap.from_list("", ramp, 257)(np.arange(257))
        for ramp in (_AGAINST, _FOR)
    )
    table = np.concatenate([against[::-1], warm[1:]])
    table[:, 3] = _OPAQUE * np.abs(np.linspace(-1, 1, 513)) ** 0.55
    table.flags.writeable = False
    return table


def to_rgb(values, base=1.0) -> np.ndarray:
    """Values (...) of -1 to 1 as red, green and blue (..., 3), over a background of 0 (black) to 1 (white)."""
    rgba = colormap()[np.rint((np.clip(values, -1, 1) + 1) * 256).astype(int)]
    return base * (1 - rgba[..., 3:]) + rgba[..., :3] * rgba[..., 3:]


def paint(
    image: Image.Image,
    heat: np.ndarray,
    *,
    box: tuple[float, float, float, float] | None = None,
    signed: bool = False,
    vmax: float | None = None,
    upsample: str = "bilinear",
) -> Image.Image:
    """Lay a map over its image, which turns light grey: an RGB image of 320 to 640 pixels, without axes or words.

    Args:
        image: the image that was explained.
        heat: (h, w) relevance on the token grid, or (H, W) in pixels.
        box: left, top, right, bottom of what the model saw, in pixels of the image; a frame marks
            it. None: all of it.
        signed: show relevance against as well.
        vmax: the value of the darkest colour; None takes the largest of this map.
        upsample: "bilinear", or "nearest" to see the patches.

    Raises:
        GradeclipError: `heat` is not a map, or `box` is not four numbers in this order.
    """
    checks.flag("signed", signed)
    checks.chosen("upsample", upsample, ("bilinear", "nearest"))
    image, heat = read_image(image), positive_part(checks.as_map(heat).astype(np.float32), signed)
    vmax = abs_max(heat) if vmax is None else checks.number("vmax", vmax, 0)
    base = _panel_sized(image)
    across, down = base.width / image.width, base.height / image.height
    there = tuple(np.array(checks.as_box(box, *image.size)) * (across, down, across, down))
    if upsample == "nearest":
        factors = [
            max(1, round(2 * side / cells))
            for side, cells in zip(base.size[::-1], heat.shape, strict=True)
        ]
        heat = np.kron(heat, np.ones(factors, np.float32))
    values = onto_image(heat, there, base.size) / max(
        vmax, 1e-37
    )  # (H, W); smaller ones are zero in float32
    painted = Image.fromarray((to_rgb(values, _grey(base)) * 255 + 0.5).astype(np.uint8))
    if not is_whole(box, image):
        ImageDraw.Draw(painted).rectangle(
            there, outline=(90, 90, 90), width=max(1, round(max(base.size) / 200))
        )
    return painted


def is_whole(box, image: Image.Image) -> bool:
    """Whether a box is the whole image, within half a pixel in a hundred."""
    if box is None:
        return True
    left, top, right, bottom = box
    return max(left, top, image.width - right, image.height - bottom) < 0.005 * max(image.size)


def positive_part(value, signed: bool):
    """What a display shows of relevance: all of it, or its positive part."""
    return value if signed else np.maximum(value, 0)


def abs_max(values) -> float:
    """The largest magnitude in an array; 0 if it is empty."""
    return float(np.abs(values).max(initial=0))


def _grey(image: Image.Image) -> np.ndarray:
    """An image as a light grey background (H, W, 1) of 0.62 to 1."""
    luminance = image.convert("RGB").convert("L", (0.2126, 0.7152, 0.0722, 0))
    return 0.62 + 0.38 * np.asarray(luminance, dtype=np.float32)[..., None] / 255


def _panel_sized(image: Image.Image) -> Image.Image:
    """An RGB copy of 320 to 640 pixels; a small image is enlarged by a whole factor, so it is never blurred."""
    image, factor = image.convert("RGB"), -(-_SMALL // max(image.size))
    if factor > 1:
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    image.thumbnail((_LARGE, _LARGE))
    return image
