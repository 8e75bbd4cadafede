"""Methods compared: the maps of many methods, measured in three ways on drawn scenes. Lesson 03.

    scenes of four things -> maps by every method -> a row per scene and method

    python -m studies.methods              # writes data/methods.csv: the slow methods, on few
    scenes, by both models

The measures ask different questions. *Average precision*: does the map of a prompt lie on the thing
that the prompt names? *Deletion* (Petsiuk et al., arXiv 1806.07421): how high does the similarity
stay if what the map ranks first becomes noise? Low is good. *Taken out*: a thing is taken out and
the scene is drawn again, so that its effect on the similarity is known; does the map of a caption
rank the things as their effects do (Spearman)?
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import Tensor

from gradeclip_utils import Clip, Explainer, load_clip
from gradeclip_utils.files import data_path
from gradeclip_utils.images import model_view, onto_image, pool
from gradeclip_utils.measures.faithfulness import Protocol, colours_of, curve_auc, image_curves
from gradeclip_utils.measures.localisation import localisation_scores
from gradeclip_utils.measures.sanity import time_methods
from gradeclip_utils.measures.statistics import mean_interval
from gradeclip_utils.scenes import CANVAS, Scene, describe, without

from . import rivals  # noqa: F401 # adds FIxLIP to the methods
from .lesson import SECOND, prompts_of, shown_scenes
from .relevance import maps_by

PAPER, PACKAGE = "Grad-ECLIP (paper)", "Grad-ECLIP (package)"
QUICK = {
    PAPER: "grad-eclip",
    PACKAGE: "grad-eclip",
    "softmax x gradient": "grad-eclip-softmax",
    "GAME": "game",
    "LeGrad": "legrad",
    "Grad-CAM": "grad-cam",
    "MaskCLIP": "maskclip",
    "CLIP Surgery": "clip-surgery",
    "raw attention": "attention",
}
SLOW = {"RISE": "rise", "FIxLIP": "fixlip", "integrated gradients": "integrated-gradients"}
SAME, TRUE = "the same everywhere", "the true masks"  # two maps that need no model
MEASURES = ("average precision", "deletion", "taken out")
NAMED = 3  # of the four things, the caption names the first three
_BOX, _FEW = (0, 0, CANVAS, CANVAS), Protocol(points=3)


def explainer_of(clip: Clip, title: str) -> Explainer:
    """Return the explainer of a row of the table: through one layer, but for the package's Grad-ECLIP."""
    return Explainer(
        clip if title == PACKAGE else replace(clip, image_layers=1), method=(QUICK | SLOW)[title]
    )


def measure(
    clip: Clip,
    titles: Iterable[str],
    scenes: Sequence[Scene],
    controls: bool = True,
    deletion: bool = True,
) -> pd.DataFrame:
    """Measure the maps of methods on scenes of four things: a row per scene and method, with the three measures.

    Deletion takes two passes of the model a map, and can be left out.
    """
    asker, images = Explainer(clip), [scene.image(CANVAS) for scene in scenes]
    captions = asker.embed_texts([describe(scene.objects[:NAMED])[0] for scene in scenes])
    prompts = asker.embed_texts([text for scene in scenes for text in prompts_of(scene)]).unflatten(
        0, (-1, 4)
    )
    less = [without(scene, i).image(CANVAS) for scene in scenes for i in range(4)]
    falls = asker.embed_images(images)[:, None] - asker.embed_images(less).unflatten(0, (-1, 4))
    effects = torch.einsum("bne,be->bn", falls, captions).cpu().numpy()
    asked = torch.cat([captions[:, None], prompts], dim=1)  # (B, 5, E)
    maps = maps_by({title: explainer_of(clip, title) for title in titles}, images, asked)
    masks = [scene.masks(CANVAS) for scene in scenes]
    if controls:
        grid = next(iter(maps.values())).shape[2:]
        pooled = np.array([[pool(one, grid) for one in own] for own in masks])
        maps[TRUE] = np.concatenate([pooled[:, :NAMED].max(1, keepdims=True), pooled], axis=1)
        maps[SAME] = np.ones_like(maps[TRUE])
    rows = []
    for k, image in enumerate(images):
        pixels, colours = model_view(clip.preprocess, image).pixels, colours_of(clip.preprocess)
        score = partial(_similarity, asker, prompts[k, 0])
        first = {title: own[k, 1] for title, own in maps.items()}
        kept = pd.Series(np.nan, index=[*maps])
        if deletion:
            curves = image_curves(score, pixels, first, _FEW, colours=colours, games=["deletion"])
            kept = curve_auc(curves).set_index("method")["auc"]
        for title, own in maps.items():
            found, whole = precision_on(own[k : k + 1, 1:], masks[k : k + 1])[0], _heat(own[k, 0])
            ranked = spearmanr([whole[mask].sum() for mask in masks[k]], effects[k]).statistic
            rows.append((clip.name, title, k, found, kept[title], float(np.nan_to_num(ranked))))
    return pd.DataFrame(rows, columns=["model", "method", "scene", *MEASURES])


def _similarity(asker: Explainer, text: Tensor, pixels: Tensor) -> Tensor:
    return asker.image_tower.forward(pixels) @ text


def _heat(map_: np.ndarray) -> np.ndarray:
    return onto_image(map_, _BOX, (CANVAS, CANVAS))


def precision(heat: np.ndarray, mask: np.ndarray) -> float:
    """Return the average precision of a heat map, read at every second pixel, down and across."""
    return localisation_scores(heat[::2, ::2], mask[::2, ::2])["average_precision"]


def precision_on(maps: np.ndarray, masks: Sequence[np.ndarray]) -> np.ndarray:
    """Return the average precision (N,) of the maps (N, T, h, w) of the things of scenes, the mean over a scene."""
    pairs = (zip(own, things, strict=True) for own, things in zip(maps, masks, strict=True))
    return np.array(
        [np.mean([precision(_heat(one), mask) for one, mask in scene]) for scene in pairs]
    )


def passes(clip: Clip, titles: Iterable[str], repeats: int = 3) -> pd.Series:
    """Return what one prompt of one image costs by each method, in forward passes of the image encoder, by time."""
    image, own = shown_scenes(1)[0].image(CANVAS), Explainer(clip)
    text = own.embed_texts(["a dog"])[None]
    calls = {title: partial(explainer_of(clip, title).maps, [image], text) for title in titles}
    return time_methods(calls, partial(own.embed_images, [image]), repeats=repeats).set_index(
        "method"
    )["passes"]


def as_table(rows: pd.DataFrame, costs: pd.Series) -> pd.DataFrame:
    """Return the table of lesson 03: mean and 95 % interval of every measure, the most precise method first."""
    table = {}
    for title, part in rows.groupby("method", sort=False):
        numbers = {name: (part[name].mean(), *mean_interval(part[name])) for name in MEASURES}
        shown = {name: "{:.2f} [{:.2f}, {:.2f}]".format(*three) for name, three in numbers.items()}
        spent = f"{costs[title]:.0f}" if costs.get(title, np.nan) > 0 else ""
        table[title] = {
            "cost in passes": spent,
            **shown,
            "scenes": len(part),
            "order": part[MEASURES[0]].mean(),
        }
    return pd.DataFrame(table).T.sort_values("order", ascending=False).drop(columns="order")


def differences(rows: pd.DataFrame, other: str) -> pd.DataFrame:
    """Return how far every method lies above another, on the scenes of both: mean difference and 95 % interval."""
    wide, table = rows.pivot(index="scene", columns="method"), {}
    for title in rows["method"].drop_duplicates():
        apart = {name: (wide[name, title] - wide[name, other]).dropna() for name in MEASURES}
        shown = {
            name: "{:+.2f} [{:.2f}, {:.2f}]".format(one.mean(), *mean_interval(one))
            for name, one in apart.items()
        }
        table[title] = {**shown, "scenes": len(apart[MEASURES[0]])}
    return pd.DataFrame(table).T.drop(index=other)


def read_slow(model: str) -> tuple[pd.DataFrame, pd.Series]:
    """Return the rows of the slow methods of a model in `data/methods.csv`, and what they cost in passes."""
    kept = pd.read_csv(data_path("methods.csv"))
    kept = kept[kept["model"] == model]
    return kept.drop(columns="passes"), kept.groupby("method")["passes"].first()


def main() -> None:
    """Measure the slow methods and write their table."""
    parser = argparse.ArgumentParser(prog="python -m studies.methods", description=main.__doc__)
    parser.add_argument("--models", nargs="+", default=["emoji", SECOND])
    parser.add_argument("--n", type=int, default=8, help="scenes (%(default)s)")
    parser.add_argument("--out", type=Path, default=data_path("methods.csv"))
    options = parser.parse_args()
    tables = []
    for clip in map(load_clip, options.models):
        scenes = shown_scenes(options.n, 4, whole=False)
        for title in SLOW:
            rows = measure(clip, [title], scenes, controls=False)
            tables.append(rows.assign(passes=passes(clip, [title], repeats=1)[title].round()))
            pd.concat(tables).round(4).to_csv(options.out, index=False)


if __name__ == "__main__":
    main()
