"""Emoji: drawings as pixels. One drawing cut out, sized, tinted, and laid on a background with others.

    concepts -> art -> drawings -> picture

Rasters are kept, so that scenes can be drawn by the thousand a second for training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from PIL import Image

from .art import raster, svg

CANVAS = 96  # the unit of all geometry: a scene is CANVAS x CANVAS units, whatever size it is drawn at
PICTURE = 384  # pixels of the picture shown to people; smaller sizes are what this picture looks like when reduced
ARTISTS = ("openmoji", "twemoji")
COLOURS = {
    "red": (222, 30, 38), "orange": (245, 130, 20), "yellow": (250, 215, 25), "green": (40, 165, 60),
    "blue": (35, 95, 225), "purple": (130, 50, 175), "pink": (250, 130, 185), "brown": (130, 80, 40),
}  # fmt: skip


@dataclass(frozen=True)
class Object:
    """One drawing in a scene. `x`, `y` (of the centre) and `size` (longest side of the drawing) are in canvas units."""

    noun: str
    artist: str = "openmoji"
    colour: str | None = None
    x: float = CANVAS / 2
    y: float = CANVAS / 2
    size: int = 48


@cache
def _extent(noun: str, artist: str) -> tuple[float, float, float, float]:
    """The drawing's bounding box inside its square, as fractions (left, top, right, bottom)."""
    box = raster(svg(noun, artist), 512).getchannel("A").point(lambda a: 255 * (a > 8)).getbbox()
    return tuple(side / 512 for side in box)


@cache
def _layers(noun: str, artist: str, pixels: int) -> np.ndarray:
    """Premultiplied red, green, blue, alpha and luminance of a drawing `pixels` long: (h, w, 5) uint8."""
    left, top, right, bottom = _extent(noun, artist)
    square = raster(svg(noun, artist), round(pixels / max(right - left, bottom - top)))
    rgba = np.asarray(square.crop([round(side * square.width) for side in (left, top, right, bottom)]), np.float32)
    alpha = rgba[..., 3:] / 255
    luminance = rgba[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32)
    low, high = np.percentile(luminance[alpha[..., 0] > 0.5], [5, 95])
    # The drawing's own range of light and dark fills the tint's; a drawing in one flat shade stays in the middle of it.
    luminance = np.clip(0.55 + (luminance - (low + high) / 2) / max(high - low, 110), 0, 1) * 255
    layers = np.concatenate([rgba[..., :3] * alpha, rgba[..., 3:], luminance[..., None] * alpha], axis=-1)
    return np.rint(layers).astype(np.uint8)


@lru_cache(maxsize=20_000)
def _sprite(noun: str, artist: str, size: int, scale: int) -> np.ndarray:
    """The layers of a drawing `size` units long at `scale` pixels a unit, filled up to whole units: (h, w, 5) uint8.

    Below the size shown to people it is one large raster reduced, so that a model trained on small scenes sees what its
    own preprocessing makes of the large ones.
    """
    shown = PICTURE // CANVAS
    layers = large = _layers(noun, artist, 84 * shown)
    # whole units are counted on one raster for all scales: else a drawing might stand a unit lower in a larger picture
    h, w = (math.ceil(n / (max(large.shape[:2]) / size)) for n in large.shape[:2])
    if scale >= shown:
        layers = _layers(noun, artist, size * scale)
    unit = max(layers.shape[:2]) / size  # pixels of the raster a unit
    filled = [(0, max(0, math.ceil(units * unit) - n)) for units, n in zip((h, w), layers.shape[:2], strict=True)]
    layers = np.pad(layers, [*filled, (0, 0)])
    if scale >= shown:
        return layers[: h * scale, : w * scale]
    box, shape = (0, 0, w * unit, h * unit), (w * scale, h * scale)
    channels = [Image.fromarray(layers[..., c]).resize(shape, Image.BICUBIC, box=box) for c in range(5)]
    return np.stack([np.asarray(c) for c in channels], axis=-1)


def _placed(thing: Object, size: int) -> tuple[np.ndarray, tuple[slice, slice]]:
    """The part of the tinted drawing that lies in a picture of `size` pixels, premultiplied RGBA, and where it lies."""
    scale = size // CANVAS
    sprite = _sprite(thing.noun, thing.artist, thing.size, scale).astype(np.float32)  # (h, w, 5)
    rgba, luminance = sprite[..., :4], sprite[..., 4:]
    if thing.colour is not None:  # a line from dark to light in one hue keeps the shading and gives up all other hues
        hue = np.array(COLOURS[thing.colour], np.float32)
        dark, light = 0.3 * hue, 0.85 * hue + 0.15 * 255
        rgba[..., :3] = dark * rgba[..., 3:] / 255 + (light - dark) / 255 * luminance
    h, w = rgba.shape[:2]
    top, left = round(thing.y - h / scale / 2) * scale, round(thing.x - w / scale / 2) * scale
    inside = slice(max(top, 0), max(min(top + h, size), 0)), slice(max(left, 0), max(min(left + w, size), 0))
    own = (slice(span.start - start, span.stop - start) for span, start in zip(inside, (top, left), strict=True))
    return rgba[tuple(own)], inside


@lru_cache(maxsize=256)
def _background(seed: int, size: int) -> np.ndarray:
    """A soft, pale to dark, weakly coloured background: plain, gradient, clouds or stripes. (size, size, 3) float32."""
    rng = np.random.default_rng([7, seed])
    kind = rng.integers(4)
    base = rng.uniform(105, 245) + rng.uniform(-28, 28, 3)
    rows, columns = rng.integers(2, 6, 2)
    light, hue = rng.normal(0, 1, (rows, columns, 1)), rng.normal(0, 1, (rows, columns, 3))
    grid = base + (0, 18, 18, 0)[kind] * light + (0, 7, 7, 0)[kind] * hue
    grid = np.clip(grid, 0, 255).astype(np.uint8)
    picture = np.asarray(Image.fromarray(grid).resize((size, size), Image.BILINEAR), np.float32)
    if kind == 3:
        angle, period = rng.uniform(0, np.pi), rng.uniform(0.08, 0.5)
        y, x = (np.mgrid[:size, :size] + 0.5) / size
        wave = np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period)
        picture = picture + rng.uniform(6, 22) * wave[..., None]
    return np.clip(picture, 0, 255).astype(np.float32)


def render(objects: Sequence[Object], background: int, size: int = PICTURE) -> np.ndarray:
    """Draw objects on a background, the first one first: (size, size, 3) uint8.

    Raises ValueError unless `size` is a multiple of 96.
    """
    if size % CANVAS or size <= 0:
        msg = f"a scene can't be drawn at {size} pixels: choose a multiple of {CANVAS}, such as {CANVAS} or {PICTURE}"
        raise ValueError(msg)
    canvas = _background(background, size).copy()
    for thing in objects:
        rgba, inside = _placed(thing, size)
        canvas[inside] = canvas[inside] * (1 - rgba[..., 3:] / 255) + rgba[..., :3]
    return np.rint(np.clip(canvas, 0, 255)).astype(np.uint8)


def covered(objects: Sequence[Object], size: int = PICTURE) -> np.ndarray:
    """Which pixels each object covers: (objects, size, size) bool; an object in front hides what is behind."""
    masks = np.zeros((len(objects), size, size), bool)
    for i, thing in enumerate(objects):
        rgba, inside = _placed(thing, size)
        masks[i][inside] = rgba[..., 3] > 127
        masks[:i] &= ~masks[i]
    return masks
