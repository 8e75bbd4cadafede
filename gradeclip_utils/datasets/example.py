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
from typing import Any, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..checks import as_path, short, text
from ..errors import GradeclipError
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
            raise GradeclipError(msg)

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


@dataclass(frozen=True)
class Source:
    """Where a published data set is had, `place`: whatever is missing or damaged of it says so."""

    place: str

    def needed(self, path: str | Path, what: str) -> Path:
        """The path, if something is there."""
        path = as_path(path, what)
        if not path.exists():
            raise GradeclipError(f"{path} is missing: {what}. Get it from {self.place}")
        return path

    def damaged(self, path: Path, what: str) -> ValueError:
        """The error to raise for a file, with the place where a whole one can be had."""
        return GradeclipError(f"{path} {what}. Get it from {self.place}")

    def not_empty(self, examples: list[T], path: Path, what: str) -> list[T]:
        """The examples, if there are any."""
        if not examples:
            raise self.damaged(path, f"holds no {what}")
        return examples

    @contextmanager
    def form(self, path: Path, form: str) -> Iterator[None]:
        """Within it what a record lacks, or has of another kind, is said of its file."""
        try:
            yield
        except GradeclipError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError, OSError) as error:
            said = f"it lacks {error}" if isinstance(error, KeyError) else error
            raise self.damaged(path, f"is not {form}, or is cut short ({said})") from error

    def read_json(self, path: Path) -> Any:
        """What a JSON file says."""
        with self.form(path, "JSON"):
            return json.loads(path.read_text(encoding="utf-8"))


def decoded(content: bytes, name: str) -> Image.Image:
    """The image of a file's content, as `read_image` gives it."""
    try:
        return read_image(Image.open(io.BytesIO(content)))
    except UnidentifiedImageError:
        raise GradeclipError(f"{name} is no image that Pillow can read") from None
    except GradeclipError as error:
        raise GradeclipError(f"{name} is damaged or ends too early ({error})") from error


def fitting(mask: np.ndarray, file: Path, image: Path) -> np.ndarray:
    """The mask (H, W), if it has the size of its image."""
    size = read_image(image).size
    if mask.shape != size[::-1]:
        msg = f"{file} is {mask.shape[1]} x {mask.shape[0]} pixels, its image {size[0]} x {size[1]}"
        raise GradeclipError(msg)
    return mask


def photo_prompt(name: str) -> str:
    """What is asked for a class of a published data set: CLIP's own template (Radford et al. 2021)."""
    return f"a photo of a {name}."


def optional_library(name: str, why: str, extra: str = "data") -> ModuleType:
    """A library that only some people need."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        msg = f"{why}, and needs {name}: pip install {name} (in a checkout, pip install '.[{extra}]')"
        raise GradeclipError(msg) from error
