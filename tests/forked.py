"""Processes that are forked from one that has done its imports, which take longest."""

import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

import torch

from gradeclip_utils.__main__ import main

FORKED = multiprocessing.get_context("forkserver")
_IMPORTED = ("measures.evaluation", "measures.dataset_report")
FORKED.set_forkserver_preload([__name__, *(f"gradeclip_utils.{name}" for name in _IMPORTED)])


def begin(arguments, folder, **environment):
    surroundings = {"OMP_NUM_THREADS": "1", "TMPDIR": str(folder), **environment}
    process = FORKED.Process(target=command, args=(arguments, surroundings, folder / "said.txt"))
    process.start()
    return process


def command(arguments, surroundings, said: Path):
    """The command, in the forked process; what it says goes to a file."""
    os.environ.update(surroundings)
    tempfile.tempdir = None  # to be asked for again
    torch.set_num_threads(1)
    with said.open("w") as file:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(main(arguments))
