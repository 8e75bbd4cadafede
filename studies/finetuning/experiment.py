"""The fine-tuning experiment: what do Grad-ECLIP maps teach, beside other maps, no maps, and true masks?

    python -m studies.finetuning.experiment --pilots    # recipe of each arm, into
    data/finetuning_pilots.csv python -m studies.finetuning.experiment --seeds 8   # all arms, into
    data/finetuning.csv

The table of pilots says which weights they began from. Later weights keep the recipes that it
holds; move it away, and they are searched anew.

Both go on where they were stopped: rows in the table are not measured again, and a training that
was cut short goes on from its last state in --runs. A training takes about two minutes of one core,
its figures one more. A seed decides the order of the scenes; the scenes are the same for all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pandas as pd

from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.files import data_path, locked, weights_digest, write_whole
from gradeclip_utils.models import Clip, load_clip
from studies.finetuning.run import Tuning, fine_tune

from .arms import (
    ARMS,
    BEFORE,
    COLUMNS,
    GLOBAL,
    KEPT,
    PILOTS,
    RECIPE,
    TABLE,
    TUNED_FOR,
    ScenePairs,
    read,
)
from .evaluate import AMOUNT, PILOT, Amount, measure

RATES, WEIGHTS = (1e-4, 3e-4, 1e-3), (0.1, 0.25, 1.0)
MODEL, _RECIPE = "tuned.safetensors", ("learning_rate", "regions", "steps")


def run(table: Path, runs: Path, recipes: dict[str, Tuning], seeds: Iterable[int]) -> None:
    """Add the rows of all arms and seeds that the table lacks, seed by seed."""
    weights = weights_digest(load_clip("emoji").model)
    if set(read(table)["weights"]) - {weights}:
        raise GradeclipError(
            f"{table} holds arms of a different `emoji`: move it away, or delete it"
        )
    for seed in seeds:
        for arm, recipe in recipes.items():
            done = read(table)
            own, about = done[done["arm"] == arm], {name: getattr(recipe, name) for name in _RECIPE}
            if arm != BEFORE and (own[list(_RECIPE)] != pd.Series(about)).any(axis=None):
                raise GradeclipError(
                    f"{table} holds {arm!r} by another recipe than {about}: choose another --table"
                )
            if (seed and arm == BEFORE) or (own["seed"] == seed).any():
                continue
            add_rows(table, runs, arm, replace(recipe, seed=seed), AMOUNT)


def add_rows(
    table: Path, runs: Path, arm: str, recipe: Tuning, amount: Amount, only: Sequence[str] = ()
) -> pd.DataFrame:
    """Train an arm, or go on with its training, measure it, and append its rows to the table."""
    print(
        f"{arm}, seed {recipe.seed}, learning rate {recipe.learning_rate:g}, weight {recipe.regions:g}",
        flush=True,
    )
    clip, minutes = tuned(arm, recipe, runs)
    found = measure(clip, amount, only=only).round(5)
    about = {name: getattr(recipe, name) for name in ("seed", "learning_rate", "regions", "steps")}
    weights = weights_digest(load_clip("emoji").model)
    rows = found.assign(arm=arm, **about, cpu_minutes=round(minutes, 2), weights=weights)[COLUMNS]
    known = read(table)
    whole = pd.concat([known, rows], ignore_index=True) if len(known) else rows
    table.parent.mkdir(parents=True, exist_ok=True)
    write_whole({table: whole.to_csv(index=False).encode()})
    return rows


def folder_of(arm: str, recipe: Tuning, runs: Path, clip: Clip) -> Path:
    """The folder of one training, named after everything that tells it from another."""
    name = f"{arm.replace(' ', '-')}-{recipe.seed}-{recipe.learning_rate:g}-{recipe.regions:g}"
    return runs / f"{name}-{recipe.steps}x{recipe.batch}-{weights_digest(clip.model)}"


def tuned(arm: str, recipe: Tuning, runs: Path) -> tuple[Clip, float]:
    """The model of an arm as it would be shipped, and the CPU minutes of its training."""
    clip = load_clip("emoji")
    if ARMS[arm] is None:
        return clip, 0.0
    folder = folder_of(arm, recipe, runs, clip)
    file, log = folder / MODEL, folder / "log.csv"
    if not (file.is_file() and log.is_file()):
        folder.mkdir(parents=True, exist_ok=True)
        made = fine_tune(
            clip, ScenePairs(recipe.steps * recipe.batch), recipe, folder=folder, save_every=20
        )
        made.save(file, asdict(recipe))
        write_whole({log: made.log.to_csv(index=False).encode()})
        (folder / "state.pt").unlink()
    config = data_path("emoji.json").read_bytes()
    write_whole({file.with_suffix(".json"): config})
    return load_clip("emoji", file), float(pd.read_csv(log)["cpu_seconds"].iloc[-1]) / 60


def choose(
    table: Path, runs: Path, arms: Sequence[str], recipe: Tuning = RECIPE
) -> dict[str, Tuning]:
    """The recipe of each arm: its best learning rate, then its best weight, by pilots on development scenes."""
    found = {}
    for arm in arms:
        asked = ARMS[arm]
        own = replace(recipe, **(asked or {}))
        score = partial(_score, table, runs, arm)
        if asked is not None and "learning_rate" not in asked:
            own = max((replace(own, learning_rate=rate) for rate in RATES), key=score)
            if arm != GLOBAL:
                own = max((replace(own, regions=weight) for weight in WEIGHTS), key=score)
        found[arm] = own
    return found


def _score(table: Path, runs: Path, arm: str, recipe: Tuning) -> float:
    """Regions named correctly plus single objects still recognised, from the table of pilots or measured now."""
    rows = read(table)
    for name in ("learning_rate", "regions", "steps"):
        rows = rows[(rows["arm"] == arm) & (rows[name] == getattr(recipe, name))]
    if rows.empty:
        rows = add_rows(table, runs, arm, recipe, PILOT, ("regions", "whole"))
    return float(rows.set_index("figure").loc[[TUNED_FOR, KEPT], "estimate"].sum())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment, or its pilots."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.finetuning.experiment", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--pilots", action="store_true", help="only choose the recipe of each arm")
    parser.add_argument("--arms", nargs="*", choices=list(ARMS), default=list(ARMS), metavar="ARM")
    parser.add_argument(
        "--seeds", type=int, default=8, help="seeds of each arm; default: %(default)s"
    )
    parser.add_argument(
        "--steps", type=int, default=RECIPE.steps, help="of each training; default: %(default)s"
    )
    parser.add_argument("--table", type=Path, default=data_path(TABLE), help="default: %(default)s")
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("runs/finetuning"),
        help="for states and models; %(default)s",
    )
    given = parser.parse_args(arguments)
    recipe, pilots = replace(RECIPE, steps=given.steps), given.table.with_name(PILOTS)
    try:
        given.runs.mkdir(parents=True, exist_ok=True)
        with locked(given.runs, f"{given.table.stem}.running"):
            recipes = choose(pilots, given.runs, given.arms, recipe)
            if not given.pilots:
                run(given.table, given.runs, recipes, range(given.seeds))
    except GradeclipError as error:
        print(f"experiment: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
