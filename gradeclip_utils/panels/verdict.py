"""Verdict: what a map did on a scene, whose objects are known, and what can be changed in it.

    map, Scene -> here -> session, explorer

A scene knows which pixels are which object, and which words of its caption name it.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import numpy as np
from PIL import Image

from ..scenes import CANVAS, Scene, concept, concepts, recoloured, without


@lru_cache(maxsize=32)
def _covers(scene: Scene, shape: tuple[int, int]) -> np.ndarray:
    """The fraction of each patch that each thing covers: (things, h, w)."""
    masks = scene.masks(CANVAS).astype(np.float32)
    return np.stack([np.asarray(Image.fromarray(mask).resize(shape[::-1], Image.Resampling.BOX)) for mask in masks])


def _things_of(scene: Scene, caption: str, start: int, end: int) -> list[int]:
    """The things of a scene that a part of a caption names, by the scene's own caption, else by noun and colour."""
    if caption == scene.caption:
        return sorted({i for s in scene.spans if s.start < end and s.end > start for i in s.objects})
    text = caption[start:end].lower()
    named = [i for i, thing in enumerate(scene.objects) if _says(text, thing.noun)]
    return named or [i for i, thing in enumerate(scene.objects) if thing.colour and _says(text, thing.colour)]


def _absent(scene: Scene, text: str) -> list[str]:
    """The nouns of a text that name nothing in a scene."""
    there = {thing.noun for thing in scene.objects}
    found = [noun for noun in concepts()["noun"] if noun not in there and _says(text.lower(), noun)]
    return [noun for noun in found if not any(noun != other and noun in other.split() for other in [*found, *there])]


def sentence(scene: Scene | None, map_: np.ndarray, caption: str, start: int = 0, end: int | None = None) -> str:
    """Where the map of a part of a caption has its relevance; "" where nothing is known of the image."""
    end = len(caption) if end is None else end
    said, heat = f"“{caption[start:end]}”", np.maximum(map_, 0)
    if not heat.any():
        return f"The map of {said} has no relevance for it."
    if scene is None:
        return ""
    wanted, missing = _things_of(scene, caption, start, end), _absent(scene, caption[start:end])
    if missing:
        return f"There is no {missing[0]} in this image. The map of {said} marks something all the same."
    if not wanted:
        return ""
    cover = _covers(scene, map_.shape)
    top = cover.reshape(len(cover), -1)[:, heat.argmax()]  # of the patch with the maximum
    part = float((heat * cover[wanted].sum(0)).sum() / heat.sum())
    area = float(cover[wanted].sum(0).mean())
    verb = "covers" if len(wanted) == 1 else "cover"
    them = _named(scene, wanted)
    found = f"{part:.0%} of the relevance of {said} lies on {them}, which {verb} {area:.0%} of the image."
    if top[wanted].max() > 0:
        return found
    where = f"on {_named(scene, [int(top.argmax())])}" if top.max() > 0 else "on the background"
    return f"{found} The maximum lies {where}."


def changes(scene: Scene, caption: str) -> dict[str, Callable[[], Scene] | str]:
    """What one press can change: the name of the button, and another scene (to be made) or another caption."""
    colours, noun = [thing.colour for thing in scene.objects], scene.objects[0].noun
    moved, found = colours[-1:] + colours[:-1], dict[str, Callable[[], Scene] | str]()
    if moved != colours:
        found["swap the colours"] = partial(recoloured, scene, moved)
    if len(scene.objects) > 1:
        found[f"take the {noun} away"] = partial(without, scene, 0)
    other = "guitar" if any(thing.noun == "piano" for thing in scene.objects) else "piano"
    if caption != _a(other):
        return found | {f"ask for {_a(other)}": _a(other)}
    return found | {"ask for what is there": scene.caption}


def _says(text: str, word: str) -> bool:
    several = concepts()["plural"].get(word) or word
    return re.search(rf"\b({re.escape(word)}s?|{re.escape(several)})\b", text) is not None


def _named(scene: Scene, things: Sequence[int]) -> str:
    nouns = [scene.objects[i].noun for i in things]
    several = {noun: concept(noun)["plural"] for noun in nouns if nouns.count(noun) > 1}
    names = [f"the {several.get(noun) or noun}" for noun in dict.fromkeys(nouns)]
    return " and ".join(names) if len(names) < 3 else f"the {len(things)} things that it names"


def _a(noun: str) -> str:
    return f"{concept(noun)['article']} {noun}"
