"""Results: a long computation kept in parts, so that it can be killed at any moment and taken up again.

    chunk of examples -> rows -> rows.sqlite -> all rows -> table

A run is a folder. Its `rows.sqlite` says what is computed and holds the rows of every chunk that is done: a chunk is
there whole or not at all, and once, whenever the process or the machine dies. Chunks carry a checksum, and one of the
images and masks that they are about: what was damaged since, or whose images were replaced, is computed again. One
process at a time works on a run; a second one is told so (`files.locked`). A run that is done also has all of its rows
as `rows.parquet`.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import pandas as pd

from ..checks import as_path, short, writable
from ..errors import InvalidFile, InvalidValue, MissingFile
from ..files import locked, write_whole
from ..notices import warn

ROWS, TABLE, LOCK = "rows.sqlite", "rows.parquet", "running.sqlite"
_OURS = {name + end for name in (ROWS, TABLE, LOCK) for end in ("", "-journal")}
_SHARD = re.compile(r"shard-\d+-of-\d+$")  # a part that another process computes, see `shards`
_SCHEMA = """
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS chunks (
    number INTEGER PRIMARY KEY, rows BLOB NOT NULL, checksum TEXT NOT NULL, inputs TEXT NOT NULL);
"""


class Results:
    """The rows of one run, for the process that works on it; close it when the work is done or given up.

        with closing(Results("runs/mine", {"seed": 0})) as results:
            results.write(0, rows)

    Args:
        folder: of this run alone, new or to be gone on with.
        settings: everything that the rows depend on, as JSON can say it.

    Raises:
        OSError: nothing can be written there.
        ValueError: another process is at work on the run; the folder holds a run of other settings (the message names
            them), or something else.
    """

    def __init__(self, folder: str | Path, settings: Mapping):
        self.folder = writable(folder, "the folder of an evaluation", folder=True, size=1_000_000)
        there = list(self.folder.iterdir()) if self.folder.is_dir() else []
        if (
            any(child.name not in _OURS and not _SHARD.match(child.name) for child in there)
            and not (self.folder / ROWS).is_file()
        ):
            msg = f"{folder} is not empty and holds no {ROWS}: choose a folder for this run alone"
            raise InvalidFile(msg, "run-foreign")
        with ExitStack() as opened:
            opened.enter_context(locked(self.folder, LOCK))
            for left in self.folder.glob(f"{TABLE}.*.new"):  # by a process that was killed as it wrote the table
                left.unlink()
            self._rows = opened.enter_context(closing(_opened(self.folder / ROWS)))
            self._check(json.loads(json.dumps(settings)))  # as they will be read again
            self._opened = opened.pop_all()

    def read(
        self, number: int, expected: Sequence[tuple[str, str]], inputs: Callable[[], str] = str
    ) -> pd.DataFrame | None:
        """The rows of one chunk.

        Args:
            number: of the chunk.
            expected: the (image, method) of its rows, in order.
            inputs: asked for a checksum of the images and masks that the rows are about, as they are now.

        Returns:
            Its rows; None if they were not computed yet, or (with a warning) if they are damaged or about other images.
        """
        found = self._rows.execute("SELECT rows, checksum, inputs FROM chunks WHERE number = ?", (number,)).fetchone()
        if found is None:
            return None
        content, checksum, about = found
        why = "is damaged"
        if checksum == _checksum(content):
            rows = _unpacked(content)
            if {"image", "method"} <= {*rows} and list(zip(rows["image"], rows["method"], strict=True)) == list(
                expected
            ):
                if about == inputs():
                    return rows
                why = "is about images or masks that were replaced"
        warn(f"chunk {number} of {self.folder} {why}, and its rows are computed again", "rows-again", UserWarning)
        return None

    def write(self, number: int, rows: pd.DataFrame, inputs: str = "") -> None:
        """Keep the rows of one chunk, and the checksum of what they are about; when this returns they are on the disk.

        Args:
            number: of the chunk.
            rows: with columns image and method.
            inputs: the checksum of the images and masks that the rows are about.

        Raises:
            OSError: there is no space left, say.
        """
        content = json.dumps(rows.to_dict("list"), ensure_ascii=False).encode()
        try:
            with self._rows:
                self._rows.execute(
                    "REPLACE INTO chunks VALUES (?, ?, ?, ?)", (number, content, _checksum(content), inputs)
                )
        except sqlite3.OperationalError as error:
            msg = f"the rows of chunk {number} cannot be kept in {self.folder} ({error}): those before it are"
            raise InvalidFile(msg, "write-failed") from error

    def write_table(self, rows: pd.DataFrame) -> None:
        """Write the run's rows as `rows.parquet`, for other programs to read.

        Args:
            rows: of the whole run, in the order of its examples.
        """
        write_whole(self.folder / TABLE, lambda stream: rows.to_parquet(stream, index=False))

    def close(self) -> None:
        """Let another process go on with the run."""
        self._opened.close()

    def _check(self, settings: dict) -> None:
        """Keep the settings of a new run; compare them with those of an old one."""
        found = _settings_of(self.folder / ROWS, self._rows.execute("SELECT name, value FROM settings").fetchall())
        if not found:
            values = [(name, json.dumps(value, ensure_ascii=False)) for name, value in settings.items()]
            with self._rows:
                self._rows.executemany("INSERT INTO settings VALUES (?, ?)", values)
            return
        differing = [
            f"{name} was {short(found.get(name))}, and is {short(settings.get(name))} now"
            for name in {**found, **settings}
            if found.get(name) != settings.get(name)
        ]
        if differing:
            message = f"{self.folder} holds another run: {'; '.join(differing)}. Choose another folder, or delete it"
            raise InvalidValue(message, "run-other")


def read_settings(folder: str | Path) -> dict:
    """What a run was asked for.

    Args:
        folder: of the run.

    Returns:
        By name, such as model, data, methods and seed.

    Raises:
        FileNotFoundError: there is no run.
    """
    found = _asked(folder, "SELECT name, value FROM settings")
    if not found:
        raise MissingFile(f"{folder} holds no evaluation", "result-missing")
    return _settings_of(Path(folder) / ROWS, found)


def read_whole(folder: str | Path) -> dict[int, tuple[pd.DataFrame, str]]:
    """The chunks of a run that are whole.

    Args:
        folder: of the run; one without a run has no chunks.

    Returns:
        By number, the chunk's rows, and the checksum of the images and masks that they are about.
    """
    found = _asked(folder, "SELECT number, rows, checksum, inputs FROM chunks")
    return {number: (_unpacked(content), inputs) for number, content, checksum, inputs in found
            if checksum == _checksum(content)}  # fmt: skip


def _asked(folder: str | Path, question: str) -> list[tuple]:
    """What the database of a run answers, also while another process writes there; nothing where there is none."""
    file = as_path(folder, "the folder of an evaluation") / ROWS
    if not file.is_file():
        return []
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=60)) as kept:
        try:
            return kept.execute(question).fetchall()
        except sqlite3.OperationalError:  # its tables are not there yet, or somebody else's are
            return []
        except sqlite3.DatabaseError as error:
            raise InvalidFile(f"{file} is damaged, or not from an evaluation: {error}", "result-damaged") from error


def _opened(file: Path) -> sqlite3.Connection:
    """The database of a run; one that is damaged is set aside, with a warning, and a new one begun."""
    if file.is_dir():
        raise InvalidFile(f"{file} is a folder, where the rows of a run should be: choose another", "path-is-folder")
    kept = sqlite3.connect(file, timeout=60)
    try:
        if kept.execute("PRAGMA quick_check").fetchone() != ("ok",):
            raise sqlite3.DatabaseError("its pages contradict one another")
        kept.executescript(_SCHEMA)
        if [row[1] for row in kept.execute("PRAGMA table_info(chunks)")] != ["number", "rows", "checksum", "inputs"]:
            raise sqlite3.DatabaseError("its rows do not say which images they are about, as those of now do")
    except sqlite3.OperationalError as error:  # locked, or no space left: no damage
        kept.close()
        raise InvalidFile(f"the rows of a run cannot be kept in {file}: {error}", "path-read-only") from error
    except sqlite3.DatabaseError as error:
        kept.close()
        aside = next(one for i in range(1000) if not (one := file.with_suffix(f".damaged{i or ''}")).exists())
        message = f"{file} is damaged ({error}): it is now {aside.name}, and all is computed again"
        warn(message, "rows-aside", UserWarning)
        file.replace(aside)
        Path(f"{file}-journal").unlink(missing_ok=True)
        return _opened(file)
    return kept


def _settings_of(file: Path, rows: list[tuple]) -> dict:
    """Settings from their table."""
    try:
        return {name: json.loads(value) for name, value in rows}
    except (ValueError, TypeError) as error:
        msg = f"{file} does not say what made its rows ({error}): choose another folder, or delete it"
        raise InvalidFile(msg, "result-damaged") from error


def _unpacked(content: bytes) -> pd.DataFrame:
    return pd.DataFrame(json.loads(content))


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else ""  # what is none was never written
