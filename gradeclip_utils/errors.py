"""Messages: the exception for invalid input, the warning for explanations to read with care, and helpers for both."""

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_listener: ContextVar[Callable[[str], object] | None] = ContextVar(
    "listener", default=None
)  # of `heard_by`


class GradeclipError(ValueError):
    """Invalid input. The message repeats what was given, states the rule, and says what to do."""


class UnsupportedModel(GradeclipError):
    """The model has a part that cannot be explained. The message names the part."""


class ExplanationWarning(UserWarning):
    """The explanation is valid but should be read with care; the message says why."""


@contextmanager
def heard_by(listener: Callable[[str], object]) -> Iterator[None]:
    """Send the warnings of explanations in this thread to a function, as a panel does that shows its own."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def warn(message: str, kind: type[UserWarning] = ExplanationWarning) -> None:
    """Warn at the line outside of this package that asked, or tell the function of `heard_by`."""
    if kind is ExplanationWarning and (listener := _listener.get()) is not None:
        listener(message)
        return
    depth, frame = 1, inspect.currentframe()
    while frame and (frame.f_globals.get("__package__") or "").partition(".")[0] == __package__:
        depth, frame = depth + 1, frame.f_back
    warnings.warn(message, kind, stacklevel=depth)


def short(value: object, most: int = 60) -> str:
    """The repr of a value in one line, cut to a length that fits into a sentence."""
    text = " ".join(repr(value).split())
    return text if len(text) <= most else f"{text[: most - 3]}..."


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its class if there is none; a KeyError names the key."""
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
