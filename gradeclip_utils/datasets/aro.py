"""ARO (Yuksekgonul et al. 2023): Visual Genome's relations and attributes, each with its order turned round."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from PIL import Image

from ..errors import InvalidValue
from ..images import read_image
from .example import damaged, needed, not_empty, read_json
from .sugarcrepe import Choice

ARO = "https://github.com/mertyg/vision-language-models-are-bows"
_FILES = ("visual_genome_relation.json", "visual_genome_attribution.json")
_TEXTS, _BOX = ("image_path", "true_caption", "false_caption"), ("bbox_x", "bbox_y", "bbox_w", "bbox_h")


def aro(path: str | Path) -> list[Choice]:
    """ARO's two tests on Visual Genome: which of two captions is right of the part of an image that they speak of?

    M. Yuksekgonul, F. Bianchi, P. Kalluri, D. Jurafsky, J. Zou. *When and Why Vision-Language Models Behave like
    Bags-Of-Words, and What to Do About It?* ICLR 2023. As published, the image is cut to the box of the relation.

    Args:
        path: the folder that holds `visual_genome_relation.json`, `visual_genome_attribution.json` and `images/`, or
            one of the files. Images need not be there unless they are asked for.

    Returns:
        One choice an entry; the kind is the file's and its relation ("relation: behind"), or "attribution".

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file is not in this schema; the message names the entry.
    """
    path = needed(path, "ARO: a folder with visual_genome_relation.json or visual_genome_attribution.json", ARO)
    files, choices = [path / name for name in _FILES if (path / name).is_file()] if path.is_dir() else [path], []
    for file in files:
        record, kind = read_json(file, ARO), file.stem.removeprefix("visual_genome_")
        if not isinstance(record, list):
            raise damaged(file, f"must hold a list of entries, got a {type(record).__name__}", ARO)
        for number, entry in enumerate(record):
            if not _is_entry(entry):
                wanted = ", ".join((*_TEXTS, *_BOX))
                raise InvalidValue(
                    f"entry {number} of {file} must have {wanted}, got {str(entry)[:80]}", "data-damaged"
                )
            image, right, wrong = (entry[key] for key in _TEXTS)
            relation = f": {entry['relation_name']}" if entry.get("relation_name") else ""
            reading = partial(_part, file.parent / "images" / image, tuple(entry[key] for key in _BOX))
            choices.append(Choice(f"{kind}/{number}", f"{kind}{relation}", right.strip(), wrong.strip(), reading))
    return not_empty(choices, path, f"entries of {' or '.join(_FILES)}", ARO)


def _is_entry(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and all(isinstance(entry.get(key), str) for key in _TEXTS)
        and all(isinstance(entry.get(key), (int, float)) for key in _BOX)
    )


def _part(file: Path, box: tuple[float, float, float, float]) -> Image.Image:
    """The part of an image that a relation is about, x, y, width and height."""
    left, top, width, height = box
    return read_image(file).crop((left, top, left + width, top + height))
