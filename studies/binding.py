"""Attribute binding (lesson 05): does a model know which object is red, and do its maps show it?

    pairs -> embeddings -> right answers            (`pairs.judge`)
    pairs, colour words -> maps -> the thing they lie on
    embeddings of pairs -> a linear map of text embeddings that binds

    python -m studies.binding runs/emoji-bag-control.safetensors      # writes
    data/binding_control.csv

The linear map is LABCLIP's (Koishigarina, Uselis and Oh, "CLIP Behaves like a Bag-of-Words Model
Cross-modally but not Uni-modally", arXiv 2502.03566).
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from gradeclip_utils.explainer import Explainer
from gradeclip_utils.files import data_path
from gradeclip_utils.models import Clip, load_clip
from gradeclip_utils.plots import plot_maps
from gradeclip_utils.scenes import COLOURS, Span, showable

from .pairs import Embedded, Pair, draw_pairs, images_of, judge, right_interval
from .relevance import as_array, direction_of, object_coverage

WORDS = ("true caption", "false caption", "absent colour", "contrast")


# --------------------------------------------------------------------------------------------- maps


def word_maps(explainer: Explainer, pairs: Sequence[Pair]) -> pd.DataFrame:
    """Where the maps of colour words lie in pairs with swapped colours: one row per image, thing and word.

    Each of the two things gives its colour word: as the true caption has it, as the false caption
    has it (beside the other thing), and a colour that is nowhere in the image in its place.
    "contrast" is the map of the true caption rather than the one that repeats the other thing's
    colour. `index` is the fraction of the positive relevance on the two things, each per area, that
    lies on the thing; .5 where there is none.
    """
    asked = [(pair, side, thing) for pair in pairs for side in (0, 1) for thing in pair.asked]
    captions = [[_caption(word, *one) for word in WORDS] for one in asked]
    directions = _directions(explainer, [one for row in captions for one in row]).unflatten(
        0, (-1, 2, len(WORDS))
    )
    scenes, rows = [pair.scenes[side] for pair in pairs for side in (0, 1)], []
    maps = as_array(explainer.maps(images_of(explainer.clip, scenes), directions.flatten(1, 2)))
    for i, (pair, side, thing) in enumerate(asked):
        scene, mine = pair.scenes[side], maps[i // 2, (i % 2) * len(WORDS) :][: len(WORDS)]
        coverage = object_coverage(explainer, scene, mine.shape[1:])
        (other,) = set(pair.asked) - {thing}
        for word, map_ in zip(WORDS, mine, strict=True):
            index = _index(map_, coverage[thing], coverage[other])
            rows.append(
                {"pair": pair.name, "side": side, "thing": thing, "word": word, "index": index}
            )
    table = pd.DataFrame(rows)
    return table.assign(right=(np.sign(table["index"] - 0.5) + 1) / 2)


def _caption(word: str, pair: Pair, side: int, thing: int) -> tuple[str, Span | None, str]:
    """A caption, the colour word in it that is asked, if any, and the caption that is subtracted, if any."""
    scene, other = pair.scenes[side], pair.scenes[1 - side]
    colour = scene.objects[thing].colour
    if word == "false caption":
        (span,) = (
            one for one in pair.words(1 - side) if other.caption[one.start : one.end] == colour
        )
        return other.caption, span, ""
    (span,) = (one for one in pair.words(side) if one.objects[0] == thing)
    if word == "true caption":
        return scene.caption, span, ""
    colours = {one.colour for one in scene.objects}
    if word == "contrast":
        (said,) = (scene.objects[k].colour for k in pair.asked if k != thing)
        return scene.caption, None, with_word(scene.caption, span.start, span.end, str(said))[0]
    absent = [one for one in COLOURS if one not in colours]
    word = absent[(len(pair.name) + thing) % len(absent)]
    caption, start, end = with_word(scene.caption, span.start, span.end, word)
    return caption, replace(span, start=start, end=end), ""


def with_word(caption: str, start: int, end: int, word: str) -> tuple[str, int, int]:
    """The caption with another word in the place of one, its article agreeing, and where the new word stands."""
    article = r"\1n " if word[0].lower() in "aeiou" else r"\1 "
    before = re.sub(r"\b(a)n? $", article, caption[:start], flags=re.I)
    return before + word + caption[end:], len(before), len(before) + len(word)


def _directions(explainer: Explainer, asked: Sequence[tuple[str, Span | None, str]]) -> Tensor:
    """The direction (N, E) of each word in its caption, or of the caption less the one that is subtracted."""
    whole = list(
        dict.fromkeys(
            text for caption, span, less in asked if span is None for text in (caption, less)
        )
    )
    read = list(dict.fromkeys(caption for caption, span, _ in asked if span))
    embedded = dict(zip(whole, explainer.embed_texts(whole), strict=True)) if whole else {}
    words = dict(zip(read, explainer.word_directions(read), strict=True)) if read else {}
    found = []
    for caption, span, less in asked:
        if span is None:
            found.append(embedded[caption] - embedded[less])
        else:
            found.append(direction_of(*words[caption], span.start, span.end))
    return torch.stack(found)


def _index(map_: np.ndarray, own: np.ndarray, other: np.ndarray) -> float:
    """Mean positive relevance on one thing over the sum of the means on both."""
    heat = np.maximum(map_, 0)
    mine, theirs = ((heat * part).sum() / part.sum() for part in (own, other))
    return float(mine / (mine + theirs)) if mine + theirs > 0 else 0.5


def plot_vote(clips: Mapping[str, Clip], pairs: Sequence[Pair], n: int = 3) -> Figure:
    """Maps of both colour words by the first and the last model, A and B, for the first `n` pairs fit to be shown.

    The border cuts none of their things, none is small, and none of the four maps is empty.
    """
    shown = [pair for pair in pairs if showable(pair.scenes[0])][: 6 * n]
    scenes, maps = [pair.scenes[0] for pair in shown], [{} for _ in shown]
    first, *_, last = clips.values()
    for letter, clip in (("A", first), ("B", last)):
        explainer = Explainer(clip)
        asked = [
            (scene.caption, span, "")
            for pair, scene in zip(shown, scenes, strict=True)
            for span in pair.words(0)
        ]
        directions = _directions(explainer, asked).unflatten(0, (-1, 2))
        for i, both in enumerate(as_array(explainer.maps(images_of(clip, scenes), directions))):
            for span, map_ in zip(shown[i].words(0), both, strict=True):
                maps[i][f"{letter}: {scenes[i].caption[span.start : span.end]}"] = np.maximum(
                    map_, 0
                )
    some = [i for i, mine in enumerate(maps) if all(map_.any() for map_ in mine.values())][:n]
    return plot_maps(
        [scenes[i].image() for i in some], [maps[i] for i in some], columns=4, shared_scale=False
    )


def answers_by_maps(rows: pd.DataFrame) -> pd.Series:
    """Which caption the maps of its colour words prefer: 1 for the true one, 0 for the false one, .5 for neither.

    A caption is preferred if its words lie more on the things that it gives the colours to.
    """
    means = rows.pivot_table("index", ["pair", "side"], "word", sort=False)
    return (np.sign((means["true caption"] + means["false caption"] - 1).round(6)) + 1) / 2


def colour_directions(explainer: Explainer, pairs: Sequence[Pair]) -> pd.Series:
    """How alike each colour word's directions are in captions about different things: mean cosine, by colour.

    What all colour words share is taken away. Words whose direction is zero are left out.
    """
    asked = [(pair.scenes[0].caption, span, "") for pair in pairs for span in pair.words(0)]
    colours = np.array([caption[span.start : span.end] for caption, span, _ in asked])
    found = as_array(_directions(explainer, asked))
    there = np.linalg.norm(found, axis=1) > 0
    found, colours = found[there] - found[there].mean(0), colours[there]
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    alike = {}
    for colour in np.unique(colours):
        mine = found[colours == colour]
        alike[colour] = (np.linalg.norm(mine.sum(0)) ** 2 - len(mine)) / max(
            len(mine) * (len(mine) - 1), 1
        )
    return pd.Series(alike)


# ------------------------------------------------------------------------------------------- remedy


def fit_text_map(dev: Embedded, steps: int = 200) -> Tensor:
    """LABCLIP's linear map (E, E) of text embeddings, fitted on pairs by CLIP's contrastive loss; encoders stay fixed.

    The two captions of a pair stand in one batch, so each is the hard negative of the other.
    """
    images, texts = (one.double() for one in dev)
    generator, scale = torch.Generator().manual_seed(0), 100.0
    matrix = torch.eye(texts.shape[-1], dtype=texts.dtype, requires_grad=True)
    optimiser = torch.optim.Adam([matrix], lr=1e-3)
    with torch.enable_grad():
        for _ in range(steps):
            some = torch.randperm(len(images), generator=generator)[:64]
            seen, said = (
                images[some].flatten(0, 1),
                F.normalize(texts[some].flatten(0, 1) @ matrix, dim=-1),
            )
            logits, own = scale * seen @ said.T, torch.arange(2 * len(some))
            loss = F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)
            (matrix.grad,) = torch.autograd.grad(loss, [matrix])
            optimiser.step()
    return matrix.detach()


def mapped(pairs: Embedded, matrix: Tensor) -> Embedded:
    """The same images, and texts after a linear map."""
    return Embedded(
        pairs.images, F.normalize(pairs.texts.double() @ matrix, dim=-1).to(pairs.texts)
    )


# ------------------------------------------------------------------------------------------ control


def control_table(weights: str | Path, n: int = 400) -> pd.DataFrame:
    """How often a model with these weights is right on test pairs: question, right, low, high, n."""
    clip, rows = load_clip("emoji", weights), []
    for kind in ("swapped colours", "colour", "object identity"):
        found = judge(clip, draw_pairs(kind, n, split="test"))
        low, high = right_interval(found["right"], found["pair"].array)
        rows.append(
            {
                "question": kind,
                "right": found["right"].mean(),
                "low": low,
                "high": high,
                "n": len(found),
            }
        )
    return pd.DataFrame(rows).round(4)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the control of `emoji-bag`, as many ordinary steps from the same weights, and write its table."""
    parser = argparse.ArgumentParser(prog="python -m studies.binding", description=main.__doc__)
    parser.add_argument(
        "weights", type=Path, help="a compact checkpoint, as `python -m training` writes it"
    )
    parser.add_argument(
        "--out", type=Path, default=data_path("binding_control.csv"), help="%(default)s"
    )
    given = parser.parse_args(arguments)
    table = control_table(given.weights)
    table.to_csv(given.out, index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
