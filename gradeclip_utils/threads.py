"""Threads: how many of torch's a small model should have, for panels that several threads of a kernel draw."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .towers import Tower

_SMALL = 20_000_000  # parameters of an image tower; the bundled model has 3 million, ViT-B/16 has 86 million
_counting, _alone, _usual = threading.Lock(), 0, 0  # how many are in `one_thread`, and torch's threads outside


@contextmanager
def one_thread(wanted: bool) -> Iterator[None]:
    """Readouts of a small model take half as long on one thread as on two, which wait for each other all the time."""
    global _alone, _usual
    if not wanted:
        yield
        return
    with _counting:  # torch hands its number on to threads that begin, so the usual one is asked for when it is there
        _usual, _alone = torch.get_num_threads() if not _alone else _usual, _alone + 1
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _counting:
            _alone -= 1
            torch.set_num_threads(_usual)


def is_small(tower: Tower) -> bool:
    """Whether a tower is so small that `one_thread` pays."""
    return sum(p.numel() for p in tower.part.parameters()) < _SMALL
