"""Seeds: do the main figures of the studies hold when the bundled model is trained again, from another seed?

    python -m gradeclip_utils train --folder runs/seed1 --seed 1
    python -m gradeclip_utils train --folder runs/seed1 --export runs/seed1.safetensors
    python -m gradeclip_utils study seeds data/emoji.safetensors runs/seed1.safetensors    # writes data/seeds.csv

    figures of a study, a seed each -> table in data/ -> compared -> what holds, and what is withdrawn

A study of one trained model cannot tell a habit of CLIP's training from an accident of one run. Its interval does not
help: it resamples images, and never the model.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from operator import methodcaller
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors

from ..files import commit, data_path, write_whole
from ..models import Clip, load_clip
from . import STUDIES

TABLE = "seeds.csv"
COMPARED = ("matching", "binding", "concreteness")  # the studies in the table
HOLDS, WITHDRAWN, ONE, NEITHER = "holds", "changes sign", "clear in one seed only", "cannot tell in either"
_HALF = ("accuracy", "index", "the same by", "relation preferred", "colour word answers")  # what begins like this


def neutral_value(figure: str) -> float:
    """The value that says neither this nor that: 1/2 of a choice of two and of a fraction of two things, or else 0."""
    return 0.5 if figure.startswith(_HALF) else 0.0


def seed_figures(path: Path, studies: Mapping[str, Callable[[Clip], pd.DataFrame]] | None = None) -> pd.DataFrame:
    """The figures of the bundled model as it was trained into a file.

    Args:
        path: a file that `train --export` wrote.
        studies: `COMPARED` by default.

    Returns:
        Columns study, seed, figure, value, low, high, n.

    Raises:
        ValueError: the file is damaged, or does not say from which seed it was trained.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            seed = (file.metadata() or {}).get("seed")
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is damaged, or not a model of `train --export`: {error}") from error
    if seed is None:
        raise ValueError(f"{path} does not say its seed: give a file that `train --export` wrote")
    clip = load_clip("emoji", path)
    studies = {name: STUDIES[name] for name in COMPARED} if studies is None else studies
    parts = [table(clip).assign(study=name, seed=int(seed)) for name, table in studies.items()]
    return pd.concat(parts, ignore_index=True)[["study", "seed", "figure", "value", "low", "high", "n"]]


def compare_seeds(study: str, table: pd.DataFrame | None = None) -> pd.DataFrame:
    """The figures of a study by seed, and what can be said of both.

    Args:
        study: one of `COMPARED`.
        table: rows of `seed_figures`; those in `data/` by default.

    Returns:
        One row a figure, which is the index. Columns: "seed 0", ... (values), "intervals" (as text), "both seeds": the
        figure `HOLDS` (on the same side of its `neutral_value`, every interval excluding that), is `WITHDRAWN` (clear
        on opposite sides), or is clear in some only. "apart": two of the intervals do not overlap, so the size of the
        figure is that of one run, whatever its sign.

    Raises:
        ValueError: there are no rows of that study, or of one seed alone.
    """
    table = pd.read_csv(data_path(TABLE)) if table is None else table
    rows = table[table["study"] == study]
    seeds = sorted(rows["seed"].unique())
    if len(seeds) < 2:
        raise ValueError(
            f"seeds are compared by two or more, and {study!r} has {seeds}; studies: {', '.join(COMPARED)}"
        )
    found = rows.pivot(index="figure", columns="seed", values="value").reindex(rows["figure"].unique())
    found.columns = [f"seed {seed}" for seed in seeds]
    spans = rows.assign(text=[f"[{low:.2f}, {high:.2f}]" for low, high in rows[["low", "high"]].to_numpy()])
    found["intervals"] = spans.groupby("figure")["text"].agg(" ".join)
    found["both seeds"] = rows.groupby("figure")[["figure", "low", "high"]].apply(_said)
    found["apart"] = rows.groupby("figure")["low"].max() > rows.groupby("figure")["high"].min()
    return found


def _said(rows: pd.DataFrame) -> str:
    """What all seeds together say of one figure."""
    point = neutral_value(rows["figure"].iloc[0])
    sides = np.where(rows["low"] > point, 1, np.where(rows["high"] < point, -1, 0))
    if len(set(sides)) == 1:
        return HOLDS if sides[0] else NEITHER
    return WITHDRAWN if {1, -1} <= set(sides) else ONE


def seeds_in_words(both: pd.DataFrame) -> str:
    """What `compare_seeds` found, in one sentence: how many figures hold, which do not, which moved."""
    named = {what: _listed(both.index[both["both seeds"] == what]) for what in (WITHDRAWN, ONE, NEITHER)}
    holds = (both["both seeds"] == HOLDS).sum()
    named["of another size, their intervals apart"] = _listed(both.index[both["apart"]])
    rest = "".join(f"; {what}: {names}" for what, names in named.items() if names and what != WITHDRAWN)
    return f"{holds} of {len(both)} figures hold; withdrawn: {named[WITHDRAWN] or 'none'}{rest}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"“{name}”" for name in names)  # in quotes, because there are commas in them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `study seeds`."""
    parser.add_argument("models", type=Path, nargs="+", help="files of `train --export`, each of another seed")
    parser.add_argument("--out", type=Path, default=data_path(TABLE), help="the table; rows of other seeds stay")


def run_command(options: argparse.Namespace) -> None:
    """Measure every model, and write its rows into the table."""
    for path in options.models:
        rows = seed_figures(path).assign(command=f"python -m gradeclip_utils study seeds {path}", commit=commit())
        if options.out.exists():
            before = pd.read_csv(options.out)
            rows = pd.concat([before[~before["seed"].isin(rows["seed"])], rows]).sort_values("seed", kind="stable")
        text = rows.round(5).to_csv(index=False).encode()
        write_whole(options.out, methodcaller("write", text))
