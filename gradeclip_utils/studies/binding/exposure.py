"""Exposure: what training showed of each attribute, counted in the very batches that the bundled model learnt from.

    training's generator of scenes -> a sample of its batches -> words said, and captions with a rival

A word's count says how often a caption held it. It does not say how often the word was *needed*: contrastive learning
asks which of a batch's captions belongs to a picture, and if no other caption names the same things, knowing the things
is enough (Yuksekgonul et al., "When and why vision-language models behave like bags-of-words", ICLR 2023). A *rival* of
a caption is another one of its batch that names the same things and that only one kind of attribute tells apart.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from ...evaluation.attributes import KINDS
from ...evaluation.statistics import interval
from ...scenes import COLOURS, NUMBERS, Scene, concepts
from ...training.scratch import Recipe, SceneBatches

# relation -> the kind of attribute, and whether it is the first thing that is said to be left, above or bigger
_SAYS = {
    "to the left of": ("left / right", True), "to the right of": ("left / right", False),
    "above": ("above / below", True), "below": ("above / below", False),
    "bigger than": ("bigger / smaller", True), "smaller than": ("bigger / smaller", False),
}  # fmt: skip
_WORDS = {
    "colour": tuple(COLOURS),
    "size": ("small", "big"),
    "count": tuple(NUMBERS.values()),
    "relation": tuple(_SAYS),
}
ANY_NOUN = "(a noun)"


def exposure(recipe: Recipe | None = None, *, steps: int = 32, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two tables of what training showed, from a seeded sample of `steps` batches, as many from every round.

    `recipe` is the bundled model's by default. Shares are of all captions, with 95 % bootstrap intervals over batches,
    and `times` is the share times all captions of the recipe.

    words: `kind` (as in `scenes.Span`), `word`, share, low, high, times. All nouns are one line, "(a noun)": the mean
    over concepts.

    rivals: `kind` (as in `attributes.KINDS`), share, low, high, times: captions that have a rival in their batch. For
    object identity, that is a caption of other things. For a colour, one of as many of the same things, not in the same
    colours; if the colours are the same ones, they are swapped. For a count, one of the same things in the same colours
    but another number. For a size or a relation, one of the same things in the same colours and numbers, where both
    captions say a size or relation, and not the same.
    """
    recipe = recipe or Recipe()
    batches, rng = SceneBatches(recipe), np.random.default_rng([62, seed])
    each, said, rivals = max(1, steps // recipe.rounds), [], []
    for turn in range(recipe.rounds):
        for within in rng.choice(recipe.steps, each, replace=False):
            scenes = batches.scenes(turn * recipe.steps + int(within))
            said.append(words_said(scenes))
            rivals.append(with_rivals(scenes))
    names = [("noun", ANY_NOUN), *((kind, word) for kind, words in _WORDS.items() for word in words)]
    words = [(*name, *_shares([counts[name] for counts in said], recipe)) for name in names]
    kinds = [(kind, *_shares([counts[kind] for counts in rivals], recipe)) for kind in KINDS]
    columns = ["share", "low", "high", "times"]
    return pd.DataFrame(words, columns=["kind", "word", *columns]), pd.DataFrame(kinds, columns=["kind", *columns])


def _shares(counts: Sequence[float], recipe: Recipe) -> tuple[float, float, float, float]:
    values = np.array(counts) / recipe.batch
    low, high = interval(values)
    return values.mean(), low, high, values.mean() * recipe.rounds * recipe.steps * recipe.batch


def words_said(scenes: Sequence[Scene]) -> Counter:
    """How many captions say each (kind, attribute word); for nouns the mean over concepts."""
    counts: Counter = Counter()
    for scene in scenes:
        counts.update({(span.kind, scene.caption[span.start : span.end]) for span in scene.spans})
    nouns = sum(count for (kind, _), count in counts.items() if kind == "noun")
    counts["noun", ANY_NOUN] = nouns / len(concepts(removed=True))
    return counts


def with_rivals(scenes: Sequence[Scene]) -> Counter:
    """How many captions of a batch have a rival in it, for every kind of attribute."""
    alike, found = defaultdict(list), defaultdict(set)
    for i, scene in enumerate(scenes):
        facts = _facts(scene)
        alike[frozenset(facts["numbers"])].append((i, facts))
    for group in alike.values():
        for (i, one), (j, two) in combinations(group, 2):
            for kind in _differences(one, two):
                found[kind] |= {i, j}
    counts = Counter({kind: len(members) for kind, members in found.items()})
    counts["object identity"] = len(scenes) if len(alike) > 1 else 0
    return counts


def _facts(scene: Scene) -> dict:
    """What a caption says of its things, noun by noun, whatever the order and the wording."""
    groups = {
        span.objects[0]: len(span.objects) for span in scene.spans if span.kind in ("noun", "something")
    }  # the first object of each group, and how many they are
    said = {
        kind: [(scene.objects[span.objects[0]].noun, scene.caption[span.start : span.end], span.objects)
               for span in scene.spans if span.kind == kind] for kind in ("size", "relation")
    }  # fmt: skip
    stand = None
    for noun, words, objects in said["relation"]:
        kind, first = _SAYS[words]
        stand = kind, noun if first else scene.objects[objects[1]].noun
    return {
        "numbers": {scene.objects[i].noun: number for i, number in groups.items()},
        "colours": {scene.objects[i].noun: scene.objects[i].colour for i in groups},
        "sizes": {noun: words for noun, words, _ in said["size"]},
        "stand": stand,
    }


def _differences(one: dict, two: dict) -> Iterator[str]:
    """The kinds of attribute in which two captions of the same things are rivals."""
    if one["colours"] != two["colours"]:
        if one["numbers"] == two["numbers"]:
            same = Counter(one["colours"].values()) == Counter(two["colours"].values())
            yield "swapped colours" if same else "colour"
        return
    if one["numbers"] != two["numbers"]:
        yield "count"
        return
    sizes, others = one["sizes"], two["sizes"]
    if any(sizes[noun] != others[noun] for noun in sizes.keys() & others.keys()):
        swapped = len(sizes) > 1 and sizes.keys() == others.keys() and sorted(sizes.values()) == sorted(others.values())
        yield "swapped sizes" if swapped else "size"
    if one["stand"] and two["stand"] and one["stand"] != two["stand"] and one["stand"][0] == two["stand"][0]:
        yield one["stand"][0]
