"""Example: one question about one image, with a mask if the data set has one.

data set -> Example: image, prompt, mask -> Explainer -> map -> evaluation
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..checks import finite, listed, short, text
from ..errors import GradeclipError


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
                msg = f"{name} of an example holds half of a character: {short(value)}; decode it as UTF-8"
                raise GradeclipError(msg)
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
            msg = f"the mask of {self.key!r} is empty: there is no object to find; leave the example out"
            raise GradeclipError(msg)
        return found.astype(bool, copy=False)

    @property
    def has_mask(self) -> bool:
        """Whether the data set has a mask of this example."""
        return self.load_mask is not None
