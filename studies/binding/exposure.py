"""Exposure: what training showed of each attribute, counted in the very batches that the bundled model learnt from.

    training's generator of scenes -> a sample of its batches -> words said, and captions with a hard negative

A word's count says how often a caption held it. It does not say how often the word was *needed*: contrastive learning
asks which of a batch's captions belongs to an image, and if no other caption names the same things, knowing the things
is enough (Yuksekgonul et al., "When and why vision-language models behave like bags-of-words", ICLR 2023). A *hard
negative* of a caption is here another one of its batch that names the same things and that is wrong of its image by one
kind of attribute alone. A caption that keeps a colour to itself is not wrong: "a car" fits a red car too.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations, product

import numpy as np
import pandas as pd

from gradeclip_utils.measures.statistics import interval
from gradeclip_utils.scenes import COLOURS, NUMBERS, POSITIONS, Scene, concepts
from training.rounds import ROUNDS, scenes_of_training

from ..pairs import KINDS

# relation -> the kind of attribute, and whether it is the first thing that is said to be left, above or bigger
_SAID_OF_TWO = product(("left / right", "above / below", "bigger / smaller"), (True, False))
_RELATIONS = dict(zip((*POSITIONS, "bigger than", "smaller than"), _SAID_OF_TWO, strict=True))
_WORDS = {"colour": COLOURS, "size": ("small", "big"), "count": NUMBERS.values(), "relation": _RELATIONS}
ANY_NOUN = "(a noun)"


def attribute_exposure(*, steps: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What training showed of each attribute, from a seeded sample of its batches."""
    total, said, negatives = sum(recipe.steps for recipe in ROUNDS), [], []
    for number in np.random.default_rng([62, 0]).choice(total, min(steps, total), replace=False):
        scenes = scenes_of_training(int(number))
        said.append(attribute_words_said(scenes))
        negatives.append(hard_negative_counts(scenes))
    names = [("noun", ANY_NOUN), *((kind, word) for kind, words in _WORDS.items() for word in words)]
    words = [(*name, *_fractions([counts[name] for counts in said])) for name in names]
    kinds = [(kind, *_fractions([counts[kind] for counts in negatives])) for kind in KINDS]
    columns = ["fraction", "low", "high", "times"]
    return pd.DataFrame(words, columns=["kind", "word", *columns]), pd.DataFrame(kinds, columns=["kind", *columns])


def _fractions(counts: Sequence[float]) -> tuple[float, float, float, float]:
    """Mean fraction of a batch's captions, its interval over batches, and captions of the whole training."""
    values = np.array(counts) / ROUNDS[0].batch
    low, high = interval(values)
    return values.mean(), low, high, values.mean() * sum(one.steps * one.batch for one in ROUNDS)


def attribute_words_said(scenes: Sequence[Scene]) -> Mapping[tuple[str, str], float]:
    """How many captions of a batch say each (kind, attribute word); for nouns the mean over concepts."""
    counts: defaultdict[tuple[str, str], float] = defaultdict(float)
    for scene in scenes:
        for said in {(span.kind, scene.caption[span.start : span.end]) for span in scene.spans}:
            counts[said] += 1
    nouns = sum(count for (kind, _), count in counts.items() if kind == "noun")
    counts["noun", ANY_NOUN] = nouns / len(concepts())
    return counts


def hard_negative_counts(scenes: Sequence[Scene]) -> Counter:
    """How many captions of a batch have a hard negative in it, by kind of attribute."""
    alike, found = defaultdict(list), defaultdict(set)
    for i, scene in enumerate(scenes):
        facts = _facts(scene)
        alike[frozenset(facts["numbers"])].append((i, facts))
    for group in alike.values():
        for (i, one), (_, two) in permutations(group, 2):
            for kind in _faults(one, two):
                found[kind].add(i)
    counts = Counter({kind: len(members) for kind, members in found.items()})
    counts["object identity"] = len(scenes) if len(alike) > 1 else 0
    return counts


def _facts(scene: Scene) -> dict:
    """What a caption says of its things, noun by noun, whatever the order and the wording; and their true colours."""
    groups = {
        span.objects[0]: len(span.objects) for span in scene.spans if span.kind in ("noun", "something")
    }  # the first object of each group, and how many they are
    said = {
        kind: [(scene.objects[span.objects[0]].noun, scene.caption[span.start : span.end], span.objects)
               for span in scene.spans if span.kind == kind] for kind in ("colour", "size", "relation")
    }  # fmt: skip
    stand = None
    for noun, words, objects in said["relation"]:
        kind, first = _RELATIONS[words]
        stand = kind, noun if first else scene.objects[objects[1]].noun
    return {
        "numbers": {scene.objects[i].noun: number for i, number in groups.items()},
        "true colours": {scene.objects[i].noun: scene.objects[i].colour for i in groups},
        "colours": {noun: words for noun, words, _ in said["colour"]},
        "sizes": {noun: words for noun, words, _ in said["size"]},
        "stand": stand,
    }


def _faults(one: dict, two: dict) -> Iterator[str]:
    """The kinds of attribute by which the second caption, of the same things, is a hard negative of the first."""
    if one["colours"] != two["colours"]:
        wrong = any(one["true colours"][noun] != colour for noun, colour in two["colours"].items())
        if wrong and one["numbers"] == two["numbers"]:
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
