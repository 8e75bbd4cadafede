"""Runtime: torch's modes and threads while the package computes, and traces that are not computed twice."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from .towers import Trace


@contextmanager
def isolated_torch_state(device: torch.device) -> Iterator[None]:
    """Compute without gradients, inference mode and autocast, in whatever mode the caller is."""
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        torch.autocast(device.type, enabled=False),
    ):
        yield


@contextmanager
def one_thread(enabled: bool) -> Iterator[None]:
    """Compute in one thread: those of a small model wait longer for each other than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if enabled else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def remembering(trace: Callable[..., Trace]) -> Callable[..., Trace]:
    """A tower's `trace` that keeps its last trace, for the same inputs with another prompt."""
    last: Trace | None = None

    def trace_once(inputs: torch.Tensor, graph: bool = False) -> Trace:
        nonlocal last
        if last is None or (graph and last.graph is None) or not torch.equal(last.inputs, inputs):
            last = trace(inputs, graph)
        return last

    return trace_once
