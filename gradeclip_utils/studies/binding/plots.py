"""Figures of the study of binding: tables and pairs in, a matplotlib figure out. No model is asked.

pairs, rows, index -> tables -> figures
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ...evaluation.attributes import Pair
from ...explanation import Explanation
from ...plots import InlineFigure, axes_at, draw_heatmap, name_rows, show_image
from ...plots.axes import NOTE, drawable

_SERIES = ("#5b3a86", "#d95f02", "0.45")  # told apart by their marks too
_MARKS = ("o", "s", "D")


def plot_by_kind(
    panels: Mapping[str, pd.DataFrame], *, lines: Mapping[str, float] | None = None, by: str = "kind",
    series: str | None = None, limits: tuple[float, float] | None = None, width: float = 2.6, title: str = "",
) -> InlineFigure:  # fmt: skip
    """Means with intervals, one row a kind, one panel beside the other; rows are those of the first panel.

    Args:
        panels: title -> table with the columns `by`, mean, low and high, as `statistics.summarise` gives them.
        lines: title -> where a guess lands: a dashed line.
        series: a column whose (up to three) values are drawn in colours and marks of their own in every row.
        limits: of all panels' axes; each has its own by default.
        width: inches of one panel.

    Raises:
        ValueError: there are no panels, or a table lacks one of the columns.
    """
    wanted = [by, "mean", "low", "high", *([series] if series else [])]
    lacking = [(name, column) for name, table in panels.items() for column in wanted if column not in table]
    if not panels or lacking:
        raise ValueError(f"one table or more with the columns {', '.join(wanted)} are needed; lacking: {lacking}")
    rows = list(dict.fromkeys(next(iter(panels.values()))[by]))
    named = list(dict.fromkeys(v for table in panels.values() for v in table[series])) if series else [None]
    left, height = 0.3 + 0.075 * max(len(str(row)) for row in rows), 0.27 * len(rows) + 0.1
    alt = f"{title or 'by kind'}: {', '.join(panels)}"
    figure = InlineFigure(left + len(panels) * (width + 0.25), height + 1.05, alt)
    for i, (name, table) in enumerate(panels.items()):
        axes = axes_at(figure, left + i * (width + 0.25), 0.55, width, height)
        _draw_rows(axes, table, rows, by, series, named)
        if limits:
            axes.set_xlim(limits)
        if lines and name in lines:
            axes.axvline(lines[name], color="0.4", linestyle="--", linewidth=1)
        name_rows(axes, rows if i == 0 else [""] * len(rows), "", name)
        if series and i == 0:
            below = (0, -0.3 / height)
            axes.legend(fontsize=8, frameon=False, ncols=len(named), loc="upper left", bbox_to_anchor=below)
    figure.text(0.1 / figure.get_figwidth(), 1 - 0.08 / figure.get_figheight(), title, va="top", fontsize=10)
    return figure


def _draw_rows(axes: Axes, table: pd.DataFrame, rows: Sequence, by: str, series: str | None, named: Sequence) -> None:
    offsets = np.linspace(-0.2, 0.2, len(named)) if len(named) > 1 else [0.0]
    for colour, mark, value, offset in zip(_SERIES, _MARKS, named, offsets, strict=False):
        part = table if series is None else table[table[series] == value]
        places = [rows.index(row) + offset for row in part[by]]
        axes.hlines(places, part["low"], part["high"], color=colour, linewidth=2)
        axes.plot(part["mean"], places, mark, color=colour, markersize=4.5, label=value)


def plot_pair(pair: Pair, similarity: np.ndarray) -> InlineFigure:
    """Both pictures of a pair, each with its similarities (2 pictures, 2 captions) to the two captions."""
    figure = InlineFigure(9.6, 2.75, "; ".join(f"a picture of {scene.caption}" for scene in pair.scenes))
    captions = [scene.caption for scene in pair.scenes]
    for side, scene in enumerate(pair.scenes):
        show_image(axes_at(figure, 0.1 + 4.8 * side, 0.3, 2.2, 2.2), scene.image(), f"picture {side + 1}")
        axes = axes_at(figure, 2.45 + 4.8 * side, 0.62, 2.1, 1.5)
        draw_bars(axes, captions, similarity[side], side)
    return figure


def draw_bars(axes: Axes, captions: Sequence[str], values: Sequence[float], right: int | None = None) -> None:
    """One bar a caption, its text above it; the one that is ``right`` is called true."""
    low, high = min(0.0, *values), max(*values, 1e-6)
    letters = int(axes.get_position().width * axes.get_figure().get_figwidth() * 16)
    for row, (caption, value) in enumerate(zip(captions, values, strict=True)):
        best = value == max(values)
        axes.barh(row, value, height=0.32, color=_SERIES[0] if best else "0.75")
        mark = " (true)" if row == right else ""
        text = folded(caption + mark, letters)
        axes.text(low, row - 0.24, text, va="bottom", fontsize=8, parse_math=False)
        axes.text(max(value, 0), row, f" {value:.3f}".replace("-", "\N{MINUS SIGN}"), va="center", fontsize=8)
    axes.axvline(0, color="0.6", linewidth=0.6)
    axes.set(xlim=(low, low + 1.3 * (high - low)), ylim=(len(captions) - 0.6, -0.75), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def plot_gallery(cases: Sequence[tuple[str, Explanation]], *, columns: int = 4) -> InlineFigure:
    """Pictures above their signed contrastive maps (`Explainer.explain(..., against=)`), each with a title of its own.

    Every map has its own scale: the strongest magnitude in it is the darkest ink.

    Raises ValueError if there are no cases, or one that is not a contrast.
    """
    if not cases or any(one.against is None for _, one in cases):
        raise ValueError("a gallery needs one contrastive explanation or more: explain(image, right, against=wrong)")
    columns = min(columns, len(cases))
    rows = -(-len(cases) // columns)
    figure = InlineFigure(0.2 + 2.5 * columns, 0.4 + 4.3 * rows, "; ".join(title for title, _ in cases))
    for i, (title, one) in enumerate(cases):
        x, top = 0.1 + 2.5 * (i % columns), 0.7 + 4.3 * (i // columns)
        show_image(axes_at(figure, x, top, 1.7, 1.7), one.image, folded(title, 30, lines=4))
        heat = one.heatmap(0, signed=True)
        draw_heatmap(axes_at(figure, x, top + 1.8, 1.7, 1.7), one.image, heat, signed=True, note="")
    sentence = "orange speaks for the right caption, purple for the wrong one; each map on a scale of its own"
    figure.text(0.1 / figure.get_figwidth(), 0.1 / figure.get_figheight(), sentence, **NOTE)
    return figure


def folded(text: str, width: int, lines: int = 2) -> str:
    """The text in a few lines of so many letters, with an ellipsis where it had to be cut."""
    return "\n".join(textwrap.wrap(drawable(text), width, max_lines=lines, placeholder="…", break_on_hyphens=False))
