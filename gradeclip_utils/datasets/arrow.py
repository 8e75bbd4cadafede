"""A data set of Hugging Face `datasets`: a folder that `save_to_disk` wrote, or parquet files as a hub has them.

Both are read by pyarrow, so that `datasets` need not be installed.
"""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path

import pyarrow as pa
from PIL import Image
from pyarrow import parquet

from ..errors import GradeclipError
from ..images import read_image
from .example import Example, Source, decoded

SAVED = Source("Dataset.save_to_disk of the library datasets, or take the parquet files of its repository")
_CAPTIONS = ("caption", "captions", "text", "sentence", "sentences", "title", "alt_text")


def saved_dataset(path: str | Path, split: str = "") -> list[Example]:
    """The image-caption pairs of a data set of Hugging Face `datasets`: an example a caption, in the files' order."""
    folder = SAVED.needed(path, "a folder of a data set")
    if (folder / "dataset_dict.json").is_file():
        splits = _record(folder / "dataset_dict.json", "splits")
        if split not in splits:
            msg = (
                f"{folder} has the splits {', '.join(splits)}: say which, as in {folder}@{next(iter(splits), 'train')}"
            )
            raise GradeclipError(msg)
        folder = folder / split
    found = [example for file in _files(folder, split) for example in _captions(file, folder)]
    return SAVED.not_empty(found, folder, "captions")


def _files(folder: Path, split: str) -> list[Path]:
    """The parts of a data set, in its order."""
    if not (folder / "state.json").is_file():
        files = sorted(file for file in folder.rglob("*.parquet") if file.name.startswith(split))
        return SAVED.not_empty(files, folder, "state.json and no .parquet files")
    parts = _record(folder / "state.json", "_data_files")
    with SAVED.form(folder / "state.json", "a list of the parts of a data set"):
        return [SAVED.needed(folder / part["filename"], "a part of a data set") for part in parts]


def _record(file: Path, key: str) -> list:
    record = SAVED.read_json(file)
    if not isinstance(record, dict) or not isinstance(record.get(key), list):
        raise SAVED.damaged(file, f"has no list {key!r}")
    return record[key]


def _captions(file: Path, folder: Path) -> list[Example]:
    """The examples of one part."""
    try:
        schema = _mapped(file).schema if file.suffix == ".arrow" else parquet.read_schema(file)
        images = [field.name for field in schema if _holds_images(field.type)]
        texts = {field.name for field in schema if _holds_texts(field.type)}
        names = [name for name in _CAPTIONS if name in texts]
        lacking = " or ".join(["images"] * (not images) + ["captions"] * (not names))
        if lacking:
            raise SAVED.damaged(file, f"has no column of {lacking}: it has {', '.join(schema.names)}")
        table = _mapped(file) if file.suffix == ".arrow" else parquet.read_table(file, columns=names[:1])
        said = table.column(names[0]).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise SAVED.damaged(file, f"is cut short, or is another file ({error})") from error
    part = file.relative_to(folder).with_suffix("").as_posix()
    return [
        Example(f"{part}/{row}/{i}", caption, f"{part}/{row}", caption, (f"{part}/{row}",),
                partial(_image, file, folder, images[0], row))
        for row, captions in enumerate(said)
        for i, caption in enumerate([captions] if isinstance(captions, str) else captions or [])
        if caption and caption.strip()
    ]  # fmt: skip


def _holds_texts(kind: pa.DataType) -> bool:
    """Whether values of this type are texts, or lists of them."""
    kind = getattr(kind, "value_type", kind)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _holds_images(kind: pa.DataType) -> bool:
    """Whether values of this type are images as `datasets` stores them: bytes, or a struct of bytes and path."""
    if pa.types.is_struct(kind):
        return {"bytes", "path"} <= {kind.field(i).name for i in range(kind.num_fields)}
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


@lru_cache(maxsize=8)
def _mapped(file: Path) -> pa.Table:
    """The rows of an arrow file: addresses in it, no copy in memory."""
    with file.open("rb") as stream:
        stream.seek(-min(4, file.stat().st_size), 2)
        if stream.read() != b"\0\0\0\0":  # how a stream ends; without it, rows may be missing
            raise pa.ArrowInvalid("its end is missing")
    return pa.ipc.open_stream(pa.memory_map(str(file))).read_all()


@lru_cache(maxsize=2)  # images are asked for one after the other, and a group has some hundreds
def _row_group(file: Path, group: int, column: str) -> pa.ChunkedArray:
    with parquet.ParquetFile(file) as opened:
        return opened.read_row_group(group, columns=[column]).column(column)


def _image(file: Path, folder: Path, column: str, row: int) -> Image.Image:
    name = f"row {row} of {file}"
    if file.suffix == ".arrow":
        value = _mapped(file).column(column)[row].as_py()
    else:
        metadata, group = parquet.read_metadata(file), 0
        while row >= (rows := metadata.row_group(group).num_rows):
            row, group = row - rows, group + 1
        value = _row_group(file, group, column)[row].as_py()
    content, path = (value["bytes"], value["path"]) if isinstance(value, dict) else (value, None)
    if content is not None:
        return decoded(content, name)
    if path is None:
        raise GradeclipError(f"{name} has no image")
    return read_image(folder / path)
