"""Emoji: concepts, and their drawings, sized, mirrored, tilted, tinted and laid on a background.

    concepts -> drawing -> Object -> scene -> image

An image is drawn with Pillow at any size; a small one looks like a large one that is reduced.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial

import numpy as np
import pandas as pd
from PIL import Image, ImageChops

from ..errors import GradeclipError
from ..files import data_path
from .art import artists_of, drawing

CANVAS = 96  # the unit of all geometry: a scene is 96 x 96 units, whatever size it is drawn at
IMAGE_SIZE = 384  # pixels on a side of the image shown to people
BACKGROUNDS = 2048  # different ones, which training keeps
COLOURS = {
    "red": (222, 30, 38),
    "orange": (245, 130, 20),
    "yellow": (250, 215, 25),
    "green": (40, 165, 60),
    "blue": (35, 95, 225),
    "purple": (130, 50, 175),
    "pink": (250, 130, 185),
    "brown": (130, 80, 40),
}
# Their left and right mean something, most often because there are letters or digits on them.
NOT_MIRRORED = frozenset(
    {
        "ambulance",
        "book",
        "bus",
        "calendar",
        "chart",
        "clock",
        "dice",
        "dollar",
        "keyboard",
        "moneybag",
        "newspaper",
        "recycling",
        "thermometer",
        "watch",
    }
)


@dataclass(frozen=True)
class Object:
    """One drawing in a scene.

    Attributes:
        noun: its concept.
        artist: one of `artists_of(noun)`.
        colour: its tint, or None for its own colours.
        x: of its centre, in canvas units (a scene is 96 x 96).
        y: of its centre, in canvas units.
        size: the longest side of the upright drawing, in canvas units.
        mirrored: whether left and right are swapped.
        tilt: degrees, counter-clockwise.
        hue: degrees by which the hue of its own colours is turned.
        lightness: the factor of its own colours.
    """

    noun: str
    artist: str = "openmoji"
    colour: str | None = None
    x: float = CANVAS / 2
    y: float = CANVAS / 2
    size: float = 48
    mirrored: bool = False
    tilt: float = 0.0
    hue: float = 0.0
    lightness: float = 1.0

    def __post_init__(self):
        artists_of(self.noun)  # refuses an unknown noun
        if self.colour is not None and self.colour not in COLOURS:
            raise GradeclipError(
                f"the colour of an object must be one of {', '.join(COLOURS)}; got {self.colour!r}"
            )


@cache
def concepts() -> pd.DataFrame:
    """The concepts of the world by noun: emoji, category, article, plural, keywords from CLDR.

    concepts().loc["dog", "category"]
    """
    table = pd.read_csv(data_path("concepts.csv"), keep_default_na=False)
    table["keywords"] = table["keywords"].str.split()
    return table.set_index("noun", drop=False)


def words_by_kind(words: frozenset[str] | None) -> list:
    """The words that a model knows as pairs of a category and its words; none of None."""
    if not words:
        return []
    known = concepts()[concepts()["noun"].isin(words)]
    groups = [[kind, list(rows["noun"])] for kind, rows in known.groupby("category")]
    colours = sorted(words & set(COLOURS))
    rest = sorted(words - {*known["noun"], *known["plural"], *colours})
    return [["colours", colours], *groups, ["other words", rest]]


@cache
def concept(noun: str) -> dict:
    """One row of `concepts`, quickly."""
    artists_of(noun)  # refuses an unknown noun
    return concepts().loc[noun].to_dict()


# ----------------------------------------------------------------------------------- colours

_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)


def _recolouring(hue: float, lightness: float) -> tuple[float, ...]:
    """The colour matrix that turns the hue by an angle and multiplies by `lightness`.

    Rows of three factors and an offset, one after the other, as Pillow takes it.
    """
    cosine = math.cos(math.radians(hue))
    sine = math.sin(math.radians(hue))
    turn = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    matrix = lightness * _FROM_YIQ @ turn @ _TO_YIQ
    return tuple(np.column_stack([matrix, np.zeros(3)]).ravel().tolist())


@cache
def _tinting(colour: str) -> tuple[float, ...]:
    """The colour matrix from a drawing's shade to its tint: from dark over the hue to light."""
    hue = np.array(COLOURS[colour])
    dark = 0.25 * hue
    light = 0.6 * hue + 0.4 * 255
    return tuple(np.column_stack([hue - dark, light - hue, dark, np.zeros(3)]).ravel() / 255)


# ----------------------------------------------------------------------------------- drawing


@lru_cache(maxsize=64)  # a layout is checked and then drawn with the same objects
def _placed(
    thing: Object,
    pixels: int,
) -> tuple[Image.Image, Image.Image, tuple[int, int, int, int]]:
    """The part of a drawing that lies in an image `pixels` wide.

    RGB times alpha, three times alpha, and its box (left, top, right, bottom).
    """
    scale = pixels / CANVAS
    longest = thing.size * scale
    is_tinted = thing.colour is not None
    # finer than it will be, because bilinear sampling blurs
    raster = drawing(thing.noun, thing.artist, 1.7 * longest, is_tinted)
    shrink = max(raster.size) / longest  # pixels of the raster per pixel of the image

    # the upright box around the tilted drawing, within the image
    cosine = math.cos(math.radians(thing.tilt))
    sine = math.sin(math.radians(thing.tilt))
    reach_x = (raster.width * abs(cosine) + raster.height * abs(sine)) / shrink / 2 + 1
    reach_y = (raster.width * abs(sine) + raster.height * abs(cosine)) / shrink / 2 + 1
    x = thing.x * scale
    y = thing.y * scale
    left = max(math.floor(x - reach_x), 0)
    top = max(math.floor(y - reach_y), 0)
    right = min(math.ceil(x + reach_x), pixels)
    bottom = min(math.ceil(y + reach_y), pixels)

    # from pixels of the box to those of the raster: (a x + b y + c, d x + e y + f)
    flip = -1 if thing.mirrored else 1
    a = flip * shrink * cosine
    b = -flip * shrink * sine
    d = shrink * sine
    e = shrink * cosine
    c = raster.width / 2 - a * (x - left) - b * (y - top)
    f = raster.height / 2 - d * (x - left) - e * (y - top)
    sampled = raster.transform(
        (right - left, bottom - top),
        Image.Transform.AFFINE,
        (a, b, c, d, e, f),
        Image.Resampling.BILINEAR,
    )

    *bands, alpha = sampled.split()
    alpha = Image.merge("RGB", [alpha] * 3)
    if is_tinted:
        rgb = sampled.convert("RGB", _tinting(thing.colour))
    else:
        rgb = Image.merge("RGB", bands)
        if thing.hue or thing.lightness != 1:
            rgb = rgb.convert("RGB", _recolouring(thing.hue, thing.lightness))
            rgb = ImageChops.darker(rgb, alpha)
    return rgb, alpha, (left, top, right, bottom)


_KINDS = ("plain", "gradient", "clouds", "stripes")  # of backgrounds


def _draw_background(seed: int, size: int) -> Image.Image:
    """A soft, pale to dark, weakly coloured background: plain, gradient, clouds or stripes."""
    rng = np.random.default_rng([7, seed])
    kind = _KINDS[rng.integers(4)]
    brightness = rng.uniform(105, 245)
    base = brightness + rng.uniform(-28, 28, 3)
    rows, columns = rng.integers(2, 6, 2)
    light = rng.normal(0, 1, (rows, columns, 1))
    hue = rng.normal(0, 1, (rows, columns, 3))

    grid = np.broadcast_to(base, hue.shape)
    if kind in ("gradient", "clouds"):
        grid = base + 18 * light + 7 * hue
    image = _as_image(grid).resize((size, size), Image.Resampling.BILINEAR)

    if kind == "stripes":
        angle = rng.uniform(0, np.pi)
        period = rng.uniform(0.08, 0.5)
        y, x = (np.mgrid[:size, :size] + 0.5) / size
        across = x * np.cos(angle) + y * np.sin(angle)
        wave = np.sin(2 * np.pi * across / period)
        contrast = rng.uniform(6, 22)
        image = _as_image(np.asarray(image, np.float32) + contrast * wave[..., None])
    return image


def _as_image(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


_small_background = lru_cache(maxsize=BACKGROUNDS)(partial(_draw_background, size=CANVAS))


def render(objects: Sequence[Object], background: int, size: int = IMAGE_SIZE) -> np.ndarray:
    """Draw objects on a background, the first one first: (size, size, 3) uint8."""
    if size == CANVAS:
        canvas = _small_background(background).copy()
    else:
        canvas = _draw_background(background, size)

    for thing in objects:
        rgb, alpha, box = _placed(thing, size)
        behind = ImageChops.multiply(canvas.crop(box), ImageChops.invert(alpha))
        canvas.paste(ImageChops.add(behind, rgb), box)
    return np.asarray(canvas)


def covered(objects: Sequence[Object], size: int = IMAGE_SIZE) -> np.ndarray:
    """Which pixels each object covers, (objects, size, size) bool; one in front hides others."""
    masks = np.zeros((len(objects), size, size), bool)
    for i, thing in enumerate(objects):
        _, alpha, (left, top, right, bottom) = _placed(thing, size)
        is_opaque = np.asarray(alpha)[..., 0] > 127
        masks[i, top:bottom, left:right] = is_opaque
        masks[:i] &= ~masks[i]
    return masks
