"""The arms of the fine-tuning experiment, the scenes they share, and the table of their figures.

An *arm* fine-tunes the bundled model on the same training scenes, with as many steps, and another
map. The learning rate and the weight of the region loss are chosen for each arm by itself
(`experiment.choose`), because a control with the rate of another arm is a weak control. One that
names its own is not searched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.stats.weightstats import DescrStatsW

from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.files import data_path
from gradeclip_utils.scenes import CANVAS, Scene, draw_scene
from studies.finetuning.losses import GROUND_TRUTH, OTHER, UNIFORM, WORDS
from studies.finetuning.pairs import Pair
from studies.finetuning.run import Tuning

BEFORE, GLOBAL, OURS = "before", "global loss only", "grad-eclip"
GLOBAL_AS_OURS = "global loss only, rate 3e-4"  # the learning rate of grad-eclip: what does its region loss cost?
ARMS: dict[str, dict[str, Any] | None] = {
    BEFORE: None,
    GLOBAL: {"regions": 0.0},
    OURS: {},
    "grad-eclip without w": {"weighted": False},
    WORDS: {"maps": WORDS},
    "uniform map": {"maps": UNIFORM},
    "map of another image": {"maps": OTHER},
    "true mask": {"maps": GROUND_TRUTH},
    GLOBAL_AS_OURS: {"regions": 0.0, "learning_rate": 3e-4},
}
RECIPE = Tuning(steps=100, batch=32, learning_rate=3e-4, warmup=10, regions=0.25)
TUNED_FOR, KEPT = "masks, top-1", "zero-shot, one object"  # the search maximises their sum
TABLE, PILOTS = "finetuning.csv", "finetuning_pilots.csv"
COLUMNS = [
    "arm",
    "seed",
    "learning_rate",
    "regions",
    "steps",
    "figure",
    "estimate",
    "low",
    "high",
    "n",
    "chance",
    "cpu_minutes",
    "weights",
]


@dataclass(frozen=True)
class ScenePairs(Sequence[Pair]):
    """`n` training scenes as pairs, drawn one by one; they know which pixels a phrase describes."""

    n: int

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> Pair:  # type: ignore[override]  # one at a time
        if not 0 <= i < self.n:
            raise IndexError(f"there are {self.n} pairs, got number {i}")
        scene = draw_scene([70, i], split="train")
        return Pair(partial(scene.image, CANVAS), scene.caption, partial(_described, scene))


def _described(scene: Scene, start: int, end: int) -> np.ndarray | None:
    """The pixels (96, 96) of the objects that characters `start` to `end` of the scene's caption describe."""
    objects = {
        i for span in scene.spans if span.start < end and span.end > start for i in span.objects
    }
    return scene.masks(CANVAS)[sorted(objects)].any(0) if objects else None


def read(table: Path | None = None) -> pd.DataFrame:
    """The table, one row per arm, seed and figure; `weights` tells the model that the arms began from."""
    table = data_path(TABLE) if table is None else table
    try:
        found = pd.read_csv(table) if table.is_file() else pd.DataFrame(columns=COLUMNS)
    except ValueError as error:  # pandas' own errors are of this kind
        raise GradeclipError(f"{table} cannot be read as a table: {error}") from error
    if not set(COLUMNS) <= set(found):
        raise GradeclipError(
            f"{table} is not a table of this experiment: it has the columns {', '.join(found)}"
        )
    return found


def compare(
    rows: pd.DataFrame, arm: str, baseline: str, figure: str = TUNED_FOR
) -> dict[str, float]:
    """Mean difference of two arms over the seeds that both have: difference, low, high (Student, 95 %), n.

    The model before fine-tuning is the same for every seed.
    """
    own = rows[rows["figure"] == figure].pivot_table(index="seed", columns="arm", values="estimate")
    start = own[BEFORE].dropna().iloc[0] if BEFORE in own else np.nan
    differences = (own[arm] - (start if baseline == BEFORE else own[baseline])).dropna()
    low, high = DescrStatsW(differences).tconfint_mean()
    return {"difference": differences.mean(), "low": low, "high": high, "n": len(differences)}


def means(rows: pd.DataFrame, figure: str = TUNED_FOR) -> pd.DataFrame:
    """The mean of each arm over its seeds with Student's 95 % interval, the highest first: mean, low, high, seeds."""
    found = {}
    for arm, own in rows[rows["figure"] == figure].groupby("arm", sort=False):
        values = own["estimate"]
        low, high = (
            DescrStatsW(values).tconfint_mean() if len(values) > 1 else own[["low", "high"]].iloc[0]
        )
        found[arm] = {"mean": values.mean(), "low": low, "high": high, "seeds": len(values)}
    return pd.DataFrame(found).T.sort_values("mean", ascending=False)
