"""Intervals: estimates with their intervals, by seaborn.

table -> here -> a matplotlib figure
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from ..errors import GradeclipError
from .drawing import rounded
from .figures import FULL_WIDTH, PALETTE, SMALLEST_TYPE, fit_height, new_figure
from .titles import characters, shortened

_BOUNDS = ["low", "mean", "high"]
_MARKERS = ("o", "s", "D", "^")
_GREY = "0.6"
_INKS = tuple(np.multiply(to_rgb(colour), 0.65) for colour in PALETTE)  # of numbers, to be read
_DODGE = 0.42  # of a row, between the first and the last group


def plot_intervals(
    table,
    *,
    names: Sequence[str] | None = None,
    group: str | None = None,
    control: Sequence[str] = (),
    chance: float | None = None,
    chance_label: str = "chance",
    label: str = "",
    title: str = "",
    sort: bool = True,
) -> Figure:
    """Draw estimates with their intervals, one row each, the highest on top.

        plot_intervals(
            summarise(rows, by="method", value="pointing_game", cluster="image"), chance=0.25
        )

    A row whose interval is NaN has its point alone, and "undecided" in place of the number.

    Args:
        table: a DataFrame with the columns mean (or estimate), low and high, as
            `statistics.summarise` gives it.
        names: the names of the rows; by default the columns beside the numbers, or the index.
        group: a column whose values get a colour and a marker each; rows of one name share a line.
        control: names of reference rows; they are grey, below a rule.
        chance: the value of a guess; a dashed line.
        chance_label: the name of that line.
        label: what the values are, under the axis.
        title: what is measured, in one line.
        sort: highest first; False keeps the order of the table.

    Returns:
        The figure, which pyplot knows. A notebook shows it once.

    Raises:
        GradeclipError: the table lacks a column, has no row, too many groups, or an interval that
            does not hold its mean.
    """
    rows = _rows(table, names, group)
    rows["is_control"] = rows["name"].isin([str(name) for name in control])
    groups = list(dict.fromkeys(rows["group"]))
    if len(groups) > len(PALETTE):
        msg = f"plot_intervals draws at most {len(PALETTE)} groups, got {len(groups)}: {groups}"
        raise GradeclipError(msg)
    order = _order(rows, sort)

    figure = new_figure(FULL_WIDTH, 10, _alt(rows, title or label), layout="constrained")
    axes = figure.subplots()
    row_height = 0.27 + 0.13 * (len(groups) - 1)  # inches
    height = row_height * len(order)
    # The names of the groups stand above the axes and the name of the chance line.
    above = 0.03 if chance is None else 0.2
    _draw_points(axes, rows, order, groups, legend_at=1 + above / height)
    _draw_values(axes, rows, order, groups)
    _name_rows(axes, rows, order)
    axes.set_xlabel(label, fontsize=9, parse_math=False)
    if chance is not None:
        _draw_chance(axes, chance, chance_label)
    if title:
        text = shortened(title, characters(FULL_WIDTH - 0.2, 10.5))
        figure.suptitle(text, x=0.01, ha="left", fontsize=10.5, parse_math=False)
    fit_height(figure, [(axes, height)])
    return figure


def _rows(table: pd.DataFrame, names: Sequence[str] | None, group: str | None) -> pd.DataFrame:
    """The rows of a table of intervals: name, group, low, mean, high."""
    if "mean" not in table:
        table = table.rename(columns={"estimate": "mean"})
    missing = [name for name in (*_BOUNDS, group) if name and name not in table]
    if missing:
        msg = (
            f"the table has no column {missing[0]!r}; it has {', '.join(map(repr, table.columns))}"
        )
        raise GradeclipError(msg)
    if table.empty:
        raise GradeclipError("plot_intervals draws a row or more, and the table has none")
    if names is None:
        labels = table.drop(columns=[*_BOUNDS, "n", group], errors="ignore")
        names = table.index
        if len(labels.columns):
            names = labels.astype(str).agg(" ".join, axis=1)

    rows = table[_BOUNDS].astype(float).reset_index(drop=True)
    upside_down = rows[(rows["low"] > rows["mean"]) | (rows["mean"] > rows["high"])]
    if len(upside_down):
        row = ", ".join(f"{name} {value:g}" for name, value in upside_down.iloc[0].items())
        raise GradeclipError(f"an interval is a low, a mean and a high, in this order, got {row}")
    rows["name"] = [str(name) for name in names]
    rows["group"] = table[group].astype(str).to_numpy() if group else ""
    return rows


def _order(rows: pd.DataFrame, sort: bool) -> list[str]:
    """The names of the rows from the top: controls come last."""
    highest = rows.groupby("name", sort=False).agg({"mean": "max", "is_control": "first"})
    if sort:
        highest = highest.sort_values("mean", ascending=False, kind="stable")
    return list(highest.sort_values("is_control", kind="stable").index)


def _draw_points(
    axes: Axes,
    rows: pd.DataFrame,
    order: Sequence[str],
    groups: Sequence[str],
    legend_at: float,
) -> None:
    """Draw points and intervals. seaborn gets low, mean and high, whose median is the mean."""
    import seaborn as sns  # a second to import

    long = rows.melt(["name", "group", "is_control"], _BOUNDS, value_name="value")
    palettes = {False: PALETTE[: len(groups)], True: [_GREY] * len(groups)}
    for is_control, values in long.groupby("is_control"):
        sns.pointplot(
            values,
            x="value",
            y="name",
            hue="group",
            order=order,
            hue_order=groups,
            estimator="median",
            errorbar=("pi", 100),
            dodge=_DODGE if len(groups) > 1 else False,
            linestyle="none",
            palette=palettes[bool(is_control)],
            markers=list(_MARKERS[: len(groups)]),
            markersize=5.5,
            err_kws={"linewidth": 2},
            legend=not is_control and len(groups) > 1,
            ax=axes,
        )
    if axes.get_legend():
        look = {"frameon": False, "fontsize": 9, "handletextpad": 0.1, "borderaxespad": 0}
        place = {"loc": "lower left", "bbox_to_anchor": (0, legend_at)}
        sns.move_legend(axes, **place, **look, ncols=len(groups), title=None)


def _draw_values(
    axes: Axes,
    rows: pd.DataFrame,
    order: Sequence[str],
    groups: Sequence[str],
) -> None:
    """Write the means at the right edge."""
    offsets = np.linspace(-_DODGE / 2, _DODGE / 2, len(groups)) if len(groups) > 1 else [0.0]
    for row in rows.itertuples():
        kind = groups.index(row.group)
        is_decided = np.isfinite([row.low, row.mean, row.high]).all()
        axes.text(
            1.02,
            order.index(row.name) + offsets[kind],
            rounded(row.mean) if is_decided else "undecided",
            color=_GREY if row.is_control else _INKS[kind],
            va="center",
            fontsize=SMALLEST_TYPE,
            transform=axes.get_yaxis_transform(),
        )


def _name_rows(axes: Axes, rows: pd.DataFrame, order: Sequence[str]) -> None:
    """Name the rows, and draw a rule above the controls."""
    controls = set(rows.loc[rows["is_control"], "name"])
    axes.set(ylabel="", ylim=(len(order) - 0.5, -0.5))
    longest = characters(0.45 * FULL_WIDTH, 9)
    labels = [shortened(name, longest) for name in order]
    axes.set_yticks(range(len(order)), labels, fontsize=9, parse_math=False)
    for tick, name in zip(axes.get_yticklabels(), order, strict=True):
        tick.set_color("0.5" if name in controls else "black")
    axes.tick_params(labelsize=SMALLEST_TYPE, axis="x")
    axes.tick_params(length=0, axis="y")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)

    candidates = len(order) - len(controls & set(order))
    if 0 < candidates < len(order):
        axes.axhline(candidates - 0.5, color="0.8", linewidth=0.8)


def _draw_chance(axes: Axes, chance: float, text: str) -> None:
    """Draw the value of a guess as a dashed line with its name."""
    axes.axvline(chance, color="0.4", linestyle="--", linewidth=1, zorder=0)
    axes.annotate(
        text,
        (chance, 1),
        xycoords=axes.get_xaxis_transform(),
        xytext=(0, 2),
        textcoords="offset points",
        ha="center",
        va="bottom",
        color="0.35",
        fontsize=SMALLEST_TYPE,
        parse_math=False,
    )


def _alt(rows: pd.DataFrame, title: str) -> str:
    """The rows in words."""
    texts = []
    for row in rows.itertuples():
        name = f"{row.name} {row.group}".strip()
        texts.append(f"{name} {row.mean:.2f}, {row.low:.2f} to {row.high:.2f}")
    return f"{title}: {'; '.join(texts)}"
