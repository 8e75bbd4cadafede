"""Figures: which methods the studies of methods compare, on which scenes, and how rows become a table of figures.

    one row an image and method --evaluation.statistics--> means, differences, rankings --here--> figure, value ...

Below all modules that measure methods: `methods_compared`, `ablations`, `protocols`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import numpy as np
import pandas as pd

from ..datasets import Example, emoji_scenes
from ..evaluation.maps import available, possible
from ..evaluation.resampling import DRAWS
from ..evaluation.statistics import paired, spearman
from ..methods import METHODS
from ..models import Clip
from ..notices import warn
from ..scenes import arrange
from ..towers import UnsupportedModel
from .command import COLUMNS

COSTLY = ("m2ib", "rise", "integrated-gradients", "fixlip")  # each a part of its own of the studies of methods
AS_PUBLISHED = "Grad-ECLIP as published"  # through the last layer alone


def title_of(name: str) -> str:
    """What tables of one layer call a method.

    Args:
        name: in `METHODS`.
    """
    return AS_PUBLISHED if name == "grad-eclip" else METHODS[name].title


def through(layers: int | None) -> str:
    """What tables call Grad-ECLIP through several layers.

    Args:
        layers: of the image; None is one.
    """
    return f"Grad-ECLIP, image layers: {layers or 1}"


def named_examples(n: int) -> list[Example]:
    """Development scenes of two different things, of which one is asked for by its bare name.

    Args:
        n: how many.
    """
    for scenes in count(3 * n, n):  # about half of them will do
        drawn = [one for one in emoji_scenes("development", scenes, n_objects=2) if len(one.present) == 2]
        if len(found := [one for one in drawn if one.prompt == arrange([one.concept]).caption]) >= n:
            break
    return found[:n]


def names_of(clip: Clip, part: str) -> Sequence[str]:
    """The methods of a part that a model can have; none, with a warning, if it can have none.

    Args:
        clip: the model.
        part: the name of a method; anything else is all quick methods.
    """
    try:
        return available(clip, [part] if part in METHODS else [one for one in possible() if one not in COSTLY])
    except UnsupportedModel as refusal:
        warn(f"there is no part {part!r} of this model: {refusal}", "method-left-out")
        return ()


def ahead_of(rows: pd.DataFrame, measure: str, *, cluster: str | None = None, less: bool = False) -> pd.DataFrame:
    """How far Grad-ECLIP as published is ahead of each other method: `paired`, with the sign turned round.

    Args:
        rows: one row an image and method, or several.
        measure: the column that is compared.
        cluster: as for `paired`.
        less: whether less is better, as in deletion.
    """
    ahead = paired(rows, measure, baseline=AS_PUBLISHED, cluster=cluster)
    if not less:
        ahead[["difference", "low", "high"]] = -ahead[["difference", "high", "low"]].to_numpy()
    return ahead


def beyond(
    rows: pd.DataFrame, one: str, than: str, figure: str, value: str = "value", cluster: str | None = None
) -> pd.DataFrame:
    """How far one method is beyond another, image by image, in one row.

    Args:
        rows: one row an image and method, or several.
        one: the method.
        than: the other.
        figure: what it is called.
        value: the column that is compared.
        cluster: as for `paired`.
    """
    both = rows[rows["method"].isin([one, than])]
    return paired(both, value, baseline=than, cluster=cluster).assign(figure=figure)


def same_ranking(figure: str, value: str, *both: pd.DataFrame) -> pd.DataFrame:
    """Rank correlation of the methods' means in two tables of the same images, in one row.

    Args:
        figure: what it is called.
        value: the column of which means are taken.
        *both: two tables of one row an image and method. Images are drawn again for the interval.
    """
    one, other = (rows.pivot(index="image", columns="method", values=value).to_numpy() for rows in both)
    picks = np.random.default_rng(0).integers(0, len(one), (DRAWS, len(one)))
    low, high = np.percentile(spearman(one[picks].mean(1), other[picks].mean(1)), [2.5, 97.5])
    alike = float(spearman(one.mean(0), other.mean(0)))
    return pd.DataFrame([{"figure": figure, "value": alike, "low": low, "high": high, "n": len(one)}])


def as_figures(study: str, tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables of `summarise` or `correlate` by figure, one below the other.

    Args:
        study: what they belong to.
        tables: with a column "figure"; none is a table without rows.
    """
    told = [table.rename(columns={"mean": "value", "difference": "value"}) for table in tables]
    table = pd.concat(told or [pd.DataFrame(columns=COLUMNS)], ignore_index=True)
    return table.assign(study=study)[COLUMNS]
