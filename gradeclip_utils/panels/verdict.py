"""Verdict: what a map did, where the ground truth is known; which scenes there are, and what can be done to them.

    model, scenes, View -> here -> explorer_view -> explorer

A scene knows which pixels are which thing, and which words of its caption speak of it. So one can say on what a map
puts its relevance, how much of the image that is, and whether its maximum is elsewhere: by a rule on that, the explorer
offers scenes. All pure functions.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from PIL import Image
from torch import nn

from ..errors import GradeclipError
from ..explain import Explainer
from ..models import Clip
from ..notices import heard_by
from ..plots.finding import patches_of_half
from ..scenes import CANVAS, Scene, concept, concepts, draw_scene, recoloured, without
from .state import Source, State, as_source

_SEEDS = 5  # scenes of each number of things that are looked at
_FAILURES = 2
_NUMBERS = {1: "one thing", 2: "two things", 3: "three things", 4: "four things"}
RULE = (
    f"Of the first {_SEEDS} development scenes of one, two, three and four things each: the first in which the map of "
    "every “a X” has its maximum on X (if there is none, the first). Then, under a dashed line, two in which a map "
    "misses. The panel opens with the one of two things."
)


@lru_cache(maxsize=32)
def covers(scene: Scene, shape: tuple[int, int]) -> np.ndarray:
    """Which fraction of each patch each thing covers: (things, h, w)."""
    masks = scene.masks(CANVAS).astype(np.float32)
    return np.stack([np.asarray(Image.fromarray(mask).resize(shape[::-1], Image.Resampling.BOX)) for mask in masks])


def _at_maximum(scene: Scene, map_: np.ndarray) -> np.ndarray:
    """Which fraction of the patch with a map's maximum each thing covers: (things,)."""
    row, column = np.unravel_index(int(map_.argmax()), map_.shape)
    return covers(scene, map_.shape)[:, row, column]


def _things_of(scene: Scene, caption: str, start: int, end: int) -> tuple[int, ...]:
    """Which things of a scene a part of a caption speaks of: by the scene's own caption, else by noun and by colour."""
    if caption == scene.caption:
        return tuple(sorted({i for s in scene.spans if s.start < end and s.end > start for i in s.objects}))
    text = caption[start:end].lower()
    named = [i for i, thing in enumerate(scene.objects) if _says(text, thing.noun)]
    tinted = [i for i, thing in enumerate(scene.objects) if thing.colour and _says(text, thing.colour)]
    return tuple(named or tinted)


def _absent(scene: Scene, text: str) -> list[str]:
    """The nouns of a text that name nothing in a scene."""
    there = {thing.noun for thing in scene.objects}
    found = [noun for noun in concepts()["noun"] if noun not in there and _says(text.lower(), noun)]
    return [noun for noun in found if not any(noun != other and noun in other.split() for other in [*found, *there])]


def sentence(scene: Scene | None, map_: np.ndarray, caption: str, start: int = 0, end: int | None = None) -> str:
    """On what the map of a part of a caption puts its relevance, and whether it missed."""
    end = len(caption) if end is None else end
    said, heat = f"“{caption[start:end]}”", np.maximum(map_, 0)
    if not heat.any():
        return f"{said} has no relevance above zero anywhere."
    if scene is None:
        half = f"Half of the relevance of {said} lies in {patches_of_half(map_) / map_.size:.0%} of the patches"
        return f"{half}; what these show is known of drawn scenes only."
    cover, top = covers(scene, map_.shape), _at_maximum(scene, heat)
    where = f"on {_named(scene, [int(top.argmax())])}" if top.max() > 0 else "on nothing"
    wanted = list(_things_of(scene, caption, start, end))
    if not wanted:
        if missing := _absent(scene, caption[start:end]):
            still = f"the map of {said} has its maximum {where} all the same"
            return f"There is no {missing[0]} here, and {still}: a map says where, never whether."
        return f"{said} speaks of no thing; its maximum lies {where}."
    part = float((heat * cover[wanted].sum(0)).sum() / heat.sum())
    area = float(cover[wanted].sum(0).mean())
    verdict = "." if top[wanted].max() > 0 else f". It missed: its maximum lies {where}."
    them = "its area" if len(wanted) == 1 else "their area"
    return f"{said} puts {part:.0%} of its relevance on {_named(scene, wanted)} ({them}: {area:.0%}){verdict}"


class Offer(NamedTuple):
    """A scene to choose, what its maps do, and whether one of them misses."""

    source: Source
    note: str
    failure: bool


_offered: WeakKeyDictionary[nn.Module, tuple[Offer, ...]] = WeakKeyDictionary()


def offers(clip: Clip) -> tuple[Offer, ...]:
    """The scenes that `RULE` chooses, measured once."""
    if clip.model not in _offered:
        _offered[clip.model] = _chosen(clip)
    return _offered[clip.model]


def missed(scene: Scene, maps: np.ndarray) -> list[str]:
    """The nouns of a scene whose map of "a X" has its maximum elsewhere."""
    nouns = np.array([thing.noun for thing in scene.objects])
    pairs = zip(nouns.tolist(), maps, strict=True)
    return list(dict.fromkeys(noun for noun, map_ in pairs if not _at_maximum(scene, map_)[nouns == noun].any()))


def _chosen(clip: Clip) -> tuple[Offer, ...]:
    keys = [(count, seed) for seed in range(_SEEDS) for count in _NUMBERS]
    scenes = {key: draw_scene(key[1], split="development", n_objects=key[0], plain=True) for key in keys}
    misses: dict[tuple[int, int], list[str]] = {}
    try:
        with heard_by(lambda warning: None):
            explainer = Explainer(clip)
            for key, scene in scenes.items():
                asked = explainer.embed_texts([f"a {thing.noun}" for thing in scene.objects])
                misses[key] = missed(scene, explainer.maps(scene.image(CANVAS), asked)[0].float().cpu().numpy())
    except GradeclipError:  # a model without a text encoder, say: its scenes are the first ones
        misses.clear()
    chosen = [(count, next((i for i in range(_SEEDS) if not misses.get((count, i))), 0)) for count in _NUMBERS]
    failures = [key for key in keys if misses.get(key) and key not in chosen][:_FAILURES]
    found = []
    for count, seed in chosen + failures:
        code = f'image = draw_scene({seed}, split="development", n_objects={count}, plain=True).image()'
        source = as_source(scenes[count, seed], f"scene {seed} of {_NUMBERS[count]}", code)
        note = "The map of every “a X” has its maximum on X." if misses else "Not measured with this model."
        if wrong := misses.get((count, seed)):
            note = f"The map of “a {wrong[0]}” misses the {wrong[0]}: can you see why?"
        found.append(Offer(source, note, bool(wrong)))
    return tuple(found)


class Surprise(NamedTuple):
    """What can be done to a scene in one press: its name, what to look at, and the fields of the state that change."""

    text: str
    help: str
    fields: Callable[[], dict]


def surprises(state: State) -> list[Surprise]:
    """What can be done to what is shown in one press."""
    source, scene = state.source, state.source.scene
    if scene is None:
        return []
    found = []
    colours, noun, other = _passed_on(scene), scene.objects[0].noun, _not_there(scene)
    if (before := source.before) is not None:
        found.append(Surprise("put it back", "The scene as it was.", lambda: {"source": before}))
    elif colours != [thing.colour for thing in scene.objects]:
        hint = "Each colour goes to the next thing, and the caption stays: does the match fall?"
        swap = partial(_changed, state, recoloured, colours, "the colours are swapped")
        found.append(Surprise("swap the colours", hint, swap))
    if before is None and len(scene.objects) > 1:
        hint = "The caption stays: where does its word point now, and does the match fall?"
        take = partial(_changed, state, without, 0, f"the {noun} is gone")
        found.append(Surprise(f"take the {noun} away", hint, take))
    hint = "A map shows something even for what is not there; compare the match."
    return [*found, Surprise(f"ask for a {other}", hint, lambda: {"caption": f"a {other}"})]


def other_caption(state: State) -> str:
    """A caption to ask against: of a scene with its colours swapped, or of something that is not there."""
    scene = state.source.scene
    if scene is None:
        return "a photo"
    text = recoloured(scene, _passed_on(scene)).caption
    return text if text not in (state.caption, scene.caption) else f"a {_not_there(scene)}"


def _passed_on(scene: Scene) -> list[str | None]:
    """For each thing the colour of the one before."""
    return [scene.objects[i - 1].colour for i in range(len(scene.objects))]


def _not_there(scene: Scene) -> str:
    """A thing that a scene does not have, always the same for the same scene."""
    nouns, start = concepts()["noun"].tolist(), sum(map(ord, scene.caption)) % len(concepts())
    there = {thing.noun for thing in scene.objects}
    order = nouns[start:] + nouns[:start]
    return next(noun for noun in order if noun not in there and " " not in noun and noun[0] not in "aeiou")


def _changed(state: State, make: Callable[..., Scene], how: Any, change: str) -> dict:
    """The fields of the same question about a scene that `make` changes, and that remembers what it was."""
    first = state.source
    scene = first.code.removeprefix("image = ").removesuffix(".image()")
    code = f"image = {make.__name__}({scene}, {how!r}).image()"
    new = as_source(make(first.scene, how), f"{first.name}, {change}", code)
    return {"source": replace(new, before=first, change=change), "caption": state.caption}


def _says(text: str, word: str) -> bool:
    several = concepts()["plural"].get(word) or word
    return re.search(rf"\b({re.escape(word)}s?|{re.escape(several)})\b", text) is not None


def _named(scene: Scene, things: Sequence[int]) -> str:
    nouns = [scene.objects[i].noun for i in things]
    several = {noun: concept(noun)["plural"] for noun in nouns if nouns.count(noun) > 1}
    names = [f"the {several.get(noun) or noun}" for noun in dict.fromkeys(nouns)]
    return " and ".join(names) if len(names) < 3 else f"the {len(things)} things that it names"
