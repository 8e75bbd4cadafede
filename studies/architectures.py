"""Architectures: the same question to models that pool an image in different ways, and how far their maps agree.

    models --tower--> Trace --method--> map --here--> what changes with the architecture, and what does not

The query token of the last layer is [CLS], every patch, a latent query, or the mean of a feature map: every tower gives
the same kind of trace, so one method serves all of them. Here is what one wants to know of such models side by side.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from gradeclip_utils.datasets import Example, emoji_scenes
from gradeclip_utils.explain import Explainer
from gradeclip_utils.explanation import Explanation
from gradeclip_utils.images import onto_image
from gradeclip_utils.measures.evaluation import evaluate
from gradeclip_utils.measures.localisation import localisation, pool
from gradeclip_utils.measures.sanity import agreement, randomised
from gradeclip_utils.measures.statistics import interval
from gradeclip_utils.methods.grad_eclip import attention_gradient, channel_weights, spatial_weights
from gradeclip_utils.models import Clip, load_clip
from gradeclip_utils.panels.session import Session, explain_each
from gradeclip_utils.panels.state import as_source
from gradeclip_utils.plots import InlineFigure, draw_heatmap
from gradeclip_utils.plots.axes import NOTE, blank, drawable, entitle, headed
from gradeclip_utils.plots.finding import patches_of_half
from gradeclip_utils.scenes import arrange
from gradeclip_utils.towers import Tower, Trace, open_image_tower, open_text_tower

from .recognition import recognised
from .tables import forward_passes, gained, told

MEASURES = ("pointing_game", "energy_pointing_game", "average_precision")
BASELINES = ("grad-eclip", "wrong word", "text-blind", "random", "oracle")
LABELS = {"emoji": "CLS", "emoji-average": "average", "emoji-siglip": "latent query", "emoji-resnet": "ResNet"}
_GRID = 6  # cells across that all bundled models can fill
_OWN = "each map divided by its own maximum: pale 0 to dark 1"
_STEP = 1e-4  # by which an attention weight is changed to see what the similarity does


def architecture_table(clips: Mapping[str, Clip]) -> pd.DataFrame:
    """What the towers of models are, and the shape of their traces of a grey image: one column a model."""
    columns = {}
    for name, clip in clips.items():
        explainer = Explainer(clip)
        image, text = explainer.image_tower, explainer.text_tower
        trace = image.trace(_pixels(clip, Image.new("RGB", (96, 96), (128, 128, 128))))
        layer = trace.layers[-1]
        last = "an attention pool" if image.blocks[-1].pools else f"layer {image.depth} of {image.depth}"
        columns[name] = {
            "image encoder": image.kind,
            "query token": image.query_token,
            "what is explained": last,
            "query tokens": layer.q.shape[1],
            "key tokens": layer.k.shape[1],
            "heads x channels": f"{layer.q.shape[2]} x {layer.q.shape[3]}",
            "map": f"{trace.grid[0]} x {trace.grid[1]}",
            "text encoder": "needs a hub" if text is None else "causal" if text.causal else "not causal",
            "query token of the prompt": "-" if text is None else text.query_token,
        }
    return pd.DataFrame(columns)


def trace_deviations(clip: Clip, image: Image.Image, prompt: str) -> dict[str, float]:
    """How far three promises of a trace are kept, as the largest deviation: each should be zero but for rounding."""
    explainer = Explainer(clip)
    pixels = _pixels(clip, image)
    plain = explainer.image_tower.forward(pixels)
    apart = float((explainer.image_tower.trace(pixels).embedding - plain).abs().max())
    tower = open_image_tower(copy.deepcopy(clip.model).double())
    trace = tower.trace(pixels.double())
    layer = trace.layers[-1]
    direction = explainer.embed_texts(prompt)[0].double()  # (E,)
    collected = torch.einsum("bhrn,bnhc->brhc", layer.attention, layer.v).flatten(2)
    weights = channel_weights(tower, trace, direction[None, None])[:, 0, 0]  # (1, R, D)
    predicted = attention_gradient(weights, layer.v).sum(1)[0]  # (R, N), heads added
    generator = torch.Generator().manual_seed(0)
    query = int(torch.randint(layer.q.shape[1], (), generator=generator))
    some = torch.randperm(layer.v.shape[1], generator=generator)[:6].tolist()
    slopes = torch.stack([_slope(tower, trace, query, token, direction) for token in some])
    largest = float(predicted[query].abs().max())
    return {
        "trace": apart,
        "collects": float((collected - layer.o).abs().max()),
        "identity": float((slopes - predicted[query, some]).abs().max()) / largest,
    }


@torch.no_grad()
def _slope(tower: Tower, trace: Trace, query: int, token: int, direction: Tensor) -> Tensor:
    """The slope of S when one query pays a little more, or less, attention to one token, in all heads."""
    layer = trace.layers[-1]
    delta = torch.zeros_like(layer.o)[None]  # (1, B, R, D)
    delta[0, 0, query] = _STEP * layer.v[0, token].flatten()
    more, less = (tower.readout(trace, sign * delta)[0] @ direction for sign in (1, -1))
    return (more - less) / (2 * _STEP)


def _pixels(clip: Clip, image: Image.Image) -> Tensor:
    """What the model sees of the image, (1, 3, H, W), on its device."""
    return clip.preprocess(image)[None].to(next(clip.model.parameters()).device)


def compare_models(clips: Mapping[str, Clip], examples: Sequence[Example]) -> pd.DataFrame:
    """Grad-ECLIP of every model on the same examples, with its reference baselines."""
    rows = [evaluate(clip, examples, "grad-eclip", progress=False).assign(model=name) for name, clip in clips.items()]
    return pd.concat(rows, ignore_index=True)


def maps_on_common_grid(
    clip: Clip, examples: Sequence[Example], prompts: Sequence[str], grid: int = _GRID
) -> np.ndarray:
    """Signed maps (P, grid, grid) of a prompt for each image, averaged over the cells of a grid that all models share."""
    images = [example.image() for example in examples]
    found = Explainer(clip).explain_batch(images, list(prompts))
    return np.stack([pool(one.heatmap(0, signed=True), (grid, grid)) for one in found])


def map_agreement(maps: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Mean rank correlation between the maps of every two models, with its interval over images."""
    rows = []
    for one, other in combinations(maps, 2):
        values = agreement(maps[one], maps[other])
        low, high = interval(values)
        rows.append({"one": one, "other": other, "mean": values.mean(), "low": low, "high": high, "n": len(values)})
    return pd.DataFrame(rows)


def knows_its_thing(clip: Clip, examples: Sequence[Example]) -> np.ndarray:
    """For each example (P,) bool: is its prompt more similar than those of all things that are not in the image?"""
    explainer = Explainer(clip)
    images = explainer.embed_images(one.image() for one in examples)
    similarity = images @ explainer.embed_texts([one.prompt for one in examples]).T  # (P, P)
    there = torch.tensor([[other.concept in one.present for other in examples] for one in examples])
    return (similarity.diagonal() > similarity.masked_fill(there.to(similarity.device), -1).amax(1)).cpu().numpy()


def grid_precision(maps: np.ndarray, examples: Sequence[Example]) -> np.ndarray:
    """Average precision (P,) of maps laid over their images."""
    size = examples[0].image().size
    heats = [onto_image(np.maximum(one, 0), (0, 0, *size), size) for one in maps]
    both = zip(heats, examples, strict=True)
    return np.array([localisation(heat, np.asarray(one.mask()))["average_precision"] for heat, one in both])


def other_things(examples: Sequence[Example]) -> list[str]:
    """Prompts for what else is in the images of two things."""
    names = (next(name for name in one.present if name != one.concept) for one in examples)
    return [arrange([name]).caption for name in names]


def lesson_figures(clip: Clip, n: int = 40, things: int = 30, controls: int = 12) -> list[pd.DataFrame]:
    """All that lesson 08 measures of a model, explained through its last layer alone, beside the bundled ones."""
    label, own, examples = LABELS.get(clip.name, clip.name), replace(clip, image_layers=1), two_thing_examples(n)
    others = {other: replace(load_clip(name), image_layers=1) for name, other in LABELS.items() if other != label}
    first, prompts = others.get("CLS", own), [one.prompt for one in examples]
    rows = compare_models({label: own}, examples)
    each = {measure: _wide(rows, measure) for measure in MEASURES}
    wide = each["average_precision"]
    concept = rows.drop_duplicates("image").set_index("image")["concept"].loc[wide.index].to_numpy()
    known, knows = recognised(own, things), knows_its_thing(own, examples)
    more, better = "a map lies more on its thing than the map of a wrong word", f"Maps of {label} are better than"
    maps = {one: maps_on_common_grid(model, examples, prompts) for one, model in {label: own, **others}.items()}
    lost = _wide(compare_models({label: randomised(own, seed=1)}, examples[:controls]), "average_precision")
    tables = [
        _forward_passes(own, examples[0].image(), prompts[0]),
        told("fraction of things recognised", known.assign(image=range(len(known)), right=known["right"] * 1.0),
             "right", cluster="noun"),
        told("{measure}, {method}", rows, MEASURES, cluster="concept"),
        gained("scenes whose prompt is more similar than all things that are not there", knows),
        gained(f"{label}: {more}", wide["grad-eclip"], wide["wrong word"], concept),
        gained(f"{label} with random weights: {more}", lost["grad-eclip"], lost["wrong word"]),
        *(gained(f"{label}: Grad-ECLIP is ahead of raw attention in {measure.replace('_', ' ')}", one["grad-eclip"],
                 one["text-blind"], concept) for measure, one in each.items() if "text-blind" in one),
    ]  # fmt: skip
    order = [*dict.fromkeys([*LABELS.values(), label])]
    alike = {other: agreement(maps[label], maps[other]) for other in others}
    pairs = {" and ".join(sorted((label, other), key=order.index)): values for other, values in alike.items()}
    tables += [gained(f"rank correlation of the maps of {pair}", values) for pair, values in pairs.items()]
    scale = agreement(maps["CLS"], maps_on_common_grid(first, examples, other_things(examples)))
    coarse = {one: grid_precision(maps[one], examples) for one in (label, "CLS")}
    if label == "CLS":
        tables.append(gained("rank correlation of the maps of CLS and CLS, the other thing", scale))
        claim = "Maps of CLS on a grid of 6 x 6 are better than on its own"
        return [*tables, gained(claim, coarse["CLS"], wide["grad-eclip"], concept)]
    theirs = compare_models({"CLS": first}, examples).query("method == 'grad-eclip'").set_index("image")
    ahead = wide["grad-eclip"].to_numpy(), theirs.loc[wide.index, "average_precision"].to_numpy()
    right = known["right"].to_numpy(float), recognised(first, things)["right"].to_numpy(float)
    both = knows & knows_its_thing(first, examples)
    same = "more alike than maps of CLS for the two things"
    tables += [
        gained(f"{label} recognises more things than CLS", right[0], right[1], known["noun"].array),
        gained(f"For one prompt, maps of {label} and CLS are {same}", alike["CLS"], scale),
        gained(f"{better} those of CLS", ahead[0], ahead[1], concept),
        gained(f"{better} those of CLS on a grid of 6 x 6", coarse[label], coarse["CLS"], concept),
    ]
    if both.sum() >= 8:
        claim = f"Where both know the thing, maps of {label} are better than those of CLS"
        tables.append(gained(claim, ahead[0][both], ahead[1][both], concept[both]))
    return tables


def _wide(rows: pd.DataFrame, measure: str) -> pd.DataFrame:
    """A measure, one column a method and one row an image, in the order of the images."""
    return rows.pivot_table(measure, "image", "method", sort=False)


def _forward_passes(clip: Clip, image: Image.Image, prompt: str) -> pd.DataFrame:
    """What an explanation costs, and the control, in units of both embeddings of an image and a prompt made ready."""
    sees, reads = Explainer(clip).image_tower, open_text_tower(clip.model)
    pixels, ids = clip.preprocess(image)[None].to(sees.device), clip.tokenizer([prompt]).to(reads.device)

    def plain() -> object:
        """The model's own pass."""
        return sees.forward(pixels), reads.forward(ids)

    explain: Callable[[], object] = partial(Explainer(clip).explain, image, prompt)
    calls = {"an explanation": explain, "the plain pass itself": plain}
    return forward_passes("forward passes of {method}", calls, plain, sees)


def two_thing_examples(n: int) -> list[Example]:
    """Development scenes of two different single things, of which one is asked for by its name."""
    drawn = emoji_scenes("development", 4 * n, n_objects=2)
    return [one for one in drawn if len(one.present) == 2][:n]


def plot_model_maps(
    sessions: Mapping[str, Session], image: Image.Image, prompts: Sequence[str],
    report: Callable[[float], None] | None = None,
) -> InlineFigure:  # fmt: skip
    """The maps of one image: a row a prompt, a column a model, each divided by its own largest value."""
    source = as_source(image)
    found = explain_each(
        {(i, name): partial(session.explain, source, prompt)
         for i, prompt in enumerate(prompts) for name, session in sessions.items()}, report,
    )  # fmt: skip
    alt = f"Maps of {', '.join(prompts)}, by {', '.join(sessions)}"
    across = min(2.1, 7.4 / (1 + len(sessions)))  # inches: a figure fits the column of a notebook
    wide, down = across * (1 + len(sessions)) + 0.7, (across + 0.25) * len(prompts) + 0.3
    figure = InlineFigure(wide, down, f"{(over := _widest(found, list(sessions)))}. {alt}")
    head = headed(figure, over)
    grid = figure.subplots(len(prompts), 1 + len(sessions), squeeze=False)
    edges = {"bottom": 0.09 * down / (down + head), "top": (0.93 * down) / (down + head)}
    figure.subplots_adjust(left=0.01, right=1 - 0.6 / wide, wspace=0.06, **edges)
    for i, (axes, prompt) in enumerate(zip(grid, prompts, strict=True)):
        blank(axes[0]).imshow(source.image)
        entitle(axes[0], drawable(prompt))
        for axis, name in zip(axes[1:], sessions, strict=True):
            one = found[i, name]
            heat = one.heatmap(0)
            heat = heat / max(float(heat.max()), 1e-12)
            draw_heatmap(axis, one.image, heat, vmax=1.0, colour_bar=axis is grid[0, -1], note="")
            entitle(axis, name)
    figure.text(0.01, 0.01, _OWN, va="bottom", **NOTE)
    return figure


def _widest(found: Mapping[tuple[int, str], Explanation], names: Sequence[str]) -> str:
    """By which model half of what speaks for a prompt lies on the least of the image, and by which on the most."""
    parts = {}
    for name in names:
        maps = [one.image_maps[0] for (_, other), one in found.items() if other == name]
        if there := [patches_of_half(map_) / map_.size for map_ in maps if (map_ > 0).any()]:
            parts[name] = float(np.mean(there))
    if not parts:
        return "nothing in the image speaks for what was asked, by any model"
    told = [f"{part:.0%} of the image by {name}" for name, part in sorted(parts.items(), key=lambda one: one[1])]
    return f"half of what speaks for a prompt lies on {', on '.join(told[:: max(len(told) - 1, 1)])}"


def maps_by_query(tower: Tower, trace: Trace, direction: Tensor) -> Tensor:
    """Grad-ECLIP before the queries are added up: the relevance of every patch for every query token, heads added."""
    assert len(trace.tokens) == 1
    layer = trace.layers[-1]
    weights = channel_weights(tower, trace, direction[None, None])[:, 0, -1]
    relevance = spatial_weights(layer, trace.valid_mask) * attention_gradient(weights, layer.v)  # (1, H, R, N)
    return relevance.sum(1)[0][:, trace.valid_mask[0]]
