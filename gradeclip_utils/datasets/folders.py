"""Images with a table of captions: your own, those of Hugging Face, and five photographs."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from ..errors import GradeclipError
from ..files import data_path
from ..images import read_image
from .example import Example


def captioned_images(
    images: str | Path,
    captions: str | Path,
    masks: str | Path | None = None,
) -> list[Example]:
    """Read images of your own, with a table of captions and, if you have them, masks.

        captioned_images("photos", "captions.csv")

    The table (CSV) has a row for every question, and the columns `image` (a file in `images`) and
    `caption` (the prompt); optionally `concept` (by default the caption) and `mask` (a file in
    `masks`, of the image's size, not black on the object; empty if there is none).
    `load("folder:mine")` reads `mine/images`, `mine/captions.csv` and `mine/masks`.

    Args:
        images: the folder of the images.
        captions: the table.
        masks: the folder of the masks, if the table has the column `mask`.

    Returns:
        One example per row, in the order of the table; keys are IMAGE (row NUMBER).

    Raises:
        GradeclipError: the table is missing or not in this form, or masks have no folder.
    """
    table = read_captions(captions)
    if "mask" in table and masks is None:
        raise GradeclipError(f"{captions} has a column mask: say which folder holds the masks")
    if "concept" not in table:
        table["concept"] = table["caption"]
    table["concept"] = table["concept"].mask(table["concept"] == "", table["caption"])
    present = table.groupby("image")["concept"].agg(lambda column: tuple(dict.fromkeys(column)))

    examples = []
    for number, row in enumerate(table.to_dict("records"), start=1):
        load_mask = None
        if masks is not None and row.get("mask"):
            load_mask = partial(_read_mask, Path(masks) / row["mask"])
        example = Example(
            key=f"{row['image']} (row {number})",
            prompt=row["caption"],
            concept=row["concept"],
            caption=row["caption"],
            present=present[row["image"]],
            image=partial(read_image, Path(images) / row["image"]),
            load_mask=load_mask,
        )
        examples.append(example)
    return examples


def from_huggingface(dataset: Any, image: str = "image", caption: str = "caption") -> list[Example]:
    """Turn a data set of Hugging Face `datasets` into examples.

        birds = load_dataset("imagefolder", data_dir="birds")["train"]
        examples = from_huggingface(birds, caption="text")

    Args:
        dataset: a split of a data set.
        image: the name of the column of images.
        caption: the name of the column of captions; a caption is a text, or a list of texts.

    Returns:
        One example per caption, without masks; keys are ROW or ROW/NUMBER. Images are decoded when
        they are read.

    Raises:
        GradeclipError: a missing column.
    """
    for column in (image, caption):
        if column not in dataset.column_names:
            msg = f"the split has no column {column!r}; it has {dataset.column_names}"
            raise GradeclipError(f"{msg}: say image= and caption=")

    examples = []
    for row, captions in enumerate(dataset[caption]):
        is_list = isinstance(captions, list)
        for number, prompt in enumerate(captions if is_list else [captions]):
            if not prompt:
                continue  # some images have no caption
            example = Example(
                key=f"{row}/{number}" if is_list else str(row),
                prompt=prompt,
                concept=str(row),
                caption=prompt,
                present=(str(row),),
                image=partial(_read_cell, dataset, row, image),
            )
            examples.append(example)
    return examples


def photographs() -> list[Example]:
    """Five photographs in the public domain or under CC0, each with one caption.

        [example.caption for example in photographs()]

    They have at most 384 pixels a side, and no masks. Five images measure nothing; they let you try
    a model of photographs. The bundled models have never seen a photograph, and warn.
    """
    folder = data_path("photos")
    examples = []
    for row in read_captions(folder / "captions.csv").itertuples():
        example = Example(
            key=row.image,
            prompt=row.caption,
            concept=row.image,
            caption=row.caption,
            present=(row.image,),
            image=partial(read_image, folder / row.image),
        )
        examples.append(example)
    return examples


def read_captions(file: str | Path) -> pd.DataFrame:
    """Read a CSV table with the columns `image` and `caption`, and others, as texts."""
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise GradeclipError(f"{file} cannot be read as CSV in UTF-8: {error}") from error
    if missing := {"image", "caption"} - set(table):
        msg = f"{file} has no column {min(missing)!r}, it has {', '.join(map(repr, table))}"
        raise GradeclipError(f"{msg}: name it so in the first row")
    if not isinstance(table.index, pd.RangeIndex):  # pandas takes the first column for names
        msg = f"the rows of {file} have more fields than its first row"
        raise GradeclipError(f"{msg}: a caption with a comma needs quotes")
    return table.map(str.strip)


def _read_cell(dataset: Any, row: int, column: str) -> Image.Image:
    return read_image(dataset[row][column])


def _read_mask(file: Path) -> np.ndarray:
    """Read a mask, (H, W) bool: True where an image is not black, or its index is not zero."""
    with Image.open(file) as opened:
        pixels = np.asarray(opened)
    if pixels.ndim == 3:
        pixels = pixels[..., :3].max(axis=-1)
    return pixels != 0
