"""The drawings: what seven emoji artists drew of each concept, read from `data/art.zip`.

Six of the artists are for training. Noto is never trained on and stands for an artist that the
model has not seen. `data/README.md` credits author and licence of each; `python -m training art`
makes the archive. It holds vector art, except for Fluent, whose shades take a tenth of a second to
draw and are stored as pixels.
"""

import io
import math
import zipfile
from functools import cache, lru_cache
from pathlib import PurePosixPath

import numpy as np
import resvg_py
from PIL import Image

from ..errors import GradeclipError, hint, nearest
from ..files import data_path

ARTISTS = ("openmoji", "twemoji", "fluent", "fluent-flat", "emojione", "emojione-1", "noto")
UNSEEN_ARTIST = "noto"  # never trained on
TRAINED_ARTISTS = tuple(artist for artist in ARTISTS if artist != UNSEEN_ARTIST)
RASTERS = ("fluent",)  # the artists whose drawings are stored as pixels

_LEVELS = (48, 68, 96, 136, 192, 272)  # pixels of the longest side of the rasters that are cached
_SMALL_LEVEL = 136  # rasters up to this one, which training draws, are cached for every drawing,
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
_MASTER = 192  # and reduced from one raster of the whole square, this many pixels on a side


@cache
def _archive() -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(data_path("art.zip").read_bytes()))


@cache
def _artists_by_noun() -> dict[str, tuple[str, ...]]:
    names = {PurePosixPath(path).with_suffix("").parts for path in _archive().namelist()}
    artists = {}
    for noun in sorted({noun for _, noun in names}):
        artists[noun] = tuple(artist for artist in ARTISTS if (artist, noun) in names)
    return artists


def artists_of(noun: str) -> tuple[str, ...]:
    """The artists who drew this concept, in the order of `ARTISTS`."""
    artists = _artists_by_noun()
    if noun not in artists:
        suggestion = "scenes.concepts() has all of them"
        if nearest(noun, artists):
            suggestion = hint(noun, artists)
        raise GradeclipError(f"{noun!r} is not a noun of the scenes: {suggestion}")
    return artists[noun]


def _square(noun: str, artist: str, pixels: int) -> Image.Image:
    """The whole square that a drawing stands in, `pixels` on a side, RGBA."""
    if artist in RASTERS:
        webp = _archive().read(f"{artist}/{noun}.webp")
        stored = Image.open(io.BytesIO(webp)).convert("RGBA")
        return stored.resize((pixels, pixels), Image.Resampling.LANCZOS)
    svg = _archive().read(f"{artist}/{noun}.svg")
    return draw_svg(svg.decode(), pixels)


def draw_svg(svg: str, pixels: int) -> Image.Image:
    """Draw an SVG as a square, RGBA."""
    png = resvg_py.svg_to_bytes(
        svg_string=svg,
        width=pixels,
        height=pixels,
        skip_system_fonts=True,
    )
    return Image.open(io.BytesIO(png)).convert("RGBA")


@cache
def _small(noun: str, artist: str) -> tuple[Image.Image, tuple[float, ...]]:
    """One raster cut out along the drawing's bounding box, and that box as fractions.

    The box is (left, top, right, bottom).
    """
    square = _square(noun, artist, _MASTER)
    visible = square.getchannel("A").point(lambda a: 255 * (a > 8))
    box = visible.getbbox()
    assert box is not None, f"{artist}'s {noun} is empty"
    fractions = tuple(side / _MASTER for side in box)
    return square.crop(box), fractions


def _raster(noun: str, artist: str, pixels: int) -> Image.Image:
    """The drawing cut out along its own bounding box, `pixels` on its longest side, RGBA."""
    small, box = _small(noun, artist)
    ratio = pixels / max(small.size)
    if ratio <= 1:
        width, height = (max(1, round(side * ratio)) for side in small.size)
        return small.resize((width, height), Image.Resampling.LANCZOS)

    square = _square(noun, artist, math.ceil(_MASTER * ratio))
    left, top, right, bottom = (round(side * square.width) for side in box)
    return square.crop((left, top, right, bottom))


def _layer(noun: str, artist: str, level: int, tinted: bool) -> Image.Image:
    """A drawing at one level, times its alpha, so that it can be resampled.

    Its bands are red, green, blue and alpha; of a tinted one its shade below and above the middle,
    and alpha.
    """
    rgba = _raster(noun, artist, level)
    values = np.asarray(rgba, np.float32)
    alpha = values[..., 3] / 255
    if tinted:
        mode = "RGB"  # three bands that Pillow resamples each by itself
        shade = _shade(values, alpha)
        dark = np.minimum(shade, 1)
        light = np.maximum(shade - 1, 0)
        planes = [
            dark * alpha * 255,
            light * alpha * 255,
            alpha * 255,
        ]
    else:
        mode = "CMYK"  # four such bands
        planes = [
            values[..., 0] * alpha,
            values[..., 1] * alpha,
            values[..., 2] * alpha,
            values[..., 3],
        ]

    # one plane after the other is three times as fast as all of them at once
    bands = [np.rint(plane).astype(np.uint8) for plane in planes]
    pixels = np.stack(bands, axis=-1)
    return Image.frombuffer(mode, rgba.size, pixels.tobytes(), "raw", mode, 0, 1)


def _shade(values: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The shade of a drawing from 0 to 2, (H, W).

    Its own range of light and dark fills the tint's; one flat shade stays in the middle of it.
    """
    luminance = values[..., :3] @ _LUMINANCE
    low, high = np.percentile(luminance[alpha > 0.5], [5, 95])
    middle = (low + high) / 2
    spread = max(high - low, 110)
    return np.clip(0.5 + (luminance - middle) / spread, 0, 1) * 2


_small_layer = cache(_layer)
_large_layer = lru_cache(maxsize=512)(_layer)


def drawing(noun: str, artist: str, pixels: float, tinted: bool) -> Image.Image:
    """The drawing on the smallest raster that is at least `pixels` long, or else on the largest."""
    level = next((n for n in _LEVELS if n >= pixels), _LEVELS[-1])
    if level <= _SMALL_LEVEL:
        return _small_layer(noun, artist, level, tinted)
    return _large_layer(noun, artist, level, tinted)
