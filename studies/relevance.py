"""Relevance: which part of a map lies on which object, and tensors as arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gradeclip_utils.explainer import Explainer
from gradeclip_utils.images import model_view, onto_image, pool
from gradeclip_utils.measures.localisation import levelled
from gradeclip_utils.runtime import remembering
from gradeclip_utils.scenes import CANVAS, IMAGE_SIZE, Scene
from gradeclip_utils.words import Split

AT_ONCE = 16  # images in one batch


def as_array(tensor: Tensor) -> np.ndarray:
    """The same values in float64 on the CPU, so that sums of thousands lose nothing."""
    return tensor.detach().cpu().double().numpy()


def embedded(explainer: Explainer, texts: Sequence[str]) -> np.ndarray:
    """Unit embeddings (T, E) of prompts, in float64."""
    return as_array(explainer.embed_texts(texts))


def maps_by(
    explainers: Mapping[str, Explainer], images: Sequence[Image.Image], directions: Tensor
) -> dict[str, np.ndarray]:
    """Signed maps (B, T, h, w) by several explainers of one model, each target asked for by itself.

    Explainers of the same layers trace an image once between them: most of their time goes into
    that.
    """
    towers, found = {}, {name: [] for name in explainers}
    for one in explainers.values():
        one.image_tower = towers.setdefault(
            (type(one.image_tower), one.image_tower.layers), one.image_tower
        )
        vars(one.image_tower).setdefault("trace", remembering(one.image_tower.trace))
    for some in (slice(start, start + AT_ONCE) for start in range(0, len(images), AT_ONCE)):
        for name, one in explainers.items():
            together = (
                1 if one.method.compares_targets else directions.shape[1]
            )  # such a method compares targets of a call
            maps = [
                one.maps(images[some], asked) for asked in directions[some].split(together, dim=1)
            ]
            found[name].append(torch.cat(maps, dim=1).float().cpu().numpy())
    return {name: np.concatenate(parts) for name, parts in found.items()}


def direction_of(split: Split, directions: Tensor, start: int, end: int) -> Tensor:
    """The direction (E,) of characters `start` to `end` of a caption, the sum of those (W, E) of its words."""
    own = [i for i, (first, last) in enumerate(split.spans) if first < end and start < last]
    return directions[own].sum(0)


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


class Located(NamedTuple):
    """Where a map of an image with several things lies, for one of them."""

    hit: float  # the fraction of the maximal pixels that lie on the thing: the pointing game
    on_thing: float  # the fraction of the positive relevance that lies on the thing
    on_others: float  # on other things
    on_nothing: float  # on no thing


def located(heat: np.ndarray, masks: np.ndarray) -> list[Located]:
    """Where a heat map (H, W) lies, for each of several things whose masks (things, H, W) do not overlap.

    A map without a positive part counts as constant.
    """
    masks, values = np.asarray(masks), levelled(heat)
    assert masks.shape[1:] == values.shape and masks.any((1, 2)).all() and masks.sum(0).max() == 1
    positive = np.maximum(values, 0) if (values > 0).any() else np.ones_like(values)
    highest = values == values.max()
    on = (positive * masks).sum((1, 2)) / positive.sum()
    hits = (highest & masks).sum((1, 2)) / highest.sum()
    nothing = max(0.0, 1 - float(on.sum()))
    return [
        Located(float(hit), float(own), float(on.sum() - own), nothing)
        for hit, own in zip(hits, on, strict=True)
    ]


def on_own(maps: np.ndarray, masks: Sequence[np.ndarray]) -> np.ndarray:
    """How much of the map of each thing (N, T, h, w) lies on it, on other things and on nothing: (N, T, 3)."""
    height, width = masks[0].shape[1:]
    whole = (0, 0, width, height), (width, height)
    return np.array(
        [
            [located(onto_image(one, *whole), things)[i][1:] for i, one in enumerate(own)]
            for own, things in zip(maps, masks, strict=True)
        ]
    )


def on_highest(maps: np.ndarray, part: float = 1 / 12) -> np.ndarray:
    """How much of the positive relevance of maps (N, T, h, w) this part of the patches holds, mean of a scene: (N,).

    A map without a positive part counts as constant.
    """
    values = np.maximum(maps, 0).reshape(*maps.shape[:2], -1)
    values = np.sort(np.where(values.any(-1, keepdims=True), values, 1))
    return (values[..., -round(part * values.shape[-1]) :].sum(-1) / values.sum(-1)).mean(1)
