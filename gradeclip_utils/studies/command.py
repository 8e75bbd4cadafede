"""The command `python -m gradeclip_utils study NAME`: the main figures of a study, of any model, as a table."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..files import write_whole
from ..models import load_clip
from . import STUDIES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of every study."""
    parser.add_argument("--model", help="a name that open_clip knows, or 'emoji', the bundled model")
    parser.add_argument("--pretrained", metavar="TAG_OR_PATH", help="weights: a tag of open_clip, or a file")
    parser.add_argument("--device", default="cpu", help="default: %(default)s")
    parser.add_argument("--out", metavar="FILE.csv", type=Path, help="where the table goes; printed if left out")


def run_command(options: argparse.Namespace) -> None:
    """Measure a model and print its figures, or write them as CSV.

    Args:
        options: of `add_arguments`, and `command`, the name of the study.

    Raises:
        ValueError: there is no such study, or no place for the table; before a model is loaded.
    """
    if options.command not in STUDIES:
        raise ValueError(f"a study is one of {', '.join(STUDIES)}, got {options.command!r}")
    if options.out is not None and not options.out.absolute().parent.is_dir():
        raise ValueError(f"--out must lie in a folder that exists, got {str(options.out)!r}")
    clip = load_clip(options.model, options.pretrained, device=options.device)
    table = STUDIES[options.command](clip)
    if options.out is None:
        print(table.round(3).to_string(index=False))
    else:
        write_whole(options.out, lambda stream: stream.write(table.to_csv(index=False).encode()))
        print(f"{len(table)} figures of {clip.name} written to {options.out}")
