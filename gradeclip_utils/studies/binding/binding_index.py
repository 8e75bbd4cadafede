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

from ...evaluation.attributes import KINDS, SWAPPED, Pair, draw_pairs, images_of
from ...explain import Explainer
from ...models import Clip
from ...scenes import COLOURS, Scene, Span
from ...towers.base import isolated_torch_state
from ..relevance import as_array, object_coverage
from .cached_explainer import CachedExplainer

METHODS = ("caption", "word x region", "word x region, centred", "contrast")
ROLES = ("right", "wrong", "absent")
PARTS = ("asked", "others", "background")
_ROUNDING = 1e-5  # how far two indices may lie apart that are equal by algebra


@dataclass(frozen=True)
class _Asked:
    """One word of one caption, asked of one image: the directions (M, E), and which objects are its own."""

    role: str
    word: str
    own: tuple[int, ...]
    directions: Tensor


def study_pairs(n: int = 30, few: int | None = None) -> list[Pair]:
    """All pairs of the study.

    Args:
        n: pairs of every kind, with the fewest objects that it can have.
        few: of withheld compositions, and of three and four objects; half of `n` by default.
    """
    few = max(1, n // 2) if few is None else few
    pairs = [pair for kind in KINDS for pair in draw_pairs(kind, n)]
    pairs += [pair for kind in KINDS for pair in draw_pairs(kind, few, composition="withheld")]
    more = [(kind, objects) for kind in ("object identity", "colour", "size", *SWAPPED) for objects in (3, 4)]
    return pairs + [pair for kind, objects in more for pair in draw_pairs(kind, few, objects=objects)]


def binding_index(clip: Clip | CachedExplainer, pairs: Sequence[Pair], *, absent: bool = True) -> pd.DataFrame:
    """The binding index of every attribute word: one row an image, caption, word and method.

    Own object: the one that the caption gives the attribute to, whether it has it or not; of a relation, the thing that
    is said to be left, above or bigger (or their opposites); of a count, all that are counted.

    Args:
        clip: a model, or a `CachedExplainer` that has read some of the captions before.
        pairs: as `draw_pairs` gives them.
        absent: whether to ask for colours that are absent.

    Returns:
        Columns: pair, kind, objects, composition, side (as `attributes.judge`); `role` of the caption: "right";
        "wrong", the other caption of the pair; or "absent", only for swapped colours: the right caption with this word
        exchanged for a colour that is nowhere in the image. (For a kind that is not swapped, the wrong caption's word
        is absent.) `word`; `method`, one of `METHODS`; `index`; and `silent`, true where the map is nowhere positive on
        any object, and the index 1/2.
    """
    cached, rows = clip if isinstance(clip, CachedExplainer) else CachedExplainer(clip), []
    sides = [(pair, side, number if absent else None) for number, pair in enumerate(pairs) for side in (0, 1)]
    asked = [(pair, side, list(_questions(cached, pair, side, number))) for pair, side, number in sides]
    for pair, side, questions, maps, coverage in _mapped(cached.explainer, asked):
        about = {"pair": pair.name, "kind": pair.kind, "objects": pair.objects, "composition": pair.composition}
        for question, by_method in zip(questions, maps, strict=True):
            told = {**about, "side": side, "role": question.role, "word": question.word}
            own = coverage[list(question.own)].sum(0)
            for method, map_ in zip(METHODS, by_method, strict=True):
                rows.append({**told, "method": method, **index_of_map(map_, own, coverage.sum(0) - own)})
    return pd.DataFrame(rows)


def index_of_map(map_: np.ndarray, own: np.ndarray, others: np.ndarray) -> dict:
    """The binding index of one map: index and silent, as in `binding_index`.

    Args:
        map_: (h, w), signed.
        own: (h, w), which fraction of every patch belongs to the object.
        others: (h, w), which to the other objects.
    """
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
    with isolated_torch_state(cached.explainer.image_tower.device):
        indices, (_, directions) = cached.word_indices(caption, *place), cached.words(caption)
        word, said = directions[indices].sum(0), cached.embedding(caption)
        centred, contrast = word - len(indices) * directions.mean(0), said - cached.embedding(without)
        return _Asked(role, caption[slice(*place)], own, torch.stack([said, word, centred, contrast]))


def _own(scene: Scene, span: Span) -> tuple[int, ...]:
    """The objects that an attribute word is said of."""
    noun = scene.objects[span.objects[0]].noun
    return tuple(i for i, thing in enumerate(scene.objects) if thing.noun == noun)


def _exchanged(caption: str, span: Span, word: str) -> tuple[str, tuple[int, int]]:
    """The caption with another word in the place of one, its article agreeing, and where the new word stands."""
    before = re.sub(r"\ban? $", "an " if word[0] in "aeiou" else "a ", caption[: span.start])
    return before + word + caption[span.end :], (len(before), len(before) + len(word))


def _mapped(explainer: Explainer, asked: Sequence[tuple]) -> Iterator[tuple]:
    """Pair, side, questions, their maps (Q, M, h, w), and which part of a patch each object covers (objects, h, w)."""
    for _, alike in groupby(asked, key=lambda one: len(one[2])):  # a call has as many questions for every image
        group = list(alike)
        scenes = [pair.scenes[side] for pair, side, _ in group]
        directions = torch.stack([torch.cat([one.directions for one in questions]) for *_, questions in group])
        maps = as_array(explainer.maps(images_of(explainer.clip, scenes), directions))  # (B, Q * M, h, w)
        for one, scene, mine in zip(group, scenes, maps, strict=True):
            grid = mine.shape[1:]
            yield *one, mine.reshape(len(one[2]), -1, *grid), object_coverage(explainer, scene, grid)


def answers_by_map(index: pd.DataFrame, method: str = "word x region") -> pd.DataFrame:
    """Let the maps of a method answer: the caption whose attribute words have the higher mean index is taken for right.

    The model's similarities have no part in it, but where the objects are is given.

    Args:
        index: rows of `binding_index`.
        method: one of `METHODS`.

    Returns:
        One row an image: pair, side, kind, objects, right (1/2 for a tie: indices that differ by rounding alone, as
        those of a map that is the same for both captions' words).
    """
    keys = ["pair", "side", "kind", "objects"]
    part = index[(index["method"] == method) & (index["role"] != "absent")]
    means = part.groupby([*keys, "role"], sort=False)["index"].mean().unstack("role").reset_index()
    if means.empty:
        return pd.DataFrame(columns=[*keys, "right"])
    ahead = (means["right"] - means["wrong"]).where(lambda gap: gap.abs() > _ROUNDING, 0.0)
    return means[keys].assign(right=(np.sign(ahead) + 1) / 2)


def gap_relevance(clip: Clip | CachedExplainer, pairs: Sequence[Pair]) -> pd.DataFrame:
    """Where in the image the similarity gap S(right caption) - S(wrong caption) comes from: up to three rows an image.

    The map is local: its sum is not the gap.

    Args:
        clip: as for `binding_index`.
        pairs: as `draw_pairs` gives them.

    Returns:
        Columns: pair, kind, objects, side, part, one of `PARTS` (the objects that the captions disagree about; the rest
        of the objects, if any; what no object covers); for_right and for_wrong, positive and negative relevance per
        area in units of the map's mean magnitude.
    """
    cached, asked = clip if isinstance(clip, CachedExplainer) else CachedExplainer(clip), []
    for pair in pairs:
        first, second = (cached.embedding(scene.caption) for scene in pair.scenes)
        for side, direction in ((0, first - second), (1, second - first)):
            asked.append((pair, side, [_Asked("right", "", pair.asked, direction[None])]))
    rows = []
    for pair, side, _, maps, coverage in _mapped(cached.explainer, asked):
        scene = pair.scenes[side]
        said = (span.objects if span.kind == "relation" else _own(scene, span) for span in pair.words(side))
        own = sorted({k for objects in said for k in objects})  # both things of a relation
        map_, magnitude = maps[0, 0], np.abs(maps).mean() or 1.0
        areas = coverage[own].sum(0), np.delete(coverage, own, axis=0).sum(0), 1 - coverage.sum(0)
        for part, area in zip(PARTS, areas, strict=True):
            if area.sum() > 0:
                about = {"pair": pair.name, "kind": pair.kind, "objects": pair.objects, "side": side, "part": part}
                signs = {"for_right": np.maximum(map_, 0), "for_wrong": np.maximum(-map_, 0)}
                rows.append({**about, **{k: (m * area).sum() / area.sum() / magnitude for k, m in signs.items()}})
    return pd.DataFrame(rows)
