"""COCO (Lin et al. 2014): masks of things, and captions."""

from __future__ import annotations

import importlib
from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np

from ..images import read_image
from .example import Example, damaged, needed, not_empty, optional_library, photo_prompt, read_json

COCO = "https://cocodataset.org/#download"


def coco(folder: str | Path, split: str = "val2017") -> list[Example]:
    """COCO: one question for every category in every image, the mask all its instances together.

    T.-Y. Lin et al. *Microsoft COCO: Common Objects in Context.* ECCV 2014. Masks are drawn by pycocotools, so that
    they are COCO's own.

    Args:
        folder: holds `annotations/` with `instances_val2017.json` (`images`, `annotations` with `segmentation` as
            polygons or run lengths, `categories`) and, if captions are wanted, `captions_val2017.json`, and the images
            in `val2017/`.
        split: the end of these names.

    Returns:
        One example an image and category, by the image's number.

    Raises:
        FileNotFoundError: the annotations are missing.
        ValueError: they are not what they should be.
        ImportError: pycocotools is not installed.
    """
    folder = Path(folder)
    path = folder / "annotations" / f"instances_{split}.json"
    record = _annotations(path, ("images", "annotations", "categories"))
    optional_library("pycocotools", "the mask of an object in COCO is stored as polygons or run lengths")
    names = {category["id"]: category["name"] for category in record["categories"]}
    shapes: dict = defaultdict(lambda: defaultdict(list))  # image -> category -> segmentations
    for annotation in record["annotations"]:
        shapes[annotation["image_id"]][annotation["category_id"]].append(annotation["segmentation"])
    captions = folder / "annotations" / f"captions_{split}.json"
    said = {e.concept: e.caption for e in reversed(coco_captions(folder, split))} if captions.is_file() else {}
    examples = []
    for image in sorted(record["images"], key=lambda image: image["id"]):
        found, size = shapes[image["id"]], (image["height"], image["width"])
        present = tuple(names[category] for category in found)
        caption, reading = said.get(str(image["id"]), ""), partial(read_image, folder / split / image["file_name"])
        examples += [
            Example(f"{image['id']}/{name}", photo_prompt(name), name, caption, present, reading,
                    partial(_mask, segmentations, size))
            for name, segmentations in zip(present, found.values(), strict=True)
        ]  # fmt: skip
    return not_empty(examples, path, "annotations", COCO)


def _mask(segmentations: list, size: tuple[int, int]) -> np.ndarray:
    """All instances of one category in one image, (H, W) bool."""
    tools = importlib.import_module("pycocotools.mask")
    runs = []
    for segmentation in segmentations:
        if isinstance(segmentation, list):  # polygons
            runs += tools.frPyObjects(segmentation, *size)
        else:  # a crowd: run lengths as numbers, or packed
            packed = isinstance(segmentation["counts"], (str, bytes))
            runs.append(segmentation if packed else tools.frPyObjects(segmentation, *size))
    return tools.decode(tools.merge(runs)).astype(bool)


def coco_captions(folder: str | Path, split: str = "val2017") -> list[Example]:
    """COCO's captions (about five an image), without masks; the image's number is the concept.

    Args:
        folder: as for `coco`; the images need not be there unless they are asked for.
        split: as for `coco`.

    Returns:
        One example a caption, by the image's number.

    Raises:
        FileNotFoundError: the annotations are missing.
        ValueError: they are not what they should be.
    """
    folder = Path(folder)
    record = _annotations(folder / "annotations" / f"captions_{split}.json", ("images", "annotations"))
    files = {image["id"]: folder / split / image["file_name"] for image in record["images"]}
    examples = []
    for said in sorted(record["annotations"], key=lambda said: (said["image_id"], said["id"])):
        image, caption = str(said["image_id"]), said["caption"].strip()
        reading = partial(read_image, files[said["image_id"]])
        examples.append(Example(f"{image}/{said['id']}", caption, image, caption, (image,), reading))
    return examples


def _annotations(path: Path, keys: tuple[str, ...]) -> dict:
    """What a file of annotations says; it must have `keys`."""
    record = read_json(needed(path, "the annotations of COCO", COCO), COCO)
    missing = [key for key in keys if not isinstance(record, dict) or key not in record]
    if missing:
        raise damaged(path, f"is not a file of COCO annotations: it lacks {', '.join(missing)}", COCO)
    return record
