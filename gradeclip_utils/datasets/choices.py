"""Published sets of choices, images with a right and a wrong caption each: SugarCrepe, Winoground, ARO, ColorSwap."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from ..checks import as_path
from ..errors import GradeclipError
from ..images import read_image
from .example import Source

SUGAR_CREPE = Source("https://github.com/RAIVNLab/sugar-crepe")
WINOGROUND = Source("https://huggingface.co/datasets/facebook/winoground (its licence has to be accepted there)")
ARO = Source("https://github.com/mertyg/vision-language-models-are-bows")
COLORSWAP = Source("https://github.com/Top34051/colorswap (or stanfordnlp/colorswap of huggingface.co)")
_OF_COLORSWAP = ("image_1", "image_2", "caption_1", "caption_2")
_OF_SUGAR_CREPE = ("filename", "caption", "negative_caption")
_ENTRY = '{"filename": ..., "caption": ..., "negative_caption": ...}'
_OF_WINOGROUND = ("image_0", "image_1", "caption_0", "caption_1")
_ARO_FILES = ("visual_genome_relation.json", "visual_genome_attribution.json")
_OF_ARO, _BOX = ("image_path", "true_caption", "false_caption"), ("bbox_x", "bbox_y", "bbox_w", "bbox_h")


@dataclass(frozen=True, eq=False)
class Choice:
    """An image with a right and a wrong caption.

    Attributes:
        key: its name, unique in the data set.
        kind: how the wrong caption was made, such as `swap_att`.
        caption: the right caption.
        negative: the wrong one.
        image: a function that reads the image, upright RGB, as that of `Example`.
        image_key: tells which image it is, for several choices may show one: its file, or its key in a table; empty
            where no other choice shows it.
    """

    key: str
    kind: str
    caption: str
    negative: str
    image: Callable[[], Image.Image]
    image_key: str = ""


def sugar_crepe(path: str | Path, images: str | Path) -> list[Choice]:
    """Read SugarCrepe, or any file in its schema: images of COCO, each with its caption and a hard negative.

    C.-Y. Hsieh, J. Zhang, Z. Ma, A. Kembhavi, R. Krishna. *SugarCrepe: Fixing Hackable Benchmarks for Vision-Language
    Compositionality.* NeurIPS 2023.

    Args:
        path: one of its files (`swap_att.json`, `swap_obj.json`, `replace_att.json`, ...), whose name is the kind, or
            the folder that holds them: `{"0": {"filename": "000000544519.jpg", "caption": ..., "negative_caption":
            ...}, ...}`.
        images: COCO's folder `val2017`; they need not be there until they are read.

    Returns:
        One choice an entry.

    Raises:
        GradeclipError: there is no such file, or it is not in this form; the message names the entry.
    """
    path, choices = SUGAR_CREPE.needed(path, "the captions of SugarCrepe, a JSON file or a folder of them"), []
    images = as_path(images, "the folder of images of SugarCrepe")
    for file in sorted(path.glob("*.json")) if path.is_dir() else [path]:
        record = SUGAR_CREPE.read_json(file)
        if not isinstance(record, dict):
            raise SUGAR_CREPE.damaged(file, f"must hold one entry an image, {_ENTRY}, got a {type(record).__name__}")
        for name, entry in record.items():
            if not _has(entry, _OF_SUGAR_CREPE):
                raise GradeclipError(f"entry {name!r} of {file} must be {_ENTRY}, got {entry!r}")
            image, right, wrong = (entry[key].strip() for key in _OF_SUGAR_CREPE)
            reading = partial(read_image, images / image)
            choices.append(Choice(f"{file.stem}/{name}", file.stem, right, wrong, reading, image))
    return Source(f"the folder data/ of {SUGAR_CREPE.place}").not_empty(choices, path, "captions")


def winoground(folder: str | Path) -> list[Choice]:
    """Read Winoground: two images and two captions an example.

    T. Thrush, R. Jiang, M. Bartolo, A. Singh, A. Williams, D. Kiela, C. Ross. *Winoground: Probing Vision and Language
    Models for Visio-Linguistic Compositionality.* CVPR 2022. By its text score
    an example is right if both of its images are (`ID/0`, `ID/1`).

    Args:
        folder: its `examples.jsonl`, and its `images.zip` unpacked to `images/`; they need not be there until
            they are read.

    Returns:
        Two choices an example; the kind is its `collapsed_tag` (Object, Relation, Both).

    Raises:
        GradeclipError: there is no `examples.jsonl`, or a line of it is not in this form; the message names the line.
    """
    folder, choices = as_path(folder, "the folder of Winoground"), []
    file = WINOGROUND.needed(folder / "examples.jsonl", "the captions of Winoground")
    with WINOGROUND.form(file, "a file of text"):
        lines = file.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise WINOGROUND.damaged(file, f"is cut short, or line {number} is not JSON ({error})") from error
        if not _has(entry, _OF_WINOGROUND):
            raise WINOGROUND.damaged(file, f"lacks one of {', '.join(_OF_WINOGROUND)} in line {number}")
        for own, other in ((0, 1), (1, 0)):
            name = f"{entry[f'image_{own}']}.png"
            reading = partial(read_image, folder / "images" / name)
            right, wrong = (entry[f"caption_{one}"].strip() for one in (own, other))
            key, kind = f"{entry.get('id', number - 1)}/{own}", str(entry.get("collapsed_tag", "winoground"))
            choices.append(Choice(key, kind, right, wrong, reading, name))
    return WINOGROUND.not_empty(choices, file, "examples")


def aro(path: str | Path) -> list[Choice]:
    """Read ARO's two tests on Visual Genome: two captions about a part of an image.

    M. Yuksekgonul, F. Bianchi, P. Kalluri, D. Jurafsky, J. Zou. *When and Why Vision-Language Models Behave like
    Bags-Of-Words, and What to Do About It?* ICLR 2023. As published, the image is cut to the box of the relation.

    Args:
        path: the folder that holds `visual_genome_relation.json`, `visual_genome_attribution.json` and `images/`, or
            one of the files. Images need not be there until they are read.

    Returns:
        One choice an entry; the kind is the file's and its relation ("relation: behind"), or "attribution".

    Raises:
        GradeclipError: there is no such file, or it is not in this form; the message names the entry.
    """
    path = ARO.needed(path, "ARO: a folder with visual_genome_relation.json or visual_genome_attribution.json")
    files, choices = [path / name for name in _ARO_FILES if (path / name).is_file()] if path.is_dir() else [path], []
    for file in files:
        record, kind = ARO.read_json(file), file.stem.removeprefix("visual_genome_")
        if not isinstance(record, list):
            raise ARO.damaged(file, f"must hold a list of entries, got a {type(record).__name__}")
        for number, entry in enumerate(record):
            if not (_has(entry, _OF_ARO) and _has(entry, _BOX, (int, float))):
                wanted = ", ".join((*_OF_ARO, *_BOX))
                msg = f"entry {number} of {file} must have {wanted}, got {str(entry)[:80]}"
                raise GradeclipError(msg)
            image, right, wrong = (entry[key] for key in _OF_ARO)
            relation = f": {entry['relation_name']}" if entry.get("relation_name") else ""
            reading = partial(_part, file.parent / "images" / image, tuple(entry[key] for key in _BOX))
            key, kinds = f"{kind}/{number}", f"{kind}{relation}"
            choices.append(Choice(key, kinds, right.strip(), wrong.strip(), reading, image))
    return ARO.not_empty(choices, path, f"entries of {' or '.join(_ARO_FILES)}")


def colorswap(folder: str | Path, split: str = "test") -> list[Choice]:
    """Read ColorSwap: two images and two captions an example, with the same words and the colours swapped.

    J. Burapacheep, I. Gaur, A. Bhatia, T. Thrush. *ColorSwap: A Color and Word Order Dataset for Multimodal
    Evaluation.* ACL Findings 2024, arXiv 2402.04492. An example is right if both of its images are (`ID/1`, `ID/2`).

    Args:
        folder: holds `test.json` and `train.json`, a list of records with image_1, image_2 (paths in the folder),
            caption_1 and caption_2, and `images/`; images need not be there until they are read.
        split: "test" or "train".

    Returns:
        Two choices an example; the kind is its caption_source ("human" or a generator).

    Raises:
        GradeclipError: there is no such file, or it is not in this form; the message names the entry.
    """
    folder, choices = as_path(folder, "the folder of ColorSwap"), []
    file = COLORSWAP.needed(folder / f"{split}.json", "the captions of ColorSwap")
    record = COLORSWAP.read_json(file)
    if not isinstance(record, list):
        raise COLORSWAP.damaged(file, f"must hold a list of entries, got a {type(record).__name__}")
    for number, entry in enumerate(record):
        if not _has(entry, _OF_COLORSWAP):
            raise COLORSWAP.damaged(file, f"lacks one of {', '.join(_OF_COLORSWAP)} in entry {number}")
        kind = str(entry.get("caption_source") or "colorswap")
        for own, other in ((1, 2), (2, 1)):
            image, right, wrong = (entry[key] for key in (f"image_{own}", f"caption_{own}", f"caption_{other}"))
            reading = partial(read_image, folder / image)
            key = f"{entry.get('id', number)}/{own}"
            choices.append(Choice(key, kind, right.strip(), wrong.strip(), reading, image))
    return COLORSWAP.not_empty(choices, file, "examples")


def _has(entry: object, keys: tuple[str, ...], kind: type | tuple[type, ...] = str) -> bool:
    """Return whether an entry is a record that has all of the keys, of this kind and not empty."""
    return isinstance(entry, dict) and all(isinstance(entry.get(key), kind) and str(entry[key]).strip() for key in keys)


def _part(file: Path, box: tuple[float, float, float, float]) -> Image.Image:
    """Read the part of an image that a relation is about."""
    image, (left, top, width, height) = read_image(file), box
    shown = -width < left < image.width and -height < top < image.height  # a part of it: some reach over the border
    if not (shown and 1 <= width <= 2 * image.width and 1 <= height <= 2 * image.height):
        msg = f"{file} has {image.width} x {image.height} pixels, and no box {box} (x, y, width, height) in them"
        raise GradeclipError(msg)
    return image.crop((left, top, left + width, top + height))
