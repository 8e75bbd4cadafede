"""Images with a table of captions as examples: your own, those of open_clip's CSV, and five that anybody may use."""

from __future__ import annotations

import os.path
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ..checks import as_path, readable
from ..errors import GradeclipError
from ..files import data_path, read_csv
from ..images import read_image
from .example import Example, fitting

COLUMNS = "the columns image and caption"
_OPEN_CLIP = ("filepath", "title")


def own_images(path: str | Path) -> list[Example]:
    """Images of your own: a folder with `captions.csv`, `images/` and, if you have them, `masks/`.

    `captions.csv` has a row for every question, and the columns `image` (a file in `images/`) and `caption` (the
    prompt); optionally `mask` (a file in `masks/`, of the image's size, where anything but black is the object, or of a
    cut-out what is not transparent; the image's name with `.png` if there is no such column) and `concept` (the caption
    if there is no such column). There is one example a row, in the order of the table.

    Args:
        path: of the folder.

    Returns:
        One example a row, in the order of the table.

    Raises:
        FileNotFoundError: the table, or a file that it names, is missing; the message names the line.
        ValueError: the table is not what it should be; the message names the line.
    """
    path = as_path(path, "the folder of images")
    rows = read_captions(path / "captions.csv")
    concepts = rows["concept"].where(rows["concept"] != "", rows["caption"]) if "concept" in rows else rows["caption"]
    present = concepts.groupby(rows["image"]).agg(lambda own: tuple(dict.fromkeys(own)))
    return [
        _example(path, row, concept, present[row["image"]], line)
        for line, (row, concept) in enumerate(zip(rows.to_dict("records"), concepts, strict=True), start=2)
    ]


def captioned_images(images: str | Path, captions: str | Path) -> list[Example]:
    """Images in any folder, with a table of captions beside it or elsewhere (`read_captions`): one example a row.

    Args:
        images: the folder of the images.
        captions: the table, as for `read_captions`; it names files of the folder.

    Raises:
        FileNotFoundError: the table, or a file that it names, is missing; the message names the line.
        ValueError: the table is not what it should be.
    """
    folder, found = as_path(images, "the folder of images"), []
    for line, row in enumerate(read_captions(captions).itertuples(), start=2):
        file = folder / row.image
        if not os.path.isfile(file):  # which also says so of a name that no file can have
            raise GradeclipError(f"{captions}, line {line}: there is no file {file}")
        found.append(_captioned(f"{line}-{row.image}", row.image, row.caption, file))
    return found


def read_captions(table: str | Path) -> pd.DataFrame:
    """The rows of a table with the columns `image` and `caption`, and whatever else, as text; none lacks the two."""
    table = as_path(table, "the table of captions")
    if not table.is_file():
        raise GradeclipError(f"{table} is missing: write a table with {COLUMNS}")
    rows = read_table(table)
    if not {"image", "caption"} <= set(rows.columns):
        raise GradeclipError(f"{table} must have {COLUMNS}, and has {', '.join(rows.columns)}")
    empty = np.flatnonzero(rows["image"].str.strip().eq("") | rows["caption"].str.strip().eq(""))
    if rows.empty or len(empty):
        where = f"line {empty[0] + 2} lacks one of them" if len(empty) else "it has no rows"
        raise GradeclipError(f"{table} needs an image and a caption in every row: {where}")
    return rows


def read_table(file: Path, separator: str = ",") -> pd.DataFrame:
    """The rows of a file, all of them as text."""
    rows = read_csv(file, sep=separator, dtype=str, keep_default_na=False)
    if not isinstance(rows.index, pd.RangeIndex):  # pandas has taken the first field of every row for its name
        msg = f"rows of {file} have more fields than its {rows.shape[1]} columns: a caption with a comma needs quotes"
        raise GradeclipError(msg)
    return rows


def open_clip_csv(path: str | Path) -> list[Example]:
    """The pairs of a table with the columns `filepath` and `title`, separated by tabs (open_clip's default) or commas."""
    path = readable(path, "a table of image files and captions")
    with path.open(encoding="utf-8", errors="replace") as stream:
        rows = read_table(path, "\t" if "\t" in stream.readline() else ",")
    if missing := [column for column in _OPEN_CLIP if column not in rows]:
        wanted, lacks = (" and ".join(names) for names in (_OPEN_CLIP, missing))
        has = ", ".join(rows.columns)
        raise GradeclipError(f"{path} must have the columns {wanted}, and lacks {lacks}: it has {has}")
    if rows.empty:
        raise GradeclipError(f"{path} has no rows")
    return [
        _pair(path, line, file.strip(), title.strip())
        for line, (file, title) in enumerate(zip(rows["filepath"], rows["title"], strict=True), start=2)
    ]


def _pair(table: Path, line: int, file: str, title: str) -> Example:
    if not file or not title:
        raise GradeclipError(f"{table}, line {line}: a row needs a filepath and a title")
    beside = table.parent / file
    image = beside if os.path.isfile(beside) else Path(file).absolute()
    if not os.path.isfile(image):
        raise GradeclipError(f"{table}, line {line}: there is no file {file}")
    return _captioned(f"{line}-{file}", file, title, image)


def photographs() -> list[Example]:
    """Five photographs in the public domain or under CC0, at most 384 pixels a side, each with one caption; by name.

        for example in photographs():
            display(explainer.explain(example.image(), example.prompt))

    There are no masks, and five images measure nothing: they are for looking at what a model of photographs does. The
    bundled models have never seen one, and say so.

    Raises:
        FileNotFoundError: the installation is damaged.
    """
    folder = data_path("photos")
    rows = read_captions(folder / "captions.csv").itertuples()
    return [_captioned(row.image, row.image, row.caption, folder / row.image) for row in rows]


def _captioned(key: str, name: str, caption: str, file: Path) -> Example:
    """An image file and its caption; the image is its own concept."""
    return Example(key, caption, name, caption, (name,), partial(read_image, file))


def _example(path: Path, row: dict, concept: str, present: tuple[str, ...], line: int) -> Example:
    """The question of one line of the table; what is wrong with it is said with the line."""
    image = path / "images" / row["image"]
    mask = path / "masks" / (row.get("mask") or f"{image.stem}.png")
    for file, wanted in ((image, True), (mask, bool(row.get("mask")))):
        if wanted and not os.path.isfile(file):
            raise GradeclipError(f"{path / 'captions.csv'}, line {line}: there is no file {file}")
    load_mask = partial(_drawn_mask, mask, image) if os.path.isfile(mask) else None
    reading = partial(read_image, image)
    return Example(f"{line}-{row['image']}", row["caption"], concept, row["caption"], present, reading, load_mask)


def _drawn_mask(file: Path, image: Path) -> np.ndarray:
    shown = np.any(np.asarray(read_image(file)), axis=-1)
    with Image.open(file) as read:
        if read.has_transparency_data:
            opaque = np.asarray(read.convert("RGBA"))[..., 3] > 127
            shown = shown if opaque.all() else opaque  # a cut-out
    mask = fitting(shown, file, image)
    if not mask.any():
        raise GradeclipError(f"{file} is black all over: what shows the object must have another colour")
    return mask
