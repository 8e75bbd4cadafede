"""Example: one question about one image, with a mask if the data set has one.

data set -> Example: image, prompt, mask -> Explainer -> map -> evaluation
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from ..checks import as_path, finite, listed, short, text
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
        image: a function that reads the image; called whenever it is needed, also in another process.
        load_mask: a function that reads the mask, (H, W) bool; None where the data set has none.
    """

    key: str
    prompt: str
    concept: str
    caption: str
    present: tuple[str, ...]
    image: Callable[[], Image.Image]
    load_mask: Callable[[], np.ndarray] | None = None

    def __post_init__(self):
        for name in ("key", "prompt", "concept", "caption"):
            value = text(f"{name} of an example", getattr(self, name))
            if any("\ud800" <= letter <= "\udfff" for letter in value):
                raise GradeclipError(
                    f"{name} of an example holds half of a character: {short(value)}; decode it as UTF-8"
                )
        object.__setattr__(self, "present", tuple(listed("present of an example", self.present, (str,))))
        for name, value in (("image", self.image), ("load_mask", self.load_mask)):
            if not callable(value) and not (name == "load_mask" and value is None):
                raise GradeclipError(f"{name} of an example must be a function that reads it, got {short(value)}")

    def mask(self) -> np.ndarray | None:
        """Read the pixels that show what the prompt names, (H, W) bool; None if the data set has no mask.

        Raises:
            GradeclipError: the file is not there or does not fit the image, or the mask is not of True and False.
        """
        if self.load_mask is None:
            return None
        found = finite(f"the mask of {self.key!r}", self.load_mask())
        if found.ndim != 2 or (found.dtype != bool and not np.isin(found, (0, 1)).all()):
            msg = f"the mask of {self.key!r} must be (H, W) of True and False, got {found.dtype} of shape {found.shape}"
            raise GradeclipError(msg)
        if not found.any():
            raise GradeclipError(
                f"the mask of {self.key!r} is empty: there is no object to find; leave the example out"
            )
        return found.astype(bool, copy=False)

    @property
    def has_mask(self) -> bool:
        """Whether the data set has a mask of this example."""
        return self.load_mask is not None


@dataclass(frozen=True)
class Source:
    """The page of a published data set, which messages about missing or damaged files name."""

    place: str

    def needed(self, path: str | Path, what: str) -> Path:
        """Return the path, if something is there."""
        path = as_path(path, what)
        if not path.exists():
            raise GradeclipError(f"{path} is missing: {what}. Get it from {self.place}")
        return path

    def damaged(self, path: Path, what: str) -> ValueError:
        """Return the error to raise for a damaged file."""
        return GradeclipError(f"{path} {what}. Get it from {self.place}")

    def not_empty(self, examples: list[T], path: Path, what: str) -> list[T]:
        """Return the examples, if there are any."""
        if not examples:
            raise self.damaged(path, f"holds no {what}")
        return examples

    @contextmanager
    def form(self, path: Path, form: str) -> Iterator[None]:
        """Turn errors about a record into one sentence about its file."""
        try:
            yield
        except GradeclipError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError, OSError) as error:
            said = f"it lacks {error}" if isinstance(error, KeyError) else error
            raise self.damaged(path, f"is not {form}, or is cut short ({said})") from error

    def read_json(self, path: Path) -> Any:
        """Read a JSON file."""
        with self.form(path, "JSON"):
            return json.loads(path.read_text(encoding="utf-8"))


def fitting(mask: np.ndarray, file: Path, image: Path) -> np.ndarray:
    """Return the mask (H, W), if it has the size of its image."""
    size = read_image(image).size
    if mask.shape != size[::-1]:
        msg = f"{file} is {mask.shape[1]} x {mask.shape[0]} pixels, its image {size[0]} x {size[1]}"
        raise GradeclipError(msg)
    return mask


def photo_prompt(name: str) -> str:
    """Return the prompt for a class of a published data set, by CLIP's own template (Radford et al. 2021)."""
    return f"a photo of a {name}."


def optional_library(name: str, why: str, extra: str = "data") -> ModuleType:
    """Import a library that only some people need."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        msg = f"{why}, and needs {name}: pip install {name} (in a checkout, pip install '.[{extra}]')"
        raise GradeclipError(msg) from error
