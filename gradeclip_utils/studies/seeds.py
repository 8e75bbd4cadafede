"""Seeds: do the main figures of the studies hold when the bundled model is trained again, from another seed?

    python -m gradeclip_utils train --folder runs/seed1 --seed 1
    python -m gradeclip_utils train --folder runs/seed1 --export runs/seed1.safetensors
    python -m gradeclip_utils study seeds data/emoji.safetensors runs/seed1.safetensors    # writes data/seeds.csv

    figures of a study, a seed each -> table in data/ -> beside -> what holds, and what is withdrawn

A study of one trained model cannot tell a habit of CLIP's training from an accident of one run. Its interval does not
help: it resamples pictures, and never the model.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors

from ..files import commit, data_path, write_whole
from ..models import Clip, load_clip
from .binding import binding_index as binding
from .concreteness import saliency as concreteness
from .matching import adjectives as matching

TABLE = "seeds.csv"
STUDIES = {"matching": matching.figures, "binding": binding.figures, "concreteness": concreteness.figures}
HOLDS, WITHDRAWN, ONE, NEITHER = "holds", "changes sign", "clear in one seed only", "cannot tell in either"
_HALF = ("accuracy", "index", "the same by", "relation preferred", "colour word answers")  # what begins like this
_COMMAND = "python -m gradeclip_utils study seeds"


def neutral(figure: str) -> float:
    """The value that says neither this nor that: 1/2 of a choice of two and of a share of two things, or else 0."""
    return 0.5 if figure.startswith(_HALF) else 0.0


def measure(path: Path, studies: Mapping[str, Callable[[Clip], pd.DataFrame]] | None = None) -> pd.DataFrame:
    """Study, seed, figure, estimate, low, high, n of the bundled model as it was trained into this file.

    `studies` are `STUDIES` by default.

    Raises ValueError if the file does not say from which seed it was trained.
    """
    with safetensors.safe_open(path, "pt") as file:
        seed = (file.metadata() or {}).get("seed")
    if seed is None:
        raise ValueError(f"{path} does not say its seed: give a file that `train --export` wrote")
    clip = load_clip("emoji", path)
    parts = [table(clip).assign(study=name, seed=int(seed)) for name, table in (studies or STUDIES).items()]
    return pd.concat(parts, ignore_index=True)[["study", "seed", "figure", "estimate", "low", "high", "n"]]


def beside(study: str, table: pd.DataFrame | None = None) -> pd.DataFrame:
    """The figures of a study by seed, and what can be said of both: one row a figure, the figure is the index.

    Columns: "seed 0", ... (estimates), "intervals" (as text), "both seeds": the figure `HOLDS` (on the same side of its
    `neutral` value, every interval excluding that), is `WITHDRAWN` (clear on opposite sides), or is clear in some only.
    "apart": two of the intervals do not overlap, so the size of the figure is that of one run, whatever its sign.

    Args:
        study: one of `STUDIES`.
        table: rows of `measure`; those in ``data/`` by default.

    Raises:
        ValueError: there are no rows of that study, or of one seed alone.
    """
    table = pd.read_csv(data_path(TABLE)) if table is None else table
    rows = table[table["study"] == study]
    seeds = sorted(rows["seed"].unique())
    if len(seeds) < 2:
        raise ValueError(f"seeds are compared by two or more, and {study!r} has {seeds}; studies: {', '.join(STUDIES)}")
    found = rows.pivot(index="figure", columns="seed", values="estimate").reindex(rows["figure"].unique())
    found.columns = [f"seed {seed}" for seed in seeds]
    spans = rows.assign(text=[f"[{low:.2f}, {high:.2f}]" for low, high in rows[["low", "high"]].to_numpy()])
    found["intervals"] = spans.groupby("figure")["text"].agg(" ".join)
    found["both seeds"] = rows.groupby("figure")[["figure", "low", "high"]].apply(_said)
    found["apart"] = rows.groupby("figure")["low"].max() > rows.groupby("figure")["high"].min()
    return found


def _said(rows: pd.DataFrame) -> str:
    point = neutral(rows["figure"].iloc[0])
    sides = np.where(rows["low"] > point, 1, np.where(rows["high"] < point, -1, 0))
    if len(set(sides)) == 1:
        return HOLDS if sides[0] else NEITHER
    return WITHDRAWN if {1, -1} <= set(sides) else ONE


def sentence(both: pd.DataFrame) -> str:
    """What `beside` found, in one sentence for the takeaways: how many figures hold, which do not, which moved."""
    named = {what: _listed(both.index[both["both seeds"] == what]) for what in (WITHDRAWN, ONE, NEITHER)}
    holds = (both["both seeds"] == HOLDS).sum()
    named["of another size, their intervals apart"] = _listed(both.index[both["apart"]])
    rest = "".join(f"; {what}: {names}" for what, names in named.items() if names and what != WITHDRAWN)
    return f"{holds} of {len(both)} figures hold; withdrawn: {named[WITHDRAWN] or 'none'}{rest}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"“{name}”" for name in names)  # in quotes, because there are commas in them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command `study seeds`."""
    parser.add_argument("models", type=Path, nargs="+", help="files of `train --export`, each of another seed")
    parser.add_argument("--out", type=Path, default=data_path(TABLE), help="the table; rows of other seeds stay")


def run_command(given: argparse.Namespace) -> None:
    """The command `study seeds`: measure each model, and put its rows into the table."""
    for path in given.models:
        rows = measure(path).assign(command=f"{_COMMAND} {path}", commit=commit())
        if given.out.exists():
            before = pd.read_csv(given.out)
            rows = pd.concat([before[~before["seed"].isin(rows["seed"])], rows]).sort_values("seed", kind="stable")
        write_whole(given.out, lambda stream, rows=rows: stream.write(rows.round(5).to_csv(index=False).encode()))
