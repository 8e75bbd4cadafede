"""Paths: the doors of what is read from files and written to them."""

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import GradeclipError, short


def as_path(path: Any, what: str) -> Path:
    """A path, its tilde expanded, that the operating system takes, whether or not there is something."""
    if not isinstance(path, (str, os.PathLike)) or isinstance(path, bytes):
        raise GradeclipError(f"{what} must be a path, got {short(path)}")
    if not str(path).strip():
        raise GradeclipError(f"{what} must be a path, and an empty one was given")
    try:
        path = Path(path).expanduser()
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return path
    except (OSError, ValueError, RuntimeError) as error:  # too long, a loop of links; NUL; nobody's home
        reason = getattr(error, "strerror", None) or error
        msg = f"{what} is no path that can be used, {reason}: {short(str(path))}"
        raise GradeclipError(msg) from None
    return path


def readable(path: Any, what: str) -> Path:
    """The path of a file that is there. A pipe, which would be waited for without end, is no file."""
    path = as_path(path, what)
    if path.is_dir():
        raise GradeclipError(f"{path} is a folder, not {what}")
    if not path.exists():
        raise GradeclipError(f"There is no {what.removeprefix('a ')} {path}")
    if not path.is_file():
        raise GradeclipError(f"{path} is a pipe or a device, not {what}")
    return path


def writable(path: Any, what: str, *, folder: bool = False, suffixes: Sequence[str] = (), size: int = 0) -> Path:
    """A place to write to at the end of a computation, proved before it begins; nothing is made yet."""
    path = as_path(path, what)
    if suffixes and path.suffix.lower() not in suffixes:
        raise GradeclipError(f"{what} must end in {' or '.join(suffixes)}; got {short(str(path))}")
    if path.exists() and path.is_dir() != folder:
        found, wanted = ("file", "folder") if folder else ("folder", "file")
        msg = f"{what} must be a {wanted}, and {path} is a {found}"
        raise GradeclipError(msg, "path-is-file" if folder else "path-is-folder")
    if path.exists() and not (folder or path.is_file()):
        raise GradeclipError(f"{what} must be a file, and {path} is a pipe or a device")
    home = next(one for one in (path, *path.absolute().parents)[0 if folder else 1 :] if one.exists())
    try:
        with tempfile.TemporaryFile(dir=home):
            free = shutil.disk_usage(home).free
    except OSError as error:
        said = error.strerror or error
        msg = f"{what} cannot be written to {path}: {home} does not let it ({said})"
        raise GradeclipError(msg) from error
    if free < size:
        need = f"{size / 1e6:,.0f} MB, and {home} has {free / 1e6:,.0f} MB left"
        raise GradeclipError(f"{what} needs about {need}: free some, or choose another place")
    return path
