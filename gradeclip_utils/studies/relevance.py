"""Relevance: which part of a map lies on which object of a scene, and tensors as the arrays that studies count with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from PIL import Image
from torch import Tensor

from ..evaluation.localisation import pool
from ..explain import Explainer
from ..images import model_view
from ..scenes import CANVAS, IMAGE_SIZE, Scene


def as_array(tensor: Tensor) -> np.ndarray:
    """The same values in float64 on the CPU, so that sums of thousands lose nothing."""
    return tensor.detach().cpu().double().numpy()


def embedded(explainer: Explainer, texts: Sequence[str]) -> np.ndarray:
    """Unit embeddings (T, E) of T prompts."""
    return as_array(explainer.embed_texts(texts))


def object_coverage(explainer: Explainer, scene: Scene, grid: tuple[int, int]) -> np.ndarray:
    """Which fraction, 0 to 1, of every token each object covers: (objects, h, w).

    Args:
        explainer: says which part of an image its model sees.
        scene: objects with known masks.
        grid: (h, w) of the map.
    """
    box = _seen_box(explainer.clip.preprocess)
    return np.stack([pool(mask, grid, box) for mask in scene.masks(CANVAS)])


@lru_cache(maxsize=4)
def _seen_box(preprocess: Callable) -> tuple[float, float, float, float]:
    """What a model sees of a scene, in pixels of its masks; all scenes have one size."""
    box = model_view(preprocess, Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE))).box
    left, upper, right, lower = (side * CANVAS / IMAGE_SIZE for side in box)
    return left, upper, right, lower


def fraction_on_first(map_: np.ndarray, coverage: np.ndarray) -> float:
    """Of the positive relevance of a map (h, w) on all objects (`object_coverage`), the fraction on the first, 0 to 1.

    One part in so many objects where there is no positive relevance on any.

    >>> fraction_on_first(np.array([[3.0, 1.0, -5.0]]), np.eye(3)[:, None])
    0.75
    """
    on_objects = (np.maximum(map_, 0) * coverage).sum((1, 2))
    return float(on_objects[0] / on_objects.sum()) if on_objects.any() else 1 / len(coverage)
