"""Figures of lesson 07: regions with the names that models give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from gradeclip_utils.models import Clip
from gradeclip_utils.plots import axes_at, new_figure, show_image
from gradeclip_utils.scenes import IMAGE_SIZE, Scene

from ..lesson import FULL_WIDTH
from .evaluate import named_regions

_RIGHT, _WRONG = "#0a7d78", "#777777"


def plot_named_regions(clips: Mapping[str, Clip], scenes: Sequence[Scene]) -> Figure:
    """A row per model, a column per scene: each object with the nearest name of its region, filled if it is right."""
    side = FULL_WIDTH / len(scenes)
    names = {
        model: [named_regions(clip, scene) for scene in scenes] for model, clip in clips.items()
    }
    descriptions = [
        f"{model}: {', '.join(f'{a} is named {b}' for row in own for a, b in row.items())}"
        for model, own in names.items()
    ]
    figure = new_figure(FULL_WIDTH, len(clips) * (side + 0.22), "; ".join(descriptions))
    for row, (model, own) in enumerate(names.items()):
        top = row * (side + 0.22) + 0.22
        right = sum((one == one.index).sum() for one in own)
        title = f"{model}: {right} of {sum(map(len, own))} regions named correctly"
        figure.text(0, 1 - (top - 0.07) / figure.get_figheight(), title, fontsize=10)
        for column, (scene, found) in enumerate(zip(scenes, own, strict=True)):
            axes = axes_at(figure, column * side, top, side - 0.06, side - 0.06)
            show_image(axes, scene.image())
            for (noun, name), mask in zip(found.items(), scene.masks(), strict=True):
                axes.contour(
                    mask, levels=[0.5], colors=[_RIGHT if name == noun else _WRONG], linewidths=1.2
                )
                y, x = (float(np.mean(where)) for where in np.nonzero(mask))
                x = np.clip(x, 0.14 * IMAGE_SIZE, 0.86 * IMAGE_SIZE)
                face, ink = (_RIGHT, "white") if name == noun else ("white", "0.25")
                box = {
                    "facecolor": face,
                    "edgecolor": _RIGHT if name == noun else _WRONG,
                    "pad": 1.5,
                    "linewidth": 0.8,
                }
                axes.text(x, y, name, ha="center", va="center", fontsize=9, color=ink, bbox=box)
    return figure
