"""Relevance: which part of a map lies on which object, which objects a model knows, and tensors as arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np
from PIL import Image
from torch import Tensor

from gradeclip_utils.explain import Explainer
from gradeclip_utils.images import model_view
from gradeclip_utils.measures.localisation import pool
from gradeclip_utils.scenes import CANVAS, IMAGE_SIZE, Scene, arrange, concepts, phrase

from .pairs import images_of

Drawn = TypeVar("Drawn")


def as_array(tensor: Tensor) -> np.ndarray:
    """The same values in float64 on the CPU, so that sums of thousands lose nothing."""
    return tensor.detach().cpu().double().numpy()


def embedded(explainer: Explainer, texts: Sequence[str]) -> np.ndarray:
    """Unit embeddings (T, E) of prompts, in float64."""
    return as_array(explainer.embed_texts(texts))


def recognised_alone(explainer: Explainer, scenes: Sequence[Scene]) -> np.ndarray:
    """Which scenes (S,) show things that are each recognised: its noun is among the five most similar of all."""
    nouns = list(concepts().index)
    alone = [[arrange([thing], background=scene.background) for thing in scene.objects] for scene in scenes]
    once = list(dict.fromkeys(one for things in alone for one in things))  # many scenes share a thing
    seen = as_array(explainer.embed_images(images_of(explainer.clip, once)))
    best = (-seen @ embedded(explainer, [phrase(noun) for noun in nouns]).T).argsort(1)[:, :5]
    right = {one: one.objects[0].noun in {nouns[i] for i in five} for one, five in zip(once, best, strict=True)}
    return np.array([all(right[one] for one in things) for things in alone])


def choose_recognised(
    drawn: Sequence[Drawn], scenes_of: Callable[[Drawn], Sequence[Scene]], most: int, *explainers: Explainer
) -> tuple[list[Drawn], np.ndarray]:
    """The first of what was drawn whose things are all recognised alone; of models that know few, the first of any."""
    known = np.array([], bool)
    while known.sum() < most and len(known) < len(drawn):
        some = [scenes_of(one) for one in drawn[len(known) :][: 2 * (most - known.sum())]]
        right = np.ones(len(some), bool)
        for explainer in explainers:  # each is asked for what those before it recognise
            asked = [(i, scene) for i in np.flatnonzero(right) for scene in some[i]]
            found = recognised_alone(explainer, [scene for _, scene in asked]) if asked else ()
            right[[i for (i, _), is_known in zip(asked, found, strict=True) if not is_known]] = False
        known = np.append(known, right)
    known = known[: known.cumsum().searchsorted(most) + 1]
    few = known.sum() < max(2, most // 4)
    return [one for one, is_known in zip(drawn, known, strict=False) if is_known or few][:most], known


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
