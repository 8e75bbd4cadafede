"""Registry: `load` finds a data set by one line of text, and `register_dataset` tells it of another."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

import numpy as np

from ..checks import instance, listed, nearest, text, whole
from ..errors import GradeclipError
from .arrow import saved_dataset
from .choices import Choice, aro, sugar_crepe, winoground
from .emoji import emoji_scenes
from .example import Example
from .imagenet import imagenet_s, imagenet_segmentation
from .mscoco import coco
from .own import open_clip_csv, own_images, photographs
from .webdataset import webdataset

T = TypeVar("T")


class Dataset(NamedTuple):
    """A kind of data set: `read` makes a list of what stands after the colon, and `form` says what that is."""

    read: Callable[[str], list]
    form: str


DATASETS: dict[str, Dataset] = {}  # by kind
CHOICES: dict[str, Dataset] = {}  # by kind


def register_dataset(kind: str, read: Callable[[str], list[Example]], form: str = "WHERE") -> None:
    """Let `load`, and so `evaluate` and the command line, find data sets of another kind.

        register_dataset("birds", lambda path: [Example(...), ...], "FOLDER")
        load("birds:/data/birds")

    Args:
        kind: what stands before the colon; words and hyphens.
        read: gets what stands after the colon, and gives the examples. Where evaluations run in several processes, the
            examples' `image` and `load_mask` must be picklable: functions of a module, or `functools.partial`.
        form: what should stand after the colon, for messages.

    Raises:
        ValueError: the kind is taken, or cannot be told from what follows it.
    """
    _check_kind(kind, read)
    DATASETS[kind] = Dataset(read, form)


def register_choices(kind: str, read: Callable[[str], list[Choice]], form: str = "FOLDER") -> None:
    """As `register_dataset`, for a data set of images with a right and a wrong caption each: `load_choices` finds it."""
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
        what: its kind, a colon, and where it is (see the package). A split other than the default follows an `@`:
            `imagenet-s:folder@train-semi`, `coco:folder@train2017`.
        limit: no more examples than this, see `spread`.

    Raises:
        ValueError, TypeError: the kind is unknown, the limit is not positive, or a file is not what it should be.
        FileNotFoundError: a file is missing; the message says where to get it.
        ImportError: the data set needs a library that is not installed.
    """
    return _read(what, limit, DATASETS, "data set")


def load_choices(what: str, limit: int | None = None) -> list[Choice]:
    """The choices of a data set, in its order: images with a right and a wrong caption each.

        load_choices("sugar-crepe:sugar-crepe/data@coco/val2017")
        load_choices("winoground:winoground")

    Args:
        what: its kind, a colon, and where it is. SugarCrepe's images follow an `@`.
        limit: no more choices than this, see `spread`.

    Raises:
        ValueError, FileNotFoundError: as of `load`.
    """
    return _read(what, limit, CHOICES, "data set of choices")


def _read(what: str, limit: int | None, known: Mapping[str, Dataset], called: str) -> list:
    """What a data set of a known kind has, no more than the limit."""
    kind, _, rest = text("data", what).partition(":")
    if kind not in known or not rest:
        near = nearest(kind, known, most=1)
        forms = ", ".join(f"{name}:{one.form}" for name, one in known.items())
        hint = f"did you mean {near[0]}:...?" if near and kind not in known else f"say {forms}"
        raise GradeclipError(f"{what!r} names no {called}: {hint}")
    spread([], limit)  # what is no limit is refused before anything is read
    return spread(known[kind].read(rest), limit)


def spread(examples: list[T], limit: int | None) -> list[T]:
    """Examples that are evenly spread over a data set, because most data sets are sorted by concept."""
    examples = listed("the examples of a data set", examples)
    if limit is None or whole("limit", limit, 1) >= len(examples):
        return examples
    return [examples[i] for i in np.linspace(0, len(examples) - 1, limit).round().astype(int)]


def _with_split(read: Callable[..., list[Example]]) -> Callable[[str], list[Example]]:
    """A reader of `FOLDER` or `FOLDER@SPLIT`."""

    def split_read(rest: str) -> list[Example]:
        """The examples of a folder, or of its split."""
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
        raise GradeclipError(f"photographs are had as photographs:all, got {'photographs:' + rest!r}")
    return photographs()


def _sugar_crepe(rest: str) -> list[Choice]:
    path, _, images = rest.partition("@")
    if not images:
        msg = f"say where the images are: sugar-crepe:{CHOICES['sugar-crepe'].form}; got {'sugar-crepe:' + rest!r}"
        raise GradeclipError(msg)
    return sugar_crepe(path, images)


register_dataset("scenes", _drawn, "development:200")
register_dataset("imagenet-segmentation", imagenet_segmentation, "FILE")
register_dataset("imagenet-s", _with_split(imagenet_s), "FOLDER")
register_dataset("coco", _with_split(coco), "FOLDER")
register_dataset("folder", own_images, "FOLDER")
register_dataset("webdataset", webdataset, "TAR_OR_FOLDER")
register_dataset("csv", open_clip_csv, "FILE")
register_dataset("dataset", _with_split(saved_dataset), "FOLDER")
register_dataset("photographs", _photographs, "all")
register_choices("sugar-crepe", _sugar_crepe, "FILE_OR_FOLDER@IMAGES")
register_choices("winoground", winoground)
register_choices("aro", aro, "FOLDER")
