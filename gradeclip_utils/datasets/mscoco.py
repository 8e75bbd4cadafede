"""COCO (Lin et al. 2014): masks of things, and captions."""

from __future__ import annotations

import importlib
from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np

from ..checks import as_path, optional_library
from ..errors import GradeclipError
from ..images import read_image
from .example import Example, in_form, not_empty, read_json

_SOURCE = "https://cocodataset.org/#download"
_FORM = "a file of COCO annotations"


def coco(folder: str | Path, split: str = "val2017") -> list[Example]:
    """Read COCO: an example for every category in every image; the mask is the union of all its instances.

    T.-Y. Lin et al. *Microsoft COCO: Common Objects in Context.* ECCV 2014. Masks are drawn by
    pycocotools, so that they are COCO's own. Prompts have CLIP's own template, "a photo of a dog."
    (Radford et al. 2021).

    Args:
        folder: holds `annotations/` with `instances_val2017.json` (`images`, `annotations` with
            `segmentation` as polygons or run lengths, `categories`) and, if captions are wanted,
            `captions_val2017.json`, and the images in `val2017/`.
        split: the end of these names.

    Returns:
        The examples, by the image's number; keys are NUMBER/CATEGORY.

    Raises:
        GradeclipError: the annotations are missing or not in this form, or pycocotools is not
            installed.
    """
    folder = as_path(folder, "the folder of COCO")
    path, captions = (
        folder / "annotations" / f"{kind}_{split}.json" for kind in ("instances", "captions")
    )
    record, examples = read_json(path, _SOURCE), []
    optional_library(
        "pycocotools", "the mask of an object in COCO is stored as polygons or run lengths"
    )
    said = (
        {e.concept: e.caption for e in reversed(coco_captions(folder, split))}
        if captions.is_file()
        else {}
    )
    with in_form(path, _FORM, _SOURCE):
        names = {category["id"]: category["name"] for category in record["categories"]}
        shapes: dict = defaultdict(lambda: defaultdict(list))  # image -> category -> segmentations
        for annotation in record["annotations"]:
            if annotation.get("area", 1) > 0:  # some masks of published splits have no pixel
                shapes[annotation["image_id"]][annotation["category_id"]].append(
                    annotation["segmentation"]
                )
        for image in sorted(record["images"], key=lambda image: image["id"]):
            found, size = shapes[image["id"]], (image["height"], image["width"])
            present = tuple(names[category] for category in found)
            caption, reading = (
                said.get(str(image["id"]), ""),
                partial(read_image, folder / split / image["file_name"]),
            )
            for name, segmentations in zip(present, found.values(), strict=True):
                mask = partial(_mask, path, f"{name} in image {image['id']}", segmentations, size)
                prompt = f"a photo of a {name}."
                examples.append(
                    Example(f"{image['id']}/{name}", prompt, name, caption, present, reading, mask)
                )
    return not_empty(examples, path, _SOURCE)


def coco_captions(folder: str | Path, split: str = "val2017") -> list[Example]:
    """Read COCO's captions (about five an image), without masks; folder, split and errors are those of `coco`."""
    folder = as_path(folder, "the folder of COCO")
    path, examples = folder / "annotations" / f"captions_{split}.json", []
    record = read_json(path, _SOURCE)
    with in_form(path, _FORM, _SOURCE):
        files = {image["id"]: folder / split / image["file_name"] for image in record["images"]}
        for said in sorted(record["annotations"], key=lambda said: (said["image_id"], said["id"])):
            image, caption = str(said["image_id"]), said["caption"].strip()
            reading = partial(read_image, files[said["image_id"]])
            examples.append(
                Example(f"{image}/{said['id']}", caption, image, caption, (image,), reading)
            )
    return not_empty(examples, path, _SOURCE)


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
        raise GradeclipError(
            f"{path} has an invalid segmentation of {what} ({error}): see {_SOURCE}"
        ) from error
