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

from ..errors import InvalidType, InvalidValue, first_line, short
from .paths import as_path, readable, writable  # noqa: F401, paths are checked too

if TYPE_CHECKING:  # the command line's help does without
    import numpy as np

T = TypeVar("T")
LARGEST_SEED = 2**63 - 1  # what torch and numpy both take


def nearest(name: str, known: Iterable[str], *, most: int = 3, cutoff: float = 0.5) -> list[str]:
    """The known names that a misspelt one may have meant, best first, whatever their case.

    Args:
        name: what was given.
        known: what there is.
        most: no more than this many.
        cutoff: how like it they are, from 0 to 1 (`difflib.SequenceMatcher.ratio`).
    """
    lowered = {candidate.lower(): candidate for candidate in known}
    return [lowered[key] for key in difflib.get_close_matches(name.lower(), lowered, n=most, cutoff=cutoff)]


def hint(name: str, known: Iterable[str]) -> str:
    """The end of a refusal: `did you mean a or b?`, or `choose from` all there are where none is near.

    Args:
        name: what was given.
        known: what there is.
    """
    known = list(known)
    near = nearest(name, known)
    return f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(known)}"


# ------------------------------------------------------------------------------------------------------------ numbers


def whole(name: str, value: Any, least: int = 0, most: int | None = None) -> int:
    """A whole number from `least` to `most`: a count, a number of something, a seed.

    Args:
        name: of the argument, for the message.
        value: what was given.
        least: the smallest that is allowed.
        most: the largest; None for no bound.

    Raises:
        InvalidType: it is no whole number (True and 1.0 are none).
        InvalidValue: it is too small or too large.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InvalidType(f"{name} must be a whole number, got {short(value)}", "number-whole")
    value = int(value)
    if value < least or (most is not None and value > most):
        bound = f"at least {least}" if value < least else f"at most {most}"
        raise InvalidValue(f"{name} must be {bound}, got {value}", "number-range")
    return value


seed = partial(whole, "seed", most=LARGEST_SEED)  # a seed of random numbers, checked


def number(name: str, value: Any, least: float, most: float = math.inf) -> float:
    """A finite number from `least` to `most`.

    Args:
        name: of the argument, for the message.
        value: what was given.
        least: the smallest that is allowed.
        most: the largest.

    Raises:
        InvalidType: it is no number.
        InvalidValue: it is not finite, or beyond the bounds.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InvalidType(f"{name} must be a number, got {short(value)}", "number-type")
    value = float(value)
    if not (least <= value <= most and math.isfinite(value)):
        bounds = f"{least:g} or more" if most == math.inf else f"from {least:g} to {most:g}"
        raise InvalidValue(f"{name} must be {bounds}, got {value}", "number-range")
    return value


def between(name: str, value: Any) -> float:
    """A fraction between 0 and 1, and neither of the two.

    Args:
        name: of the argument, for the message.
        value: what was given.

    Raises:
        InvalidType, InvalidValue: as of `number`.
    """
    value = number(name, value, 0, 1)
    if value in (0, 1):
        raise InvalidValue(f"{name} must lie between 0 and 1, got {value:g}", "number-range")
    return value


def finite(what: str, values: Any) -> np.ndarray:
    """Values as an array, if all of them are numbers; tensors of any type and device, and lists, are taken.

    Args:
        what: they are, for the message.
        values: what was given.

    Raises:
        InvalidType: they are none: texts, dates, complex numbers, lists of several lengths.
        InvalidValue: some are NaN or infinite; says how many.
    """
    import numpy as np

    if hasattr(values, "detach"):  # torch's, which numpy takes not from every device and of every type
        values = values.detach().cpu().double().numpy()
    try:
        found = np.asarray(values)
        found = found.astype(float) if found.dtype == object else found
    except (TypeError, ValueError, OverflowError):
        found = None
    if found is None or found.dtype.kind not in "biuf":
        raise InvalidType(f"{what} must be an array of numbers, got {short(values)}", "values-shape")
    if broken := int((~np.isfinite(found)).sum()):
        some = f"{broken} of {found.size} values of {what} are NaN or infinite"
        raise InvalidValue(f"{some}; leave those out, and say how many", "values-not-finite")
    return found


def as_map(values: Any) -> np.ndarray:
    """A map (h, w) of floats.

    Args:
        values: what was given.

    Raises:
        InvalidType, InvalidValue: as of `finite`; another shape, or nothing in it.
    """
    found = finite("the map", values).astype(float, copy=False)
    if found.ndim != 2 or not found.size:
        raise InvalidValue(f"a map has rows and columns, (H, W), got shape {found.shape}", "map-shape")
    return found


def as_box(box: Any, width: int, height: int) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a part of an image.

    Args:
        box: what was given; None is the whole image.
        width: of the image, in pixels.
        height: the same.

    Raises:
        InvalidType, InvalidValue: as of `finite`; not four numbers, or turned round.
    """
    if box is None:
        return 0.0, 0.0, float(width), float(height)
    found = finite("a box", box)
    if found.shape != (4,) or not (found[:2] < found[2:]).all():
        raise InvalidValue(f"a box is (left, top, right, bottom), got {short(box)}", "box-shape")
    left, top, right, bottom = found.tolist()
    return left, top, right, bottom


def chosen(name: str, value: Any, known: Iterable[T]) -> T:
    """One of the values that are known, which need not be hashable to be refused.

    Args:
        name: of the argument, for the message.
        value: what was given.
        known: what may be given.

    Raises:
        InvalidValue: it is none of them; names those there are.
    """
    known = list(known)
    if isinstance(value, (str, Real)):
        for one in known:
            if one == value:
                return one  # ours: 1.0 would pass for 1, and 1 for True
    one_of = " or ".join(map(repr, known)) if len(known) < 3 else f"one of {', '.join(map(str, known))}"
    raise InvalidValue(f"{name} must be {one_of}, got {short(value)}", "choice-unknown")


def listed(name: str, values: Any, single: tuple[type, ...] = ()) -> list:
    """Several things as a list; one that is of a type of `single` as a list of one.

    Args:
        name: of the argument, for the message.
        values: what was given.
        single: types of which one counts as a list of one.

    Raises:
        InvalidType: neither one nor several.
    """
    if isinstance(values, single):
        return [values]
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise InvalidType(f"{name} must be a list, got {short(values)}", "list-type")
    return list(values)


def instance(name: str, value: Any, kind: Any, said: str) -> Any:
    """A value of a type.

    Args:
        name: of the argument, for the message.
        value: what was given.
        kind: the type, as `isinstance` takes it.
        said: the type in words.

    Raises:
        InvalidType: it is of another.
    """
    if not isinstance(value, kind):
        raise InvalidType(f"{name} must be {said}, got {short(value)}", "text-type" if kind is str else "argument-type")
    return value


text = partial(instance, kind=str, said="a text")  # a text, checked


def titled(name: str, values: Any) -> list[tuple[str, Any]]:
    """Things with their titles, as pairs.

    Args:
        name: of the argument, for the message.
        values: pairs, or a dictionary whose keys are the titles.

    Raises:
        InvalidType: neither a dictionary nor pairs, or a title that is no text.
    """
    found = list(values.items()) if isinstance(values, Mapping) else listed(name, values)
    for one in found:
        if not isinstance(one, tuple) or len(one) != 2 or not isinstance(one[0], str):
            raise InvalidType(f"{name} must be pairs of a title and a thing, got {short(one)}", "list-type")
    return found


def all_chosen(name: str, values: Any, known: Iterable[str]) -> list[str]:
    """One or more of the names that are known, as a list.

    Args:
        name: of the argument, for the message.
        values: a name, or several.
        known: what may be given.

    Raises:
        InvalidType, InvalidValue: as of `listed` and `chosen`; none was given.
    """
    found, known = listed(name, values, (str,)), list(known)
    if not found:
        raise InvalidValue(f"{name} must be some of {', '.join(known)}, and none was given", "choice-none")
    return [chosen(f"each of {name}", value, known) for value in found]


def columns(table: Any, names: Iterable[str]) -> None:
    """Refuse a table that lacks a column.

    Args:
        table: what was given.
        names: of the columns that are needed.

    Raises:
        InvalidType: it is no table.
        InvalidValue: names the first that it lacks, and those it has.
    """
    if isinstance(table, (str, bytes)) or not isinstance(table, Iterable):
        raise InvalidType(f"a table is needed, a pandas DataFrame, got {short(table)}", "table-columns")
    if missing := [name for name in names if name not in table]:
        has = ", ".join(map(repr, table)) or "none"
        raise InvalidValue(f"the table has no column {missing[0]!r}; it has {has}", "table-columns")


def numbers(table: Any, names: Iterable[str]) -> Any:
    """Some columns of a table as floats.

    Args:
        table: what was given.
        names: of the columns.

    Raises:
        InvalidType, InvalidValue: as of `columns`; one holds something else.
    """
    columns(table, names := list(names))
    try:
        return table[names].astype(float)
    except (TypeError, ValueError) as error:
        msg = f"the columns {', '.join(names)} must hold numbers ({first_line(error)})"
        raise InvalidType(msg, "values-shape") from None


def unused(what: str, name: str, known: Mapping[str, Any]) -> None:
    """Refuse a name that is taken.

    Args:
        what: it would be the name of, for the message.
        name: what was given.
        known: the names that are taken.

    Raises:
        InvalidValue: it is one of them.
    """
    if name in known:
        raise InvalidValue(f"there is {what} {name!r}: choose another name", "name-taken")
