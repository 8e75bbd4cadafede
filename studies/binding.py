"""Attribute binding (lesson 06): does a model know which object is red, and do its maps show it?

    pairs -> embeddings -> right answers            (`pairs.judge`)
    pairs, colour words -> maps -> the thing they lie on
    embeddings of pairs -> a linear map of text embeddings that binds

    python -m studies.binding runs/emoji-bag-control.safetensors    # data/binding_control.csv

The linear map is LABCLIP's (Koishigarina, Uselis and Oh, "CLIP Behaves like a Bag-of-Words Model
Cross-modally but not Uni-modally", arXiv 2502.03566).
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from gradeclip_utils import Explainer
from gradeclip_utils.files import data_path
from gradeclip_utils.models import Clip, load_clip
from gradeclip_utils.plots import plot_maps
from gradeclip_utils.scenes import COLOURS, Span, showable

from .pairs import Embedded, Pair, draw_pairs, images_of, judge, right_interval
from .relevance import as_array, direction_of, object_coverage

WORDS = ("true caption", "false caption", "absent colour", "contrast")


# ---------------------------------------------------------------------------------------- questions


class Question(NamedTuple):
    """What a map is drawn for: a word of a caption, or a caption less another one."""

    caption: str
    start: int = 0  # of the word
    end: int = 0  # 0: the whole caption
    subtracted: str = ""


def _about_word(caption: str, span: Span) -> Question:
    return Question(caption, span.start, span.end)


def _question(kind: str, pair: Pair, side: int, thing: int) -> Question:
    """The question of one of `WORDS` about the colour of a thing in image 0 or 1 of a pair."""
    scene = pair.scenes[side]
    colour = scene.objects[thing].colour

    if kind == "false caption":  # where the same word stands in the caption of the other image
        caption = pair.scenes[1 - side].caption
        spans = pair.words(1 - side)
        (span,) = [span for span in spans if caption[span.start : span.end] == colour]
        return _about_word(caption, span)

    (span,) = [span for span in pair.words(side) if span.objects[0] == thing]
    if kind == "true caption":
        return _about_word(scene.caption, span)

    if kind == "contrast":
        (second,) = set(pair.asked) - {thing}
        repeated = str(scene.objects[second].colour)
        subtracted, _, _ = with_word(scene.caption, span.start, span.end, repeated)
        return Question(scene.caption, subtracted=subtracted)

    shown = {thing.colour for thing in scene.objects}
    absent = [name for name in COLOURS if name not in shown]
    word = absent[(len(pair.name) + thing) % len(absent)]
    return Question(*with_word(scene.caption, span.start, span.end, word))


def with_word(caption: str, start: int, end: int, word: str) -> tuple[str, int, int]:
    """A caption with one word exchanged, its article agreeing, and where the new word stands."""
    article = r"\1n " if word[0].lower() in "aeiou" else r"\1 "
    before = re.sub(r"\b(a)n? $", article, caption[:start], flags=re.I)
    return before + word + caption[end:], len(before), len(before) + len(word)


def _directions(explainer: Explainer, questions: Sequence[Question]) -> Tensor:
    """The direction (N, E) of each question; each caption is read once."""
    whole = []
    with_words = []
    for question in questions:
        if question.end:
            with_words.append(question.caption)
        else:
            whole += [question.caption, question.subtracted]
    whole = list(dict.fromkeys(whole))
    with_words = list(dict.fromkeys(with_words))
    embeddings = dict(zip(whole, explainer.embed_texts(whole) if whole else (), strict=True))
    words = dict(zip(with_words, explainer.word_directions(with_words), strict=True))

    directions = []
    for caption, start, end, subtracted in questions:
        if end:
            directions.append(direction_of(*words[caption], start, end))
        else:
            directions.append(embeddings[caption] - embeddings[subtracted])
    return torch.stack(directions)


# --------------------------------------------------------------------------------------------- maps


def word_maps(explainer: Explainer, pairs: Sequence[Pair]) -> pd.DataFrame:
    """Where the maps of colour words lie in pairs with swapped colours.

    One row per image, thing and word.

    Each of the two things gives its colour word: as the true caption has it, as the false caption
    has it (beside the other thing), and a colour that is nowhere in the image in its place.
    "contrast" is the map of the true caption rather than the one that repeats the other thing's
    colour. `index` is the fraction of the positive relevance on the two things, each per area, that
    lies on the thing; .5 where there is none.
    """
    sides = [(pair, side) for pair in pairs for side in (0, 1)]
    questions = [
        _question(word, pair, side, thing)
        for pair, side in sides
        for thing in pair.asked
        for word in WORDS
    ]
    directions = _directions(explainer, questions).unflatten(0, (len(sides), -1))
    scenes = [pair.scenes[side] for pair, side in sides]
    maps = as_array(explainer.maps(images_of(explainer.clip, scenes), directions))
    maps = maps.reshape(len(sides), 2, len(WORDS), *maps.shape[2:])  # (sides, things, words, h, w)

    rows = []
    for i, (pair, side) in enumerate(sides):
        coverage = object_coverage(explainer, scenes[i], maps.shape[3:])
        for k, thing in enumerate(pair.asked):
            second = pair.asked[1 - k]
            for word, map_ in zip(WORDS, maps[i, k], strict=True):
                row = {
                    "pair": pair.name,
                    "side": side,
                    "thing": thing,
                    "word": word,
                    "index": _index(map_, coverage[thing], coverage[second]),
                }
                rows.append(row)
    table = pd.DataFrame(rows)
    return table.assign(right=(np.sign(table["index"] - 0.5) + 1) / 2)


def _index(map_: np.ndarray, thing: np.ndarray, second: np.ndarray) -> float:
    """Mean positive relevance on a thing over the sum of the means on it and on a second one."""
    heat = np.maximum(map_, 0)
    on_thing = (heat * thing).sum() / thing.sum()
    on_second = (heat * second).sum() / second.sum()
    if on_thing + on_second == 0:
        return 0.5
    return float(on_thing / (on_thing + on_second))


def plot_vote(clips: Mapping[str, Clip], pairs: Sequence[Pair], n: int = 3) -> Figure:
    """Maps of both colour words by the first and the last model, A and B, for `n` pairs.

    They are the first pairs whose things are whole and large, and whose four maps are not empty.
    """
    candidates = [pair for pair in pairs if showable(pair.scenes[0])][: 6 * n]
    scenes = [pair.scenes[0] for pair in candidates]
    spans = [pair.words(0) for pair in candidates]
    questions = [
        _about_word(scene.caption, span)
        for scene, words in zip(scenes, spans, strict=True)
        for span in words
    ]

    maps: list[dict[str, np.ndarray]] = [{} for _ in scenes]  # by title
    first, *_, last = clips.values()
    for letter, clip in (("A", first), ("B", last)):
        explainer = Explainer(clip)
        directions = _directions(explainer, questions).unflatten(0, (-1, 2))
        clip_maps = as_array(explainer.maps(images_of(clip, scenes), directions))
        for i, scene in enumerate(scenes):
            for span, map_ in zip(spans[i], clip_maps[i], strict=True):
                word = scene.caption[span.start : span.end]
                maps[i][f"{letter}: {word}"] = np.maximum(map_, 0)

    drawn = [i for i in range(len(scenes)) if all(map_.any() for map_ in maps[i].values())][:n]
    images = [scenes[i].image() for i in drawn]
    return plot_maps(
        images,
        [maps[i] for i in drawn],
        columns=4,
        shared_scale=False,
    )


def answers_by_maps(rows: pd.DataFrame) -> pd.Series:
    """Which caption its maps prefer: 1 for the true one, 0 for the false one, .5 for neither.

    A caption is preferred if its words lie more on the things that it gives the colours to.
    """
    means = rows.pivot_table("index", ["pair", "side"], "word", sort=False)
    lead = means["true caption"] + means["false caption"] - 1
    return (np.sign(lead.round(6)) + 1) / 2


def colour_directions(explainer: Explainer, pairs: Sequence[Pair]) -> pd.Series:
    """How alike each colour word's directions are in captions about different things.

    Mean cosine, by colour.

    What all colour words share is taken away. Words whose direction is zero are left out.
    """
    questions = [
        _about_word(pair.scenes[0].caption, span) for pair in pairs for span in pair.words(0)
    ]
    colours = np.array([caption[start:end] for caption, start, end, _ in questions])
    directions = as_array(_directions(explainer, questions))  # (N, E)

    nonzero = directions.any(1)
    colours = colours[nonzero]
    directions = directions[nonzero] - directions[nonzero].mean(0)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)

    cosines = {}
    for colour in np.unique(colours):
        vectors = directions[colours == colour]
        count = len(vectors)
        sum_of_cosines = np.linalg.norm(vectors.sum(0)) ** 2 - count  # without those to themselves
        cosines[colour] = sum_of_cosines / max(count * (count - 1), 1)
    return pd.Series(cosines)


# ------------------------------------------------------------------------------------------- remedy


def fit_text_map(dev: Embedded, steps: int = 200) -> Tensor:
    """LABCLIP's linear map (E, E) of text embeddings, fitted on pairs by CLIP's contrastive loss.

    Encoders stay fixed.

    The two captions of a pair stand in one batch, so each is the hard negative of the other.
    """
    images = dev.images.double()  # (P, 2, E)
    texts = dev.texts.double()
    scale = 100.0  # of the logits, as in CLIP
    generator = torch.Generator().manual_seed(0)
    matrix = torch.eye(texts.shape[-1], dtype=texts.dtype, requires_grad=True)
    optimizer = torch.optim.Adam([matrix], lr=1e-3)

    with torch.enable_grad():
        for _ in range(steps):
            batch = torch.randperm(len(images), generator=generator)[:64]
            image_embeddings = images[batch].flatten(0, 1)
            text_embeddings = F.normalize(texts[batch].flatten(0, 1) @ matrix, dim=-1)
            logits = scale * image_embeddings @ text_embeddings.T
            labels = torch.arange(len(logits))
            loss = F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)
            (matrix.grad,) = torch.autograd.grad(loss, [matrix])
            optimizer.step()
    return matrix.detach()


def mapped(pairs: Embedded, matrix: Tensor) -> Embedded:
    """The same images, and texts after a linear map."""
    texts = F.normalize(pairs.texts.double() @ matrix, dim=-1)
    return Embedded(pairs.images, texts.to(pairs.texts))


# ------------------------------------------------------------------------------------------ control


def control_table(weights: str | Path, n: int = 400) -> pd.DataFrame:
    """How often a model with these weights is right on test pairs.

    Question, right, low, high, n.
    """
    clip = load_clip("emoji", weights)
    rows = []
    for kind in ("swapped colours", "colour", "object identity"):
        answers = judge(clip, draw_pairs(kind, n, split="test"))
        low, high = right_interval(answers["right"], answers["pair"].array)
        rows.append((kind, answers["right"].mean(), low, high, len(answers)))
    return pd.DataFrame(rows, columns=["question", "right", "low", "high", "n"]).round(4)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the control of `emoji-bag`, trained without shuffled words, and write its table."""
    parser = argparse.ArgumentParser(prog="python -m studies.binding", description=main.__doc__)
    parser.add_argument(
        "weights",
        type=Path,
        help="as `python -m training` writes them",
    )
    parser.add_argument(
        "--out", type=Path, default=data_path("binding_control.csv"), help="%(default)s"
    )
    options = parser.parse_args(arguments)
    table = control_table(options.weights)
    table.to_csv(options.out, index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
