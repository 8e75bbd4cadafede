"""Images: an image from whatever form it has, what the model sees of it, and where that lies in the image.

    file, array -> image -> pixels --architecture--> trace --method--> map -> heat map in the image's own pixels

A model's own preprocessing resizes and crops. To put a map back on the image, the steps of the preprocessing are
read, and what they did to the corners is undone. torch is imported where it is needed, so that reading an image, and
laying a map on it, start at once.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .checks import readable
from .errors import GradeclipError
from .notices import warn

if TYPE_CHECKING:
    from torch import Tensor


ImageLike: TypeAlias = Image.Image | str | Path | np.ndarray
MOST_MEGAPIXELS = 80  # an image of more is refused before it is decoded; below Pillow's own bound for warnings


def read_image(image: ImageLike) -> Image.Image:
    """The image as RGB, upright and 8 bits a channel, whatever it was.

    EXIF rotation is applied; a palette, greyscale, CMYK and 16 bits are converted; what is transparent is laid over
    white. Of an animation the first frame is taken.

        read_image("holiday.jpg").size

    Args:
        image: a PIL image, the path of an image file, or a uint8 array (H, W, 3) with red, green, blue in 0 to 255.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not an image, ends too early, or has more than `MOST_MEGAPIXELS`; the array has another
            shape or dtype.
        TypeError: it is none of the three.
    """
    if isinstance(image, np.ndarray):
        return Image.fromarray(_checked_array(image))
    if isinstance(image, (str, Path, Image.Image)):
        return _open(image)
    msg = (
        f"A picture can be a PIL image, a path, or a uint8 array (H, W, 3); this is {type(image).__module__}."
        f"{type(image).__name__}. A tensor (3, H, W) in 0 to 1: (x * 255).round().byte().permute(1, 2, 0).cpu().numpy()"
    )
    raise GradeclipError(msg)


def _checked_array(array: np.ndarray) -> np.ndarray:
    if array.dtype != np.uint8:
        msg = (
            f"An array must be uint8 (0 to 255), because other types have no agreed range; this one is {array.dtype} "
            f"of shape {array.shape}. If it runs from 0 to 1: (array * 255).round().astype('uint8')"
        )
        raise GradeclipError(msg)
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        msg = f"An array must have the shape (H, W, 3): red, green, blue; this one has {array.shape}."
        raise GradeclipError(msg)
    _check_size("This array", array.shape[1], array.shape[0])
    return np.ascontiguousarray(array)


def _open(image: Image.Image | str | Path) -> Image.Image:
    name = "this picture" if isinstance(image, Image.Image) else str(path := readable(image, "a picture file"))
    start = b"?"  # of an image that somebody else opened
    try:
        if isinstance(image, Image.Image):
            return _to_rgb(image, name)
        with path.open("rb") as file:
            start = file.read(12)
        with Image.open(path) as opened:
            return _to_rgb(opened, name)
    except UnidentifiedImageError:
        raise GradeclipError(f"{name} {_unreadable(start)}") from None
    except GradeclipError:
        raise
    except _PILLOW as error:
        msg = f"{name} cannot be read as a picture: it is damaged or ends too early ({error})."
        raise GradeclipError(msg) from error
    except Image.DecompressionBombError as error:
        raise GradeclipError(f"{name} has more than {MOST_MEGAPIXELS} megapixels: {error}") from None


# what Pillow says of a broken chunk, of a file that is closed or too short, and of a mode that it cannot convert
_PILLOW = (OSError, SyntaxError, ValueError, TypeError, LookupError, AttributeError, AssertionError, struct.error)


def _unreadable(start: bytes) -> str:
    """What a file is that Pillow does not know, by its first bytes, and what to do. Telephones write HEIC."""
    if not start:
        return "is empty: it has no bytes."
    if start[4:8] == b"ftyp" and start[8:] in _HEIF:
        return "is a HEIC or AVIF picture, which Pillow cannot read here: save it as JPEG or PNG."
    return "is not a picture that Pillow can read (PNG, JPEG, WebP, GIF, TIFF, ...): save it as JPEG or PNG."


_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis")


def _check_size(name: str, width: int, height: int) -> None:
    if 0 in (width, height):
        raise GradeclipError(f"{name} has no pixels: {width} x {height}.")
    if width * height > MOST_MEGAPIXELS * 1e6:
        msg = f"{name} has {width} x {height} pixels, more than {MOST_MEGAPIXELS} megapixels: make it smaller first."
        raise GradeclipError(msg)


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    _check_size(name, *image.size)  # known before anything is decoded
    if image.mode == "F":
        msg = f"{name} holds floats, which have no agreed range; convert it to 8 bits first."
        raise GradeclipError(msg)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        image = _to_8_bits(image, name)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _to_8_bits(image: Image.Image, name: str) -> Image.Image:
    """16-bit greyscale. Pillow's own conversion clips at 255 instead of scaling, which turns most images white."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        msg = f"{name} holds numbers from {values.min()} to {values.max()}, beyond 16 bits; scale it to 8 bits first."
        raise GradeclipError(msg)
    if image.mode != "I" or values.max() > 255:  # "I" holds 32 bits, and small values there are 8-bit greys
        values = np.round(values / 257)  # 65535 / 257 = 255
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


MOST_PATCHES = 2048  # attention is quadratic in them: a larger image at native resolution is scaled down to this


@dataclass(frozen=True)
class View:
    """The model's input (3, H, W), and the box (left, top, right, bottom) of it in the image's pixels."""

    pixels: Tensor
    box: tuple[float, float, float, float]


def check_pixels(pixels: object, size: tuple[int, int] | None = None) -> Tensor:
    """What a preprocessing gave, if a model can take it: finite floats (3, H, W)."""
    import torch

    rule = "a preprocessing must turn an image into a float tensor (3, H, W)"
    if not isinstance(pixels, torch.Tensor):
        raise GradeclipError(f"{rule}, and this one gives {type(pixels).__name__}")
    if pixels.ndim != 3 or len(pixels) != 3 or not pixels.is_floating_point():
        raise GradeclipError(f"{rule}, and this one gives {pixels.dtype} {tuple(pixels.shape)}")
    if size is not None and tuple(pixels.shape[1:]) != tuple(size):
        given, wanted = (" x ".join(map(str, one)) for one in (pixels.shape[1:], size))
        raise GradeclipError(f"the preprocessing gives {given} pixels, and the model takes {wanted}")
    if not torch.isfinite(pixels).all():
        raise GradeclipError(f"{rule}, and this one gives NaN or infinity")
    return pixels


def model_view(preprocess: Callable, image: Image.Image) -> View:
    """The image through the model's own preprocessing."""
    steps = getattr(preprocess, "transforms", [preprocess])
    width, height = scaled = image.size
    left = top = 0  # of the view, in the scaled image
    view = scaled
    for step in steps:
        kind = _kind(step)
        if kind == "Resize" and step.max_size is None:
            scaled = view = _resized(step.size, *scaled)
        elif kind == "ResizeKeepRatio":
            scaled = view = step.get_params(image, step.size, step.longest)[::-1]
        elif kind in ("CenterCrop", "CenterCropOrPad"):
            view = tuple(step.size)[::-1]
            left, top = (_crop_start(*sides) for sides in zip(scaled, view, strict=True))
        elif kind not in _IN_PLACE:
            name = getattr(step, "__name__", type(step).__name__)
            message = f"preprocessing step {name!r} is not known: maps are drawn as if the model saw the whole picture"
            warn(message)
            return View(preprocess(image), (0.0, 0.0, float(width), float(height)))
    across, down = width / scaled[0], height / scaled[1]
    box = (left * across, top * down, (left + view[0]) * across, (top + view[1]) * down)
    return View(preprocess(image), box)


def native_view(preprocess: Callable, image: Image.Image, patch: tuple[int, int]) -> View:
    """The whole image at its own size and shape, both sides rounded to whole patches."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as transforms

    steps = getattr(preprocess, "transforms", [])
    normalize = next((step for step in steps if _kind(step) == "Normalize"), None)
    if normalize is None:
        msg = "resolution='native' needs a preprocessing with a Normalize step, to know mean and deviation"
        raise GradeclipError(msg)
    resize = next((step.interpolation for step in steps if _kind(step) in ("Resize", "ResizeKeepRatio")), None)
    rows, columns = image.height / patch[0], image.width / patch[1]
    shrink = min(1.0, (MOST_PATCHES / (rows * columns)) ** 0.5)
    # Python rounds halves to even and the last patch must not exceed the limit: floor when shrinking
    to_whole = round if shrink == 1.0 else int
    counts = [max(1, to_whole(side * shrink)) for side in (rows, columns)]
    # a side of less than one patch becomes one, and then the other one has to give way
    size = [max(1, min(n, MOST_PATCHES // m)) * step for n, m, step in zip(counts, counts[::-1], patch, strict=True)]
    scaled = transforms.resize(image, size, resize or InterpolationMode.BICUBIC)
    pixels = normalize(transforms.to_tensor(scaled))
    return View(pixels, (0.0, 0.0, float(image.width), float(image.height)))


def onto_image(map_: np.ndarray, box: tuple[float, float, float, float], size: tuple[int, int]) -> np.ndarray:
    """A map (h, w) on the token grid as (H, W) in the image's pixels; zero outside the box."""
    left, top, right, bottom = box
    columns = _bilinear(size[0], left, right, map_.shape[1])  # (W, w)
    rows = _bilinear(size[1], top, bottom, map_.shape[0])  # (H, h)
    return rows @ map_.astype(np.float32) @ columns.T


def _bilinear(pixels: int, start: float, end: float, cells: int) -> np.ndarray:
    """How much each of `cells` between `start` and `end` gives to each pixel: (pixels, cells)."""
    centres = np.arange(pixels) + 0.5
    places = np.clip((centres - start) / (end - start) * cells - 0.5, 0, cells - 1)
    weights = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(cells)))
    inside = (centres >= start) & (centres <= end)
    return (weights * inside[:, None]).astype(np.float32)


# steps that move no pixel, of torchvision's transforms (v1 and v2), open_clip and timm
_IN_PLACE = frozenset("MaybeConvertMode RGB ToTensor MaybeToTensor PILToTensor MaybePILToTensor ToImage ToPureTensor "
                      "ToDtype ConvertImageDtype Normalize".split())  # fmt: skip


def _kind(step: object) -> str:
    """What a step of a preprocessing is called in the library that has it; "" if it is somebody's own."""
    libraries = ("torchvision.", "open_clip.", "timm.")
    return next((kind.__name__ for kind in type(step).__mro__ if kind.__module__.startswith(libraries)), "")


def _resized(size: int | tuple[int, ...], width: int, height: int) -> tuple[int, int]:
    """As torchvision's Resize: two numbers are (height, width), one is the shorter side."""
    if not isinstance(size, int) and len(size) == 2:
        return size[1], size[0]
    short = size if isinstance(size, int) else size[0]
    return (short, int(short * height / width)) if width <= height else (int(short * width / height), short)


def _crop_start(full: int, part: int) -> int:
    """Where a centre crop of `part` begins; negative where the image is padded to reach it."""
    padding = max(0, part - full) // 2
    return round((max(full, part) - part) / 2) - padding
