"""The fine-tuning experiment: what do Grad-ECLIP maps teach, beside other maps and true masks?

    # the recipe of each arm, into data/finetuning_pilots.csv
    python -m studies.finetuning.experiment --pilots
    # all arms, into data/finetuning.csv
    python -m studies.finetuning.experiment --seeds 8

Both tables say which weights their arms began from, and are refused for others.

Both go on where they were stopped: rows in the table are not measured again, and a training that
was cut short goes on from its last state in --runs. A training takes about two minutes of one core,
its figures one more. A seed decides the order of the scenes; the scenes are the same for all.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd

from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.files import data_path, weights_digest, write_whole
from gradeclip_utils.models import Clip, load_clip

from .arms import (
    ARMS,
    BEFORE,
    COLUMNS,
    FALSE_PART,
    FALSE_PHRASES,
    GLOBAL,
    PILOTS,
    RECIPE,
    RECIPE_OF,
    RECOGNISED,
    START,
    TABLE,
    TUNED_FOR,
    ScenePairs,
    read,
)
from .evaluate import AMOUNT, PILOT, Amount, measure
from .run import Tuning, fine_tune

RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
WEIGHTS = (0.025, 0.1, 0.25, 1.0, 2.5, 10.0)
MODEL = "tuned.safetensors"
RECIPE_COLUMNS = ["learning_rate", "regions", "steps"]


def run(table: Path, runs: Path, recipes: dict[str, Tuning], seeds: Iterable[int]) -> None:
    """Add the rows of all arms and seeds that the table lacks, seed by seed."""
    require_present_start(table)
    for seed in seeds:
        for arm, recipe in recipes.items():
            rows = read(table)
            rows = rows[rows["arm"] == arm]
            values = {name: getattr(recipe, name) for name in RECIPE_COLUMNS}
            differs = rows[RECIPE_COLUMNS] != pd.Series(values)
            if arm != BEFORE and differs.any(axis=None):
                raise GradeclipError(
                    f"{table} holds {arm!r} by another recipe than {values}: choose another --table"
                )

            measured = (rows["seed"] == seed).any()
            if measured or (arm == BEFORE and seed > 0):
                continue
            add_rows(table, runs, arm, replace(recipe, seed=seed), AMOUNT)


def require_present_start(table: Path) -> None:
    """Refuse a table of arms that began from other weights."""
    weights = weights_digest(load_clip(START).model)
    if set(read(table)["weights"]) - {weights}:
        raise GradeclipError(
            f"{table} holds arms of a different `{START}`: move it away, or delete it"
        )


def add_rows(
    table: Path,
    runs: Path,
    arm: str,
    recipe: Tuning,
    amount: Amount,
    only: Sequence[str] = (),
) -> pd.DataFrame:
    """Train an arm, or go on with its training, measure it, and append its rows to the table."""
    print(
        f"{arm}, seed {recipe.seed}, learning rate {recipe.learning_rate:g}, "
        f"weight {recipe.regions:g}",
        flush=True,
    )
    clip, minutes = tune(arm, recipe, runs)
    rows = measure(clip, amount, only=only).round(5)
    rows = rows.assign(
        arm=arm,
        seed=recipe.seed,
        learning_rate=recipe.learning_rate,
        regions=recipe.regions,
        steps=recipe.steps,
        cpu_minutes=round(minutes, 2),
        weights=weights_digest(load_clip(START).model),
    )[COLUMNS]

    whole = rows
    if table.is_file():
        whole = pd.concat([read(table), rows], ignore_index=True)
    write_whole({table: whole.to_csv(index=False).encode()})
    return rows


def folder_of(arm: str, recipe: Tuning, runs: Path, clip: Clip) -> Path:
    """The folder of one training, named after everything that tells it from another."""
    name = f"{arm.replace(' ', '-')}-{recipe.seed}-{recipe.learning_rate:g}-{recipe.regions:g}"
    return runs / f"{name}-{recipe.steps}x{recipe.batch}-{weights_digest(clip.model)}"


def tune(arm: str, recipe: Tuning, runs: Path) -> tuple[Clip, float]:
    """The model of an arm as it would be shipped, and the CPU minutes of its training."""
    clip = load_clip(START)
    if ARMS[arm] is None:
        return clip, 0.0

    folder = folder_of(arm, recipe, runs, clip)
    file = folder / MODEL
    log_file = folder / "log.csv"
    if not log_file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint = folder / "state.pt"
        false_part = FALSE_PART if arm in FALSE_PHRASES else 0.0
        pairs = ScenePairs(recipe.steps * recipe.batch, false_part)
        tuned = fine_tune(clip, pairs, recipe, checkpoint=checkpoint, save_every=20)

        tuned.save(file)
        write_whole({log_file: tuned.log.to_csv(index=False).encode()})
        checkpoint.unlink(missing_ok=True)

    seconds = pd.read_csv(log_file)["cpu_seconds"].sum()
    return load_clip(START, file), float(seconds) / 60


def choose(
    table: Path,
    runs: Path,
    arms: Sequence[str],
    recipe: Tuning = RECIPE,
) -> dict[str, Tuning]:
    """The recipe of each arm, by pilots on development scenes.

    The learning rate is searched first, and then with it the weight of the region loss.
    """
    require_present_start(table)
    recipes = {}
    for arm in arms:
        searched = RECIPE_OF.get(arm, arm)
        best = replace(recipe, **(ARMS[searched] or {}))
        score = partial(pilot_score, table, runs, searched)
        if searched != BEFORE:
            best = climb(best, "learning_rate", RATES, score)
        if searched not in (BEFORE, GLOBAL):
            best = climb(best, "regions", WEIGHTS, score)
        recipes[arm] = replace(best, **(ARMS[arm] or {}))
    return recipes


def climb(
    recipe: Tuning,
    name: str,
    ladder: Sequence[float],
    score: Callable[[Tuning], float],
) -> Tuning:
    """The recipe with a value of `name` of which no neighbour on the ladder is better.

    It goes step by step from the recipe's own value. An end of the ladder has one neighbour.
    """
    while True:
        place = ladder.index(getattr(recipe, name))
        values = ladder[max(0, place - 1) : place + 2]
        best = max((replace(recipe, **{name: value}) for value in values), key=score)
        if score(best) <= score(recipe):
            return recipe
        recipe = best


def pilot_score(table: Path, runs: Path, arm: str, recipe: Tuning) -> float:
    """Regions named correctly plus single objects still recognised: stored, or measured now."""
    rows = read(table)
    rows = rows[rows["arm"] == arm]
    for name in RECIPE_COLUMNS:
        rows = rows[rows[name] == getattr(recipe, name)]
    if rows.empty:
        rows = add_rows(table, runs, arm, recipe, PILOT, ("regions", "whole"))
    estimates = rows.set_index("figure")["estimate"]
    return float(estimates[[TUNED_FOR, RECOGNISED]].sum())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment, or its pilots."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.finetuning.experiment",
        description=__doc__.partition("\n")[0],
    )
    add = parser.add_argument
    add("--pilots", action="store_true", help="only choose the recipe of each arm")
    add("--arms", nargs="*", choices=list(ARMS), default=list(ARMS), metavar="ARM")
    add("--seeds", type=int, default=8, help="of each arm; %(default)s")
    add("--steps", type=int, default=RECIPE.steps, help="of each training; %(default)s")
    add("--table", type=Path, default=data_path(TABLE), help="%(default)s")
    add(
        "--runs",
        type=Path,
        default=Path("runs/finetuning"),
        help="for states and models; %(default)s",
    )
    options = parser.parse_args(arguments)

    recipe = replace(RECIPE, steps=options.steps)
    pilots = options.table.with_name(PILOTS)
    try:
        recipes = choose(pilots, options.runs, options.arms, recipe)
        if not options.pilots:
            run(options.table, options.runs, recipes, range(options.seeds))
    except GradeclipError as error:
        print(f"experiment: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
