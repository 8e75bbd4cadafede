"""Files: where the project's own data lies, and files that are written whole or not at all.

Nothing here needs torch, so that code that only draws scenes starts at once.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO

_PACKAGE = Path(__file__).parent


def data_path(name: str = "") -> Path:
    """Path of a file of the project's `data/` folder, which an installed package carries inside itself.

    In a checkout (also after `pip install -e .`) the folder stands beside the package; `pip install .` maps it to
    `gradeclip_utils/data`. The file need not exist: `training` writes there.

        data_path("concepts.csv")
    """
    inside = _PACKAGE / "data"
    return (inside if inside.is_dir() else _PACKAGE.parent / "data") / name


def write_whole(file: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file whole or not at all, whenever the process or the machine dies; `write` gets a binary stream."""
    new = file.with_name(f"{file.name}.{os.getpid()}.new")
    with new.open("wb") as stream:
        write(stream)
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(file)


def commit() -> str:
    """The commit that the working tree stands on, with "+" where files differ from it; "unknown" without git."""
    call = partial(subprocess.run, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    try:
        head = call(["git", "rev-parse", "--short", "HEAD"])
        changed = call(["git", "status", "--porcelain", "--", "."])
    except FileNotFoundError:
        return "unknown"
    return "unknown" if head.returncode else head.stdout.strip() + ("+" if changed.stdout.strip() else "")
