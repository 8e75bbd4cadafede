"""Binding: does the map of "red" lie on the thing that the caption calls red, or on the thing that is red?

    pairs -> directions of attribute words -> maps -> binding index -> by kind, by method, by caption

The *binding index* of an attribute word is the fraction of its positive relevance that falls on its own object rather
than on the others, each per area:

    index = d_own / (d_own + d_others)        d = positive relevance on the object's patches / their area

1/2 is no preference. Four maps are asked, all of them Grad-ECLIP's, of different directions in the space of embeddings:

    caption                  e(caption): one map for all words, so that the indices of two swapped words add up to 1
    word x region            t(word), as `Explainer.interactions` draws it
    word x region, centred   t(word) - mean of t over the caption's words, without what they all share
    contrast                 e(caption) - e(caption with this word exchanged for the other caption's)

The contrast is the gradient of what is tested: where only one word differs, its target is the similarity gap itself.
That it has to do with the answer is no discovery; the other maps are not made from the answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gradeclip_utils.explain import Explainer
from gradeclip_utils.models import Clip
from gradeclip_utils.scenes import COLOURS, Scene, Span
from gradeclip_utils.towers.base import isolated_torch_state

from ..pairs import KINDS, SWAPPED, Pair, draw_pairs, images_of
from ..relevance import as_array, object_coverage
from .cached_explainer import CachedExplainer

METHODS = ("caption", "word x region", "word x region, centred", "contrast")
ROLES = ("right", "wrong", "absent")
PARTS = ("asked", "others", "background")
_ROUNDING = 1e-5  # how far two indices may lie apart that are equal by algebra
_AT_ONCE = 2  # images: the gradients of more leave the processor's cache
_Read = tuple[str, tuple[int, ...]]  # a caption and some of its words, or none for the whole


@dataclass(frozen=True)
class _Asked:
    """One word of one caption, asked of one image: which objects are its own, and the direction by each method."""

    role: str
    word: str
    own: tuple[int, ...]
    parts: dict[str, dict[_Read, float]]


def study_pairs(n: int = 30, few: int | None = None) -> list[Pair]:
    """All pairs of the study."""
    few = max(1, n // 2) if few is None else few
    pairs = [pair for kind in KINDS for pair in draw_pairs(kind, n)]
    pairs += [pair for kind in KINDS for pair in draw_pairs(kind, few, composition="withheld")]
    more = [(kind, objects) for kind in ("object identity", "colour", "size", *SWAPPED) for objects in (3, 4)]
    return pairs + [pair for kind, objects in more for pair in draw_pairs(kind, few, objects=objects)]


def binding_index(
    clip: Clip | CachedExplainer, pairs: Sequence[Pair], *, absent: bool = True, methods: Sequence[str] = METHODS
) -> pd.DataFrame:
    """The binding index of every attribute word: one row an image, caption, word and method."""
    cached, rows = clip if isinstance(clip, CachedExplainer) else CachedExplainer(clip), []
    sides = [(pair, side, number if absent else None) for number, pair in enumerate(pairs) for side in (0, 1)]
    cached.read_words(scene.caption for pair in pairs for scene in pair.scenes)
    asked = [list(_questions(cached, *one)) for one in sides]
    read = [[*dict.fromkeys(k for one in some for m in methods for k in one.parts[m])] for some in asked]  # each once
    cached.read(caption for some in read for caption, words in some if not words)
    with isolated_torch_state(cached.explainer.image_tower.device):
        directions = [torch.stack([_direction(cached, *part) for part in some]) for some in read]
    mapped = _mapped(cached.explainer, [pair.scenes[side] for pair, side, _ in sides], directions)
    for (pair, side, _), questions, some, (maps, coverage) in zip(sides, asked, read, mapped, strict=True):
        about = {"pair": pair.name, "kind": pair.kind, "objects": pair.objects, "composition": pair.composition}
        for one in questions:
            told = {**about, "side": side, "role": one.role, "word": one.word}
            own = coverage[list(one.own)].sum(0)
            for method in methods:
                map_ = sum(times * maps[some.index(part)] for part, times in one.parts[method].items())
                rows.append({**told, "method": method, **index_of_map(map_, own, coverage.sum(0) - own)})
    return pd.DataFrame(rows)


def _direction(cached: CachedExplainer, caption: str, words: tuple[int, ...]) -> Tensor:
    return cached.words(caption)[1][list(words)].sum(0) if words else cached.embedding(caption)


def index_of_map(map_: np.ndarray, own: np.ndarray, others: np.ndarray) -> dict:
    """The binding index of one map: index and silent, as in `binding_index`."""
    heat = np.maximum(map_, 0)
    mine, theirs = (float((heat * part).sum() / part.sum()) for part in (own, others))
    silent = mine + theirs == 0
    return {"index": 0.5 if silent else mine / (mine + theirs), "silent": silent}


def _questions(cached: CachedExplainer, pair: Pair, side: int, number: int | None) -> Iterator[_Asked]:
    """Every attribute word of the right and the wrong caption and, with a number, of captions with absent colours."""
    scene, other = pair.scenes[side], pair.scenes[1 - side]
    right, wrong = pair.words(side), pair.words(1 - side)
    for role, said, mine, negative, theirs in (
        ("right", scene.caption, right, other.caption, wrong),
        ("wrong", other.caption, wrong, scene.caption, right),
    ):
        for span in mine:
            match = next(one for one in theirs if one.objects[0] == span.objects[0])
            without = negative
            if pair.kind in SWAPPED:  # one half of the swap, so that the target is about this word alone
                without, _ = _exchanged(said, span, negative[match.start : match.end])
            yield _asked(cached, role, said, (span.start, span.end), without, _own(scene, span))
    if pair.kind == "swapped colours" and number is not None:
        missing = [colour for colour in COLOURS if colour not in {thing.colour for thing in scene.objects}]
        for k, span in enumerate(right):
            caption, place = _exchanged(scene.caption, span, missing[(number + k) % len(missing)])
            yield _asked(cached, "absent", caption, place, scene.caption, _own(scene, span))


def _asked(cached: CachedExplainer, role: str, caption: str, place: tuple[int, int], without: str, own) -> _Asked:
    """The word at a place of a caption; `without` is the caption that says otherwise."""
    said: _Read = (caption, ())
    word = caption, tuple(cached.word_indices(caption, *place))
    all_words = caption, tuple(range(len(cached.words(caption)[1])))
    centred = {word: 1.0, all_words: -len(word[1]) / len(all_words[1])}
    parts = {said: 1.0}, {word: 1.0}, centred, {said: 1.0, (without, ()): -1.0}
    return _Asked(role, caption[slice(*place)], own, dict(zip(METHODS, parts, strict=True)))


def _own(scene: Scene, span: Span) -> tuple[int, ...]:
    """The objects that an attribute word is said of."""
    noun = scene.objects[span.objects[0]].noun
    return tuple(i for i, thing in enumerate(scene.objects) if thing.noun == noun)


def _exchanged(caption: str, span: Span, word: str) -> tuple[str, tuple[int, int]]:
    """The caption with another word in the place of one, its article agreeing, and where the new word stands."""
    before = re.sub(r"\ban? $", "an " if word[0] in "aeiou" else "a ", caption[: span.start])
    return before + word + caption[span.end :], (len(before), len(before) + len(word))


def _mapped(
    explainer: Explainer, scenes: Sequence[Scene], directions: Sequence[Tensor]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each scene the maps (M, h, w) of its directions (M, E), and how much of a patch each object covers."""
    for _, alike in groupby(zip(scenes, directions, strict=True), key=lambda one: len(one[1])):
        group, own = zip(*alike, strict=True)  # a call has as many directions for every image
        maps = as_array(explainer.maps(images_of(explainer.clip, group), torch.stack(own), _AT_ONCE))
        for scene, mine in zip(group, maps, strict=True):
            yield mine, object_coverage(explainer, scene, mine.shape[1:])


def answers_by_map(index: pd.DataFrame, method: str = "word x region") -> pd.DataFrame:
    """Let the maps of a method answer: the caption whose attribute words have the higher mean index is taken for right."""
    keys = ["pair", "side", "kind", "objects"]
    part = index[(index["method"] == method) & (index["role"] != "absent")]
    means = part.groupby([*keys, "role"], sort=False)["index"].mean().unstack("role").reset_index()
    if means.empty:
        return pd.DataFrame(columns=[*keys, "right"])
    ahead = (means["right"] - means["wrong"]).where(lambda gap: gap.abs() > _ROUNDING, 0.0)
    return means[keys].assign(right=(np.sign(ahead) + 1) / 2)


def gap_relevance(clip: Clip | CachedExplainer, pairs: Sequence[Pair]) -> pd.DataFrame:
    """Where in the image the similarity gap S(right caption) - S(wrong caption) comes from: up to three rows an image."""
    cached, rows = clip if isinstance(clip, CachedExplainer) else CachedExplainer(clip), []
    sides = [(pair, side, pair.scenes[side]) for pair in pairs for side in (0, 1)]
    cached.read(scene.caption for *_, scene in sides)
    gaps = [cached.embedding(scene.caption) - cached.embedding(pair.scenes[1 - side].caption)
            for pair, side, scene in sides]  # fmt: skip
    mapped = _mapped(cached.explainer, [scene for *_, scene in sides], [gap[None] for gap in gaps])
    for (pair, side, scene), (maps, coverage) in zip(sides, mapped, strict=True):
        said = (span.objects if span.kind == "relation" else _own(scene, span) for span in pair.words(side))
        own = sorted({k for objects in said for k in objects})  # both things of a relation
        map_, magnitude = maps[0], np.abs(maps).mean() or 1.0
        areas = coverage[own].sum(0), np.delete(coverage, own, axis=0).sum(0), 1 - coverage.sum(0)
        for part, area in zip(PARTS, areas, strict=True):
            if area.sum() > 0:
                about = {"pair": pair.name, "kind": pair.kind, "objects": pair.objects, "side": side, "part": part}
                signs = {"for_right": np.maximum(map_, 0), "for_wrong": np.maximum(-map_, 0)}
                rows.append({**about, **{k: (m * area).sum() / area.sum() / magnitude for k, m in signs.items()}})
    return pd.DataFrame(rows)
