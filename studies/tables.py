"""Tables: rows that were measured, as figures of a study: named, with a 95 % interval and n.

    one row an image and method --evaluation.statistics--> means, differences, rankings --here--> figure, value ...

Below all studies. For those of methods (`methods_compared`, `ablations`, `protocols`) it also says which methods they
compare, on which scenes; and for lessons, how far their claims lie from the figures that a command kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from string import Formatter

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from gradeclip_utils.datasets import Example, emoji_scenes
from gradeclip_utils.files import data_path
from gradeclip_utils.measures.evaluation import available, possible
from gradeclip_utils.measures.sanity import cost
from gradeclip_utils.measures.statistics import DRAWS, paired, spearman, summarise
from gradeclip_utils.methods import METHODS
from gradeclip_utils.models import Clip
from gradeclip_utils.notices import warn
from gradeclip_utils.scenes import arrange
from gradeclip_utils.towers import Tower, UnsupportedModel
from gradeclip_utils.towers.base import is_small

from .command import COLUMNS
from .verdicts import Takeaways

TABLE = "lessons.csv"
COSTLY = ("m2ib", "rise", "integrated-gradients", "fixlip")  # each a part of its own of the studies of methods
AS_PUBLISHED = "Grad-ECLIP as published"  # through the last layer alone
ROUNDS = 6  # of the clock: the smallest and the largest of six hold the median at more than 95 % (order statistics)


def title_of(name: str) -> str:
    """What tables of one layer call a method."""
    return AS_PUBLISHED if name == "grad-eclip" else METHODS[name].title


def through(layers: int | None) -> str:
    """What tables call Grad-ECLIP through several layers."""
    return f"Grad-ECLIP, image layers: {layers or 1}"


def named_examples(n: int) -> list[Example]:
    """Development scenes of two different things, of which one is asked for by its bare name."""
    for scenes in count(3 * n, n):  # about half of them will do
        drawn = [one for one in emoji_scenes("development", scenes, n_objects=2) if len(one.present) == 2]
        if len(found := [one for one in drawn if one.prompt == arrange([one.concept]).caption]) >= n:
            break
    return found[:n]


def names_of(clip: Clip, part: str) -> Sequence[str]:
    """The methods of a part that a model can have; none, with a warning, if it can have none."""
    try:
        return available(clip, [part] if part in METHODS else [one for one in possible() if one not in COSTLY])
    except UnsupportedModel as refusal:
        warn(f"there is no part {part!r} of this model: {refusal}")
        return ()


def told(figure: str, rows: pd.DataFrame, value: str | Sequence[str], **options) -> pd.DataFrame:
    """The means of every group of rows, as `summarise` gives them, with the name of each in a column "figure"."""
    groups = [name for _, name, _, _ in Formatter().parse(figure) if name and name in rows]
    return _named(figure, summarise(rows.assign(figure=figure), value, groups or "figure", **options))


def compared(figure: str, rows: pd.DataFrame, value: str, **options) -> pd.DataFrame:
    """How far every method is beyond the baseline, as `paired` gives it, with the name of each in a column "figure"."""
    return _named(figure, paired(rows, value, **options))


def _named(figure: str, table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(figure=[figure.format(**row) for row in table.to_dict("records")])


def ahead_of(figure: str, rows: pd.DataFrame, value: str, *, less: bool = False, **options) -> pd.DataFrame:
    """How far Grad-ECLIP as published is ahead of each other method: `compared`, with the sign turned round."""
    ahead = compared(figure, rows, value, baseline=AS_PUBLISHED, **options)
    if not less:
        ahead[["difference", "low", "high"]] = -ahead[["difference", "high", "low"]].to_numpy()
    return ahead


def beyond(
    rows: pd.DataFrame, one: str, than: str, figure: str, value: str = "value", cluster: str | None = None
) -> pd.DataFrame:
    """How far one method is beyond another, image by image, in one row."""
    return compared(figure, rows[rows["method"].isin([one, than])], value, baseline=than, cluster=cluster)


def gained(figure: str, values: ArrayLike, than: ArrayLike = 0.0, clusters: Sequence | None = None) -> pd.DataFrame:
    """One row: how far values lie above something on average, as `Takeaways.judge` has it."""
    one = Takeaways().judge(figure, values, than, clusters=clusters)
    return pd.DataFrame([{"figure": figure, "value": one.estimate, "low": one.low, "high": one.high, "n": one.n}])


def forward_passes(
    figure: str, calls: Mapping[str, Callable[[], object]], plain: Callable[[], object], tower: Tower
) -> pd.DataFrame:
    """What calls cost in forward passes: the median of `ROUNDS`, with the smallest and the largest."""
    table = cost(calls, plain, repeats=ROUNDS, small=is_small(tower)).rename(columns={"passes": "value"})
    return _named(figure, table.assign(n=ROUNDS))


def same_ranking(figure: str, value: str, *both: pd.DataFrame) -> pd.DataFrame:
    """Rank correlation of the methods' means in two tables of the same images, in one row."""
    one, other = (rows.pivot(index="image", columns="method", values=value).to_numpy() for rows in both)
    picks = np.random.default_rng(0).integers(0, len(one), (DRAWS, len(one)))
    low, high = np.percentile(spearman(one[picks].mean(1), other[picks].mean(1)), [2.5, 97.5])
    alike = float(spearman(one.mean(0), other.mean(0)))
    return pd.DataFrame([{"figure": figure, "value": alike, "low": low, "high": high, "n": len(one)}])


def as_figures(study: str, tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables of `summarise` or `correlate` by figure, one below the other."""
    told = [table.rename(columns={"mean": "value", "difference": "value"}) for table in tables]
    table = pd.concat(told or [pd.DataFrame(columns=COLUMNS)], ignore_index=True)
    return table.assign(study=study)[COLUMNS]


def beside_kept(takeaways: Takeaways, study: str, model: str, names: Mapping[str, str] | None = None) -> str:
    """How far the claims of a lesson lie from what the command of its study wrote into `TABLE`, in one sentence."""
    command = f"`python -m gradeclip_utils study {study}`"
    rows = pd.read_csv(data_path(TABLE)).query("study == @study")
    kept = rows[rows["model"] == model].set_index("figure")["value"].to_dict()
    found = ((one, (names or {}).get(one.claim, one.claim)) for one in takeaways.verdicts)
    apart = [abs(one.estimate - kept[name]) for one, name in found if name in kept]
    if not apart:
        return f"{command} --model ... writes the same figures of {model} into a table"
    told = f"{len(apart)} of the {len(takeaways.verdicts)} claims and {len(kept) - len(apart)} more figures of {model}"
    return f"{told} are in data/{TABLE}, as {command} wrote them; the claims lie within {max(*apart, 1e-4):.0e} of it"
