"""Grammar: the small language in which scenes are described, and which words speak of which object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .art import concept, concepts
from .emoji import COLOURS, Object

NUMBERS = {2: "two", 3: "three", 4: "four"}
PREFIXES = ("a photo of", "a picture of", "an image of", "a drawing of", "here is", "i see")
POSITIONS = ("to the left of", "to the right of", "above", "below")


@dataclass(frozen=True)
class Span:
    """Part of a caption (characters `start` to `end`), its kind, and the objects (indices) that it speaks of.

    Kinds: noun, colour, size, count, keyword, relation, something.
    """

    start: int
    end: int
    kind: str
    objects: tuple[int, ...]


def vocabulary() -> list[str]:
    """Every word that a caption can hold, in alphabetical order."""
    table = concepts(removed=True)
    grammar = ("a", "an", "and", "something", "tagged", "bigger", "smaller", "than", "big", "small")
    words = {*grammar, *COLOURS, *NUMBERS.values(), *table["noun"], *table["plural"]}
    words.update(word for keywords in table["keywords"] for word in keywords)
    words.update(word for phrase in (*PREFIXES, *POSITIONS) for word in phrase.split())
    return sorted(words - {""})


class _Caption:
    """A caption as it is written: text, and what each word speaks of."""

    def __init__(self) -> None:
        self.text, self.spans = "", []

    def say(self, text: str, kind: str | None = None, objects: Sequence[int] = ()) -> None:
        """Add a word or phrase; with a kind, remember what it speaks of."""
        if self.text and text != ",":
            self.text += " "
        if kind:
            self.spans.append(Span(len(self.text), len(self.text) + len(text), kind, tuple(objects)))
        self.text += text

    def name(self, things: Sequence[Object], members: Sequence[int], *, size="", tag="", named=True) -> None:
        """Write the noun phrase of one group of like objects: `two red cars`, `something tagged peace`."""
        entry, colour = concept(things[members[0]].noun), things[members[0]].colour
        several = len(members) > 1
        words = [(size, "size"), (colour or "", "colour")] if named else []
        head = entry["plural" if several else "noun"] if named else "something"
        words = [w for w in [*words, (head, "noun" if named else "something")] if w[0]]
        if several:
            self.say(NUMBERS[len(members)], "count", members)
        elif named and entry["article"]:
            self.say("an" if words[0][0][0] in "aeiou" and words[0][0] != "unicorn" else "a")
        for word, kind in words:
            self.say(word, kind, members)
        if tag:
            self.say("tagged")
            self.say(tag, "keyword", members)


def grouped(objects: Sequence[Object]) -> list[list[int]]:
    """The indices of the objects, neighbours of one noun and colour together."""
    groups: list[list[int]] = []
    for i, thing in enumerate(objects):
        same = groups and (objects[groups[-1][0]].noun, objects[groups[-1][0]].colour) == (thing.noun, thing.colour)
        groups[-1].append(i) if same else groups.append([i])
    return groups


def describe(
    objects: Sequence[Object], relation: str = "", prefix: str = "", **phrases
) -> tuple[str, tuple[Span, ...]]:
    """The plain caption of these objects in the order given, like neighbours grouped, and its spans.

    `relation` stands between two groups (`above`, `bigger than`). `phrases` maps `size`, `tag` and `named` to one
    value a group (see the caption grammar in data/README.md).
    """
    groups, caption = grouped(objects), _Caption()
    if prefix:
        caption.say(prefix)
    for i, members in enumerate(groups):
        if i and relation:
            caption.say(relation, "relation", (groups[0][0], groups[1][0]))
        elif i:
            caption.say("and" if i == len(groups) - 1 else ",")
        caption.name(objects, members, **{key: values[i] for key, values in phrases.items()})
    return caption.text, tuple(caption.spans)


@lru_cache(maxsize=1)
def _keyword_weights() -> dict[str, np.ndarray]:
    """For each noun, how often each of its keywords is taken: rarer words more often, so that exposure evens out."""
    keywords = concepts(removed=True)["keywords"]
    counts = keywords.explode().value_counts()
    weights = {noun: np.array([1 / counts[k] for k in words]) for noun, words in keywords.items()}
    return {noun: w / w.sum() for noun, w in weights.items() if len(w)}


def draw_phrases(rng, groups, sizes, things) -> tuple[dict, str, str]:
    """What a caption says beyond the list of objects: sizes, keywords, how two objects stand, an opening."""
    n = len(groups)
    said = [size if rng.random() < 0.5 else "" for size in sizes]
    tags = [
        str(rng.choice(concept(noun)["keywords"], p=weights)) if weights is not None and rng.random() < 0.25 else ""
        for noun, weights in ((noun, _keyword_weights().get(noun)) for noun, *_ in groups)
    ]
    named = [not tag or count > 1 or rng.random() < 0.5 for tag, (*_, count) in zip(tags, groups, strict=True)]
    relation = ""
    if n == 2 and len(things) == 2 and rng.random() < 0.4:
        relation = relation_between(*things, kind=str(rng.choice(["position", "position", "size"])))
        said = ["", ""] if relation.endswith("than") else said
    prefix = str(rng.choice(PREFIXES)) if rng.random() < 0.4 else ""
    return {"size": said, "tag": tags, "named": named}, relation, prefix


def relation_between(first: Object, second: Object, kind: str = "position") -> str:
    """How the first object stands to the second: by position, the axis on which they differ more; by size, if clear."""
    if kind == "size":
        ratio = first.size / second.size
        return "bigger than" if ratio > 1.15 else "smaller than" if ratio < 1 / 1.15 else ""
    across, down = first.x - second.x, first.y - second.y
    if abs(across) >= abs(down):
        return "to the left of" if across < 0 else "to the right of"
    return "above" if down < 0 else "below"
