"""Grammar: the small language that describes scenes, and which words describe which object."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby

from ..checks import chosen, flag, listed, short, text, whole
from ..errors import GradeclipError
from .emoji import COLOURS, Object, concept, concepts

_NUMBERS = {2: "two", 3: "three", 4: "four"}
PREFIXES = ("a photo of", "a picture of", "an image of", "a drawing of", "here is", "i see")
_POSITIONS = ("to the left of", "to the right of", "above", "below")
_RELATIONS = (*_POSITIONS, "bigger than", "smaller than")
SPANS = ("noun", "colour", "size", "count", "keyword", "relation", "something")  # kinds of them
_CLEARLY = 1.25  # by what ratio of sizes one object is bigger than another
_Part = tuple[
    str, str, Sequence[int]
]  # a word or phrase, the kind of its span or "", and the objects it describes


@dataclass(frozen=True)
class Span:
    """A part of a caption and the objects that it describes."""

    start: int  # its first character
    end: int  # the character behind its last
    kind: str  # one of SPANS
    objects: tuple[int, ...]  # indices


def vocabulary() -> list[str]:
    """All words that captions use, in alphabetical order."""
    table = concepts()
    grammar = ("a", "an", "and", "something", "tagged", "bigger", "smaller", "than", "big", "small")
    words = {*grammar, *COLOURS, *_NUMBERS.values(), *table["noun"], *table["plural"]}
    words.update(word for keywords in table["keywords"] for word in keywords)
    words.update(word for phrase in (*PREFIXES, *_POSITIONS) for word in phrase.split())
    return sorted(words - {""})


def grouped(objects: Sequence[Object], unnamed: Collection[int] = ()) -> list[list[int]]:
    """The indices of objects in the order of a caption; neighbours of one noun and colour are one group."""
    named = [i for i in range(len(objects)) if i not in unnamed]
    return [
        list(group)
        for _, group in groupby(named, key=lambda i: (objects[i].noun, objects[i].colour))
    ]


def describe(
    objects: Sequence[Object],
    relation: str = "",
    prefix: str = "",
    unnamed: Collection[int] = (),
    **phrases: Sequence,
) -> tuple[str, tuple[Span, ...]]:
    """The caption of objects in the order given, like neighbours grouped, and its spans.

    >>> describe([Object("car", colour="red"), Object("dog")], relation="above")[0]
    'a red car above a dog'

    Args:
        objects: the things of the scene.
        relation: between two groups, such as "above" or "bigger than".
        prefix: the beginning of the caption, one of `PREFIXES`.
        unnamed: indices of objects that the caption leaves out. **phrases: `size`, `tag`, `named`
        and `colour`, each with one value per group: "small", "big" or ""; a keyword
            or ""; whether the noun is written, or "something"; whether the colour is written.

    Raises:
        GradeclipError: no object is named, or a phrase is not one that captions have.
    """
    unnamed = [whole("each of unnamed", i, 0, len(objects) - 1) for i in listed("unnamed", unnamed)]
    if not (groups := grouped(objects, unnamed)):
        raise GradeclipError("a caption names an object or more, and all of them are in unnamed")
    if text("prefix", prefix):
        chosen("prefix", prefix, PREFIXES)
    if text("relation", relation) and chosen("relation", relation, _RELATIONS) and len(groups) != 2:
        raise GradeclipError(f"{relation!r} needs two groups of things, got {len(groups)}")
    for key, values in phrases.items():
        chosen("a phrase", key, ("size", "tag", "named", "colour"))
        if not isinstance(values, (list, tuple)) or len(values) != len(groups):
            raise GradeclipError(
                f"{key} must be a list of {len(groups)}, one per group, got {short(values)}"
            )
        for value in values:
            if key in ("named", "colour"):
                flag(f"each of {key}", value)
            elif text(f"each of {key}", value) and key == "size":
                chosen("each of size", value, ("small", "big"))
    parts: list[_Part] = [(prefix, "", ())] if prefix else []
    for i, members in enumerate(groups):
        if i and relation:
            parts.append((relation, "relation", (groups[0][0], groups[1][0])))
        elif i:
            parts.append(("and" if i == len(groups) - 1 else ",", "", ()))
        parts += _noun_phrase(
            objects, members, **{key: values[i] for key, values in phrases.items()}
        )
    caption, spans = "", []
    for said, kind, described in parts:
        caption += " " if caption and said != "," else ""
        if kind:
            spans.append(Span(len(caption), len(caption) + len(said), kind, tuple(described)))
        caption += said
    return caption, tuple(spans)


def _noun_phrase(
    things: Sequence[Object],
    members: Sequence[int],
    size: str = "",
    tag: str = "",
    named: bool = True,
    colour: bool = True,
) -> list[_Part]:
    """Return the parts that name one group of like objects: `two red cars`, `something tagged peace`."""
    entry, tint, count = concept(things[members[0]].noun), things[members[0]].colour, len(members)
    if count > 1 and not (entry["plural"] and count in _NUMBERS):
        raise GradeclipError(
            f"no caption says {count} of {entry['noun']!r}: up to four of what has a plural are said"
        )
    before = [(size, "size"), (tint if colour else "", "colour")] if named else []
    head = (
        (entry["plural" if count > 1 else "noun"], "noun") if named else ("something", "something")
    )
    parts: list[_Part] = [(word, kind, members) for word, kind in [*before, head] if word]
    first = parts[0][0]
    if count > 1:
        parts.insert(0, (_NUMBERS[count], "count", members))
    elif named and entry["article"]:
        parts.insert(0, ("an" if first[0] in "aeiou" and first != "unicorn" else "a", "", ()))
    return parts + ([("tagged", "", ()), (tag, "keyword", members)] if tag else [])


def phrase(*nouns: str, colour: str | None = None) -> str:
    """The caption of nouns: "a red car", "a cat and a dog", "two cats" for the same noun twice."""
    return describe([Object(noun, colour=colour) for noun in nouns])[0]


def relation_between(first: Object, second: Object, kind: str = "position") -> str:
    """The relation of the first object to the second, by position or size; "" if neither is clearly bigger."""
    if kind == "size":
        ratio = first.size / second.size
        return "bigger than" if ratio > _CLEARLY else "smaller than" if ratio < 1 / _CLEARLY else ""
    across, down = first.x - second.x, first.y - second.y
    if abs(across) >= abs(down):
        return "to the left of" if across < 0 else "to the right of"
    return "above" if down < 0 else "below"
