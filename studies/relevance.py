"""Relevance: which part of a map lies on which object, and tensors as arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from PIL import Image
from torch import Tensor

from gradeclip_utils.explain import Explainer
from gradeclip_utils.images import model_view
from gradeclip_utils.measures.localisation import pool
from gradeclip_utils.scenes import CANVAS, IMAGE_SIZE, Scene


def as_array(tensor: Tensor) -> np.ndarray:
    """The same values in float64 on the CPU, so that sums of thousands lose nothing."""
    return tensor.detach().cpu().double().numpy()


def embedded(explainer: Explainer, texts: Sequence[str]) -> np.ndarray:
    """Unit embeddings (T, E) of prompts, in float64."""
    return as_array(explainer.embed_texts(texts))


def object_coverage(explainer: Explainer, scene: Scene, grid: tuple[int, int]) -> np.ndarray:
    """Which fraction, 0 to 1, of every token each object covers: (objects, h, w)."""
    box = _seen_box(explainer.clip.preprocess)
    return np.stack([pool(mask, grid, box) for mask in scene.masks(CANVAS)])


@lru_cache(maxsize=4)
def _seen_box(preprocess: Callable) -> tuple[float, float, float, float]:
    """What a model sees of a scene, in pixels of its masks; all scenes have one size."""
    box = model_view(preprocess, Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE))).box
    left, upper, right, lower = (side * CANVAS / IMAGE_SIZE for side in box)
    return left, upper, right, lower


def fraction_on_first(map_: np.ndarray, coverage: np.ndarray) -> float:
    """Of a map's positive relevance on all objects, the fraction on the first, 0 to 1."""
    on_objects = (np.maximum(map_, 0) * coverage).sum((1, 2))
    return float(on_objects[0] / on_objects.sum()) if on_objects.any() else 1 / len(coverage)
