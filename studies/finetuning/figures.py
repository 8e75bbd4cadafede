"""Figures of lesson 08: where the dense features of an image resemble a name."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from gradeclip_utils.images import pool
from gradeclip_utils.models import Clip
from gradeclip_utils.plots import paint
from gradeclip_utils.plots.figures import fit_height, new_figure, show_image
from gradeclip_utils.scenes import IMAGE_SIZE, Scene, concepts, phrase

from ..lesson import FULL_WIDTH
from ..relevance import part_on
from .evaluate import concept_prompts, dense_features


def plot_name_maps(clips: Mapping[str, Clip], scene: Scene) -> Figure:
    """An image, and where each model's dense features resemble the name of its first object."""
    noun = scene.objects[0].noun
    maps = {}
    for model, clip in clips.items():
        maps[f"{phrase(noun)}: {model}"] = name_map(clip, scene, noun)
    largest = max(float(map_.max()) for map_ in maps.values())

    columns = 1 + len(maps)
    side = FULL_WIDTH / columns - 0.1  # inches
    figure = new_figure(FULL_WIDTH, side + 0.3, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03)
    image_axes, *map_axes = figure.subplots(1, columns)
    image = scene.image()
    show_image(image_axes, image)

    mask = scene.masks(IMAGE_SIZE)[0]
    sentences = [scene.caption]
    for axes, (title, map_) in zip(map_axes, maps.items(), strict=True):
        painted = paint(image, map_, vmax=largest)
        show_image(axes, painted)
        axes.set_title(title, fontsize=10, loc="left", pad=3)
        part = part_on(map_, pool(mask, map_.shape))
        sentences.append(f"{title}, {part:.2f} of the positive similarity on the object")

    fit_height(figure, [(image_axes, side)])
    figure.alt = "; ".join(sentences)
    return figure


def name_map(clip: Clip, scene: Scene, noun: str) -> np.ndarray:
    """How much more alike each patch's dense feature is to a name than to all names: (h, w)."""
    prompts = concept_prompts(clip)  # (concepts, E)
    _, dense, _, _ = next(dense_features(clip, [scene]))  # (h, w, E)
    similarities = dense @ prompts.T  # (h, w, concepts)
    number = concepts().index.get_loc(noun)
    contrast = similarities[..., number] - similarities.mean(-1)
    return contrast.numpy()
