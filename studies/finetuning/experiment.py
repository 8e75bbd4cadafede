"""The fine-tuning experiment: what do Grad-ECLIP maps teach, beside other maps, no maps, and the true masks?

    python -m gradeclip_utils study fine-tuning --pilots  # each arm's learning rate; into data/finetuning_pilots.csv
    python -m gradeclip_utils study fine-tuning           # goes on where it stopped; into data/finetuning.csv
    python -m gradeclip_utils study fine-tuning --ship    # the tuned model becomes load_clip("emoji-fine")

Every *arm* fine-tunes the bundled model on the same scenes of the training split, with equally many steps, and is
measured on development scenes (`evaluate.measure`). One row an arm and seed: all figures with their intervals, and
what made them. Two arms have five seeds, because the conclusion rests on them; the others have three. A seed decides
the order of the scenes and the hard negatives; the scenes themselves are the same for all.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from gradeclip_utils.checks import readable, whole, writable
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.files import data_path, locked, write_whole
from gradeclip_utils.finetune.options import add_fields, read_fields
from gradeclip_utils.finetune.run import STATE, Tuning, check, fine_tune, save_tuned
from gradeclip_utils.measures.shards import part_of, read_shard, shard_folder
from gradeclip_utils.measures.table import weights_digest
from gradeclip_utils.models import Clip, load_clip
from studies.commit import commit

from training.tables import markdown_table, write_between

from . import arms as design
from .arms import ARMS, BEFORE, DECIDED, GLOBAL, OURS, PARTS, PILOT, RATES, SEEDS, TABLE, TUNED_FOR, WEIGHTS
from .evaluate import AMOUNT, measure

MODEL = "tuned.safetensors"
CARD = "emoji-fine.md"
START = "<!-- figures: written by python -m gradeclip_utils study fine-tuning --ship -->"
END = "<!-- end of figures -->"
MADE = (
    "Made in {steps} steps of {batch} training scenes (image and caption only), learning rate {learning_rate}, "
    "region-phrase\nloss times {regions}; {minutes} minutes on a shared machine, at commit {commit}."
)


def run(
    table: Path, runs: Path, tuning: Tuning = PILOT, *, todo: Sequence = (), pilots: pd.DataFrame | None = None
) -> None:
    """Run every arm and seed that the table has no row of, and add its row."""
    pilots = design.read_pilots(table) if pilots is None else pilots
    for arm, seed in todo or design.plan():
        done = design.read(table)
        _check_same(done, pilots, tuning, table)
        if not ((done["arm"] == arm) & (done["seed"] == seed)).any():
            _add_row(table, runs, arm, replace(design.chosen(pilots, arm, tuning), seed=seed))


def run_pilots(table: Path, runs: Path, tuning: Tuning = PILOT, *, arms: Sequence[str] = ()) -> None:
    """Try each arm's learning rates at the weight of `tuning`, then the weights at the best of them; a row a trial."""
    for arm in arms or ARMS:
        for value in RATES if arm != BEFORE else (tuning.learning_rate,):
            _try(table, runs, arm, design.with_changes(arm, replace(tuning, learning_rate=value)))
        if arm not in (BEFORE, GLOBAL):
            best = design.chosen(design.read(table).query("regions == @tuning.regions"), arm, tuning)
            for weight in WEIGHTS:
                _try(table, runs, arm, replace(best, regions=weight))


def _try(table: Path, runs: Path, arm: str, recipe: Tuning) -> None:
    wanted = [0 if ARMS[arm] is None else recipe.steps, *(getattr(recipe, name) for name in DECIDED[1:])]
    done = design.read(table).query("arm == @arm")
    if not (done[list(DECIDED)] == wanted).all(axis=1).any():
        _add_row(table, runs, arm, recipe, pilot=True)


def _add_row(table: Path, runs: Path, arm: str, recipe: Tuning, *, pilot: bool = False) -> None:
    """Train an arm, or find its training in `runs`, measure it, and write its row behind those of the table."""
    print(f"{arm}, seed {recipe.seed}, learning rate {recipe.learning_rate:g}, weight {recipe.regions:g}", flush=True)
    tuned, minutes, cpu = _tuned(arm, recipe, runs)
    steps = 0 if ARMS[arm] is None else recipe.steps
    row: dict[str, Any] = {"arm": arm, "seed": recipe.seed, "steps": steps, "batch": recipe.batch}
    row |= {"learning_rate": recipe.learning_rate, "regions": recipe.regions}
    row |= {"minutes": round(minutes, 2), "cpu_minutes": round(cpu, 2), "threads": torch.get_num_threads()}
    command = f"python -m gradeclip_utils study fine-tuning{' --pilots' * pilot} --arms '{arm}'"
    row |= {"commit": commit(), "command": command}
    found = measure(tuned, design.PILOT_AMOUNT, only=("regions", "whole")) if pilot else measure(tuned, AMOUNT)
    row |= {f"{one['figure']} | {part}": round(one[part], 5) for one in found.to_dict("records") for part in PARTS}
    rows = pd.concat([design.read(table), pd.DataFrame([row])], ignore_index=True)
    _write(table, rows.to_csv(index=False).encode())


def _folder(runs: Path, arm: str, recipe: Tuning, clip: Clip) -> Path:
    """Of one training: it names all that tells one from another, the weights that it begins from among it."""
    name = f"{arm.replace(' ', '-').replace(',', '')}-{recipe.seed}-{recipe.learning_rate:g}-{recipe.regions:g}"
    return runs / f"{name}-{recipe.steps}x{recipe.batch}-{weights_digest(clip.model)}"


def _tuned(arm: str, recipe: Tuning, runs: Path) -> tuple[Clip, float, float]:
    """The arm's model as it would be shipped, and how long training took: wall clock and CPU minutes."""
    clip = load_clip("emoji")
    if ARMS[arm] is None:
        return clip, 0.0, 0.0
    folder = _folder(runs, arm, recipe, clip)
    folder.mkdir(parents=True, exist_ok=True)
    file, log = folder / MODEL, folder / "log.csv"
    if not (file.is_file() and log.is_file()):
        pairs = design.ScenePairs(recipe.steps * recipe.batch)
        tuned = fine_tune(clip, pairs, recipe, folder=folder, save_every=20, allowed=design.allowed)
        save_tuned(tuned.clip, file, {name: str(value) for name, value in asdict(recipe).items()})
        _write(log, tuned.log.to_csv(index=False).encode())
        (folder / STATE).unlink(missing_ok=True)
    last = pd.read_csv(log).iloc[-1]
    return load_clip("emoji", file), last["seconds"] / 60, last["cpu_seconds"] / 60


def ship(table: Path, runs: Path, folder: Path) -> None:
    """Put the model of `OURS`, seed 0, into a folder as emoji-fine, with its config and its card."""
    rows = design.tidy(design.read(table))
    before, after = (
        rows[(rows["arm"] == arm) & (rows["seed"] == 0)].set_index("figure", drop=False) for arm in (BEFORE, OURS)
    )
    if before.empty or after.empty:
        raise GradeclipError(f"{table} lacks the row of {BEFORE!r} or of {OURS!r}: run both arms first")
    if not after.loc[TUNED_FOR, "low"] > before.loc[TUNED_FOR, "high"]:
        msg = f"{OURS!r} is not measurably better than {BEFORE!r} in {TUNED_FOR!r}: nothing is shipped"
        raise GradeclipError(msg)
    made = design.read(table).query("arm == @OURS and seed == 0").iloc[0]
    told = []
    for name in after.index:
        cells = [
            f"{row['estimate']:.1%} ({row['low']:.1%} to {row['high']:.1%})"
            for row in (before.loc[name], after.loc[name])
        ]
        told.append((name, *cells, f"{after.loc[name, 'n']:.0f}", f"{after.loc[name, 'chance']:.1%}"))
    training = _folder(runs, OURS, replace(PILOT, **made[[*DECIDED]]), load_clip("emoji"))
    model = readable(training / MODEL, "model of that row that was tuned from emoji as it is now,")
    figures = markdown_table(("figure", "`emoji`", "`emoji-fine`", "n", "chance"), told)
    about = MADE.format(**made[[*DECIDED, "minutes", "commit"]])
    write_between(folder / CARD, START, END, f"{figures}\n\n{about}")
    _write(folder / "emoji-fine.safetensors", model.read_bytes())
    _write(folder / "emoji-fine.json", data_path("emoji.json").read_bytes())


def _write(file: Path, content: bytes) -> None:
    write_whole(file, lambda stream: stream.write(content))


def _merge_pilots(table: Path, runs: Path, arms: Sequence[str]) -> None:
    """Put the pilots that shards wrote beside the table of the experiment, arm by arm; those that are there stay."""
    parts = [design.read(file) for file in sorted(runs.glob(f"shard-*-of-*/{design.pilots_of(Path(TABLE))}"))]
    rows = pd.concat([design.read_pilots(table), *parts]).drop_duplicates(["arm", *DECIDED], keep="last")
    for arm in arms:
        own, trials = rows[rows["arm"] == arm], {BEFORE: 1, GLOBAL: len(RATES)}.get(arm, len(RATES) + len(WEIGHTS) - 1)
        if len(own) < trials:
            msg = f"{len(own)} of {trials} pilots of {arm!r} are in {runs}: run its shard again, then --merge"
            raise GradeclipError(msg)
    rows = rows.sort_values("arm", key=lambda names: names.map(list(ARMS).index), kind="stable")
    _write(design.pilots_of(table), rows.to_csv(index=False).encode())


def _check_same(done: pd.DataFrame, pilots: pd.DataFrame, tuning: Tuning, table: Path) -> None:
    for row in done[done["steps"] > 0].to_dict("records"):
        recipe = design.chosen(pilots, row["arm"], tuning)
        for name in DECIDED:
            if row[name] != getattr(recipe, name):
                was = f"{table} holds runs of {row['arm']!r} with {name}={row[name]}, not {getattr(recipe, name)}"
                raise GradeclipError(f"{was}: choose another table")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command `study fine-tuning`."""
    parser.add_argument("--table", type=Path, default=data_path(TABLE), help="where the rows are written")
    parser.add_argument("--runs", type=Path, default=Path("runs/finetuning"), help="where states and models are kept")
    parser.add_argument("--pilots", action="store_true", help="only try each arm's learning rates and weights")
    parser.add_argument("--arms", nargs="*", choices=list(ARMS), help="only these, with their seeds")
    about = "of the two main arms; the others have three at most; default: %(default)s"
    parser.add_argument("--seeds", type=int, default=SEEDS, help=about)
    add_fields(parser, PILOT, DECIDED)
    parser.add_argument("--shard", metavar="i/n", help="only every n-th run; by default as Slurm or torchrun say it")
    parser.add_argument("--merge", action="store_true", help="put what shards ran into --table; run nothing")
    parser.add_argument("--ship", action="store_true", help="put the tuned model and its card into data/; run nothing")


def run_command(given: argparse.Namespace) -> None:
    """The command `study fine-tuning`: run what is missing of the experiment, or a shard of it, or ship its model."""
    writable(given.table, "--table", suffixes=(".csv",), size=1_000_000)
    design.read(given.table)  # or refused
    if given.ship:
        return ship(given.table, given.runs, data_path())
    writable(given.runs, "--runs", folder=True, size=500_000_000)
    arms = given.arms or list(ARMS)
    todo = [(arm, seed) for arm, seed in design.plan(whole("--seeds", given.seeds, 1)) if arm in arms]
    tuning, shard = check(read_fields(given, PILOT)), read_shard(given.shard)
    if given.merge and given.pilots:
        return _merge_pilots(given.table, given.runs, arms)
    if given.merge:
        return _merge(given.table, given.runs, tuning, todo)
    own = shard_folder(given.runs, shard)
    table = given.table if shard is None else own / TABLE
    with locked(own, "study.running"):
        if given.pilots:
            if arms := part_of(arms, shard):
                run_pilots(design.pilots_of(table), given.runs, tuning, arms=arms)
        elif mine := part_of(todo, shard):
            run(table, given.runs, tuning, todo=mine, pilots=design.read_pilots(given.table))


def _merge(table: Path, runs: Path, tuning: Tuning, todo: Sequence[tuple[str, int]]) -> None:
    """Put the rows that shards wrote into the table, in the order of the plan; what the table had else stays."""
    parts = {file: design.read(file) for file in sorted(runs.glob(f"shard-*-of-*/{TABLE}"))}
    for file, part in parts.items():
        _check_same(part, design.read_pilots(table), tuning, file)
    rows = pd.concat([design.read(table), *parts.values()]).drop_duplicates(["arm", "seed"], keep="last")
    rows = rows.set_index(["arm", "seed"], drop=False)
    if missing := [one for one in todo if one not in rows.index]:
        arm, seed = missing[0]
        msg = f"no shard in {runs} has run {arm!r} with seed {seed}, which makes {len(missing)} missing rows of "
        raise GradeclipError(f"{msg}{len(todo)}: run its shard again, then --merge")
    order = [*todo, *(one for one in rows.index if one not in set(todo))]
    _write(table, rows.loc[order].to_csv(index=False).encode())
