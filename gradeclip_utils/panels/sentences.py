"""Sentences: where the relevance of a prompt lies in a drawn scene, whose things are known.

scene, map, words -> here -> a sentence below the map
"""

import re
from collections.abc import Sequence
from functools import cache, lru_cache

import numpy as np
from PIL import Image

from ..scenes import CANVAS, Scene, concept, concepts


@cache
def nouns() -> dict[str, str]:
    """The nouns of the drawn world, each of which is one word, by their forms."""
    forms: dict[str, str] = {}
    for noun, plural in zip(concepts()["noun"], concepts()["plural"], strict=True):
        forms |= {noun: noun, f"{noun}s": noun, plural: noun}
    return forms


def sentence(
    scene: Scene | None,
    map_: np.ndarray,
    prompt: str,
    start: int = 0,
    end: int | None = None,
    relevance_name: str = "",
) -> str:
    """Where the map of a part of a prompt has its relevance; "" if the image is no scene."""
    end = len(prompt) if end is None else end
    part = f"“{prompt[start:end]}”"
    relevance_name = relevance_name or f"the relevance of {part}"
    relevance = np.maximum(map_, 0)
    if not map_.any() and end - start < len(prompt):
        return f"The key of {part} fits the query least, so Grad-ECLIP gives it no weight."
    if not relevance.any():
        return f"The map of {part} has no relevance for it."
    if scene is None:
        return ""

    things, absent = named_things(scene, prompt, start, end)
    if absent:
        return (
            f"There is no {absent[0]} in this image. "
            f"The map of {part} marks something all the same."
        )
    if not things:
        return ""

    covers = _covers(scene, map_.shape)  # (things, h, w)
    covered = covers[things].sum(0)
    share = float((relevance * covered).sum() / relevance.sum())
    names = _in_words(scene, things)
    verb = "covers" if len(things) == 1 else "cover"
    text = (
        f"{100 * share:.0f} % of {relevance_name} lies on {names}, "
        f"which {verb} {100 * covered.mean():.0f} % of the image."
    )
    maximum = covers.reshape(len(covers), -1)[:, relevance.argmax()]
    if maximum[things].max() > 0:
        return text
    place = _in_words(scene, [int(maximum.argmax())]) if maximum.max() > 0 else "the background"
    return f"{text} The maximum lies on {place}."


def named_things(
    scene: Scene,
    prompt: str,
    start: int,
    end: int,
) -> tuple[list[int], list[str]]:
    """The things of a scene that a part of a prompt names, and nouns of things that are absent.

    Things are named by their nouns or, without a noun, by their colours.
    """
    if prompt == scene.caption:
        # A scene knows which words of its own caption name which thing.
        return sorted({i for span in scene.spans_of(start, end) for i in span.objects}), []

    words = re.findall(r"\w+", prompt[start:end].lower())
    named = [nouns()[word] for word in words if word in nouns()]
    things = [i for i, thing in enumerate(scene.objects) if thing.noun in named]
    if not things:
        things = [i for i, thing in enumerate(scene.objects) if thing.colour in words]
    present = {thing.noun for thing in scene.objects}
    return things, [noun for noun in named if noun not in present]


@lru_cache(maxsize=32)
def _covers(scene: Scene, shape: tuple[int, int]) -> np.ndarray:
    """The fraction of each patch that each thing covers: (things, h, w)."""
    height, width = shape
    covers = []
    for mask in scene.masks(CANVAS).astype(np.float32):
        reduced = Image.fromarray(mask).resize((width, height), Image.Resampling.BOX)
        covers.append(np.asarray(reduced))
    return np.stack(covers)


def _in_words(scene: Scene, things: Sequence[int]) -> str:
    """Things by their nouns: "the dog and the umbrella"."""
    named = [scene.objects[i].noun for i in things]
    names = []
    for noun in dict.fromkeys(named):
        names.append(f"the {concept(noun)['plural'] if named.count(noun) > 1 else noun}")
    return " and ".join(names) if len(names) < 3 else f"the {len(things)} things that it names"
