"""Architectures (lesson 09): the same question to models that read an image in different ways.

    models --tower--> Trace --method--> map --here--> what depends on the architecture

The query token of the last layer is CLS, every patch, a latent query, or the mean of a feature map.
Every tower gives the same kind of trace, so one method explains all of them.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageOps
from torch import Tensor

from gradeclip_utils import Explainer
from gradeclip_utils.images import pool
from gradeclip_utils.methods.grad_eclip import attention_gradient, channel_weights, spatial_weights
from gradeclip_utils.models import Clip, load_clip
from gradeclip_utils.plots import paint
from gradeclip_utils.plots.figures import new_figure
from gradeclip_utils.scenes import CANVAS, Scene, phrase
from gradeclip_utils.towers import Tower, Trace, open_image_tower

from .lesson import SECOND, different_things, results_name
from .pairs import images_of
from .relevance import part_on, pixels_of

LABELS = {  # the teacher, and its students
    "emoji": "CLS",
    "emoji-average": "average",
    "emoji-siglip": "latent query",
    "emoji-resnet": "ResNet",
}
_GRID = (6, 6)  # that all bundled models can fill
_STEP = 1e-4  # by which an attention weight is changed to see what the similarity does


def student_clips(model: str = "emoji", pretrained: str | None = None) -> dict[str, Clip]:
    """A teacher and its students by what reads their images, and one model that learnt on its own.

    That is the lesson's second model, or the user's, by its name. Each is explained through one
    layer, because an attention pool has only one.
    """
    clips = {label: load_clip(name) for name, label in LABELS.items()}
    if model == "emoji":
        clips[SECOND] = load_clip(SECOND)
    else:
        clips[results_name(model, pretrained)] = load_clip(model, pretrained)
    return {label: replace(clip, image_layers=1) for label, clip in clips.items()}


def two_thing_scenes(n: int) -> list[Scene]:
    """The first n test scenes of two untinted things of different kinds."""
    return list(islice(different_things(80, n_objects=2, tint=0), n))


# ------------------------------------------------------------------------------------------- traces


def architecture_table(explainers: Mapping[str, Explainer]) -> pd.DataFrame:
    """One column per model.

    What reads its image and its prompt, and the shape of the trace of a grey image.
    """
    grey = Image.new("RGB", (96, 96), (128, 128, 128))
    columns = {}
    for name, explainer in explainers.items():
        tower = explainer.image_tower
        text_tower = explainer.text_tower
        trace = tower.trace(pixels_of(explainer.clip, [grey]))
        layer = trace.layers[-1]
        height, width = trace.grid
        columns[name] = {
            "image encoder": tower.kind,
            "read by": tower.query_token,
            "query tokens": layer.q.shape[1],
            "key tokens": layer.k.shape[1],
            "map": f"{height} x {width}",
            "text encoder": "causal" if text_tower.causal else "not causal",
            "prompt read by": text_tower.query_token,
        }
    return pd.DataFrame(columns)


def trace_deviations(clip: Clip, image: Image.Image, prompt: str) -> dict[str, float]:
    """How far three promises of a trace are kept, as the largest deviation.

    Each should be zero but for rounding.
    """
    explainer = Explainer(clip)
    pixels = pixels_of(clip, [image])
    embedding = explainer.image_tower.trace(pixels).embedding
    plain = explainer.image_tower.forward(pixels)

    # in float64, so that a small step in the attention is seen
    precise = copy.deepcopy(clip.model).double()
    tower = open_image_tower(precise)
    trace = tower.trace(pixels.double())
    layer = trace.layers[-1]
    collected = torch.einsum("bhrn,bnhc->brhc", layer.attention, layer.v).flatten(2)

    # the identity: the slope of the similarity in an attention weight is w . v
    direction = explainer.embed_texts(prompt)[0].double()  # (E,)
    predicted = _gradient(tower, trace, direction).sum(1)[0]  # (R, N), heads added
    query_count, token_count = predicted.shape
    generator = torch.Generator().manual_seed(0)
    query = int(torch.randint(query_count, (), generator=generator))
    tokens = torch.randperm(token_count, generator=generator)[:6].tolist()
    slopes = torch.stack([_slope(tower, trace, query, token, direction) for token in tokens])
    largest = predicted[query].abs().max()

    return {
        "trace": _largest_difference(embedding, plain),
        "collects": _largest_difference(collected, layer.o),
        "identity": _largest_difference(slopes, predicted[query, tokens]) / float(largest),
    }


def _gradient(tower: Tower, trace: Trace, direction: Tensor) -> Tensor:
    """The slope (1, H, R, N) of one image's similarity in the attention of the last layer."""
    weights = channel_weights(tower, trace, direction[None, None])[:, 0, -1]  # (1, R, D)
    return attention_gradient(weights, trace.layers[-1].v)


def _largest_difference(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().max())


@torch.no_grad()
def _slope(tower: Tower, trace: Trace, query: int, token: int, direction: Tensor) -> Tensor:
    """The slope of S in the attention, in all heads, that one query pays to one token."""
    layer = trace.layers[-1]
    delta = torch.zeros_like(layer.o)[None]  # (1, B, R, D)
    delta[0, 0, query] = _STEP * layer.v[0, token].flatten()
    more = tower.embed_from_attention(trace, delta)[0] @ direction
    less = tower.embed_from_attention(trace, -delta)[0] @ direction
    return (more - less) / (2 * _STEP)


def maps_by_query(tower: Tower, trace: Trace, direction: Tensor) -> Tensor:
    """Grad-ECLIP before the queries are added up.

    The relevance of every patch for every query token, heads added.
    """
    assert len(trace.tokens) == 1
    gradient = _gradient(tower, trace, direction)  # (1, H, R, N)
    relevance = spatial_weights(trace.layers[-1], trace.valid_mask) * gradient
    by_query = relevance.sum(1)[0]  # (R, N)
    return by_query[:, trace.valid_mask[0]]


# --------------------------------------------------------------------------------------------- maps


def maps_of_things(explainer: Explainer, scenes: Sequence[Scene]) -> np.ndarray:
    """Signed maps (N, 2, h, w) of the names of both things of each scene."""
    names = [[thing.noun for thing in scene.objects] for scene in scenes]
    nouns, numbers = np.unique(names, return_inverse=True)
    embeddings = explainer.embed_texts([phrase(noun) for noun in nouns.tolist()])
    directions = embeddings[numbers]  # (N, 2, E)
    maps = explainer.maps(images_of(explainer.clip, scenes), directions)
    return maps.cpu().numpy()


def maps_again(explainer: Explainer, scenes: Sequence[Scene]) -> dict[str, np.ndarray]:
    """Signed maps (N, h, w) of the first thing of each scene, when the same is asked in other ways.

    "mirrored" explains the mirrored image, and its map is mirrored back; "photo" asks for "a photo
    of a dog" in place of "a dog". Neither changes where the thing is: how far these maps agree with
    those of `maps_of_things` is a ceiling for how far two models can agree.
    """
    images = images_of(explainer.clip, scenes)
    mirrored = [ImageOps.mirror(image) for image in images]
    names = [phrase(scene.objects[0].noun) for scene in scenes]
    photos = [f"a photo of {name}" for name in names]

    def maps(images: Sequence[Image.Image], prompts: Sequence[str]) -> np.ndarray:
        directions = explainer.embed_texts(prompts)[:, None]  # (N, 1, E)
        relevance = explainer.maps(images, directions)[:, 0]  # (N, h, w)
        return relevance.cpu().numpy()

    return {
        "mirrored": maps(mirrored, names)[:, :, ::-1],
        "photo": maps(images, photos),
    }


def on_things(maps: np.ndarray, scenes: Sequence[Scene]) -> pd.DataFrame:
    """One row per scene and thing: the fraction of positive relevance on the thing, by four maps.

    Columns: scene, noun; own, the map of the thing's name; other, that of the other thing's name;
    area, a map that is the same everywhere; best, the thing's true outline on the model's grid.
    """
    rows = []
    for i, scene in enumerate(scenes):
        coverage = [pool(mask, maps.shape[2:]) for mask in scene.masks(CANVAS)]
        for k, thing in enumerate(scene.objects):
            outline = coverage[k]
            row = {
                "scene": i,
                "noun": thing.noun,
                "own": part_on(maps[i, k], outline),
                "other": part_on(maps[i, 1 - k], outline),
                "area": part_on(np.ones_like(outline), outline),
                "best": part_on(outline, outline),
            }
            rows.append(row)
    return pd.DataFrame(rows)


def on_common_grid(maps: np.ndarray) -> np.ndarray:
    """Maps (N, h, w) averaged over the cells of a grid that all models can fill."""
    return np.stack([pool(map_, _GRID) for map_ in maps])


def plot_agreement(correlations: pd.DataFrame) -> Figure:
    """Draw a table of rank correlations: a row per model, a column per map it is compared with."""
    rows = []
    for name, values in correlations.iterrows():
        cells = [f"{column} {value:.2f}" for column, value in values.dropna().items()]
        rows.append(f"{name}: {', '.join(cells)}")
    figure = new_figure(
        8.1,
        0.9 + 0.42 * len(rows),
        f"Rank correlations of maps. {'; '.join(rows)}",
    )

    axes = figure.subplots()
    labels = [column.replace(", ", ",\n") for column in correlations.columns]
    sns.heatmap(
        correlations,
        annot=True,
        fmt=".2f",
        cmap="crest",
        vmin=-0.2,
        cbar=False,
        xticklabels=labels,
        ax=axes,
    )
    axes.xaxis.tick_top()
    axes.tick_params(length=0, rotation=0)
    figure.tight_layout()
    return figure


def plot_model_maps(
    explainers: Mapping[str, Explainer], image: Image.Image, prompts: Sequence[str]
) -> Figure:
    """Draw a row per prompt and a column per model; each map is divided by its own maximum."""
    panel = 1.6  # inches; a title adds .22
    title = 0.22
    columns = 1 + len(explainers)
    models = ", ".join(explainers)
    figure = new_figure(
        panel * columns,
        (panel + title) * len(prompts),
        f"Maps of {', '.join(prompts)} by {models}, each divided by its own maximum",
    )
    grid = figure.subplots(len(prompts), columns, squeeze=False)
    top = 1 - title / (panel + title)
    figure.subplots_adjust(
        left=0,
        right=1,
        bottom=0,
        top=top,
        wspace=0.04,
        hspace=0.16,
    )

    explanations = {}
    for name, explainer in explainers.items():
        explanations[name] = explainer.explain(image, list(prompts))

    for row, prompt in enumerate(prompts):
        panels = {prompt: image}
        for name, explanation in explanations.items():
            panels[name] = paint(image, explanation.image_maps[row])
        for axes, (name, picture) in zip(grid[row], panels.items(), strict=True):
            axes.set_axis_off()
            axes.set_title(name, fontsize=10, loc="left", pad=4)
            axes.imshow(picture)
    return figure
