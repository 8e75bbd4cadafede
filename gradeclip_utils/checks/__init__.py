"""Checks: the doors that all rooms share. Each takes what was given and returns it, or refuses it in one sentence.

Nothing here needs torch. `name` is what a user calls the thing that is checked: an argument, or an option.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from functools import partial
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import GradeclipError, first_line, short
from .paths import as_path, readable, writable  # noqa: F401, paths are checked too

if TYPE_CHECKING:  # the command line's help does without
    import numpy as np

T = TypeVar("T")
LARGEST_SEED = 2**63 - 1  # what torch and numpy both take


def nearest(name: str, known: Iterable[str], *, most: int = 3, cutoff: float = 0.5) -> list[str]:
    """The known names that a misspelt one may have meant, best first, whatever their case."""
    lowered = {candidate.lower(): candidate for candidate in known}
    return [lowered[key] for key in difflib.get_close_matches(name.lower(), lowered, n=most, cutoff=cutoff)]


def hint(name: str, known: Iterable[str]) -> str:
    """The end of a refusal: `did you mean a or b?`, or `choose from` all there are where none is near."""
    known = list(known)
    near = nearest(name, known)
    return f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(known)}"


# ------------------------------------------------------------------------------------------------------------ numbers


def whole(name: str, value: Any, least: int = 0, most: int | None = None) -> int:
    """A whole number from `least` to `most`: a count, a number of something, a seed."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise GradeclipError(f"{name} must be a whole number, got {short(value)}")
    value = int(value)
    if value < least or (most is not None and value > most):
        bound = f"at least {least}" if value < least else f"at most {most}"
        raise GradeclipError(f"{name} must be {bound}, got {value}")
    return value


seed = partial(whole, "seed", most=LARGEST_SEED)  # a seed of random numbers, checked


def number(name: str, value: Any, least: float, most: float = math.inf) -> float:
    """A finite number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise GradeclipError(f"{name} must be a number, got {short(value)}")
    value = float(value)
    if not (least <= value <= most and math.isfinite(value)):
        bounds = f"{least:g} or more" if most == math.inf else f"from {least:g} to {most:g}"
        raise GradeclipError(f"{name} must be {bounds}, got {value}")
    return value


def between(name: str, value: Any) -> float:
    """A fraction between 0 and 1, and neither of the two."""
    value = number(name, value, 0, 1)
    if value in (0, 1):
        raise GradeclipError(f"{name} must lie between 0 and 1, got {value:g}")
    return value


def finite(what: str, values: Any) -> np.ndarray:
    """Values as an array, if all of them are numbers; tensors of any type and device, and lists, are taken."""
    import numpy as np

    if hasattr(values, "detach"):  # torch's, which numpy takes not from every device and of every type
        values = values.detach().cpu().double().numpy()
    try:
        found = np.asarray(values)
        found = found.astype(float) if found.dtype == object else found
    except (TypeError, ValueError, OverflowError):
        found = None
    if found is None or found.dtype.kind not in "biuf":
        raise GradeclipError(f"{what} must be an array of numbers, got {short(values)}")
    if broken := int((~np.isfinite(found)).sum()):
        some = f"{broken} of {found.size} values of {what} are NaN or infinite"
        raise GradeclipError(f"{some}; leave those out, and say how many")
    return found


def as_map(values: Any) -> np.ndarray:
    """A map (h, w) of floats."""
    found = finite("the map", values).astype(float, copy=False)
    if found.ndim != 2 or not found.size:
        raise GradeclipError(f"a map has rows and columns, (H, W), got shape {found.shape}")
    return found


def as_box(box: Any, width: int, height: int) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a part of an image."""
    if box is None:
        return 0.0, 0.0, float(width), float(height)
    found = finite("a box", box)
    if found.shape != (4,) or not (found[:2] < found[2:]).all():
        raise GradeclipError(f"a box is (left, top, right, bottom), got {short(box)}")
    left, top, right, bottom = found.tolist()
    return left, top, right, bottom


def chosen(name: str, value: Any, known: Iterable[T]) -> T:
    """One of the values that are known, which need not be hashable to be refused."""
    known = list(known)
    if isinstance(value, (str, Real)):
        for one in known:
            if one == value:
                return one  # ours: 1.0 would pass for 1, and 1 for True
    one_of = " or ".join(map(repr, known)) if len(known) < 3 else f"one of {', '.join(map(str, known))}"
    raise GradeclipError(f"{name} must be {one_of}, got {short(value)}")


def listed(name: str, values: Any, single: tuple[type, ...] = ()) -> list:
    """Several things as a list; one that is of a type of `single` as a list of one."""
    if isinstance(values, single):
        return [values]
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise GradeclipError(f"{name} must be a list, got {short(values)}")
    return list(values)


def instance(name: str, value: Any, kind: Any, said: str) -> Any:
    """A value of a type."""
    if not isinstance(value, kind):
        raise GradeclipError(
            f"{name} must be {said}, got {short(value)}", "text-type" if kind is str else "argument-type"
        )
    return value


text = partial(instance, kind=str, said="a text")  # a text, checked


def titled(name: str, values: Any) -> list[tuple[str, Any]]:
    """Things with their titles, as pairs."""
    found = list(values.items()) if isinstance(values, Mapping) else listed(name, values)
    for one in found:
        if not isinstance(one, tuple) or len(one) != 2 or not isinstance(one[0], str):
            raise GradeclipError(f"{name} must be pairs of a title and a thing, got {short(one)}")
    return found


def all_chosen(name: str, values: Any, known: Iterable[str]) -> list[str]:
    """One or more of the names that are known, as a list."""
    found, known = listed(name, values, (str,)), list(known)
    if not found:
        raise GradeclipError(f"{name} must be some of {', '.join(known)}, and none was given")
    return [chosen(f"each of {name}", value, known) for value in found]


def columns(table: Any, names: Iterable[str]) -> None:
    """Refuse a table that lacks a column."""
    if isinstance(table, (str, bytes)) or not isinstance(table, Iterable):
        raise GradeclipError(f"a table is needed, a pandas DataFrame, got {short(table)}")
    if missing := [name for name in names if name not in table]:
        has = ", ".join(map(repr, table)) or "none"
        raise GradeclipError(f"the table has no column {missing[0]!r}; it has {has}")


def numbers(table: Any, names: Iterable[str]) -> Any:
    """Some columns of a table as floats."""
    columns(table, names := list(names))
    try:
        return table[names].astype(float)
    except (TypeError, ValueError) as error:
        msg = f"the columns {', '.join(names)} must hold numbers ({first_line(error)})"
        raise GradeclipError(msg) from None


def unused(what: str, name: str, known: Mapping[str, Any]) -> None:
    """Refuse a name that is taken."""
    if name in known:
        raise GradeclipError(f"there is {what} {name!r}: choose another name")
