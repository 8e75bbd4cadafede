"""Verdict: what a map did on a scene whose ground truth is known; which scenes can be chosen, and what can be changed.

    session, scenes, View -> here -> explorer_view -> explorer

A scene knows which pixels are which thing, and which words of its caption name it.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..scenes import CANVAS, Scene, arrange, concept, concepts, first_scenes, recoloured, without
from .state import Source, State, as_source

_SEEDS = 4  # scenes of each number of things that are looked at
_NUMBERS = {1: "one thing", 2: "two things", 3: "three things", 4: "four things"}
RULE = (
    f"First the start. Then the first of {_SEEDS} development scenes of one to four things in which every map of "
    "“a X” has its maximum on X; under a dashed line two scenes in which a map misses."
)


@lru_cache(maxsize=32)
def covers(scene: Scene, shape: tuple[int, int]) -> np.ndarray:
    """Return which fraction of each patch each thing covers: (things, h, w)."""
    masks = scene.masks(CANVAS).astype(np.float32)
    return np.stack([np.asarray(Image.fromarray(mask).resize(shape[::-1], Image.Resampling.BOX)) for mask in masks])


def _at_maximum(scene: Scene, map_: np.ndarray) -> np.ndarray:
    """Return which fraction of the patch with a map's maximum each thing covers: (things,)."""
    row, column = np.unravel_index(int(map_.argmax()), map_.shape)
    return covers(scene, map_.shape)[:, row, column]


def _things_of(scene: Scene, caption: str, start: int, end: int) -> list[int]:
    """Return which things of a scene a part of a caption names: by the scene's own caption, else by noun and colour."""
    if caption == scene.caption:
        return sorted({i for s in scene.spans if s.start < end and s.end > start for i in s.objects})
    text = caption[start:end].lower()
    named = [i for i, thing in enumerate(scene.objects) if _says(text, thing.noun)]
    return named or [i for i, thing in enumerate(scene.objects) if thing.colour and _says(text, thing.colour)]


def absent(scene: Scene, text: str) -> list[str]:
    """Return the nouns of a text that name nothing in a scene."""
    there = {thing.noun for thing in scene.objects}
    found = [noun for noun in concepts()["noun"] if noun not in there and _says(text.lower(), noun)]
    return [noun for noun in found if not any(noun != other and noun in other.split() for other in [*found, *there])]


def sentence(scene: Scene | None, map_: np.ndarray, caption: str, start: int = 0, end: int | None = None) -> str:
    """Return where the map of a part of a caption has its relevance; "" where nothing is known of the image."""
    end = len(caption) if end is None else end
    said, heat = f"“{caption[start:end]}”", np.maximum(map_, 0)
    if not heat.any():
        return f"The map of {said} has no relevance for it."
    if scene is None:
        return ""
    wanted, missing = _things_of(scene, caption, start, end), absent(scene, caption[start:end])
    if missing:
        return f"There is no {missing[0]} in this image. The map of {said} marks something all the same."
    if not wanted:
        return ""
    cover, top = covers(scene, map_.shape), _at_maximum(scene, heat)
    part = float((heat * cover[wanted].sum(0)).sum() / heat.sum())
    area = float(cover[wanted].sum(0).mean())
    verb = "covers" if len(wanted) == 1 else "cover"
    them = _named(scene, wanted)
    found = f"{part:.0%} of the relevance of {said} lies on {them}, which {verb} {area:.0%} of the image."
    if top[wanted].max() > 0:
        return found
    where = f"on {_named(scene, [int(top.argmax())])}" if top.max() > 0 else "on the background"
    return f"{found} The maximum lies {where}."


class Offer(NamedTuple):
    """An image to choose, the caption that it is asked for, and a question about its map with its answer."""

    source: Source
    caption: str
    question: str = ""
    answer: str = ""


def start() -> Offer:
    """Return what the explorer opens with."""
    scene = arrange(["dog", "umbrella"], seed=3)
    return Offer(as_source(scene, "the start", 'image = arrange(["dog", "umbrella"], seed=3).image()'), scene.caption)


def offers(maps: Callable[[Scene, list[str]], np.ndarray]) -> list[Offer]:
    """Return the scenes that `RULE` chooses; `maps` gives the maps (T, h, w) of a scene for prompts."""
    found, failures = [], []
    for count in _NUMBERS:
        scenes = first_scenes(_SEEDS, split="development", n_objects=count, plain=True)
        misses = [_missed(scene, maps) for scene in scenes]
        seed = next((i for i in range(_SEEDS) if not misses[i]), 0)
        found.append(_offer(scenes[seed], seed, count))
        failures += [_offer(scenes[i], i, count, *misses[i][0]) for i in range(_SEEDS) if misses[i] and i != seed]
    return found + failures[:2]


def _offer(scene: Scene, seed: int, count: int, noun: str = "", map_: np.ndarray | None = None) -> Offer:
    some = f'first_scenes({_SEEDS}, split="development", n_objects={count}, plain=True)'
    code = f"image = {some}[{seed}].image()"
    source = as_source(scene, f"scene {seed} of {_NUMBERS[count]}", code)
    if not noun or map_ is None:
        return Offer(source, scene.caption)
    caption, heat = _a(noun), np.maximum(map_, 0)
    parts = (heat * covers(scene, heat.shape)).sum((1, 2)) / max(heat.sum(), 1e-9)
    most = int(parts.argmax())
    answer = sentence(scene, map_, caption)
    if scene.objects[most].noun != noun:
        answer += f" {parts[most]:.0%} of the relevance lies on the {scene.objects[most].noun}."
    return Offer(source, caption, f"The map of “{caption}” misses the {noun}. Can you see why?", answer)


def _missed(scene: Scene, maps: Callable[[Scene, list[str]], np.ndarray]) -> list[tuple[str, np.ndarray]]:
    """Return the nouns of a scene whose map of "a X" has its maximum elsewhere, with these maps."""
    nouns = [thing.noun for thing in scene.objects]
    found = dict(zip(nouns, maps(scene, [_a(noun) for noun in nouns]), strict=True))
    own = {noun: [i for i, one in enumerate(nouns) if one == noun] for noun in found}
    return [(noun, map_) for noun, map_ in found.items() if not _at_maximum(scene, map_)[own[noun]].any()]


class Surprise(NamedTuple):
    """What can be done to a scene in one press: its name, what to look at, and the fields of the state that change."""

    text: str
    help: str
    fields: Callable[[], dict]


def surprises(state: State) -> list[Surprise]:
    """Return what can be done to what is shown in one press."""
    source, scene = state.source, state.source.scene
    if scene is None:
        return []
    if source.before is not None:
        fields = {"source": source.before, "caption": state.caption}
        return [Surprise("put it back", "The scene as it was.", lambda: fields)]
    found, noun, other = [], scene.objects[0].noun, _not_there(scene)
    colours = [scene.objects[i - 1].colour for i in range(len(scene.objects))]  # each thing has that of the one before
    if colours != [thing.colour for thing in scene.objects]:
        swap = partial(_changed, state, recoloured, colours, "the colours are swapped")
        found.append(Surprise("swap the colours", "The caption stays: does the similarity fall?", swap))
    if len(scene.objects) > 1:
        take = partial(_changed, state, without, 0, f"the {noun} is gone")
        found.append(Surprise(f"take the {noun} away", "The caption stays: does the similarity fall?", take))
    if state.caption != f"a {other}":
        hint = "It is not in the image and has a map all the same: compare the similarity."
        found.append(Surprise(f"ask for a {other}", hint, lambda: {"caption": f"a {other}"}))
    elif scene.caption:
        found.append(Surprise("ask for what is there", "The scene's own caption.", lambda: {"caption": scene.caption}))
    return found


def _not_there(scene: Scene) -> str:
    """Return a thing that a scene does not have, always the same for the same scene."""
    if not any(thing.noun == "piano" for thing in scene.objects):
        return "piano"
    return "guitar"


def _changed(state: State, make: Callable[..., Scene], how, change: str) -> dict:
    """Return the fields of the same question about a scene that `make` changes, and that remembers what it was."""
    first = state.source
    scene = first.code.removeprefix("image = ").removesuffix(".image()")
    code = f"image = {make.__name__}({scene}, {how!r}).image()"
    new = as_source(make(first.scene, how), f"{first.name}, {change}", code)
    return {"source": replace(new, before=first), "caption": state.caption}


def question(scene: Scene | None, captions: Sequence[str]) -> dict | None:
    """Return a question about captions of which exactly one names what a scene does not have."""
    if scene is None:
        return None
    missing = {caption: absent(scene, caption) for caption in captions}
    wrong = [caption for caption, nouns in missing.items() if nouns]
    if len(wrong) != 1 or len(captions) < 2:
        return None
    right = f"Right. There is no {missing[wrong[0]][0]} in this image, and its map marks something all the same."
    return {"text": "Which caption is false?", "options": list(captions), "false": wrong[0], "right": right,
            "no": "No, it is there. Compare the similarities."}  # fmt: skip


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
