"""Registry: `load` finds a data set by one line of text, and `register_dataset` adds a kind of data set."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from ..checks import as_path, chosen, instance, listed, nearest, short, text, whole
from ..errors import GradeclipError
from ..scenes import SPLITS, Scene, describe, draw_scene
from .example import Example
from .folders import captioned_images, photographs
from .mscoco import coco


class _Dataset(NamedTuple):
    """A kind of data set: `read` takes the text after the colon, whose form `form` describes."""

    read: Callable[[str], list]
    form: str


DATASETS: dict[str, _Dataset] = {}  # by kind


def register_dataset(kind: str, read: Callable[[str], list[Example]], form: str = "WHERE") -> None:
    """Let `load`, and so `evaluate` and the command line, find data sets of another kind.

        register_dataset("birds", lambda path: [Example(...), ...], "FOLDER")
        load("birds:/data/birds")

    Args:
        kind: the word before the colon.
        read: takes the text after the colon and returns the examples. For evaluations in several
            processes, the examples' `image` and `load_mask` must be picklable: functions of a
            module, or `functools.partial`.
        form: describes the text after the colon, for messages.

    Raises:
        GradeclipError: the kind is taken or has a colon, or `read` is not a function.
    """
    instance("read", read, Callable, "a function")
    if not text("the kind of a data set", kind) or ":" in kind:
        raise GradeclipError(f"a kind of data set is a name without a colon, got {short(kind)}")
    if kind in DATASETS:
        raise GradeclipError(
            f"there are data sets of the kind {kind!r} already: {kind}:{DATASETS[kind].form}"
        )
    DATASETS[kind] = _Dataset(read, form)


def load(data: str | Sequence[Example], limit: int | None = None) -> list[Example]:
    """The examples of a data set, in its order.

    Args:
        data: its kind, a colon, and where it is. A split other than the default follows an `@`:
            `coco:FOLDER@train2017`. A list of examples is checked, and taken as it is.
        limit: at most this many examples, spread evenly.

    Raises:
        GradeclipError: an unknown kind, a limit below 1, a file that is missing (the message says
            where to get it) or not in its form, a library that is not installed; no examples, or
            two of one key.
    """
    if limit is not None:  # a wrong one is refused before anything is read
        whole("limit", limit, 1)
    examples = listed("data", _read(data) if isinstance(data, str) else data)
    if limit is not None and limit < len(
        examples
    ):  # spread, because most data sets are sorted by concept
        examples = [
            examples[i] for i in np.linspace(0, len(examples) - 1, limit).round().astype(int)
        ]
    for one in examples:
        instance("each of data", one, Example, "an Example")
    if not examples:
        raise GradeclipError("data must hold examples, and there are none")
    if twice := [
        key for key, times in Counter(example.key for example in examples).items() if times > 1
    ]:
        raise GradeclipError(
            f"every example needs a key of its own, and {twice[0]!r} is there more than once"
        )
    return examples


def _read(what: str) -> list:
    kind, _, rest = what.partition(":")
    if kind not in DATASETS or not rest:
        near = nearest(kind, DATASETS, most=1)
        forms = ", ".join(f"{name}:{one.form}" for name, one in DATASETS.items())
        hint = f"did you mean {near[0]}:...?" if near and kind not in DATASETS else f"say {forms}"
        raise GradeclipError(f"{short(what)} names no data set: {hint}")
    return DATASETS[kind].read(rest)


def _scenes(rest: str) -> list[Example]:
    """Draw emoji scenes of a split, always the same ones, each with a question about one of its things."""
    split, _, n = rest.partition(":")
    if not re.fullmatch(r"\d{1,9}", n):
        raise GradeclipError(
            f"say how many scenes: scenes:{DATASETS['scenes'].form}; got {short('scenes:' + rest)}"
        )
    chosen("split", split, SPLITS)
    whole("the number of scenes", int(n), 1, 100_000)  # all of them are held
    return [_about(f"{split}/{i}", draw_scene([50, 0, i], split=split), i) for i in range(int(n))]


def _about(key: str, scene: Scene, i: int) -> Example:
    asked = scene.objects[np.random.default_rng([51, i]).integers(len(scene.objects))]
    members = [k for k, thing in enumerate(scene.objects) if thing.noun == asked.noun]
    present = tuple(dict.fromkeys(thing.noun for thing in scene.objects))
    prompt = describe([scene.objects[k] for k in members])[0]
    return Example(
        key, prompt, asked.noun, scene.caption, present, scene.image, partial(_mask, scene, members)
    )


def _mask(scene: Scene, members: list[int]) -> np.ndarray:
    return np.asarray(scene.masks()[members].any(axis=0))


def _folder(rest: str) -> list[Example]:
    path, masks = (
        as_path(rest, "the folder of images"),
        as_path(f"{rest}/masks", "the folder of masks"),
    )
    return captioned_images(
        path / "images", path / "captions.csv", masks if masks.is_dir() else None
    )


def _photographs(rest: str) -> list[Example]:
    if rest != "all":
        raise GradeclipError(f"write photographs:all, got {short('photographs:' + rest)}")
    return photographs()


def _coco(rest: str) -> list[Example]:
    path, _, split = rest.partition("@")
    return coco(path, split) if split else coco(path)


register_dataset("scenes", _scenes, "development:200")
register_dataset("coco", _coco, "FOLDER")
register_dataset("folder", _folder, "FOLDER")
register_dataset("photographs", _photographs, "all")
