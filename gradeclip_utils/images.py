"""Images: reading them in any form, what the model sees of them, and maps laid back onto them.

A model's own preprocessing resizes and crops. The package reads its steps to lay a map where it
belongs in the image. torch is imported only where it is needed, so that reading an image starts at
once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import GradeclipError, first_line, short, warn

if TYPE_CHECKING:
    from torch import Tensor


ImageLike: TypeAlias = Union[Image.Image, str, Path, np.ndarray, "Tensor"]
Box: TypeAlias = tuple[float, float, float, float]  # left, top, right, bottom, in pixels

# in the `info` of scenes like those that bundled models were trained on; copies keep it
DRAWN = "gradeclip: drawn"

# attention is quadratic in patches: at native resolution a larger image is scaled down to so many
_MOST_PATCHES = 2048

# steps that move no pixel, of torchvision's transforms (v1 and v2), open_clip and timm
_KEEPS_PIXELS = frozenset(
    "MaybeConvertMode RGB ToTensor MaybeToTensor PILToTensor MaybePILToTensor ToImage ToPureTensor "
    "ToDtype ConvertImageDtype Normalize".split()
)


# ------------------------------------------------------------------------------------------ reading


def read_image(image: ImageLike) -> Image.Image:
    """Read an image as RGB, upright and with 8 bits a channel.

    EXIF rotation is applied; a palette, greyscale, CMYK and 16 bits are converted; transparent
    pixels are laid over white. The first frame of an animation is taken.

        read_image("holiday.jpg").size

    Args:
        image: a PIL image, the path of an image file, a uint8 array (H, W, 3) with red, green,
            blue in 0 to 255, or a float tensor (3, H, W) in 0 to 1, which is rounded to 8 bits.

    Returns:
        A PIL image of mode RGB; the argument is not changed.

    Raises:
        GradeclipError: there is no such file, Pillow cannot read it, the array has a different
            shape or dtype, the tensor is normalised, or the argument is none of the four.
    """
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if isinstance(image, Image.Image):
        return _to_rgb(image)
    if hasattr(image, "is_floating_point"):
        return _from_tensor(image)
    if not isinstance(image, (str, Path)):
        msg = (
            f"an image must be a PIL image, a path, or a uint8 array (H, W, 3), got {short(image)}"
        )
        raise GradeclipError(msg)

    try:
        with Image.open(Path(image).expanduser()) as opened:
            return _to_rgb(opened)
    except FileNotFoundError:
        raise GradeclipError(f"there is no image {image}") from None
    except UnidentifiedImageError:
        msg = f"{image} is not an image that Pillow can read: save it as JPEG or PNG"
        raise GradeclipError(msg) from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        # Pillow raises a SyntaxError for a broken chunk of a PNG
        raise GradeclipError(f"{image} cannot be read as an image: {first_line(error)}") from None


def _from_array(array: np.ndarray) -> Image.Image:
    shape = " x ".join(map(str, array.shape))
    if array.dtype != np.uint8:
        advice = ""
        if array.dtype.kind == "f":
            advice = ": if it runs from 0 to 1, (array * 255).round().astype('uint8')"
        msg = f"an array must be uint8 (0 to 255), this one is {array.dtype} of {shape}{advice}"
        raise GradeclipError(msg)
    if array.ndim != 3 or array.shape[2] != 3:
        advice = ""
        if array.ndim == 2:
            advice = ": give greys as Image.fromarray(array)"
        elif array.ndim == 3 and array.shape[0] == 3:
            advice = ": array.transpose(1, 2, 0)"
        msg = f"an array must be (H, W, 3), red, green and blue, this one is {shape}{advice}"
        raise GradeclipError(msg)
    if array.size == 0:
        raise GradeclipError(f"an array must have pixels, this one is {shape}")
    return Image.fromarray(array)


def _from_tensor(tensor: Tensor) -> Image.Image:
    if tensor.ndim != 3 or len(tensor) != 3 or not tensor.is_floating_point():
        shape = tuple(tensor.shape)
        raise GradeclipError(
            f"a tensor must be floats (3, H, W) in 0 to 1, this one is {tensor.dtype} {shape}"
        )
    if tensor.numel() == 0:
        raise GradeclipError(f"a tensor must have pixels, this one is {tuple(tensor.shape)}")
    low, high = tensor.min().item(), tensor.max().item()
    if not (low >= 0 and high <= 1):  # NaN is not in between either
        raise GradeclipError(
            f"a tensor must run from 0 to 1, this one from {low:.2f} to {high:.2f}: "
            "give it before it is normalised"
        )
    array = (tensor.detach().float() * 255).round().byte().permute(1, 2, 0)
    return Image.fromarray(array.cpu().numpy())


def _to_rgb(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise GradeclipError("an image of floats has no agreed range: convert it to 8 bits first")
    if image.mode.startswith("I"):
        image = _to_8_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit greys to 8 bits; Pillow's own conversion would clip most of them to white."""
    values = np.asarray(image).astype(np.int64)
    # the mode "I" has 32 bits, and small values there are 8-bit greys
    if image.mode != "I" or values.max() > 255:
        values = np.round(values / 257)  # 65535 / 257 = 255
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


# --------------------------------------------------------------------------- what the model sees


@dataclass(frozen=True)
class View:
    """The model's input (3, H, W), and the box of it in the image's pixels."""

    pixels: Tensor
    box: Box


def model_view(preprocess: Callable, image: Image.Image) -> View:
    """The image through the model's own preprocessing.

    Raises:
        GradeclipError: the preprocessing gives no float tensor (3, H, W).
    """
    import torch

    pixels = preprocess(image)
    if not isinstance(pixels, torch.Tensor):
        msg = f"a preprocessing must give a tensor (3, H, W), got {type(pixels).__name__}"
        raise GradeclipError(msg)
    if pixels.ndim != 3 or len(pixels) != 3 or not pixels.is_floating_point():
        shape = tuple(pixels.shape)
        msg = f"a preprocessing must give floats of shape (3, H, W), got {pixels.dtype} {shape}"
        raise GradeclipError(msg)
    return View(pixels, _visible_box(preprocess, image))


def native_view(preprocess: Callable, image: Image.Image, patch: tuple[int, int]) -> View:
    """The whole image at its own size and shape, both sides rounded to whole patches.

    Raises:
        GradeclipError: the preprocessing has no Normalize step.
    """
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as transforms

    normalize = None
    interpolation = InterpolationMode.BICUBIC
    for step in getattr(preprocess, "transforms", []):
        if _kind(step) == "Normalize":
            normalize = step
        elif _kind(step) in ("Resize", "ResizeKeepRatio"):
            interpolation = step.interpolation
    if normalize is None:
        msg = "resolution='native' needs a preprocessing with a Normalize step"
        raise GradeclipError(msg)

    rows, columns = _native_grid(image, patch)
    size = [rows * patch[0], columns * patch[1]]
    pixels = normalize(transforms.to_tensor(transforms.resize(image, size, interpolation)))
    return View(pixels, _whole(image))


def _native_grid(image: Image.Image, patch: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of patches for an image at its own size, at most `_MOST_PATCHES` in all."""
    rows = image.height / patch[0]
    columns = image.width / patch[1]
    shrink = min(1.0, (_MOST_PATCHES / (rows * columns)) ** 0.5)
    if shrink < 1:
        rows = int(rows * shrink)
        columns = int(columns * shrink)

    # a side of less than one patch becomes one, and then the other side is shortened
    n_rows = max(1, round(rows))
    n_columns = max(1, round(columns))
    n_rows = max(1, min(n_rows, _MOST_PATCHES // n_columns))
    n_columns = min(n_columns, _MOST_PATCHES // n_rows)
    return n_rows, n_columns


def _visible_box(preprocess: Callable, image: Image.Image) -> Box:
    """The part of the image that is left after the resizes and crops of a preprocessing."""
    width, height = image.size  # as the steps change it
    left, top, right, bottom = whole = _whole(image)

    for step in getattr(preprocess, "transforms", [preprocess]):
        kind = _kind(step)
        if kind == "Resize" and step.max_size is None:
            width, height = _resized(step.size, width, height)
        elif kind == "ResizeKeepRatio":
            blank = Image.new("1", (width, height))
            height, width = step.get_params(blank, step.size, step.longest)
        elif kind in ("CenterCrop", "CenterCropOrPad"):
            rows, columns = step.size
            left, right = _cropped(left, right, width, columns)
            top, bottom = _cropped(top, bottom, height, rows)
            width = columns
            height = rows
        elif kind not in _KEEPS_PIXELS:
            name = getattr(step, "__name__", type(step).__name__)
            warn(
                f"preprocessing step {name!r} is not known: maps are drawn as if the model saw the "
                "whole image"
            )
            return whole
    return left, top, right, bottom


def _whole(image: Image.Image) -> Box:
    return 0.0, 0.0, float(image.width), float(image.height)


def _kind(step: object) -> str:
    """The class of a step of torchvision, open_clip or timm; "" for other steps."""
    for kind in type(step).__mro__:
        if kind.__module__.startswith(("torchvision.", "open_clip.", "timm.")):
            return kind.__name__
    return ""


def _resized(size: int | tuple[int, ...], width: int, height: int) -> tuple[int, int]:
    """Width and height after torchvision's Resize: one number is the length of the shorter side."""
    if not isinstance(size, int) and len(size) == 2:
        return size[1], size[0]
    side = size if isinstance(size, int) else size[0]
    if width <= height:
        return side, int(side * height / width)
    return int(side * width / height), side


def _cropped(start: float, end: float, full: int, part: int) -> tuple[float, float]:
    """Where a centre crop of `part` of `full` pixels lies, if these go from start to end."""
    scale = (end - start) / full
    first = round((full - part) / 2)
    if part > full:  # a smaller image is padded
        first = -((part - full) // 2)
    return start + first * scale, start + (first + part) * scale


# --------------------------------------------------------------------------- maps and the image


def onto_image(map_: np.ndarray, box: Box, size: tuple[int, int]) -> np.ndarray:
    """A map (h, w) on the token grid as (H, W) in the image's pixels; zero outside the box."""
    left, top, right, bottom = box
    columns = _bilinear(size[0], left, right, map_.shape[1])  # (W, w)
    rows = _bilinear(size[1], top, bottom, map_.shape[0])  # (H, h)
    return rows @ map_.astype(np.float32) @ columns.T


def _bilinear(pixels: int, start: float, end: float, cells: int) -> np.ndarray:
    """The weight (pixels, cells) of each of `cells` between start and end for each pixel."""
    centres = np.arange(pixels) + 0.5
    places = np.clip((centres - start) / (end - start) * cells - 0.5, 0, cells - 1)
    distance = np.abs(places[:, None] - np.arange(cells))
    weights = np.maximum(0, 1 - distance)
    inside = (centres >= start) & (centres <= end)
    return (weights * inside[:, None]).astype(np.float32)


def pool(values: np.ndarray, grid: tuple[int, int], box: Box | None = None) -> np.ndarray:
    """Means (h, w) of `values` (H, W) over the cells of a grid that covers `box`.

    Outside of the image `values` counts as zero. Without a box the grid covers the image.
    """
    height, width = values.shape
    left, top, right, bottom = box or (0, 0, width, height)
    rows = _overlap(height, top, bottom, grid[0])  # (h, H)
    columns = _overlap(width, left, right, grid[1])  # (w, W)
    return rows @ np.asarray(values, float) @ columns.T


def _overlap(pixels: int, start: float, end: float, cells: int) -> np.ndarray:
    """The fraction (cells, pixels) of each cell between start and end that each pixel covers."""
    edges = np.linspace(start, end, cells + 1)[:, None]
    places = np.arange(pixels)
    starts = edges[:-1]
    ends = edges[1:]
    covered = np.minimum(ends, places + 1) - np.maximum(starts, places)
    return np.maximum(covered, 0) / (ends - starts)
