"""The command `python -m gradeclip_utils study NAME`: the main figures of a study, of any model, as a table.

parts of a study -> those of this shard that the table lacks -> measured, one after the other -> table

python -m gradeclip_utils study causal --out causal.csv                # given again, it goes on where it was stopped
srun -n 5 python -m gradeclip_utils study causal --out causal.csv      # each takes its shard, and has its own table
python -m gradeclip_utils study causal --out causal.csv                # takes what the shards have, measures the rest
"""

from __future__ import annotations

import argparse
import glob
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from gradeclip_utils.checks import as_path, chosen, writable
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.files import locked, read_csv, version, write_whole
from gradeclip_utils.measures.table import weights_digest
from gradeclip_utils.models import load_clip
from studies.commit import commit
from studies.shards import part_of, read_shard

from . import STUDIES

COLUMNS = ["study", "figure", "value", "low", "high", "n"]
ORIGIN = ["model", "weights", "version", "commit", "command"]  # of a figure
_SAME = ["study", "figure", "model", "weights"]  # a figure that was measured again takes the place of the old one


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a study that measures a model on scenes."""
    add_table(parser)
    parser.add_argument("--part", metavar="NAME", help="one part of the study; of a wrong name, its parts are listed")
    parser.add_argument("--shard", metavar="i/n", help="only every n-th part; by default as Slurm or torchrun say it")


def add_table(parser: argparse.ArgumentParser) -> None:
    """Add the argument that says where figures go."""
    parser.add_argument(
        "--out", metavar="FILE.csv", type=Path,
        help="a table that gets the figures, with model, weights, version, commit and command; printed if left out",
    )  # fmt: skip


def run_command(options: argparse.Namespace) -> None:
    """Measure a model and print its figures, or write them as CSV, those of a part as soon as they are there."""
    if options.command not in STUDIES:
        raise GradeclipError(f"a study is one of {', '.join(STUDIES)}, got {options.command!r}")
    parts, more = (getattr(STUDIES[options.command], name, ()) for name in ("parts", "more"))
    if options.part is not None and not (*parts, *more):
        msg = f"study {options.command} is measured as a whole: leave out --part, got {options.part!r}"
        raise GradeclipError(msg)
    asked: Sequence[str | None] = (None,) if options.part is None else (chosen("part", options.part, (*parts, *more)),)
    check_table(options.out)
    if (shard := read_shard(options.shard)) is not None:
        if options.out is None:
            raise GradeclipError("--shard needs --out FILE.csv, beside which every shard has its table")
        options.out = _beside(options.out, f"{shard[0]}-of-{shard[1]}")
        check_table(options.out)
    if options.out is not None:
        asked = part_of((*(parts or asked), *more) if options.part is None else asked, shard)
    clip = load_clip(options.model, options.pretrained, device=options.device)
    origin = {"model": clip.name, "weights": weights_digest(clip.model)}
    for options.part in asked:
        if options.out is None or not _there(options.out, _origin(origin, options)):
            named = {} if options.part is None else {"part": options.part}
            if len(table := STUDIES[options.command](clip, **named)):  # of a part that the model has
                say(table, origin, options)


def check_table(out: Path | None) -> None:
    """Refuse a place for the table that cannot be had, or a table of something else."""
    if out is None:
        return
    out = writable(out, "--out")
    if not out.absolute().parent.is_dir():
        raise GradeclipError(f"--out must lie in a folder that exists, got {str(out)!r}")
    figures_in(out)


def say(table: pd.DataFrame, origin: Mapping[str, str], options: argparse.Namespace) -> None:
    """Print the figures, or add them to the table `options.out`."""
    if options.out is None:
        print(table.round(3).to_string(index=False))
        return
    _add(table.assign(**_origin(origin, options)), options.out)
    print(f"{len(table)} figures of {origin['model']} written to {options.out}")


def _origin(origin: Mapping[str, str], options: argparse.Namespace) -> dict[str, str]:
    """`ORIGIN` of the figures that a command gives."""
    asked = ((name, getattr(options, name, None)) for name in ("part", "model", "pretrained", "data", "limit"))
    words = ["study", options.command, *(word for name, value in asked if value for word in (f"--{name}", str(value)))]
    command = f"python -m gradeclip_utils {shlex.join(words)}"
    return {**origin, "version": version("gradeclip"), "commit": commit(), "command": command}


def _add(rows: pd.DataFrame, out: Path) -> None:
    """Write figures into a table, in the place of those that were measured before."""
    out = as_path(out, "--out").absolute()
    with locked(out.parent, f".{out.name}.running", wait=60):  # other parts may come to the same table
        before = figures_in(out)
        rows = rows if before is None or before.empty else pd.concat([before, rows], ignore_index=True)
        rows = rows.drop_duplicates(_SAME, keep="last")
        write_whole(out, lambda stream: stream.write(rows.to_csv(index=False).encode()))


def _there(out: Path, origin: Mapping[str, str]) -> bool:
    """Whether a table has the figures of this origin, or a shard's table beside it, from which they are then taken."""
    if origin["commit"].endswith("+"):  # files differ from the commit, and may have differed otherwise
        return False
    for place in (out, *sorted(out.parent.glob(_beside(Path(glob.escape(out.name)), "*").name))):
        found = figures_in(place)
        if found is not None and set(ORIGIN) <= set(found):
            rows = found[(found[list(origin)] == pd.Series(origin)).all(axis=1)]
            if len(rows):
                if place != out:
                    _add(rows, out)
                print(f"{len(rows)} figures are there already: {origin['command']}")
                return True
    return False


def _beside(out: Path, shard: str) -> Path:
    """The table of a shard."""
    return out.with_name(f"{out.stem}-shard-{shard}{out.suffix}")


def figures_in(out: Path, needed: Sequence[str] = _SAME) -> pd.DataFrame | None:
    """The figures that a table has; None where there is no table."""
    if not out.is_file() or not out.stat().st_size:
        return None
    found = read_csv(out, dtype=dict.fromkeys(ORIGIN, str), keep_default_na=False, na_values={"": [""]})
    if missing := [name for name in needed if name not in found]:
        raise GradeclipError(f"{out} is a table of something else: it lacks {', '.join(missing)}")
    return found
