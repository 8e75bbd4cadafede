"""Example: one question about one picture, with the truth where it is known. What every data set is made of.

    data set -> Example: picture, prompt, mask -> Explainer -> map -> evaluation

What the files of data sets have in common when they are read is here as well: what is missing is named, with the page
that has it.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

from ..images import read_image


@dataclass(frozen=True, eq=False)
class Example:
    """One question about one picture: where is what the prompt names?

    Attributes:
        key: its name, unique in the data set.
        prompt: what to look for, as it is given to the model.
        concept: what the prompt is about; examples of one concept are alike, and intervals treat them as a cluster.
        caption: the picture's own caption, where it has one.
        present: every concept that is known to be in the picture, `concept` among them.
    """

    key: str
    prompt: str
    concept: str
    caption: str
    present: tuple[str, ...]
    _picture: Callable[[], Image.Image]
    _truth: Callable[[], np.ndarray] | None = None

    def image(self) -> Image.Image:
        """The picture, upright RGB, read now.

        Raises FileNotFoundError if the file is not there, ValueError if it is not a picture.
        """
        return self._picture()

    def mask(self) -> np.ndarray | None:
        """Which pixels show what the prompt names, (H, W) bool, read now; None where the data set does not say.

        Raises FileNotFoundError if the file is not there, ValueError if it does not fit the picture.
        """
        return None if self._truth is None else self._truth()

    @property
    def has_mask(self) -> bool:
        """Whether the data set says where the prompt's object is."""
        return self._truth is not None


def fitting(mask: np.ndarray, file: Path, picture: Path) -> np.ndarray:
    """The mask, if it has the size of its picture; ValueError, with both sizes, if not."""
    size = read_image(picture).size
    if mask.shape != size[::-1]:
        raise ValueError(f"{file} is {mask.shape[1]} x {mask.shape[0]} pixels, its picture {size[0]} x {size[1]}")
    return mask


def needed(path: str | Path, what: str, source: str) -> Path:
    """The path, if something is there; FileNotFoundError, with what it should be and where to get it, if not."""
    if not Path(path).exists():
        raise FileNotFoundError(f"{path} is missing: {what}. Get it from {source}")
    return Path(path)


def not_empty(examples: list[Example], otherwise: str) -> list[Example]:
    """The examples, if there are any; ValueError with `otherwise` if not."""
    if not examples:
        raise ValueError(otherwise)
    return examples


def read_json(path: Path, source: str):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON, or is cut short ({error}): get it from {source}") from error


def photo_prompt(name: str) -> str:
    """What is asked for a class of a published data set."""
    return f"a photo of a {name}."  # CLIP's own template (Radford et al. 2021)


def optional_library(name: str, why: str, extra: str = "data") -> ModuleType:
    """A library that only some people need; ImportError, with why and the way to get it, if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{why}, and needs {name}: pip install 'gradeclip[{extra}]'") from error
