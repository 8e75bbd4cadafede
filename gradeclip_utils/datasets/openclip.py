"""open_clip's CSV: a table of image files and captions, as its training reads it (`--train-data pairs.csv`)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ..checks import readable
from ..errors import InvalidValue, MissingFile
from ..images import read_image
from .example import Example
from .own import read_table

_COLUMNS = ("filepath", "title")


def open_clip_csv(path: str | Path) -> list[Example]:
    """The pairs of a table with the columns `filepath` and `title`, separated by tabs (open_clip's default) or commas.

    Args:
        path: the table. Paths in it that are not absolute are looked for beside the table, and then, as open_clip does,
            in the working directory.

    Returns:
        One example a row.

    Raises:
        FileNotFoundError: the table, or an image that it names, is missing; the message names the line.
        ValueError: it lacks a column, a row lacks one of the two, or there are no rows.
    """
    path = readable(path, "a table of image files and captions")
    with path.open(encoding="utf-8", errors="replace") as stream:
        rows = read_table(path, "\t" if "\t" in stream.readline() else ",")
    if missing := [column for column in _COLUMNS if column not in rows]:
        given = ", ".join(rows.columns)
        raise InvalidValue(f"{path} must have the columns {' and '.join(_COLUMNS)}, and lacks {' and '.join(missing)}: "
                           f"it has {given}", "data-table")  # fmt: skip
    if rows.empty:
        raise InvalidValue(f"{path} has no rows", "data-table")
    return [
        _pair(path, line, file.strip(), title.strip())
        for line, (file, title) in enumerate(zip(rows["filepath"], rows["title"], strict=True), start=2)
    ]


def _pair(table: Path, line: int, file: str, title: str) -> Example:
    if not file or not title:
        raise InvalidValue(f"{table}, line {line}: a row needs a filepath and a title", "data-table")
    beside = table.parent / file
    image = beside if beside.is_file() else Path(file).absolute()
    if not image.is_file():
        raise MissingFile(f"{table}, line {line}: there is no file {file}", "data-missing")
    return Example(f"{line}-{file}", title, file, title, (file,), partial(read_image, image))
