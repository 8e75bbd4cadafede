"""Summaries: the main figures of each study for one model, one row a figure, so that any two models compare.

    clip -> tables of a study -> study, figure, value, low, high (95 % interval), n

Another model is measured by the same call.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from gradeclip_utils.explain import Explainer
from gradeclip_utils.models import Clip
from gradeclip_utils.scenes import draw_scene

from .matching import figures as matching
from .matching.adjectives import adjective_shift, colour_pairs
from .matching.composition import caption_changes, noun_pairs, span_fractions, two_colour_scenes
from .matching.map_sums import map_sums
from .matching.wording import leave_one_out_agreement, own_region_hits, word_fractions
from .tables import as_figures, gained

Figures = dict[str, "np.ndarray | pd.Series"]  # by name, what each is the mean of


def matching_summary(clip: Clip, n: int = 40, *, part: str | None = None) -> pd.DataFrame:
    """The main figures of the study of matching."""
    explainer, tables = Explainer(clip), []
    if part in matching.PARTS:
        return as_figures("matching", matching.PARTS[part](explainer, n))
    for name, measured in _MATCHING.items():
        if part in (None, name):
            tables += [gained(figure, values) for figure, values in measured(explainer, n).items()]
    return as_figures("matching", tables)


def _adjectives(explainer: Explainer, n: int) -> Figures:
    table = adjective_shift(explainer, colour_pairs(2 * n))
    tinted, plain = (table[table["second"] == one] for one in ("another colour", "its own colours"))
    return {
        "moved by the adjective": _picked(tinted, "moved", prompt="its colour"),
        "moved by the adjective of the other": _picked(tinted, "moved", prompt="the other's colour"),
        "moved by a colour of neither": _picked(tinted, "moved", prompt="a colour of neither"),
        "moved by a colour of neither, other untinted": _picked(plain, "moved", prompt="a colour of neither"),
    }


def _spans(explainer: Explainer, n: int) -> Figures:
    table = span_fractions(explainer, noun_pairs(3 * n))
    removed = table[table["mean_prompt"] == "removed"]
    return {
        "A and B in the span of its parts": _picked(removed, "fraction", case="and", parts="own"),
        "A and B in the span of foreign parts": _picked(removed, "fraction", case="and", parts="foreign"),
        "weight of B in A and no B": _picked(removed, "second", case="and no", parts="own"),
    }


def _sums(explainer: Explainer, n: int) -> Figures:
    table = map_sums(explainer, noun_pairs(3 * n)[:n])
    gap = table[table["case"] == "A and B"].pivot(index=["image", "display"], columns="parts", values="alike")
    gap = (gap["own"] - gap["foreign"]).unstack("display")
    return {f"map sum, own minus foreign: {display}": gap[display] for display in ("signed", "relu, normalised")}


def _changes(explainer: Explainer, n: int) -> Figures:
    table = caption_changes(explainer, two_colour_scenes(2 * n))
    return {"relation preferred to its opposite": _picked(table, "wins", change="relation turned round")}


def _words(explainer: Explainer, n: int) -> Figures:
    table = word_fractions(explainer, [draw_scene([73, i], split="development") for i in range(2 * n)])
    return {"word score and leave-one-out effect, rank correlation": leave_one_out_agreement(table)}


def _own_regions(explainer: Explainer, n: int) -> Figures:
    table = own_region_hits(explainer, two_colour_scenes(n))
    hit = table[~table["centred"]].groupby(["image", "kind"])["hit"].mean().unstack()
    return {"colour word answers to its own thing": hit["colour"]}


_MATCHING: dict[str, Callable[[Explainer, int], Figures]] = {  # by part
    "adjective": _adjectives, "spans": _spans, "sums": _sums, "changes": _changes, "words": _words,
    "own region": _own_regions,
}  # fmt: skip


def _picked(rows: pd.DataFrame, column: str, **where: str) -> np.ndarray:
    """A column of the rows in which other columns have these values."""
    for name, wanted in where.items():
        rows = rows[rows[name] == wanted]
    return rows[column].to_numpy()
