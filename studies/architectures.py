"""Architectures (lesson 08): the same question to models that read an image in different ways.

    models --tower--> Trace --method--> map --here--> what changes with the architecture, and what
    does not

The query token of the last layer is CLS, every patch, a latent query, or the mean of a feature map.
Every tower gives the same kind of trace, so one method explains all of them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from gradeclip_utils.explainer import Explainer
from gradeclip_utils.images import pool
from gradeclip_utils.methods.grad_eclip import attention_gradient, channel_weights, spatial_weights
from gradeclip_utils.models import Clip, load_clip
from gradeclip_utils.plots import new_figure, paint
from gradeclip_utils.scenes import CANVAS, Scene, draw_scene, phrase
from gradeclip_utils.towers import Tower, Trace, open_image_tower

from .pairs import images_of

LABELS = {
    "emoji": "CLS",
    "emoji-average": "average",
    "emoji-siglip": "latent query",
    "emoji-resnet": "ResNet",
}
_GRID = (6, 6)  # that all bundled models can fill
_STEP = 1e-4  # by which an attention weight is changed to see what the similarity does


def student_clips(model: str = "emoji", pretrained: str | None = None) -> dict[str, Clip]:
    """Return the bundled model and its students by what reads their images, each explained through its last layer."""
    found = {label: load_clip(name) for name, label in LABELS.items()}
    if model != "emoji":
        found[model] = load_clip(model, pretrained)
    return {label: replace(clip, image_layers=1) for label, clip in found.items()}


def two_thing_scenes(n: int) -> list[Scene]:
    """Return n test scenes of two untinted things of different kinds."""
    drawn = (
        draw_scene([80, i], split="test", n_objects=2, tint=0, plain=True) for i in range(2 * n)
    )
    return [one for one in drawn if len({thing.noun for thing in one.objects}) == 2][:n]


def architecture_table(explainers: Mapping[str, Explainer]) -> pd.DataFrame:
    """Return one column per model: what reads its image and its prompt, and the shape of the trace of a grey image."""
    columns = {}
    for name, explainer in explainers.items():
        image, text = explainer.image_tower, explainer.text_tower
        trace = image.trace(_pixels(explainer.clip, Image.new("RGB", (96, 96), (128, 128, 128))))
        layer = trace.layers[-1]
        columns[name] = {
            "image encoder": image.kind,
            "read by": image.query_token,
            "query tokens": layer.q.shape[1],
            "key tokens": layer.k.shape[1],
            "map": f"{trace.grid[0]} x {trace.grid[1]}",
            "text encoder": "none" if text is None else "causal" if text.causal else "not causal",
            "prompt read by": "none" if text is None else text.query_token,
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
    more, less = (
        tower.embed_from_attention(trace, sign * delta)[0] @ direction for sign in (1, -1)
    )
    return (more - less) / (2 * _STEP)


def _pixels(clip: Clip, image: Image.Image) -> Tensor:
    """What the model sees of the image, (1, 3, H, W), on its device."""
    return clip.preprocess(image)[None].to(next(clip.model.parameters()).device)


def maps_of_things(explainer: Explainer, scenes: Sequence[Scene]) -> np.ndarray:
    """Return signed maps (N, 2, h, w) of the names of both things of each scene."""
    nouns = sorted({thing.noun for scene in scenes for thing in scene.objects})
    embeddings = explainer.embed_texts([phrase(noun) for noun in nouns])
    asked = [[nouns.index(thing.noun) for thing in scene.objects] for scene in scenes]
    return (
        explainer.maps(images_of(explainer.clip, scenes), embeddings[torch.tensor(asked)])
        .cpu()
        .numpy()
    )


def on_things(maps: np.ndarray, scenes: Sequence[Scene]) -> pd.DataFrame:
    """Return one row per scene and thing: the fraction of positive relevance on the thing, by four maps.

    Columns: scene, noun; own, the map of the thing's name; other, that of the other thing's name;
    area, a map that is the same everywhere; best, the thing's true outline on the model's grid.
    """
    rows = []
    for i, (both, scene) in enumerate(zip(np.maximum(maps, 0), scenes, strict=True)):
        cover = [pool(mask, both.shape[1:]) for mask in scene.masks(CANVAS)]
        for k, (thing, mask) in enumerate(zip(scene.objects, cover, strict=True)):
            shown = {"own": both[k], "other": both[1 - k], "area": np.ones_like(mask), "best": mask}
            parts = {
                name: float((one * mask).sum() / one.sum()) if one.any() else 0.0
                for name, one in shown.items()
            }
            rows.append({"scene": i, "noun": thing.noun, **parts})
    return pd.DataFrame(rows)


def on_common_grid(maps: np.ndarray) -> np.ndarray:
    """Return maps (N, h, w) averaged over the cells of a grid that all models can fill."""
    return np.stack([pool(one, _GRID) for one in maps])


def plot_model_maps(
    explainers: Mapping[str, Explainer], image: Image.Image, prompts: Sequence[str]
) -> Figure:
    """Draw a row per prompt and a column per model; each map is divided by its own maximum."""
    side, columns = 1.6, 1 + len(explainers)
    figure = new_figure(
        side * columns,
        (side + 0.22) * len(prompts),
        f"Maps of {', '.join(prompts)} by {', '.join(explainers)}, each divided by its own maximum",
    )
    grid = figure.subplots(len(prompts), columns, squeeze=False)
    figure.subplots_adjust(
        left=0, right=1, bottom=0, top=1 - 0.22 / (side + 0.22), wspace=0.04, hspace=0.16
    )
    found = {
        name: explainer.explain(image, list(prompts)) for name, explainer in explainers.items()
    }
    for row, prompt in enumerate(prompts):
        for axes, (name, one) in zip(grid[row], [(prompt, None), *found.items()], strict=True):
            axes.set_axis_off()
            axes.set_title(name, fontsize=10, loc="left", pad=4)
            axes.imshow(image if one is None else paint(image, one.image_maps[row]))
    return figure


def maps_by_query(tower: Tower, trace: Trace, direction: Tensor) -> Tensor:
    """Grad-ECLIP before the queries are added up: the relevance of every patch for every query token, heads added."""
    assert len(trace.tokens) == 1
    layer = trace.layers[-1]
    weights = channel_weights(tower, trace, direction[None, None])[:, 0, -1]
    relevance = spatial_weights(layer, trace.valid_mask) * attention_gradient(
        weights, layer.v
    )  # (1, H, R, N)
    return relevance.sum(1)[0][:, trace.valid_mask[0]]
