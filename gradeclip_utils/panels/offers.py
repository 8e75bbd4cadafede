"""Scenes: which scenes the explorer offers, by a rule on what the model's maps do.

model, development scenes -> maps of "a X" -> where their maxima lie -> explorer
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from torch import nn

from ..errors import GradeclipError
from ..explain import Explainer
from ..models import Clip
from ..notices import heard_by
from ..scenes import CANVAS, Scene, draw_scene
from .state import Source, as_source
from .verdict import at_maximum

_SEEDS = 5  # scenes of each number of things that are looked at
_FAILURES = 2
_NUMBERS = {1: "one thing", 2: "two things", 3: "three things", 4: "four things"}
RULE = (
    f"Of the first {_SEEDS} development scenes of one, two, three and four things each: the first in which the map of "
    "every “a X” has its maximum on X (if there is none, the first). Then, under a dashed line, two in which a map "
    "misses. The panel opens with the one of two things."
)


class Offer(NamedTuple):
    """A scene to choose, what its maps do, and whether one of them misses."""

    source: Source
    note: str
    failure: bool


_offered: WeakKeyDictionary[nn.Module, tuple[Offer, ...]] = WeakKeyDictionary()


def offers(clip: Clip) -> tuple[Offer, ...]:
    """The scenes that `RULE` chooses with a model, measured once."""
    if clip.model not in _offered:
        _offered[clip.model] = _chosen(clip)
    return _offered[clip.model]


@cache
def _scene(count: int, seed: int) -> Scene:
    return draw_scene(seed, split="development", n_objects=count, plain=True)


@cache
def _source(count: int, seed: int) -> Source:
    code = f'image = draw_scene({seed}, split="development", n_objects={count}, plain=True).image()'
    return as_source(_scene(count, seed), f"scene {seed} of {_NUMBERS[count]}", code)


def missed(scene: Scene, maps: np.ndarray) -> list[str]:
    """The nouns of a scene of M things whose map of "a X", of (M, h, w), has its maximum elsewhere."""
    nouns = np.array([thing.noun for thing in scene.objects])
    pairs = zip(nouns.tolist(), maps, strict=True)
    wrong = [noun for noun, map_ in pairs if not at_maximum(scene, map_)[nouns == noun].any()]
    return list(dict.fromkeys(wrong))


def _chosen(clip: Clip) -> tuple[Offer, ...]:
    keys, misses = [(count, seed) for seed in range(_SEEDS) for count in _NUMBERS], dict[tuple[int, int], list[str]]()
    try:
        with heard_by(lambda warning: None):
            explainer = Explainer(clip)
            for key in keys:
                scene = _scene(*key)
                asked = explainer.embed_texts([f"a {thing.noun}" for thing in scene.objects])
                misses[key] = missed(scene, explainer.maps(scene.image(CANVAS), asked)[0].float().cpu().numpy())
    except GradeclipError:  # a model without a text encoder, say: its scenes are the first ones
        return tuple(Offer(_source(count, 0), "Not measured with this model.", False) for count in _NUMBERS)
    chosen = [(count, next((i for i in range(_SEEDS) if not misses[count, i]), 0)) for count in _NUMBERS]
    failures = [key for key in keys if misses[key] and key not in chosen]
    found = []
    for key in chosen + failures[:_FAILURES]:
        wrong = [f"The map of “a {noun}” misses the {noun}: can you see why?" for noun in misses[key]]
        note = wrong[0] if wrong else "The map of every “a X” has its maximum on X."
        found.append(Offer(_source(*key), note, bool(wrong)))
    return tuple(found)
