"""The arms of the fine-tuning experiment, the scenes they share, and the table of their figures.

An *arm* fine-tunes the bundled model on the same training scenes, with as many steps, and another
map. The learning rate and the weight of the region loss are chosen for each arm by itself
(`experiment.choose`), because a control with the rate of another arm is a weak control. `RECIPE_OF`
names those that have the recipe of another arm all the same.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.stats.weightstats import DescrStatsW

from gradeclip_utils.files import data_path
from gradeclip_utils.scenes import CANVAS, Scene, concepts, draw_scene, phrase

from .losses import GROUND_TRUTH, OTHER, UNIFORM, WORDS
from .pairs import Pair, noun_phrases
from .run import Tuning

START = "emoji"  # whose weights all arms begin from
BEFORE = "before"
GLOBAL = "global loss only"
OURS = "grad-eclip"
GLOBAL_AS_OURS = "global loss only, same rate"  # what does the region loss of grad-eclip cost?
ARMS: dict[str, dict[str, Any] | None] = {
    BEFORE: None,
    GLOBAL: {"regions": 0.0},
    OURS: {},
    "grad-eclip without w": {"weighted": False},
    WORDS: {"maps": WORDS},
    "uniform map": {"maps": UNIFORM},
    "map of another image": {"maps": OTHER},
    "true mask": {"maps": GROUND_TRUTH},
    GLOBAL_AS_OURS: {"regions": 0.0},
    "grad-cam": {"maps": "grad-cam"},
    "game": {"maps": "game"},
    "maskclip": {"maps": "maskclip"},
    "grad-eclip, false phrases": {},
    "grad-eclip without w, false phrases": {"weighted": False},
}
FALSE_PHRASES = ("grad-eclip, false phrases", "grad-eclip without w, false phrases")
# not searched
RECIPE_OF = {
    "grad-eclip without w": OURS,  # differs by w alone; the recipe was found with w
    GLOBAL_AS_OURS: OURS,  # differs by the region loss alone
    "true mask": OURS,  # a reference: at least so much is possible
    "game": OURS,  # a search would take too long
    **dict.fromkeys(FALSE_PHRASES, OURS),  # differ by their captions
}
FALSE_PART = 0.3  # of the phrases of these arms, what is not in the image
# the search for recipes begins with this one
RECIPE = Tuning(steps=100, batch=32, learning_rate=1e-4, warmup=10, regions=0.25)

# the search for recipes maximises the sum of these two figures
TUNED_FOR = "masks, top-1"
RECOGNISED = "zero-shot, one object"

TABLE = "finetuning.csv"
PILOTS = "finetuning_pilots.csv"
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
class ScenePairs:
    """`n` training scenes as pairs, drawn one by one; they know which pixels a phrase describes.

    `false_part` of the phrases, on average, name a thing that the image does not show.
    """

    n: int
    false_part: float = 0.0

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> Pair:
        if not 0 <= i < self.n:
            raise IndexError(f"there are {self.n} pairs, got number {i}")
        scene = draw_scene([70, i], split="train")
        caption = scene.caption
        if self.false_part:
            rng = np.random.default_rng([71, i])
            caption = with_false_phrases(scene, self.false_part, rng)
        return Pair(
            partial(scene.image, CANVAS),
            caption,
            partial(described_mask, scene),
        )


def with_false_phrases(scene: Scene, part: float, rng: np.random.Generator) -> str:
    """A scene's caption and, behind it, names of things that are not there."""
    true_phrases = len(noun_phrases(scene.caption))
    # so many false ones a true one that they are this part of both
    count = int(rng.binomial(max(true_phrases, 1), part / (1 - part)))
    present = {thing.noun for thing in scene.objects}
    absent = [noun for noun in concepts().index if noun not in present]
    false_phrases = [phrase(str(noun)) for noun in rng.choice(absent, count, replace=False)]
    return " and ".join([scene.caption, *false_phrases])


def described_mask(scene: Scene, start: int, end: int) -> np.ndarray | None:
    """The pixels (96, 96) of the objects that characters `start` to `end` of a caption describe."""
    objects: set[int] = set()
    for span in scene.spans_of(start, end):
        objects.update(span.objects)
    if not objects:
        return None
    return scene.masks(CANVAS)[sorted(objects)].max(0)


def read(table: Path | None = None) -> pd.DataFrame:
    """The table: a row per arm, seed and figure; `weights` says which model the arms began from."""
    if table is None:
        table = data_path(TABLE)
    if not table.is_file():
        return pd.DataFrame(columns=COLUMNS)
    return pd.read_csv(table)


def compare(
    rows: pd.DataFrame,
    arm: str,
    baseline: str,
    figure: str = TUNED_FOR,
) -> dict[str, float]:
    """Mean difference of two arms over their common seeds: difference, low, high (95 %), n.

    The interval is Student's. The model before fine-tuning is the same for every seed.
    """
    estimates = rows[rows["figure"] == figure].pivot_table("estimate", index="seed", columns="arm")
    baseline_estimates = estimates[baseline]
    if baseline == BEFORE:
        baseline_estimates = baseline_estimates.dropna().iloc[0]

    differences = (estimates[arm] - baseline_estimates).dropna()
    low, high = DescrStatsW(differences).tconfint_mean()
    return {
        "difference": differences.mean(),
        "low": low,
        "high": high,
        "n": len(differences),
    }


def means(rows: pd.DataFrame, figure: str = TUNED_FOR) -> pd.DataFrame:
    """The mean of each arm over its seeds, the highest first: mean, low, high (95 %), seeds.

    The interval is Student's; an arm of one seed has that of its scenes.
    """
    table = {}
    rows = rows[rows["figure"] == figure]
    for arm, seeds in rows.groupby("arm", sort=False):
        estimates = seeds["estimate"]
        low, high = seeds[["low", "high"]].iloc[0]
        if len(estimates) > 1:
            low, high = DescrStatsW(estimates).tconfint_mean()

        table[arm] = {
            "mean": estimates.mean(),
            "low": low,
            "high": high,
            "seeds": len(estimates),
        }
    return pd.DataFrame(table).T.sort_values("mean", ascending=False)
