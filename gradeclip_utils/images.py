"""Images: reading them in any form, what the model sees of them, and maps laid back onto them.

A model's own preprocessing resizes and crops. The package reads its steps to lay a map where it
belongs in the image. torch is imported only where it is needed, so that reading an image starts at
once.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .checks import as_box, as_map, listed, readable, short, whole
from .errors import GradeclipError, first_line, warn

if TYPE_CHECKING:
    from torch import Tensor


ImageLike: TypeAlias = Image.Image | str | Path | np.ndarray
Box: TypeAlias = tuple[float, float, float, float]  # left, top, right, bottom, in pixels
_MOST_MEGAPIXELS = (
    80  # an image of more is refused before it is decoded; below Pillow's own bound for warnings
)


def read_image(image: ImageLike) -> Image.Image:
    """Read an image as RGB, upright and with 8 bits a channel.

    EXIF rotation is applied; a palette, greyscale, CMYK and 16 bits are converted; transparent
    pixels are laid over white. The first frame of an animation is taken.

        read_image("holiday.jpg").size

    Args:
        image: a PIL image, the path of an image file, or a uint8 array (H, W, 3) with red, green,
            blue in 0 to 255.

    Returns:
        A PIL image of mode RGB; the argument is not changed.

    Raises:
        GradeclipError: there is no such file, it is not an image, ends too early, or has more than
            80 megapixels; the array has a different shape or dtype; or it is none of the three.
    """
    if isinstance(image, np.ndarray):
        return Image.fromarray(_checked_array(image))
    if isinstance(image, (str, Path, Image.Image)):
        return _open(image)
    advice = ""
    if hasattr(image, "permute"):
        advice = "; of a tensor (3, H, W) in 0 to 1: (x * 255).round().byte().permute(1, 2, 0).cpu().numpy()"
    elif callable(getattr(image, "image", None)):
        advice = "; pass its .image()"
    elif isinstance(image, (list, tuple)):
        advice = "; explain_batch takes several"
    elif hasattr(image, "read") or isinstance(image, bytes):
        advice = "; Image.open of Pillow reads a file that is open, and bytes as io.BytesIO(them)"
    msg = f"an image must be a PIL image, a path, or a uint8 array (H, W, 3), got {short(image)}{advice}"
    raise GradeclipError(msg)


def _checked_array(array: np.ndarray) -> np.ndarray:
    got = f"this one is {array.dtype} of shape ({', '.join(map(str, array.shape))})"
    if array.dtype != np.uint8:
        advice = "if it runs from 0 to 255, array.astype('uint8'); 16 bits are (array // 257).astype('uint8')"
        if array.dtype.kind in "fb":
            advice = "if it runs from 0 to 1, (array * 255).round().astype('uint8')"
        raise GradeclipError(f"an array must be uint8 (0 to 255), {got}: {advice}")
    if isinstance(array, np.ma.MaskedArray):
        raise GradeclipError(
            "an array must have a value everywhere, this one is masked: array.filled(255)"
        )
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        how = ": of greys, np.stack([array] * 3, axis=-1)" if array.ndim == 2 else ""
        how = (
            ": of four channels, Image.fromarray(array) of Pillow"
            if array.shape[2:] == (4,)
            else how
        )
        how = ": array.transpose(1, 2, 0)" if array.ndim == 3 and array.shape[0] == 3 else how
        raise GradeclipError(
            f"an array must have the shape (H, W, 3), red, green, blue; {got}{how}"
        )
    _check_size("this array", array.shape[1], array.shape[0])
    return np.ascontiguousarray(array)


def _open(image: Image.Image | str | Path) -> Image.Image:
    if isinstance(image, str) and re.match(r"\w+://", image):
        raise GradeclipError(
            f"{short(image)} is an address, and nothing is fetched: download it and pass the file"
        )
    name = "this image" if isinstance(image, Image.Image) else str(readable(image, "an image file"))
    try:
        if isinstance(image, Image.Image):
            return _to_rgb(image, name)
        with Image.open(name) as opened:
            return _to_rgb(opened, name)
    except UnidentifiedImageError:
        start = b"?"  # of an image that is open already
        if not isinstance(image, Image.Image):
            with open(name, "rb") as file:
                start = file.read(12)
        found = (
            "is not an image that Pillow can read (PNG, JPEG, WebP, GIF, TIFF, ...)"
            if start
            else "is empty"
        )
        if start[4:8] == b"ftyp" and start[8:] in _HEIF:  # telephones write HEIC
            found = "is a HEIC or AVIF image, which Pillow cannot read here"
        raise GradeclipError(f"{name} {found}: save it as JPEG or PNG.") from None
    except GradeclipError:
        raise
    except _PILLOW as error:
        msg = f"{name} cannot be read as an image: it is damaged or ends too early ({error})."
        raise GradeclipError(msg) from error
    except Image.DecompressionBombError as error:
        msg = f"{name} has more than {_MOST_MEGAPIXELS} megapixels: make it smaller first ({first_line(error)})"
        raise GradeclipError(msg) from None


_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis")
# errors of Pillow for a broken chunk, a file that is closed or too short, and a mode that it cannot
# convert
_PILLOW = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    struct.error,
)


def _check_size(name: str, width: int, height: int) -> None:
    if 0 in (width, height):
        raise GradeclipError(f"{name} has no pixels: {width} x {height}.")
    if width * height > _MOST_MEGAPIXELS * 1e6:
        msg = f"{name} has {width} x {height} pixels, more than {_MOST_MEGAPIXELS} megapixels: make it smaller first."
        raise GradeclipError(msg)


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    _check_size(name, *image.size)  # known before anything is decoded
    if image.mode == "F":
        raise GradeclipError(
            f"{name} holds floats, which have no agreed range; convert it to 8 bits first."
        )
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        clear = np.asarray(image) == image.info.get("transparency")
        image = _to_8_bits(image, name)
        image.paste(255, mask=Image.fromarray(clear))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _to_8_bits(image: Image.Image, name: str) -> Image.Image:
    """Scale 16-bit greyscale to 8 bits. Pillow's own conversion clips at 255, which turns most images white."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        msg = f"{name} holds numbers from {values.min()} to {values.max()}, beyond 16 bits; scale it to 8 bits first."
        raise GradeclipError(msg)
    if (
        image.mode != "I" or values.max() > 255
    ):  # "I" holds 32 bits, and small values there are 8-bit greys
        values = np.round(values / 257)  # 65535 / 257 = 255
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


DRAWN = "gradeclip: drawn"  # in the `info` of scenes like those that bundled models were trained on; copies keep it
_MOST_PATCHES = 2048  # attention is quadratic in them: a larger image at native resolution is scaled down to this


@dataclass(frozen=True)
class View:
    """The model's input (3, H, W), and the box (left, top, right, bottom) of it in the image's pixels."""

    pixels: Tensor
    box: tuple[float, float, float, float]


def _prepared(preprocess: Callable, image: Image.Image) -> Tensor:
    """The image through a preprocessing, (3, H, W); a result that no model can take is refused."""
    import torch

    try:
        pixels = preprocess(image)
    except (TypeError, ValueError, AttributeError, LookupError, RuntimeError) as error:
        name = getattr(preprocess, "__name__", type(preprocess).__name__)
        raise GradeclipError(
            f"the preprocessing {name} fails on an RGB image: {first_line(error)}"
        ) from error
    rule = "a preprocessing must turn an image into a float tensor (3, H, W), and this one gives"
    if not isinstance(pixels, torch.Tensor):
        raise GradeclipError(f"{rule} {type(pixels).__name__}")
    if pixels.ndim != 3 or len(pixels) != 3 or not pixels.is_floating_point():
        raise GradeclipError(f"{rule} {pixels.dtype} {tuple(pixels.shape)}")
    if pixels.is_meta or pixels.layout is not torch.strided or not torch.isfinite(pixels).all():
        raise GradeclipError(f"{rule} NaN, infinity or no plain tensor")
    return pixels


def model_view(preprocess: Callable, image: Image.Image) -> View:
    """The image through the model's own preprocessing."""
    steps = getattr(preprocess, "transforms", [preprocess])
    whole = left, top, right, bottom = 0.0, 0.0, float(image.width), float(image.height)
    size = image.size
    for step in steps:
        kind = _kind(step)
        if kind == "Resize" and step.max_size is None:
            size = _resized(step.size, *size)
        elif kind == "ResizeKeepRatio":
            size = step.get_params(Image.new("1", size), step.size, step.longest)[::-1]
        elif kind in ("CenterCrop", "CenterCropOrPad"):
            across, down, (width, height) = (right - left) / size[0], (bottom - top) / size[1], size
            size = tuple(step.size)[::-1]
            x, y = _crop_start(width, size[0]), _crop_start(height, size[1])
            left, right = left + x * across, left + (x + size[0]) * across
            top, bottom = top + y * down, top + (y + size[1]) * down
        elif kind not in _IN_PLACE:
            name = getattr(step, "__name__", type(step).__name__)
            warn(
                f"preprocessing step {name!r} is not known: maps are drawn as if the model saw the whole image"
            )
            return View(_prepared(preprocess, image), whole)
    return View(_prepared(preprocess, image), (left, top, right, bottom))


def native_view(preprocess: Callable, image: Image.Image, patch: tuple[int, int]) -> View:
    """The whole image at its own size and shape, both sides rounded to whole patches."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as transforms

    steps = getattr(preprocess, "transforms", [])
    normalize = next((step for step in steps if _kind(step) == "Normalize"), None)
    if normalize is None:
        msg = "resolution='native' needs a preprocessing with a Normalize step, to know mean and deviation"
        raise GradeclipError(msg)
    resize = next(
        (step.interpolation for step in steps if _kind(step) in ("Resize", "ResizeKeepRatio")), None
    )
    rows, columns = image.height / patch[0], image.width / patch[1]
    shrink = min(1.0, (_MOST_PATCHES / (rows * columns)) ** 0.5)
    # Python rounds halves to even and the last patch must not exceed the limit: floor when
    # shrinking
    to_whole = round if shrink == 1.0 else int
    counts = [max(1, to_whole(side * shrink)) for side in (rows, columns)]
    # a side of less than one patch becomes one, and then the other side is shortened
    size = [
        max(1, min(n, _MOST_PATCHES // m)) * step
        for n, m, step in zip(counts, counts[::-1], patch, strict=True)
    ]
    scaled = transforms.resize(image, size, resize or InterpolationMode.BICUBIC)
    return View(
        normalize(transforms.to_tensor(scaled)), (0.0, 0.0, float(image.width), float(image.height))
    )


def onto_image(
    map_: np.ndarray, box: tuple[float, float, float, float], size: tuple[int, int]
) -> np.ndarray:
    """A map (h, w) on the token grid as (H, W) in the image's pixels; zero outside the box."""
    left, top, right, bottom = box
    columns = _bilinear(size[0], left, right, map_.shape[1])  # (W, w)
    rows = _bilinear(size[1], top, bottom, map_.shape[0])  # (H, h)
    return rows @ map_.astype(np.float32) @ columns.T


def _bilinear(pixels: int, start: float, end: float, cells: int) -> np.ndarray:
    """The weight (pixels, cells) of each of `cells` between `start` and `end` for each pixel."""
    centres = np.arange(pixels) + 0.5
    places = np.clip((centres - start) / (end - start) * cells - 0.5, 0, cells - 1)
    weights = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(cells)))
    inside = (centres >= start) & (centres <= end)
    return (weights * inside[:, None]).astype(np.float32)


def pool(values: np.ndarray, grid: tuple[int, int], box: Box | None = None) -> np.ndarray:
    """Means (h, w) of `values` (H, W) over each cell of a grid that covers `box`; outside of the image is zero."""
    values, grid = as_map(values), as_grid(grid)
    height, width = values.shape
    left, top, right, bottom = as_box(box, width, height)
    return _overlap(height, top, bottom, grid[0]) @ values @ _overlap(width, left, right, grid[1]).T


def as_grid(grid: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of a grid."""
    cells = [whole("rows and columns of a grid", one, 1, 10_000) for one in listed("a grid", grid)]
    if len(cells) != 2:
        raise GradeclipError(f"a grid is (rows, columns), got {grid!r}")
    return cells[0], cells[1]


def _overlap(pixels: int, start: float, end: float, cells: int) -> np.ndarray:
    """The fraction (cells, pixels) of each cell between `start` and `end` that each pixel covers."""
    edges = np.linspace(start, end, cells + 1)[:, None]
    places = np.arange(pixels)
    covered = np.minimum(edges[1:], places + 1) - np.maximum(edges[:-1], places)
    return np.maximum(covered, 0) / (edges[1:] - edges[:-1])


# steps that move no pixel, of torchvision's transforms (v1 and v2), open_clip and timm
_IN_PLACE = frozenset(
    "MaybeConvertMode RGB ToTensor MaybeToTensor PILToTensor MaybePILToTensor ToImage ToPureTensor "
    "ToDtype ConvertImageDtype Normalize".split()
)


def _kind(step: object) -> str:
    """The class of a step of a preprocessing in torchvision, open_clip or timm; "" for other steps."""
    libraries = ("torchvision.", "open_clip.", "timm.")
    return next(
        (kind.__name__ for kind in type(step).__mro__ if kind.__module__.startswith(libraries)), ""
    )


def _resized(size: int | tuple[int, ...], width: int, height: int) -> tuple[int, int]:
    """The size after torchvision's Resize: two numbers are (height, width), one is the shorter side."""
    if not isinstance(size, int) and len(size) == 2:
        return size[1], size[0]
    short = size if isinstance(size, int) else size[0]
    return (
        (short, int(short * height / width))
        if width <= height
        else (int(short * width / height), short)
    )


def _crop_start(full: int, part: int) -> int:
    """The start of a centre crop of `part`; negative if the image is padded to reach it."""
    padding = max(0, part - full) // 2
    return round((max(full, part) - part) / 2) - padding
