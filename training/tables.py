"""Tables of figures in Markdown, written into a card between two markers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.files import write_whole


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, without a line end behind its last row."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows))


def by_model(table: pd.DataFrame, digits: int) -> pd.DataFrame:
    """Figures x models in the order of a table of figure, model, value, low and high: "0.70 [0.60, 0.80]"."""
    numbers = zip(table["value"], table["low"], table["high"], strict=True)
    cells = [
        f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]" for value, low, high in numbers
    ]
    wide = table.assign(cell=cells).pivot(index="figure", columns="model", values="cell").fillna("")
    return wide.loc[table["figure"].drop_duplicates(), table["model"].drop_duplicates()]


def write_figures(file: Path, command: str, text: str) -> None:
    """Write `text` into a card, in place of what stands between the two lines that mark a command's figures."""
    begin, end = (
        f"<!-- figures: written by python -m training {command} -->",
        "<!-- end of figures -->",
    )
    before, found, rest = file.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise GradeclipError(
            f"{file} needs the lines {begin!r} and {end!r}, between which the table goes"
        )
    content = f"{before}{begin}\n\n{text}\n\n{end}{after}".encode()
    write_whole({file: content})
