"""Tables: what a lesson shows, number by number as figures of a study: named, with a 95 % interval and n."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import Formatter

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ..evaluation.statistics import difference_interval, interval, summarise
from ..evaluation.verdicts import Takeaways
from ..files import data_path

TABLE = "lessons.csv"


def told(figure: str, rows: pd.DataFrame, value: str | Sequence[str], **options) -> pd.DataFrame:
    """The means of every group of rows, as `summarise` gives them, with the name of each in a column "figure".

    >>> rows = pd.DataFrame({"image": [0, 1], "kind": "colour", "right": [0.0, 1.0]})
    >>> told("right, {kind}", rows, "right")["figure"].tolist()
    ['right, colour']

    Args:
        figure: its name; the columns that make the groups stand in braces, "measure" for the name of a value.
        rows: as for `summarise`.
        value: the column to average, or several.
        **options: as for `summarise`.
    """
    groups = [name for _, name, _, _ in Formatter().parse(figure) if name and name != "measure"]
    table = summarise(rows.assign(figure=figure), value, groups or "figure", **options)
    return table.assign(figure=[figure.format(**row) for row in table.to_dict("records")])


def gained(figure: str, values: ArrayLike, than: ArrayLike = 0.0, clusters: Sequence | None = None) -> pd.DataFrame:
    """One row: how far values lie above something on average, as `Takeaways.judge` has it.

    Args:
        figure: its name; where a lesson judges it, the claim.
        values: (n,), one a unit.
        than: a number that is known, or (n,).
        clusters: as for `statistics.interval`.
    """
    values, than = np.asarray(values, float), np.asarray(than, float)
    low, high = difference_interval(values, than, clusters) if than.ndim else interval(values, clusters) - than
    return pd.DataFrame([{"figure": figure, "value": (values - than).mean(), "low": low, "high": high,
                          "n": len(values)}])  # fmt: skip


def beside_kept(takeaways: Takeaways, study: str, model: str, names: Mapping[str, str] | None = None) -> str:
    """How far the claims of a lesson lie from what the command of its study wrote into `TABLE`, in one sentence.

    Args:
        takeaways: what the lesson judged.
        study: the name of the study.
        model: what the lesson asked; of another one than the bundled models the table has nothing.
        names: claim -> figure, where a figure has another name than the claim.
    """
    command = f"`python -m gradeclip_utils study {study}`"
    rows = pd.read_csv(data_path(TABLE)).query("study == @study")
    kept = rows[rows["model"] == model].set_index("figure")["value"].to_dict()
    found = ((one, (names or {}).get(one.claim, one.claim)) for one in takeaways.verdicts)
    apart = [abs(one.estimate - kept[name]) for one, name in found if name in kept]
    if not apart:
        return f"{command} --model ... writes the same figures of {model} into a table"
    told = f"{len(apart)} of the {len(takeaways.verdicts)} claims and {len(kept) - len(apart)} more figures of {model}"
    return f"{told} are in data/{TABLE}, as {command} wrote them; the claims lie within {max(*apart, 1e-4):.0e} of it"
