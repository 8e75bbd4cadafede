"""Scenes of one to four things, random or arranged by hand, with the ground truth about each.

    grammar, emoji -> Scene: image, caption, masks, spans

Things lie anywhere on a varied background. As in real captions, not every thing is named and not
every colour is mentioned. `Scene.masks`, `Scene.spans` and `Scene.unnamed` have the truth.
"""

import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations, product, starmap
from pprint import pformat
from typing import Any

import numpy as np
from PIL import Image

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
from .grammar import PREFIXES, Span, describe, grouped, relation_between

SPLITS = {"train": 0, "development": 1, "test": 2}  # seeds of different splits never meet
MAX_OBJECTS = 4  # that a layout has room for

# in canvas units: most objects are between the first two; of some scenes, one is larger
SIZES = (26.0, 48.0, 70.0)
SMALL = 30.0  # what a caption may call small and big
BIG = 42.0

_Place = tuple[float, float, float]  # x, y, size
_Group = tuple[str, str | None, int]  # noun, colour, number of like objects

_LAYOUT_ATTEMPTS = 1000
_PLACE_ATTEMPTS = 24  # for one object of a layout
_OVERLAP = 0.25  # how much of an object may be hidden, in the scenes in which objects overlap
# packing tends to leave the middle empty: layouts that do are taken less often than others
_EMPTY_MIDDLE_TAKEN = 0.35
_PYTHON_WIDTH = 88  # columns of its lines
_PYTHON_SEEDS = 32  # of `arrange` that `as_python` tries


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

    def image(self, size: int = IMAGE_SIZE) -> Image.Image:
        """The image, RGB, `size` pixels on a side."""
        image = Image.fromarray(render(self.objects, self.background, size))
        image.info[DRAWN] = "yes"
        return image

    def spans_of(self, start: int, end: int) -> list[Span]:
        """The spans that share a character with those from `start` to `end` of the caption."""
        return [span for span in self.spans if span.start < end and start < span.end]

    def masks(self, size: int = IMAGE_SIZE) -> np.ndarray:
        """Which pixels each object covers, (objects, size, size) bool; the front hides others."""
        return covered(self.objects, size)

    def words_of(self, kind: str) -> list[tuple[str, tuple[int, ...]]]:
        """The words of one kind of `Span`, each with the objects (indices) that it describes."""
        spans = [span for span in self.spans if span.kind == kind]
        return [(self.caption[span.start : span.end], span.objects) for span in spans]

    @property
    def unnamed(self) -> tuple[int, ...]:
        """The objects (indices) that the caption does not mention."""
        named: set[int] = set()
        for span in self.spans:
            named.update(span.objects)
        return tuple(i for i in range(len(self.objects)) if i not in named)

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        # matplotlib is slow to import, and drawing scenes does without
        from ..plots.figures import bundle

        return bundle(self.image(), f"a scene: {self.caption}")


# ------------------------------------------------------------------ what training never shows


def is_withheld_colour(noun: str, colour: str | None) -> bool:
    """Whether training never shows this noun in this colour."""
    return colour is not None and _one_in_ten("colour", noun, colour)


def is_withheld_pair(noun: str, other: str) -> bool:
    """Whether training never shows these two nouns in one scene."""
    return noun != other and _one_in_ten("pair", *sorted((noun, other)))


def _one_in_ten(*names: str) -> bool:
    """Whether a checksum withholds these names; it is the same on every machine."""
    return zlib.crc32("|".join(names).encode()) % 10 == 0


# ----------------------------------------------------------------------------------- layouts


def draw_layout(
    rng: np.random.Generator,
    *,
    around: Sequence[Object] = (),
    overlapping: bool = False,
    sizes: Sequence[float] = (),
) -> list[_Place]:
    """Places (x, y, size) for four objects in random order, or for objects of given sizes.

    All four are always laid out, and a scene of fewer takes the first of them: places and sizes do
    not depend on the number of things. `around` are objects that stay where they are.
    """
    allowed_overlap = _OVERLAP if overlapping else 0.02
    taken = [(thing.x, thing.y, thing.size) for thing in around]

    for attempt in range(_LAYOUT_ATTEMPTS):
        # a list of numbers from one call is ten times as fast as one call a number
        chance = iter(rng.random(16 + 48 * MAX_OBJECTS).tolist())
        cut = 0.2 if next(chance) < 0.4 else 0.0  # the part of a thing that the border may cut
        new_sizes = list(sizes)
        if not sizes:
            new_sizes = _draw_sizes(chance, small=attempt >= _LAYOUT_ATTEMPTS // 2)

        places = _pack(chance, new_sizes, taken, cut, allowed_overlap)
        if places is None:
            continue
        if not _fills_middle(taken + places) and next(chance) >= _EMPTY_MIDDLE_TAKEN:
            continue

        # places are in the order of falling sizes
        if sizes:
            order = np.argsort(np.argsort(-np.array(sizes), kind="stable"))
        else:
            order = rng.permutation(MAX_OBJECTS)
        return [places[i] for i in order]

    raise GradeclipError(
        f"there is no room for other objects beside these {len(around)}: give all of them a place"
    )


def _draw_sizes(chance: Iterator[float], small: bool) -> list[float]:
    """Sizes of four objects; around many objects only `small` ones may fit."""
    smallest, middle, largest = SIZES
    if small:
        middle = smallest
    sizes = [smallest * (middle / smallest) ** next(chance) for _ in range(MAX_OBJECTS)]
    if next(chance) < 0.7 and not small:
        sizes[0] = middle + (largest - middle) * next(chance)
    return sizes


def _pack(
    chance: Iterator[float],
    sizes: Sequence[float],
    taken: list[_Place],
    cut: float,
    allowed_overlap: float,
) -> list[_Place] | None:
    """Places for objects, the largest first, beside those taken; None if one has no room."""
    places: list[_Place] = []
    for size in sorted(sizes, reverse=True):
        margin = (0.5 - cut) * size
        room = CANVAS - (1 - 2 * cut) * size
        for _ in range(_PLACE_ATTEMPTS):
            place = (margin + room * next(chance), margin + room * next(chance), size)
            if all(_overlap(place, other) <= allowed_overlap for other in taken + places):
                places.append(place)
                break
        else:
            return None
    return places


def _fills_middle(places: Sequence[_Place]) -> bool:
    """Whether the centre of a thing lies in the middle sixteenth of the canvas."""
    centre = CANVAS / 2
    return any(max(abs(x - centre), abs(y - centre)) < CANVAS / 8 for x, y, _ in places)


def _overlap(a: _Place, b: _Place) -> float:
    """The intersection of two squares, as a fraction of the smaller."""
    x_a, y_a, size_a = a
    x_b, y_b, size_b = b
    reach = (size_a + size_b) / 2
    across = reach - abs(x_a - x_b)
    down = reach - abs(y_a - y_b)
    if across <= 0 or down <= 0:
        return 0.0
    smaller = min(size_a, size_b)
    return min(across, smaller) * min(down, smaller) / smaller**2


def _lay_out(things: Sequence[Object], layout: Sequence[_Place]) -> list[Object]:
    placed = []
    for thing, (x, y, size) in zip(things, layout, strict=False):
        placed.append(replace(thing, x=x, y=y, size=size))
    return placed


def _place_randomly(rng: np.random.Generator, things: Sequence[Object]) -> list[Object]:
    """Give objects random places; nothing hides more than a quarter of another."""
    if rng.random() < 0.35:  # they may overlap
        nouns = concepts().index
        fill = [
            _draw_object(rng, nouns[i], None)
            for i in rng.integers(len(nouns), size=MAX_OBJECTS - len(things))
        ]
        for _ in range(20):
            layout = draw_layout(rng, overlapping=True)
            placed = _lay_out([*things, *fill], layout)
            apart = not any(starmap(_overlap, combinations(layout, 2)))
            if apart or hidden_fractions(placed).max() <= _OVERLAP:
                return placed[: len(things)]
    return _lay_out(things, draw_layout(rng))


def hidden_fractions(objects: Sequence[Object]) -> np.ndarray:
    """Which fraction (objects,) of each object's pixels objects in front of it hide."""
    alone = np.array([covered([thing], CANVAS).sum() for thing in objects])
    visible = covered(objects, CANVAS).sum((1, 2))
    return 1 - visible / np.maximum(alone, 1)


# --------------------------------------------------------------------------- arranged by hand


def arrange(
    objects: Sequence[Object | str],
    *,
    seed: int = 0,
    background: int | None = None,
    **caption: Any,
) -> Scene:
    """Arrange a scene from objects, or from words such as `"red car"`.

    >>> arrange(["red car", "blue ball"]).caption
    'a red car and a blue ball'

    Args:
        objects: the things, in the order of the caption. An `Object` stays where it is; words are
            laid out as in a random scene.
        seed: decides where the words go, how they are drawn, and the background unless one is
            given.
        background: the number of the background.
        **caption: phrases for `describe`, such as `relation="above"`. Words are laid out so that a
            relation holds; for objects that have a place it is not checked, because false captions
            are useful too.

    Raises:
        GradeclipError: a word that the world does not have, more than four words, or no room for
            them.
    """
    word_count = sum(isinstance(thing, str) for thing in objects)
    if not objects or word_count > MAX_OBJECTS:
        raise GradeclipError(
            f"a scene holds an object or more, and {MAX_OBJECTS} words at most: "
            f"{word_count} were given; place more as Objects yourself"
        )
    rng = np.random.default_rng([SPLITS["development"], 5, seed])
    things = [
        _object_of_words(rng, thing) if isinstance(thing, str) else thing for thing in objects
    ]
    text, spans = describe(things, **caption)  # refuses a wrong phrase; it knows no places

    if word_count:
        relation = caption.get("relation", "")
        unnamed = caption.get("unnamed", ())
        fixed = [thing for thing in objects if isinstance(thing, Object)]
        for _ in range(200):
            layout = iter(draw_layout(rng, around=fixed))
            for i, thing in enumerate(objects):
                if isinstance(thing, str):
                    x, y, size = next(layout)
                    things[i] = replace(things[i], x=x, y=y, size=size)
            if not relation or _relation_holds(things, relation, unnamed):
                break
        else:
            raise GradeclipError(
                f"no layout was found in which {relation!r} holds: place Objects yourself"
            )
    if background is None:
        background = int(rng.integers(BACKGROUNDS)) if word_count else 0
    return Scene(tuple(things), text, spans, background)


def _relation_holds(things: Sequence[Object], relation: str, unnamed: Sequence[int]) -> bool:
    """Whether a relation holds between all things of the first group and of the second."""
    kind = "size" if relation.endswith("than") else "position"
    pairs = product(*grouped(things, unnamed))
    return all(relation_between(things[i], things[k], kind) == relation for i, k in pairs)


def _object_of_words(rng: np.random.Generator, words: str) -> Object:
    *colours, noun = words.split() or [""]
    if noun not in concepts().index or len(colours) > 1 or not set(colours) <= set(COLOURS):
        raise GradeclipError(
            f"{words!r} is not in the world of the scenes: use a noun of concepts(), "
            f"after one of {', '.join(COLOURS)} if you like"
        )
    return _draw_object(rng, noun, colours[0] if colours else None)


def _draw_object(rng: np.random.Generator, noun: str, colour: str | None) -> Object:
    """One object without a place: artist, mirrored or not, tilt, a shift of its own colours."""
    artists = [artist for artist in artists_of(noun) if artist in TRAINED_ARTISTS]
    chance = rng.random(5).tolist()
    thing = Object(
        noun,
        artists[int(chance[0] * len(artists))],
        colour,
        mirrored=chance[1] < 0.5 and noun not in NOT_MIRRORED,
        tilt=30 * chance[2] - 15,
    )
    if colour is None:
        thing = replace(thing, hue=24 * chance[3] - 12, lightness=0.85 + 0.25 * chance[4])
    return thing


def as_python(scene: Scene) -> str:
    """The shortest Python that makes a scene again: from its words and a seed, or its objects."""
    objects = list(scene.objects)
    words = [f"{thing.colour or ''} {thing.noun}".strip() for thing in objects]
    with suppress(GradeclipError):  # a scene made by hand may have things that no caption says
        if len(words) <= MAX_OBJECTS:
            for seed in range(_PYTHON_SEEDS):
                if arrange(words, seed=seed) == scene:
                    return f"arrange({words!r}, seed={seed})" if seed else f"arrange({words!r})"

        unnamed = list(scene.unnamed)
        if arrange(objects, background=scene.background, unnamed=unnamed) == scene:
            options = f"background={scene.background}"
            if unnamed:
                options += f", unnamed={unnamed}"
            return f"arrange({pformat(objects, width=_PYTHON_WIDTH)}, {options})"
    return pformat(scene, width=_PYTHON_WIDTH)


def without(scene: Scene, index: int) -> Scene:
    """The same image without the object of this index, plainly described.

        without(arrange(["dog", "umbrella"]), 0).caption  # the umbrella alone

    Raises:
        GradeclipError: it is the only object.
    """
    things = [thing for i, thing in enumerate(scene.objects) if i != index]
    unnamed = [i - (i > index) for i in scene.unnamed if i != index]
    if len(unnamed) == len(things):  # somebody has to be named
        unnamed = []
    return arrange(things, background=scene.background, unnamed=unnamed)


def recoloured(scene: Scene, colours: Sequence[str | None]) -> Scene:
    """The same objects in other colours, plainly described.

        recoloured(arrange(["red car", "blue ball"]), ["blue", "red"])

    Swapped colours test binding.

    Args:
        scene: any scene.
        colours: one for each object; None is the object's own.

    Raises:
        GradeclipError: not one colour for each object, or a colour that the world does not have.
    """
    if len(colours) != len(scene.objects):
        raise GradeclipError(
            f"the scene has {len(scene.objects)} objects, got {len(colours)} colours"
        )
    things = [replace(thing, colour=c) for thing, c in zip(scene.objects, colours, strict=True)]
    return arrange(things, background=scene.background)


def showable(scene: Scene) -> bool:
    """Whether nothing is cut by the border or smaller than an eighth of the image's side."""
    for thing in scene.objects:
        mask = covered([thing], CANVAS)[0]
        rows = mask.any(1)
        columns = mask.any(0)
        is_cut = rows[0] or rows[-1] or columns[0] or columns[-1]
        if is_cut or max(rows.sum(), columns.sum()) < CANVAS / 8:
            return False
    return True


# ----------------------------------------------------------------------------- random scenes


def draw_scene(
    seed: int | Sequence[int],
    *,
    split: str = "train",
    n_objects: int | None = None,
    tint: float = 0.35,
    plain: bool = False,
    groups: Sequence[_Group] | None = None,
) -> Scene:
    """Draw a random scene; the same seed and split always give the same one.

    Training never shows some compositions and one artist; random scenes leave them out, except for
    `groups`. Without `plain` or `groups`, a third of the scenes of several things leave one or two
    unnamed, and a third of the colours are not mentioned.

    >>> scene = draw_scene(4, split="test", n_objects=2, plain=True)
    >>> scene.caption
    'a guitar and a chick'
    >>> scene.masks(96).shape
    (2, 96, 96)

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
    if split not in SPLITS:
        raise GradeclipError(f"split must be one of {', '.join(SPLITS)}; got {split!r}")
    seeds = [seed] if isinstance(seed, (int, np.integer)) else list(seed)
    rng = np.random.default_rng([SPLITS[split], *seeds])

    names_all = plain or groups is not None
    if groups is None:
        if n_objects is None:
            n_objects = int(rng.choice(4, p=[0.3, 0.3, 0.2, 0.2])) + 1
        _check_count("n_objects", n_objects)
        groups = _draw_groups(rng, n_objects, tint)
    else:
        _check_count("the number of objects in groups", sum(number for *_, number in groups))

    things = []
    group_of_thing = []
    for i, (noun, colour, number) in enumerate(groups):
        things += [_draw_object(rng, noun, colour) for _ in range(number)]
        group_of_thing += [i] * number
    things = _place_randomly(rng, things)

    left_out: list[int] = []
    if len(groups) > 1 and not names_all and rng.random() < 1 / 3:
        count = 2 if len(groups) > 2 and rng.random() < 0.3 else 1
        left_out = rng.permutation(len(groups))[:count].tolist()
    unnamed = [i for i, group in enumerate(group_of_thing) if group in left_out]

    phrases: dict[str, Any] = {}
    if not plain:
        phrases = _draw_phrases(rng, things, grouped(things, unnamed), names_all)
    text, spans = describe(things, unnamed=unnamed, **phrases)
    return Scene(tuple(things), text, spans, background=int(rng.integers(BACKGROUNDS)))


def _check_count(name: str, count: int) -> None:
    if not 1 <= count <= MAX_OBJECTS:
        raise GradeclipError(f"{name} must be from 1 to {MAX_OBJECTS}, got {count}")


def _draw_groups(rng: np.random.Generator, n: int, tint: float) -> list[_Group]:
    """Groups of like objects, `n` objects together; nothing that is withheld."""
    all_nouns = concepts().index
    while True:
        counts = [1] * n
        if n > 1 and rng.random() < 0.2:  # some groups are several of a kind
            k = int(rng.integers(2, n + 1))
            counts = [k] + [1] * (n - k)
        nouns = [all_nouns[i] for i in rng.choice(len(all_nouns), len(counts), replace=False)]
        colours = [_draw_colour(rng, tint) for _ in counts]

        several = [noun for noun, count in zip(nouns, counts, strict=True) if count > 1]
        without_plural = not all(concept(noun)["plural"] for noun in several)
        withheld_colour = any(map(is_withheld_colour, nouns, colours))
        withheld_pair = any(starmap(is_withheld_pair, combinations(nouns, 2)))
        if not (without_plural or withheld_colour or withheld_pair):
            return [(nouns[i], colours[i], counts[i]) for i in rng.permutation(len(counts))]


def _draw_colour(rng: np.random.Generator, tint: float) -> str | None:
    if rng.random() < tint:
        return list(COLOURS)[rng.integers(len(COLOURS))]
    return None


def _draw_phrases(
    rng: np.random.Generator,
    things: Sequence[Object],
    named_groups: Sequence[Sequence[int]],
    names_all: bool,
) -> dict[str, Any]:
    """Draw sizes, keywords, a relation and an opening for a caption: keywords of `describe`."""
    sizes = []
    tags = []
    named = []
    colours = []
    for members, chance in zip(named_groups, rng.random((len(named_groups), 4)), strict=True):
        size = _size_word([things[k].size for k in members])
        sizes.append(size if chance[0] < 0.5 else "")

        noun = things[members[0]].noun
        tag = ""
        if noun in _keyword_weights() and chance[1] < 0.25:
            tag = str(rng.choice(concept(noun)["keywords"], p=_keyword_weights()[noun]))
        tags.append(tag)
        named.append(not tag or len(members) > 1 or chance[2] < 0.5)
        colours.append(bool(names_all or chance[3] < 0.65))

    relation = ""
    all_single = all(len(members) == 1 for members in named_groups)
    if len(named_groups) == 2 and all_single and rng.random() < 0.4:
        first, second = (things[members[0]] for members in named_groups)
        kind = str(rng.choice(["position", "position", "size"]))
        relation = relation_between(first, second, kind)
        if relation.endswith("than"):
            sizes = ["", ""]

    prefix = str(rng.choice(PREFIXES)) if rng.random() < 0.4 else ""
    return {
        "relation": relation,
        "prefix": prefix,
        "size": sizes,
        "tag": tags,
        "named": named,
        "colour": colours,
    }


def _size_word(sizes: Sequence[float]) -> str:
    """What a caption may say of the sizes of like objects: "small", "big" or ""."""
    if max(sizes) < SMALL:
        return "small"
    if min(sizes) > BIG:
        return "big"
    return ""


@cache
def _keyword_weights() -> dict[str, np.ndarray]:
    """The frequency of each keyword of each noun that has any.

    Rarer words are drawn more often, so that exposure evens out.
    """
    keywords = concepts()["keywords"]
    counts = keywords.explode().value_counts()
    weights = {}
    for noun, words in keywords.items():
        if words:
            inverse = np.array([1 / counts[word] for word in words])
            weights[noun] = inverse / inverse.sum()
    return weights
