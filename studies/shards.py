"""Shards: which part of a study a process of a cluster computes."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from gradeclip_utils.checks import as_path, whole
from gradeclip_utils.errors import GradeclipError

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
