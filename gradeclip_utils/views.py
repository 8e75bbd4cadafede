"""Views: what the model sees of a picture, and where that lies in the picture.

    picture --here--> pixels --architecture--> trace --method--> map --here--> heat map in the picture's own pixels

A model's own preprocessing resizes and crops. To put a map back on the picture, the steps of the preprocessing are
read, and what they did to the corners is undone.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from open_clip.transform import CenterCropOrPad, MaybeConvertMode, MaybeToTensor, ResizeKeepRatio
from PIL import Image
from torch import Tensor
from torchvision.transforms import CenterCrop, InterpolationMode, Normalize, Resize, ToTensor
from torchvision.transforms import functional as transforms

from .methods import warn

MOST_PATCHES = 2048  # attention is quadratic in them: a larger picture at native resolution is scaled down to this


@dataclass(frozen=True)
class View:
    """The model's input (3, H, W), and the box (left, top, right, bottom) of it in the picture's pixels.

    Where the preprocessing pads, the box is larger than the picture.
    """

    pixels: Tensor
    box: tuple[float, float, float, float]


def view_of(preprocess: Callable, picture: Image.Image, resolution: str, patch: tuple[int, int]) -> View:
    """The picture as a model of patches ``patch`` sees it: ``resolution`` is "model" or "native"."""
    return native_view(preprocess, picture, patch) if resolution == "native" else model_view(preprocess, picture)


def model_view(preprocess: Callable, picture: Image.Image) -> View:
    """The picture through the model's own preprocessing.

    A preprocessing with a step that is not known here is taken to squash the whole picture; a warning says so.
    """
    steps = getattr(preprocess, "transforms", [preprocess])
    width, height = scaled = picture.size
    left = top = 0  # of the view, in the scaled picture
    view = scaled
    for step in steps:
        if isinstance(step, Resize) and step.max_size is None:
            scaled = view = _resized(step.size, *scaled)
        elif isinstance(step, ResizeKeepRatio):
            scaled = view = step.get_params(picture, step.size, step.longest)[::-1]
        elif isinstance(step, (CenterCrop, CenterCropOrPad)):
            view = tuple(step.size)[::-1]
            left, top = (_crop_start(*sides) for sides in zip(scaled, view, strict=True))
        elif not isinstance(step, (MaybeConvertMode, MaybeToTensor, ToTensor, Normalize)) and not _keeps_place(step):
            name = getattr(step, "__name__", type(step).__name__)
            message = f"preprocessing step {name!r} is not known: maps are drawn as if the model saw the whole picture"
            warn(message)
            return View(preprocess(picture), (0.0, 0.0, float(width), float(height)))
    across, down = width / scaled[0], height / scaled[1]
    box = (left * across, top * down, (left + view[0]) * across, (top + view[1]) * down)
    return View(preprocess(picture), box)


def native_view(preprocess: Callable, picture: Image.Image, patch: tuple[int, int]) -> View:
    """The whole picture at its own size and shape, both sides rounded to whole patches (height, width).

    Colours are normalised as the model's own preprocessing does. Of more than ``MOST_PATCHES`` patches, the picture
    is scaled down.

    Raises:
        ValueError: the preprocessing does not say how it normalises colours.
    """
    steps = getattr(preprocess, "transforms", [])
    normalize = next((step for step in steps if isinstance(step, Normalize)), None)
    if normalize is None:
        raise ValueError("resolution='native' needs a preprocessing with a Normalize step, to know mean and deviation")
    resize = next((step.interpolation for step in steps if isinstance(step, (Resize, ResizeKeepRatio))), None)
    rows, columns = picture.height / patch[0], picture.width / patch[1]
    shrink = min(1.0, (MOST_PATCHES / (rows * columns)) ** 0.5)
    # Python rounds halves to even and the last patch must not exceed the limit: floor when shrinking
    to_whole = round if shrink == 1.0 else int
    size = [max(1, to_whole(side * shrink)) * step for side, step in zip((rows, columns), patch, strict=True)]
    scaled = transforms.resize(picture, size, resize or InterpolationMode.BICUBIC)
    pixels = normalize(transforms.to_tensor(scaled))
    return View(pixels, (0.0, 0.0, float(picture.width), float(picture.height)))


def onto_picture(map_: np.ndarray, box: tuple[float, float, float, float], size: tuple[int, int]) -> np.ndarray:
    """A map (h, w) on the token grid as (H, W) in the picture's pixels, ``size`` (width, height); zero outside the box.

    Bilinear between the centres of the tokens, constant beyond the outermost ones.
    """
    left, top, right, bottom = box
    columns = _bilinear(size[0], left, right, map_.shape[1])  # (W, w)
    rows = _bilinear(size[1], top, bottom, map_.shape[0])  # (H, h)
    return rows @ map_.astype(np.float32) @ columns.T


def _bilinear(pixels: int, start: float, end: float, cells: int) -> np.ndarray:
    """How much each of ``cells`` between ``start`` and ``end`` gives to each pixel: (pixels, cells)."""
    centres = np.arange(pixels) + 0.5
    places = np.clip((centres - start) / (end - start) * cells - 0.5, 0, cells - 1)
    shares = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(cells)))
    inside = (centres >= start) & (centres <= end)
    return (shares * inside[:, None]).astype(np.float32)


def _resized(size: int | tuple[int, ...], width: int, height: int) -> tuple[int, int]:
    """As torchvision's Resize: two numbers are (height, width), one is the shorter side."""
    if not isinstance(size, int) and len(size) == 2:
        return size[1], size[0]
    short = size if isinstance(size, int) else size[0]
    return (short, int(short * height / width)) if width <= height else (int(short * width / height), short)


def _crop_start(full: int, part: int) -> int:
    """Where a centre crop of ``part`` begins; negative where the picture is padded to reach it."""
    padding = max(0, part - full) // 2
    return round((max(full, part) - part) / 2) - padding


def _keeps_place(step: Callable) -> bool:
    return getattr(step, "__name__", "") == "_convert_to_rgb"  # open_clip before 3.0 used a function for it
