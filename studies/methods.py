"""Methods compared: the maps of many methods, measured in three ways on drawn scenes. Lesson 03.

    scenes of four things -> maps by every method -> a row per scene and method

    python -m studies.methods    # data/methods.csv: the slow methods, on few scenes

The measures ask different questions. *Average precision*: does the map of a prompt lie on the thing
that the prompt names? *Deletion* (Petsiuk et al., arXiv 1806.07421): how high does the similarity
stay if what the map ranks first becomes noise? Low is good. *Taken out*: a thing is taken out and
the scene is drawn again, so that its effect on the similarity is known; does the map of a caption
rank the things as their effects do (Spearman)?
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
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

PAPER = "Grad-ECLIP (paper)"
PACKAGE = "Grad-ECLIP (package)"
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
SLOW = {
    "RISE": "rise",
    "FIxLIP": "fixlip",
    "integrated gradients": "integrated-gradients",
}
SAME = "the same everywhere"  # two maps that need no model
TRUE = "the true masks"
MEASURES = ("average precision", "deletion", "taken out")
NAMED = 3  # of the four things, the caption names the first three
_STEPS = Protocol(points=3)  # of deletion


def explainer_of(clip: Clip, title: str) -> Explainer:
    """The explainer of a row of the table: through one layer, but for the package's Grad-ECLIP."""
    if title != PACKAGE:
        clip = replace(clip, image_layers=1)
    return Explainer(clip, method=(QUICK | SLOW)[title])


# ----------------------------------------------------------------------------------------- measures


def measure(
    clip: Clip,
    titles: Iterable[str],
    scenes: Sequence[Scene],
    controls: bool = True,
    deletion: bool = True,
) -> pd.DataFrame:
    """Measure the maps of methods on scenes of four things.

    A row per scene and method, with the three measures.

    Deletion takes two passes of the model a map, and can be left out.
    """
    explainer = Explainer(clip)
    images = [scene.image(CANVAS) for scene in scenes]
    masks = [scene.masks(CANVAS) for scene in scenes]
    captions = explainer.embed_texts([describe(scene.objects[:NAMED])[0] for scene in scenes])
    prompts = explainer.embed_texts([text for scene in scenes for text in prompts_of(scene)])
    prompts = prompts.unflatten(0, (-1, 4))  # (B, 4, E)

    # the maps of the caption, and of the prompts of all things
    targets = torch.cat([captions[:, None], prompts], dim=1)  # (B, 5, E)
    maps = maps_by(
        {title: explainer_of(clip, title) for title in titles},
        images,
        targets,
    )
    if controls:
        grid = next(iter(maps.values())).shape[2:]
        things = np.array([[pool(mask, grid) for mask in scene_masks] for scene_masks in masks])
        named = things[:, :NAMED].max(axis=1, keepdims=True)
        maps[TRUE] = np.concatenate([named, things], axis=1)
        maps[SAME] = np.ones_like(maps[TRUE])

    effects = _effects(explainer, scenes, images, captions)
    rows = []
    for k, image in enumerate(images):
        similarity_left = {}
        if deletion:
            first_prompt = {title: method_maps[k, 1] for title, method_maps in maps.items()}
            similarity_left = _deletion(
                explainer,
                image,
                prompts[k, 0],
                first_prompt,
            )
        for title, method_maps in maps.items():
            caption_heat = _heat(method_maps[k, 0])
            on_things = [caption_heat[mask].sum() for mask in masks[k]]
            row = {
                "model": clip.name,
                "method": title,
                "scene": k,
                "average precision": precision_on(method_maps[[k], 1:], [masks[k]])[0],
                "deletion": similarity_left.get(title, np.nan),
                "taken out": np.nan_to_num(spearmanr(on_things, effects[k]).statistic),
            }
            rows.append(row)
    return pd.DataFrame(rows)


def _effects(
    explainer: Explainer, scenes: Sequence[Scene], images: Sequence[Image.Image], captions: Tensor
) -> np.ndarray:
    """How far the similarity to its caption falls when a scene is drawn without each of its things.

    (B, 4).
    """
    fewer = [without(scene, i).image(CANVAS) for scene in scenes for i in range(4)]
    embeddings_without = explainer.embed_images(fewer).unflatten(0, (-1, 4))
    falls = explainer.embed_images(images)[:, None] - embeddings_without  # (B, 4, E)
    return torch.einsum("bne,be->bn", falls, captions).cpu().numpy()


def _deletion(
    explainer: Explainer, image: Image.Image, text: Tensor, maps: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """The mean similarity of image and text while the image becomes noise as each map ranks it."""
    preprocess = explainer.clip.preprocess
    curves = image_curves(
        lambda pixels: explainer.image_tower.forward(pixels) @ text,
        model_view(preprocess, image).pixels,
        maps,
        _STEPS,
        colours=colours_of(preprocess),
        games=["deletion"],
    )
    return dict(curve_auc(curves)[["method", "auc"]].to_numpy())


def _heat(map_: np.ndarray) -> np.ndarray:
    return onto_image(map_, (0, 0, CANVAS, CANVAS), (CANVAS, CANVAS))


def precision(heat: np.ndarray, mask: np.ndarray) -> float:
    """The average precision of a heat map, read at every second pixel, down and across."""
    return localisation_scores(heat[::2, ::2], mask[::2, ::2])["average_precision"]


def precision_on(maps: np.ndarray, masks: Sequence[np.ndarray]) -> np.ndarray:
    """The average precision (N,) of maps (N, T, h, w) of the things of scenes, mean of a scene."""
    means = []
    for scene_maps, things in zip(maps, masks, strict=True):
        scores = [
            precision(_heat(map_), mask) for map_, mask in zip(scene_maps, things, strict=True)
        ]
        means.append(np.mean(scores))
    return np.array(means)


def passes(clip: Clip, titles: Iterable[str], repeats: int = 3) -> pd.Series:
    """The time of one prompt of one image by each method, in passes of the image encoder."""
    image = shown_scenes(1)[0].image(CANVAS)
    explainer = Explainer(clip)
    text = explainer.embed_texts(["a dog"])[None]  # (1, 1, E)
    calls = {
        title: partial(
            explainer_of(clip, title).maps,
            [image],
            text,
        )
        for title in titles
    }
    table = time_methods(
        calls,
        partial(explainer.embed_images, [image]),
        repeats=repeats,
    )
    return table.set_index("method")["passes"]


# ------------------------------------------------------------------------------------------- tables


def as_table(rows: pd.DataFrame, costs: pd.Series) -> pd.DataFrame:
    """The table of lesson 03.

    Mean and 95 % interval of every measure, the most precise method first.
    """
    table = {}
    for title, part in rows.groupby("method", sort=False):
        cost = costs.get(title, np.nan)
        row = {"cost in passes": f"{cost:.0f}" if cost > 0 else ""}
        for name in MEASURES:
            row[name] = _with_interval(part[name], "{:.2f}")
        row["scenes"] = len(part)
        table[title] = row
    order = rows.groupby("method")[MEASURES[0]].mean().sort_values(ascending=False, kind="stable")
    return pd.DataFrame(table).T.loc[order.index].rename_axis(index=None)


def differences(rows: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """How far every method lies above another, on the scenes of both.

    Mean difference and 95 % interval.
    """
    wide = rows.pivot(index="scene", columns="method")
    table = {}
    for title in rows["method"].drop_duplicates():
        row = {}
        for name in MEASURES:
            difference = (wide[name, title] - wide[name, baseline]).dropna()
            row[name] = _with_interval(difference, "{:+.2f}")
            row.setdefault("scenes", len(difference))
        table[title] = row
    return pd.DataFrame(table).T[[*MEASURES, "scenes"]].drop(index=baseline)


def _with_interval(values: pd.Series, form: str) -> str:
    low, high = mean_interval(values)
    return f"{form.format(values.mean())} [{low:.2f}, {high:.2f}]"


# ------------------------------------------------------------------------------------- slow methods


def read_slow(model: str) -> tuple[pd.DataFrame, pd.Series]:
    """The rows of the slow methods of a model in `data/methods.csv`, and their cost in passes."""
    rows = pd.read_csv(data_path("methods.csv"))
    rows = rows[rows["model"] == model]
    return rows.drop(columns="passes"), rows.groupby("method")["passes"].first()


def main() -> None:
    """Measure the slow methods and write their table."""
    parser = argparse.ArgumentParser(prog="python -m studies.methods", description=main.__doc__)
    parser.add_argument("--models", nargs="+", default=["emoji", SECOND])
    parser.add_argument("--n", type=int, default=8, help="scenes (%(default)s)")
    parser.add_argument("--out", type=Path, default=data_path("methods.csv"))
    options = parser.parse_args()

    scenes = shown_scenes(options.n, 4, whole=False)
    tables = []
    for clip in map(load_clip, options.models):
        for title in SLOW:
            rows = measure(clip, [title], scenes, controls=False)
            cost = passes(clip, [title], repeats=1)[title]
            tables.append(rows.assign(passes=cost.round()))
            pd.concat(tables).round(4).to_csv(options.out, index=False)


if __name__ == "__main__":
    main()
