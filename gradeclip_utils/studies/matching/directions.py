"""Directions: prompts as vectors, and the maps of any vectors. What the studies ask of many pictures at once.

    prompts -> text tower -> directions --image tower, Grad-ECLIP--> maps on the token grid -> shares of things

`Explainer` explains one prompt beside its picture. A study adds and subtracts prompts before it draws a map, so here
embeddings stay vectors (float64, so that sums of thousands lose nothing), and a map is linear in its direction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from PIL import Image

from ...evaluation.localisation import pool
from ...explain import Explainer, isolated_torch_state
from ...images import model_view
from ...methods.grad_eclip import grad_eclip
from ...methods.interactions import word_directions, word_members
from ...scenes import PICTURE, Scene
from ...words import split_read

_PROMPTS, _PICTURES = 64, 16  # in one batch
_SIDE = 96  # pixels of a mask's sides


def embed(explainer: Explainer, texts: Sequence[str]) -> np.ndarray:
    """Unit embeddings (T, E) of prompts, float64, by the model's own text tower.

    Raises UnsupportedModel if that tower cannot be opened.
    """
    tower = explainer.text_tower
    if tower is None:
        raise explainer.text_refusal
    found = []
    with isolated_torch_state(tower.device):
        for start in range(0, len(texts), _PROMPTS):
            ids = explainer.clip.tokenizer(list(texts[start : start + _PROMPTS])).to(tower.device)
            found.append(tower.trace(ids).embedding.double().cpu())  # a trace reads no padding, and so is quicker
    return torch.cat(found).numpy()


def look(explainer: Explainer, pictures: Sequence) -> np.ndarray:
    """Unit embeddings (P, E) of pictures, float64."""
    tower, found = explainer.image_tower, []
    with isolated_torch_state(tower.device):
        for start in range(0, len(pictures), _PICTURES):
            pixels = torch.stack([explainer.clip.preprocess(one) for one in pictures[start : start + _PICTURES]])
            found.append(tower.forward(pixels.to(tower.device)).double().cpu())
    return torch.cat(found).numpy()


def words_of(explainer: Explainer, caption: str) -> np.ndarray:
    """The directions (W, E) in which the words of a caption push its embedding."""
    tower, tokenizer = explainer.text_tower, explainer.clip.tokenizer
    with isolated_torch_state(tower.device):
        trace = tower.trace(tokenizer([caption]).to(tower.device))
        members = word_members(split_read(caption, tokenizer, tower).owners, trace)
        return word_directions(tower, trace, members).double().cpu().numpy()


def maps_of(explainer: Explainer, pictures: Sequence, directions: np.ndarray) -> np.ndarray:
    """Signed maps (B, T, h, w), float64, of B pictures for the directions (B, T, E), which keep their length."""
    tower, found = explainer.image_tower, []
    for start in range(0, len(pictures), _PICTURES):
        some = slice(start, start + _PICTURES)
        pixels = torch.stack([model_view(explainer.clip.preprocess, picture).pixels for picture in pictures[some]])
        with isolated_torch_state(tower.device):
            trace = tower.trace(pixels.to(tower.device))
            maps = grad_eclip(tower, trace, torch.tensor(directions[some]).to(trace.embedding))
        height, width = trace.grid
        found.append(maps[..., -height * width :].unflatten(-1, trace.grid).double().cpu().numpy())
    return np.concatenate(found)


def regions(explainer: Explainer, scene: Scene, grid: tuple[int, int]) -> np.ndarray:
    """Which share of every token each object covers: (objects, h, w), 0 to 1."""
    return np.stack([pool(mask, grid, _box(explainer.clip.preprocess)) for mask in scene.masks(_SIDE)])


@lru_cache(maxsize=4)
def _box(preprocess: Callable) -> tuple[float, ...]:
    """What a model sees of a scene, in pixels of its masks; all scenes have one size."""
    box = model_view(preprocess, Image.new("RGB", (PICTURE, PICTURE))).box
    return tuple(side * _SIDE / PICTURE for side in box)


def share_on_first(map_: np.ndarray, covered: np.ndarray) -> float:
    """Of the positive relevance on all things, covered (objects, h, w), the share on the first; alike if there is none.

    >>> share_on_first(np.array([[3.0, 1.0, -5.0]]), np.eye(3)[:, None])
    0.75
    """
    on_things = (np.maximum(map_, 0) * covered).sum((1, 2))
    return float(on_things[0] / on_things.sum()) if on_things.any() else 1 / len(covered)
