"""Tables: rows that were measured, as named figures with a 95 % interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from string import Formatter

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from gradeclip_utils.measures.sanity import cost
from gradeclip_utils.measures.statistics import difference_interval, summarise
from gradeclip_utils.towers import Tower
from gradeclip_utils.towers.base import is_small

ROUNDS = 6  # of the clock


def told(figure: str, rows: pd.DataFrame, value: str | Sequence[str], **options) -> pd.DataFrame:
    """Return the means of every group of rows, with the name of each in a column "figure"."""
    groups = [name for _, name, _, _ in Formatter().parse(figure) if name and name in rows]
    return _named(figure, summarise(rows.assign(figure=figure), value, groups or "figure", **options))


def gained(figure: str, values: ArrayLike, than: ArrayLike = 0.0, clusters: Sequence | None = None) -> pd.DataFrame:
    """Return one row: how far values lie above something on average."""
    values, than = np.broadcast_arrays(np.asarray(values, float), np.asarray(than, float))
    low, high = difference_interval(values, than, clusters)
    value = float((values - than).mean())
    return pd.DataFrame([{"figure": figure, "value": value, "low": low, "high": high, "n": len(values)}])


def forward_passes(
    figure: str, calls: Mapping[str, Callable[[], object]], plain: Callable[[], object], tower: Tower
) -> pd.DataFrame:
    """Return what calls cost in forward passes: the median of `ROUNDS`, with the smallest and the largest."""
    table = cost(calls, plain, repeats=ROUNDS, small=is_small(tower)).rename(columns={"passes": "value"})
    return _named(figure, table.assign(n=ROUNDS))


def _named(figure: str, table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(figure=[figure.format(**row) for row in table.to_dict("records")])
