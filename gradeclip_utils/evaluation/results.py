"""Results: a long computation kept in parts, so that it can be killed at any moment and taken up again.

    chunk of examples -> rows -> part on disk -> all rows -> table

A run is a folder: `settings.json` says what is computed, `parts/00007.parquet` holds the rows of chunk 7. A part
appears whole or not at all (it is written under another name, flushed to the disk and renamed), so a kill loses the
chunks that were being computed and nothing else; and because a chunk has one name, no row is ever there twice. Parts
carry checksums: one that was damaged since is computed again. One process at a time writes to a run.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ..files import write_whole

SETTINGS, PARTS = "settings.json", "parts"


def open_run(folder: str | Path, settings: Mapping) -> Path:
    """The folder of a run, new or to be gone on with; `settings` is everything that its rows depend on.

    Raises:
        ValueError: the folder holds a run of other settings (the message names them), or something else.
    """
    folder, settings = Path(folder), json.loads(json.dumps(settings))  # as they will be read again
    file = folder / SETTINGS
    if not file.is_file():
        there = list(folder.iterdir()) if folder.is_dir() else [folder] if folder.exists() else []
        if any(child.suffix != ".new" for child in there):  # a kill before the settings were whole leaves a .new
            raise ValueError(f"{folder} is not empty and holds no {SETTINGS}: choose a folder for this run alone")
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(settings, indent=1, ensure_ascii=False) + "\n"
        write_whole(file, lambda stream: stream.write(text.encode()))
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} cannot be read ({error}): delete {folder}, or choose another folder") from error
    differing = [
        f"{key} was {_short(found.get(key))}, and is {_short(settings.get(key))} now"
        for key in {**found, **settings}
        if found.get(key) != settings.get(key)
    ]
    if differing:
        raise ValueError(f"{folder} holds another run: {'; '.join(differing)}. Choose another folder, or delete it")
    (folder / PARTS).mkdir(exist_ok=True)
    for left in folder.rglob("*.new"):  # by a kill, before it was whole
        left.unlink(missing_ok=True)
    return folder


def write_part(folder: Path, number: int, rows: pd.DataFrame) -> None:
    """Keep the rows of one chunk; when this returns they are on the disk."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pandas(rows, preserve_index=False), sink, write_page_checksum=True)
    write_whole(_part(folder, number), lambda stream: stream.write(sink.getvalue().to_pybytes()))


def read_part(folder: Path, number: int, expected: list[tuple]) -> pd.DataFrame | None:
    """The rows of one chunk; None if they were not computed yet, or (with a warning) if the part is damaged.

    `expected` lists the (picture, method) of its rows.
    """
    file = _part(folder, number)
    if not file.is_file():
        return None
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as part:
            rows = part.read().to_pandas()
        whole = list(zip(rows["image"], rows["method"], strict=True)) == expected
    except (pa.ArrowException, OSError, KeyError):
        whole = False
    if not whole:
        warnings.warn(f"{file} is damaged, and its rows are computed again", stacklevel=2)
        return None
    return rows


def read_run(folder: str | Path) -> pd.DataFrame:
    """All rows that a run has so far, in the order of the examples.

    Raises FileNotFoundError if there is no run.
    """
    files = sorted((Path(folder) / PARTS).glob("*.parquet"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no rows of an evaluation")
    return pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)


def _part(folder: Path, number: int) -> Path:
    return folder / PARTS / f"{number:05d}.parquet"


def _short(value) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
