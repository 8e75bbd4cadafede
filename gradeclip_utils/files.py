"""Files: where the project's own data lies, and files that are written whole or not at all.

Nothing here needs torch, so that code that only draws scenes starts at once.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from .checks import writable
from .errors import GradeclipError

if TYPE_CHECKING:
    from torch import Tensor, nn

_PACKAGE = Path(__file__).parent


def data_path(name: str = "") -> Path:
    """Return the path of a file in the project's `data/` folder, which an installed package carries inside itself."""
    inside = _PACKAGE / "data"
    return (inside if inside.is_dir() else _PACKAGE.parent / "data") / name


def output(
    path: str | os.PathLike,
    what: str,
    *,
    inputs: Iterable[str | os.PathLike | None] = (),
    overwrite: bool = False,
    suffixes: Sequence[str] = (),
    size: int = 0,
) -> Path:
    """Return the path of a file that a command will write: never one of its inputs, nor an existing file unasked."""
    place = writable(path, what, suffixes=suffixes, size=size)
    if os.path.exists(place) and any(
        os.path.samefile(place, one) for one in inputs if one and os.path.exists(one)
    ):
        raise GradeclipError(f"{what} {place} is an input of this command: choose another file")
    if place.exists() and not overwrite:
        raise GradeclipError(f"{what} {place} exists: choose another file, or add --overwrite")
    return place


def write_whole(parts: Mapping[Path, bytes | Callable[[Path], object]]) -> None:
    """Write files whole or not at all, whenever the process or the machine dies: their content, or by a function.

    All are on the disk before the first takes its name.
    """
    from safetensors import SafetensorError  # raised on a full disk

    news = {file: file.with_name(f"{file.name}.new") for file in parts}
    try:
        for file, content in parts.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            if callable(content):
                content(news[file])
            else:
                news[file].write_bytes(content)
            with news[file].open("r+b") as stream:
                os.fsync(stream.fileno())
        for file, new in news.items():
            new.replace(file)
    except BaseException as error:
        for new in news.values():
            with suppress(OSError):
                new.unlink(missing_ok=True)
        if not isinstance(error, (OSError, SafetensorError)):
            raise
        raise GradeclipError(
            f"{', '.join(map(str, parts))} could not be written: {error}"
        ) from error


@contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Keep other processes out of the same block, or raise GradeclipError if one is inside."""
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / name)
        lock.acquire(timeout=0)
    except Timeout:
        message = f"another process is at work on {folder}: wait until it is done, or choose another folder"
        raise GradeclipError(message) from None
    except OSError as error:
        raise GradeclipError(f"nothing can be written to {folder}: {error}") from error
    try:
        yield
    finally:
        with suppress(OSError):  # Windows does not remove a file that is open
            (folder / name).unlink()
        lock.release()


@cache  # reading a package's metadata takes as long as a small explanation
def version(library: str) -> str:
    """Return the version of an installed library, or "unknown"."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "unknown"


def weights_digest(model: nn.Module) -> str:
    """Return a checksum that tells one set of weights from another, whatever their file is called."""
    checksum = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        checksum.update(name.encode())
        checksum.update(bytes_of(tensor))
    return checksum.hexdigest()[:16]


def digest(parts: Iterable[bytes | memoryview]) -> str:
    """Return a checksum of bytes, which may come in parts."""
    checksum = hashlib.sha256()
    for part in parts:
        checksum.update(part)
    return checksum.hexdigest()[:16]


def bytes_of(tensor: Tensor) -> memoryview:
    """Return the content of a tensor as bytes."""
    import torch

    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
