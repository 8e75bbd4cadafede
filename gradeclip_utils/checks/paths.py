"""Paths: the doors of what is read from files and written to them."""

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InvalidFile, InvalidType, MissingFile, short


def as_path(path: Any, what: str) -> Path:
    """A path, its tilde expanded, that the operating system takes, whether or not there is something.

    Args:
        path: what was given.
        what: it is called, in a refusal.

    Raises:
        InvalidType: it is neither a string nor a path.
        InvalidFile: it is empty, too long, holds a NUL, or may not be looked at.
    """
    if not isinstance(path, (str, os.PathLike)) or isinstance(path, bytes):
        raise InvalidType(f"{what} must be a path, got {short(path)}", "path-type")
    if not str(path).strip():
        raise InvalidFile(f"{what} must be a path, and an empty one was given", "path-empty")
    try:
        path = Path(path).expanduser()
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return path
    except (OSError, ValueError, RuntimeError) as error:  # too long, a loop of links; NUL; nobody's home
        reason = getattr(error, "strerror", None) or error
        msg = f"{what} is no path that can be used, {reason}: {short(str(path))}"
        raise InvalidFile(msg, "path-unusable") from None
    return path


def readable(path: Any, what: str) -> Path:
    """The path of a file that is there. A pipe, which would be waited for without end, is no file.

    Args:
        path: what was given.
        what: it is called, in a refusal: "a picture file".

    Raises:
        MissingFile: there is nothing.
        InvalidFile: a folder, or no regular file; and what `as_path` raises.
    """
    path = as_path(path, what)
    if path.is_dir():
        raise InvalidFile(f"{path} is a folder, not {what}", "path-is-folder")
    if not path.exists():
        raise MissingFile(f"There is no {what.removeprefix('a ')} {path}", "path-missing")
    if not path.is_file():
        raise InvalidFile(f"{path} is a pipe or a device, not {what}", "path-no-file")
    return path


def writable(path: Any, what: str, *, folder: bool = False, suffixes: Sequence[str] = (), size: int = 0) -> Path:
    """A place to write to at the end of a computation, proved before it begins; nothing is made yet.

    Args:
        path: of a file that may be there already, or a folder; folders on the way to it need not exist.
        what: it is called, in a refusal.
        folder: whether it is to be a folder.
        suffixes: of a file, one of these.
        size: bytes that will be needed, as an estimate.

    Raises:
        InvalidFile: it cannot be written; says why.
        InvalidType: it is no path.
    """
    path = as_path(path, what)
    if suffixes and path.suffix.lower() not in suffixes:
        raise InvalidFile(f"{what} must end in {' or '.join(suffixes)}; got {short(str(path))}", "path-suffix")
    if path.exists() and path.is_dir() != folder:
        found, wanted = ("file", "folder") if folder else ("folder", "file")
        msg = f"{what} must be a {wanted}, and {path} is a {found}"
        raise InvalidFile(msg, "path-is-file" if folder else "path-is-folder")
    if path.exists() and not (folder or path.is_file()):
        raise InvalidFile(f"{what} must be a file, and {path} is a pipe or a device", "path-no-file")
    home = next(one for one in (path, *path.absolute().parents)[0 if folder else 1 :] if one.exists())
    try:
        with tempfile.TemporaryFile(dir=home):
            free = shutil.disk_usage(home).free
    except OSError as error:
        said = error.strerror or error
        msg = f"{what} cannot be written to {path}: {home} does not let it ({said})"
        raise InvalidFile(msg, "path-read-only") from error
    if free < size:
        need = f"{size / 1e6:,.0f} MB, and {home} has {free / 1e6:,.0f} MB left"
        raise InvalidFile(f"{what} needs about {need}: free some, or choose another place", "disk-full")
    return path
