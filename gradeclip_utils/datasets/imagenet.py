"""ImageNet with masks: ImageNet-Segmentation (Guillaumin et al. 2014) and ImageNet-S (Gao et al. 2022)."""

from __future__ import annotations

import importlib
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from PIL import Image

from ..checks import as_path
from ..errors import GradeclipError
from ..images import read_image
from .example import Example, Source, fitting, optional_library, photo_prompt

IMAGENET_SEGMENTATION = Source("http://calvin-vision.net/bigstuff/proj-imagenet/data/gtsegs_ijcv.mat")
IMAGENET_S = Source("https://github.com/LUSSeg/ImageNet-S")


def imagenet_segmentation(path: str | Path) -> list[Example]:
    """ImageNet-Segmentation: one object class an image, foreground and background; an example an image, in their order."""
    path = IMAGENET_SEGMENTATION.needed(path, "the images and masks of ImageNet-Segmentation")
    h5py = optional_library("h5py", f"{path.name} is a MATLAB 7.3 file, which is HDF5")
    try:
        with h5py.File(path, "r") as file:
            value = file["value"]
            lengths = {name: len(value[name]) for name in ("img", "gt", "target")}
            ids = ["".join(map(chr, file[cell][()].ravel())) for cell in value["target"][:, 0]]
    except (OSError, LookupError, TypeError, ValueError, OverflowError) as error:
        layout = "it should be a MATLAB 7.3 file with the cell arrays img, gt and target in a struct 'value'"
        what = f"is not ImageNet-Segmentation, or is cut short ({error}): {layout}"
        raise IMAGENET_SEGMENTATION.damaged(path, what) from error
    if len(set(lengths.values())) > 1:
        raise IMAGENET_SEGMENTATION.damaged(path, f"is damaged: its arrays differ in length, {lengths}")
    return [
        Example(f"{i:04d}-{wnid}", photo_prompt(imagenet_name(wnid)), wnid, "", (wnid,),
                partial(_image_from_matlab, path, i), partial(_mask_from_matlab, path, i))
        for i, wnid in enumerate(ids)
    ]  # fmt: skip


def _opened(path: Path):
    """The file, opened anew for every image, because an open one cannot go to another process."""
    return importlib.import_module("h5py").File(path, "r")


def _image_from_matlab(path: Path, i: int) -> Image.Image:
    with _opened(path) as file:
        return read_image(np.ascontiguousarray(file[file["value"]["img"][i, 0]][()].transpose(2, 1, 0)))  # to (H, W, 3)


def _mask_from_matlab(path: Path, i: int) -> np.ndarray:
    with _opened(path) as file:
        return file[file[file["value"]["gt"][i, 0]][0, 0]][()].T != 0  # (W, H) -> (H, W)


def imagenet_s(folder: str | Path, split: str = "validation") -> list[Example]:
    """ImageNet-S (50, 300 or 919 classes): pixel masks of validation images of ImageNet."""
    folder = as_path(folder, "the folder of ImageNet-S")
    masks = IMAGENET_S.needed(folder / f"{split}-segmentation", "the masks of ImageNet-S")
    images = IMAGENET_S.needed(folder / split, "the images of ImageNet-S, prepared from ImageNet by its script")
    classes = sorted(child.name for child in masks.iterdir() if child.is_dir())
    size = folder.name.removeprefix("ImageNetS")
    if size.isdigit() and len(classes) != int(size):  # a class that is missing shifts the numbers of those behind it
        raise IMAGENET_S.damaged(masks, f"holds {len(classes)} classes, but {folder.name} has {size}")
    examples = []
    for number, wnid in enumerate(classes, start=1):
        for file in sorted((masks / wnid).glob("*.png")):
            image = images / wnid / f"{file.stem}.JPEG"
            examples.append(
                Example(f"{wnid}/{file.stem}", photo_prompt(imagenet_name(wnid)), wnid, "", (wnid,),
                        partial(read_image, image), partial(_class_mask, file, number, image))
            )  # fmt: skip
    return IMAGENET_S.not_empty(examples, masks, "masks (n*/*.png)")


def _class_mask(file: Path, number: int, image: Path) -> np.ndarray:
    """Where a mask file shows the class with this number, (H, W) bool."""
    pixels = np.asarray(read_image(file)).astype(int)
    classes = pixels[..., 0] + 256 * pixels[..., 1]
    if number not in classes:
        found = ", ".join(map(str, np.unique(classes)[:5]))
        msg = f"{file} should show class {number}, the one of its folder, and holds {found}: is a class missing?"
        raise GradeclipError(msg)
    return fitting(classes == number, file, image)


@lru_cache(maxsize=1)
def _imagenet_names() -> dict[str, str]:
    """WordNet ids and names: the ones that OpenAI chose for the 1000 classes, WordNet's first lemma for the others."""
    from open_clip import IMAGENET_CLASSNAMES  # torch takes seconds to import, and scenes need none of it
    from timm.data import ImageNetInfo

    thousand, every = ImageNetInfo("imagenet-1k"), ImageNetInfo("imagenet-22k")
    lemmas = {wnid: name.split(",")[0] for wnid, name in every.label_descriptions(as_dict=True).items()}
    return lemmas | dict(zip(thousand.label_names(), IMAGENET_CLASSNAMES, strict=True))


def imagenet_name(wnid: str) -> str:
    """What a WordNet id of ImageNet is called."""
    try:
        return _imagenet_names()[wnid]
    except (KeyError, TypeError):
        msg = f"{wnid!r} is no WordNet id of ImageNet, such as 'n02084071' (dog)"
        raise GradeclipError(msg) from None
