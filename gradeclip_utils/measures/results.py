"""Results: a long computation kept in parts, so that it can be killed at any moment and taken up again.

    chunk of examples -> rows -> chunks/7.json -> all rows -> table

A run is a folder. Its `settings.json` says what is computed, and a file in `chunks` holds the rows of every chunk that
is done: it is there whole or not at all, whenever the process or the machine dies (`files.write_whole`), and has one
name, so that no row is there twice. Chunks carry a checksum, and one of the images and masks that they are about: what
was damaged since, or whose images were replaced, is computed again. One process at a time works on a run; a second one
is told so (`files.locked`). A run that is done also has all of its rows as `rows.parquet`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pandas as pd

from ..checks import as_path, short, writable
from ..errors import GradeclipError
from ..files import locked, write_whole
from ..notices import warn

SETTINGS, CHUNKS, TABLE, LOCK = "settings.json", "chunks", "rows.parquet", "running.sqlite"
_OURS = re.compile(rf"({SETTINGS}|{TABLE})(\.\d+\.new)?|{CHUNKS}|{LOCK}(-journal)?|shard-\d+-of-\d+")


class Results:
    """The rows of one run, for the process that works on it; close it when the work is done or given up."""

    def __init__(self, folder: str | Path, settings: Mapping):
        self.folder = writable(folder, "the folder of an evaluation", folder=True, size=1_000_000)
        there = [child.name for child in self.folder.iterdir()] if self.folder.is_dir() else []
        if not all(map(_OURS.fullmatch, there)) and not (self.folder / SETTINGS).is_file():
            msg = f"{folder} is not empty and holds no {SETTINGS}: choose a folder for this run alone"
            raise GradeclipError(msg)
        with ExitStack() as opened:
            opened.enter_context(locked(self.folder, LOCK))
            for pattern in ("*.new", f"{CHUNKS}/*.new"):  # by a process that was killed as it wrote
                for left in self.folder.glob(pattern):
                    left.unlink()
            self._check(json.loads(json.dumps(settings)))  # as they will be read again
            self._opened = opened.pop_all()

    def read(
        self, number: int, expected: Sequence[tuple[str, str]], inputs: Callable[[], str] = str
    ) -> pd.DataFrame | None:
        """The rows of one chunk."""
        file = _file(self.folder, number)
        if not file.exists():
            return None
        rows, about = _read(file) or (pd.DataFrame(), "")
        why = "is damaged"
        if {"image", "method"} <= {*rows} and list(zip(rows["image"], rows["method"], strict=True)) == list(expected):
            if about == inputs():
                return rows
            why = "is about images or masks that were replaced"
        warn(f"chunk {number} of {self.folder} {why}, and its rows are computed again", UserWarning)
        return None

    def write(self, number: int, rows: pd.DataFrame, inputs: str = "") -> None:
        """Keep the rows of one chunk, and the checksum of what they are about; when this returns they are on the disk."""
        content = json.dumps({"inputs": inputs, "rows": rows.to_dict("list")}, ensure_ascii=False).encode()
        whole = f"{_checksum(content)}\n".encode() + content
        write_whole(_file(self.folder, number), lambda stream: stream.write(whole))

    def write_table(self, rows: pd.DataFrame) -> None:
        """Write the run's rows as `rows.parquet`, for other programs to read."""
        write_whole(self.folder / TABLE, lambda stream: rows.to_parquet(stream, index=False))

    def close(self) -> None:
        """Let another process go on with the run."""
        self._opened.close()

    def _check(self, settings: dict) -> None:
        """Keep the settings of a new run; compare them with those of an old one."""
        file = self.folder / SETTINGS
        if not (found := _settings(file)):
            text = json.dumps(settings, ensure_ascii=False, indent=1)
            return write_whole(file, lambda stream: stream.write(text.encode()))
        differing = [
            f"{name} was {short(found.get(name))}, and is {short(settings.get(name))} now"
            for name in {**found, **settings}
            if found.get(name) != settings.get(name)
        ]
        if differing:
            message = f"{self.folder} holds another run: {'; '.join(differing)}. Choose another folder, or delete it"
            raise GradeclipError(message)


def read_settings(folder: str | Path) -> dict:
    """What a run was asked for."""
    if not (found := _settings(as_path(folder, "the folder of an evaluation") / SETTINGS)):
        raise GradeclipError(f"{folder} holds no evaluation")
    return found


def read_whole(folder: str | Path) -> dict[int, tuple[pd.DataFrame, str]]:
    """The chunks of a run that are whole, also while another process writes there."""
    files = (as_path(folder, "the folder of an evaluation") / CHUNKS).glob("*.json")
    return {int(file.stem): found for file in files if file.stem.isdigit() and (found := _read(file)) is not None}


def _file(folder: Path, number: int) -> Path:
    return folder / CHUNKS / f"{number}.json"


def _read(file: Path) -> tuple[pd.DataFrame, str] | None:
    """The rows of a chunk and what they are about; None if it is damaged: its first line is a checksum of the rest."""
    try:
        checksum, _, content = file.read_bytes().partition(b"\n")
        if checksum.decode() != _checksum(content):
            return None
        found = json.loads(content)
        return pd.DataFrame(found["rows"]), found["inputs"]
    except (OSError, ValueError, TypeError, LookupError):
        return None


def _settings(file: Path) -> dict:
    """What a run was asked for; nothing where there is none."""
    if not file.exists():
        return {}
    try:
        return dict(json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        msg = f"{file} does not say what made its rows ({error}): choose another folder, or delete it"
        raise GradeclipError(msg) from error


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
