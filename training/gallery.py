"""Maps of test scenes that nobody chose, in one figure.

python -m gradeclip_utils card --gallery gallery.png
"""

from __future__ import annotations

import textwrap

import numpy as np
from matplotlib.figure import Figure

from gradeclip_utils.explain import Explainer
from gradeclip_utils.explanation import Explanation
from gradeclip_utils.measures.localisation import pool
from gradeclip_utils.models import Clip
from gradeclip_utils.plots import InlineFigure, axes_at, paint, show_image
from gradeclip_utils.scenes import Scene, draw_scene, phrase
from studies.pairs import images_of

SCENES = 24
_SIDE = 288  # pixels of a scene as the figure draws it


def _explained_scenes(clip: Clip, split: str) -> list[tuple[Scene, Explanation]]:
    """The first `SCENES` of a split, of two and three things in turn, and what "a dog" finds of each thing named."""
    explainer, found = Explainer(clip), []
    scenes = [draw_scene([90, i], split=split, n_objects=2 + i % 2) for i in range(SCENES)]
    for scene, image in zip(scenes, images_of(clip, scenes), strict=True):
        named = {thing.noun: None for i, thing in enumerate(scene.objects) if i not in scene.unnamed}  # each once
        found.append((scene, explainer.explain(image, [phrase(noun) for noun in named])))
    return found


def clear_maps(clip: Clip, split: str) -> list[bool]:
    """Whether no patch that shows nothing has half of what the best patch of the map's own thing has, for every map."""
    clear = []
    for scene, found in _explained_scenes(clip, split):
        masks = scene.masks(found.image.width).astype(float)
        shown = np.stack([pool(mask, found.image_maps.shape[1:], found.box) > 0 for mask in masks])
        named = [i for i in range(len(masks)) if i not in scene.unnamed]
        nouns = dict.fromkeys(scene.objects[i].noun for i in named)  # in the order of the maps
        for noun, map_ in zip(nouns, found.image_maps, strict=True):
            own = shown[[i for i in named if scene.objects[i].noun == noun]].any(0)
            clear.append(bool(map_[~shown.any(0)].max(initial=-np.inf) < map_[own].max() / 2))
    return clear


def gallery(clip: Clip) -> Figure:
    """Maps of the first `SCENES` test scenes, of two and three things in turn: none is chosen."""
    scenes, found = zip(*_explained_scenes(clip, "test"), strict=True)
    side, across, down, left = 1.18, 1.24, 1.88, (0.06, 3.98)  # inches
    alt = "Images and maps of test scenes: " + "; ".join(scene.caption for scene in scenes)
    figure = InlineFigure(9.0, down * -(-SCENES // 2) + 0.35, alt)
    for number, (scene, one) in enumerate(zip(scenes, found, strict=True)):
        x, top = left[number % 2], 0.58 + down * (number // 2)
        caption = textwrap.fill(scene.caption, 50 if number % 2 == 0 else 68)
        figure.text(x / 9, 1 - (top - 0.23) / figure.get_figheight(), caption, va="bottom", fontsize=9, color="0.3")
        drawn = scene.image(_SIDE)  # what the model saw has 96 pixels
        box = tuple(round(edge * _SIDE / one.image.width) for edge in one.box)
        show_image(axes_at(figure, x, top, side, side), drawn, "")
        for i, prompt in enumerate(one.prompts):
            map_ = paint(drawn, one.image_maps[i], box=box)
            axes = axes_at(figure, x + (i + 1) * across, top, side, side)
            show_image(axes, map_, "")
            axes.set_title(f"{prompt} {one.similarity[i]:.2f}", fontsize=9, loc="left", pad=2)
    sentence = "relevance: pale 0 to dark the largest in each map; numbers: similarity"
    figure.text(left[0] / 9, 0.08 / figure.get_figheight(), sentence, va="bottom", fontsize=9, color="0.35")
    return figure
