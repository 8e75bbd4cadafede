"""Example: one question about one image, with a mask if the data set has one.

data set -> Example: image, prompt, mask -> Explainer -> map -> evaluation
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..checks import as_path, finite, instance, listed, readable, short, text
from ..errors import GradeclipError, first_line
from ..images import read_image


@dataclass(frozen=True, eq=False)
class Example:
    """One question about one image: where is what the prompt names?

    Attributes:
        key: its name, unique in the data set.
        prompt: what to look for, as it is given to the model.
        concept: what the prompt is about; examples of one concept are alike, and intervals treat
            them as a cluster.
        caption: the image's own caption, where it has one.
        present: every concept that is known to be in the image, `concept` among them.
        image: a function that reads the image; called whenever it is needed, also in another
            process.
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
                msg = f"{name} of an example holds half of a character: {short(value)}; decode it as UTF-8"
                raise GradeclipError(msg)
        present = listed("present of an example", self.present, (str,))
        object.__setattr__(self, "present", tuple(text("each of present", one) for one in present))
        instance("image of an example", self.image, Callable, "a function that reads it")
        if self.load_mask is not None:
            instance(
                "load_mask of an example", self.load_mask, Callable, "a function that reads it"
            )

    def mask(self) -> np.ndarray | None:
        """Read the pixels that show what the prompt names, (H, W) bool; None if the data set has no mask.

        Raises:
            GradeclipError: the file is not there or does not fit the image, or the mask is not of
                True and False.
        """
        return (
            None
            if self.load_mask is None
            else as_mask(f"the mask of {self.key!r}", self.load_mask())
        )

    @property
    def has_mask(self) -> bool:
        """Whether the data set has a mask of this example."""
        return self.load_mask is not None

    def read(self) -> tuple[Image.Image, np.ndarray | None]:
        """Read image and mask; a refusal names the example, also where a function of one's own finds no file."""
        try:
            image, mask = read_image(self.image()), self.mask()
            if mask is not None and mask.shape != image.size[::-1]:
                raise GradeclipError(
                    f"its mask is {mask.shape}, and its image {image.size[::-1]} (rows, columns)"
                )
            return image, mask
        except (OSError, GradeclipError) as error:
            raise GradeclipError(f"{self.key!r} cannot be read: {first_line(error)}") from error


def as_mask(what: str, values: Any) -> np.ndarray:
    """Return a mask as (H, W) bool, if it is of True and False, or 1 and 0, and not empty."""
    found = finite(what, values)
    if found.ndim != 2 or (found.dtype != bool and not np.isin(found, (0, 1)).all()):
        raise GradeclipError(
            f"{what} must be (H, W) of True and False, got {found.dtype} of shape {found.shape}"
        )
    if not found.any():
        raise GradeclipError(
            f"{what} is empty: there is no object to find; leave it out, and say how many"
        )
    return found.astype(bool, copy=False)


def read_json(file: Path, source: str) -> Any:
    """Read a JSON file, or one of JSON lines as a list; a refusal says where to get it."""
    if not as_path(file, "a file").exists():
        raise GradeclipError(f"{file} is missing: get it from {source}")
    with in_form(readable(file, "a file"), "JSON", source):
        content = file.read_text(encoding="utf-8")
        return (
            [json.loads(line) for line in content.splitlines()]
            if file.suffix == ".jsonl"
            else json.loads(content)
        )


@contextmanager
def in_form(file: Path, form: str, source: str) -> Iterator[None]:
    """Turn errors about what a file holds into one sentence that names the file."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError, OSError) as error:
        if isinstance(error, GradeclipError):
            raise
        said = first_line(error)
        raise GradeclipError(
            f"{file} is not {form}, or is cut short ({said}): get it from {source}"
        ) from error


def not_empty(found: list, file: Path, source: str) -> list:
    """Return what was found in a file, if it is anything."""
    if not found:
        raise GradeclipError(f"{file} holds no examples: get it from {source}")
    return found
