"""Processes that are forked from one that has done its imports, which take longer than a run."""

import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

import torch

from gradeclip_utils.__main__ import main

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(
    [__name__, "gradeclip_utils.measures.evaluation", "gradeclip_utils.measures.dataset_report"]
)


def begin(arguments, folder, **environment):
    """Start the command in a forked process; what it prints goes to printed.txt in the folder."""
    environment = {"OMP_NUM_THREADS": "1", "TMPDIR": str(folder), **environment}
    printed = folder / "said.txt"
    process = FORKED.Process(target=run_command, args=(arguments, environment, printed))
    process.start()
    return process


def run_command(arguments, environment, printed: Path):
    """The command, in the forked process."""
    os.environ.update(environment)
    tempfile.tempdir = None  # to be looked up again
    torch.set_num_threads(1)
    with printed.open("w") as file:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(main(arguments))
