"""Images with a table of captions as examples: your own, those of Hugging Face datasets, and five photographs."""

from __future__ import annotations

import csv
import os.path
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from ..checks import as_path, flag, listed, readable, short, text
from ..errors import GradeclipError, warn
from ..files import data_path
from ..images import read_image
from .example import Example


def captioned_images(
    images: str | Path, captions: str | Path, masks: str | Path | None = None, *, check: bool = True
) -> list[Example]:
    """Read images of your own, with a table of captions and, if you have them, masks.

    The table (CSV) has a row for every question, and the columns `image` (a file in `images`) and
    `caption` (the prompt); optionally `concept` (by default the caption) and `mask` (a file in
    `masks`, of the image's size, not black on the object, or in a cut-out not transparent; by
    default the image's path with the ending `.png` or `.PNG`). `load("folder:mine")` reads
    `mine/images`, `mine/captions.csv` and `mine/masks`.

    Args:
        images: the folder of the images.
        captions: the table.
        masks: the folder of the masks.
        check: whether a missing image is refused now, or when it is read.

    Returns:
        One example per row, in the order of the table; keys are IMAGE (line LINE). A warning counts
        missing masks.

    Raises:
        GradeclipError: the table, or a file that it names, is missing, or the table is not in this
            form; the message names the line.
    """
    images, masks = (
        as_path(images, "the folder of images"),
        None if masks is None else as_path(masks, "masks"),
    )
    if masks is not None and not masks.is_dir():
        raise GradeclipError(f"there is no folder of masks {masks}")
    rows, found, lacking, taken = read_captions(captions), [], list[Path](), dict[Path, str]()
    concepts = (
        rows["concept"].where(rows["concept"] != "", rows["caption"])
        if "concept" in rows
        else rows["caption"]
    )
    present = concepts.groupby(rows["image"]).agg(lambda own: tuple(dict.fromkeys(own)))
    for (line, row), concept in zip(rows.iterrows(), concepts, strict=True):
        name, asked, image, load_mask = row["image"], row["caption"], images / row["image"], None
        wanted = [image] if flag("check", check) else []
        if masks is not None:
            named = row.get("mask") or ""
            places = [
                masks / (named or f"{os.path.splitext(name)[0]}{ending}")
                for ending in (".png", ".PNG")
            ]
            mask = next(filter(os.path.isfile, places), places[0])
            wanted += [mask] if named else []
            if os.path.isfile(mask):
                load_mask = partial(_drawn_mask, mask, image)
                if not named and taken.setdefault(mask, name) != name:
                    both = f"{taken[mask]} and {name}"
                    raise GradeclipError(
                        f"{mask} could be the mask of {both}: add a column mask to {captions}"
                    )
            else:
                lacking.append(mask)
        for file in wanted:
            if not os.path.isfile(file):  # also of a name that no file can have
                raise GradeclipError(f"{captions}, line {line}: there is no file {file}")
        read = partial(read_image, image)
        found.append(
            Example(f"{name} (line {line})", asked, concept, asked, present[name], read, load_mask)
        )
    if lacking:
        warn(
            f"there is no mask for {len(lacking)} of {len(found)} examples (looked for {lacking[0]})",
            UserWarning,
        )
    return found


def from_huggingface(
    dataset: Sequence[Any], image: str = "image", caption: str = "caption"
) -> list[Example]:
    """Turn a data set of Hugging Face `datasets` into examples.

        from datasets import load_dataset examples = from_huggingface(load_dataset("imagefolder",
        data_dir="birds")["train"], caption="text")

    Args:
        dataset: a split of a data set, or any sequence of records (dictionaries).
        image: the name of the column of images.
        caption: the name of the column of captions; a caption is a text, or a list of texts.

    Returns:
        One example per caption, without masks; keys are ROW or ROW/NUMBER. Images are decoded when
        they are read.

    Raises:
        GradeclipError: a missing column, captions that are not texts, or no caption at all.
    """
    if (
        hasattr(dataset, "keys")
        or not hasattr(dataset, "__getitem__")
        or not hasattr(dataset, "__len__")
    ):
        splits = f", such as [{next(iter(dataset), 'train')!r}]" if hasattr(dataset, "keys") else ""
        raise GradeclipError(
            f"from_huggingface needs one split of a data set{splits}, got a {type(dataset).__name__}"
        )
    table: Any = dataset
    named = getattr(dataset, "column_names", None)
    if named is None and not all(
        isinstance(row, Mapping) for row in listed("the data set", dataset)
    ):
        raise GradeclipError(f"every record must be a dictionary of columns, got {short(dataset)}")
    columns = list(
        dict.fromkeys(name for row in dataset for name in row) if named is None else named
    )
    if missing := [
        name for name in (text("image", image), text("caption", caption)) if name not in columns
    ]:
        has = ", ".join(map(repr, columns)) or "none"
        raise GradeclipError(
            f"the data set has no column {short(missing[0])}; it has {has}: say image= and caption="
        )
    captions = [row.get(caption) for row in dataset] if named is None else table[caption]
    found = []
    for row, some in enumerate(captions):
        several = isinstance(some, (list, tuple))
        for number, one in enumerate(some if several else [some]):
            if not isinstance(one, str):
                raise GradeclipError(
                    f"captions must be texts, and row {row} of {caption!r} has {short(one)}"
                )
            if one.strip():
                key = f"{row}/{number}" if several else str(row)
                said, reading = one.strip(), partial(_cell, dataset, row, image)
                found.append(Example(key, said, str(row), said, (str(row),), reading))
    if not found:
        raise GradeclipError(f"column {caption!r} holds no captions")
    return found


def photographs() -> list[Example]:
    """Return five photographs in the public domain or under CC0, at most 384 pixels a side, each with one caption.

    There are no masks. Five images measure nothing; they let you try a model of photographs. The
    bundled models have never seen a photograph, and warn.
    """
    folder, found = data_path("photos"), []
    for file, said in read_captions(folder / "captions.csv")[["image", "caption"]].itertuples(
        index=False
    ):
        found.append(Example(file, said, file, said, (file,), partial(read_image, folder / file)))
    return found


def read_captions(table: str | Path) -> pd.DataFrame:
    """Return the rows of a CSV table with the columns `image` and `caption` as texts, indexed by their last lines."""
    table, records = readable(table, "a table of captions"), {}
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, restval="", strict=True)
            header = list(reader.fieldnames or ())
            for record in reader:  # blank lines are no records
                records[reader.line_num] = record
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        why = (
            "it has letters of another encoding; save it as CSV UTF-8"
            if isinstance(error, ValueError)
            else error
        )
        raise GradeclipError(f"{table} cannot be read as a table (CSV, UTF-8): {why}") from error
    if twice := [
        name for name in ("image", "caption", "mask", "concept") if header.count(name) > 1
    ]:
        raise GradeclipError(
            f"{table} has {header.count(twice[0])} columns {twice[0]!r}: keep one of them"
        )
    if not {"image", "caption"} <= set(header):
        has, rule = ", ".join(header) or "nothing", "in small letters and separated by commas"
        raise GradeclipError(
            f"{table} must have the columns image and caption, {rule}, and has {has}"
        )
    if not records:
        raise GradeclipError(f"{table} has no rows: it needs an image and a caption in every row")
    for line, record in records.items():
        if more := record.get(None):
            said = f"line {line} has {len(header) + len(more)} fields and the header {len(header)}"
            raise GradeclipError(f"{table}: {said}; a caption with a comma needs quotes")
        if not (record["image"].strip() and record["caption"].strip()):
            raise GradeclipError(
                f"{table} needs an image and a caption in every row: line {line} lacks one of them"
            )
    return pd.DataFrame.from_dict(records, orient="index").apply(lambda column: column.str.strip())


def _cell(dataset: Sequence[Any], row: int, column: str) -> Image.Image:
    if (image := dataset[row].get(column)) is None:
        raise GradeclipError(f"row {row} has no image in column {column!r}")
    return read_image(image)


def _drawn_mask(file: Path, image: Path) -> np.ndarray:
    """Read a mask: what is not black, or in a cut-out what is not transparent."""
    shown = np.any(np.asarray(read_image(file)), axis=-1)
    with Image.open(file) as read:
        if read.mode.startswith(
            "I"
        ):  # 16 bits number the objects, which 8 bits would round to zero
            shown = np.asarray(read) != 0
        elif read.has_transparency_data:
            opaque = np.asarray(read.convert("RGBA"))[..., 3] > 127
            shown = shown if opaque.all() else opaque
    size = read_image(image).size
    if shown.shape != size[::-1]:
        raise GradeclipError(
            f"{file} is {shown.shape[1]} x {shown.shape[0]} pixels, its image {size[0]} x {size[1]}"
        )
    if not shown.any():
        raise GradeclipError(f"{file} is black all over: the object must have a different colour")
    return shown
