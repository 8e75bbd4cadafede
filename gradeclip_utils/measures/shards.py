"""Shards: a computation dealt out to the processes of a cluster, each with a folder of its own, and put together again.

    shard i of n: every n-th chunk of examples -> OUT/shard-i-of-n -> merge -> OUT

    srun -n 8 python -m gradeclip_utils evaluate --data coco:/data/coco --out runs/coco        # each takes its shard
    python -m gradeclip_utils evaluate --out runs/coco --merge

No process waits for another one, and none has to be there at the same time: a shard that was killed is started again by
the same command. Whatever deals them out (Slurm, torchrun, a shell) has only to say which shard a process is.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import pandas as pd

from ..checks import as_path, whole
from ..errors import GradeclipError
from .results import Results, read_settings, read_whole

T = TypeVar("T")
Shard = tuple[int, int]
_ENVIRONMENT = (("SLURM_PROCID", "SLURM_NTASKS"), ("RANK", "WORLD_SIZE"))


def read_shard(text: str | None) -> Shard | None:
    """Which shard this process is: as it was given, or else as Slurm or torchrun say it."""
    source = "--shard"
    if text is None:
        both = [pair for pair in _ENVIRONMENT if all(name in os.environ for name in pair)]
        if not both:
            return None
        source, text = "/".join(both[0]), "/".join(os.environ[name] for name in both[0])
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", str(text))
    shard = (int(found[1]), int(found[2])) if found else (0, 0)
    if not shard[0] < shard[1]:
        raise GradeclipError(f"{source} must be i/n, from 0/n to one less than n/n, got {text!r}")
    return shard if shard[1] > 1 else None


def add_no_shard(parser: argparse.ArgumentParser) -> None:
    """Add `--shard` to a study that is not dealt out, so that it can say why."""
    parser.add_argument("--shard", metavar="i/n", help="refused: this study is short")


def refuse_shard(options: argparse.Namespace) -> None:
    """Refuse to do a part of a study whose figures come from few scenes, all of them together."""
    if options.shard is not None:
        rule = f"study {options.command} is short and takes all of its scenes together: leave out --shard"
        msg = f"{rule}, got {options.shard!r}; evaluate and the studies of one model or data set are dealt out"
        raise GradeclipError(msg)


def part_of(parts: Sequence[T], shard: Shard | None) -> Sequence[T]:
    """The parts that a shard computes: every n-th, so that each shard sees all of a sorted data set."""
    if shard is None:
        return parts
    if not isinstance(shard, tuple) or len(shard) != 2:
        raise GradeclipError(f"a shard is (i, n), from (0, n) to (n - 1, n), got {shard!r}")
    n = whole("n of a shard (i, n)", shard[1], 1)
    return parts[whole("i of a shard (i, n)", shard[0], 0, n - 1) :: n]


def shard_folder(out: str | Path, shard: Shard | None) -> Path:
    """Where the rows of a shard lie."""
    out = as_path(out, "the folder of an evaluation")
    return out if shard is None else out / f"shard-{shard[0]}-of-{shard[1]}"


def merge(out: str | Path) -> tuple[pd.DataFrame, dict]:
    """Put the shards in `out` together: it then holds what one process would have written there."""
    out = as_path(out, "the folder of an evaluation")
    found = {(int(i), int(n)): folder for folder in sorted(out.glob("shard-*-of-*"))
             for i, n in re.findall(r"^shard-(\d+)-of-(\d+)$", folder.name)}  # fmt: skip
    counts = sorted({n for _, n in found})
    if not counts:
        raise GradeclipError(f"{out} holds no shards, whose folders are called shard-0-of-8 and so on")
    if len(counts) > 1:
        listed = " and ".join(map(str, counts))
        raise GradeclipError(f"{out} holds shards of {listed}: take those away that are not meant")
    if absent := [i for i in range(counts[0]) if (i, counts[0]) not in found]:
        raise GradeclipError(f"{out} lacks shard {absent[0]} of {counts[0]}: run it with --shard {absent[0]}/{counts[0]}")  # fmt: skip
    settings = read_settings(found[0, counts[0]])
    if lacking := [name for name in ("examples", "chunk") if not isinstance(settings.get(name), int)]:
        msg = f"{found[0, counts[0]]} is no shard of an evaluation: it does not say its {' and '.join(lacking)}"
        raise GradeclipError(msg)
    numbers, chunks = range(-(-settings["examples"] // settings["chunk"])), {}
    for (i, n), folder in found.items():
        own = read_settings(folder)
        if differing := [name for name in {**settings, **own} if own.get(name) != settings.get(name)]:
            differ = f"{', '.join(differing)} differ"
            msg = f"shard {i} of {n} in {out} is of another computation than shard 0: {differ}"
            raise GradeclipError(msg)
        there, wanted = read_whole(folder), part_of(numbers, (i, n))
        if missing := sum(number not in there for number in wanted):
            msg = f"shard {i} of {n} in {out} is not done: {missing} of its {len(wanted)} chunks are missing or damaged"
            raise GradeclipError(f"{msg}; run it again with --shard {i}/{n}")
        chunks |= {number: there[number] for number in wanted}
    rows = pd.concat([chunks[number][0] for number in numbers], ignore_index=True)
    with closing(Results(out, settings)) as results:
        for number in numbers:
            results.write(number, *chunks[number])
        results.write_table(rows)
    return rows, settings
