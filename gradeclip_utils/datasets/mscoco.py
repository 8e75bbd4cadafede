"""COCO (Lin et al. 2014): masks of things, and captions."""

from collections import defaultdict
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np

from ..errors import optional_library
from ..images import read_image
from .example import Example, read_json

SOURCE = "https://cocodataset.org/#download"


def coco(folder: str | Path, split: str = "val2017") -> list[Example]:
    """Read COCO: an example for every category in every image, with the mask of all instances.

        coco("FOLDER")[0].read()

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
        GradeclipError: the annotations are missing or not JSON, or pycocotools is not installed.
    """
    folder = Path(folder)
    record = read_json(folder / "annotations" / f"instances_{split}.json", SOURCE)
    optional_library("pycocotools", "a mask of COCO is stored as polygons or run lengths")
    captions: dict[str, str] = {}
    if (folder / "annotations" / f"captions_{split}.json").is_file():
        for example in reversed(coco_captions(folder, split)):
            captions[example.concept] = example.caption  # in the end the first of each image

    names = {category["id"]: category["name"] for category in record["categories"]}
    # image -> category -> segmentations
    shapes: dict[int, dict[int, list]] = defaultdict(lambda: defaultdict(list))
    for annotation in record["annotations"]:
        if annotation.get("area", 1) > 0:  # some masks of published splits have no pixel
            categories = shapes[annotation["image_id"]]
            categories[annotation["category_id"]].append(annotation["segmentation"])

    examples = []
    for image in sorted(record["images"], key=lambda image: image["id"]):
        number = image["id"]
        size = (image["height"], image["width"])
        read = partial(read_image, folder / split / image["file_name"])
        present = tuple(names[category] for category in shapes[number])
        for name, segmentations in zip(present, shapes[number].values(), strict=True):
            example = Example(
                key=f"{number}/{name}",
                prompt=f"a photo of a {name}.",
                concept=name,
                caption=captions.get(str(number), ""),
                present=present,
                image=read,
                load_mask=partial(_draw_mask, segmentations, size),
            )
            examples.append(example)
    return examples


def coco_captions(folder: str | Path, split: str = "val2017") -> list[Example]:
    """Read COCO's captions, about five an image, without masks; the rest is as for `coco`."""
    folder = Path(folder)
    record = read_json(folder / "annotations" / f"captions_{split}.json", SOURCE)
    files = {image["id"]: folder / split / image["file_name"] for image in record["images"]}

    examples = []
    annotations = sorted(record["annotations"], key=lambda row: (row["image_id"], row["id"]))
    for annotation in annotations:
        number = str(annotation["image_id"])
        caption = annotation["caption"].strip()
        example = Example(
            key=f"{number}/{annotation['id']}",
            prompt=caption,
            concept=number,
            caption=caption,
            present=(number,),
            image=partial(read_image, files[annotation["image_id"]]),
        )
        examples.append(example)
    return examples


def _draw_mask(segmentations: list, size: tuple[int, int]) -> np.ndarray:
    """Draw all instances of one category in one image, (H, W) bool."""
    tools = import_module("pycocotools.mask")
    runs: list[dict] = []
    for segmentation in segmentations:
        if isinstance(segmentation, list):  # polygons
            runs += tools.frPyObjects(segmentation, *size)
        elif isinstance(segmentation["counts"], list):  # a crowd: run lengths as numbers
            runs.append(tools.frPyObjects(segmentation, *size))
        else:  # packed
            runs.append(segmentation)
    return tools.decode(tools.merge(runs)).astype(bool)
