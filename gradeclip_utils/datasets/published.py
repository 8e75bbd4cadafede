"""Published data sets: COCO's masks and captions; SugarCrepe, Winoground, ARO and ColorSwap, which are choices."""

from __future__ import annotations

import importlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from ..checks import as_path, optional_library, short
from ..errors import GradeclipError
from ..images import read_image
from .example import Example

_T = TypeVar("_T")
_COCO = "https://cocodataset.org/#download"
_COCO_FORM = "a file of COCO annotations"
_SUGAR_CREPE = "https://github.com/RAIVNLab/sugar-crepe, folder data/"
_WINOGROUND = "https://huggingface.co/datasets/facebook/winoground (its licence has to be accepted there)"
_ARO = "https://github.com/mertyg/vision-language-models-are-bows"
_COLORSWAP = "https://github.com/Top34051/colorswap (or stanfordnlp/colorswap of huggingface.co)"
_ARO_FILES = ("visual_genome_relation.json", "visual_genome_attribution.json")
_BOX = ("bbox_x", "bbox_y", "bbox_w", "bbox_h")


def coco(folder: str | Path, split: str = "val2017") -> list[Example]:
    """Read COCO: an example for every category in every image; the mask is the union of all its instances.

    T.-Y. Lin et al. *Microsoft COCO: Common Objects in Context.* ECCV 2014. Masks are drawn by pycocotools, so that
    they are COCO's own. Prompts have CLIP's own template, "a photo of a dog." (Radford et al. 2021).

    Args:
        folder: holds `annotations/` with `instances_val2017.json` (`images`, `annotations` with `segmentation` as
            polygons or run lengths, `categories`) and, if captions are wanted, `captions_val2017.json`, and the images
            in `val2017/`.
        split: the end of these names.

    Returns:
        The examples, by the image's number; keys are NUMBER/CATEGORY.

    Raises:
        GradeclipError: the annotations are missing or not in this form, or pycocotools is not installed.
    """
    folder = as_path(folder, "the folder of COCO")
    path, captions = (folder / "annotations" / f"{kind}_{split}.json" for kind in ("instances", "captions"))
    record, examples = _read_json(path, _COCO), []
    optional_library("pycocotools", "the mask of an object in COCO is stored as polygons or run lengths")
    said = {e.concept: e.caption for e in reversed(coco_captions(folder, split))} if captions.is_file() else {}
    with _in_form(path, _COCO_FORM, _COCO):
        names = {category["id"]: category["name"] for category in record["categories"]}
        shapes: dict = defaultdict(lambda: defaultdict(list))  # image -> category -> segmentations
        for annotation in record["annotations"]:
            if annotation.get("area", 1) > 0:  # some masks of published splits have no pixel
                shapes[annotation["image_id"]][annotation["category_id"]].append(annotation["segmentation"])
        for image in sorted(record["images"], key=lambda image: image["id"]):
            found, size = shapes[image["id"]], (image["height"], image["width"])
            present = tuple(names[category] for category in found)
            caption, reading = said.get(str(image["id"]), ""), partial(read_image, folder / split / image["file_name"])
            for name, segmentations in zip(present, found.values(), strict=True):
                mask = partial(_mask, path, f"{name} in image {image['id']}", segmentations, size)
                prompt = f"a photo of a {name}."
                examples.append(Example(f"{image['id']}/{name}", prompt, name, caption, present, reading, mask))
    return _not_empty(examples, path, _COCO)


def coco_captions(folder: str | Path, split: str = "val2017") -> list[Example]:
    """Read COCO's captions (about five an image), without masks.

    Args:
        folder: as for `coco`.
        split: as for `coco`.

    Raises:
        GradeclipError: the captions are missing or not in this form.
    """
    folder = as_path(folder, "the folder of COCO")
    path, examples = folder / "annotations" / f"captions_{split}.json", []
    record = _read_json(path, _COCO)
    with _in_form(path, _COCO_FORM, _COCO):
        files = {image["id"]: folder / split / image["file_name"] for image in record["images"]}
        for said in sorted(record["annotations"], key=lambda said: (said["image_id"], said["id"])):
            image, caption = str(said["image_id"]), said["caption"].strip()
            reading = partial(read_image, files[said["image_id"]])
            examples.append(Example(f"{image}/{said['id']}", caption, image, caption, (image,), reading))
    return _not_empty(examples, path, _COCO)


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
    path, images = as_path(path, "the captions of SugarCrepe"), as_path(images, "the folder of images of SugarCrepe")
    choices = []
    for file in sorted(path.glob("*.json")) if path.is_dir() else [path]:
        for name, entry in _entries(file, ("filename", "caption", "negative_caption"), _SUGAR_CREPE):
            image, right, wrong = entry["filename"], entry["caption"].strip(), entry["negative_caption"].strip()
            reading = partial(read_image, images / image)
            choices.append(Choice(f"{file.stem}/{name}", file.stem, right, wrong, reading, image))
    return _not_empty(choices, path, _SUGAR_CREPE)


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
        GradeclipError: there is no `examples.jsonl`, or a line of it is not in this form; the message names the entry.
    """
    folder = as_path(folder, "the folder of Winoground")
    return _two_by_two(folder / "examples.jsonl", ("0", "1"), folder / "images", ".png", "collapsed_tag", _WINOGROUND)


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
    folder = as_path(folder, "the folder of ColorSwap")
    return _two_by_two(folder / f"{split}.json", ("1", "2"), folder, "", "caption_source", _COLORSWAP)


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
    path, choices = as_path(path, "the folder of ARO"), []
    for file in [path / name for name in _ARO_FILES if (path / name).is_file()] if path.is_dir() else [path]:
        kind = file.stem.removeprefix("visual_genome_")
        for number, entry in _entries(file, ("image_path", "true_caption", "false_caption"), _ARO, _BOX):
            relation = f": {entry['relation_name']}" if entry.get("relation_name") else ""
            image, right, wrong = entry["image_path"], entry["true_caption"].strip(), entry["false_caption"].strip()
            reading = partial(_part, file.parent / "images" / image, tuple(entry[key] for key in _BOX))
            choices.append(Choice(f"{kind}/{number}", f"{kind}{relation}", right, wrong, reading, image))
    return _not_empty(choices, path, _ARO)


def _read_json(file: Path, source: str) -> Any:
    """Read a JSON file, or one of JSON lines as a list; a refusal says where to get it."""
    if not file.exists():
        raise GradeclipError(f"{file} is missing: get it from {source}")
    with _in_form(file, "JSON", source):
        content = file.read_text(encoding="utf-8")
        return [json.loads(line) for line in content.splitlines()] if file.suffix == ".jsonl" else json.loads(content)


@contextmanager
def _in_form(file: Path, form: str, source: str) -> Iterator[None]:
    """Turn errors about what a file holds into one sentence that names the file."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError, OSError) as error:
        if isinstance(error, GradeclipError):
            raise
        said = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise GradeclipError(f"{file} is not {form}, or is cut short ({said}): get it from {source}") from error


def _not_empty(found: list[_T], file: Path, source: str) -> list[_T]:
    """Return what was found in a file, if it is anything."""
    if not found:
        raise GradeclipError(f"{file} holds no examples: get it from {source}")
    return found


def _mask(path: Path, what: str, segmentations: list, size: tuple[int, int]) -> np.ndarray:
    """Draw all instances of one category in one image, (H, W) bool."""
    tools, runs = importlib.import_module("pycocotools.mask"), []
    try:
        for segmentation in segmentations:
            if isinstance(segmentation, list):  # polygons
                runs += tools.frPyObjects(segmentation, *size)
            else:  # a crowd: run lengths as numbers, or packed
                packed = isinstance(segmentation["counts"], (str, bytes))
                runs.append(segmentation if packed else tools.frPyObjects(segmentation, *size))
        return tools.decode(tools.merge(runs)).astype(bool)
    except Exception as error:  # pycocotools raises no other
        raise GradeclipError(f"{path} has a segmentation of {what} that is none ({error}): see {_COCO}") from error


def _two_by_two(file: Path, sides: tuple[str, str], images: Path, ending: str, kind: str, source: str) -> list[Choice]:
    """Return two choices an entry, which has two images and two captions: each image with the other one's caption."""
    choices = []
    for number, entry in _entries(file, [f"{part}_{side}" for part in ("image", "caption") for side in sides], source):
        for own, other in (sides, sides[::-1]):
            image = f"{entry[f'image_{own}']}{ending}"
            right, wrong = (entry[f"caption_{side}"].strip() for side in (own, other))
            key, reading = f"{entry.get('id', number)}/{own}", partial(read_image, images / image)
            choices.append(Choice(key, str(entry.get(kind) or kind), right, wrong, reading, image))
    return _not_empty(choices, file, source)


def _entries(file: Path, texts, source: str, numbers=()) -> Iterator[tuple]:
    """Yield the entries of a JSON file by name or number, each with texts and numbers under these keys."""
    record = _read_json(file, source)
    if not isinstance(record, (dict, list)):
        raise GradeclipError(f"{file} must hold a list of entries, got {short(record)}: get it from {source}")
    for name, entry in record.items() if isinstance(record, dict) else enumerate(record):
        fine = isinstance(entry, dict) and all(isinstance(entry.get(key), (int, float)) for key in numbers)
        if not fine or not all(isinstance(entry.get(key), str) and entry[key].strip() for key in texts):
            wanted = ", ".join((*texts, *numbers))
            raise GradeclipError(f"entry {name!r} of {file} must have {wanted}, got {short(entry)}: see {source}")
        yield name, entry


def _part(file: Path, box: tuple[float, float, float, float]) -> Image.Image:
    """Read the part of an image that a relation is about."""
    image, (left, top, width, height) = read_image(file), box
    shown = -width < left < image.width and -height < top < image.height  # a part of it: some reach over the border
    if not (shown and 1 <= width <= 2 * image.width and 1 <= height <= 2 * image.height):
        msg = f"{file} has {image.width} x {image.height} pixels, and no box {box} (x, y, width, height) in them"
        raise GradeclipError(msg)
    return image.crop((left, top, left + width, top + height))
