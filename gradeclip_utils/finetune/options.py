"""What the trainings share: a recipe checked and as arguments, and a table in Markdown that is written into a card."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np

from ..checks import LARGEST_SEED, chosen, number, whole

Recipe = TypeVar("Recipe")
_BOUNDS: dict[str, tuple] = {
    "steps": (1,), "batch": (2, 65_536), "learning_rate": (0, 10), "weight_decay": (0, 10), "seed": (0, LARGEST_SEED),
}  # fmt: skip


def checked(recipe: Recipe, bounds: Mapping[str, tuple]) -> Recipe:
    """The recipe, with Python's own values in place of numpy's, which a state that is read safely cannot hold."""
    doors: dict[str, Callable[..., Any]] = {"int": whole, "float": number}
    plain = {}
    for one in fields(recipe):  # type: ignore[arg-type]
        value = getattr(recipe, one.name)
        value = value.item() if isinstance(value, np.generic) else value
        if door := doors.get(str(one.type)):
            value = door(one.name, value, *{**_BOUNDS, **bounds}.get(one.name, (0,)))
        elif one.type == "bool":
            value = chosen(one.name, value, (False, True))
        plain[one.name] = value
    return replace(recipe, **plain)  # type: ignore[type-var]


def add_fields(parser: argparse.ArgumentParser, recipe: Any, only: Sequence[str] = (), *, unset: bool = False) -> None:
    """Add an argument for every field of a recipe: `--learning-rate 0.002` for `learning_rate`."""
    said = re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", inspect.getdoc(type(recipe)) or "", re.M)  # its "Attributes:"
    about = {name: f"{' '.join(text.split()).rstrip('.')}; ".replace("%", "%%") for name, text in said}
    for name in only or [one.name for one in fields(recipe)]:
        value = getattr(recipe, name)
        kind: dict[str, Any] = {"type": type(value)}
        if isinstance(value, bool):
            kind = {"action": argparse.BooleanOptionalAction}
        told = "in place of its own" if unset else "%(default)s by default" if value != "" else "none by default"
        told = about.get(name, "") + told
        parser.add_argument(f"--{name.replace('_', '-')}", default=None if unset else value, help=told, **kind)


def read_fields(options: argparse.Namespace, recipe: Recipe) -> Recipe:
    """The recipe with what was given of its fields in place of its own."""
    given = {one.name: getattr(options, one.name, None) for one in fields(recipe)}  # type: ignore[arg-type]
    return replace(recipe, **{name: value for name, value in given.items() if value is not None})  # type: ignore[type-var]
