"""Maps of many methods: an image is traced once for all of them that go through the same layers of the model.

    images, directions --trace, shared--> method after method -> maps -> measures

For quick methods, of which most read the last layer, the trace is most of what a map costs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import cast

import numpy as np
from PIL import Image
from torch import Tensor

from ..checks import hint, listed
from ..encoders import IMAGES_AT_ONCE
from ..errors import GradeclipError
from ..explain import Explainer, ImageLike
from ..images import onto_image
from ..methods import METHODS, Method
from ..models import Clip
from ..notices import heard_by, warn
from ..scenes import CANVAS
from ..towers import Tower, Trace
from ..towers.remembering import RememberingTower


def possible() -> list[str]:
    """Names of the methods that have a map of the image."""
    return [name for name, method in METHODS.items() if method.image is not None]


def method_names(methods: str | Sequence[str], clip: Clip | None = None, resolution: str = "model") -> tuple[str, ...]:
    """The names that were asked for; unknown ones are refused with the nearest."""
    known, every = possible(), isinstance(methods, str) and methods == "all"
    asked = known if every else listed("methods", methods, (str,))
    names = tuple(dict.fromkeys(name if isinstance(name, str) else repr(name) for name in asked))
    for name in names:
        if name not in known:
            msg = f"{name!r} is no method that explains images: {hint(name, known)}"
            raise GradeclipError(msg)
    if not names:
        raise GradeclipError(f"no method was given: choose from {', '.join(known)}")
    return available(clip, names, resolution) if every and clip is not None else names


def available(clip: Clip, names: Sequence[str], resolution: str = "model") -> tuple[str, ...]:
    """Those of several methods that a model can have; a warning names the others, and why it cannot."""
    found, refused, refusals = [], dict[str, list[str]](), []
    for name in names:
        try:
            with heard_by(lambda note: None):
                explainer = Explainer(clip, method=name, resolution=resolution)
                explainer.image_tower = cast(Tower, _Trial(explainer.image_tower))
                explainer.explain(Image.effect_noise(_TRIED, 64), "a")
        except _Begun:
            pass
        except GradeclipError as refusal:
            reason = re.split("[,;] got ", str(refusal.__cause__ or refusal))[0]
            refused.setdefault(reason, []).append(name)
            refusals.append(refusal)
            continue
        found.append(name)
    if not found:
        raise refusals[0]
    if refused:
        others = "; ".join(f"{', '.join(some)} ({reason})" for reason, some in refused.items())
        warn(f"left out are methods that the model {clip.name!r} cannot have: {others}")
    return tuple(found)


_TRIED = (160, 96)  # pixels of an image that is no model's own size, and small at native resolution


class _Begun(Exception):
    """A method has not refused a model, and begins the passes that it costs."""


class _Trial(RememberingTower):
    """A tower with which no method comes further than to its first pass beyond the trace."""

    def __getattr__(self, name: str):
        if name in ("forward", "embed_pixels", "resume"):
            raise _Begun
        return super().__getattr__(name)

    def trace(self, inputs: Tensor, graph: bool = False) -> Trace:
        """The tower's trace of `inputs`, once."""
        if self._memory:
            raise _Begun
        return super().trace(inputs, graph)


def method_maps(
    clip: Clip, names: Sequence[str | Method], images: Sequence[ImageLike], directions: Tensor
) -> dict[str | Method, np.ndarray]:
    """Signed maps of every image by every method: what `Explainer(clip, method=name).maps` gives, in less time."""
    explainers, towers = {name: Explainer(clip, method=name) for name in names}, {}
    for explainer in explainers.values():
        key = type(explainer.image_tower), explainer.image_tower.layers
        explainer.image_tower = towers.setdefault(key, RememberingTower(explainer.image_tower))
    found: dict[str | Method, list[np.ndarray]] = {name: [] for name in names}
    for start in range(0, len(images), IMAGES_AT_ONCE):
        some = slice(start, start + IMAGES_AT_ONCE)
        for name, explainer in explainers.items():
            found[name].append(explainer.maps(images[some], directions[some]).float().cpu().numpy())
    return {name: np.concatenate(parts) for name, parts in found.items()}


def on_canvas(map_: np.ndarray, box: tuple[float, ...], image: Image.Image) -> np.ndarray:
    """A map (h, w) of what the model saw in `box` of the image of a scene, as a heat map (96, 96)."""
    left, top, right, bottom = (side * CANVAS / image.width for side in box)
    return onto_image(map_, (left, top, right, bottom), (CANVAS, CANVAS))
