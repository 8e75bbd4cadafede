"""Images with a table of captions as examples: your own, those of Hugging Face datasets, and five photographs."""

from __future__ import annotations

import csv
import os.path
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from ..checks import as_path, readable, short
from ..errors import GradeclipError
from ..files import data_path
from ..images import read_image
from .example import Example, fitting

_COLUMNS = "the columns image and caption"


def own_images(path: str | Path) -> list[Example]:
    """Read images of your own: a folder with `captions.csv`, `images/` and, if you have them, `masks/`.

    `captions.csv` has a row for every question, and the columns `image` (a file in `images/`) and `caption` (the
    prompt); optionally `mask` (a file in `masks/`, of the image's size, where the object is anything but black, or in a
    cut-out anything but transparent; by default the image's path with the ending `.png`) and `concept` (by default the
    caption).

    Args:
        path: of the folder.

    Returns:
        One example a row, in the order of the table; keys are LINE-IMAGE.

    Raises:
        GradeclipError: the table, or a file that it names, is missing, or the table is not in this form; the message
            names the line.
    """
    path = as_path(path, "the folder of images")
    rows = read_captions(path / "captions.csv")
    concepts = rows["concept"].where(rows["concept"] != "", rows["caption"]) if "concept" in rows else rows["caption"]
    present = concepts.groupby(rows["image"]).agg(lambda own: tuple(dict.fromkeys(own)))
    found, masks = [], dict[Path, str]()
    for (line, row), concept in zip(rows.iterrows(), concepts, strict=True):
        image, named = path / "images" / row["image"], row.get("mask") or ""
        mask = path / "masks" / (named or f"{os.path.splitext(row['image'])[0]}.png")
        for file, wanted in ((image, True), (mask, bool(named))):
            if wanted and not os.path.isfile(file):  # also of a name that no file can have
                raise GradeclipError(f"{path / 'captions.csv'}, line {line}: there is no file {file}")
        if os.path.isfile(mask) and not named and masks.setdefault(mask, row["image"]) != row["image"]:
            both = f"{masks[mask]} and {row['image']}"
            raise GradeclipError(f"{mask} could be the mask of {both}: add a column mask to {path / 'captions.csv'}")
        load_mask = partial(_drawn_mask, mask, image) if os.path.isfile(mask) else None
        key, asked = f"{line}-{row['image']}", row["caption"]
        read = partial(read_image, image)
        found.append(Example(key, asked, concept, asked, present[row["image"]], read, load_mask))
    return found


def captioned_images(images: str | Path, captions: str | Path, *, check: bool = True) -> list[Example]:
    """Read images in any folder, with a table of captions beside it or elsewhere.

    Args:
        images: the folder of the images.
        captions: a table (CSV) with the columns image and caption; it names files of the folder.
        check: whether a missing file is refused now, or when its image is read.

    Returns:
        One example a row, in the order of the table; keys are LINE-IMAGE.

    Raises:
        GradeclipError: the table, or a file that it names, is missing, or the table is not in this form; the message
            names the line.
    """
    folder, found = as_path(images, "the folder of images"), []
    for line, row in read_captions(captions).iterrows():
        file = folder / row["image"]
        if check and not os.path.isfile(file):  # also of a name that no file can have
            raise GradeclipError(f"{captions}, line {line}: there is no file {file}")
        found.append(_captioned(f"{line}-{row['image']}", row["image"], row["caption"], partial(read_image, file)))
    return found


def from_huggingface(dataset: Sequence[Any], image: str = "image", caption: str = "caption") -> list[Example]:
    """Turn a data set of Hugging Face `datasets` into examples.

        from datasets import load_dataset
        examples = from_huggingface(load_dataset("imagefolder", data_dir="birds")["train"], caption="text")

    Args:
        dataset: a split of a data set, or any sequence of records (dictionaries).
        image: the name of the column of images.
        caption: the name of the column of captions; a caption is a text, or a list of texts.

    Returns:
        One example a caption, without masks; keys are ROW or ROW/NUMBER. Images are decoded when they are read.

    Raises:
        GradeclipError: a column that is not there, captions that are no texts, no caption at all.
    """
    if hasattr(dataset, "keys") or not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        splits = f", such as [{next(iter(dataset), 'train')!r}]" if hasattr(dataset, "keys") else ""
        raise GradeclipError(f"from_huggingface needs one split of a data set{splits}, got a {type(dataset).__name__}")
    table: Any = dataset
    named = getattr(dataset, "column_names", None)
    if named is None and not all(isinstance(row, Mapping) for row in dataset):
        raise GradeclipError(f"every record must be a dictionary of columns, got {short(dataset)}")
    columns = list(dict.fromkeys(name for row in dataset for name in row) if named is None else named)
    if missing := [name for name in (image, caption) if name not in columns]:
        has = ", ".join(map(repr, columns)) or "none"
        raise GradeclipError(f"the data set has no column {missing[0]!r}; it has {has}: say image= and caption=")
    captions = [row.get(caption) for row in dataset] if named is None else table[caption]
    found = []
    for row, some in enumerate(captions):
        several = isinstance(some, (list, tuple))
        for number, one in enumerate(some if several else [some]):
            if not isinstance(one, str):
                raise GradeclipError(f"captions must be texts, and row {row} of {caption!r} has {short(one)}")
            if one.strip():
                key = f"{row}/{number}" if several else str(row)
                found.append(_captioned(key, str(row), one.strip(), partial(_cell, dataset, row, image)))
    if not found:
        raise GradeclipError(f"column {caption!r} holds no captions")
    return found


def photographs() -> list[Example]:
    """Return five photographs in the public domain or under CC0, at most 384 pixels a side, each with one caption.

    There are no masks, and five images measure nothing: they show what a model of photographs does. The bundled models
    have never seen a photograph, and warn.

    Raises:
        GradeclipError: the installation is damaged.
    """
    folder = data_path("photos")
    rows = read_captions(folder / "captions.csv").itertuples()
    return [_captioned(row.image, row.image, row.caption, partial(read_image, folder / row.image)) for row in rows]


def read_captions(table: str | Path) -> pd.DataFrame:
    """Return the rows of a CSV table with the columns `image` and `caption` as texts, indexed by their lines."""
    table = readable(table, "a table of captions")
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            records = list(_records(csv.reader(stream, strict=True), table))
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise GradeclipError(f"{table} cannot be read as a table (CSV, UTF-8): {error}") from error
    header, records = (records[0][1], records[1:]) if records else ([], [])
    if twice := [name for name in ("image", "caption", "mask", "concept") if header.count(name) > 1]:
        raise GradeclipError(f"{table} has {header.count(twice[0])} columns {twice[0]!r}: keep one of them")
    if not {"image", "caption"} <= set(header):
        raise GradeclipError(f"{table} must have {_COLUMNS}, and has {', '.join(header) or 'nothing'}")
    if not records:
        raise GradeclipError(f"{table} has no rows: it needs an image and a caption in every row")
    rows = pd.DataFrame([fields for _, fields in records], columns=header, index=[line for line, _ in records])
    rows = rows.loc[:, ~rows.columns.duplicated()].apply(lambda column: column.str.strip())
    empty = rows.index[rows["image"].eq("") | rows["caption"].eq("")]
    if len(empty):
        raise GradeclipError(f"{table} needs an image and a caption in every row: line {empty[0]} lacks one of them")
    return rows


def _records(reader: Any, table: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the line and the fields of every row that is not blank, as many fields as the header has."""
    line, width = 1, None
    for fields in reader:
        start, line = line, reader.line_num + 1
        if not fields:
            continue
        width = len(fields) if width is None else width
        if len(fields) > width:
            more = f"line {start} has {len(fields)} fields and the header {width}"
            raise GradeclipError(f"{table}: {more}; a caption with a comma needs quotes")
        yield start, fields + [""] * (width - len(fields))


def _captioned(key: str, name: str, caption: str, read: Any) -> Example:
    """Return the example of an image and its caption; the image is its own concept."""
    return Example(key, caption, name, caption, (name,), read)


def _cell(dataset: Sequence[Any], row: int, column: str) -> Image.Image:
    if (image := dataset[row].get(column)) is None:
        raise GradeclipError(f"row {row} has no image in column {column!r}")
    return read_image(image)


def _drawn_mask(file: Path, image: Path) -> np.ndarray:
    """Read a mask: what is not black, or in a cut-out what is not transparent."""
    shown = np.any(np.asarray(read_image(file)), axis=-1)
    with Image.open(file) as read:
        if read.has_transparency_data:
            opaque = np.asarray(read.convert("RGBA"))[..., 3] > 127
            shown = shown if opaque.all() else opaque
    mask = fitting(shown, file, image)
    if not mask.any():
        raise GradeclipError(f"{file} is black all over: the object must have another colour")
    return mask
