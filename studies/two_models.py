"""Two models: the main figures of the studies for a model that binds colours and for one that does not, side by side.

    python -m gradeclip_utils study two-models                                       # writes data/two_models.csv
    python -m gradeclip_utils study two-models "second seed=runs/seed7.safetensors"  # adds a model to it
    python -m gradeclip_utils study two-models --studies architectures emoji emoji-resnet  # and its student

    figures of a study, a model each -> table in data/ -> compared -> what all show, and what goes with a model

`emoji` learnt who has which colour. `emoji-bag` is that model after one more round, whose captions dealt their colours
among their things at random: it knows the same things and colours, and not which goes with which. A figure that both
show says nothing about binding. `SECOND_SEED` was trained from other initial weights on other scenes, and is not
shipped: a figure that it does not show may be an accident of one training.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace
from operator import methodcaller
from pathlib import Path

import numpy as np
import pandas as pd

from gradeclip_utils.checks import columns, unused, writable
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.files import data_path, version, write_whole
from gradeclip_utils.models import BUNDLED_MODELS, Clip, load_clip
from studies.commit import commit
from studies.shards import add_no_shard, refuse_shard

from . import STUDIES
from .architectures import compare_models, two_thing_examples
from .command import figures_in

TABLE = "two_models.csv"
MODELS = ("emoji", "emoji-bag")
SECOND_SEED = "second seed"  # how it was trained: data/README.md
COMPARED = ("matching", "binding", "concreteness", "methods")  # the studies in the table
STUDENTS = "architectures"  # one more, of models that are students of the first one
HOLDS, TURNED, ONE, NEITHER = "holds", "changes sign", "clear in one model only", "cannot tell in either"
_SAME = ["study", "figure", "model"]
_HALF = ("accuracy", "index", "the same by", "relation preferred", "colour word answers")  # what begins like this


def neutral_value(figure: str) -> float:
    """The value that says neither this nor that: 1/2 of a choice of two and of a fraction of two things, or else 0."""
    return 0.5 if figure.startswith(_HALF) else 0.0


def _named_model(model: str) -> tuple[str, Clip]:
    """What the table calls a model, and the model."""
    name, equals, weights = model.partition("=")
    if equals and (not (name.strip() and weights) or name in BUNDLED_MODELS):
        msg = f"weights in a file are named NAME=FILE, by a name that no bundled model has, got {model!r}"
        raise GradeclipError(msg)
    return name, load_clip(MODELS[0], weights) if weights else load_clip(name)


def model_figures(
    name: str, clip: Clip, studies: Sequence[str] = COMPARED, than: pd.DataFrame | None = None
) -> pd.DataFrame:
    """The figures of one model in some studies."""
    parts = []
    for study in studies:
        own, more = (replace(clip, image_layers=1), {"than": than}) if study == STUDENTS else (clip, {})
        if study == "methods":  # differences by quick methods, on as many scenes as all models of the table had
            more = {"part": "quick", "n": 60}
        table = STUDIES[study](own, **more)
        if study == "methods":
            table = table[table["figure"].str.contains(", ahead of ")]
        parts.append(table.assign(study=study, model=name))
    return pd.concat(parts, ignore_index=True)[["study", "model", "figure", "value", "low", "high", "n"]]


def _student_rows(clip: Clip) -> pd.DataFrame:
    """Rows of `studies.architectures.compare_models` of one model, explained through its last layer alone."""
    return compare_models({"": replace(clip, image_layers=1)}, two_thing_examples(60))


def compare_two(study: str, table: pd.DataFrame | None = None, models: Sequence[str] = MODELS) -> pd.DataFrame:
    """The figures of a study by model, and what can be said of both."""
    table = pd.read_csv(data_path(TABLE)) if table is None else table
    columns(table, ("study", "model", "figure", "value", "low", "high"))
    rows = table[(table["study"] == study) & table["model"].isin(models)]
    models = [name for name in models if name in set(rows["model"])]
    if len(models) < 2:
        msg = f"two models or more are compared, and {study!r} has {models}; studies: {', '.join(COMPARED)}"
        raise GradeclipError(msg)
    found = rows.pivot(index="figure", columns="model", values="value").reindex(rows["figure"].unique())[models]
    found.columns.name = None
    spans = rows.assign(text=[f"[{low:.2f}, {high:.2f}]" for low, high in rows[["low", "high"]].to_numpy()])
    found["intervals"] = spans.groupby("figure")["text"].agg(" ".join)
    found["both models"] = rows.groupby("figure")[["figure", "low", "high"]].apply(_said)
    found["apart"] = rows.groupby("figure")["low"].max() > rows.groupby("figure")["high"].min()
    return found


def _said(rows: pd.DataFrame) -> str:
    """What all models together say of one figure."""
    point = neutral_value(rows["figure"].iloc[0])
    sides = np.where(rows["low"] > point, 1, np.where(rows["high"] < point, -1, 0))
    if len(set(sides)) == 1:
        return HOLDS if sides[0] else NEITHER
    return TURNED if {1, -1} <= set(sides) else ONE


def two_in_words(both: pd.DataFrame) -> str:
    """How many figures both models show, which not, and which differ in size, in one sentence."""
    named = {what: _listed(both.index[both["both models"] == what]) for what in (TURNED, ONE, NEITHER)}
    holds = (both["both models"] == HOLDS).sum()
    named["of another size, their intervals apart"] = _listed(both.index[both["apart"]])
    rest = "".join(f"; {what}: {names}" for what, names in named.items() if names)
    return f"{holds} of {len(both)} figures hold for both models{rest}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"“{name}”" for name in names)  # in quotes, because there are commas in them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `study two-models`."""
    about = "by name, or NAME=FILE for weights with their config beside them, or of emoji's architecture; "
    about += f"{' and '.join(MODELS)} if left out"
    parser.add_argument("models", nargs="*", default=MODELS, metavar="MODEL", help=about)
    about = f"all but {STUDENTS} if left out, which compares each model with the first"
    parser.add_argument("--studies", nargs="+", default=COMPARED, choices=(*COMPARED, STUDENTS), help=about)
    parser.add_argument("--out", type=Path, default=data_path(TABLE), help="the table; what it has besides stays")
    add_no_shard(parser)


def run_command(options: argparse.Namespace) -> None:
    """Measure every model, and write its rows into the table as soon as they are there."""
    refuse_shard(options)
    figures_in(writable(options.out, "--out", suffixes=(".csv",), size=1_000_000), _SAME)
    models: dict[str, tuple[str, Clip]] = {}
    for asked in options.models:  # all of them are there before the first is measured
        name, clip = _named_model(asked)
        unused("a model", name, models)
        models[name] = asked, clip
    studies = [study for study in (*COMPARED, STUDENTS) if study in options.studies]
    first, clip = next(iter(models.values()))
    than = _student_rows(clip) if STUDENTS in studies and len(models) > 1 else None
    for name, (asked, clip) in models.items():
        compared = [first] if than is not None and asked != first else []
        words = ["study", "two-models", *compared, asked]
        words += ["--studies", *studies] if studies != list(COMPARED) else []
        rows = model_figures(name, clip, studies, than if compared else None)
        rows = rows.assign(command=f"python -m gradeclip_utils {shlex.join(words)}", commit=commit())
        rows = rows.assign(version=version("gradeclip"))
        before = figures_in(options.out, _SAME)
        if before is not None:
            kept = before[(before["model"] != name) | ~before["study"].isin(studies)]
            rows = pd.concat([kept, rows]).sort_values("model", kind="stable")
        text = rows.round(5).to_csv(index=False).encode()
        write_whole(options.out, methodcaller("write", text))
