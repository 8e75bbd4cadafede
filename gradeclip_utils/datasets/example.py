"""Example: one question about one image, with the ground truth where it is known. What every data set is made of.

    data set -> Example: image, prompt, mask -> Explainer -> map -> evaluation

What the files of data sets have in common when they are read is here as well: what is missing or damaged is named,
with the page that has it.
"""

from __future__ import annotations

import importlib
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..checks import as_path, short, text
from ..errors import GradeclipError, InvalidFile, InvalidType, InvalidValue, MissingFile, MissingLibrary
from ..images import read_image

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Example:
    """One question about one image: where is what the prompt names?

    Attributes:
        key: its name, unique in the data set.
        prompt: what to look for, as it is given to the model.
        concept: what the prompt is about; examples of one concept are alike, and intervals treat them as a cluster.
        caption: the image's own caption, where it has one.
        present: every concept that is known to be in the image, `concept` among them.
        image: a function that reads the image, upright RGB; called whenever it is needed, also in another process.
            FileNotFoundError if the file is not there, ValueError if it is not an image.
        load_mask: a function that reads the mask, (H, W) bool; None where the data set has none.
        others: prompts of other things in the image, where the data set has them; the examples that ask for what is
            `present` give them otherwise.
    """

    key: str
    prompt: str
    concept: str
    caption: str
    present: tuple[str, ...]
    image: Callable[[], Image.Image]
    load_mask: Callable[[], np.ndarray] | None = None
    others: tuple[str, ...] = ()

    def __post_init__(self):
        for name in ("key", "prompt", "concept", "caption"):
            text(f"{name} of an example", getattr(self, name))
        if not callable(self.image):
            msg = f"image of an example must be a function that reads it, got {short(self.image)}"
            raise InvalidType(msg, "data-type")

    def mask(self) -> np.ndarray | None:
        """Which pixels show what the prompt names, (H, W) bool, read now; None where the data set does not say.

        Raises:
            FileNotFoundError: the file is not there.
            ValueError: it does not fit the image.
        """
        found = None if self.load_mask is None else self.load_mask()
        return None if found is None else np.asarray(found)

    @property
    def has_mask(self) -> bool:
        """Whether the data set says where the prompt's object is."""
        return self.load_mask is not None


def needed(path: str | Path, what: str, source: str) -> Path:
    """The path, if something is there; FileNotFoundError, with `what` it should be and its `source`, if not.

    What is no path is refused as by `as_path`.

    Args:
        path: what should be there.
        what: it should be.
        source: where to get it.
    """
    path = as_path(path, what)
    if not path.exists():
        raise MissingFile(f"{path} is missing: {what}. Get it from {source}", "data-missing")
    return path


def damaged(path: Path, what: str, source: str) -> ValueError:
    """The error to raise for a file that is there and cannot be used, with what is wrong and where to get it.

    Args:
        path: what is there.
        what: is wrong with it.
        source: where to get it.
    """
    return InvalidValue(f"{path} {what}. Get it from {source}", "data-damaged")


def not_empty(examples: list[T], path: Path, what: str, source: str) -> list[T]:
    """The examples, if there are any; ValueError, with what the path lacks and where to get it, if not.

    Args:
        examples: that were found.
        path: where.
        what: should have been there.
        source: where to get it.
    """
    if not examples:
        raise damaged(path, f"holds no {what}", source)
    return examples


def read_json(path: Path, source: str):
    """What a JSON file says; ValueError, with where to get it, if it is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise damaged(path, f"is not JSON, or is cut short ({error})", source) from error


@contextmanager
def published_form(path: Path, form: str, source: str) -> Iterator[None]:
    """Within it, what a record lacks or has of another kind is said of its file.

    Args:
        path: of the file.
        form: what it should be.
        source: where to get it.

    Raises:
        ValueError: a record does.
    """
    try:
        yield
    except GradeclipError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, OSError) as error:
        said = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise damaged(path, f"is not {form}, or is cut short ({said})", source) from error


def decoded(content: bytes, name: str) -> Image.Image:
    """The image of a file's content, as `read_image` gives it.

    Raises:
        ValueError: it is none, or ends too early; says so of `name`.
    """
    try:
        return read_image(Image.open(io.BytesIO(content)))
    except UnidentifiedImageError:
        raise InvalidFile(f"{name} is no image that Pillow can read", "image-unreadable") from None
    except InvalidFile as error:
        raise InvalidFile(f"{name} is damaged or ends too early ({error})", "image-damaged") from error


def fitting(mask: np.ndarray, file: Path, image: Path) -> np.ndarray:
    """The mask (H, W), if it has the size of its image; ValueError, with both sizes, if not.

    Args:
        mask: (H, W).
        file: that it was read from.
        image: the file of its image.
    """
    size = read_image(image).size
    if mask.shape != size[::-1]:
        msg = f"{file} is {mask.shape[1]} x {mask.shape[0]} pixels, its image {size[0]} x {size[1]}"
        raise InvalidValue(msg, "data-mask")
    return mask


def photo_prompt(name: str) -> str:
    """What is asked for a class of a published data set."""
    return f"a photo of a {name}."  # CLIP's own template (Radford et al. 2021)


def optional_library(name: str, why: str, extra: str = "data") -> ModuleType:
    """A library that only some people need; ImportError, with why and the way to get it, if it is not installed.

    Args:
        name: of the module.
        why: it is needed.
        extra: of this package, that installs it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        msg = f"{why}, and needs {name}: pip install {name} (in a checkout, pip install '.[{extra}]')"
        raise MissingLibrary(msg, "library-missing") from error
