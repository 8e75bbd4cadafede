"""Figures of the matching study: pure functions from a state to a matplotlib figure, for lessons and their panels.

    rows, maps --here--> Figure -> notebook, panels

Nothing here computes relevance; the states come from `adjectives` and `wording`. Colours are those of `plots.colours`,
and never the only carrier: numbers are written out, and groups differ in their marks.
"""

from __future__ import annotations

import numpy as np
import seaborn
from matplotlib.colors import ListedColormap
from matplotlib.patches import Rectangle

from gradeclip_utils import checks
from gradeclip_utils.images import onto_image
from gradeclip_utils.plots import InlineFigure, axes_at, draw_heatmap, show_image
from gradeclip_utils.plots.axes import FULL_WIDTH, NOTE, SMALLEST, blank, drawable, entitle, headed, style
from gradeclip_utils.plots.colours import coloured, largest, number

from .adjectives import PromptPath
from .wording import WordRegions

_CELL_WIDTH, _CELL_HEIGHT, _HEAD = 1.25, 0.3, 1.05  # inches
_MOST = "the largest at any weight"
_WEIGHTS = np.linspace(0, 1, 21)


def draw_path(path: PromptPath, weight: float) -> InlineFigure:
    """The map of a prompt on its way to another one, and where that puts the relevance."""
    checks.number("weight", weight, 0, 1)
    fraction, most = path.fraction(weight), largest(np.maximum(path.maps, 0))
    where = f"{fraction:.0%} of the relevance on both things lies on the first"
    before, after = path.fraction(0), path.fraction(1)
    over = f"of the relevance on both things, {before:.0%} lies on the first before the adjective, {after:.0%} with it"
    alt = f"Map between “{path.before}” (0) and “{path.after}” (1) at {weight:.2f}: {where}"
    figure = InlineFigure(FULL_WIDTH, 2.8, f"{over}. {alt}")
    head = headed(figure, over)
    show_image(axes_at(figure, 0.1, head + 0.37, 2.0, 2.0), path.image, "image")
    axes, heat = axes_at(figure, 2.25, head + 0.37, 2.0, 2.0), onto_image(path.at(weight), path.box, path.image.size)
    draw_heatmap(axes, path.image, heat, vmax=most)
    entitle(axes, f"weight of the adjective {weight:.2f}")
    # where the relevance is for every weight, and for this one
    curve = axes_at(figure, 0.66 * FULL_WIDTH, head + 0.45, 0.32 * FULL_WIDTH, 1.8)
    curve.plot(_WEIGHTS, [path.fraction(one) for one in _WEIGHTS], color="#5b3a86", linewidth=1.5)
    curve.plot([weight], [fraction], "o", color="#5b3a86", markersize=8)
    curve.text(weight, fraction + (0.07 if fraction < 0.85 else -0.13), f"{fraction:.2f}", ha="center", fontsize=9,
               bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})  # fmt: skip
    curve.axhline(0.5, color="0.4", linestyle="--", linewidth=1, zorder=0)
    curve.set(xlim=(-0.06, 1.06), ylim=(-0.03, 1.03), xticks=[0, 1], yticks=[0, 0.5, 1])
    style(curve, title=f"fraction on {path.first}\ndashed: both alike")
    texts = curve.set_xticklabels([drawable(path.before), drawable(path.after)], fontsize=SMALLEST, parse_math=False)
    for label, side in zip(texts, ("left", "right"), strict=True):
        label.set_horizontalalignment(side)  # within the figure, however long the prompts are
    return figure


def draw_word_regions(matrix: WordRegions) -> InlineFigure:
    """A caption against the things of its image: one row a word, one column a region, the strongest in a frame."""
    values = matrix.values * 1e3
    count, across = values.shape
    left = 0.35 + 0.095 * max(len(word) for word in matrix.words)
    width, height = left + across * _CELL_WIDTH + 0.15, _HEAD + 0.56 + count * _CELL_HEIGHT + 0.75
    best = "; ".join(f"{word}: {matrix.regions[row.argmax()]}" for word, row in zip(matrix.words, values, strict=True))
    alt = f"Which region each word of “{matrix.caption}” answers to most. {best}"
    word, region = np.unravel_index(values.argmax(), values.shape)
    over = f"the strongest pair: “{matrix.words[word]}” and {matrix.regions[region]}"
    figure = InlineFigure(max(width, 5.2), height, f"{over}. {alt}")
    top = headed(figure, over) + _HEAD + 0.39
    width, height = figure.get_size_inches()
    for i, (name, mask) in enumerate(zip(matrix.regions, matrix.masks, strict=True)):
        place = ((left + i * _CELL_WIDTH + 0.08) / width, 1 - top / height, 1.05 / width, _HEAD / height)
        pixels, axes = np.asarray(matrix.image.convert("RGB"), dtype=np.float32) / 255, blank(figure.add_axes(place))
        faded = np.where(mask[..., None], pixels, 0.82 + 0.18 * pixels)  # all but the region
        axes.imshow(faded[::2, ::2], interpolation="auto")
        entitle(axes, drawable(name), "center", 8.5)
    place = (left / width, 0.75 / height, across * _CELL_WIDTH / width, count * _CELL_HEIGHT / height)
    axes, most = figure.add_axes(place), largest([values])
    colours = ListedColormap(coloured(np.linspace(-1, 1, 257)))
    written = [[number(value, most) for value in row] for row in values]
    seaborn.heatmap(values, vmin=-most, vmax=most, cmap=colours, cbar=False, annot=written, fmt="",
                    annot_kws={"fontsize": SMALLEST}, xticklabels=False, ax=axes)  # fmt: skip
    for row, strongest in enumerate(values.argmax(axis=1)):
        frame = Rectangle((strongest + 0.03, row + 0.06), 0.94, 0.88, fill=False, edgecolor="0.1", linewidth=1.3)
        axes.add_patch(frame)
    axes.set_yticklabels([drawable(word) for word in matrix.words], fontsize=9, parse_math=False, rotation=0)
    axes.tick_params(length=0)
    sentence = "interaction a patch, in thousandths: blue against, red for, less the mean of the words"
    figure.text(0.1 / width, 0.5 / height, sentence.replace(": ", ":\n", 1), va="top", **NOTE)
    figure.text(0.1 / width, 0.06 / height, drawable(matrix.origin), color="0.55", fontsize=SMALLEST)
    return figure
