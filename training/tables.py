"""Tables in Markdown, written into a card between two markers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.files import write_whole


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, without a line end behind its last row."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows))


def write_between(file: Path, begin: str, end: str, text: str) -> None:
    """Write `text` into a file, in place of what stands between two markers, which stay."""
    before, found, rest = file.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        msg = f"{file} needs the lines {begin!r} and {end!r}, between which the table goes"
        raise GradeclipError(msg)
    content = f"{before}{begin}\n\n{text}\n\n{end}{after}".encode()
    write_whole({file: content})
