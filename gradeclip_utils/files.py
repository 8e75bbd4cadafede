"""What comes from disk: the project's own data files, and pictures in whatever form people have them.

    files -> picture -> architecture -> trace -> method -> explanation

Nothing here needs torch, so that code that only draws scenes starts at once.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

_PACKAGE = Path(__file__).parent


def data_path(name: str = "") -> Path:
    """Path of a file of the project's `data/` folder, which an installed package carries inside itself.

    In a checkout (also after `pip install -e .`) the folder stands beside the package; `pip install .` maps it to
    `gradeclip_utils/data`. The file need not exist: `training` writes there.

        data_path("concepts.csv")
    """
    inside = _PACKAGE / "data"
    return (inside if inside.is_dir() else _PACKAGE.parent / "data") / name


def write_whole(file: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file whole or not at all, whenever the process or the machine dies; `write` gets a binary stream."""
    new = file.with_name(f"{file.name}.{os.getpid()}.new")
    with new.open("wb") as stream:
        write(stream)
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(file)


def commit() -> str:
    """The commit that the working tree stands on, with "+" where files differ from it; "unknown" without git."""
    call = partial(subprocess.run, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    try:
        head = call(["git", "rev-parse", "--short", "HEAD"])
        changed = call(["git", "status", "--porcelain", "--", "."])
    except FileNotFoundError:
        return "unknown"
    return "unknown" if head.returncode else head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def read_image(image: Image.Image | str | Path | np.ndarray) -> Image.Image:
    """The picture as RGB, upright and 8 bits a channel, whatever it was.

    EXIF rotation is applied; a palette, greyscale, CMYK and 16 bits are converted; what is transparent is laid over
    white. Of an animation the first frame is taken.

        read_image("holiday.jpg").size

    Args:
        image: a PIL image, the path of a picture file, or a uint8 array (H, W, 3) with red, green, blue in 0 to 255.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a picture, or ends too early; the array has another shape or dtype.
        TypeError: it is none of the three.
    """
    if isinstance(image, np.ndarray):
        return Image.fromarray(_checked_array(image))
    if isinstance(image, (str, Path)):
        return _open(Path(image).expanduser())
    if isinstance(image, Image.Image):
        return _to_rgb(image, "this picture")
    msg = (
        f"A picture can be a PIL image, a path, or a uint8 array (H, W, 3); this is {type(image).__module__}."
        f"{type(image).__name__}. A tensor (3, H, W) in 0 to 1: (x * 255).round().byte().permute(1, 2, 0).cpu().numpy()"
    )
    raise TypeError(msg)


def _checked_array(array: np.ndarray) -> np.ndarray:
    if array.dtype != np.uint8:
        msg = (
            f"An array must be uint8 (0 to 255), because other types have no agreed range; this one is {array.dtype} "
            f"of shape {array.shape}. If it runs from 0 to 1: (array * 255).round().astype('uint8')"
        )
        raise ValueError(msg)
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ValueError(f"An array must have the shape (H, W, 3): red, green, blue; this one has {array.shape}.")
    return np.ascontiguousarray(array)


def _open(path: Path) -> Image.Image:
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not a picture.")
    try:
        with Image.open(path) as picture:
            return _to_rgb(picture, str(path))
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no picture file {path}.") from None
    except UnidentifiedImageError:
        raise ValueError(f"{path} is not a picture that Pillow can read (PNG, JPEG, WebP, GIF, TIFF, ...).") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # a broken PNG chunk is a SyntaxError
        raise ValueError(f"{path} cannot be read as a picture: it is damaged or ends too early ({error}).") from error


def _to_rgb(picture: Image.Image, name: str) -> Image.Image:
    if 0 in picture.size:
        raise ValueError(f"{name} has no pixels: {picture.width} x {picture.height}.")
    if picture.mode == "F":
        raise ValueError(f"{name} holds floats, which have no agreed range; convert it to 8 bits first.")
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):
        picture = _to_8_bits(picture)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


def _to_8_bits(picture: Image.Image) -> Image.Image:
    """16-bit greyscale. Pillow's own conversion clips at 255 instead of scaling, which turns most pictures white."""
    values = np.asarray(picture).astype(np.int64)
    if picture.mode != "I" or values.max() > 255:  # "I" holds 32 bits, and small values there are 8-bit greys
        values = np.round(values / 257)  # 65535 / 257 = 255
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))
