"""Maps of many methods: an image is traced once for all of them that go through the same layers of the model.

    images, directions --trace, shared--> method after method -> maps -> measures

For quick methods, of which most read the last layer, the trace is most of what a map costs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..encoders import IMAGES_AT_ONCE
from ..explain import Explainer, ImageLike
from ..methods import Method
from ..models import Clip
from ..towers import Tower, Trace


class _Remembering:
    """A tower that does not trace the same batch twice in a row."""

    def __init__(self, tower: Tower):
        self._tower = tower
        self._last: Trace | None = None

    def __getattr__(self, name: str):
        return getattr(self._tower, name)

    def trace(self, inputs: Tensor, graph: bool = False) -> Trace:
        """The tower's trace of `inputs`."""
        last = self._last
        if last is None or not torch.equal(last.inputs, inputs) or (graph and last.graph is None):
            self._last = last = self._tower.trace(inputs, graph)
        return last


def method_maps(
    clip: Clip, names: Sequence[str | Method], images: Sequence[ImageLike], directions: Tensor, *, seed: int = 0
) -> dict[str | Method, np.ndarray]:
    """Signed maps of every image by every method: what `Explainer(clip, method=name).maps` gives, in less time.

        texts = Explainer(clip).embed_texts(prompts)
        maps = method_maps(clip, ["grad-eclip", "maskclip"], images, texts[:, None])["maskclip"]  # (N, 1, h, w)

    Args:
        clip: the model.
        names: of methods that explain images, or such methods.
        images: N images, as for `Explainer.explain`.
        directions: (N, M, E), each image's own.
        seed: of methods that draw.

    Returns:
        For each method maps (N, M, h, w) on the token grid, in the order of `names`.

    Raises:
        ValueError: as `Explainer` and its `maps`.
    """
    explainers, towers = {name: Explainer(clip, method=name, seed=seed) for name in names}, {}
    for explainer in explainers.values():
        key = type(explainer.image_tower), explainer.image_tower.layers
        explainer.image_tower = towers.setdefault(key, _Remembering(explainer.image_tower))
    found: dict[str | Method, list[np.ndarray]] = {name: [] for name in names}
    for start in range(0, len(images), IMAGES_AT_ONCE):
        some = slice(start, start + IMAGES_AT_ONCE)
        for name, explainer in explainers.items():
            found[name].append(explainer.maps(images[some], directions[some]).float().cpu().numpy())
    return {name: np.concatenate(parts) for name, parts in found.items()}
