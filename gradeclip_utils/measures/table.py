"""Tables that survive a kill: rows are appended to a file as they are measured, each under a key.

    settings -> OUT/settings.json        rows, one JSON object a line -> OUT/rows.jsonl

A process that opens the folder again with the same settings finds the rows that are there. A last
line that a kill cut off is dropped. Other settings, damaged settings, or a second process on the
same folder are refused.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..checks import writable
from ..errors import GradeclipError, short
from ..files import bytes_of, digest, locked, version, weights_digest, write_whole
from ..models import Clip

_ROWS, _SETTINGS, _LOCK = "rows.jsonl", "settings.json", ".lock"
_LIBRARIES = ("gradeclip", "torch", "open_clip_torch", "timm", "transformers", "numpy", "pillow")
_PROBE = "A photo of 2 dogs, naïve cafés & Größe: 犬 🐕"


class Table:
    """The rows of one run in a folder, for one process at a time; `rows` has them by key, as they are in the file."""

    def __init__(
        self, folder: str | Path, settings: Mapping, keys: Sequence[str], *, overwrite: bool = False
    ):
        self.folder = writable(folder, "the folder of the rows", folder=True, size=1_000_000)
        self._keys, self._file = tuple(keys), self.folder / _ROWS
        with ExitStack() as opened:
            opened.enter_context(locked(self.folder, _LOCK))
            self._keep(json.loads(json.dumps(settings)), overwrite)  # as they will be read again
            self.rows: dict[tuple, dict] = self._read()
            self._stream = opened.enter_context(self._file.open("ab", buffering=0))
            self._opened = opened.pop_all()

    def add(self, rows: Iterable[Mapping]) -> None:
        """Append the rows whose keys are not there yet; they are on the disk when this returns."""
        lines = []
        for row in rows:
            row = {name: _plain(value) for name, value in row.items()}
            if self._key(row) not in self.rows:
                self.rows[self._key(row)] = row
                lines.append(json.dumps(row, ensure_ascii=False) + "\n")
        try:
            content = "".join(lines).encode()
            while content:  # a raw stream may write a part
                content = content[self._stream.write(content) :]
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise GradeclipError(
                f"{self._file} could not be written ({error}): free some space, and go on"
            ) from error

    def __enter__(self) -> Table:
        return self

    def __exit__(self, *error) -> None:
        self._opened.close()

    def _key(self, row: Mapping) -> tuple:
        return tuple(row[name] for name in self._keys)

    def _keep(self, settings: dict, overwrite: bool) -> None:
        """Write the settings of a new run, or compare them with those of the rows that are there."""
        file = self.folder / _SETTINGS
        there = {
            one.name for one in self.folder.iterdir() if one.name != _LOCK and one.suffix != ".new"
        }
        if not there or (overwrite and {_SETTINGS, _ROWS} & there):
            self._file.unlink(
                missing_ok=True
            )  # first, so that no rows stand beside the settings of another run
            return write_whole({file: json.dumps(settings, ensure_ascii=False, indent=1).encode()})
        if _SETTINGS not in there:
            msg = f"{self.folder} holds other files, such as {min(there)}: choose a folder for this run alone"
            raise GradeclipError(msg)
        try:
            found = dict(json.loads(file.read_bytes()))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise GradeclipError(
                f"{file} is damaged ({error}): choose another folder, or delete this one"
            ) from error
        differing = [
            f"{name} was {short(found.get(name))} and is {short(settings.get(name))} now"
            for name in {**found, **settings}
            if found.get(name) != settings.get(name)
        ]
        if differing:
            msg = f"{self.folder} holds another run: {'; '.join(differing)}. Choose another folder, or delete it"
            raise GradeclipError(f"{msg} (evaluate and report: --overwrite)")

    def _read(self) -> dict[tuple, dict]:
        """Return the rows of the file by key, without a torn last line, which is cut off."""
        if not self._file.exists():
            return {}
        content, found = self._file.read_bytes(), {}
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self._file, whole)
        for number, line in enumerate(content[:whole].split(b"\n")[:-1], start=1):
            try:
                row = json.loads(line)
                found.setdefault(self._key(row), row)
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                msg = f"line {number} of {self._file} is damaged ({error}): delete the line, and it is measured again"
                raise GradeclipError(msg) from error
        return found


def describe_model(clip: Clip, texts: Iterable[str] = ()) -> dict[str, Any]:
    """Return what the numbers of a model depend on: weights, preprocessing, tokenizer, layers and library versions."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    seen = clip.preprocess(Image.fromarray(noise).resize((400, 300), Image.Resampling.BICUBIC))
    read = [] if clip.tokenizer is None else [_PROBE, *sorted(set(texts))]
    ids = [
        torch.as_tensor(clip.tokenizer(read[start : start + 1000]))
        for start in range(0, len(read), 1000)
    ]
    return {
        "model": clip.name,
        "pretrained": clip.pretrained,
        "weights": weights_digest(clip.model),
        "image_layers": clip.image_layers,
        "text_layers": clip.text_layers,
        "preprocess": f"{tuple(seen.shape)} {digest([bytes_of(seen.float())])}",
        "tokenizer": digest(map(bytes_of, ids)),
        "versions": {name: version(name) for name in _LIBRARIES},
    }


def content_digest(image: Image.Image, mask: np.ndarray | None = None) -> str:
    """Return a checksum of an image's pixels and of its mask."""
    about = f"{image.size} {None if mask is None else mask.shape}".encode()
    return digest(
        [about, image.tobytes(), b"" if mask is None else np.ascontiguousarray(mask).tobytes()]
    )


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; NaN becomes null."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and math.isnan(value) else value
