"""Registry: `load` finds a data set by one line of text, and `register_dataset` adds a kind of data set."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

import numpy as np

from ..checks import instance, listed, nearest, text, whole
from ..errors import GradeclipError
from .choices import Choice, aro, colorswap, sugar_crepe, winoground
from .emoji import emoji_scenes
from .example import Example
from .mscoco import coco
from .own import own_images, photographs

T = TypeVar("T")


class Dataset(NamedTuple):
    """A kind of data set: `read` takes the text after the colon, whose form `form` describes."""

    read: Callable[[str], list]
    form: str


DATASETS: dict[str, Dataset] = {}  # by kind
CHOICES: dict[str, Dataset] = {}  # by kind


def register_dataset(kind: str, read: Callable[[str], list[Example]], form: str = "WHERE") -> None:
    """Let `load`, and so `evaluate` and the command line, find data sets of another kind.

        register_dataset("birds", lambda path: [Example(...), ...], "FOLDER")
        load("birds:/data/birds")

    Args:
        kind: the word before the colon.
        read: takes the text after the colon and returns the examples. For evaluations in several processes, the
            examples' `image` and `load_mask` must be picklable: functions of a module, or `functools.partial`.
        form: describes the text after the colon, for messages.

    Raises:
        GradeclipError: the kind is taken or holds a colon, `read` is no function.
    """
    _check_kind(kind, read)
    DATASETS[kind] = Dataset(read, form)


def register_choices(kind: str, read: Callable[[str], list[Choice]], form: str = "FOLDER") -> None:
    """Add a data set of images with a right and a wrong caption each, as `register_dataset`, for `load_choices`."""
    _check_kind(kind, read)
    CHOICES[kind] = Dataset(read, form)
    DATASETS[kind] = Dataset(
        lambda rest: [Example(c.key, c.caption, c.key, c.caption, (c.key,), c.image) for c in read(rest)], form
    )


def _check_kind(kind: str, read: Callable) -> None:
    instance("read", read, Callable, "a function")
    if not text("the kind of a data set", kind) or ":" in kind:
        raise GradeclipError(f"a kind of data set is a name without a colon, got {kind!r}")
    if kind in DATASETS:
        msg = f"there are data sets of the kind {kind!r} already: {kind}:{DATASETS[kind].form}"
        raise GradeclipError(msg)


def load(what: str, limit: int | None = None) -> list[Example]:
    """The examples of a data set, in its order.

    Args:
        what: its kind, a colon, and where it is. A split other than the default follows an `@`:
            `coco:FOLDER@train2017`.
        limit: at most this many examples, spread evenly.

    Raises:
        GradeclipError: an unknown kind, a limit below 1, a file that is missing (the message says where to get it) or
            not in its form, a library that is not installed.
    """
    return _read(what, limit, DATASETS, "data set")


def load_choices(what: str, limit: int | None = None) -> list[Choice]:
    """The choices of a data set, in its order: images with a right and a wrong caption each.

        load_choices("sugar-crepe:sugar-crepe/data@coco/val2017")
        load_choices("winoground:winoground")

    Args:
        what: its kind, a colon, and where it is. SugarCrepe's images follow an `@`.
        limit: at most this many choices, spread evenly.

    Raises:
        GradeclipError: as `load`.
    """
    return _read(what, limit, CHOICES, "data set of choices")


def _read(what: str, limit: int | None, known: Mapping[str, Dataset], called: str) -> list:
    """Read a data set of a known kind, at most `limit` of it."""
    kind, _, rest = text("data", what).partition(":")
    if kind not in known or not rest:
        near = nearest(kind, known, most=1)
        forms = ", ".join(f"{name}:{one.form}" for name, one in known.items())
        hint = f"did you mean {near[0]}:...?" if near and kind not in known else f"say {forms}"
        raise GradeclipError(f"{what!r} names no {called}: {hint}")
    spread([], limit)  # a wrong limit is refused before anything is read
    return spread(known[kind].read(rest), limit)


def spread(examples: list[T], limit: int | None) -> list[T]:
    """Return at most `limit` examples, evenly spread, because most data sets are sorted by concept."""
    examples = listed("the examples of a data set", examples)
    if limit is None or whole("limit", limit, 1) >= len(examples):
        return examples
    return [examples[i] for i in np.linspace(0, len(examples) - 1, limit).round().astype(int)]


def _with_split(read: Callable[..., list]) -> Callable[[str], list]:
    """Return a reader of `FOLDER` or `FOLDER@SPLIT`."""

    def split_read(rest: str) -> list:
        """Read a folder, or a split of it."""
        path, _, split = rest.partition("@")
        return read(path, split) if split else read(path)

    return split_read


def _drawn(rest: str) -> list[Example]:
    split, _, n = rest.partition(":")
    if not re.fullmatch(r"\d{1,9}", n):
        msg = f"say how many scenes: scenes:{DATASETS['scenes'].form}; got {'scenes:' + rest!r}"
        raise GradeclipError(msg)
    return emoji_scenes(split, int(n))


def _photographs(rest: str) -> list[Example]:
    if rest != "all":
        raise GradeclipError(f"write photographs:all, got {'photographs:' + rest!r}")
    return photographs()


def _sugar_crepe(rest: str) -> list[Choice]:
    path, _, images = rest.partition("@")
    if not images:
        msg = f"say where the images are: sugar-crepe:{CHOICES['sugar-crepe'].form}; got {'sugar-crepe:' + rest!r}"
        raise GradeclipError(msg)
    return sugar_crepe(path, images)


register_dataset("scenes", _drawn, "development:200")
register_dataset("coco", _with_split(coco), "FOLDER")
register_dataset("folder", own_images, "FOLDER")
register_dataset("photographs", _photographs, "all")
register_choices("sugar-crepe", _sugar_crepe, "FILE_OR_FOLDER@IMAGES")
register_choices("winoground", winoground)
register_choices("aro", aro, "FOLDER")
register_choices("colorswap", _with_split(colorswap), "FOLDER")
