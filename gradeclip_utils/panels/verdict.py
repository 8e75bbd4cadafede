"""Verdict: what a map did, in one sentence, where the ground truth is known; and what can be done to a scene.

    View -> here -> explorer_view -> explorer

A scene knows which pixels are which thing, and which words of its caption speak of it. So one can say on what a map
puts its relevance, how much of the image that is, and whether its maximum is elsewhere. All pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..scenes import CANVAS, Scene, concepts, describe, recoloured, without
from .state import State, as_source


@lru_cache(maxsize=32)
def covers(scene: Scene, shape: tuple[int, int]) -> np.ndarray:
    """Which fraction of each patch each thing covers: (things, h, w)."""
    masks = scene.masks(CANVAS).astype(np.float32)
    cells = (Image.fromarray(mask).resize(shape[::-1], Image.Resampling.BOX) for mask in masks)
    return np.stack([np.asarray(cell) for cell in cells])


def at_maximum(scene: Scene, map_: np.ndarray) -> np.ndarray:
    """Which fraction of the patch with a map's maximum each thing covers: (things,)."""
    row, column = np.unravel_index(int(map_.argmax()), map_.shape)
    return covers(scene, map_.shape)[:, row, column]


def things_of(scene: Scene, caption: str, start: int, end: int) -> tuple[int, ...]:
    """Which things of a scene a part of a caption speaks of: by the scene's own caption, else by noun and by colour.

    Args:
        scene: has the things.
        caption: about it.
        start: number of the part's first character.
        end: number of the character behind its last.
    """
    if caption == scene.caption:
        return tuple(sorted({i for s in scene.spans if s.start < end and s.end > start for i in s.objects}))
    text = caption[start:end].lower()
    named = [i for i, thing in enumerate(scene.objects) if _says(text, thing.noun)]
    tinted = [i for i, thing in enumerate(scene.objects) if thing.colour and _says(text, thing.colour)]
    return tuple(named or tinted)


def absent(scene: Scene, text: str) -> list[str]:
    """The nouns of a text that name nothing in a scene."""
    there = {thing.noun for thing in scene.objects}
    found = [noun for noun in concepts()["noun"] if noun not in there and _says(text.lower(), noun)]
    return [noun for noun in found if not any(noun != other and noun in other.split() for other in [*found, *there])]


def sentence(scene: Scene, map_: np.ndarray, caption: str, start: int, end: int) -> str:
    """On what the map (h, w) of a part of a caption puts its relevance, and whether it missed.

    Args:
        scene: what the image shows.
        map_: signed; what is below zero counts as nothing.
        caption: what was asked.
        start: number of the part's first character.
        end: number of the character behind its last.
    """
    said, heat = f"“{caption[start:end]}”", np.maximum(map_, 0)
    if not heat.any():
        return f"{said} has no relevance above zero anywhere."
    cover, top = covers(scene, map_.shape), at_maximum(scene, heat)
    where = f"on {_named(scene, [int(top.argmax())])}" if top.max() > 0 else "on nothing"
    wanted = list(things_of(scene, caption, start, end))
    if not wanted:
        if missing := absent(scene, caption[start:end]):
            return (
                f"There is no {missing[0]} here, and the map of {said} has its maximum {where} all the same: a map "
                "says where, never whether."
            )
        return f"{said} speaks of no thing; its maximum lies {where}."
    part = float((heat * cover[wanted].sum(0)).sum() / heat.sum())
    area = float(cover[wanted].sum(0).mean())
    verdict = "." if top[wanted].max() > 0 else f". It missed: its maximum lies {where}."
    them = "its area" if len(wanted) == 1 else "their area"
    return f"{said} puts {part:.0%} of its relevance on {_named(scene, wanted)} ({them}: {area:.0%}){verdict}"


def spread(map_: np.ndarray, said: str) -> str:
    """The same for an image whose ground truth is not known."""
    values = np.sort(np.maximum(map_, 0).ravel())[::-1]
    if not values.any():
        return f"“{said}” has no relevance above zero anywhere."
    half = int(np.searchsorted(values.cumsum(), values.sum() / 2) + 1) / values.size
    return f"Half of the relevance of “{said}” lies in {half:.0%} of the patches; on what is known for scenes only."


class Surprise(NamedTuple):
    """What can be done to a scene in one press: its name, what to look at, and the fields of the state that change."""

    text: str
    help: str
    fields: Callable[[], dict]


def surprises(state: State) -> list[Surprise]:
    """What can be done to the scene that is shown; of an image that is no scene there is nothing to change."""
    source, scene = state.source, state.source.scene
    if scene is None:
        return []
    found = []
    colours = [thing.colour for thing in scene.objects]
    passed_on, noun = colours[-1:] + colours[:-1], scene.objects[0].noun
    if (before := source.before) is not None:
        found.append(Surprise("put it back", "The scene as it was.", lambda: {"source": before}))
    elif passed_on != colours:
        hint = "Each colour goes to the next thing, and the caption stays: does the match fall?"
        swap = partial(_changed, state, recoloured, passed_on, "the colours are swapped")
        found.append(Surprise("swap the colours", hint, swap))
    if before is None and len(scene.objects) > 1:
        hint = "The caption stays: where does its word point now, and does the match fall?"
        take = partial(_changed, state, without, 0, f"the {noun} is gone")
        found.append(Surprise(f"take the {noun} away", hint, take))
    other = _not_there(scene)
    hint = "A map shows something even for what is not there; compare the match."
    return [*found, Surprise(f"ask for a {other}", hint, lambda: {"caption": f"a {other}"})]


def other_caption(state: State) -> str:
    """A caption to ask against: of a scene with its colours swapped, or of something that is not there."""
    scene = state.source.scene
    if scene is None:
        return "a photo"
    colours = [thing.colour for thing in scene.objects]
    swapped = zip(scene.objects, colours[-1:] + colours[:-1], strict=True)
    text, _ = describe([replace(thing, colour=colour) for thing, colour in swapped])
    return text if text not in (state.caption, scene.caption) else f"a {_not_there(scene)}"


def _not_there(scene: Scene) -> str:
    """A thing that a scene does not have, always the same for the same scene."""
    nouns, there = concepts()["noun"], {thing.noun for thing in scene.objects}
    start = sum(map(ord, scene.caption))
    order = (nouns.iloc[(start + i) % len(nouns)] for i in range(len(nouns)))
    return next(noun for noun in order if noun not in there and " " not in noun and noun[0] not in "aeiou")


def _changed(state: State, make: Callable[..., Scene], how: Any, change: str) -> dict:
    """The fields of the same question about a scene that `make` changes, and that remembers what it was."""
    first = state.source
    scene = first.code.removeprefix("image = ").removesuffix(".image()")
    code = f"image = {make.__name__}({scene}, {how!r}).image()"
    new = as_source(make(first.scene, how), f"{first.name}, {change}", code)
    return {"source": replace(new, before=first, change=change), "caption": state.caption}


def _says(text: str, word: str) -> bool:
    return re.search(rf"\b{re.escape(word)}s?\b", text) is not None


def _named(scene: Scene, things: Sequence[int]) -> str:
    names = list(dict.fromkeys(f"the {scene.objects[i].noun}" for i in things))
    return " and ".join(names) if len(names) < 3 else f"the {len(things)} things that it names"
