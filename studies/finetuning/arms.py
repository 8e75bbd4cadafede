"""The arms of the fine-tuning experiment: what differs between them, the scenes they share, and the recipe of each.

    pilots' rows -> chosen -> the recipe of an arm;  rows of the experiment -> tidy -> figures

A rival at somebody else's learning rate is no rival. So every arm has the same pilots (`experiment.run_pilots`) and, by
one rule, the learning rate and the weight of the region loss at which *it* does best: on development scenes that the
table does not measure, the regions that are named by their masks, plus the single objects that zero-shot still names.

Hard negatives are made from the phrases of training captions, by exchanging attributes, and never say a colour of a
noun that is withheld from training; the pairs that binding is measured with come from development scenes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gradeclip_utils.checks import columns
from gradeclip_utils.files import data_path, read_csv
from gradeclip_utils.finetune.losses import GROUND_TRUTH, OTHER, UNIFORM, WORDS
from gradeclip_utils.finetune.pairs import Pair
from gradeclip_utils.finetune.run import Tuning
from gradeclip_utils.scenes import CANVAS, COLOURS, concepts, draw_scene, is_withheld_colour

from .evaluate import Amount

BEFORE, GLOBAL, OURS = "before", "global loss only", "grad-eclip"
# Where the pilots of every arm begin. By earlier ones of grad-eclip, one seed: regions named by their masks, and single
# objects that zero-shot still names, before .019 and .855; 1e-4 and 0.25 .059 and .832; 3e-4 and 0.25 .201 and .762.
PILOT = Tuning(steps=100, batch=32, learning_rate=3e-4, warmup=10, regions=0.25)
RATES, WEIGHTS = (1e-4, 3e-4, 1e-3), (0.1, 0.25, 1.0)
PILOT_AMOUNT = Amount(regions=150, whole=128, skip=300)
SEEDS, CONTROL_SEEDS = 5, 3
ARMS: dict[str, dict[str, Any] | None] = {
    BEFORE: None,
    GLOBAL: {"regions": 0.0},
    OURS: {},
    "grad-cam": {"maps": "grad-cam"},
    "maskclip": {"maps": "maskclip"},
    WORDS: {"maps": WORDS},
    "uniform map": {"maps": UNIFORM},
    "map of another image": {"maps": OTHER},
    "true mask": {"maps": GROUND_TRUTH},
    "grad-eclip without w": {"weighted": False},
    "grad-eclip, hard negatives": {"negatives": 2},
}
TABLE = "finetuning.csv"
TUNED_FOR, KEPT = "masks, top-1", "zero-shot, one object"
DECIDED = ("steps", "batch", "learning_rate", "regions")  # of the recipe, what is in the table
PARTS = ("estimate", "low", "high", "n", "chance")  # of a figure
ABOUT = ["arm", "seed", *DECIDED, "minutes", "cpu_minutes", "threads", "commit", "command"]


@dataclass(frozen=True)
class ScenePairs(Sequence[Pair]):
    """`n` training scenes as pairs, drawn when they are asked for; they know which pixels a phrase speaks of."""

    n: int

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> Pair:  # type: ignore[override]  # nobody asks for several at once
        if not 0 <= i < self.n:
            raise IndexError(f"there are {self.n} pairs, and number {i} was asked for")
        scene = draw_scene([70, i], split="train")
        return Pair(partial(scene.image, CANVAS), scene.caption, partial(_spoken_of, scene))


def _spoken_of(scene, start: int, end: int) -> np.ndarray | None:
    """The pixels (96, 96) of the objects that characters `start` to `end` of the scene's caption speak of."""
    objects = {i for span in scene.spans if span.start < end and span.end > start for i in span.objects}
    return scene.masks(CANVAS)[sorted(objects)].any(0) if objects else None


def allowed(text: str) -> bool:
    """Whether a hard negative names no colour of a noun that training must not show."""
    words = text.split()
    colours = [word for word in words if word in COLOURS]
    nouns = concepts()
    named = [row.noun for row in nouns.itertuples() if words[-1] in (row.noun, row.plural)]
    return not any(is_withheld_colour(noun, colour) for noun in named for colour in colours)


def plan(seeds: int = SEEDS) -> list[tuple[str, int]]:
    """Which arm and seed comes when: seed by seed, so that all arms are compared on the same ones as soon as can be."""
    after = [arm for arm in ARMS if arm != BEFORE]
    rows = [(arm, seed) for seed in range(seeds) for arm in after if arm in (GLOBAL, OURS) or seed < CONTROL_SEEDS]
    return [(BEFORE, 0), *rows]


def pilots_of(table: Path) -> Path:
    """The table of an experiment's pilots, which lies beside its own."""
    return table.with_name(f"{table.stem}_pilots.csv")


def with_changes(arm: str, tuning: Tuning) -> Tuning:
    """A recipe, with what makes the arm another one than `OURS`."""
    return replace(tuning, **(ARMS[arm] or {}))


def chosen(pilots: pd.DataFrame, arm: str, tuning: Tuning = PILOT) -> Tuning:
    """The recipe of an arm: that of its best pilot, by what it is tuned for plus what it should keep."""
    own = pilots[(pilots["arm"] == arm) & (pilots["steps"] == tuning.steps) & (pilots["batch"] == tuning.batch)]
    if len(own) and (tuning.learning_rate, tuning.regions) == (PILOT.learning_rate, PILOT.regions):
        best = own.loc[(own[f"{TUNED_FOR} | estimate"] + own[f"{KEPT} | estimate"]).idxmax()]
        tuning = replace(tuning, learning_rate=float(best["learning_rate"]), regions=float(best["regions"]))
    return with_changes(arm, tuning)


def read(table: Path | None = None) -> pd.DataFrame:
    """The table as it is, one row an arm and seed; empty if nothing was run yet."""
    table = data_path(TABLE) if table is None else table
    found = read_csv(table) if table.is_file() else pd.DataFrame(columns=ABOUT)
    columns(found, ("arm", "seed"))
    return found


def read_pilots(table: Path | None = None) -> pd.DataFrame:
    """The pilots beside a table of the experiment, one row a trial; empty if there are none."""
    return read(pilots_of(data_path(TABLE) if table is None else table))


def tidy(rows: pd.DataFrame) -> pd.DataFrame:
    """One row an arm, seed and figure: arm, seed, figure, estimate, low, high, n, chance."""
    names = [name.removesuffix(" | estimate") for name in rows.columns if name.endswith(" | estimate")]
    found = [
        {"arm": row["arm"], "seed": row["seed"], "figure": name} | {part: row[f"{name} | {part}"] for part in PARTS}
        for row in rows.to_dict("records")
        for name in names
    ]
    return pd.DataFrame(found, columns=["arm", "seed", "figure", *PARTS])
