"""Maps: drawings by matplotlib, which lays them out. Nothing here computes relevance.

    Drawing -> here -> a matplotlib figure

A row of a figure has maps, each with its title above and its bar below. The image stands at the
left of the first row, with the legend below it.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, HPacker, OffsetImage, TextArea, VPacker

from ..errors import GradeclipError, hint
from ..images import read_image
from .colours import paint, to_rgb
from .drawing import (
    LEAD_SHADE,
    Drawing,
    Panel,
    bar_values,
    of_explanation,
    of_interactions,
    of_maps,
    scaled,
)
from .figures import FULL_WIDTH, SMALLEST_TYPE, InlineFigure, fit_height, new_figure, show_image
from .titles import characters, draw_title, type_size, width_of

_MOST = 9  # prompts that are drawn if none are named
_GAP = 0.22  # inches between panels
_TALLEST = 3.3  # inches of a panel
_NARROW = 6  # inches: below, one prompt is in a row
_NARROWEST = 1.5  # inches of a panel
_BAR = 0.16  # inches
_NOTHING = 0.01
_LINE = 0.16  # of the smallest type
_TALLEST_LINE = 0.5  # inches of a title that boxes two words, one above the other
_WIDEST_LETTER = 0.12  # inches
_NOTE: dict[str, Any] = {"color": "0.35", "fontsize": SMALLEST_TYPE, "parse_math": False}


def plot_explanation(
    explanation,
    *,
    prompts: str | Sequence[str] | None = None,
    shared_scale: bool = True,
    width: float = FULL_WIDTH,
    ax: Axes | None = None,
) -> Figure:
    """Draw an explanation: the image, then a panel per prompt with words, map and similarity.

        figure = plot_explanation(explanation)
        plot_explanation(explanation, prompts=["a dog"], ax=axes[0])

    Args:
        explanation: an `Explanation`.
        prompts: those that are drawn. By default all, or of more than nine the most similar ones,
            in a contrast those that lead by most.
        shared_scale: one colour scale for all prompts, so that they can be compared; else one for
            each.
        width: inches. Below 6 there is one prompt per row, beside the image.
        ax: axes of your own, which take the panel of one prompt.

    Returns:
        The figure, which pyplot knows. A notebook shows it once.

    Raises:
        GradeclipError: the explanation has no such prompt, or `ax` is to take several.
    """
    if prompts is None:
        indices = np.sort(np.argsort(-bar_values(explanation), kind="stable")[:_MOST]).tolist()
    else:
        named = [prompts] if isinstance(prompts, str) else prompts
        indices = [_index(explanation.prompts, prompt) for prompt in named]
    drawing = of_explanation(explanation, shared=shared_scale, indices=indices)
    if ax is not None:
        return _draw_into(ax, drawing)
    return draw(drawing, width=width)


def plot_interactions(
    interactions,
    *,
    words: str | Sequence[str] = "content",
    columns: int = 4,
    width: float = FULL_WIDTH,
    ax: Axes | None = None,
) -> Figure:
    """Draw word x region: a signed map per word, all on one scale.

    Args:
        interactions: an `Interactions`.
        words: "content" draws nouns and adjectives, "all" function words too; or some of the words.
        columns: maps in a row, beside the image; fewer where they would be narrow.
        width: inches.
        ax: axes of your own, which take the map of one word.

    Returns:
        The figure, which pyplot knows. A notebook shows it once.

    Raises:
        GradeclipError: the caption has no such word, or `ax` is to take several.
    """
    if words not in ("content", "all"):
        words = [words] if isinstance(words, str) else words
        for word in words:
            _index([word.text for word in interactions.words[0]], word)
    drawing = of_interactions(interactions, words)
    if ax is not None:
        return _draw_into(ax, drawing)
    return draw(drawing, width=width, columns=columns)


def plot_maps(
    image,
    maps: Mapping[str, np.ndarray],
    *,
    signed: bool = False,
    shared_scale: bool = True,
    columns: int = 3,
    upsample: str = "bilinear",
    width: float = FULL_WIDTH,
    ax: Axes | None = None,
) -> Figure:
    """Draw maps of one image beside it.

        plot_maps(image, {"a dog": e.heatmap(0), "a red car": e.heatmap(1)})

    Args:
        image: the image that was explained.
        maps: title -> map, (H, W) or (h, w).
        signed: draw relevance against as well.
        shared_scale: one scale for all maps; else each has its own, and the legend says so.
        columns: maps in a row, beside the image; fewer where they would be narrow.
        upsample: "bilinear" or "nearest", for maps on the token grid.
        width: inches.
        ax: axes of your own, which take one map.

    Returns:
        The figure, which pyplot knows. A notebook shows it once.

    Raises:
        GradeclipError: something is not an image or not a map, or `ax` is to take several maps.
    """
    drawing = of_maps(read_image(image), maps.items(), signed=signed)
    drawing = scaled(replace(drawing, shared=shared_scale, upsample=upsample))
    if ax is not None:
        return _draw_into(ax, drawing)
    return draw(drawing, width=width, columns=columns)


def _index(names: Sequence[str], name: str) -> int:
    """The place of a prompt or a word."""
    if name not in names:
        raise GradeclipError(f"there is no {name!r} here: {hint(str(name), names)}")
    return list(names).index(name)


# -------------------------------------------------------------------------------- whole figures


def draw(drawing: Drawing, *, width: float = FULL_WIDTH, columns: int = 3) -> InlineFigure:
    """Draw a drawing: its image, and rows of at most so many panels beside it."""
    panels = drawing.panels
    columns = _columns(len(panels), width, columns)
    rows = max(1, math.ceil(len(panels) / max(columns, 1)))  # an image alone takes one
    side = min(width / (columns + 1) - _GAP, _TALLEST)
    has_bars = any(panel.value is not None for panel in panels)
    # Inches of the rows of the grid: of maps, then of what stands below them.
    height = min(side * drawing.image.height / drawing.image.width, _TALLEST)
    heights = [height, _BAR if has_bars else _NOTHING] * rows

    # The text takes some inches a row, which `fit_height` finds out.
    longest = max((len(panel.name) for panel in panels), default=0)
    lines = longest * _WIDEST_LETTER / side
    total = sum(heights) + len(heights) + lines * _TALLEST_LINE
    figure = new_figure((columns + 1) * (side + _GAP), total, drawing.alt, layout="constrained")
    figure.get_layout_engine().set(w_pad=_GAP / 2, h_pad=0.04, wspace=0, hspace=0)
    fontsize = type_size(panels, side, figure)

    grid = figure.add_gridspec(len(heights), columns + 1, height_ratios=heights)
    show_image(figure.add_subplot(grid[0, 0]), drawing.image, drawing.box)
    for i, panel in enumerate(panels):
        row, column = divmod(i, columns)
        axes = figure.add_subplot(grid[2 * row, column + 1])
        draw_title(axes, panel.cells, drawing.word_scale, side, fontsize)
        _draw_map(axes, drawing, panel)
        if panel.value is not None:
            bar = figure.add_subplot(grid[2 * row + 1, column + 1])
            _draw_bar(bar, drawing, panel, side)

    legend_axes = figure.add_subplot(grid[1, 0])
    legend_axes.set_axis_off()
    if panels:
        room = characters(side)
        legend = [part for line in drawing.legend for part in textwrap.wrap(line, room)]
        legend_box = _draw_legend(legend_axes, drawing.both, legend, side)
        # Further rows leave it room under the image.
        needed = 0.4 + _LINE * len(legend)
        legend_box.set_in_layout(sum(heights[2:]) < needed)
    if drawing.origin:
        _draw_origin(figure, drawing.origin)
    _fit(figure, heights)
    return figure


def _columns(count: int, width: float, most: int) -> int:
    """How many of so many maps stand in a row, beside the image."""
    if width < _NARROW:
        most = 1
    elif count == 4 and most == 3:
        most = 2  # two rows without a hole
    return min(most, count, max(1, int(width / _NARROWEST) - 1))


def _fit(figure: Figure, heights: Sequence[float]) -> None:
    """Give the rows of a figure their heights in inches."""
    rows: dict[int, Axes] = {}
    for axes in figure.axes:
        rows.setdefault(axes.get_subplotspec().rowspan.start, axes)
    fit_height(figure, [(axes, heights[row]) for row, axes in rows.items()])


def _draw_origin(figure: Figure, origin: str, left: float = _GAP / 2) -> None:
    """Write model, method and layers at the foot of a figure, some inches from its left."""
    width = figure.get_figwidth()
    room = characters(width - 2 * left)
    lines = [line for part in origin.splitlines() for line in textwrap.wrap(part, room)]
    look = {**_NOTE, "color": "0.45"}
    figure.supxlabel("\n".join(lines), x=left / width, ha="left", **look)


# ------------------------------------------------------------------------------- parts of a figure


def _draw_into(axes: Axes, drawing: Drawing) -> Figure:
    """Draw the one panel of a drawing into axes, with title and bar around it."""
    if len(drawing.panels) != 1:
        names = ", ".join(repr(panel.name) for panel in drawing.panels)
        raise GradeclipError(
            f"ax= takes one map, and these are {len(drawing.panels)} ({names}): name one, "
            "by prompts= (of interactions, by words=)"
        )

    (panel,) = drawing.panels
    figure = axes.get_figure()
    inches = axes.get_window_extent().width / figure.dpi
    fontsize = type_size([panel], inches, figure)
    draw_title(axes, panel.cells, drawing.word_scale, inches, fontsize)
    _draw_map(axes, drawing, panel)
    if panel.value is not None:
        bar = axes.inset_axes((0, -0.12, 1, 0.06))
        _draw_bar(bar, drawing, panel, inches)
    return figure


def _draw_map(axes: Axes, drawing: Drawing, panel: Panel) -> None:
    """Draw a map on its image; a method without maps says so."""
    values = np.zeros((1, 1), np.float32) if panel.map is None else panel.map
    painted = paint(
        drawing.image,
        values,
        box=drawing.box,
        signed=drawing.signed,
        vmax=panel.scale,
        upsample=drawing.upsample,
    )
    show_image(axes, painted)
    if panel.map is None:
        place = {"ha": "center", "va": "center", "transform": axes.transAxes}
        axes.text(0.5, 0.5, "no map: words alone", fontsize=10, **place)


def _draw_bar(axes: Axes, drawing: Drawing, panel: Panel, inches: float) -> None:
    """Draw the similarity or the lead as a bar, the tick, and what the bar is."""
    assert panel.value is not None  # else there is no bar
    low, high = drawing.bars
    axes.set(xlim=(low, high), ylim=(0, 1), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.patch.set_visible(False)
    axes.barh(0.5, high - low, left=low, height=0.28, color="0.92")
    end = float(np.clip(panel.value, low, high))
    if panel.lead_over:
        lead = end - panel.start
        axes.barh(0.5, min(end, panel.start), height=0.8, color="0.65")
        axes.barh(0.5, lead, 0.8, panel.start, color=to_rgb(np.sign(lead) * LEAD_SHADE))
    else:
        axes.barh(0.5, end, height=0.8, color="0.25" if panel.best else "0.65")

    if low < 0:
        axes.axvline(0, color="0.75", linewidth=0.6)
    if panel.tick is not None:
        tick = {"ymin": -0.3, "ymax": 1.3, "clip_on": False, "solid_capstyle": "butt"}
        axes.axvline(panel.tick, color="black", linewidth=1.6, **tick)

    fitting = [label for label in panel.labels if width_of(label) <= inches]
    label = fitting[0] if fitting else panel.labels[-1]
    axes.set_xlabel(label, loc="left", labelpad=5, **_NOTE)


def _draw_legend(
    axes: Axes,
    two_sided: bool,
    lines: Sequence[str],
    inches: float,
) -> AnnotationBbox:
    """Put the strip of colours, with its ends named, and the lines of the legend below axes."""
    names = 70 if two_sided else 25  # points of the names of both ends
    length = int(np.clip(72 * inches - names, 30, 94))  # points, a colour a point
    ramp = to_rgb(np.linspace(-1 if two_sided else 0, 1, length))
    strip = np.repeat(ramp[None], 9, axis=0)  # (9, length, 3)
    strip[[0, -1]] = 0.8
    strip[:, [0, -1]] = 0.8
    ends = [OffsetImage(strip), TextArea("for", textprops=_NOTE)]
    if two_sided:
        ends = [TextArea("against", textprops=_NOTE), *ends]
    rows = [HPacker(children=ends, sep=5, pad=0, align="center")]
    rows += [TextArea(line, textprops=_NOTE) for line in lines]
    legend = AnnotationBbox(
        VPacker(children=rows, sep=3, pad=0, align="left"),
        (0, 1),
        xybox=(0, -3),
        xycoords="axes fraction",
        boxcoords="offset points",
        box_alignment=(0, 1),
        frameon=False,
        pad=0,
    )
    axes.add_artist(legend)
    return legend
