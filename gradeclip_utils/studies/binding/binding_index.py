"""Binding: does the map of "red" lie on the thing that the caption calls red, or on the thing that is red?

    pairs -> directions of attribute words -> maps -> binding index -> by kind, by method, by caption

The *binding index* of an attribute word is the share of its positive relevance that falls on its own object rather than
on the others, each per area:

    index = d_own / (d_own + d_others)        d = positive relevance on the object's patches / their area

1/2 is no preference. Four maps are asked, all of them Grad-ECLIP's, of different directions in the space of embeddings:

    caption                  e(caption): one map for all words, so that the indices of two swapped words add up to 1
    word x region            t(word), as `Explainer.interactions` draws it
    word x region, centred   t(word) - mean of t over the caption's words, without what they all share
    contrast                 e(caption) - e(caption with this word exchanged for the other caption's)

The contrast is the gradient of what is tested: where only one word differs, its target is the model's margin itself.
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
from PIL import Image
from torch import Tensor

from ...evaluation.attributes import KINDS, SWAPPED, Pair, draw_pairs, judge, images_of
from ...evaluation.localisation import pool
from ...evaluation.statistics import summarise
from ...explain import Explainer, undisturbed
from ...images import View, model_view
from ...methods.grad_eclip import grad_eclip
from ...methods.interactions import word_directions, word_members
from ...models import Clip
from ...scenes import COLOURS, Scene, Span
from ...towers import Trace
from ...words import Split, split_read

METHODS = ("caption", "word x region", "word x region, centred", "contrast")
ROLES = ("right", "wrong", "absent")
PARTS = ("asked", "others", "background")
_AT_ONCE = 16  # pictures in one batch


class Reader:
    """A model's reading of captions, each read once and kept: reading takes longer than the maps. And of one picture.

    Raises UnsupportedModel if the text tower cannot be opened.
    """

    def __init__(self, clip: Clip) -> None:
        self.explainer = Explainer(clip)
        if self.explainer.text_tower is None:
            raise self.explainer.text_refusal
        self._embeddings: dict[str, Tensor] = {}
        self._words: dict[str, tuple[Split, Tensor]] = {}
        self._seen: tuple[Image.Image | None, View | None, Trace | None] = (None, None, None)

    def seen(self, picture: Image.Image) -> tuple[View, Trace]:
        """What the model sees of the picture, and the trace of that; the last picture is kept."""
        seen = self._seen  # a panel may ask from two threads, for two pictures
        if seen[0] != picture:
            view = model_view(self.explainer.clip.preprocess, picture)
            trace = self.explainer.image_tower.trace(view.pixels[None].to(self.explainer.image_tower.device))
            self._seen = seen = picture.copy(), view, trace  # a copy, because the caller may draw on theirs
        return seen[1:]

    def embedding(self, caption: str) -> Tensor:
        """The caption's unit embedding (E,)."""
        if caption not in self._embeddings:
            self._embeddings[caption] = self.explainer.text_tower.forward(self._tokens(caption))[0]
        return self._embeddings[caption]

    def words(self, caption: str) -> tuple[Split, Tensor]:
        """The caption's words, and the direction (W, E) of each.

        Raises ValueError if the caption is longer than the model reads.
        """
        if caption not in self._words:
            tower = self.explainer.text_tower
            split = split_read(caption, self.explainer.clip.tokenizer, tower)
            if split.unread:
                raise ValueError(f"the model does not read all of {caption!r}, not {' '.join(split.unread)!r}")
            trace = tower.trace(self._tokens(caption))
            self._words[caption] = split, word_directions(tower, trace, word_members(split.owners, trace))
        return self._words[caption]

    def members(self, caption: str, start: int, end: int) -> list[int]:
        """Which words make up a part of the caption, `start` to `end` in characters."""
        return [i for i, (a, b) in enumerate(self.words(caption)[0].spans) if a < end and b > start]

    def _tokens(self, caption: str) -> Tensor:
        return self.explainer.clip.tokenizer([caption]).to(self.explainer.text_tower.device)


@dataclass(frozen=True)
class _Asked:
    """One word of one caption, asked of one picture: the directions (M, E), and which objects are its own."""

    role: str
    word: str
    own: tuple[int, ...]
    directions: Tensor


# --------------------------------------------------------------------------------------------------------------- index


def binding_index(clip: Clip | Reader, pairs: Sequence[Pair], *, absent: bool = True) -> pd.DataFrame:
    """The binding index of every attribute word: one row a picture, caption, word and method.

    Columns: pair, kind, objects, composition, side (as `attributes.judge`); `role` of the caption: "right"; "wrong",
    the other caption of the pair; or "absent", only for swapped colours: the right caption with this word exchanged for
    a colour that is nowhere in the picture. (For a kind that is not swapped, the wrong caption's word is absent.)
    `word`; `method`, one of `METHODS`; `index`; `on_own` and `on_others`, relevance per area in units of an even
    spread; and `silent`, true where the map is nowhere positive on any object, and the index therefore 1/2.

    Own object: the one that the caption gives the attribute to, whether it has it or not; of a relation, the thing that
    is said to be left, above or bigger (or their opposites); of a count, all that are counted.

    Args:
        clip: a model, or a `Reader` of it that has read some of the captions before.
        absent: whether to ask for colours that are absent.
    """
    reader = clip if isinstance(clip, Reader) else Reader(clip)
    with undisturbed(reader.explainer.image_tower.device):
        asked = [
            (pair, side, list(_questions(reader, pair, side, number if absent else None)))
            for number, pair in enumerate(pairs)
            for side in (0, 1)
        ]
        rows = []
        for pair, side, questions, maps, cover in _mapped(reader.explainer, asked):
            about = {"pair": pair.name, "kind": pair.kind, "objects": pair.objects, "composition": pair.composition}
            for question, by_method in zip(questions, maps, strict=True):
                told = {**about, "side": side, "role": question.role, "word": question.word}
                own = cover[list(question.own)].sum(0)
                for method, map_ in zip(METHODS, by_method, strict=True):
                    rows.append({**told, "method": method, **_index(map_, own, cover.sum(0) - own)})
    return pd.DataFrame(rows)


def _index(map_: np.ndarray, own: np.ndarray, others: np.ndarray) -> dict:
    """The index of one map (h, w), given which part of every patch belongs to the object, and which to the others."""
    heat = np.maximum(map_, 0)
    mine, theirs = (float((heat * part).sum() / part.sum()) for part in (own, others))
    silent, even = mine + theirs == 0, float(heat.mean()) or 1.0
    index = 0.5 if silent else mine / (mine + theirs)
    return {"index": index, "on_own": mine / even, "on_others": theirs / even, "silent": silent}


def _questions(reader: Reader, pair: Pair, side: int, number: int | None) -> Iterator[_Asked]:
    """Every attribute word of the right and the wrong caption and, with a number, of captions with absent colours."""
    scene, other = pair.scenes[side], pair.scenes[1 - side]
    right, wrong = pair.words(side), pair.words(1 - side)
    for role, said, mine, rival, theirs in (
        ("right", scene.caption, right, other.caption, wrong),
        ("wrong", other.caption, wrong, scene.caption, right),
    ):
        for span in mine:
            match = next(one for one in theirs if one.objects[0] == span.objects[0])
            without = rival
            if pair.kind in SWAPPED:  # one half of the swap, so that the target is about this word alone
                without, _ = _exchanged(said, span, rival[match.start : match.end])
            yield _asked(reader, role, said, (span.start, span.end), without, _own(scene, span))
    if pair.kind == "swapped colours" and number is not None:
        missing = [colour for colour in COLOURS if colour not in {thing.colour for thing in scene.objects}]
        for k, span in enumerate(right):
            caption, place = _exchanged(scene.caption, span, missing[(number + k) % len(missing)])
            yield _asked(reader, "absent", caption, place, scene.caption, _own(scene, span))


def _asked(reader: Reader, role: str, caption: str, place: tuple[int, int], without: str, own) -> _Asked:
    members, (_, directions) = reader.members(caption, *place), reader.words(caption)
    word, said = directions[members].sum(0), reader.embedding(caption)
    centred, contrast = word - len(members) * directions.mean(0), said - reader.embedding(without)
    return _Asked(role, caption[slice(*place)], own, torch.stack([said, word, centred, contrast]))


def _own(scene: Scene, span: Span) -> tuple[int, ...]:
    noun = scene.objects[span.objects[0]].noun
    return tuple(i for i, thing in enumerate(scene.objects) if thing.noun == noun)


def _exchanged(caption: str, span: Span, word: str) -> tuple[str, tuple[int, int]]:
    """The caption with another word in the place of one, its article agreeing, and where the new word stands."""
    before = re.sub(r"\ban? $", "an " if word[0] in "aeiou" else "a ", caption[: span.start])
    return before + word + caption[span.end :], (len(before), len(before) + len(word))


def _mapped(explainer: Explainer, asked: Sequence[tuple]) -> Iterator[tuple]:
    """Pair, side, questions, their maps (Q, M, h, w), and which part of a patch each object covers (objects, h, w)."""
    tower = explainer.image_tower
    for _, alike in groupby(asked, key=lambda one: len(one[2])):  # a batch has as many questions for every picture
        group = list(alike)
        for start in range(0, len(group), _AT_ONCE):
            some = group[start : start + _AT_ONCE]
            scenes = [pair.scenes[side] for pair, side, _ in some]
            pictures = images_of(explainer.clip, scenes)
            views = [model_view(explainer.clip.preprocess, picture) for picture in pictures]
            trace = tower.trace(torch.stack([view.pixels for view in views]).to(tower.device))
            directions = torch.stack([torch.cat([one.directions for one in questions]) for *_, questions in some])
            maps = grad_eclip(tower, trace, directions.to(trace.embedding))[..., -trace.grid[0] * trace.grid[1] :]
            stacks = maps.unflatten(-1, trace.grid).float().cpu().numpy()
            for one, scene, picture, view, stack in zip(some, scenes, pictures, views, stacks, strict=True):
                cover = np.stack([pool(mask, trace.grid, view.box) for mask in scene.masks(picture.width)])
                yield *one, stack.reshape(len(one[2]), -1, *trace.grid), cover


def by_the_map(index: pd.DataFrame, method: str = "word x region") -> pd.DataFrame:
    """Let the maps answer: the caption whose attribute words have the higher index, on average, is taken for right.

    One row a picture: pair, side, kind, objects, `right` (1/2 for a tie). The model's similarities have no part in it,
    but where the objects are is given.
    """
    keys = ["pair", "side", "kind", "objects"]
    part = index[(index["method"] == method) & (index["role"] != "absent")]
    means = part.groupby([*keys, "role"], sort=False)["index"].mean().unstack("role").reset_index()
    if means.empty:
        return pd.DataFrame(columns=[*keys, "right"])
    return means[keys].assign(right=(np.sign(means["right"] - means["wrong"]) + 1) / 2)


# ------------------------------------------------------------------------------------------------------------- margins


def margin_maps(clip: Clip | Reader, pairs: Sequence[Pair]) -> pd.DataFrame:
    """Where in the picture the margin S(right caption) - S(wrong caption) comes from: up to three rows a picture.

    Columns: pair, kind, objects, side, `part`, one of `PARTS` (the objects that the captions disagree about; the rest
    of the objects, if any; what no object covers); `for_right` and `for_wrong`, positive and negative relevance per
    area in units of the map's mean magnitude. (The map is local: its sum is not the margin.)
    """
    reader = clip if isinstance(clip, Reader) else Reader(clip)
    with undisturbed(reader.explainer.image_tower.device):
        asked = []
        for pair in pairs:
            first, second = (reader.embedding(scene.caption) for scene in pair.scenes)
            for side, direction in ((0, first - second), (1, second - first)):
                asked.append((pair, side, [_Asked("right", "", pair.asked, direction[None])]))
        rows = []
        for pair, side, _, maps, cover in _mapped(reader.explainer, asked):
            own = sorted({k for span in pair.words(side) for k in _told(pair.scenes[side], span)})
            map_, magnitude = maps[0, 0], np.abs(maps).mean() or 1.0
            shares = cover[own].sum(0), np.delete(cover, own, axis=0).sum(0), 1 - cover.sum(0)
            for part, share in zip(PARTS, shares, strict=True):
                if share.sum() > 0:
                    about = {"pair": pair.name, "kind": pair.kind, "objects": pair.objects, "side": side, "part": part}
                    signs = {"for_right": np.maximum(map_, 0), "for_wrong": np.maximum(-map_, 0)}
                    rows.append({**about, **{k: (m * share).sum() / share.sum() / magnitude for k, m in signs.items()}})
    return pd.DataFrame(rows)


def _told(scene: Scene, span: Span) -> tuple[int, ...]:
    """The objects that a word speaks of: both of a relation."""
    return span.objects if span.kind == "relation" else _own(scene, span)


# ------------------------------------------------------------------------------------------------------------- figures


def study_pairs(n: int = 30, few: int | None = None) -> list[Pair]:
    """All pairs of the study: `n` of every kind; `few` (half of `n`) withheld, and with three and four objects."""
    few = max(1, n // 2) if few is None else few
    pairs = [pair for kind in KINDS for pair in draw_pairs(kind, n)]
    pairs += [pair for kind in KINDS for pair in draw_pairs(kind, few, composition="withheld")]
    return pairs + [
        pair for kind in ("object identity", "colour", "size", *SWAPPED) for objects in (3, 4)
        for pair in draw_pairs(kind, few, objects=objects)
    ]  # fmt: skip


def figures(
    clip: Clip | Reader, n: int = 30, *, rows: pd.DataFrame | None = None, index: pd.DataFrame | None = None
) -> pd.DataFrame:
    """The study's main figures of one model: figure, estimate, low, high, n (pairs).

    Accuracy of every kind (seen compositions, as few objects as the kind has), and of swapped colours in withheld
    compositions; the index of word x region for two swapped colours: of the right caption, of the wrong one, and of
    absent colours; and how often the model is right on pairs of three and four swapped colours, and how often the maps
    of the words are (`by_the_map`). Intervals are 95 % bootstrap intervals over pairs.

    `rows` of `judge` and `index` of `binding_index` are used where they were measured before; otherwise `n` pairs of
    every kind are drawn and asked (`study_pairs`).
    """
    reader = clip if isinstance(clip, Reader) else Reader(clip)
    if rows is None:
        rows = judge(reader.explainer.clip, study_pairs(n))
    if index is None:
        more = [pair for objects in (3, 4) for pair in draw_pairs("swapped colours", max(1, n // 2), objects=objects)]
        two = binding_index(reader, draw_pairs("swapped colours", n))
        index = pd.concat([two, binding_index(reader, more, absent=False)], ignore_index=True)
    fewest = rows["objects"] == rows.groupby("kind")["objects"].transform("min")
    seen, swapped = rows["composition"] == "seen", rows["kind"] == "swapped colours"
    placed = index[index["kind"] == "swapped colours"]
    words = placed[(placed["objects"] == 2) & (placed["method"] == METHODS[1])]
    hard = by_the_map(placed[placed["objects"] > 2])
    parts = {f"accuracy, {kind}": (part, "right") for kind, part in rows[seen & fewest].groupby("kind", sort=False)}
    parts["accuracy, swapped colours, withheld"] = rows[swapped & fewest & ~seen], "right"
    parts |= {f"index, swapped colours, {role}": (words[words["role"] == role], "index") for role in ROLES}
    parts["accuracy, swapped colours, 3 and 4"] = rows[rows["pair"].isin(hard["pair"])], "right"
    parts["the same by the words' maps"] = hard, "right"
    told = [part.assign(figure=name, estimate=part[value]) for name, (part, value) in parts.items() if len(part)]
    table = pd.concat([summarise(part, "estimate", "figure", unit="pair") for part in told], ignore_index=True)
    return table.rename(columns={"mean": "estimate"})[["figure", "estimate", "low", "high", "n"]]
