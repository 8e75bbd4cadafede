"""Threads: small models take one, because two wait for each other longer than they compute.

    model -> towers --here--> Trace -> method -> map -> Explanation

Beside a busy process it is worse: a thread that has its part waits, at every step, for one that has no processor.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .base import Tower

SMALL = 20_000_000  # parameters of a tower; the bundled model's have 3 million, the image tower of ViT-B/16 has 86
CHOSEN = torch.get_num_threads()  # by torch itself
_counting, _alone, _usual = threading.Lock(), 0, 0  # how many are in `one_thread`, and torch's threads outside
_here = threading.local()  # whether this thread is


def is_small(tower: Tower) -> bool:
    """Whether `one_thread` pays."""
    return sum(p.numel() for p in tower.part.parameters()) < SMALL


def is_told() -> bool:
    """Whether somebody said how many threads torch takes: by the environment, or by `torch.set_num_threads`."""
    return "OMP_NUM_THREADS" in os.environ or torch.get_num_threads() not in (1, CHOSEN)


@contextmanager
def one_thread(wanted: bool) -> Iterator[None]:
    """Within it torch computes in one thread; then it has its number back."""
    global _alone, _usual
    if not wanted or getattr(_here, "alone", False):
        yield
        return
    with _counting:  # torch hands its number on to threads that begin, so the usual one is asked for when it is there
        _usual, _alone = torch.get_num_threads() if not _alone else _usual, _alone + 1
        torch.set_num_threads(1)
    _here.alone = True
    try:
        yield
    finally:
        _here.alone = False
        with _counting:
            _alone -= 1
            torch.set_num_threads(_usual)
