"""Grammar: the small language that describes scenes, and which words describe which object."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby

from ..errors import GradeclipError
from .emoji import COLOURS, Object, concept, concepts

PREFIXES = ("a photo of", "a picture of", "an image of", "a drawing of", "here is", "i see")
_NUMBERS = {2: "two", 3: "three", 4: "four"}
_POSITIONS = ("to the left of", "to the right of", "above", "below")
_RELATIONS = (*_POSITIONS, "bigger than", "smaller than")
_CLEARLY = 1.25  # by what ratio of sizes one object is bigger than another

# a word or phrase, the kind of its span or "", and the objects that it describes
_Part = tuple[str, str, Sequence[int]]


@dataclass(frozen=True)
class Span:
    """A part of a caption and the objects that it describes."""

    start: int  # its first character
    end: int  # the character behind its last
    kind: str  # noun, colour, size, count, keyword, relation or something
    objects: tuple[int, ...]  # indices


def vocabulary() -> list[str]:
    """All words that captions use, in alphabetical order.

    "umbrella" in vocabulary()
    """
    table = concepts()
    grammar = ("a", "an", "and", "something", "tagged", "bigger", "smaller", "than", "big", "small")
    words = {*grammar, *COLOURS, *_NUMBERS.values(), *table["noun"], *table["plural"]}
    words.update(*table["keywords"])
    for phrase_ in (*PREFIXES, *_POSITIONS):
        words.update(phrase_.split())
    return sorted(words - {""})


def grouped(objects: Sequence[Object], unnamed: Collection[int] = ()) -> list[list[int]]:
    """The indices of objects in the order of a caption, like neighbours together."""
    named = [i for i in range(len(objects)) if i not in unnamed]
    groups = groupby(named, key=lambda i: (objects[i].noun, objects[i].colour))
    return [list(group) for _, group in groups]


def describe(
    objects: Sequence[Object],
    relation: str = "",
    prefix: str = "",
    unnamed: Collection[int] = (),
    *,
    size: Sequence[str] | None = None,
    tag: Sequence[str] | None = None,
    named: Sequence[bool] | None = None,
    colour: Sequence[bool] | None = None,
) -> tuple[str, tuple[Span, ...]]:
    """The caption of objects in the order given, like neighbours grouped, and its spans.

    >>> describe([Object("car", colour="red"), Object("dog")], relation="above")[0]
    'a red car above a dog'

    Args:
        objects: the things of the scene.
        relation: between two groups, such as "above" or "bigger than".
        prefix: the beginning of the caption, one of `PREFIXES`.
        unnamed: indices of objects that the caption leaves out.
        size: "small", "big" or "" for each group.
        tag: a keyword or "" for each group.
        named: for each group whether its noun is written, or "something".
        colour: for each group whether its colour is written.

    Raises:
        GradeclipError: a relation that captions do not have or that has not two groups, or several
            of what has no plural.
    """
    groups = grouped(objects, unnamed)
    if relation and relation not in _RELATIONS:
        raise GradeclipError(f"relation must be one of {', '.join(_RELATIONS)}; got {relation!r}")
    if relation and len(groups) != 2:
        raise GradeclipError(f"{relation!r} needs two groups of things, got {len(groups)}")

    parts: list[_Part] = []
    if prefix:
        parts.append((prefix, "", ()))
    for i, members in enumerate(groups):
        if i > 0 and relation:
            parts.append((relation, "relation", (groups[0][0], groups[1][0])))
        elif i > 0:
            parts.append(("and" if i == len(groups) - 1 else ",", "", ()))
        parts += _noun_phrase(
            objects,
            members,
            size=size[i] if size else "",
            tag=tag[i] if tag else "",
            named=named[i] if named else True,
            colour=colour[i] if colour else True,
        )

    caption = ""
    spans = []
    for text, kind, described in parts:
        if caption and text != ",":
            caption += " "
        if kind:
            spans.append(Span(len(caption), len(caption) + len(text), kind, tuple(described)))
        caption += text
    return caption, tuple(spans)


def _noun_phrase(
    things: Sequence[Object],
    members: Sequence[int],
    *,
    size: str,
    tag: str,
    named: bool,
    colour: bool,
) -> list[_Part]:
    """The parts that name one group of like objects: `two red cars`, `something tagged peace`."""
    thing = things[members[0]]
    entry = concept(thing.noun)
    count = len(members)
    if count > 1 and not (entry["plural"] and count in _NUMBERS):
        raise GradeclipError(
            f"no caption says {count} of {entry['noun']!r}: up to four of what has a plural"
        )

    parts: list[_Part] = []
    if named:
        if size:
            parts.append((size, "size", members))
        if thing.colour and colour:
            parts.append((thing.colour, "colour", members))
        parts.append((entry["plural" if count > 1 else "noun"], "noun", members))
    else:
        parts.append(("something", "something", members))

    if count > 1:
        parts.insert(0, (_NUMBERS[count], "count", members))
    elif named and entry["article"]:
        parts.insert(0, (article(parts[0][0]), "", ()))
    if tag:
        parts += [("tagged", "", ()), (tag, "keyword", members)]
    return parts


def article(word: str) -> str:
    """The indefinite article before a word of the world."""
    return "an" if word[0] in "aeiou" and word != "unicorn" else "a"


def phrase(*nouns: str, colour: str | None = None) -> str:
    """The caption of nouns: "a red car", "a cat and a dog", "two cats" for the same noun twice."""
    return describe([Object(noun, colour=colour) for noun in nouns])[0]


def relation_between(first: Object, second: Object, kind: str = "position") -> str:
    """The relation of the first object to the second; "" if neither is clearly bigger.

    `kind` is "position" or "size".
    """
    if kind == "size":
        ratio = first.size / second.size
        if ratio > _CLEARLY:
            return "bigger than"
        return "smaller than" if ratio < 1 / _CLEARLY else ""

    across = first.x - second.x
    down = first.y - second.y
    if abs(across) >= abs(down):
        return "to the left of" if across < 0 else "to the right of"
    return "above" if down < 0 else "below"
