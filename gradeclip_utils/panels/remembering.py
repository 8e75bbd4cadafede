"""Remembering: a tower that does not trace again what it was just asked for.

model -> tower --here--> Trace -> method -> map -> Explanation
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..towers import Tower, Trace

REMEMBERED = 24  # traces in a memory that several towers share
_PASSES = ("readout", "resume", "forward", "dense", "embed_pixels")  # each runs (a part of) the model


class RememberingTower:
    """A tower that does not trace the same batch twice in a row. Two threads may ask it, each for its own batch.

    Attributes:
        seconds: how long the last new trace took for each input, or 0.
    """

    def __init__(self, tower: Tower, memory: list | None = None, on_pass: Callable[[], None] = lambda: None):
        self._tower, self._on_pass, self.seconds = tower, on_pass, 0.0
        self._shared, self._memory = memory is not None, [] if memory is None else memory

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._tower, name)
        if name == "model":  # some methods fetch it for every pass that they make themselves
            self._on_pass()
        if name not in _PASSES:
            return found

        def counted(*arguments, **options):
            """The same, told of first."""
            self._on_pass()
            return found(*arguments, **options)

        return counted

    def trace(self, inputs: Tensor, graph: bool = False) -> Trace:
        """The tower's trace of a batch, or the one that is remembered of it."""
        of, alone = (type(self._tower), self._tower.layers), len(inputs) == 1
        for known in tuple(self._memory):
            who, trace = known
            if who == of and torch.equal(trace.inputs, inputs) and (self._shared or not graph or trace.graph):
                break
        else:
            self._on_pass()
            begun = time.perf_counter()
            known = of, self._tower.trace(inputs, graph or (self._shared and alone))
            self.seconds = (time.perf_counter() - begun) / len(inputs)
        if alone or not self._shared:
            others = [one for one in self._memory if one is not known] if self._shared else []
            self._memory[:] = [*others, known][-REMEMBERED:]
        return known[1]
