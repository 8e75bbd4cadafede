"""COCO (Lin et al. 2014): masks of things, and captions."""

from __future__ import annotations

import importlib
from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np

from ..images import read_image
from .example import Example, needed, not_empty, optional_library, photo_prompt, read_json

COCO = "https://cocodataset.org/#download"


def coco(folder: str | Path, split: str = "val2017") -> list[Example]:
    """COCO: one question for every category in every picture, the mask all its instances together.

    T.-Y. Lin et al. *Microsoft COCO: Common Objects in Context.* ECCV 2014. `folder` holds `annotations/` with
    `instances_val2017.json` (`images`, `annotations` with `segmentation` as polygons or run lengths, `categories`)
    and, if captions are wanted, `captions_val2017.json`, and the pictures in `val2017/`. Masks are drawn by
    pycocotools, so that they are COCO's own.

    Raises FileNotFoundError, ValueError or ImportError.
    """
    folder = Path(folder)
    path = folder / "annotations" / f"instances_{split}.json"
    record = _read_coco(path, ("images", "annotations", "categories"))
    optional_library("pycocotools", "the mask of an object in COCO is stored as polygons or run lengths")
    names = {category["id"]: category["name"] for category in record["categories"]}
    shapes = defaultdict(lambda: defaultdict(list))  # picture -> category -> segmentations
    for annotation in record["annotations"]:
        shapes[annotation["image_id"]][annotation["category_id"]].append(annotation["segmentation"])
    captions = folder / "annotations" / f"captions_{split}.json"
    said = {e.concept: e.caption for e in reversed(coco_captions(folder, split))} if captions.is_file() else {}
    examples = []
    for image in sorted(record["images"], key=lambda image: image["id"]):
        found, size = shapes[image["id"]], (image["height"], image["width"])
        present = tuple(names[category] for category in found)
        examples += [
            Example(f"{image['id']}/{names[category]}", photo_prompt(names[category]), names[category],
                    said.get(str(image["id"]), ""), present, partial(read_image, folder / split / image["file_name"]),
                    partial(_coco_mask, segmentations, size))
            for category, segmentations in found.items()
        ]  # fmt: skip
    return not_empty(examples, f"{path} holds no annotations: get instances_{split}.json from {COCO}")


def _coco_mask(segmentations: list, size: tuple[int, int]) -> np.ndarray:
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
    """COCO's captions (about five a picture), without masks; the picture's number is the concept.

    `folder` as for `coco`; the pictures need not be there unless they are asked for.

    Raises FileNotFoundError or ValueError.
    """
    folder = Path(folder)
    record = _read_coco(folder / "annotations" / f"captions_{split}.json", ("images", "annotations"))
    files = {image["id"]: folder / split / image["file_name"] for image in record["images"]}
    return [
        Example(f"{a['image_id']}/{a['id']}", a["caption"].strip(), str(a["image_id"]), a["caption"].strip(),
                (str(a["image_id"]),), partial(read_image, files[a["image_id"]]))
        for a in sorted(record["annotations"], key=lambda a: (a["image_id"], a["id"]))
    ]  # fmt: skip


def _read_coco(path: Path, keys: tuple[str, ...]) -> dict:
    needed(path, "the annotations of COCO", COCO)
    record = read_json(path, COCO)
    missing = [key for key in keys if not isinstance(record, dict) or key not in record]
    if missing:
        raise ValueError(f"{path} is not a file of COCO annotations: it lacks {', '.join(missing)}. Get it from {COCO}")
    return record
