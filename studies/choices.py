"""Published sets of choices, images with a right and a wrong caption each.

SugarCrepe, Winoground, ARO, ColorSwap.

    load_choices("sugar-crepe:data@coco/val2017")   # Hsieh et al., NeurIPS 2023
    load_choices("winoground:winoground")           # Thrush et al., CVPR 2022
    load_choices("aro:aro")                         # Yuksekgonul et al., ICLR 2023
    load_choices("colorswap:colorswap")             # Burapacheep et al., 2024
    load("winoground:winoground")                   # the right captions alone, as examples

Nothing is downloaded: a message says where to get missing files, and names the entry that is not in
its form. Images need not be there until they are read.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from gradeclip_utils.datasets import Example, register_dataset
from gradeclip_utils.datasets.example import read_json
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.images import read_image

_SUGAR_CREPE = "https://github.com/RAIVNLab/sugar-crepe, folder data/"
_WINOGROUND = (
    "https://huggingface.co/datasets/facebook/winoground (its licence has to be accepted there)"
)
_ARO = "https://github.com/mertyg/vision-language-models-are-bows"
_COLORSWAP = "https://github.com/Top34051/colorswap (or stanfordnlp/colorswap of huggingface.co)"
_ARO_FILES = ("visual_genome_relation.json", "visual_genome_attribution.json")
_BOX = ("bbox_x", "bbox_y", "bbox_w", "bbox_h")


@dataclass(frozen=True, eq=False)
class Choice:
    """An image with a right and a wrong caption.

    Attributes:
        key: its name, unique in the data set.
        kind: how the wrong caption was made, such as `swap_att`.
        caption: the right caption.
        negative: the wrong one.
        image: a function that reads the image, upright RGB, as that of `Example`.
        image_key: tells which image it is, for several choices may show one: its file, or its key
            in a table; empty where no other choice shows it.
    """

    key: str
    kind: str
    caption: str
    negative: str
    image: Callable[[], Image.Image]
    image_key: str = ""


def load_choices(source: str) -> list[Choice]:
    """The choices of a data set, in its order.

    Args:
        source: its kind, a colon, and where it is. SugarCrepe's images follow an `@`; a split of
            ColorSwap does.

    Raises:
        GradeclipError: an unknown kind, or a file that is missing (the message says where to get
            it) or not in its form.
    """
    kind, _, place = source.partition(":")
    if kind not in KINDS or not place:
        forms = ", ".join(f"{name}:{form}" for name, (_, form) in KINDS.items())
        raise GradeclipError(f"{source!r} names no data set of choices: say {forms}")
    read, _ = KINDS[kind]
    return read(*place.split("@"))


def sugar_crepe(path: str | Path, images: str | Path = "") -> list[Choice]:
    """Read SugarCrepe, or any file in its schema.

    Images of COCO, each with its caption and a hard negative.

    C.-Y. Hsieh, J. Zhang, Z. Ma, A. Kembhavi, R. Krishna. *SugarCrepe: Fixing Hackable Benchmarks
    for Vision-Language Compositionality.* NeurIPS 2023.

    Args:
        path: one of its files (`swap_att.json`, `swap_obj.json`, `replace_att.json`, ...), whose
            name is the kind, or the folder that holds them: `{"0": {"filename": "000000544519.jpg",
            "caption": ..., "negative_caption": ...}, ...}`.
        images: COCO's folder `val2017`.
    """
    if not images:
        form = KINDS["sugar-crepe"][1]
        raise GradeclipError(f"say where the images are: sugar-crepe:{form}; got {str(path)!r}")
    path = Path(path)
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]

    choices = []
    for file in files:
        keys = ("filename", "caption", "negative_caption")
        for name, entry in _entries(file, keys, _SUGAR_CREPE):
            choices.append(
                Choice(
                    key=f"{file.stem}/{name}",
                    kind=file.stem,
                    caption=entry["caption"].strip(),
                    negative=entry["negative_caption"].strip(),
                    image=partial(read_image, Path(images) / entry["filename"]),
                    image_key=entry["filename"],
                )
            )
    return not_empty(choices, path, _SUGAR_CREPE)


def winoground(folder: str | Path) -> list[Choice]:
    """Read Winoground: two images and two captions per example.

    T. Thrush, R. Jiang, M. Bartolo, A. Singh, A. Williams, D. Kiela, C. Ross. *Winoground: Probing
    Vision and Language Models for Visio-Linguistic Compositionality.* CVPR 2022. By its text score
    an example is right if both of its images are (`ID/0`, `ID/1`).

    Args:
        folder: its `examples.jsonl`, and its `images.zip` unpacked to `images/`.

    Returns:
        Two choices per example; the kind is its `collapsed_tag` (Object, Relation, Both).
    """
    return _two_by_two(
        Path(folder) / "examples.jsonl",
        sides=("0", "1"),
        image=f"{folder}/images/{{}}.png",
        kind="collapsed_tag",
        source=_WINOGROUND,
    )


def colorswap(folder: str | Path, split: str = "test") -> list[Choice]:
    """Read ColorSwap: two images and two captions per example, with the colours swapped.

    J. Burapacheep, I. Gaur, A. Bhatia, T. Thrush. *ColorSwap: A Color and Word Order Dataset for
    Multimodal Evaluation.* ACL Findings 2024, arXiv 2402.04492. An example is right if both of its
    images are (`ID/1`, `ID/2`).

    Args:
        folder: holds `test.json` and `train.json`, a list of records with image_1, image_2 (paths
            in the folder), caption_1 and caption_2, and `images/`.
        split: "test" or "train".

    Returns:
        Two choices per example; the kind is its caption_source ("human" or a generator).
    """
    return _two_by_two(
        Path(folder) / f"{split}.json",
        sides=("1", "2"),
        image=f"{folder}/{{}}",
        kind="caption_source",
        source=_COLORSWAP,
    )


def aro(path: str | Path) -> list[Choice]:
    """Read ARO's two tests on Visual Genome: two captions about a part of an image.

    M. Yuksekgonul, F. Bianchi, P. Kalluri, D. Jurafsky, J. Zou. *When and Why Vision-Language
    Models Behave like Bags-Of-Words, and What to Do About It?* ICLR 2023. As published, the image
    is cut to the box of the relation.

    Args:
        path: the folder that holds `visual_genome_relation.json`, `visual_genome_attribution.json`
            and `images/`, or one of the files.

    Returns:
        One choice per entry; the kind is the file's and its relation ("relation: behind") or pair
        of attributes ("attribution: white_black").
    """
    path = Path(path)
    files = [path]
    if path.is_dir():
        files = [path / name for name in _ARO_FILES if (path / name).is_file()]

    choices = []
    for file in files:
        test = file.stem.removeprefix("visual_genome_")
        keys = ("image_path", "true_caption", "false_caption", *_BOX)
        for number, entry in _entries(file, keys, _ARO):
            detail = entry.get("relation_name") or "_".join(entry.get("attributes", ()))
            box = tuple(entry[key] for key in _BOX)
            choices.append(
                Choice(
                    key=f"{test}/{number}",
                    kind=f"{test}: {detail}" if detail else test,
                    caption=entry["true_caption"].strip(),
                    negative=entry["false_caption"].strip(),
                    image=partial(_part, file.parent / "images" / entry["image_path"], box),
                    image_key=entry["image_path"],
                )
            )
    return not_empty(choices, path, _ARO)


def not_empty(choices: list[Choice], file: Path, source: str) -> list[Choice]:
    """The choices of a file, if it has any."""
    if not choices:
        raise GradeclipError(f"{file} holds no examples: get it from {source}")
    return choices


def _two_by_two(
    file: Path,
    *,
    sides: tuple[str, str],
    image: str,
    kind: str,
    source: str,
) -> list[Choice]:
    """Two choices per entry, which has two images and two captions.

    The wrong caption of each image is that of the other.
    """
    keys = [f"image_{side}" for side in sides]
    keys += [f"caption_{side}" for side in sides]
    choices = []
    for number, entry in _entries(file, keys, source):
        for right, wrong in (sides, sides[::-1]):
            path = Path(image.format(entry[f"image_{right}"]))
            choices.append(
                Choice(
                    key=f"{entry.get('id', number)}/{right}",
                    kind=str(entry.get(kind) or kind),
                    caption=entry[f"caption_{right}"].strip(),
                    negative=entry[f"caption_{wrong}"].strip(),
                    image=partial(read_image, path),
                    image_key=str(path),
                )
            )
    return not_empty(choices, file, source)


def _entries(file: Path, keys: Sequence[str], source: str) -> Iterator[tuple]:
    """Yield the entries of a JSON file by name or number; each has these keys."""
    record = read_json(file, source)
    entries = record.items() if isinstance(record, dict) else enumerate(record)
    for name, entry in entries:
        missing = [key for key in keys if key not in entry]
        if missing:
            raise GradeclipError(f"entry {name!r} of {file} has no {missing[0]}: see {source}")
        yield name, entry


def _part(file: Path, box: tuple[float, float, float, float]) -> Image.Image:
    left, top, width, height = box
    return read_image(file).crop((left, top, left + width, top + height))


# ------------------------------------------------------------------------------- kinds of data sets


KINDS: dict[str, tuple[Callable[..., list[Choice]], str]] = {  # the reader, and the form of a place
    "sugar-crepe": (sugar_crepe, "FILE_OR_FOLDER@IMAGES"),
    "winoground": (winoground, "FOLDER"),
    "aro": (aro, "FOLDER"),
    "colorswap": (colorswap, "FOLDER"),
}


def _as_examples(kind: str, place: str) -> list[Example]:
    """The images with their right captions."""
    examples = []
    for choice in load_choices(f"{kind}:{place}"):
        example = Example(
            key=choice.key,
            prompt=choice.caption,
            concept=choice.key,
            caption=choice.caption,
            present=(choice.key,),
            image=choice.image,
        )
        examples.append(example)
    return examples


for _kind, (_, _form) in KINDS.items():
    register_dataset(_kind, partial(_as_examples, _kind), _form)
