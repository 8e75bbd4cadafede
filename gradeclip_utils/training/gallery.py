"""Maps of test scenes that nobody chose, in one figure.

python -m gradeclip_utils card --gallery gallery.png
"""

from __future__ import annotations

import textwrap

import numpy as np
from matplotlib.figure import Figure

from ..evaluation.attributes import images_of
from ..explain import Explainer
from ..explanation import Explanation
from ..models import Clip
from ..plots import InlineFigure, axes_at, paint, show_image
from ..plots.colours import largest, range_in_words
from ..scenes import Scene, draw_scene, phrase


def explained_scenes(clip: Clip, n: int, split: str = "test") -> list[tuple[Scene, Explanation]]:
    """The first `n` scenes of a split, of two and three things in turn, and what "a dog" finds of each thing named.

    Args:
        clip: the model.
        n: how many.
        split: see `scenes.SPLITS`.
    """
    explainer, found = Explainer(clip), []
    scenes = [draw_scene([90, i], split=split, n_objects=2 + i % 2) for i in range(n)]
    for scene, image in zip(scenes, images_of(clip, scenes), strict=True):
        named = {thing.noun: None for i, thing in enumerate(scene.objects) if i not in scene.unnamed}  # each once
        found.append((scene, explainer.explain(image, [phrase(noun) for noun in named])))
    return found


def gallery(clip: Clip, n: int = 24) -> Figure:
    """Maps of the first `n` test scenes, of two and three things in turn, all in one scale: none is chosen.

    Beside each image stands a map for every thing that its caption speaks of, asked for by "a dog". The figure is 9
    inches wide, with two scenes in a row.
    """
    scenes, found = zip(*explained_scenes(clip, n), strict=True)
    most = largest(np.maximum(one.image_maps, 0) for one in found)
    side, across, down, left = 1.08, 1.16, 1.72, (0.12, 3.9)  # inches
    alt = "Images and maps of test scenes: " + "; ".join(scene.caption for scene in scenes)
    figure = InlineFigure(9.0, down * -(-n // 2) + 0.35, alt)
    for number, (scene, one) in enumerate(zip(scenes, found, strict=True)):
        x, top = left[number % 2], 0.52 + down * (number // 2)
        caption = textwrap.fill(scene.caption, 58 if number % 2 == 0 else 76)
        figure.text(x / 9, 1 - (top - 0.2) / figure.get_figheight(), caption, va="bottom", fontsize=7.5, color="0.3")
        show_image(axes_at(figure, x, top, side, side), one.image, "")
        for i, prompt in enumerate(one.prompts):
            map_ = paint(one.image, one.image_maps[i], box=one.box, vmax=most)
            axes = axes_at(figure, x + (i + 1) * across, top, side, side)
            show_image(axes, map_, "")
            axes.set_title(f"{prompt}  {one.similarity[i]:.2f}", fontsize=7.5, loc="left", pad=2)
    sentence = range_in_words("relevance", False, most, "the most in this figure; numbers: similarity")
    figure.text(left[0] / 9, 0.08 / figure.get_figheight(), sentence, va="bottom", fontsize=8, color="0.35")
    return figure
