"""Sums of maps: is the map of a whole made of the maps of its parts?

    scenes, prompts -> directions -> Grad-ECLIP -> maps -> one row an image and question -> statistics

    parts      is the map of "a red car" that of "a car"? and the sentence's that of its phrases, or its words?
    addition   is the map of "A and B" the sum of two maps? (`composition` asks the same of the embeddings)

A map is linear in the direction that it is drawn for, so differences and sums of directions have maps as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import count

import numpy as np
import pandas as pd

from gradeclip_utils.checks import chosen
from gradeclip_utils.explain import Explainer
from gradeclip_utils.measures.sanity import agreement
from gradeclip_utils.scenes import POSITIONS, Object, Scene, arrange, covered, draw_scene, phrase, relation_between

from ..relevance import as_array, embedded, fraction_on_first, object_coverage
from .composition import CASES, seen_whole

DISPLAYS = ("signed", "signed, mean removed", "relu", "relu, normalised")
_HIDING = 0.25  # of the size of two things that overlap: how far their middles are apart


def part_agreement(explainer: Explainer, scenes: Sequence[Scene]) -> pd.DataFrame:
    """How alike are the maps of a whole and of its parts? One row a question."""
    phrases = [[phrase(thing.noun, colour=thing.colour) for thing in scene.objects] for scene in scenes]
    noun = embedded(explainer, [phrase(scene.objects[0].noun) for scene in scenes])
    red_noun, second = (embedded(explainer, [both[i] for both in phrases]) for i in (0, 1))
    colour = embedded(explainer, [str(scene.objects[0].colour) for scene in scenes])
    sentence = embedded(explainer, [scene.caption for scene in scenes])
    apart = np.stack([embedded(explainer, scene.caption.split()).sum(0) for scene in scenes])
    inside = np.stack([as_array(explainer.word_directions(scene.caption)[1]).sum(0) for scene in scenes])
    asked = [
        ("adjective + noun", "its noun", red_noun, noun),
        ("adjective + noun", "its adjective alone", red_noun, colour),
        ("adjective + noun", "what the adjective adds", red_noun, red_noun - noun),
        ("adjective + noun", "another's adjective + noun", red_noun, np.roll(red_noun, 1, axis=0)),
        ("sentence", "one of its phrases", sentence, red_noun),
        ("sentence", "its phrases, added", sentence, red_noun + second),
        ("sentence", "its words as prompts, added", sentence, apart),
        ("sentence", "its words as read in it, added", sentence, inside),
        ("sentence", "another's phrases, added", sentence, np.roll(red_noun + second, 1, axis=0)),
    ]
    directions = np.stack([one for _, _, *both in asked for one in both], axis=1)
    maps = as_array(explainer.maps([scene.image() for scene in scenes], directions))
    tables = []
    for i, (whole, part, *_) in enumerate(asked):
        alike = agreement(maps[:, 2 * i], maps[:, 2 * i + 1])
        tables.append(pd.DataFrame({"image": range(len(scenes)), "whole": whole, "part": part, "agreement": alike}))
    return pd.concat(tables, ignore_index=True)


ARRANGEMENTS = ("apart", "in this order", "occluded", "twice")
SUMS = {  # case: the sentence (of `composition.CASES`), and how the things lie
    "A and B": ("and", "apart"),
    "A and B, A half hidden": ("and", "occluded"),
    "A to the left of B": ("to the left of", "in this order"),
    "A and no B": ("and no", "apart"),
    "two As": ("two of the first", "twice"),
}


def two_thing_scene(first: str, second: str, arrangement: str, *, seed: int = 0) -> Scene:
    """A scene of two untinted things and nothing else, drawn as scenes are, both whole unless they are to overlap."""
    chosen("arrangement", arrangement, ARRANGEMENTS)
    groups = [(noun, None, 1) for noun in (first, first if arrangement == "twice" else second)]
    for attempt in count():
        drawn = draw_scene([72, seed, attempt], split="development", plain=True, groups=groups)
        one, other = drawn.objects
        if arrangement == "occluded":
            other = _before(one, other)
            fits = seen_whole([one]) and seen_whole([other]) and covered([one, other])[0].any()
        else:
            ordered = arrangement != "in this order" or relation_between(one, other) == POSITIONS[0]
            fits = ordered and seen_whole([one, other])
        if fits:
            break
    return arrange([one, other], background=drawn.background)


def _before(hidden: Object, thing: Object) -> Object:
    """The second thing as big as the first and close to it, on the side on which it was."""
    across, down = thing.x - hidden.x, thing.y - hidden.y
    step = _HIDING * hidden.size / math.hypot(across, down)
    return replace(thing, x=hidden.x + step * across, y=hidden.y + step * down, size=hidden.size)


def map_sums(explainer: Explainer, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Is the map of a sentence the sum of its nouns' maps, as they are displayed? One row a pair, case and question."""
    names = [" + ".join(pair) for pair in pairs]
    firsts, seconds = (embedded(explainer, [phrase(noun) for noun in nouns]) for nouns in zip(*pairs, strict=True))
    middle, rows = np.concatenate([firsts, seconds]).mean(0), []
    for case, (sentence, arrangement) in SUMS.items():
        scenes = [two_thing_scene(*pair, arrangement, seed=i) for i, pair in enumerate(pairs)]
        whole = embedded(explainer, [CASES[sentence](*pair) for pair in pairs])
        left, right = firsts, firsts if arrangement == "twice" else seconds
        still = (np.broadcast_to(one, whole.shape) for one in (middle, whole.mean(0)))
        asked = [whole, left, right, np.roll(left, 1, axis=0), np.roll(right, 1, axis=0), *still]
        maps = as_array(explainer.maps([one.image() for one in scenes], np.stack(asked, axis=1)))
        for name, scene, mine in zip(names, scenes, maps, strict=True):
            rows += [{"image": name, "case": case, **row} for row in _sum_rows(explainer, scene, mine)]
    return pd.DataFrame(rows)


def _sum_rows(explainer: Explainer, scene: Scene, maps: np.ndarray) -> list[dict]:
    """The rows of one image from its maps: whole, own parts (2), foreign parts (2), mean part, mean sentence."""
    whole, first, second, *foreign, mean, mean_whole = maps
    coverage = object_coverage(explainer, scene, whole.shape)
    seen = coverage.sum((1, 2))
    on = {"on_first": fraction_on_first(whole, coverage), "on_first_sum": fraction_on_first(first + second, coverage)}
    on["seen_first"] = float(seen[0] / seen.sum())
    rows = []
    for parts, both in (("own", (first, second)), ("foreign", foreign)):
        for display in DISPLAYS:
            removed = display == "signed, mean removed"
            total = np.sum([displayed(one - removed * mean, display) for one in both], axis=0)
            target = displayed(whole - removed * mean_whole, display)
            rows.append({"display": display, "parts": parts, "alike": energy_explained(target, total), **on})
    return rows


def displayed(map_: np.ndarray, display: str) -> np.ndarray:
    """A map (h, w) as it is displayed."""
    chosen("display", display, DISPLAYS)
    heat = map_ if display.startswith("signed") else np.maximum(map_, 0)
    return heat / heat.max() if display == "relu, normalised" and heat.max() > 0 else heat


def energy_explained(target: np.ndarray, model: np.ndarray) -> float:
    """Fraction of a map's energy (sum of squares) that the best positive multiple of another explains: cosine squared."""
    lengths = np.linalg.norm(target) * np.linalg.norm(model)
    return float(max((target * model).sum() / lengths, 0) ** 2) if lengths > 0 else 0.0
