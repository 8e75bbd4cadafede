"""Tables of figures in Markdown, written into a card between two markers."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.files import write_whole


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, without a line end behind its last row."""
    rule = ["---"] * len(columns)
    lines = []
    for cells in (columns, rule, *rows):
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def by_model(table: pd.DataFrame, digits: int) -> pd.DataFrame:
    """Figures x models in the order of a table: cells such as "0.70 [0.60, 0.80]".

    The table has the columns figure, model, value, low and high.
    """
    cells = []
    for row in table.itertuples():
        value = f"{row.value:.{digits}f}"
        low = f"{row.low:.{digits}f}"
        high = f"{row.high:.{digits}f}"
        cells.append(f"{value} [{low}, {high}]")
    wide = table.assign(cell=cells).pivot(index="figure", columns="model", values="cell")
    figures = table["figure"].drop_duplicates()
    models = table["model"].drop_duplicates()
    return wide.fillna("").loc[figures, models]


def write_figures(file: Path, command: str, text: str) -> None:
    """Write `text` into a card, between the two lines that mark a command's figures."""
    begin = f"<!-- figures: written by python -m training {command} -->"
    end = "<!-- end of figures -->"
    before, begin_found, rest = file.read_text(encoding="utf-8").partition(begin)
    _, end_found, after = rest.partition(end)
    if not begin_found or not end_found:
        raise GradeclipError(
            f"{file} needs the lines {begin!r} and {end!r}, between which the table goes"
        )
    write_whole({file: f"{before}{begin}\n\n{text}\n\n{end}{after}".encode()})
