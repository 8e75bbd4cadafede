"""Files: where the project's own data lies, and files that are written whole or not at all.

Nothing here needs torch, so that code that only draws scenes starts at once.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from functools import cache, partial
from importlib import metadata
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from safetensors import SafetensorError  # which says so of a full disk

from .checks import first_line
from .errors import GradeclipError

if TYPE_CHECKING:
    import pandas as pd

_PACKAGE = Path(__file__).parent


def data_path(name: str = "") -> Path:
    """Path of a file of the project's `data/` folder, which an installed package carries inside itself."""
    inside = _PACKAGE / "data"
    return (inside if inside.is_dir() else _PACKAGE.parent / "data") / name


def read_csv(file: Path, **options) -> pd.DataFrame:
    """A table in a file of text."""
    import pandas as pd  # slow to import, and who draws scenes does without

    try:
        return pd.read_csv(file, **options)
    except (ValueError, OSError) as error:  # pandas' own errors are ValueErrors
        raise GradeclipError(f"{file} cannot be read as a table: {first_line(error)}") from error


def write_whole(file: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file whole or not at all, whenever the process or the machine dies."""

    def into(path: Path) -> None:
        """What `write` writes, in one file."""
        with path.open("wb") as stream:
            write(stream)

    write_path_whole(file, into)


def write_path_whole(file: Path, write: Callable[[Path], object]) -> None:
    """As `write_whole`, for what writes to a path of its own."""
    _write(file, file.parent, {file.name: write})


def write_together(folder: Path, parts: Mapping[str, bytes]) -> None:
    """Write several files into a folder: all are on the disk before the first takes its name."""
    _write(folder, folder, {name: methodcaller("write_bytes", content) for name, content in parts.items()})


def _write(what: Path, folder: Path, parts: Mapping[str, Callable[[Path], object]]) -> None:
    """Write `what`: the folder itself, or the one file in it that `parts` names."""
    news = {name: folder / f"{name}.{os.getpid()}.new" for name in parts}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, write in parts.items():
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
        kept = _kept(what.name, parts, within=what == folder)
        raise GradeclipError(f"{what} could not be written ({error}): {kept}") from error


def _kept(name: str, parts: Mapping[str, Callable[[Path], object]], within: bool) -> str:
    """Write what has no other place into a temporary folder, or `within` one of its name there; say where it is."""
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
    """Within it no other process is within it: an open transaction on an empty database."""
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = sqlite3.connect(folder / name, timeout=wait, isolation_level=None, check_same_thread=False)
            stack.enter_context(closing(lock)).execute("BEGIN EXCLUSIVE")
        except (OSError, sqlite3.OperationalError) as error:
            if isinstance(error, OSError) or "locked" not in str(error):
                raise GradeclipError(f"nothing can be written to {folder}: {error}") from error
            message = f"another process is at work on {folder}: wait until it is done, or choose another folder"
            raise GradeclipError(message) from error
        yield


@cache  # reading a package's metadata takes as long as a small explanation
def version(library: str) -> str:
    """The version of a library as its package says it; "unknown" where it is not installed as one."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "unknown"


def commit() -> str:
    """The commit that the working tree stands on, with "+" where files differ from it; "unknown" without git."""
    call = partial(subprocess.run, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    try:
        head = call(["git", "rev-parse", "--short", "HEAD"])
        changed = call(["git", "status", "--porcelain", "--", "."])
    except FileNotFoundError:
        return "unknown"
    return "unknown" if head.returncode else head.stdout.strip() + ("+" if changed.stdout.strip() else "")
