"""Messages: the exception for invalid input, the warning for explanations to read with care.

A message repeats the input, states the rule and says what to do; helpers for that stand here too.
"""

import difflib
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType


class GradeclipError(ValueError):
    """Invalid input. The message repeats the input, states the rule, and says what to do."""


class UnsupportedModel(GradeclipError):
    """The model has a part that cannot be explained. The message names the part."""


class ExplanationWarning(UserWarning):
    """The explanation is valid but should be read with care; the message says why."""


def warn(message: str, kind: type[UserWarning] = ExplanationWarning) -> None:
    """Warn on behalf of the function that calls this one."""
    warnings.warn(message, kind, stacklevel=3)


@contextmanager
def heard_by(listener: Callable[[str], object]) -> Iterator[None]:
    """Give warnings of explanations to a function when the block ends, as panels show their own."""
    with warnings.catch_warnings(record=True) as records:
        warnings.simplefilter("always", ExplanationWarning)
        try:
            yield
        finally:
            for record in records:
                if issubclass(record.category, ExplanationWarning):
                    listener(str(record.message))


def short(value: object, most: int = 60) -> str:
    """The repr of a value in one line, cut to a length that fits into a sentence."""
    text = " ".join(repr(value).split())
    if len(text) > most:
        return f"{text[: most - 3]}..."
    return text


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its class if there is none."""
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def nearest(name: str, names: Iterable[str], *, most: int = 3, cutoff: float = 0.5) -> list[str]:
    """The names that are most like a misspelt one, best first, in any case."""
    by_lowered = {candidate.lower(): candidate for candidate in names}
    matches = difflib.get_close_matches(name.lower(), by_lowered, n=most, cutoff=cutoff)
    return [by_lowered[match] for match in matches]


def hint(name: str, names: Iterable[str]) -> str:
    """The end of a refusal: `did you mean a or b?`, or `choose from` all names if none is near."""
    names = list(names)
    near = nearest(name, names)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"choose from {', '.join(names)}"


def optional_library(name: str, why: str, extra: str = "data") -> ModuleType:
    """A library that only some people need, or a refusal that says how to install it."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        library = name.partition(".")[0]
        msg = f"{why}, and needs {library}: pip install 'gradeclip[{extra}]'"
        raise GradeclipError(msg) from error
