"""Files: where the project's own data lies, and files that are written whole or not at all.

Nothing here needs torch, so that code that only draws scenes starts at once.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import GradeclipError

if TYPE_CHECKING:
    from torch import nn

_PACKAGE = Path(__file__).parent


def data_path(name: str = "") -> Path:
    """The path of a file of the project's `data/`, which an installed package carries inside."""
    inside = _PACKAGE / "data"
    folder = inside if inside.is_dir() else _PACKAGE.parent / "data"
    return folder / name


def output(
    path: str | os.PathLike,
    option: str,
    *,
    inputs: Iterable[str | os.PathLike | None] = (),
    overwrite: bool = False,
    suffixes: Sequence[str] = (),
) -> Path:
    """The path of a file that a command will write, checked before anything is computed.

    Raises:
        GradeclipError: it is one of the inputs, exists without `overwrite`, or ends in none of the
            suffixes.
    """
    path = Path(path).expanduser()
    if suffixes and path.suffix.lower() not in suffixes:
        raise GradeclipError(f"{option} must end in {' or '.join(suffixes)}, got {path}")
    if not path.exists():
        return path

    for file in inputs:
        if file and os.path.exists(file) and os.path.samefile(path, file):
            raise GradeclipError(f"{option} {path} is an input of this command: choose another")
    if not overwrite:
        raise GradeclipError(f"{option} {path} exists: choose another file, or add --overwrite")
    return path


def write_whole(contents: Mapping[Path, bytes | Callable[[Path], object]]) -> None:
    """Write files whole or not at all: their bytes, or by a function that writes to a path.

    Each is written beside its place, and takes its name when all are there.
    """
    new_files = {file: file.with_name(f"{file.name}.new") for file in contents}
    try:
        for file, content in contents.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            if callable(content):
                content(new_files[file])
            else:
                new_files[file].write_bytes(content)
        for file, new_file in new_files.items():
            new_file.replace(file)
    finally:
        for new_file in new_files.values():
            new_file.unlink(missing_ok=True)


@cache  # reading a package's metadata takes as long as a small explanation
def version(library: str) -> str:
    """The version of an installed library, or "unknown"."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "unknown"


def weights_digest(model: nn.Module) -> str:
    """A checksum that tells one set of weights from another, whatever their file is called."""
    import torch

    checksum = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        checksum.update(name.encode())
        checksum.update(content.numpy().data)
    return checksum.hexdigest()[:16]
