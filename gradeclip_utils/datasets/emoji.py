"""Emoji scenes as examples: drawn here, with exact masks and no network."""

from __future__ import annotations

from functools import partial

import numpy as np

from ..checks import chosen, whole
from ..scenes import SPLITS, Scene, describe, draw_scene
from .example import Example

_MOST = 100_000  # scenes: all of them are held


def emoji_scenes(split: str, n: int, *, n_objects: int | None = None) -> list[Example]:
    """Draw `n` emoji scenes of a split, always the same ones, each with a question about one of its things.

    The thing is drawn from those in the scene, the prompt is its name as a caption would say it ("a red car", "two
    owls"), and the mask is exact.

    Args:
        split: one of `scenes.SPLITS`.
        n: how many scenes.
        n_objects: 1 to 4 in each; as `draw_scene` by default.

    Raises:
        GradeclipError: a split that does not exist, no scenes, or more than 100,000.
    """
    split, n = chosen("split", split, SPLITS), whole("the number of scenes", n, 1, _MOST)
    if n_objects is not None:
        whole("n_objects", n_objects, 1, 4)
    scenes = (draw_scene([50, n_objects or 0, i], split=split, n_objects=n_objects) for i in range(n))
    return [_asked(f"{split}/{i}", scene, i) for i, scene in enumerate(scenes)]


def _asked(key: str, scene: Scene, i: int) -> Example:
    """Return the question about scene number i."""
    asked = scene.objects[np.random.default_rng([51, i]).integers(len(scene.objects))]
    members = [k for k, thing in enumerate(scene.objects) if thing.noun == asked.noun]
    present = tuple(dict.fromkeys(thing.noun for thing in scene.objects))
    prompt = describe([scene.objects[k] for k in members])[0]
    return Example(key, prompt, asked.noun, scene.caption, present, scene.image, partial(_mask, scene, members))


def _mask(scene: Scene, members: list[int]) -> np.ndarray:
    return np.asarray(scene.masks()[members].any(axis=0))
