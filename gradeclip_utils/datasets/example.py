"""Example: one question about one image, with a mask if the data set has one.

data set -> Example: image, prompt, mask -> Explainer -> map -> evaluation
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import GradeclipError
from ..images import read_image


@dataclass(frozen=True, eq=False)
class Example:
    """One question about one image: where is what the prompt names?

    Attributes:
        key: its name, unique in the data set.
        prompt: the text that the model gets.
        concept: what the prompt is about; examples of one concept are alike, and intervals treat
            them as a cluster.
        caption: the image's own caption, if it has one, or "".
        present: every concept that is known to be in the image, `concept` among them.
        image: a function that reads the image; called whenever it is needed, also in another
            process.
        load_mask: a function that reads the mask, (H, W) bool; None if the data set has none.
    """

    key: str
    prompt: str
    concept: str
    caption: str
    present: tuple[str, ...]
    image: Callable[[], Image.Image]
    load_mask: Callable[[], np.ndarray] | None = None

    @property
    def has_mask(self) -> bool:
        """Whether the data set has a mask of this example."""
        return self.load_mask is not None

    def mask(self) -> np.ndarray | None:
        """Read the pixels that show what the prompt names, (H, W) bool; None without a mask."""
        if self.load_mask is None:
            return None
        return np.asarray(self.load_mask(), dtype=bool)

    def read(self) -> tuple[Image.Image, np.ndarray | None]:
        """Read image and mask.

        Raises:
            GradeclipError: a file cannot be read, the mask does not fit the image, or it is empty.
        """
        try:
            image = read_image(self.image())
            mask = self.mask()
        except (OSError, GradeclipError) as error:
            raise GradeclipError(f"{self.key!r} cannot be read: {error}") from error
        if mask is not None:
            size = image.size[::-1]
            if mask.shape != size:
                msg = f"{self.key!r} has a mask of {mask.shape} and an image of {size} pixels"
                raise GradeclipError(f"{msg}: resize the mask")
            if not mask.any():
                raise GradeclipError(f"the mask of {self.key!r} is empty: leave the example out")
        return image, mask


def read_json(file: Path, source: str) -> Any:
    """Read a JSON file, or one of JSON lines as a list; a refusal says where to get it."""
    if not file.exists():
        raise GradeclipError(f"{file} is missing: get it from {source}")
    content = file.read_text(encoding="utf-8")
    try:
        if file.suffix == ".jsonl":
            return [json.loads(line) for line in content.splitlines()]
        return json.loads(content)
    except json.JSONDecodeError as error:
        msg = f"{file} is not JSON, or is cut short ({error}): get it from {source}"
        raise GradeclipError(msg) from error
