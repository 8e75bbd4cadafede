"""Methods compared: the maps of many methods, measured in four ways on drawn scenes. Lesson 03.

    scenes of four things -> maps by every method -> a row per scene and method

    python -m studies.methods    # data/methods.csv; goes on where it was stopped

The measures ask different questions. *Average precision*: does the map of a prompt lie on the thing
that the prompt names? *Taken out*: a thing is taken out and the scene is drawn again, so that its
effect on the similarity is known; does the map of a caption rank the things that the caption names
as their effects do (Spearman)? *Deletion* and *insertion* (Petsiuk et al., arXiv 1806.07421): how
high is the similarity while pixels become noise, or come back, in the order of the map? Both are
parts of the way from the empty image (0) to the intact one (1).

The target of the first two is the similarity or, in columns that end in "(lead)", its lead over the
mean similarity of null captions.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from PIL import Image
from scipy.stats import spearmanr
from torch import Tensor

from gradeclip_utils import Clip, Explainer, load_clip
from gradeclip_utils.files import data_path
from gradeclip_utils.images import model_view, pool
from gradeclip_utils.measures.faithfulness import (
    GAMES,
    Protocol,
    colours_of,
    curve_auc,
    image_curves,
)
from gradeclip_utils.measures.localisation import localisation_scores
from gradeclip_utils.measures.sanity import time_methods
from gradeclip_utils.measures.statistics import mean_interval
from gradeclip_utils.methods import METHODS, Method
from gradeclip_utils.methods.common import zero_maps
from gradeclip_utils.methods.grad_eclip import (
    attention_gradient,
    channel_weights,
    spatial_weights,
)
from gradeclip_utils.methods.options import DEFAULTS, Options
from gradeclip_utils.plots import plot_maps
from gradeclip_utils.plots.figures import FULL_WIDTH, SMALLEST_TYPE, new_figure
from gradeclip_utils.scenes import CANVAS, Scene, describe, without
from gradeclip_utils.towers import Tower, Trace

from . import rivals  # noqa: F401 # adds FIxLIP to the methods
from .lesson import SECOND, checksum_of, embed_prompts, prompts_of, shown_scenes
from .relevance import maps_by, null_mean, on_canvas

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
    "rollout": "rollout",
    "raw attention": "attention",
}
SLOW = {
    "RISE": "rise",
    "FIxLIP": "fixlip",
    "integrated gradients": "integrated-gradients",
    "M2IB": "m2ib",
}
DEPTHS = ["depths"]  # stands for the methods of `SUMMED`, through several depths
POSITIVE = "Grad-ECLIP, positive parts"
SAME = "the same everywhere"  # three rows that need no model
TRUE = "the true masks"
INDICATOR = "named or not"
MEASURES = ("average precision", "taken out", "deletion", "insertion")
LEADS = ("average precision (lead)", "taken out (lead)")
NAMED = 3  # of the four things, the caption names the first three
MODELS = ("emoji", SECOND)  # of the table on disk
SCENES = 200  # of the table: of quick methods,
SLOW_SCENES = 32  # of slow methods and of deletion,
DEPTH_SCENES = 50  # and of depths
CHUNK = 4  # scenes that are measured before the table is written
LIVE = 8  # where there is no table, one in so many scenes is measured
CURVED = 4  # and deletion and insertion of so many
_PROTOCOL = Protocol(points=11)  # half of the pixels, read in steps of 5 %
_ENDS = Protocol(span=1, points=2)
_CURVES = (*GAMES, *(f"{game} range" for game in GAMES))


def positive_layers(
    tower: Tower,
    trace: Trace,
    directions: Tensor,
    options: Options = DEFAULTS,
) -> Tensor:
    """Grad-ECLIP with the positive part taken in every layer, as published, and then summed."""
    weights = channel_weights(tower, trace, directions)  # (B, T, L, R, D)
    maps = zero_maps(trace, directions)
    for place, layer in enumerate(trace.layers):
        lam = spatial_weights(layer, trace.valid_mask)
        for target in range(directions.shape[1]):
            relevance = lam * attention_gradient(weights[:, target, place], layer.v)
            maps[:, target] += relevance.sum(dim=(1, 2)).clamp(min=0)
    return maps


_POSITIVE_LAYERS = Method(
    name="positive-layers",
    title=POSITIVE,
    paper=METHODS["grad-eclip"].paper,
    image=positive_layers,
    graph="query_graph",
)
SUMMED = {  # methods that sum over layers
    "Grad-ECLIP": "grad-eclip",
    POSITIVE: _POSITIVE_LAYERS,
    "softmax x gradient": "grad-eclip-softmax",
    "GAME": "game",
    "LeGrad": "legrad",
}


def explainer_of(clip: Clip, title: str, layers: int | None = None) -> Explainer:
    """The explainer of a row of the table, through `layers` or as many as the method explains.

    The paper's Grad-ECLIP explains one layer, the package's as many as the model suggests.
    """
    method = (SUMMED | QUICK | SLOW)[title]
    if title == PAPER:
        layers = 1
    return Explainer(clip, method=method, image_layers=layers)


# ----------------------------------------------------------------------------------------- measures


def measure(
    clip: Clip,
    titles: Iterable[str],
    scenes: Sequence[Scene],
    controls: bool = True,
    deletion: int = 0,
) -> pd.DataFrame:
    """Measure the maps of methods on scenes of four things.

    Args:
        clip: the model.
        titles: rows of `QUICK` and `SLOW`.
        scenes: B scenes.
        controls: add the rows that need no model.
        deletion: of how many of the scenes deletion and insertion are measured; they take twenty
            passes of the model a map.

    Returns:
        A row per scene and method: the measures, "all four" (as "taken out", with the thing that
        the caption does not name) and NaN for what was not measured.
    """
    explainer = Explainer(clip)
    images = [scene.image(CANVAS) for scene in scenes]
    masks = [scene.masks(CANVAS) for scene in scenes]
    targets = _targets(explainer, scenes)  # (B, 5, E)
    leads = targets - null_mean(explainer)
    directions = torch.cat([targets, leads], dim=1)  # (B, 10, E)
    explainers = {title: explainer_of(clip, title) for title in titles}
    maps = maps_by(explainers, images, directions)
    if controls:
        first_maps = next(iter(maps.values()))  # (B, 10, h, w)
        maps |= _controls(masks, first_maps.shape[2:])

    falls = _falls(explainer, scenes, images)  # (B, 4, E)
    effects = torch.einsum("bne,be->bn", falls, targets[:, 0]).cpu().numpy()
    effects_on_lead = torch.einsum("bne,be->bn", falls, leads[:, 0]).cpu().numpy()

    rows = []
    for k, image in enumerate(images):
        curves: dict[str, dict[str, float]] = {}
        if k < deletion:
            first_prompt = {title: method_maps[k, 1] for title, method_maps in maps.items()}
            curves = _curves(explainer, image, targets[k, 1], first_prompt)

        for title, method_maps in maps.items():
            similarity_maps, lead_maps = np.split(method_maps[k], 2)  # (5, h, w) each
            caption = _on_things(similarity_maps[0], masks[k])
            lead_caption = _on_things(lead_maps[0], masks[k])
            row = {
                "model": clip.name,
                "method": title,
                "scene": k,
                "average precision": mean_precision(similarity_maps[1:], masks[k]),
                "average precision (lead)": mean_precision(lead_maps[1:], masks[k]),
                "taken out": _agreement(caption, effects[k], NAMED),
                "taken out (lead)": _agreement(lead_caption, effects_on_lead[k], NAMED),
                "all four": _agreement(caption, effects[k], 4),
            }
            rows.append(row | dict.fromkeys(_CURVES, np.nan) | curves.get(title, {}))

        if controls:
            is_named = np.arange(4) < NAMED
            row = {
                "model": clip.name,
                "method": INDICATOR,
                "scene": k,
                "taken out": 0.0,  # it has no order of named things
                "taken out (lead)": 0.0,
                "all four": _agreement(is_named, effects[k], 4),
            }
            rows.append(row)
    return pd.DataFrame(rows)


def _targets(explainer: Explainer, scenes: Sequence[Scene]) -> Tensor:
    """The caption of three of the four things and the prompt of each thing, (B, 5, E)."""
    captions = []
    for scene in scenes:
        caption, _ = describe(scene.objects[:NAMED])
        captions.append(caption)
    caption_embeddings = explainer.embed_texts(captions)[:, None]  # (B, 1, E)
    prompt_embeddings = embed_prompts(explainer, scenes)  # (B, 4, E)
    return torch.cat([caption_embeddings, prompt_embeddings], dim=1)


def _controls(masks: Sequence[np.ndarray], grid: tuple[int, int]) -> dict[str, np.ndarray]:
    """Maps (B, 10, h, w) that need no model: the true masks, and a constant one."""
    pooled = [[pool(mask, grid) for mask in scene_masks] for scene_masks in masks]
    things = np.array(pooled)  # (B, 4, h, w)
    named = things[:, :NAMED].max(axis=1, keepdims=True)
    true = np.concatenate([named, things, named, things], axis=1)
    return {TRUE: true, SAME: np.ones_like(true)}


def _falls(explainer: Explainer, scenes: Sequence[Scene], images: Sequence[Image.Image]) -> Tensor:
    """The image's embedding less that of the scene drawn without each of its things, (B, 4, E)."""
    fewer = []
    for scene in scenes:
        for i in range(4):
            smaller_scene = without(scene, i)
            fewer.append(smaller_scene.image(CANVAS))
    embeddings_without = explainer.embed_images(fewer).unflatten(0, (-1, 4))
    return explainer.embed_images(images)[:, None] - embeddings_without


def _on_things(map_: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The relevance of a map on each thing, (things,)."""
    heat = on_canvas(map_)
    return np.array([heat[mask].sum() for mask in masks])


def _agreement(relevance: np.ndarray, effects: np.ndarray, count: int) -> float:
    """The rank correlation of relevance and effects of the first things; no order is zero."""
    relevance = np.asarray(relevance[:count], dtype=float)
    if np.ptp(relevance) == 0 or np.ptp(effects[:count]) == 0:
        return 0.0
    return float(spearmanr(relevance, effects[:count]).statistic)


def _curves(
    explainer: Explainer,
    image: Image.Image,
    text: Tensor,
    maps: Mapping[str, np.ndarray],
) -> dict[str, dict[str, float]]:
    """Deletion and insertion of each map: the mean height of its curve above the empty image.

    "deletion range" and "insertion range" are the height of the intact image above noise or black.
    """
    preprocess = explainer.clip.preprocess
    curves_of = partial(
        image_curves,
        lambda pixels: explainer.image_tower.forward(pixels) @ text,
        model_view(preprocess, image).pixels,
        colours=colours_of(preprocess),
    )
    areas = curve_auc(curves_of(maps, _PROTOCOL))
    heights = areas.pivot(index="method", columns="game", values="auc")

    first = next(iter(maps))  # whatever the map, its curves have the same two ends
    ends = curves_of({first: maps[first]}, _ENDS)
    scores = ends.set_index(["game", "fraction"])["score"]
    empty = {"deletion": scores["deletion", 1.0], "insertion": scores["insertion", 0.0]}
    for game in GAMES:
        heights[game] -= empty[game]
        heights[f"{game} range"] = scores["deletion", 0.0] - empty[game]
    return heights.to_dict("index")


def in_parts(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with deletion and insertion as parts of the way from the empty to the intact image.

    The way is the mean of a model's scenes: in one scene it can be so short that a part of it says
    nothing.
    """
    parts = rows.copy()
    for game in GAMES:
        way = rows.groupby("model")[f"{game} range"].transform("mean")
        parts[game] = rows[game] / way
    return parts


def mean_precision(maps: np.ndarray, masks: np.ndarray) -> float:
    """The mean average precision of maps (T, h, w) of T things with masks."""
    scores = []
    for map_, mask in zip(maps, masks, strict=True):
        scores.append(precision(on_canvas(map_), mask))
    return float(np.mean(scores))


def measure_depths(clip: Clip, scenes: Sequence[Scene]) -> pd.DataFrame:
    """The average precision of methods that sum over layers, through equally many layers.

    Columns model, method, layers, scene, average precision.
    """
    explainer = Explainer(clip)
    depth = explainer.image_tower.depth
    package = explainer.image_tower.layers
    images = [scene.image(CANVAS) for scene in scenes]
    masks = [scene.masks(CANVAS) for scene in scenes]
    prompts = embed_prompts(explainer, scenes)

    rows = []
    for layers in sorted({1, package, depth}):
        explainers = {title: explainer_of(clip, title, layers) for title in SUMMED}
        maps = maps_by(explainers, images, prompts)
        for title, method_maps in maps.items():
            for k, scene_maps in enumerate(method_maps):
                row = {
                    "model": clip.name,
                    "method": title,
                    "layers": layers,
                    "scene": k,
                    "average precision": mean_precision(scene_maps, masks[k]),
                }
                rows.append(row)
    return pd.DataFrame(rows)


def precision(heat: np.ndarray, mask: np.ndarray) -> float:
    """The average precision of a heat map, read at every second pixel, down and across."""
    return localisation_scores(heat[::2, ::2], mask[::2, ::2])["average_precision"]


def passes(clip: Clip, titles: Iterable[str], repeats: int = 3) -> pd.Series:
    """The time of one prompt of one image by each method, in passes of the image encoder."""
    (scene,) = shown_scenes(1)
    image = scene.image(CANVAS)
    explainer = Explainer(clip)
    text = explainer.embed_texts(["a dog"])[None]  # (1, 1, E)
    calls = {}
    for title in titles:
        method = explainer_of(clip, title)
        calls[title] = partial(method.maps, [image], text)
    plain_pass = partial(explainer.embed_images, [image])
    table = time_methods(calls, plain_pass, repeats=repeats)
    return table.set_index("method")["passes"]


# ------------------------------------------------------------------------------------------- tables


def as_table(rows: pd.DataFrame, costs: pd.Series) -> pd.DataFrame:
    """Mean and 95 % interval of every measure, the most precise method first."""
    table = {}
    for title, part in rows.groupby("method", sort=False):
        cost = costs.get(title, np.nan)
        row = {"cost in passes": f"{cost:.0f}" if cost > 0 else ""}
        for name in MEASURES:
            row[name] = _with_interval(part[name])
        row["scenes"] = len(part)
        table[title] = row
    precisions = rows.groupby("method")[MEASURES[0]].mean()
    order = precisions.sort_values(ascending=False, kind="stable")
    by_method = pd.DataFrame(table).T
    return by_method.loc[order.index].rename_axis(index=None)


def _with_interval(values: pd.Series) -> str:
    values = values.dropna()
    if len(values) < 2:
        return ""
    low, high = mean_interval(values)
    return f"{values.mean():.2f} [{low:.2f}, {high:.2f}]"


def plot_quick(clip: Clip, scene: Scene) -> Figure:
    """The maps of all quick methods for the first thing of a scene, each on its own scale."""
    image = scene.image()
    explainers = {title: explainer_of(clip, title) for title in QUICK}
    text = Explainer(clip).embed_texts(prompts_of(scene)[0])[None]  # (1, 1, E)
    maps = {title: parts[0, 0] for title, parts in maps_by(explainers, [image], text).items()}
    return plot_maps(image, maps, shared_scale=False, columns=4)


def plot_methods(rows: pd.DataFrame, costs: pd.Series) -> Figure:
    """Average precision against "taken out", a panel a model, a dot a method, its size the cost."""
    means = rows.groupby(["model", "method"], sort=False)[list(MEASURES)].mean().reset_index()
    means = means.dropna(subset=["average precision"])
    passes = means["method"].map(costs)
    means["passes"] = passes.fillna(0.3)
    means["kind"] = np.where(passes.isna(), "needs no model", "method")
    models = list(means["model"].unique())

    figure = new_figure(
        FULL_WIDTH,
        4.6,
        "Average precision of methods against how they rank what is taken out, by model",
        layout="constrained",
    )
    panels = figure.subplots(1, len(models), sharex=True, sharey=True, squeeze=False)[0]
    for axes, model in zip(panels, models, strict=True):
        part = means[means["model"] == model].sort_values("average precision")
        sns.scatterplot(
            part,
            x="taken out",
            y="average precision",
            size="passes",
            size_norm=LogNorm(0.3, 500),
            sizes=(12, 220),
            hue="kind",
            hue_order=["method", "needs no model"],
            palette=["#1b7f79", "0.6"],
            alpha=0.75,
            legend=False,
            ax=axes,
        )
        axes.set_title(model, fontsize=11, loc="left")
        axes.set(xlim=(-0.2, _NAMES_AT + 0.55), ylim=(0, 1.02), xticks=np.arange(0, 1.0, 0.2))
        sns.despine(ax=axes)
        _name_dots(axes, part)

    panels[0].set_ylabel("average precision of a prompt")
    for axes in panels:
        axes.set_xlabel("taken out: rank correlation")
    return figure


_NAMES_AT = 0.95  # the rank correlation right of all dots


def _name_dots(axes: Axes, part: pd.DataFrame) -> None:
    """Write the names in a column beside the dots, in their order, each with a line to its dot."""
    lowest = -np.inf
    for name, x, y in part[["method", "taken out", "average precision"]].itertuples(index=False):
        lowest = max(y - 0.1, 0.02, lowest + 0.052)
        axes.annotate(
            name,
            (x, y),
            (_NAMES_AT, lowest),
            fontsize=SMALLEST_TYPE,
            va="center",
            arrowprops={"arrowstyle": "-", "color": "0.8", "linewidth": 0.6},
        )


# -------------------------------------------------------------------------------- the table on disk


def measured(clip: Clip, n: int) -> tuple[pd.DataFrame, pd.Series]:
    """The rows of a model and the costs in passes: from `data/methods.csv`, or measured now.

    The table has the bundled models, with slow methods and deletion on fewer scenes. It is used
    where its weights are those of the model; else the quick methods are measured on an eighth of
    the scenes.
    """
    table = _table_of(clip, n)
    rows = table[table["layers"].isna()]
    if rows.empty:
        scenes = shown_scenes(max(2, n // LIVE), 4, whole=False)
        rows = measure(clip, QUICK, scenes, deletion=CURVED)
        costs = passes(clip, QUICK)
    else:
        costs = rows.groupby("method")["passes"].first()
        rows = rows.drop(columns=["weights", "passes", "layers"]).reset_index(drop=True)
    return in_parts(rows), costs


def measured_depths(clip: Clip, n: int) -> pd.DataFrame:
    """The rows of `measure_depths` for n scenes: from `data/methods.csv`, or for a few now."""
    table = _table_of(clip, n)
    rows = table[table["layers"].notna()]
    if rows.empty:
        scenes = shown_scenes(max(2, n // (2 * LIVE)), 4, whole=False)
        return measure_depths(clip, scenes)
    columns = ["model", "method", "layers", "scene", "average precision"]
    return rows[columns].astype({"layers": int}).reset_index(drop=True)


def _table_of(clip: Clip, n: int) -> pd.DataFrame:
    """The rows of a model's first n scenes on disk that were measured with its weights."""
    table = _read(data_path("methods.csv"))
    is_current = (table["model"] == clip.name) & (table["weights"] == _weights(clip.name))
    return table[is_current & (table["scene"] < n)]


def _weights(model: str) -> str:
    """The beginning of the SHA-256 of a bundled model's weights; "" for another model."""
    file = data_path("methods.csv").parent / f"{model}.safetensors"
    if not file.exists():
        return ""
    return checksum_of(file)[:8]


def _read(file: Path) -> pd.DataFrame:
    """A table on disk; an empty one where there is none."""
    if file.exists():
        return pd.read_csv(file, dtype={"weights": str})
    return pd.DataFrame(columns=["model", "weights", "method", "layers", "scene", "passes"])


def main() -> None:
    """Measure all methods and write their table; rows that are there are not measured again."""
    file = data_path("methods.csv")
    table = _read(file)
    table = table[table["weights"] == table["model"].map(_weights)]
    scenes = shown_scenes(SCENES, 4, whole=False)
    tasks: list[tuple[list[str], int]] = [([*QUICK], SCENES), (DEPTHS, DEPTH_SCENES)]
    tasks += [([title], SLOW_SCENES) for title in SLOW]

    for clip in map(load_clip, MODELS):
        for titles, count in tasks:
            costs = None
            for start in range(_first_missing(table, clip, titles), count, CHUNK):
                chunk = scenes[start : min(start + CHUNK, count)]
                if titles == DEPTHS:
                    rows = measure_depths(clip, chunk)
                else:
                    if costs is None:
                        costs = passes(clip, titles, repeats=1).round()
                    controls = len(titles) > 1
                    rows = measure(clip, titles, chunk, controls, SLOW_SCENES - start)
                    rows = rows.assign(passes=rows["method"].map(costs), layers=np.nan)

                rows = rows.assign(scene=rows["scene"] + start, weights=_weights(clip.name))
                table = pd.concat([table, rows.round(3)])
                table.to_csv(file, index=False)


def _first_missing(table: pd.DataFrame, clip: Clip, titles: Sequence[str]) -> int:
    """The first scene that a table lacks of methods, or of depths."""
    of_depths = table["layers"].notna()
    has_titles = of_depths
    if titles != DEPTHS:
        has_titles = ~of_depths & (table["method"] == titles[0])
    rows = table[has_titles & (table["model"] == clip.name)]
    return 1 + int(rows["scene"].max()) if len(rows) else 0


if __name__ == "__main__":
    main()
