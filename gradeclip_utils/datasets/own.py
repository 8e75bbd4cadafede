"""A folder of your own pictures as examples."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from ..images import read_image
from .example import Example, fitting, not_empty


def own_pictures(path: str | Path) -> list[Example]:
    """Pictures of your own: a folder with `captions.csv`, `pictures/` and, if you have them, `masks/`.

    `captions.csv` has a row for every question, and the columns `picture` (a file in `pictures/`) and `caption` (the
    prompt); optionally `mask` (a file in `masks/`, of the picture's size, where anything but black is the object; the
    picture's name with `.png` if there is no such column) and `concept` (the caption if there is no such column).

    Raises FileNotFoundError or ValueError; they name the line of the table.
    """
    path = Path(path)
    table = path / "captions.csv"
    if not table.is_file():
        columns = "a table with the columns picture and caption, and if you like mask and concept"
        raise FileNotFoundError(f"{table} is missing: write {columns}, for pictures in {path / 'pictures'}")
    try:
        rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise ValueError(f"{table} cannot be read as a table with the columns picture and caption: {error}") from error
    if not {"picture", "caption"} <= set(rows.columns):
        raise ValueError(f"{table} must have the columns picture and caption, and has {', '.join(rows.columns)}")
    concepts = rows["concept"].where(rows["concept"] != "", rows["caption"]) if "concept" in rows else rows["caption"]
    present = concepts.groupby(rows["picture"]).agg(lambda of_picture: tuple(dict.fromkeys(of_picture)))
    examples = [
        _own(path, row, concept, present[row["picture"]], f"{table}, line {line}")
        for line, (row, concept) in enumerate(zip(rows.to_dict("records"), concepts, strict=True), start=2)
    ]
    return not_empty(examples, f"{table} has no rows: write one for every picture and caption")


def _own(path: Path, row: dict, concept: str, present: tuple[str, ...], where: str) -> Example:
    if not row["picture"] or not row["caption"]:
        raise ValueError(f"{where}: a picture and a caption are needed, got {row}")
    picture = path / "pictures" / row["picture"]
    mask = path / "masks" / (row.get("mask") or f"{picture.stem}.png")
    for file, wanted in ((picture, True), (mask, bool(row.get("mask")))):
        if wanted and not file.is_file():
            raise FileNotFoundError(f"{where}: there is no file {file}")
    truth = partial(_drawn_mask, mask, picture) if mask.is_file() else None
    key = f"{where.rsplit(maxsplit=1)[1]}-{row['picture']}"
    return Example(key, row["caption"], concept, row["caption"], present, partial(read_image, picture), truth)


def _drawn_mask(file: Path, picture: Path) -> np.ndarray:
    mask = fitting(np.asarray(read_image(file)).any(axis=-1), file, picture)
    if not mask.any():
        raise ValueError(f"{file} is black all over: what shows the object must have another colour")
    return mask
