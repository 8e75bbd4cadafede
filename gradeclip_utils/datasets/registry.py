"""Registry: `load` finds a data set by one line of text; `register_dataset` adds a kind."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import GradeclipError, hint
from ..scenes import Scene, describe, draw_scene
from .example import Example
from .folders import captioned_images, photographs
from .mscoco import coco


class Dataset(NamedTuple):
    """A kind of data set: `read` takes the text after the colon, whose form `form` describes."""

    read: Callable[[str], list[Example]]
    form: str


DATASETS: dict[str, Dataset] = {}  # by kind


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
    """
    DATASETS[kind] = Dataset(read, form)


def load(data: str | Sequence[Example], limit: int | None = None) -> list[Example]:
    """The examples of a data set, in its order.

        load("scenes:development:24"), load("folder:mine"), load("coco:FOLDER", limit=100)

    Args:
        data: its kind, a colon, and where it is. A split other than the default follows an `@`:
            `coco:FOLDER@train2017`. A list of examples is taken as it is.
        limit: at most this many examples, spread evenly.

    Raises:
        GradeclipError: an unknown kind, a file that is missing (the message says where to get it)
            or not in its form, a library that is not installed; no examples, or two of one key.
    """
    if isinstance(data, str):
        kind, _, place = data.partition(":")
        if kind not in DATASETS or not place:
            forms = ", ".join(f"{name}:{dataset.form}" for name, dataset in DATASETS.items())
            msg = f"{data!r} names no data set, such as {forms}"
            raise GradeclipError(f"{msg}: {hint(kind, DATASETS)}")
        data = DATASETS[kind].read(place)
    examples = list(data)

    if limit is not None and limit < len(examples):
        # spread, because most data sets are sorted by concept
        spread = np.linspace(0, len(examples) - 1, limit).round().astype(int)
        examples = [examples[i] for i in spread]
    if not examples:
        raise GradeclipError("the data set has no examples")
    key, times = Counter(example.key for example in examples).most_common(1)[0]
    if times > 1:
        raise GradeclipError(f"every example needs its own key, and {times} have the key {key!r}")
    return examples


def _read_scenes(place: str) -> list[Example]:
    """Draw emoji scenes of a split, always the same ones, each asking for one of its things."""
    split, _, count = place.partition(":")
    if not count.isdigit():
        raise GradeclipError(f"say how many scenes, as in scenes:development:200; got {place!r}")

    examples = []
    for number in range(int(count)):
        scene = draw_scene([50, 0, number], split=split)

        rng = np.random.default_rng([51, number])
        noun = scene.objects[rng.integers(len(scene.objects))].noun
        members = [i for i, thing in enumerate(scene.objects) if thing.noun == noun]
        example = Example(
            key=f"{split}/{number}",
            prompt=describe([scene.objects[i] for i in members])[0],
            concept=noun,
            caption=scene.caption,
            present=tuple(dict.fromkeys(thing.noun for thing in scene.objects)),
            image=scene.image,
            load_mask=partial(_mask_of_scene, scene, members),
        )
        examples.append(example)
    return examples


def _mask_of_scene(scene: Scene, members: list[int]) -> np.ndarray:
    return np.logical_or.reduce(scene.masks()[members])


def _read_folder(place: str) -> list[Example]:
    folder = Path(place)
    return captioned_images(folder / "images", folder / "captions.csv", folder / "masks")


def _read_coco(place: str) -> list[Example]:
    folder, _, split = place.partition("@")
    return coco(folder, split or "val2017")


register_dataset("scenes", _read_scenes, "development:200")
register_dataset("coco", _read_coco, "FOLDER")
register_dataset("folder", _read_folder, "FOLDER")
register_dataset("photographs", lambda place: photographs(), "all")
