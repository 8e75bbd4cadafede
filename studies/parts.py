"""The parts of Grad-ECLIP: what its weights, layers, heads and target are good for. Lesson 02.

    scenes -> maps through 1, 2, ... layers, by spatial weight and target -> a row each
    captions -> word scores by spatial weight, layers and target          -> a row each

The target is what is explained. For maps: the similarity of the prompt, the contrast with the other
thing of the scene, or the lead over the mean of null captions. For words: the similarity of the
image, or its lead over the mean of all images.
"""

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from torch import Tensor

from gradeclip_utils import Explainer
from gradeclip_utils.models import Clip
from gradeclip_utils.plots.figures import FULL_WIDTH, new_figure
from gradeclip_utils.scenes import CANVAS, Scene, phrase
from gradeclip_utils.words import Word

from .lesson import embed_prompts, prompts_of
from .methods import precision
from .relevance import layer_maps, located, maps_by, null_mean, on_canvas, on_highest

SPATIAL = {  # spatial weight -> the method that has it
    "loosened": "grad-eclip",
    "softmax": "grad-eclip-softmax",
    "none": "grad-eclip-no-spatial",
}
PROMPT, CONTRAST, LEAD = "prompt", "contrast of two", "lead over others"
TARGETS = (PROMPT, CONTRAST, LEAD)
IMAGE, IMAGE_LEAD = "image", "image less mean image"
LEFT_OUT = "leaving out"  # the scores that the others are compared with


def absent_nouns(scenes: Sequence[Scene]) -> list[str]:
    """For each scene a noun that it does not show: the first of the scenes after it that fits."""
    nouns = [[thing.noun for thing in scene.objects] for scene in scenes]
    absent = []
    for place, present in enumerate(nouns):
        later = chain.from_iterable(nouns[place + 1 :] + nouns[:place])
        absent.append(next(noun for noun in later if noun not in present))
    return absent


# ------------------------------------------------------------------------------------------ maps


def map_parts(
    clip: Clip,
    scenes: Sequence[Scene],
    layers: Sequence[int],
    kinds: Sequence[str] = tuple(SPATIAL),
) -> pd.DataFrame:
    """Measure Grad-ECLIP's maps of scenes of two things, by spatial weight, layers and target.

    Contrast and lead are measured with the loosened weight alone.

    Args:
        clip: the model.
        scenes: of two different things.
        layers: numbers of last layers, such as (1, 4).
        kinds: of `SPATIAL`.

    Returns:
        Columns spatial, layers, target, scene; "on the thing" and "on the other" (the parts of the
        positive relevance), "average precision" and "on its highest", means of both things; "over
        absent", 1 if the highest relevance for the first thing is above that for an absent one.
    """
    explainer = Explainer(clip)
    images = [scene.image(CANVAS) for scene in scenes]
    masks = [scene.masks(CANVAS) for scene in scenes]
    prompts = _prompts(explainer, scenes)  # (B, 3, E)
    mean = null_mean(explainer).expand(len(scenes), 1, -1)
    directions = torch.cat([prompts, mean], dim=1)  # (B, 4, E)

    rows = []
    by_kind = layer_maps(clip, images, directions, kinds, layers=max(layers))
    for kind, by_layer in by_kind.items():
        through = by_layer.cumsum(axis=2)  # (B, 4, L, h, w)
        for count in layers:
            targets = _targets(through[:, :, count - 1])
            if kind != "loosened":
                targets = {PROMPT: targets[PROMPT]}

            for target, maps in targets.items():
                table = _measures(maps, masks)
                rows.append(table.assign(spatial=kind, layers=count, target=target))
    return pd.concat(rows, ignore_index=True)


def measures_of(explainers: Mapping[str, Explainer], scenes: Sequence[Scene]) -> pd.DataFrame:
    """The same measures of the maps of prompts by explainers, with their name in column method."""
    explainer = next(iter(explainers.values()))
    images = [scene.image(CANVAS) for scene in scenes]
    masks = [scene.masks(CANVAS) for scene in scenes]
    by_method = maps_by(explainers, images, _prompts(explainer, scenes))

    rows = []
    for name, maps in by_method.items():
        table = _measures(maps, masks)
        rows.append(table.assign(method=name))
    return pd.concat(rows, ignore_index=True)


def _prompts(explainer: Explainer, scenes: Sequence[Scene]) -> Tensor:
    """The prompts of both things of each scene and of one that it does not show, (B, 3, E)."""
    present = embed_prompts(explainer, scenes)  # (B, 2, E)
    absent_prompts = [phrase(noun) for noun in absent_nouns(scenes)]
    absent = explainer.embed_texts(absent_prompts)  # (B, E)
    return torch.cat([present, absent[:, None]], dim=1)


def plot_targets(rows: Mapping[str, pd.DataFrame]) -> Figure:
    """Average precision by the number of layers, a line a target and a panel a model."""
    alt = "average precision by number of layers and target"
    figure = new_figure(FULL_WIDTH, 3.2, alt, layout="constrained")
    panels = figure.subplots(1, len(rows), sharey=True, squeeze=False)[0]

    for axes, (model, table) in zip(panels, rows.items(), strict=True):
        sns.lineplot(
            table,
            x="layers",
            y="average precision",
            hue="target",
            style="target",
            hue_order=TARGETS,
            style_order=TARGETS,
            palette=["0.5", "#7cc5bd", "#1b7f79"],
            markers=True,
            dashes=False,
            seed=0,
            legend=axes is panels[0],
            ax=axes,
        )
        axes.set_title(model, loc="left", fontsize=11)
        axes.set(xlabel="layers that are explained", xticks=sorted(table["layers"].unique()))
        sns.despine(ax=axes)
    sns.move_legend(panels[0], "lower right", title=None, frameon=False)
    return figure


def _targets(maps: np.ndarray) -> dict[str, np.ndarray]:
    """Maps (B, 3, h, w) for two present things and an absent one, by target.

    From the maps (B, 4, h, w) of three prompts and of the mean null caption: maps are linear.
    """
    prompts = maps[:, :3]  # first, second, absent
    opponents = maps[:, [1, 0, 1]]  # second, first, second
    mean = maps[:, 3:]
    return {
        PROMPT: prompts,
        CONTRAST: prompts - opponents,
        LEAD: prompts - mean,
    }


def _measures(maps: np.ndarray, masks: Sequence[np.ndarray]) -> pd.DataFrame:
    """The measures of maps (B, 3, h, w) of two things and an absent one, a row a scene."""
    rows = []
    for k, (scene_maps, things) in enumerate(zip(maps, masks, strict=True)):
        first, _, absent = scene_maps
        places = []
        precisions = []
        for i, mask in enumerate(things):
            heat = on_canvas(scene_maps[i])
            places.append(located(heat, things)[i])
            precisions.append(precision(heat, mask))

        row = {
            "scene": k,
            "on the thing": np.mean([place.on_thing for place in places]),
            "on the other": np.mean([place.on_others for place in places]),
            "average precision": np.mean(precisions),
            "over absent": float(first.max() > absent.max()),
        }
        rows.append(row)
    table = pd.DataFrame(rows)
    table["on its highest"] = on_highest(maps[:, :2])
    return table


# ------------------------------------------------------------------------------------------ words


def word_parts(clip: Clip, scenes: Sequence[Scene]) -> pd.DataFrame:
    """Measure word scores of captions "a dog and a drum", by spatial weight, layers and target.

    Args:
        clip: the model.
        scenes: of two different things.

    Returns:
        Columns scores (the row of the table), target, scene; "false word" (1 if a noun that is not
        in the image scores below the noun that is, .5 for a tie) and "like leaving out" (the rank
        correlation with leaving each word out, for the same target).
    """
    images = Explainer(clip).embed_images([scene.image(CANVAS) for scene in scenes])
    targets = {IMAGE: images, IMAGE_LEAD: images - images.mean(0)}
    true, false = _captions(scenes)
    scores = {}
    for (name, target), scorer in _scorers(clip).items():
        of_true = scorer.score_words(true, targets[target])
        of_false = scorer.score_words(false, targets[target])
        scores[name, target] = of_true, of_false

    rows = []
    for (name, target), (of_true, of_false) in scores.items():
        left_out, _ = scores[LEFT_OUT, target]
        for k, (scene, absent) in enumerate(zip(scenes, absent_nouns(scenes), strict=True)):
            present = scene.objects[0].noun
            row = {
                "scores": name,
                "target": target,
                "scene": k,
                "false word": _is_lower(of_false[k], false[k], present, absent),
                "like leaving out": _rank_correlation(of_true[k], left_out[k]),
            }
            rows.append(row)
    return pd.DataFrame(rows)


def _captions(scenes: Sequence[Scene]) -> tuple[list[str], list[str]]:
    """True captions of two things, and the same with an absent thing in place of the second."""
    true = []
    false = []
    for scene, noun in zip(scenes, absent_nouns(scenes), strict=True):
        first, second = prompts_of(scene)
        true.append(f"{first} and {second}")
        false.append(f"{first} and {phrase(noun)}")
    return true, false


def _scorers(clip: Clip) -> Mapping[tuple[str, str], Explainer]:
    """Explainers by name and target of their scores."""
    published = Explainer(clip, words="grad-eclip")
    depth = published.text_tower.depth
    default = published.text_tower.layers

    scorers = {}
    for layers in range(1, depth + 1):
        scorer = Explainer(clip, words="grad-eclip", text_layers=layers)
        scorers[f"loosened, {layers} of {depth} layers", IMAGE] = scorer
    scorers[f"loosened, {default} of {depth} layers", IMAGE_LEAD] = published

    of_default = Explainer(clip, text_layers=default)
    methods = {
        "softmax": "grad-eclip-softmax",
        "no spatial weight": "grad-eclip-no-spatial",
        "one head": "grad-eclip-single-head",
    }
    for name, method in methods.items():
        scorers[name, IMAGE] = of_default.with_method(words=method)
    leaving_out = of_default.with_method(words="leave-one-out")
    scorers[LEFT_OUT, IMAGE] = leaving_out
    scorers[LEFT_OUT, IMAGE_LEAD] = leaving_out
    return scorers


def _is_lower(words: Sequence[Word], caption: str, true_noun: str, false_noun: str) -> float:
    """1 if the false noun, the last word, scores below the true one, 0 if above, .5 for a tie."""
    start = caption.index(true_noun)
    end = start + len(true_noun)
    second = len(caption) - len(false_noun)
    true = sum(word.score for word in words if start <= word.start < end)
    false = sum(word.score for word in words if word.start >= second)
    return float(np.heaviside(true - false, 0.5))


def _rank_correlation(words: Sequence[Word], left_out: Sequence[Word]) -> float:
    """Spearman's correlation of the scores of a caption's words; NaN where all are the same."""
    scores = [word.score for word in words]
    if np.ptp(scores) == 0:
        return np.nan
    left_out_scores = [word.score for word in left_out]
    return float(spearmanr(scores, left_out_scores).statistic)
