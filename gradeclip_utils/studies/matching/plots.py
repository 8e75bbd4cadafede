"""Figures of the matching study: pure functions from a state to a matplotlib figure, for lessons and their panels.

    rows, maps --here--> Figure -> notebook, panels

Nothing here computes relevance; the states come from `measures` and `wording`. Colours are those of `plots.colours`,
and never the only carrier: numbers are written out, and groups differ in their marks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from ...images import onto_picture
from ...plots import InlineFigure, axes_at, draw_heatmap, name_rows, paint, show_image
from ...plots.axes import NOTE, blank, drawable, entitle
from ...plots.colours import largest, number, range_in_words, scale, text_colour
from ...plots.html import Page, note_html, picture_html, print_html, row_html
from .adjectives import Path
from .wording import WordRegions

_STYLES = (("#5b3a86", "o"), ("#c4670d", "s"), ("0.45", "D"))  # purple circles, orange squares, grey diamonds
_CELL_WIDTH, _CELL_HEIGHT, _HEAD = 1.25, 0.3, 1.05  # inches
_MOST = "the most on this way"
_WEIGHTS = np.linspace(0, 1, 21)


def draw_path(path: Path, weight: float) -> InlineFigure:
    """The map of a prompt on its way to another one, and where that puts the relevance.

    The direction is e(before) + weight * (e(after) - e(before)), and so the map is drawn by the same rule. On one scale
    for all weights.

    Raises:
        ValueError: the weight is not between 0 and 1.
    """
    share, most, alt = _on_the_way(path, weight)
    figure = InlineFigure(9.4, 3.1, alt)
    show_image(axes_at(figure, 0.1, 0.37, 2.3, 2.3), path.image, "picture")
    axes, heat = axes_at(figure, 2.6, 0.37, 2.3, 2.3), onto_picture(path.at(weight), path.box, path.image.size)
    draw_heatmap(axes, path.image, heat, vmax=most, note=_MOST)
    entitle(axes, f"weight of the adjective {weight:.2f}")
    _draw_curve(figure.add_axes((0.71, 0.2, 0.28, 0.64)), path, weight, share)
    return figure


def path_page(path: Path, weight: float) -> tuple[Page, InlineFigure]:
    """`draw_path` for a panel: its parts side by side, or one below the other where the window is narrow."""
    share, most, alt = _on_the_way(path, weight)
    heat = paint(path.image, path.at(weight), box=path.box, vmax=most)
    title, note = f"weight of the adjective {weight:.2f}", range_in_words("relevance", False, most, _MOST)
    prints = row_html(picture_html(path.image, width=190), print_html(heat, title, vmax=most, width=190))
    curve = InlineFigure(3.0, 2.5, alt)
    _draw_curve(curve.add_axes((0.11, 0.11, 0.87, 0.77)), path, weight, share)
    return Page(prints + note_html(note), title), curve


def _on_the_way(path: Path, weight: float) -> tuple[float, float, str]:
    """The share on the first thing, the value of the darkest ink, and both in words; checked."""
    if not 0 <= weight <= 1:
        raise ValueError(f"the weight of an adjective goes from 0 (absent) to 1 (as in the prompt), got {weight!r}")
    share, most = path.share(weight), largest(np.maximum(path.maps, 0))
    names = f"“{path.before}” (0) to “{path.after}” (1)"
    alt = f"Map of the way from {names} at {weight:.2f}: {share:.0%} of the relevance on both things lies on the first"
    return share, most, alt


def _draw_curve(curve: Axes, path: Path, weight: float, share: float) -> None:
    """Where the relevance is for every weight, and for this one."""
    curve.plot(_WEIGHTS, [path.share(one) for one in _WEIGHTS], color="#5b3a86", linewidth=1.5)
    curve.plot([weight], [share], "o", color="#5b3a86", markersize=8)
    curve.text(weight, share + (0.07 if share < 0.85 else -0.13), f"{share:.2f}", ha="center", fontsize=9,
               bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})  # fmt: skip
    curve.axhline(0.5, color="0.4", linestyle="--", linewidth=1, zorder=0)
    curve.set(xlim=(-0.06, 1.06), ylim=(-0.03, 1.03), xticks=[0, 1], yticks=[0, 0.5, 1])
    curve.set_xticklabels([drawable(path.before), drawable(path.after)], fontsize=8, parse_math=False)
    curve.set_title(drawable(f"share on {path.first}; dashed: both alike"), loc="left", fontsize=9, parse_math=False)
    curve.tick_params(labelsize=8)
    curve.spines[["top", "right"]].set_visible(False)


def draw_word_regions(matrix: WordRegions) -> InlineFigure:
    """A caption against the things of its picture: one row a word, one column a region, the strongest in a frame.

    Orange speaks for, purple against, and every value is written into its cell, in thousandths of a similarity.
    """
    values = matrix.values * 1e3
    count, across = values.shape
    left = 0.35 + 0.095 * max(len(word) for word in matrix.words)
    width, height = left + across * _CELL_WIDTH + 0.15, _HEAD + 0.55 + count * _CELL_HEIGHT + 0.75
    best = "; ".join(f"{word}: {matrix.regions[row.argmax()]}" for word, row in zip(matrix.words, values, strict=True))
    alt = f"Which region each word of “{matrix.caption}” answers to most. {best}"
    figure = InlineFigure(max(width, 5.2), height, alt)
    width = figure.get_figwidth()
    for i, (name, mask) in enumerate(zip(matrix.regions, matrix.masks, strict=True)):
        place = ((left + i * _CELL_WIDTH + 0.08) / width, 1 - (_HEAD + 0.38) / height, 1.05 / width, _HEAD / height)
        _thumbnail(figure.add_axes(place), matrix.image, mask, name)
    place = (left / width, 0.75 / height, across * _CELL_WIDTH / width, count * _CELL_HEIGHT / height)
    axes, most = figure.add_axes(place), largest([values])
    norm, colours = scale(True, most)
    axes.imshow(colours(norm(values))[..., :3], aspect="auto", interpolation="nearest")
    for row in range(count):
        for column in range(across):
            colour = colours(norm(values[row, column]))
            text = number(values[row, column], most)
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=text_colour(colour))
        strongest = values[row].argmax()
        axes.add_patch(
            Rectangle((strongest - 0.47, row - 0.44), 0.94, 0.88, fill=False, edgecolor="0.1", linewidth=1.3)
        )
    axes.set(xticks=[], yticks=range(count))
    axes.set_yticklabels([drawable(word) for word in matrix.words], fontsize=9, parse_math=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    note = "less the mean of the words" if matrix.centred else "as it is"
    sentence = range_in_words("interaction a patch, in thousandths", True, most, note)
    figure.text(0.1 / width, 0.5 / height, sentence.replace(": ", ":\n", 1), va="top", **NOTE)
    figure.text(0.1 / width, 0.06 / height, drawable(matrix.origin), color="0.55", fontsize=7)
    return figure


def _thumbnail(axes: Axes, image, mask: np.ndarray, name: str) -> None:
    """The picture with all but one region faded out."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32) / 255
    faded = np.where(mask[..., None], pixels, 0.82 + 0.18 * pixels)
    blank(axes).imshow(faded[::2, ::2], interpolation="auto")
    entitle(axes, drawable(name), "center", 8.5)


def plot_groups(
    table: pd.DataFrame,
    by: str,
    group: str,
    *,
    label: str,
    reference: float | None = None,
    reference_label: str = "",
    order: Sequence[str] | None = None,
    title: str = "",
) -> InlineFigure:
    """Means with intervals, a row for each value of ``by``, and a mark of its own for each of ``group`` (up to three).

        plot_groups(summarise(rows, "moved", by=["prompt", "second"]), "prompt", "second", label="moved", reference=0)

    Args:
        table: as ``statistics.summarise`` gives it: columns by, group, mean, low, high.
        label: what the values are, under the axis.
        reference: a dashed line, and what it stands for in ``reference_label``.
        order: the rows from the top; as they come by default.

    Raises:
        ValueError: a column is missing, more than three groups, or an order that is not of the table.
    """
    missing = [name for name in (by, group, "mean", "low", "high") if name not in table]
    groups = [] if missing else list(dict.fromkeys(table[group]))
    names = [] if missing else list(order if order is not None else dict.fromkeys(table[by]))
    if missing or not 1 <= len(groups) <= len(_STYLES) or not set(names) <= set(table[by]):
        wanted = f"the columns {by}, {group}, mean, low and high, up to {len(_STYLES)} groups, and rows as in order"
        raise ValueError(f"the table needs {wanted}; it has {list(table)}, groups {groups} and was asked for {names}")
    left = 0.35 + 0.078 * max(len(str(name)) for name in names)
    tall = 0.17 * len(names) * (len(groups) + 0.9)
    height, width = tall + 1.25, left + 6.6
    rows = table[table[by].isin(names)]
    told = "; ".join(
        f"{one[by]}, {one[group]}: {one['mean']:.3f}, {one['low']:.3f} to {one['high']:.3f}"
        for _, one in rows.iterrows()
    )
    figure = InlineFigure(width, height, f"{title or label}. {told}")
    axes = figure.add_axes((left / width, 0.72 / height, 4.3 / width, tall / height))
    for k, (name, (colour, mark)) in enumerate(zip(groups, _STYLES, strict=False)):
        own = rows[rows[group] == name].set_index(by)
        places = [i + (k - (len(groups) - 1) / 2) * 0.26 for i, one in enumerate(names) if one in own.index]
        part = own.loc[[one for one in names if one in own.index]]
        axes.hlines(places, part["low"], part["high"], color=colour, linewidth=2)
        axes.plot(part["mean"], places, mark, color=colour, markersize=5, label=str(name))
        for place, value in zip(places, part["mean"], strict=True):
            axes.text(1.02, place, f"{value:.2f}".replace("-", "−"), va="center", fontsize=7.5, color=colour,
                      transform=axes.get_yaxis_transform())  # fmt: skip
    if reference is not None:
        axes.axvline(reference, color="0.4", linestyle="--", linewidth=1, label=reference_label or None)
    name_rows(axes, [str(name) for name in names], label, title)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.11, 0.5), frameon=False)
    return figure
