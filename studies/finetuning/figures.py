"""Figures of lesson 08: regions with the names that models give them, and where a name lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradeclip_utils.images import pool
from gradeclip_utils.models import Clip
from gradeclip_utils.plots import paint
from gradeclip_utils.plots.figures import axes_at, new_figure, show_image
from gradeclip_utils.scenes import IMAGE_SIZE, Scene, concepts, phrase

from ..lesson import FULL_WIDTH
from .evaluate import concept_prompts, dense_features, named_regions

RIGHT = "#0a7d78"
WRONG = "#777777"
TITLE_HEIGHT = 0.22  # inches
GAP = 0.06


def plot_name_maps(clips: Mapping[str, Clip], scene: Scene) -> Figure:
    """An image, and where each model's dense features resemble the name of its first object."""
    noun = scene.objects[0].noun
    mask = scene.masks(IMAGE_SIZE)[0]
    maps = {model: name_map(clip, scene, noun) for model, clip in clips.items()}
    largest = max(float(map_.max()) for map_ in maps.values())

    side = FULL_WIDTH / (1 + len(maps))
    figure = new_figure(FULL_WIDTH, side + TITLE_HEIGHT)
    show_image(axes_at(figure, 0, TITLE_HEIGHT, side - GAP, side - GAP), scene.image())
    sentences = []
    for column, (model, map_) in enumerate(maps.items(), start=1):
        axes = axes_at(figure, column * side, TITLE_HEIGHT, side - GAP, side - GAP)
        show_image(axes, paint(scene.image(), map_, vmax=largest))
        title = f"{phrase(noun)}: {model}"
        axes.set_title(title, fontsize=10, loc="left", pad=3)
        patches = np.maximum(map_, 0)
        inside = pool(mask.astype(float), map_.shape)
        on_object = (patches * inside).sum() / max(patches.sum(), 1e-12)
        sentences.append(f"{title}, {on_object:.2f} of the positive similarity on the object")
    figure.alt = f"{scene.caption}; {'; '.join(sentences)}"
    return figure


def name_map(clip: Clip, scene: Scene, noun: str) -> np.ndarray:
    """How much more alike each patch's dense feature is to a name than to all names: (h, w)."""
    prompts = concept_prompts(clip)  # (concepts, E)
    _, dense, _, _ = next(dense_features(clip, [scene]))  # (h, w, E)
    similarity = dense @ prompts[list(concepts().index).index(noun)]
    return (similarity - (dense @ prompts.T).mean(-1)).numpy()


def plot_named_regions(clips: Mapping[str, Clip], scenes: Sequence[Scene]) -> Figure:
    """A row per model, a column per scene: each object with the nearest name of its region.

    The name is filled if it is right.
    """
    side = FULL_WIDTH / len(scenes)
    row_height = side + TITLE_HEIGHT
    names = {
        model: [named_regions(clip, scene) for scene in scenes] for model, clip in clips.items()
    }
    figure = new_figure(FULL_WIDTH, len(clips) * row_height, describe_names(names))

    for row, (model, names_of_scenes) in enumerate(names.items()):
        top = row * row_height + TITLE_HEIGHT
        all_names = pd.concat(names_of_scenes)
        right = (all_names == all_names.index).sum()
        title = f"{model}: {right} of {len(all_names)} regions named correctly"
        figure.text(0, 1 - (top - 0.07) / figure.get_figheight(), title, fontsize=10)
        for column, (scene, regions) in enumerate(zip(scenes, names_of_scenes, strict=True)):
            axes = axes_at(figure, column * side, top, side - GAP, side - GAP)
            show_image(axes, scene.image())
            for (noun, name), mask in zip(regions.items(), scene.masks(), strict=True):
                label_region(axes, mask, name, is_right=name == noun)
    return figure


def label_region(axes: Axes, mask: np.ndarray, name: str, is_right: bool) -> None:
    """Draw the outline of a region, and its name in the middle."""
    colour = RIGHT if is_right else WRONG
    axes.contour(mask, levels=[0.5], colors=[colour], linewidths=1.2)

    rows, columns = np.nonzero(mask)
    x = np.clip(columns.mean(), 0.14 * IMAGE_SIZE, 0.86 * IMAGE_SIZE)  # the name stays inside
    box = {"facecolor": RIGHT if is_right else "white", "edgecolor": colour, "pad": 1.5}
    axes.text(
        x,
        rows.mean(),
        name,
        ha="center",
        va="center",
        fontsize=9,
        color="white" if is_right else "0.25",
        bbox={**box, "linewidth": 0.8},
    )


def describe_names(names: Mapping[str, Sequence[pd.Series]]) -> str:
    """The figure in words."""
    sentences = []
    for model, names_of_scenes in names.items():
        pairs = pd.concat(names_of_scenes).items()
        parts = [f"{noun} is named {name}" for noun, name in pairs]
        sentences.append(f"{model}: {', '.join(parts)}")
    return "; ".join(sentences)
