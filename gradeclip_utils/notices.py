"""Notices: what an explanation warns of, and who hears it.

    method, explainer -> warn -> Python's warnings, or whoever listens

A warning is about an explanation that is valid but should be read with care. It points at the line outside of this
package that asked for the explanation; a panel, which has a place of its own for such sentences, listens instead.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch takes seconds to import, and plots and data sets do without
    from torch import Tensor

_listener: ContextVar[Callable[[str], object] | None] = ContextVar("listener", default=None)  # of `heard_by`


class ExplanationWarning(UserWarning):
    """The explanation is valid but should be read with care; the message says why."""


def warn_of_empty_maps(maps: Tensor, valid_mask: Tensor, what: str) -> None:
    """Say so when a map (B, T, N) is zero at every real token (B, N): there is nothing to see, and why."""
    empty = int((maps.masked_fill(~valid_mask[:, None], 0.0) == 0).all(dim=-1).sum())
    if empty:
        reason = "all tokens answer the query equally, or the target does not depend on them"
        warn(f"{empty} of {maps.shape[0] * maps.shape[1]} {what} zero everywhere: {reason}")


@contextmanager
def heard_by(listener: Callable[[str], object]) -> Iterator[None]:
    """Within it, and in this thread alone, what explanations warn of goes to `listener` instead.

    Python's own `warnings.catch_warnings` changes what all threads share, and panels draw in several.
    """
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def warn(message: str) -> None:
    """An `ExplanationWarning` at the line outside of this package that asked for it, unless `heard_by` somebody."""
    if (listener := _listener.get()) is not None:
        listener(message)
        return
    depth, frame = 1, inspect.currentframe()
    while frame and _ours(frame.f_globals.get("__package__")):
        depth, frame = depth + 1, frame.f_back
    warnings.warn(message, ExplanationWarning, stacklevel=depth)


def _ours(package: str | None) -> bool:
    return package is not None and package.partition(".")[0] == __package__
