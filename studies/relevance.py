"""Relevance: which part of a map lies on which object, and tensors as arrays."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gradeclip_utils import Explainer
from gradeclip_utils.images import model_view, onto_image, pool
from gradeclip_utils.measures.localisation import as_levels
from gradeclip_utils.methods import Method
from gradeclip_utils.methods.grad_eclip import (
    attention_gradient,
    channel_weights,
    spatial_weights,
)
from gradeclip_utils.models import Clip
from gradeclip_utils.scenes import CANVAS, IMAGE_SIZE, Scene
from gradeclip_utils.words import Split

AT_ONCE = 16  # images in one batch


def as_array(tensor: Tensor) -> np.ndarray:
    """The same values in float64 on the CPU, so that sums of thousands lose nothing."""
    return tensor.detach().cpu().double().numpy()


def embedded(explainer: Explainer, texts: Sequence[str]) -> np.ndarray:
    """Unit embeddings (T, E) of prompts, in float64."""
    return as_array(explainer.embed_texts(texts))


def null_mean(explainer: Explainer) -> Tensor:
    """The mean embedding (E,) of the null captions, which many prompts are compared with.

    A prompt's embedding less this mean is the direction of its lead over other captions.
    """
    return explainer.embed_texts(explainer.null_captions).mean(0)


def direction_of(split: Split, directions: Tensor, start: int, end: int) -> Tensor:
    """The direction (E,) of a part of a caption, the sum of those (W, E) of its words."""
    words = []
    for i, (word_start, word_end) in enumerate(split.spans):
        if word_start < end and start < word_end:
            words.append(i)
    return directions[words].sum(0)


# ------------------------------------------------------------------------------------ many methods


def maps_by(
    explainers: Mapping[str, Explainer],
    images: Sequence[Image.Image],
    directions: Tensor,
) -> dict[str, np.ndarray]:
    """Signed maps (B, T, h, w) by several explainers, each target asked for by itself.

    Explainers of the same model and layers trace an image once between them: most of their time
    goes into that.
    """
    groups: dict[tuple[int, int], list[str]] = {}  # by model and number of layers
    for title, explainer in explainers.items():
        group = id(explainer.clip.model), explainer.image_tower.layers
        groups.setdefault(group, []).append(title)

    maps: dict[str, np.ndarray] = {}
    for (_, layers), titles in groups.items():
        clip = explainers[titles[0]].clip
        sharing = Explainer(clip, image_layers=layers, keep_trace=True)
        methods = [explainers[title].method for title in titles]

        batches = [
            _maps_of_batch(sharing, methods, images[batch], directions[batch])
            for batch in batches_of(images)
        ]
        for title, method in zip(titles, methods, strict=True):
            maps[title] = np.concatenate([by_method[method.name] for by_method in batches])
    return {title: maps[title] for title in explainers}


def batches_of(images: Sequence) -> list[slice]:
    """The places of images that are traced together."""
    starts = range(0, len(images), AT_ONCE)
    return [slice(start, start + AT_ONCE) for start in starts]


def pixels_of(clip: Clip, images: Sequence[Image.Image]) -> Tensor:
    """What a model sees of B images, (B, 3, H, W), on its device."""
    pixels = torch.stack([model_view(clip.preprocess, image).pixels for image in images])
    return pixels.to(next(clip.model.parameters()).device)


def _maps_of_batch(
    explainer: Explainer,
    methods: Sequence[Method],
    images: Sequence[Image.Image],
    directions: Tensor,
) -> dict[str, np.ndarray]:
    """Maps (B, T, h, w) by name of the method; one that compares targets gets each by itself."""
    maps = {}
    for method in methods:
        by_method = explainer.with_method(method)
        targets_of_call = 1 if method.compares_targets else directions.shape[1]
        parts = directions.split(targets_of_call, dim=1)
        tensor = torch.cat([by_method.maps(images, part) for part in parts], dim=1)
        maps[method.name] = tensor.float().cpu().numpy()
    return maps


def layer_maps(
    clip: Clip,
    images: Sequence[Image.Image],
    directions: Tensor,
    kinds: Sequence[str] = ("loosened",),
    layers: int | None = None,
) -> dict[str, np.ndarray]:
    """What each layer adds to the map of Grad-ECLIP: (B, T, L, h, w), the last layer first.

    The cumulative sum over L is the map through the last one, two, ... layers. One trace serves all
    depths and spatial weights.

    Args:
        clip: a model whose image encoder can be explained through all its layers.
        images: B images.
        directions: (B, T, E).
        kinds: of spatial weights, as in `spatial_weights`.
        layers: L; by default all.

    Returns:
        The maps by kind.
    """
    layers = layers or Explainer(clip).image_tower.depth
    tower = Explainer(clip, image_layers=layers).image_tower
    maps: dict[str, list[np.ndarray]] = defaultdict(list)

    for batch in batches_of(images):
        trace = tower.trace(pixels_of(clip, images[batch]), graph="query_graph")
        weights = channel_weights(tower, trace, directions[batch])  # (B, T, L, R, D)

        relevances: dict[str, list[Tensor]] = defaultdict(list)
        for place in reversed(range(layers)):
            layer = trace.layers[place]
            by_target = weights[:, :, place].unbind(1)
            gradients = [attention_gradient(weight, layer.v) for weight in by_target]
            gradient = torch.stack(gradients, dim=1)  # (B, T, H, R, N)
            for kind in kinds:
                lam = spatial_weights(layer, trace.valid_mask, kind)[:, None]
                relevance = (lam * gradient).sum((2, 3))  # (B, T, N)
                relevances[kind].append(relevance)

        rows, columns = trace.grid
        for kind, parts in relevances.items():
            tokens = torch.stack(parts, dim=2)  # (B, T, L, N)
            patches = tokens[..., -rows * columns :]
            on_grid = patches.unflatten(-1, (rows, columns))
            maps[kind].append(on_grid.float().cpu().numpy())
    return {kind: np.concatenate(parts) for kind, parts in maps.items()}


# ----------------------------------------------------------------------------- one object in a map


def object_coverage(explainer: Explainer, scene: Scene, grid: tuple[int, int]) -> np.ndarray:
    """Which fraction, 0 to 1, of every token each object covers: (objects, h, w)."""
    box = seen_box(explainer.clip.preprocess)
    return np.stack([pool(mask, grid, box) for mask in scene.masks(CANVAS)])


@lru_cache(maxsize=4)
def seen_box(preprocess: Callable) -> tuple[float, float, float, float]:
    """What a model sees of a scene, in pixels of its masks; all scenes have one size."""
    grey = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE))
    view = model_view(preprocess, grey)
    box = np.array(view.box) * CANVAS / IMAGE_SIZE
    left, upper, right, lower = box.tolist()
    return left, upper, right, lower


def fraction_on_first(map_: np.ndarray, coverage: np.ndarray) -> float:
    """Of a map's positive relevance on all objects, the fraction on the first, 0 to 1."""
    positive = np.maximum(map_, 0)
    on_objects = (positive * coverage).sum(axis=(1, 2))
    if not on_objects.any():
        return 1 / len(coverage)
    return float(on_objects[0] / on_objects.sum())


def part_on(map_: np.ndarray, coverage: np.ndarray) -> float:
    """The fraction of a map's positive relevance that lies where an object covers patches, 0 to 1.

    0 for a map without a positive part.
    """
    positive = np.maximum(map_, 0)
    if not positive.any():
        return 0.0
    return float((positive * coverage).sum() / positive.sum())


class Located(NamedTuple):
    """Where a map of an image with several things lies, for one of them."""

    hit: float  # the fraction of the maximal pixels that lie on the thing: the pointing game
    on_thing: float  # the fraction of the positive relevance that lies on the thing
    on_others: float  # on other things
    on_nothing: float  # on no thing


def located(heat: np.ndarray, masks: np.ndarray) -> list[Located]:
    """Where a heat map (H, W) lies, for each of several things with masks (things, H, W) apart.

    A map without a positive part counts as constant.
    """
    values = as_levels(heat)
    masks = np.asarray(masks)
    assert masks.shape[1:] == values.shape
    assert masks.any((1, 2)).all(), "every thing is seen"
    assert masks.sum(0).max() == 1, "no pixel shows two things"

    positive = np.maximum(values, 0)
    if not positive.any():
        positive = np.ones_like(values)
    on_things = (positive * masks).sum((1, 2)) / positive.sum()  # (things,)
    total = float(on_things.sum())

    highest = values == values.max()
    hits = (highest & masks).sum((1, 2)) / highest.sum()  # (things,)

    places = []
    for hit, on_thing in zip(hits.tolist(), on_things.tolist(), strict=True):
        place = Located(
            hit=hit,
            on_thing=on_thing,
            on_others=total - on_thing,
            on_nothing=max(0.0, 1 - total),
        )
        places.append(place)
    return places


def on_canvas(map_: np.ndarray) -> np.ndarray:
    """The heat map (CANVAS, CANVAS) of a map of a whole scene, to lay on its masks."""
    return onto_image(map_, (0, 0, CANVAS, CANVAS), (CANVAS, CANVAS))


# -------------------------------------------------------------------------------- many maps at once


def on_own(maps: np.ndarray, masks: Sequence[np.ndarray]) -> np.ndarray:
    """How much of the map of each thing (N, T, h, w) lies on it, on other things and on nothing.

    Masks are those of a scene on its canvas. (N, T, 3).
    """
    fractions = []
    for scene_maps, things in zip(maps, masks, strict=True):
        for i, map_ in enumerate(scene_maps):
            place = located(on_canvas(map_), things)[i]
            fractions.append([place.on_thing, place.on_others, place.on_nothing])
    return np.reshape(fractions, (*maps.shape[:2], 3))


def on_highest(maps: np.ndarray) -> np.ndarray:
    """How much of the positive relevance of maps (N, T, h, w) a twelfth of the patches holds.

    (N,), the mean of a scene. A map without a positive part counts as constant.
    """
    positive = np.maximum(maps, 0)
    positive = positive.reshape(*maps.shape[:2], -1)  # (N, T, patches)
    is_empty = ~positive.any(axis=-1, keepdims=True)
    positive = np.where(is_empty, 1, positive)

    rising = np.sort(positive)
    count = round(rising.shape[-1] / 12)
    highest = rising[..., -count:]
    fractions = highest.sum(axis=-1) / rising.sum(axis=-1)  # (N, T)
    return fractions.mean(axis=1)
