"""Compose: scenes of one to four things, drawn at random or arranged by hand, with the truth about each.

    grammar, emoji -> Scene: picture, caption, masks, spans

Because a scene was composed, it is known exactly which pixels every object covers and which words of the caption speak
of it (`Scene.spans`, `Scene.masks`).
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from PIL import Image

from ..notices import mark_drawn
from .art import concept, concepts
from .emoji import ARTISTS, CANVAS, COLOURS, PICTURE, Object, covered, render
from .grammar import Span, describe, draw_phrases, grouped
from .heldout import is_withheld_colour, is_withheld_pair, withheld_artist

SPLITS = {"train": 0, "development": 1, "test": 2}  # seeds of different splits never meet


@dataclass(frozen=True)
class Scene:
    """A composed picture and its caption; `spans` says which words speak of which objects."""

    objects: tuple[Object, ...]
    caption: str
    spans: tuple[Span, ...]
    background: int = 0

    def image(self, size: int = PICTURE) -> Image.Image:
        """The picture, (size, size) RGB."""
        return mark_drawn(Image.fromarray(render(self.objects, self.background, size)))

    def masks(self, size: int = PICTURE) -> np.ndarray:
        """Which pixels each object covers: (objects, size, size) bool; an object in front hides what is behind."""
        return covered(self.objects, size)

    def words_of(self, kind: str) -> list[tuple[str, tuple[int, ...]]]:
        """The caption's words of one kind, each with the objects that it speaks of."""
        return [(self.caption[s.start : s.end], s.objects) for s in self.spans if s.kind == kind]

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        buffer = io.BytesIO()
        self.image().save(buffer, "PNG")
        data = {"image/png": base64.b64encode(buffer.getvalue()).decode("ascii"), "text/plain": self.caption}
        return data, {"image/png": {"alt": f"a scene: {self.caption}"}}


def arrange(objects: Sequence[Object | str], *, background: int = 0, **caption) -> Scene:
    """A scene of your own: objects, or words such as `"red car"`, which are put into the quadrants in reading order.

    >>> arrange(["red car", "blue ball"]).caption
    'a red car and a blue ball'

    Raises ValueError for a noun or colour that the world does not have, or for more than four words.
    """
    if not objects or sum(isinstance(o, str) for o in objects) > 4:
        raise ValueError(f"a scene holds one to four words, and {len(objects)} were given: place Objects yourself")
    places = [(48, 48)] if len(objects) == 1 else [(24, 48), (72, 48)] if len(objects) == 2 else list(_QUADRANTS)
    things = []
    for thing, (x, y) in zip(objects, places, strict=False):
        if isinstance(thing, str):
            *colour, noun = thing.split() or [""]
            if noun not in concepts().index or len(colour) > 1 or any(c not in COLOURS for c in colour):
                known = f"a noun of concepts(), after one of {', '.join(COLOURS)} if you like"
                raise ValueError(f"{thing!r} is not in the world of the scenes: say {known}")
            size = 64 if len(objects) == 1 else 40
            thing = Object(noun, _shown_artist(noun), *colour, x=x, y=y, size=size)
        things.append(thing)
    text, spans = describe(things, **caption)
    return Scene(tuple(things), text, spans, background)


def _shown_artist(noun: str) -> str:
    return next(a for a in ARTISTS if a != withheld_artist(noun))


_QUADRANTS = ((24, 24), (72, 24), (24, 72), (72, 72))
# Few sizes, so that every drawing at every size is rastered once and then kept.
_SIZES = {"small": (26, 30), "": (34, 38), "big": (42, 46)}  # of an object that shares the picture
_SINGLE_SIZES = {"small": (26, 30, 34), "": (38, 42, 46, 54), "big": (64, 72, 82)}


@lru_cache(maxsize=2)
def _nouns(removed: bool) -> list[str]:
    return list(concepts(removed=removed)["noun"])


def _draw_groups(
    rng: np.random.Generator, nouns: list[str], n: int, tint: float, trained: bool
) -> list[tuple[str, str | None, int]]:
    """Noun, colour and number of each group of like objects, `n` objects together."""
    colours_known = list(COLOURS)
    while True:
        counts = [1] * n
        if n > 1 and rng.random() < 0.2:  # some groups are several of a kind
            k = int(rng.integers(2, n + 1))
            counts = [k] + [1] * (n - k)
        chosen = [nouns[i] for i in rng.choice(len(nouns), len(counts), replace=False)]
        colours = [colours_known[rng.integers(len(colours_known))] if rng.random() < tint else None for _ in counts]
        bad_count = any(c > 1 and not concept(noun)["plural"] for noun, c in zip(chosen, counts, strict=True))
        withheld = trained and (
            any(is_withheld_colour(*pair) for pair in zip(chosen, colours, strict=True))
            or any(is_withheld_pair(a, b) for i, a in enumerate(chosen) for b in chosen[:i])
        )
        if not (bad_count or withheld):
            order = rng.permutation(len(counts))
            return [(chosen[i], colours[i], counts[i]) for i in order]


def draw_scene(
    seed: int | Sequence[int], *, split: str = "train", n_objects: int | None = None, tint: float = 0.35,
    trained: bool = True, plain: bool = False, groups: Sequence[tuple[str, str | None, int]] | None = None,
) -> Scene:  # fmt: skip
    """A random scene; the same seed and split always give the same one.

    `split`: "train", "development" (all tuning happens here) or "test" (for the published figures only).
    `n_objects`: 1 to 4, by default 30, 30, 20 and 20 % of the scenes. `tint`: the share of objects that get a colour.
    `trained=True` leaves out what is withheld (compositions, and for a fifth of the nouns one artist's drawing).
    `plain=True` writes only the list of the objects: no prefix, size, keyword or relation. With two or more objects
    each lies within a quadrant of its own. `groups` gives what is shown, (noun, colour, number) of each group of like
    objects, and leaves only the rest to chance.
    """
    rng = np.random.default_rng([SPLITS[split], *np.atleast_1d(seed)])
    if groups is None:
        n = n_objects or int(rng.choice(4, p=[0.3, 0.3, 0.2, 0.2])) + 1
        groups = _draw_groups(rng, _nouns(split == "train"), n, tint, trained)
    n = sum(count for *_, count in groups)
    corners = iter(rng.permutation(4))
    things, sizes = [], []
    for noun, colour, count in groups:
        size = str(rng.choice(list(_SIZES), p=[0.3, 0.4, 0.3]))
        sizes.append(size)
        for _ in range(count):
            shown = [a for a in ARTISTS if not trained or a != withheld_artist(noun)]
            length = int(rng.choice((_SINGLE_SIZES if n == 1 else _SIZES)[size]))
            if n == 1:
                x, y = rng.uniform(length / 2, CANVAS - length / 2, 2)
            else:
                x, y = _QUADRANTS[next(corners)] + rng.uniform(-1, 1, 2) * (CANVAS / 4 - length / 2)
            things.append(Object(noun, str(rng.choice(shown)), colour, float(x), float(y), length))
    phrases, relation, prefix = {}, "", ""
    if not plain:
        phrases, relation, prefix = draw_phrases(rng, groups, sizes, things)
    text, spans = describe(things, relation, prefix, **phrases)
    return Scene(tuple(things), text, spans, background=int(rng.integers(100_000)))


def companion(scene: Scene, seed: int | Sequence[int], *, split: str = "train", trained: bool = True) -> Scene | None:
    """Another scene of the same things, in which every colour (or lack of one) has gone to the next thing.

    Both captions hold the same names and colours, so that only who has which colour tells the two apart. All else is
    drawn anew. None if nothing would change, or if a colour would become one that is withheld (`trained=True`).
    """
    members = grouped(scene.objects)
    nouns = [scene.objects[m[0]].noun for m in members]
    colours = [scene.objects[m[0]].colour for m in members]
    passed_on = colours[-1:] + colours[:-1]
    withheld = trained and any(map(is_withheld_colour, nouns, passed_on))
    if withheld or passed_on == colours:
        return None
    groups = [(noun, colour, len(m)) for noun, colour, m in zip(nouns, passed_on, members, strict=True)]
    return draw_scene(seed, split=split, trained=trained, groups=groups)


def without(scene: Scene, index: int) -> Scene:
    """The same picture and caption with one object gone from both: what did it contribute?"""
    things = [t for i, t in enumerate(scene.objects) if i != index]
    return arrange(things, background=scene.background)


def recoloured(scene: Scene, colours: Sequence[str | None]) -> Scene:
    """The same objects in other colours, plainly described; swapping two colours gives the binding test."""
    things = [replace(t, colour=c) for t, c in zip(scene.objects, colours, strict=True)]
    return arrange(things, background=scene.background)
