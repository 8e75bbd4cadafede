"""SugarCrepe (Hsieh et al. 2023): images with a right and a wrong caption each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from ..errors import InvalidValue
from ..images import read_image
from .example import damaged, needed, not_empty, read_json

SUGAR_CREPE = "https://github.com/RAIVNLab/sugar-crepe"
_WANTED = ("filename", "caption", "negative_caption")
_ENTRY = '{"filename": ..., "caption": ..., "negative_caption": ...}'


@dataclass(frozen=True, eq=False)
class Choice:
    """An image with two captions, of which the first is right: can a model tell?

    Attributes:
        key: its name, unique in the data set.
        kind: how the wrong caption was made, such as `swap_att`.
        caption: the right caption.
        negative: the wrong one.
        image: a function that reads the image, upright RGB, as that of `Example`.
    """

    key: str
    kind: str
    caption: str
    negative: str
    image: Callable[[], Image.Image]


def sugar_crepe(path: str | Path, images: str | Path) -> list[Choice]:
    """SugarCrepe, or any file in its schema: images of COCO, each with its caption and a hard negative.

    C.-Y. Hsieh, J. Zhang, Z. Ma, A. Kembhavi, R. Krishna. *SugarCrepe: Fixing Hackable Benchmarks for Vision-Language
    Compositionality.* NeurIPS 2023.

    Args:
        path: one of its files (`swap_att.json`, `swap_obj.json`, `replace_att.json`, ...), whose name is the kind, or
            the folder that holds them: `{"0": {"filename": "000000544519.jpg", "caption": ..., "negative_caption":
            ...}, ...}`.
        images: COCO's folder `val2017`; they need not be there unless they are asked for.

    Returns:
        One choice an entry.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file is not in this schema; the message names the entry.
    """
    path, choices = needed(path, "the captions of SugarCrepe, a JSON file or a folder of them", SUGAR_CREPE), []
    for file in sorted(path.glob("*.json")) if path.is_dir() else [path]:
        record = read_json(file, SUGAR_CREPE)
        if not isinstance(record, dict):
            raise damaged(file, f"must hold one entry an image, {_ENTRY}, got a {type(record).__name__}", SUGAR_CREPE)
        for name, entry in record.items():
            if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in _WANTED):
                raise InvalidValue(f"entry {name!r} of {file} must be {_ENTRY}, got {entry!r}", "data-damaged")
            image, right, wrong = (entry[key].strip() for key in _WANTED)
            reading = partial(read_image, Path(images) / image)
            choices.append(Choice(f"{file.stem}/{name}", file.stem, right, wrong, reading))
    return not_empty(choices, path, "captions", f"the folder data/ of {SUGAR_CREPE}")
