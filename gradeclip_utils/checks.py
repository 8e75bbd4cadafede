"""Argument checks: each takes a value, returns it in one form, or refuses it in one sentence.

`name` is the user's name for the value: an argument or an option. Nothing here needs torch.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import GradeclipError, short
from .errors import hint as hint
from .errors import nearest as nearest
from .errors import optional_library as optional_library

if TYPE_CHECKING:  # the command line's help does without
    import numpy as np

_T = TypeVar("_T")
_LARGEST_RELEVANCE = 1e30  # maps are drawn in single precision
_LARGEST_SEED = 2**63 - 1  # the largest that torch and numpy both take


# ------------------------------------------------------------------------------------------ numbers


def whole(name: str, value: Any, least: int = 0, most: int | None = None) -> int:
    """A whole number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise GradeclipError(f"{name} must be a whole number, got {short(value)}")
    value = int(value)
    if value < least or (most is not None and value > most):
        bound = f"at least {least}" if value < least else f"at most {most}"
        raise GradeclipError(f"{name} must be {bound}, got {value}")
    return value


seed = partial(whole, "seed", most=_LARGEST_SEED)


def number(name: str, value: Any, least: float, most: float = math.inf) -> float:
    """A finite number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise GradeclipError(f"{name} must be a number, got {short(value)}")
    value = float(value)
    if not (least <= value <= most and math.isfinite(value)):
        bounds = f"{least:g} or more" if most == math.inf else f"from {least:g} to {most:g}"
        raise GradeclipError(f"{name} must be {bounds}, got {value}")
    return value


def finite(what: str, values: Any) -> np.ndarray:
    """Finite numbers as an array; tensors of any type and device, and lists, are taken, masked arrays are not."""
    import numpy as np

    if isinstance(values, np.ma.MaskedArray) and np.ma.getmaskarray(values).any():
        raise GradeclipError(f"{what} must have no masked values: leave them out first")
    try:
        found = (
            values.detach().cpu().double().numpy()
            if hasattr(values, "detach")
            else np.asarray(values)
        )  # torch's
        found = found.astype(float) if found.dtype == object else found
    except (
        TypeError,
        ValueError,
        OverflowError,
        NotImplementedError,
    ):  # sparse and meta tensors, ragged lists
        found = None
    if found is None or found.dtype.kind not in "biuf":
        raise GradeclipError(f"{what} must be an array of numbers, got {short(values)}")
    if broken := int((~np.isfinite(found)).sum()):
        some = f"{broken} of {found.size} values of {what} are NaN or infinite"
        raise GradeclipError(f"{some}: leave those out, and say how many")
    return found


def as_map(values: Any) -> np.ndarray:
    """A map (h, w) of floats."""
    import numpy as np

    found = finite("the map", values).astype(float, copy=False)
    if found.ndim != 2 or not found.size:
        raise GradeclipError(f"a map has rows and columns, (H, W), got shape {found.shape}")
    if np.abs(found).max() > _LARGEST_RELEVANCE:
        raise GradeclipError(
            f"a map has values up to {_LARGEST_RELEVANCE:g}, got {np.abs(found).max():g}"
        )
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


# ------------------------------------------------------------------------ choices, lists and tables


def chosen(name: str, value: Any, known: Iterable[_T]) -> _T:
    """One of the known values."""
    known, is_flag = list(known), type(value).__name__ in ("bool", "bool_")  # numpy's is no Real
    if is_flag or isinstance(value, (str, Real)):
        for one in known:
            if one == value and isinstance(one, bool) == is_flag:
                return one  # the known one: 1.0 would pass for 1
    one_of = (
        " or ".join(map(repr, known)) if len(known) < 3 else f"one of {', '.join(map(str, known))}"
    )
    raise GradeclipError(f"{name} must be {one_of}, got {short(value)}")


flag = partial(chosen, known=(False, True))


def all_chosen(name: str, values: Any, known: Iterable[str]) -> list[str]:
    """One or more of the known names, as a list; a single name counts as a list of one."""
    found, known = listed(name, values, (str,)), list(known)
    if not found:
        raise GradeclipError(f"{name} must be some of {', '.join(known)}, and none was given")
    return [chosen(f"each of {name}", value, known) for value in found]


def listed(name: str, values: Any, single: tuple[type, ...] = ()) -> list:
    """Several things as a list; one of a type of `single` as a list of one; a table as its one column of text."""
    if isinstance(values, single):
        return [values]
    if hasattr(values, "columns") and hasattr(
        values, "iloc"
    ):  # a DataFrame, whose own order is that of its columns
        columns = [values.iloc[:, i].tolist() for i in range(len(values.columns))]
        texts = [
            column for column in columns if column and all(isinstance(one, str) for one in column)
        ]
        if len(texts) != 1:
            has = ", ".join(map(str, values.columns)) or "none"
            msg = f"{name} must be a list or a table with one column of text, got a table with the columns {has}"
            advice = f": give one of them, as table[{has.split(', ')[0]!r}]" if columns else ""
            raise GradeclipError(msg + advice)
        return texts[0]
    if (
        isinstance(values, (str, bytes, Mapping))
        or not isinstance(values, Iterable)
        or getattr(values, "ndim", 1) == 0
    ):
        raise GradeclipError(f"{name} must be a list, got {short(values)}")
    return list(values)


def instance(name: str, value: Any, kind: Any, said: str) -> Any:
    """A value of a type."""
    if not isinstance(value, kind):
        raise GradeclipError(f"{name} must be {said}, got {short(value)}")
    return value


text = partial(instance, kind=str, said="a text")


def columns(table: Any, names: Iterable[str]) -> None:
    """Refuse a table that lacks a column."""
    if not hasattr(table, "iloc"):
        raise GradeclipError(f"the table must be a pandas DataFrame, got {short(table)}")
    if missing := [name for name in names if name not in table]:
        has = ", ".join(map(repr, table)) or "none"
        raise GradeclipError(f"the table has no column {short(missing[0])}; it has {has}")


# -------------------------------------------------------------------------------------------- paths


def as_path(path: Any, what: str) -> Path:
    """A path that the operating system takes, with its tilde expanded; nothing needs to be there."""
    if not isinstance(path, (str, os.PathLike)) or isinstance(path, bytes):
        raise GradeclipError(f"{what} must be a path, got {short(path)}")
    if not str(path).strip():
        raise GradeclipError(f"{what} must be a path, and an empty one was given")
    if str(path).startswith(("http:", "https:")):
        raise GradeclipError(
            f"{what} must be a path: addresses such as {short(str(path))} are not fetched"
        )
    try:
        path = Path(path).expanduser()
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return path
    except (
        OSError,
        ValueError,
        RuntimeError,
    ) as error:  # too long, a loop of links; NUL; the home of no user
        reason = getattr(error, "strerror", None) or error
        raise GradeclipError(f"{what} {short(str(path))} cannot be used: {reason}") from None
    return path


def readable(path: Any, what: str) -> Path:
    """The path of a file that exists; a pipe or a device is refused."""
    path = as_path(path, what)
    if path.is_dir():
        raise GradeclipError(f"{path} is a folder, not {what}")
    if not path.exists():
        raise GradeclipError(f"There is no {what.removeprefix('a ').removeprefix('an ')} {path}")
    if not path.is_file():
        raise GradeclipError(f"{path} is a pipe or a device, not {what}")
    return path


def writable(
    path: Any, what: str, *, folder: bool = False, suffixes: Sequence[str] = (), size: int = 0
) -> Path:
    """A place to write to at the end of a computation, tried before it begins; nothing is made yet."""
    path = as_path(path, what)
    if suffixes and path.suffix.lower() not in suffixes:
        raise GradeclipError(f"{what} must end in {' or '.join(suffixes)}; got {short(str(path))}")
    if path.exists() and path.is_dir() != folder:
        found, wanted = ("file", "folder") if folder else ("folder", "file")
        raise GradeclipError(f"{what} must be a {wanted}, and {path} is a {found}")
    if path.exists() and not (folder or path.is_file()):
        raise GradeclipError(f"{what} must be a file, and {path} is a pipe or a device")
    home = next(
        one for one in (path, *path.absolute().parents)[0 if folder else 1 :] if one.exists()
    )
    try:
        with tempfile.TemporaryFile(dir=home):
            free = shutil.disk_usage(home).free
    except OSError as error:
        raise GradeclipError(
            f"{what} {path} cannot be written: {error.strerror or error}, in {home}"
        ) from error
    if free < size:
        need = f"{math.ceil(size / 1e6):,} MB, and {home} has {math.ceil(free / 1e6):,} MB left"
        raise GradeclipError(f"{what} needs about {need}: free some, or choose another place")
    return path
