"""Runtime: torch's modes and threads while the package computes, and traces that are kept."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from .errors import GradeclipError, first_line
from .towers import Graph, Tower, Trace


def usable_device(device: str | torch.device) -> torch.device:
    """A device on which torch computes here, or a refusal."""
    try:
        usable = torch.device(device)
        torch.empty(0, device=usable)
    except (AssertionError, RuntimeError, TypeError) as error:
        raise GradeclipError(
            f"torch cannot compute on device={device!r} here: {first_line(error)}"
        ) from error
    return usable


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
    """Compute in one thread: in a small model, threads wait longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if enabled else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class TraceMemory:
    """The last trace of each tower, kept while it is switched on.

    The same image with another prompt or method is then traced once.
    """

    def __init__(self, enabled: bool = False):
        self.enabled = enabled
        self._last: dict[Tower, Trace] = {}

    @contextmanager
    def switched_on(self) -> Iterator[None]:
        """Keep traces within the block."""
        before = self.enabled
        self.enabled = True
        try:
            yield
        finally:
            self.enabled = before
            if not before:
                self._last.clear()

    def trace(self, tower: Tower, inputs: Tensor, graph: Graph | None = None) -> Trace:
        """The trace of inputs by a tower, the kept one if it is of the same inputs.

        A kept one serves without its layer graph, too: methods then compute their layers again.
        """
        if not self.enabled:
            return tower.trace(inputs, graph)

        kept = self._last.get(tower)
        if kept is not None and torch.equal(kept.inputs, inputs):
            has_graph = graph is None or getattr(kept, graph) is not None
            if has_graph or graph == "layer_graph":
                return kept

        trace = tower.trace(inputs, graph)
        self._last[tower] = trace
        return trace
