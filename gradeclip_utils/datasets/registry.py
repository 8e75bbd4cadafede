"""Registry: `load` finds a data set by one line of text, and `register_dataset` tells it of another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..checks import nearest
from ..errors import InvalidValue
from .emoji import emoji_scenes
from .example import Example
from .imagenet import imagenet_s, imagenet_segmentation
from .mscoco import coco
from .own import own_images


@dataclass(frozen=True)
class Dataset:
    """A kind of data set.

    Attributes:
        read: gets what stands after the colon, and gives the examples.
        form: what should stand there, for messages.
    """

    read: Callable[[str], list[Example]]
    form: str


DATASETS: dict[str, Dataset] = {}  # by kind


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
    if not kind or ":" in kind:
        raise InvalidValue(f"a kind of data set is a name without a colon, got {kind!r}", "data-kind")
    if kind in DATASETS:
        raise InvalidValue(
            f"there are data sets of the kind {kind!r} already: {kind}:{DATASETS[kind].form}", "data-kind"
        )
    DATASETS[kind] = Dataset(read, form)


def load(what: str, limit: int | None = None) -> list[Example]:
    """The examples of a data set.

    Args:
        what: its kind, a colon, and where it is (see the package). A split other than the default follows an `@`:
            `imagenet-s:folder@train-semi`, `coco:folder@train2017`.
        limit: no more examples than this, see `spread`.

    Returns:
        Examples, in the order of the data set.

    Raises:
        ValueError: the kind is unknown, the limit is not positive, or a file is not what it should be.
        FileNotFoundError: a file is missing; the message says where to get it.
        ImportError: the data set needs a library that is not installed.
    """
    kind, _, rest = what.partition(":")
    if kind not in DATASETS or not rest:
        near = nearest(kind, DATASETS, most=1)
        forms = ", ".join(f"{name}:{known.form}" for name, known in DATASETS.items())
        hint = f"did you mean {near[0]}:...?" if near and kind not in DATASETS else f"say {forms}"
        raise InvalidValue(f"{what!r} names no data set: {hint}", "data-unknown")
    spread([], limit)  # what is no limit is refused before anything is read
    return spread(DATASETS[kind].read(rest), limit)


def spread(examples: list[Example], limit: int | None) -> list[Example]:
    """No more examples than `limit`, evenly spread, because most data sets are sorted by concept; None keeps all.

    Raises:
        ValueError: the limit is not positive.
    """
    if limit is not None and limit < 1:
        raise InvalidValue(f"limit must be at least 1, got {limit}", "number-range")
    if limit is None or limit >= len(examples):
        return examples
    return [examples[i] for i in np.linspace(0, len(examples) - 1, limit).round().astype(int)]


def _with_split(read: Callable[..., list[Example]]) -> Callable[[str], list[Example]]:
    """A reader of `FOLDER` or `FOLDER@SPLIT`."""

    def split_read(rest: str) -> list[Example]:
        path, _, split = rest.partition("@")
        return read(path, split) if split else read(path)

    return split_read


def _drawn(rest: str) -> list[Example]:
    split, _, n = rest.partition(":")
    if not n.isdigit():
        raise InvalidValue(
            f"say how many scenes: scenes:{DATASETS['scenes'].form}; got {'scenes:' + rest!r}", "data-unknown"
        )
    return emoji_scenes(split, int(n))


register_dataset("scenes", _drawn, "development:200")
register_dataset("imagenet-segmentation", imagenet_segmentation, "FILE")
register_dataset("imagenet-s", _with_split(imagenet_s), "FOLDER")
register_dataset("coco", _with_split(coco), "FOLDER")
register_dataset("folder", own_images, "FOLDER")
