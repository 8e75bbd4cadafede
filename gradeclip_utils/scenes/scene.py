"""Compose: scenes of one to four things, random or arranged by hand, with the ground truth about each.

    grammar, emoji -> Scene: image, caption, masks, spans

Things lie anywhere on a varied background. As in real captions, not every thing is named and not
every colour is mentioned. `Scene.masks`, `Scene.spans` and `Scene.unnamed` have the truth.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations, product, starmap
from numbers import Integral
from typing import Any

import numpy as np
from PIL import Image

from .. import checks
from ..checks import chosen, flag, instance, listed, short, whole
from ..errors import GradeclipError
from ..images import DRAWN
from .art import TRAINED_ARTISTS, artists_of
from .emoji import (
    BACKGROUNDS,
    CANVAS,
    COLOURS,
    IMAGE_SIZE,
    NOT_MIRRORED,
    Object,
    concept,
    concepts,
    covered,
    render,
)
from .grammar import PREFIXES, SPANS, Span, describe, grouped, relation_between

SPLITS = {"train": 0, "development": 1, "test": 2}  # seeds of different splits never meet
_MOST = 4  # objects that a layout has room for
_SEEDS = 32  # of `arrange` that are tried for a script
SIZES = (
    26.0,
    48.0,
    70.0,
)  # in canvas units: most objects are between the first two; of some, one is larger
SMALL, BIG = 30.0, 42.0  # what a caption may call small and big
_KEPT_WITHOUT_MIDDLE = (
    0.35  # packing tends to leave the middle empty: layouts that do are kept less often than others
)
_Place = tuple[float, float, float]  # x, y, size
_OVERLAP = 0.25  # how much of an object may be hidden, in the scenes in which objects overlap


@dataclass(frozen=True)
class Scene:
    """A composed image and its caption.

    Attributes:
        objects: its things; a later one may hide an earlier one.
        caption: the sentence that describes it.
        spans: which words of the caption describe which objects.
        background: the number of the background.
    """

    objects: tuple[Object, ...]
    caption: str
    spans: tuple[Span, ...]
    background: int = 0

    def __post_init__(self):
        whole("the background of a scene", self.background)
        checks.text("the caption of a scene", self.caption)
        for name, kind in (("objects", Object), ("spans", Span)):
            what, made = f"{name} of a scene", f"made of {kind.__name__}"
            found = [instance(what, one, kind, made) for one in listed(what, getattr(self, name))]
            object.__setattr__(self, name, tuple(found))
        if not self.objects:
            raise GradeclipError("a scene holds an object or more, and none was given")

    def image(self, size: int = IMAGE_SIZE) -> Image.Image:
        """The image, RGB, `size` pixels on a side: a multiple of 96."""
        drawn = Image.fromarray(render(self.objects, self.background, size))
        drawn.info[DRAWN] = "yes"
        return drawn

    def masks(self, size: int = IMAGE_SIZE) -> np.ndarray:
        """Which pixels each object covers, (objects, size, size) bool; an object in front hides one behind it."""
        return covered(self.objects, size)

    def words_of(self, kind: str) -> list[tuple[str, tuple[int, ...]]]:
        """The caption's words of one kind of `Span`, each with the objects (indices) that it describes."""
        kind = chosen("kind", kind, SPANS)
        return [(self.caption[s.start : s.end], s.objects) for s in self.spans if s.kind == kind]

    @property
    def unnamed(self) -> tuple[int, ...]:
        """The objects (indices) that the caption does not mention."""
        named = {i for span in self.spans for i in span.objects}
        return tuple(i for i in range(len(self.objects)) if i not in named)

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        from ..plots.figures import (
            bundle,
        )  # matplotlib is slow to import, and drawing scenes does without

        return bundle(self.image(), f"a scene: {self.caption}")


def _one_in_ten(*names: str) -> bool:
    """Whether a checksum withholds these names; it is the same on every machine."""
    return zlib.crc32("|".join(names).encode()) % 10 == 0


def is_withheld_colour(noun: str, colour: str | None) -> bool:
    """Whether training never shows this noun in this colour."""
    return colour is not None and _one_in_ten("colour", noun, colour)


def is_withheld_pair(noun: str, other: str) -> bool:
    """Whether training never shows these two nouns in one scene."""
    return noun != other and _one_in_ten("pair", *sorted((noun, other)))


def _overlap(a: _Place, b: _Place) -> float:
    """The intersection of two squares, as a fraction of the smaller."""
    reach, small = (a[2] + b[2]) / 2, min(a[2], b[2])
    across, down = reach - abs(a[0] - b[0]), reach - abs(a[1] - b[1])
    return 0.0 if across <= 0 or down <= 0 else min(across, small) * min(down, small) / small**2


def draw_layout(
    rng: np.random.Generator,
    *,
    around: Sequence[Object] = (),
    overlapping: bool = False,
    sizes: Sequence[float] = (),
) -> list[_Place]:
    """Places (x, y, size) for four objects in random order, or for objects of given sizes, in canvas units.

    All four are always laid out, and a scene of fewer takes the first of them: places and sizes do
    not depend on the number of things. `around` are objects that stay where they are.
    """
    allowed = _OVERLAP if overlapping else 0.02
    taken = [(o.x, o.y, o.size) for o in around]
    for attempt in range(1000):
        chance = iter(rng.random(16 + 48 * _MOST).tolist())
        cut = 0.2 if next(chance) < 0.4 else 0.0  # the part of a thing that the border may cut
        middle = (
            SIZES[1] if attempt < 500 else SIZES[0]
        )  # around many objects only small ones may fit
        wanted = list(sizes) or [
            SIZES[0] * (middle / SIZES[0]) ** next(chance) for _ in range(_MOST)
        ]
        if not sizes and next(chance) < 0.7 and attempt < 500:
            wanted[0] = SIZES[1] + (SIZES[2] - SIZES[1]) * next(chance)
        placed = list(taken)
        for size in sorted(wanted, reverse=True):
            margin, room = (0.5 - cut) * size, CANVAS - (1 - 2 * cut) * size
            for _ in range(24):
                place = margin + room * next(chance), margin + room * next(chance), size
                if all(_overlap(place, other) <= allowed for other in placed):
                    placed.append(place)
                    break
            else:
                break
        central = any(
            max(abs(x - CANVAS / 2), abs(y - CANVAS / 2)) < CANVAS / 8 for x, y, _ in placed
        )
        if len(placed) == len(taken) + len(wanted) and (
            central or next(chance) < _KEPT_WITHOUT_MIDDLE
        ):
            order = (
                np.argsort(np.argsort(-np.array(wanted), kind="stable"))
                if sizes
                else rng.permutation(_MOST)
            )
            return [placed[len(taken) + i] for i in order]
    raise GradeclipError(
        f"there is no room for other objects beside these {len(around)}: give all of them a place"
    )


def _lay_out(things: Sequence[Object], layout: Sequence[_Place]) -> list[Object]:
    return [
        replace(thing, x=x, y=y, size=size)
        for thing, (x, y, size) in zip(things, layout, strict=False)
    ]


def _in_places(rng: np.random.Generator, things: Sequence[Object]) -> list[Object]:
    """Give objects random places; nothing hides more than a quarter of another."""
    if rng.random() < 0.35:
        nouns = concepts().index
        others = [
            _drawn(rng, nouns[i], None) for i in rng.integers(len(nouns), size=_MOST - len(things))
        ]
        for _ in range(20):
            layout = draw_layout(rng, overlapping=True)
            placed = _lay_out([*things, *others], layout)
            if (
                not any(starmap(_overlap, combinations(layout, 2)))
                or _hidden(placed).max() <= _OVERLAP
            ):
                return placed[: len(things)]
    return _lay_out(things, draw_layout(rng))


def _hidden(objects: Sequence[Object]) -> np.ndarray:
    """Which fraction (objects,) of each object's pixels objects in front of it hide."""
    alone = np.array([covered([thing], CANVAS).sum() for thing in objects])
    return 1 - covered(objects, CANVAS).sum((1, 2)) / np.maximum(alone, 1)


def _drawn(rng: np.random.Generator, noun: str, colour: str | None) -> Object:
    """One object without a place: its artist, mirrored or not, tilt, and a small shift of its own colours."""
    known = [a for a in artists_of(noun) if a in TRAINED_ARTISTS]
    chance = rng.random(5)
    mirrored = bool(chance[1] < 0.5) and noun not in NOT_MIRRORED
    tilt = 30 * float(chance[2]) - 15
    own = (
        {}
        if colour
        else {"hue": 24 * float(chance[3]) - 12, "lightness": 0.85 + 0.25 * float(chance[4])}
    )
    return Object(
        noun, known[int(chance[0] * len(known))], colour, mirrored=mirrored, tilt=tilt, **own
    )


def arrange(
    objects: Sequence[Object | str], *, seed: int = 0, background: int | None = None, **caption: Any
) -> Scene:
    """Arrange a scene from objects, or from words such as `"red car"`, which are laid out as in a random scene.

    >>> arrange(["red car", "blue ball"]).caption
    'a red car and a blue ball'

    Args:
        objects: the things, in the order of the caption. An `Object` stays where it is.
        seed: decides where the words go, how they are drawn, and the background unless one is
            given.
        background: the number of the background. **caption: phrases for `describe`, such as
        `relation="above"`. Words are laid out so that a relation holds; for
            objects that have a place it is not checked, because false captions are useful too.

    Raises:
        GradeclipError: a word that the world does not have, more than four words, or no room for
            them.
    """
    objects = listed("objects", objects, (str, Object))
    words = [o for o in objects if isinstance(o, str)]
    if not objects or len(words) > _MOST:
        held = f"a scene holds an object or more, and {_MOST} words at most"
        raise GradeclipError(f"{held}: {len(words)} were given; place more as Objects yourself")
    rng = np.random.default_rng([SPLITS["development"], 5, checks.seed(seed)])
    things = [one if isinstance(one, Object) else _of_words(rng, one) for one in objects]
    text, spans = describe(
        things, **caption
    )  # which says what is wrong with it, and knows no places
    relation = caption.get("relation", "")
    kind = "size" if relation.endswith("than") else "position"
    if words:
        given = [o for o in objects if isinstance(o, Object)]
        said = [thing for thing, one in zip(things, objects, strict=True) if isinstance(one, str)]
        for _ in range(200):
            placed = iter(_lay_out(said, draw_layout(rng, around=given)))
            things = [next(placed) if isinstance(one, str) else one for one in objects]
            pairs = product(*grouped(things, caption.get("unnamed", ())))
            if not relation or all(
                relation_between(things[i], things[k], kind) == relation for i, k in pairs
            ):
                break
        else:
            raise GradeclipError(
                f"no layout was found in which {relation!r} holds: place Objects yourself"
            )
    if background is None:
        background = int(rng.integers(BACKGROUNDS)) if words else 0
    return Scene(tuple(things), text, spans, background)


def as_python(scene: Scene) -> str:
    """Return the shortest Python that makes a scene again: from its words with a small seed, or from its objects."""
    words = [f"{thing.colour or ''} {thing.noun}".strip() for thing in scene.objects]
    with suppress(
        GradeclipError
    ):  # a scene that somebody made may have things that no caption says
        for seed in range(_SEEDS if len(words) <= _MOST else 0):
            if arrange(words, seed=seed) == scene:
                return f"arrange({words!r}{f', seed={seed}' if seed else ''})"
        unnamed = list(scene.unnamed)
        if arrange(list(scene.objects), background=scene.background, unnamed=unnamed) == scene:
            more = f", unnamed={unnamed}" if unnamed else ""
            return f"arrange({list(scene.objects)!r}, background={scene.background}{more})"
    return repr(scene)


def _of_words(rng: np.random.Generator, words: str) -> Object:
    *colour, noun = instance("each of objects", words, str, "words or an Object").split() or [""]
    if noun not in concepts().index or len(colour) > 1 or any(c not in COLOURS for c in colour):
        known = f"a noun of concepts(), after one of {', '.join(COLOURS)} if you like"
        raise GradeclipError(f"{short(words)} is not in the world of the scenes: use {known}")
    return _drawn(rng, noun, colour[0] if colour else None)


@cache
def _keyword_weights() -> dict[str, np.ndarray]:
    """The frequency of each keyword of each noun: rarer words are drawn more often, so that exposure evens out."""
    keywords = concepts()["keywords"]
    counts = keywords.explode().value_counts()
    weights = {noun: np.array([1 / counts[k] for k in words]) for noun, words in keywords.items()}
    return {noun: w / w.sum() for noun, w in weights.items() if len(w)}


def _draw_groups(
    rng: np.random.Generator, n: int, tint: float
) -> list[tuple[str, str | None, int]]:
    """Noun, colour and number of each group of like objects, `n` objects together; nothing that is withheld."""
    nouns = concepts().index
    while True:
        counts = [1] * n
        if n > 1 and rng.random() < 0.2:  # some groups are several of a kind
            k = int(rng.integers(2, n + 1))
            counts = [k] + [1] * (n - k)
        chosen = [nouns[i] for i in rng.choice(len(nouns), len(counts), replace=False)]
        colours = [
            list(COLOURS)[rng.integers(len(COLOURS))] if rng.random() < tint else None
            for _ in counts
        ]
        bad_count = any(
            c > 1 and not concept(noun)["plural"] for noun, c in zip(chosen, counts, strict=True)
        )
        withheld = [
            *map(is_withheld_colour, chosen, colours),
            *starmap(is_withheld_pair, combinations(chosen, 2)),
        ]
        if not (bad_count or any(withheld)):
            order = rng.permutation(len(counts))
            return [(chosen[i], colours[i], counts[i]) for i in order]


def draw_scene(
    seed: int | Sequence[int],
    *,
    split: str = "train",
    n_objects: int | None = None,
    tint: float = 0.35,
    plain: bool = False,
    groups: Sequence[tuple[str, str | None, int]] | None = None,
) -> Scene:
    """Draw a random scene; the same seed and split always give the same one.

    Training never shows some compositions and one artist; random scenes leave them out, except for
    `groups`. Without `plain` or `groups`, a third of the scenes of several things leave one or two
    unnamed, and a third of the colours are not mentioned.

    Args:
        seed: one or several non-negative integers, which numpy pads with zeros: 5, [5] and [5, 0]
            are one scene.
        split: "train", "development" (for all tuning) or "test" (for published figures only).
        n_objects: 1 to 4; by default 30, 30, 20 and 20 % of the scenes.
        tint: the fraction of objects that get a colour.
        plain: write only the list of all objects and their colours: no prefix, size, keyword or
            relation.
        groups: the things, as (noun, colour, number) of each group of like objects. The caption
            names all of them.

    Raises:
        GradeclipError: a split, number of objects, noun or colour that the world does not have.
    """
    seeds = [checks.seed(one) for one in listed("seed", seed, (Integral, float, str))]
    rng = np.random.default_rng([SPLITS[chosen("split", split, SPLITS)], *seeds])
    checks.number("tint", tint, 0, 1)
    all_said = flag("plain", plain) or groups is not None
    if groups is None:
        drawn = int(rng.choice(4, p=[0.3, 0.3, 0.2, 0.2])) + 1 if n_objects is None else n_objects
        groups = _draw_groups(rng, whole("n_objects", drawn, 1, _MOST), tint)
    else:
        groups = [_as_group(one) for one in listed("groups", groups)]
        whole("the number of objects in groups", sum(number for *_, number in groups), 1, _MOST)
    members = [i for i, (*_, number) in enumerate(groups) for _ in range(number)]
    things = _in_places(rng, [_drawn(rng, *groups[i][:2]) for i in members])
    left_out: set[int] = set()
    if len(groups) > 1 and not all_said and rng.random() < 1 / 3:
        n_left_out = 2 if len(groups) > 2 and rng.random() < 0.3 else 1
        left_out = set(rng.permutation(len(groups))[:n_left_out].tolist())
    unnamed = [i for i, group in enumerate(members) if group in left_out]
    phrases, relation, prefix = {}, "", ""
    if not plain:
        phrases, relation, prefix = _draw_phrases(rng, things, grouped(things, unnamed), all_said)
    text, spans = describe(things, relation, prefix, unnamed, **phrases)
    return Scene(tuple(things), text, spans, background=int(rng.integers(BACKGROUNDS)))


def _as_group(given: Any) -> tuple[str, str | None, int]:
    if not isinstance(given, (tuple, list)) or len(given) != 3:
        raise GradeclipError(f"a group of objects is (noun, colour, number), got {short(given)}")
    noun, colour, number = given
    return noun, colour, whole("the number of a group", number, 1, _MOST)


def showable(scene: Scene) -> bool:
    """Whether the border cuts nothing and no thing is smaller than an eighth of the image's side."""
    for mask in (covered([thing], CANVAS)[0] for thing in scene.objects):
        rows, columns = mask.any(1), mask.any(0)
        if (
            rows[[0, -1]].any()
            or columns[[0, -1]].any()
            or max(rows.sum(), columns.sum()) < CANVAS / 8
        ):
            return False
    return True


def _draw_phrases(
    rng: np.random.Generator,
    things: Sequence[Object],
    named_groups: Sequence[Sequence[int]],
    all_said: bool,
) -> tuple[dict, str, str]:
    """Draw sizes, keywords, a relation and an opening for a caption."""
    n = len(named_groups)
    chance = rng.random((n, 4))
    said, tags, named, colour = [], [], [], []
    for i, members in enumerate(named_groups):
        sizes = [things[k].size for k in members]
        size = "small" if max(sizes) < SMALL else "big" if min(sizes) > BIG else ""
        said.append(size if chance[i, 0] < 0.5 else "")
        weights = _keyword_weights().get(things[members[0]].noun)
        tagged = weights is not None and chance[i, 1] < 0.25
        tags.append(
            str(rng.choice(concept(things[members[0]].noun)["keywords"], p=weights))
            if tagged
            else ""
        )
        named.append(not tagged or len(members) > 1 or chance[i, 2] < 0.5)
        colour.append(bool(all_said or chance[i, 3] < 0.65))
    relation = ""
    if n == 2 and all(len(m) == 1 for m in named_groups) and rng.random() < 0.4:
        first, second = (things[members[0]] for members in named_groups)
        relation = relation_between(
            first, second, kind=str(rng.choice(["position", "position", "size"]))
        )
        said = ["", ""] if relation.endswith("than") else said
    prefix = str(rng.choice(PREFIXES)) if rng.random() < 0.4 else ""
    return {"size": said, "tag": tags, "named": named, "colour": colour}, relation, prefix


def without(scene: Scene, index: int) -> Scene:
    """The same image without one object, plainly described."""
    objects = instance("scene", scene, Scene, "made by arrange or draw_scene").objects
    whole("index", index, 0, len(objects) - 1)
    things = [thing for i, thing in enumerate(objects) if i != index]
    unnamed = [i - (i > index) for i in scene.unnamed if i != index]
    unnamed = unnamed if len(unnamed) < len(things) else []  # somebody has to be named
    return arrange(things, background=scene.background, unnamed=unnamed)


def recoloured(scene: Scene, colours: Sequence[str | None]) -> Scene:
    """The same objects in other colours (None: its own), plainly described; swapped colours test binding."""
    objects = instance("scene", scene, Scene, "made by arrange or draw_scene").objects
    if len(colours := listed("colours", colours)) != len(objects):
        raise GradeclipError(f"the scene has {len(objects)} objects, got {len(colours)} colours")
    things = [replace(thing, colour=colour) for thing, colour in zip(objects, colours, strict=True)]
    return arrange(things, background=scene.background)
