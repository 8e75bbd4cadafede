"""The fine-tuning experiment: what do Grad-ECLIP maps teach, beside other maps, no maps, and the true masks?

    python -m gradeclip_utils study fine-tuning --pilots  # each arm's learning rate; into data/finetuning_pilots.csv
    python -m gradeclip_utils study fine-tuning           # goes on where it stopped; into data/finetuning.csv
    python -m gradeclip_utils study fine-tuning --ship    # the tuned model becomes load_clip("emoji-fine")

Every *arm* fine-tunes the bundled model on the same scenes of the training split, with equally many steps, and is
measured on development scenes (`evaluate.measure`). One row an arm and seed: all figures with their intervals, and
what made them. Two arms have five seeds, because the conclusion rests on them; the others have three. A seed decides
the order of the scenes and the hard negatives; the scenes themselves are the same for all.

A rival at somebody else's learning rate is no rival. So every arm has the same pilots, and by the same rule the
learning rate and the weight of the region loss at which *it* does best: on development scenes that the table does not
measure, the regions that are named by their masks, plus the single objects that zero-shot still names.

Hard negatives are made from the phrases of training captions, by exchanging attributes, and never say a colour of a
noun that is withheld from training; the pairs that binding is measured with come from development scenes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ...checks import whole, writable
from ...errors import InvalidValue
from ...evaluation.shards import part_of, read_shard, shard_folder
from ...files import commit, data_path, locked, write_whole
from ...models import Clip, load_clip
from ...scenes import CANVAS, COLOURS, concepts, draw_scene, is_withheld_colour
from ..options import add_fields, markdown_table, read_fields
from .command import save_tuned
from .evaluate import AMOUNT, Amount, measure
from .losses import GROUND_TRUTH, OTHER, UNIFORM, WORDS
from .pairs import Pair
from .run import STATE, Tuning, check, fine_tune

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
TABLE, MODEL = "finetuning.csv", "tuned.safetensors"
TUNED_FOR, KEPT = "masks, top-1", "zero-shot, one object"
CARD = """# Model card: `emoji-fine`

The bundled model [`emoji`](README.md), fine-tuned by its own Grad-ECLIP maps so that the dense features of a region
agree with the phrase that names it ([notebook 07](../notebooks/07_fine_grained_finetuning.ipynb)). The same world, the
same words, the same architecture; it has never seen a photograph.

    load_clip("emoji-fine")

## How it was made

    python -m gradeclip_utils study fine-tuning --arms before grad-eclip
    python -m gradeclip_utils study fine-tuning --ship

{steps} steps of {batch} training scenes (image and caption only), learning rate {learning_rate}, region-phrase loss
times {regions}; {minutes} minutes on a shared machine, at commit {commit}. This file is written by the second command,
from `finetuning.csv`.

## Before and after

Fractions right on development scenes, with 95 % intervals over scenes. Regions: which of all concepts do the dense
features inside a box or mask name? Pointing: is a map's maximum on the object? Binding: is the right caption
told from one in which this attribute is wrong?

{table}

What is lower on the right was lost.

## Credits

As of [`emoji`](README.md), whose card names the artists. The weights are shared under CC BY-SA 4.0.
"""
_DECIDED = ("steps", "batch", "learning_rate", "regions")  # of the recipe, what is in the table
_ABOUT = ["arm", "seed", *_DECIDED, "minutes", "cpu_minutes", "threads", "commit", "command"]


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
        return Pair(partial(scene.image, CANVAS), scene.caption, partial(spoken_of, scene))


def spoken_of(scene, start: int, end: int) -> np.ndarray | None:
    """The pixels (96, 96) of the objects that characters `start` to `end` of the scene's caption speak of.

    Args:
        scene: has the caption.
        start: number of the part's first character.
        end: number of the character behind its last.
    """
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


def run(
    table: Path,
    runs: Path,
    tuning: Tuning = PILOT,
    *,
    amount: Amount = AMOUNT,
    todo: Sequence = (),
    pilots: pd.DataFrame | None = None,
) -> None:
    """Run every arm and seed of `todo` (or of `plan()`) that the table has no row of, and add its row.

    Raises ValueError if the table holds rows of another recipe than the one that `chosen` gives the arm.

    Args:
        table: of the rows, a CSV file.
        runs: the folder of the trainings.
        tuning: the recipe, with which the pilots began.
        amount: how much is measured.
        todo: (arm, seed) each; `plan()` if empty.
        pilots: rows of `run_pilots`; by default those of the table's own.
    """
    pilots = read(pilots_of(table)) if pilots is None else pilots
    for arm, seed in todo or plan():
        done = read(table)
        _check_same(done, pilots, tuning, table)
        if not ((done["arm"] == arm) & (done["seed"] == seed)).any():
            _add_row(table, runs, arm, replace(chosen(pilots, arm, tuning), seed=seed), amount)


def run_pilots(
    table: Path, runs: Path, tuning: Tuning = PILOT, *, amount: Amount = PILOT_AMOUNT, arms: Sequence[str] = ()
) -> None:
    """Try each arm's learning rates at the weight of `tuning`, then the weights at the best of them; a row a trial.

    Args:
        table: of the trials, a CSV file; what it has is not tried again.
        runs: the folder of the trainings; `run` finds those of the recipe that is chosen there.
        tuning: the recipe that all arms begin with.
        amount: how much is measured; other scenes than the experiment's.
        arms: some of `ARMS`; all if empty.
    """
    for arm in arms or ARMS:
        for name, values in (("learning_rate", RATES), ("regions", WEIGHTS)):
            done = read(table)
            start = tuning if name == "learning_rate" else chosen(done[done["regions"] == tuning.regions], arm, tuning)
            recipes = [tuning] if arm == BEFORE else [with_changes(arm, replace(start, **{name: it})) for it in values]
            for recipe in dict.fromkeys(recipes):
                done = read(table).query("arm == @arm")
                if not (done[["learning_rate", "regions"]] == [recipe.learning_rate, recipe.regions]).all(1).any():
                    _add_row(table, runs, arm, recipe, amount, only=("regions", "whole"))


def pilots_of(table: Path) -> Path:
    """The table of an experiment's pilots, which lies beside its own."""
    return table.with_name(f"{table.stem}_pilots.csv")


def with_changes(arm: str, tuning: Tuning) -> Tuning:
    """A recipe, with what makes the arm another one than `OURS`."""
    return replace(tuning, **(ARMS[arm] or {}))


def chosen(pilots: pd.DataFrame, arm: str, tuning: Tuning = PILOT) -> Tuning:
    """The recipe of an arm: that of its best pilot, by what it is tuned for plus what it should keep.

    Args:
        pilots: rows of `run_pilots`.
        arm: one of `ARMS`.
        tuning: the recipe that the pilots began with; it stays as it is if the arm has none of its steps and batch, or
            if it has another learning rate or weight than `PILOT`: whoever asks for one gets it.
    """
    own = pilots[(pilots["arm"] == arm) & (pilots["steps"] == tuning.steps) & (pilots["batch"] == tuning.batch)]
    if len(own) and (tuning.learning_rate, tuning.regions) == (PILOT.learning_rate, PILOT.regions):
        best = own.loc[(own[f"{TUNED_FOR} | estimate"] + own[f"{KEPT} | estimate"]).idxmax()]
        tuning = replace(tuning, learning_rate=float(best["learning_rate"]), regions=float(best["regions"]))
    return with_changes(arm, tuning)


def _add_row(table: Path, runs: Path, arm: str, recipe: Tuning, amount: Amount, only: Sequence[str] = ()) -> None:
    """Train an arm, or find its training in `runs`, measure it, and write its row behind those of the table."""
    print(f"{arm}, seed {recipe.seed}, learning rate {recipe.learning_rate:g}, weight {recipe.regions:g}", flush=True)
    tuned, minutes, cpu = _tuned(arm, recipe, _folder(runs, arm, recipe))
    row = {"arm": arm, "seed": recipe.seed, "steps": 0 if ARMS[arm] is None else recipe.steps, "batch": recipe.batch}
    row |= {"learning_rate": recipe.learning_rate, "regions": recipe.regions}
    row |= {"minutes": round(minutes, 2), "cpu_minutes": round(cpu, 2), "threads": torch.get_num_threads()}
    pilots = " --pilots" if only else ""
    command = f"python -m gradeclip_utils study fine-tuning{pilots} --arms '{arm}'"
    row |= {"commit": commit(), "command": command} | _wide(measure(tuned, amount, only=only))
    whole = pd.concat([read(table), pd.DataFrame([row])], ignore_index=True)
    _write(table, whole.to_csv(index=False).encode())


def _folder(runs: Path, arm: str, recipe: Tuning) -> Path:
    name = f"{arm.replace(' ', '-').replace(',', '')}-{recipe.seed}"
    return runs / f"{name}-{recipe.learning_rate:g}-{recipe.regions:g}"


def _tuned(arm: str, recipe: Tuning, folder: Path) -> tuple[Clip, float, float]:
    """The arm's model as it would be shipped, and how long training took: wall clock and CPU minutes."""
    clip = load_clip("emoji")
    if ARMS[arm] is None:
        return clip, 0.0, 0.0
    folder.mkdir(parents=True, exist_ok=True)
    file, log = folder / MODEL, folder / "log.csv"
    if not (file.is_file() and log.is_file()):
        pairs = ScenePairs(recipe.steps * recipe.batch)
        tuned = fine_tune(clip, pairs, recipe, folder=folder, save_every=20, allowed=allowed)
        save_tuned(tuned.clip, file, {name: str(value) for name, value in asdict(recipe).items()})
        _write(log, tuned.log.to_csv(index=False).encode())
        (folder / STATE).unlink(missing_ok=True)
    last = pd.read_csv(log).iloc[-1]
    return load_clip("emoji", file), last["seconds"] / 60, last["cpu_seconds"] / 60


def read(table: Path | None = None) -> pd.DataFrame:
    """The table as it is, one row an arm and seed; empty if nothing was run yet."""
    table = data_path(TABLE) if table is None else table
    return pd.read_csv(table) if table.is_file() else pd.DataFrame(columns=_ABOUT)


def tidy(rows: pd.DataFrame) -> pd.DataFrame:
    """One row an arm, seed and figure: arm, seed, figure, estimate, low, high, n, chance."""
    names = [name.removesuffix(" | estimate") for name in rows.columns if name.endswith(" | estimate")]
    parts = ("estimate", "low", "high", "n", "chance")
    found = [
        {"arm": row["arm"], "seed": row["seed"], "figure": name} | {part: row[f"{name} | {part}"] for part in parts}
        for row in rows.to_dict("records")
        for name in names
    ]
    return pd.DataFrame(found, columns=["arm", "seed", "figure", *parts])


def ship(table: Path, runs: Path, folder: Path) -> None:
    """Put the model of `OURS`, seed 0, into a folder as emoji-fine, with its config and its card.

    Raises ValueError if it is not measurably better at what it was tuned for than the model before: the interval of
    regions named by their masks must lie above the other's.

    Args:
        table: of the rows, a CSV file.
        runs: the folder of the trainings.
        folder: for model, config and card.
    """
    rows = tidy(read(table))
    before, after = (
        rows[(rows["arm"] == arm) & (rows["seed"] == 0)].set_index("figure", drop=False) for arm in (BEFORE, OURS)
    )
    if before.empty or after.empty:
        raise InvalidValue(f"{table} lacks the row of {BEFORE!r} or of {OURS!r}: run both arms first", "table-empty")
    if not after.loc[TUNED_FOR, "low"] > before.loc[TUNED_FOR, "high"]:
        msg = f"{OURS!r} is not measurably better than {BEFORE!r} in {TUNED_FOR!r}: nothing is shipped"
        raise InvalidValue(msg, "tuning-worse")
    made = read(table).query("arm == @OURS and seed == 0").iloc[0]
    told = []
    for name in after.index:
        cells = [
            f"{row['estimate']:.1%} ({row['low']:.1%} to {row['high']:.1%})"
            for row in (before.loc[name], after.loc[name])
        ]
        told.append((name, *cells, f"{after.loc[name, 'n']:.0f}", f"{after.loc[name, 'chance']:.1%}"))
    table_text = markdown_table(("figure", "`emoji`", "`emoji-fine`", "n", "chance"), told)
    card = CARD.format(table=table_text, **made[[*_DECIDED, "minutes", "commit"]])
    model = _folder(runs, OURS, chosen(read(pilots_of(table)), OURS)) / MODEL
    _write(folder / "emoji-fine.safetensors", model.read_bytes())
    _write(folder / "emoji-fine.json", data_path("emoji.json").read_bytes())
    _write(folder / "emoji-fine.md", card.encode())


def _write(file: Path, content: bytes) -> None:
    write_whole(file, lambda stream: stream.write(content))


def _wide(figures: pd.DataFrame) -> dict[str, float]:
    parts = ("estimate", "low", "high", "n", "chance")
    return {f"{row['figure']} | {part}": round(row[part], 5) for row in figures.to_dict("records") for part in parts}


def _check_same(done: pd.DataFrame, pilots: pd.DataFrame, tuning: Tuning, table: Path) -> None:
    for row in done[done["steps"] > 0].to_dict("records"):
        recipe = chosen(pilots, row["arm"], tuning)
        for name in _DECIDED:
            if row[name] != getattr(recipe, name):
                was = f"{table} holds runs of {row['arm']!r} with {name}={row[name]}, not {getattr(recipe, name)}"
                raise InvalidValue(f"{was}: choose another table", "run-other")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command `study fine-tuning`."""
    parser.add_argument("--table", type=Path, default=data_path(TABLE), help="where the rows are written")
    parser.add_argument("--runs", type=Path, default=Path("runs/finetuning"), help="where states and models are kept")
    parser.add_argument(
        "--pilots", action="store_true", help="try each arm's learning rates and weights; run nothing else"
    )
    parser.add_argument("--arms", nargs="*", choices=list(ARMS), help="only these, with their seeds")
    parser.add_argument(
        "--seeds",
        type=int,
        default=SEEDS,
        help="of the two main arms; the others have three at most; default: %(default)s",
    )
    add_fields(parser, PILOT, _DECIDED)
    parser.add_argument("--shard", metavar="i/n", help="only every n-th run; by default as Slurm or torchrun say it")
    parser.add_argument("--merge", action="store_true", help="put what shards ran into --table; run nothing")
    parser.add_argument("--ship", action="store_true", help="put the tuned model and its card into data/; run nothing")


def run_command(given: argparse.Namespace) -> None:
    """The command `study fine-tuning`: run what is missing of the experiment, or a shard of it, or ship its model."""
    writable(given.table, "--table", suffixes=(".csv",), size=1_000_000)
    if given.ship:
        return ship(given.table, given.runs, data_path())
    writable(given.runs, "--runs", folder=True, size=500_000_000)
    todo = [(arm, seed) for arm, seed in plan(whole("--seeds", given.seeds, 1)) if not given.arms or arm in given.arms]
    tuning, shard = check(read_fields(given, PILOT)), read_shard(given.shard)
    if given.merge:
        return merge(given.table, given.runs, tuning, todo)
    own = shard_folder(given.runs, shard)
    table = given.table if shard is None else own / TABLE
    with locked(own, "study.running"):
        if given.pilots:
            if arms := part_of(given.arms or list(ARMS), shard):
                run_pilots(pilots_of(table), given.runs, tuning, arms=arms)
        elif mine := part_of(todo, shard):
            run(table, given.runs, tuning, todo=mine, pilots=read(pilots_of(given.table)))


def merge(table: Path, runs: Path, tuning: Tuning, todo: Sequence[tuple[str, int]]) -> None:
    """Put the rows that shards wrote into the table, in the order of the plan; what the table had else stays.

    Args:
        table: of the rows, a CSV file.
        runs: the folder of the trainings, in which the shards have theirs.
        tuning: the recipe.
        todo: (arm, seed) each, what the shards were to run.

    Raises:
        ValueError: a row is missing, or a shard followed another recipe; nothing is written then.
    """
    parts = {file: read(file) for file in sorted(runs.glob(f"shard-*-of-*/{TABLE}"))}
    for file, part in parts.items():
        _check_same(part, tuning, file)
    rows = pd.concat([read(table), *parts.values()]).drop_duplicates(["arm", "seed"], keep="last")
    rows = rows.set_index(["arm", "seed"], drop=False)
    if missing := [one for one in todo if one not in rows.index]:
        arm, seed = missing[0]
        msg = f"no shard in {runs} has run {arm!r} with seed {seed}, which makes {len(missing)} missing rows of "
        raise InvalidValue(f"{msg}{len(todo)}: run its shard again, then --merge", "shard-unfinished")
    order = [*todo, *(one for one in rows.index if one not in set(todo))]
    _write(table, rows.loc[order].to_csv(index=False).encode())
