"""Plots that several studies share: means with their intervals, in groups.

table of `statistics.summarise` -> figure
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from gradeclip_utils import checks
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.plots import InlineFigure, axes_at, name_rows
from gradeclip_utils.plots.axes import FULL_WIDTH, MARKERS, PALETTE, SMALLEST, drawable, headed


def plot_groups(
    panels: pd.DataFrame | Mapping[str, pd.DataFrame], by: str, group: str | None = None, *, label: str = "",
    reference: float | Mapping[str, float] | None = None, reference_label: str = "",
    order: Sequence[str] | None = None, limits: tuple[float, float] | None = None, width: float = 4.3,
    title: str = "",
) -> InlineFigure:  # fmt: skip
    """Means with intervals, a row for each value of a column, and a marker of its own for each of another one."""
    tables = {title: panels} if isinstance(panels, pd.DataFrame) else dict(panels)
    columns = [by, *([group] if group else []), "mean", "low", "high"]
    for table in tables.values() or ({},):  # no tables lack all of them
        checks.columns(table, columns)
    first, alone = next(iter(tables.values())), len(tables) == 1
    names = list(dict.fromkeys(first[by] if order is None else order))
    groups = list(dict.fromkeys(value for table in tables.values() for value in table[group])) if group else [None]
    if len(groups) > len(PALETTE) or not set(names) <= set(first[by]):
        msg = f"up to {len(PALETTE)} groups and rows of the table are drawn, got {groups} and {names}"
        raise GradeclipError(msg)
    left, tall = 0.35 + 0.078 * max(len(str(name)) for name in names), 0.17 * len(names) * (len(groups) + 0.9)
    told = [str(one) for one in groups if one is not None] + [reference_label] * bool(reference_label)
    right = (0.55 if alone else 0.15) + (0.45 + 0.07 * max(map(len, told)) if told else 0.0)
    width = min(width, max((FULL_WIDTH - left - right) / len(tables) - 0.25, 0.8))
    across = left + len(tables) * (width + 0.25) + right
    over = title or (next(iter(tables)) if alone else "")
    titles = ["" if name == over else textwrap.fill(name, int(14.5 * width)) for name in tables]
    room = 0.1 + 0.16 * max(one.count("\n") + bool(one) for one in titles)
    figure = InlineFigure(across, room + tall + 0.55, _alt(over or label, tables, by, group))
    top = headed(figure, over) + room
    for i, (name, table) in enumerate(tables.items()):
        axes = axes_at(figure, left + i * (width + 0.25), top, width, tall)
        _draw_intervals(axes, table, by, group, order=names, groups=groups)
        if limits:
            axes.set_xlim(limits)
        line = reference.get(name) if isinstance(reference, Mapping) else reference
        if line is not None:
            axes.axvline(line, color="0.4", linestyle="--", linewidth=1, label=reference_label or None)
        name_rows(axes, [str(one) if i == 0 else "" for one in names], label, titles[i])
    if alone:
        _write_means(figure.axes[0])
    if group or reference_label:
        figure.axes[-1].legend(fontsize=SMALLEST, loc="center left", frameon=False,
                               bbox_to_anchor=(1 + (0.5 if alone else 0.1) / width, 0.5))  # fmt: skip
    return figure


def _write_means(axes: Axes) -> None:
    """Every mean as a number beside its row, in its own colour."""
    for line in axes.lines:
        if line.get_marker() in MARKERS:
            for value, row in zip(*line.get_data(), strict=True):
                if np.isfinite(value):
                    axes.text(1.02, row, drawable(f"{value:.2f}"), va="center", fontsize=SMALLEST,
                              color=line.get_color(), transform=axes.get_yaxis_transform())  # fmt: skip


def _alt(title: str, tables: Mapping[str, pd.DataFrame], by: str, group: str | None) -> str:
    """All numbers in words."""
    keys = [by, group] if group else [by]
    told = (
        f"{' '.join(map(str, [*panel, *row[keys]]))}: {row['mean']:.3f}, {row['low']:.3f} to {row['high']:.3f}"
        for name, table in tables.items()
        for panel in ([name] if len(tables) > 1 else [],)
        for _, row in table.iterrows()
    )
    return f"{title}. {'; '.join(told)}"


def _draw_intervals(
    axes: Axes,
    table: pd.DataFrame,
    by: str,
    group: str | None = None,
    *,
    order: Sequence | None = None,
    groups: Sequence | None = None,
    colour: str = PALETTE[0],
) -> None:
    """Means with their intervals by seaborn's `pointplot`, a row for each value of a column, the first one on top."""
    import seaborn  # slow to import, and most figures do without

    rows = list(dict.fromkeys(table[by]) if order is None else order)
    own: dict[str, Any] = {"color": colour, "markers": MARKERS[0]}
    if group:
        groups = list(dict.fromkeys(table[group]) if groups is None else groups)
        own = {"hue": group, "hue_order": groups, "palette": list(PALETTE[: len(groups)]), "legend": "full",
               "markers": list(MARKERS[: len(groups)]), "dodge": 0.26 * (len(groups) - 1)}  # fmt: skip
    # low, mean and high as three draws: their median is the mean, and they span the interval
    draws = table[table[by].isin(rows)].melt([by, *([group] if group else [])], ["low", "mean", "high"])
    seaborn.pointplot(
        draws, x="value", y=by, orient="h", order=rows, ax=axes,
        estimator="median", errorbar=("pi", 100), linestyle="none", markersize=5, err_kws={"linewidth": 2}, **own,
    )  # fmt: skip
    if legend := axes.get_legend():
        legend.remove()
