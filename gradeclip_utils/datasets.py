"""Data sets: pictures with a prompt and the truth of where it lies, to measure maps on. All give the same small record.

    data set -> Example: picture, prompt, mask -> Explainer -> map -> metrics

    load("scenes:development:200")                  # emoji scenes, drawn here: no network, exact masks
    load("imagenet-segmentation:gtsegs_ijcv.mat")   # Guillaumin, Kuettel, Ferrari, IJCV 2014
    load("imagenet-s:ImageNetS919")                 # Gao et al., TPAMI 2022
    load("coco:coco")                               # Lin et al., ECCV 2014: annotations/ and val2017/
    load("folder:mine")                             # your own: pictures/, masks/, captions.csv
    sugar_crepe("data/swap_att.json", "val2017")    # Hsieh et al., NeurIPS 2023: a right and a wrong caption each

A data set is a list of examples, or of choices where captions are compared. What an example is about is known at once;
picture and mask are read when they are asked for, so a list of a hundred thousand costs little, and goes to another
process as it is. Nothing is downloaded: what is missing is named, with the page that has it.
"""

from __future__ import annotations

import difflib
import importlib
import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

from .examples import Example, emoji_scenes, fitting, needed, not_empty, own_pictures
from .images import read_image

__all__ = [
    "Choice", "Example", "coco", "coco_captions", "emoji_scenes", "imagenet_name", "imagenet_s",
    "imagenet_segmentation", "load", "optional_library", "own_pictures", "sugar_crepe",
]  # fmt: skip

IMAGENET_SEGMENTATION = "http://calvin-vision.net/bigstuff/proj-imagenet/data/gtsegs_ijcv.mat"
IMAGENET_S = "https://github.com/LUSSeg/ImageNet-S"
COCO = "https://cocodataset.org/#download"
SUGAR_CREPE = "https://github.com/RAIVNLab/sugar-crepe"


def load(what: str, limit: int | None = None) -> list[Example]:
    """The examples of a data set, from one line of text: its kind, a colon, and where it is (see the module).

    A split other than the default follows an `@`: `imagenet-s:folder@train-semi`, `coco:folder@train2017`. `limit`
    keeps so many, spread evenly over the data set, because most are sorted by concept.

    Raises:
        ValueError: the kind is unknown, the limit is not positive, or a file is not what it should be.
        FileNotFoundError: a file is missing; the message says where to get it.
        ImportError: the data set needs a library that is not installed.
    """
    kind, _, rest = what.partition(":")
    if kind not in _KINDS or not rest:
        near = difflib.get_close_matches(kind, _KINDS, cutoff=0.4)
        known = f"did you mean {near[0]}:...?" if near and kind not in _KINDS else f"say {', '.join(_FORMS.values())}"
        raise ValueError(f"{what!r} names no data set: {known}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    examples = _KINDS[kind](rest)
    if limit is None or limit >= len(examples):
        return examples
    return [examples[i] for i in np.linspace(0, len(examples) - 1, limit).round().astype(int)]


# ----------------------------------------------------------------------------------------------------------- ImageNet


def imagenet_segmentation(path: str | Path) -> list[Example]:
    """ImageNet-Segmentation: one object class a picture, foreground and background.

    M. Guillaumin, D. Kuettel, V. Ferrari. *ImageNet Auto-Annotation with Segmentation Propagation.* IJCV 2014. One
    MATLAB 7.3 file (which is HDF5), with a struct `value` of three cell arrays, (N, 1) references: `img`, uint8
    (3, W, H), because MATLAB counts columns first; `gt`, a cell that holds one array (W, H), 0 for background; and
    `target`, the WordNet id, as characters. Reading it needs h5py.

    Raises FileNotFoundError, ValueError (another file, or cut short) or ImportError.
    """
    path = needed(path, "the pictures and masks of ImageNet-Segmentation", IMAGENET_SEGMENTATION)
    h5py = optional_library("h5py", f"{path.name} is a MATLAB 7.3 file, which is HDF5")
    try:
        with h5py.File(path, "r") as file:
            value = file["value"]
            lengths = {name: len(value[name]) for name in ("img", "gt", "target")}
            ids = ["".join(map(chr, file[cell][()].ravel())) for cell in value["target"][:, 0]]
    except (OSError, KeyError) as error:
        raise ValueError(
            f"{path} is not ImageNet-Segmentation, or is cut short ({error}): it should be a MATLAB 7.3 file with the "
            f"cell arrays img, gt and target in a struct 'value'. Get it from {IMAGENET_SEGMENTATION}"
        ) from error
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"{path} is damaged: its arrays differ in length, {lengths}. Get it from {IMAGENET_SEGMENTATION}"
        )
    return [
        Example(f"{i:04d}-{wnid}", _photo(imagenet_name(wnid)), wnid, "", (wnid,),
                partial(_from_matlab, path, "img", i), partial(_from_matlab, path, "gt", i))
        for i, wnid in enumerate(ids)
    ]  # fmt: skip


def _from_matlab(path: Path, name: str, i: int) -> Image.Image | np.ndarray:
    """Picture or mask number i; the file is opened anew, because an open one cannot go to another process."""
    with importlib.import_module("h5py").File(path, "r") as file:
        cell = file[file["value"][name][i, 0]]
        if name == "img":
            return read_image(np.ascontiguousarray(cell[()].transpose(2, 1, 0)))  # (3, W, H) -> (H, W, 3)
        return file[cell[0, 0]][()].T != 0  # (W, H) -> (H, W)


def imagenet_s(folder: str | Path, split: str = "validation") -> list[Example]:
    """ImageNet-S (50, 300 or 919 classes): pixel masks of validation pictures of ImageNet.

    S. Gao, Z.-Y. Li, M.-H. Yang, M.-M. Cheng, J. Han, P. Torr. *Large-scale Unsupervised Semantic Segmentation.* TPAMI
    2022. `folder` is ImageNetS50, ImageNetS300 or ImageNetS919: pictures lie in `validation/n01440764/*.JPEG`, masks
    in `validation-segmentation/n01440764/*.png`, the class of a pixel is red + 256 * green, 0 is any other class and
    1000 is to be ignored (taken as background here). Classes are numbered from 1 in the order of their WordNet ids.
    The question asked of a picture is the class of its folder.

    Raises FileNotFoundError or, when a mask is read, ValueError.
    """
    folder = Path(folder)
    masks = needed(folder / f"{split}-segmentation", "the masks of ImageNet-S", IMAGENET_S)
    pictures = needed(folder / split, "the pictures of ImageNet-S, prepared from ImageNet by its script", IMAGENET_S)
    classes = sorted(child.name for child in masks.iterdir() if child.is_dir())
    size = folder.name.removeprefix("ImageNetS")
    if size.isdigit() and len(classes) != int(size):  # a class that is missing shifts the numbers of those behind it
        raise ValueError(
            f"{masks} holds {len(classes)} classes, but {folder.name} has {size}. Get it from {IMAGENET_S}"
        )
    examples = []
    for number, wnid in enumerate(classes, start=1):
        for file in sorted((masks / wnid).glob("*.png")):
            picture = pictures / wnid / f"{file.stem}.JPEG"
            examples.append(
                Example(f"{wnid}/{file.stem}", _photo(imagenet_name(wnid)), wnid, "", (wnid,),
                        partial(read_image, picture), partial(_class_mask, file, number, picture))
            )  # fmt: skip
    return not_empty(examples, f"{masks} holds no masks (n*/*.png): get them from {IMAGENET_S}")


def _class_mask(file: Path, number: int, picture: Path) -> np.ndarray:
    pixels = np.asarray(read_image(file)).astype(int)
    classes = pixels[..., 0] + 256 * pixels[..., 1]
    if number not in classes:
        found = ", ".join(map(str, np.unique(classes)[:5]))
        raise ValueError(
            f"{file} should show class {number}, the one of its folder, and holds {found}: is a class missing?"
        )
    return fitting(classes == number, file, picture)


@lru_cache(maxsize=1)
def _imagenet_names() -> dict[str, str]:
    """WordNet ids and names: the ones that OpenAI chose for the 1000 classes, WordNet's first lemma for the others."""
    from open_clip import IMAGENET_CLASSNAMES  # torch takes seconds to import, and scenes need none of it
    from timm.data import ImageNetInfo

    thousand, every = ImageNetInfo("imagenet-1k"), ImageNetInfo("imagenet-22k")
    lemmas = {wnid: name.split(",")[0] for wnid, name in every.label_descriptions(as_dict=True).items()}
    return lemmas | dict(zip(thousand.label_names(), IMAGENET_CLASSNAMES, strict=True))


def imagenet_name(wnid: str) -> str:
    """What a WordNet id of ImageNet is called; ValueError, naming it, for any other."""
    try:
        return _imagenet_names()[wnid]
    except KeyError:
        raise ValueError(f"{wnid!r} is no WordNet id of ImageNet, such as 'n02084071' (dog)") from None


# --------------------------------------------------------------------------------------------------------------- COCO


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
            Example(f"{image['id']}/{names[category]}", _photo(names[category]), names[category],
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
    record = _read_json(path, COCO)
    missing = [key for key in keys if not isinstance(record, dict) or key not in record]
    if missing:
        raise ValueError(f"{path} is not a file of COCO annotations: it lacks {', '.join(missing)}. Get it from {COCO}")
    return record


def _read_json(path: Path, source: str):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON, or is cut short ({error}): get it from {source}") from error


# --------------------------------------------------------------------------------------------------------- SugarCrepe


@dataclass(frozen=True, eq=False)
class Choice:
    """A picture with two captions, of which the first is right: can a model tell?

    Attributes:
        key: its name, unique in the data set.
        kind: how the wrong caption was made, such as `swap_att`.
        caption, negative: the right caption, and the wrong one.
    """

    key: str
    kind: str
    caption: str
    negative: str
    _picture: Callable[[], Image.Image]

    def image(self) -> Image.Image:
        """The picture, upright RGB, read now.

        Raises FileNotFoundError if the file is not there, ValueError if it is not a picture.
        """
        return self._picture()


def sugar_crepe(path: str | Path, pictures: str | Path) -> list[Choice]:
    """SugarCrepe, or any file in its schema: pictures of COCO, each with its caption and a hard negative.

    C.-Y. Hsieh, J. Zhang, Z. Ma, A. Kembhavi, R. Krishna. *SugarCrepe: Fixing Hackable Benchmarks for Vision-Language
    Compositionality.* NeurIPS 2023. `path` is one of its files (`swap_att.json`, `swap_obj.json`, `replace_att.json`,
    ...), whose name is the kind, or the folder that holds them: `{"0": {"filename": "000000544519.jpg", "caption":
    ..., "negative_caption": ...}, ...}`. `pictures` is COCO's folder `val2017`; they need not be there unless they are
    asked for.

    Raises FileNotFoundError, or ValueError, naming the entry, for a file that is not in this schema.
    """
    path, choices = needed(path, "the captions of SugarCrepe, a JSON file or a folder of them", SUGAR_CREPE), []
    for file in sorted(path.glob("*.json")) if path.is_dir() else [path]:
        record = _read_json(file, SUGAR_CREPE)
        if not isinstance(record, dict):
            raise ValueError(f"{file} must hold one entry a picture, {_ENTRY}, got a {type(record).__name__}")
        for name, entry in record.items():
            wanted = ("filename", "caption", "negative_caption")
            if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in wanted):
                raise ValueError(f"entry {name!r} of {file} must be {_ENTRY}, got {entry!r}")
            picture, right, wrong = (entry[key].strip() for key in wanted)
            reading = partial(read_image, Path(pictures) / picture)
            choices.append(Choice(f"{file.stem}/{name}", file.stem, right, wrong, reading))
    return not_empty(choices, f"{path} holds no captions: get the files of the folder data/ from {SUGAR_CREPE}")


_ENTRY = '{"filename": ..., "caption": ..., "negative_caption": ...}'


def _photo(name: str) -> str:
    return f"a photo of a {name}."  # CLIP's own template (Radford et al. 2021)


def optional_library(name: str, why: str, extra: str = "data") -> ModuleType:
    """A library that only some people need; ImportError, with why and the way to get it, if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{why}, and needs {name}: pip install 'gradeclip[{extra}]'") from error


def _split(loader: Callable[..., list[Example]], rest: str) -> list[Example]:
    path, _, split = rest.partition("@")
    return loader(path, split) if split else loader(path)


def _drawn(rest: str) -> list[Example]:
    split, _, n = rest.partition(":")
    if not n.isdigit():
        raise ValueError(f"say how many scenes: {_FORMS['scenes']}; got {'scenes:' + rest!r}")
    return emoji_scenes(split, int(n))


_KINDS = {
    "scenes": _drawn, "imagenet-segmentation": imagenet_segmentation, "imagenet-s": partial(_split, imagenet_s),
    "coco": partial(_split, coco), "folder": own_pictures,
}  # fmt: skip
_FORMS = {
    "scenes": "scenes:development:200", "imagenet-segmentation": "imagenet-segmentation:FILE",
    "imagenet-s": "imagenet-s:FOLDER", "coco": "coco:FOLDER", "folder": "folder:FOLDER",
}  # fmt: skip
