"""webdataset: image-text pairs in tar files, as img2dataset and open_clip keep them."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from PIL import Image

from ..checks import as_path
from .example import Example, Source, decoded

WEBDATASET = Source("https://github.com/webdataset/webdataset")
_IMAGES = ("jpg", "jpeg", "png", "webp")
_CAPTION = "caption"  # of a pair's .json, as img2dataset writes it
_BLOCK = 512


def webdataset(path: str | Path) -> list[Example]:
    """The pairs of webdataset tars, in their order: files of one name, such as `000012.jpg` with `000012.txt`."""
    return [example for tar in _tars(str(as_path(path, "tars of a webdataset"))) for example in _pairs(tar)]


def _tars(path: str) -> list[Path]:
    several = re.fullmatch(r"(.*)\{(\d+)\.\.(\d+)\}(.*)", path)
    if several:
        before, first, last, after = several.groups()
        numbers = (f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1))
        tars = [WEBDATASET.needed(f"{before}{number}{after}", "a tar of a webdataset") for number in numbers]
        return WEBDATASET.not_empty(tars, Path(path), f"tars: {first} comes after {last}")
    found = WEBDATASET.needed(path, "a tar of a webdataset, or a folder of them")
    return WEBDATASET.not_empty(sorted(found.glob("*.tar")), found, ".tar files") if found.is_dir() else [found]


def _pairs(tar: Path) -> list[Example]:
    """The pairs of one tar."""
    images: dict[str, tuple[int, int]] = {}  # key -> where its image lies
    captions: dict[str, str] = {}
    for member, content in _members(tar):
        folder, _, name = member.name.rpartition("/")
        stem, _, ending = name.partition(".")
        key = f"{folder}/{stem}" if folder else stem
        if ending.lower() in _IMAGES:
            images[key] = member.offset_data, member.size
        elif ending in ("txt", "json"):
            said = _said(content.decode("utf-8", errors="replace"), ending)
            captions[key] = said if ending == "txt" else captions.get(key) or said
    silent = [key for key in images if not captions.get(key)]
    if silent:
        what = f"has no caption for {silent[0]!r}: a pair needs a .txt, or a .json with {_CAPTION!r}"
        raise WEBDATASET.damaged(tar, what)
    found = [
        Example(f"{tar.stem}/{key}", captions[key], f"{tar.stem}/{key}", captions[key], (f"{tar.stem}/{key}",),
                partial(_image, tar, key, *where))
        for key, where in images.items()
    ]  # fmt: skip
    return WEBDATASET.not_empty(found, tar, "pairs of an image and a caption")


def _members(tar: Path) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """The files of a tar, with the content of those that hold captions."""
    try:
        with tarfile.open(tar, "r:") as archive:
            for member in archive:
                if member.isfile():
                    caption = member.name.endswith((".txt", ".json"))
                    stream = archive.extractfile(member) if caption else None
                    yield member, b"" if stream is None else stream.read()
        with tar.open("rb") as stream:
            stream.seek(max(0, tar.stat().st_size - _BLOCK))
            if any(stream.read()):  # tars end with blocks of zeros: cut at the end of a member, it would pass for whole
                raise tarfile.ReadError("its end is missing")
    except (tarfile.ReadError, OSError) as error:
        raise WEBDATASET.damaged(tar, f"is cut short, compressed, or no tar ({error})") from error


def _said(text: str, ending: str) -> str:
    """The caption in a file beside an image; empty if it has none."""
    if ending == "txt":
        return text.strip()
    try:
        record = json.loads(text)
    except ValueError:
        return ""
    caption = record.get(_CAPTION) if isinstance(record, dict) else None
    return caption.strip() if isinstance(caption, str) else ""


def _image(tar: Path, key: str, start: int, size: int) -> Image.Image:
    with tar.open("rb") as stream:
        stream.seek(start)
        return decoded(stream.read(size), f"{key!r} of {tar}")
