"""SugarCrepe (Hsieh et al. 2023): pictures with a right and a wrong caption each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from ..images import read_image
from .example import needed, not_empty, read_json

SUGAR_CREPE = "https://github.com/RAIVNLab/sugar-crepe"


@dataclass(frozen=True, eq=False)
class Choice:
    """A picture with two captions, of which the first is right: can a model tell?

    Attributes:
        key: its name, unique in the data set.
        kind: how the wrong caption was made, such as `swap_att`.
        caption, negative: the right caption, and the wrong one.
    """

    key: str
    kind: str
    caption: str
    negative: str
    _picture: Callable[[], Image.Image]

    def image(self) -> Image.Image:
        """The picture, upright RGB, read now.

        Raises FileNotFoundError if the file is not there, ValueError if it is not a picture.
        """
        return self._picture()


def sugar_crepe(path: str | Path, pictures: str | Path) -> list[Choice]:
    """SugarCrepe, or any file in its schema: pictures of COCO, each with its caption and a hard negative.

    C.-Y. Hsieh, J. Zhang, Z. Ma, A. Kembhavi, R. Krishna. *SugarCrepe: Fixing Hackable Benchmarks for Vision-Language
    Compositionality.* NeurIPS 2023. `path` is one of its files (`swap_att.json`, `swap_obj.json`, `replace_att.json`,
    ...), whose name is the kind, or the folder that holds them: `{"0": {"filename": "000000544519.jpg", "caption":
    ..., "negative_caption": ...}, ...}`. `pictures` is COCO's folder `val2017`; they need not be there unless they are
    asked for.

    Raises FileNotFoundError, or ValueError, naming the entry, for a file that is not in this schema.
    """
    path, choices = needed(path, "the captions of SugarCrepe, a JSON file or a folder of them", SUGAR_CREPE), []
    for file in sorted(path.glob("*.json")) if path.is_dir() else [path]:
        record = read_json(file, SUGAR_CREPE)
        if not isinstance(record, dict):
            raise ValueError(f"{file} must hold one entry a picture, {_ENTRY}, got a {type(record).__name__}")
        for name, entry in record.items():
            wanted = ("filename", "caption", "negative_caption")
            if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in wanted):
                raise ValueError(f"entry {name!r} of {file} must be {_ENTRY}, got {entry!r}")
            picture, right, wrong = (entry[key].strip() for key in wanted)
            reading = partial(read_image, Path(pictures) / picture)
            choices.append(Choice(f"{file.stem}/{name}", file.stem, right, wrong, reading))
    return not_empty(choices, f"{path} holds no captions: get the files of the folder data/ from {SUGAR_CREPE}")


_ENTRY = '{"filename": ..., "caption": ..., "negative_caption": ...}'
