"""Files: where the project's own data lies, and files that are written whole or not at all.

Nothing here needs torch, so that code that only draws scenes starts at once.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib import metadata
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from .checks import as_path, first_line, writable
from .errors import GradeclipError

if TYPE_CHECKING:
    import pandas as pd

_PACKAGE = Path(__file__).parent


def data_path(name: str = "") -> Path:
    """Return the path of a file in the project's `data/` folder, which an installed package carries inside itself."""
    inside = _PACKAGE / "data"
    return (inside if inside.is_dir() else _PACKAGE.parent / "data") / name


def read_csv(file: Path, **options) -> pd.DataFrame:
    """Read a table, or raise GradeclipError."""
    import pandas as pd  # slow to import, and drawing scenes does without

    try:
        return pd.read_csv(file, **options)
    except (ValueError, OSError) as error:  # pandas' own errors are ValueErrors
        raise GradeclipError(f"{file} cannot be read as a table: {first_line(error)}") from error


def output(
    path: str | os.PathLike, what: str, *, inputs: Iterable[str | os.PathLike | None] = (), overwrite: bool = False,
    suffixes: Sequence[str] = (), size: int = 0,
) -> Path:  # fmt: skip
    """Return the path of a file that a command will write: never one of its inputs, nor an existing file unasked."""
    place = writable(path, what, suffixes=suffixes, size=size)
    if any(_is_same(place, one) for one in inputs if one):
        raise GradeclipError(f"{what} {place} is an input of this command: choose another file")
    if place.exists() and not overwrite:
        raise GradeclipError(f"{what} {place} exists: choose another file, or add --overwrite")
    return place


def _is_same(one: Path, other: str | os.PathLike) -> bool:
    """Return whether two paths are of one file that exists."""
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return False


def write_whole(file: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file whole or not at all, whenever the process or the machine dies."""

    def into(path: Path) -> None:
        """Write to one path."""
        with path.open("wb") as stream:
            write(stream)

    write_path_whole(file, into)


def write_path_whole(file: Path, write: Callable[[Path], object]) -> None:
    """Write a file whole or not at all, by a function that takes the path to write to."""
    _write(file, file.parent, {file.name: write})


def write_together(folder: Path, parts: Mapping[str, bytes]) -> None:
    """Write several files into a folder: all are on the disk before the first takes its name."""
    _write(folder, folder, {name: methodcaller("write_bytes", content) for name, content in parts.items()})


def _write(what: Path, folder: Path, parts: Mapping[str, Callable[[Path], object]]) -> None:
    """Write the folder `what`, or the one file `what` in it."""
    from safetensors import SafetensorError  # raised on a full disk

    news = {name: folder / f"{name}.{os.getpid()}.new" for name in parts}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, write in parts.items():
            _remove_torn(folder, name)
            write(news[name])
            with news[name].open("r+b") as stream:
                os.fsync(stream.fileno())
        for name, new in news.items():
            new.replace(folder / name)
    except BaseException as error:
        for new in news.values():
            new.unlink(missing_ok=True)
        if not isinstance(error, (OSError, SafetensorError)):
            raise
        kept = _keep_elsewhere(what.name, parts, within=what == folder)
        raise GradeclipError(f"{what} could not be written ({error}): {kept}") from error


def _remove_torn(folder: Path, name: str) -> None:
    """Remove half-written files of this name that killed processes left."""
    for torn in folder.glob(f"{glob.escape(name)}.*.new"):
        pid = re.fullmatch(r"\.(\d{1,9})\.new", torn.name[len(name) :])
        with suppress(OSError):
            if pid and not _is_alive(int(pid[1])):
                torn.unlink()


def _is_alive(pid: int) -> bool:
    """Return whether a process of this number exists, as far as this user can tell."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _keep_elsewhere(name: str, parts: Mapping[str, Callable[[Path], object]], within: bool) -> str:
    """Write the parts into a temporary folder, and return a sentence that says where they are."""
    from safetensors import SafetensorError

    folder = None
    try:
        folder = Path(tempfile.mkdtemp(prefix="gradeclip-kept-"))
        place = folder / name if within else folder
        place.mkdir(exist_ok=True)
        for part, write in parts.items():
            write(place / part)
    except (OSError, SafetensorError) as error:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        return f"and no temporary folder takes it either ({error})"
    return f"what was to be written is kept as {folder / name}"


@contextmanager
def locked(folder: Path, name: str, wait: float = 0) -> Iterator[None]:
    """Keep other processes out of the same block, or raise GradeclipError if one is inside."""
    from filelock import FileLock, Timeout

    folder = as_path(folder, "the folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / name)
        lock.acquire(timeout=wait)
    except Timeout:
        message = f"another process is at work on {folder}: wait until it is done, or choose another folder"
        raise GradeclipError(message) from None
    except OSError as error:
        raise GradeclipError(f"nothing can be written to {folder}: {error}") from error
    try:
        yield
    finally:
        lock.release()


@cache  # reading a package's metadata takes as long as a small explanation
def version(library: str) -> str:
    """Return the version of an installed library, or "unknown"."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "unknown"
