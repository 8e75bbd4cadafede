"""Registry: `load` finds a data set by one line of text."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import partial

import numpy as np

from .emoji import emoji_scenes
from .example import Example
from .imagenet import imagenet_s, imagenet_segmentation
from .mscoco import coco
from .own import own_pictures


def load(what: str, limit: int | None = None) -> list[Example]:
    """The examples of a data set, from one line of text: its kind, a colon, and where it is (see the module).

    A split other than the default follows an `@`: `imagenet-s:folder@train-semi`, `coco:folder@train2017`. `limit`
    keeps so many, spread evenly over the data set, because most are sorted by concept.

    Raises:
        ValueError: the kind is unknown, the limit is not positive, or a file is not what it should be.
        FileNotFoundError: a file is missing; the message says where to get it.
        ImportError: the data set needs a library that is not installed.
    """
    kind, _, rest = what.partition(":")
    if kind not in _KINDS or not rest:
        near = difflib.get_close_matches(kind, _KINDS, cutoff=0.4)
        known = f"did you mean {near[0]}:...?" if near and kind not in _KINDS else f"say {', '.join(_FORMS.values())}"
        raise ValueError(f"{what!r} names no data set: {known}")
    spread([], limit)  # a limit that is none is refused before anything is read
    return spread(_KINDS[kind](rest), limit)


def spread(examples: list[Example], limit: int | None) -> list[Example]:
    """No more examples than `limit`, evenly spread, because most data sets are sorted by concept; None keeps all.

    Raises:
        ValueError: the limit is not positive.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    if limit is None or limit >= len(examples):
        return examples
    return [examples[i] for i in np.linspace(0, len(examples) - 1, limit).round().astype(int)]


def _split(loader: Callable[..., list[Example]], rest: str) -> list[Example]:
    path, _, split = rest.partition("@")
    return loader(path, split) if split else loader(path)


def _drawn(rest: str) -> list[Example]:
    split, _, n = rest.partition(":")
    if not n.isdigit():
        raise ValueError(f"say how many scenes: {_FORMS['scenes']}; got {'scenes:' + rest!r}")
    return emoji_scenes(split, int(n))


_KINDS = {
    "scenes": _drawn, "imagenet-segmentation": imagenet_segmentation, "imagenet-s": partial(_split, imagenet_s),
    "coco": partial(_split, coco), "folder": own_pictures,
}  # fmt: skip
_FORMS = {
    "scenes": "scenes:development:200", "imagenet-segmentation": "imagenet-segmentation:FILE",
    "imagenet-s": "imagenet-s:FOLDER", "coco": "coco:FOLDER", "folder": "folder:FOLDER",
}  # fmt: skip
