"""The command `python -m gradeclip_utils study NAME`: the main figures of a study, of any model, as a table."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from ..checks import as_path, writable
from ..errors import InvalidFile, InvalidValue
from ..evaluation.run import weights_digest
from ..evaluation.shards import add_no_shard, refuse_shard
from ..files import commit, version, write_whole
from ..models import load_clip
from . import STUDIES

COLUMNS = ["study", "figure", "value", "low", "high", "n"]
ORIGIN = ["model", "weights", "version", "commit", "command"]  # of a figure
_SAME = ["study", "figure", "model", "weights"]  # a figure that was measured again takes the place of the old one


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a study that measures a model on few scenes."""
    add_table(parser)
    add_no_shard(parser)


def add_table(parser: argparse.ArgumentParser) -> None:
    """Add the argument that says where figures go."""
    parser.add_argument(
        "--out", metavar="FILE.csv", type=Path,
        help="a table that gets the figures, with model, weights, version, commit and command; printed if left out",
    )  # fmt: skip


def run_command(options: argparse.Namespace) -> None:
    """Measure a model and print its figures, or write them as CSV.

    Args:
        options: of `add_arguments`, and `command`, the name of the study.

    Raises:
        ValueError: there is no such study, no place for the table, or a shard was asked for; before a model is loaded.
    """
    if options.command not in STUDIES:
        raise InvalidValue(f"a study is one of {', '.join(STUDIES)}, got {options.command!r}", "choice-unknown")
    refuse_shard(options)
    check_table(options.out)
    clip = load_clip(options.model, options.pretrained, device=options.device)
    table = STUDIES[options.command](clip)
    say(table, {"model": clip.name, "weights": weights_digest(clip.model)}, options)


def check_table(out: Path | None) -> None:
    """Refuse a place for the table that cannot be had, or a table of something else.

    Raises:
        InvalidFile: says which.
    """
    if out is None:
        return
    if not out.absolute().parent.is_dir():
        raise InvalidFile(f"--out must lie in a folder that exists, got {str(out)!r}", "path-missing")
    figures_in(writable(out, "--out"))


def say(table: pd.DataFrame, origin: Mapping[str, str], options: argparse.Namespace) -> None:
    """Print the figures, or add them to the table `options.out`.

    Args:
        table: as a study gives it.
        origin: the model's name, and the checksum of its weights.
        options: of the command, which is kept beside each figure.
    """
    if options.out is None:
        print(table.round(3).to_string(index=False))
        return
    asked = ((name, getattr(options, name, None)) for name in ("model", "pretrained", "data", "limit"))
    words = ["study", options.command, *(word for name, value in asked if value for word in (f"--{name}", str(value)))]
    added = table.assign(**origin, version=version("gradeclip"), commit=commit(),
                         command=f"python -m gradeclip_utils {shlex.join(words)}")  # fmt: skip
    out = as_path(options.out, "--out").absolute()
    before = figures_in(out)
    rows = added if before is None or before.empty else pd.concat([before, added], ignore_index=True)
    rows = rows.drop_duplicates(_SAME, keep="last")
    write_whole(out, lambda stream: stream.write(rows.to_csv(index=False).encode()))
    print(f"{len(table)} figures of {origin['model']} written to {options.out}")


def figures_in(out: Path, needed: Sequence[str] = _SAME) -> pd.DataFrame | None:
    """The figures that a table has; None where there is no table.

    Args:
        out: the file.
        needed: columns that it must have.

    Raises:
        InvalidFile: it is no table, or one of something else.
    """
    if not out.is_file() or not out.stat().st_size:
        return None
    try:
        found = pd.read_csv(out, dtype=dict.fromkeys(ORIGIN, str), keep_default_na=False, na_values={"": [""]})
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InvalidFile(f"{out} is no table of figures ({error}): choose another --out", "table-other") from error
    if missing := [name for name in needed if name not in found]:
        raise InvalidFile(f"{out} is a table of something else: it lacks {', '.join(missing)}", "table-other")
    return found
