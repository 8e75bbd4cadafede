"""Winoground (Thrush et al. 2022): two images and two captions of the same words, each image with its own."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from ..images import read_image
from .example import damaged, needed, not_empty
from .sugarcrepe import Choice

WINOGROUND = "https://huggingface.co/datasets/facebook/winoground (its licence has to be accepted there)"
_WANTED = ("image_0", "image_1", "caption_0", "caption_1")


def winoground(folder: str | Path) -> list[Choice]:
    """Winoground: each of its images is asked which of the two captions is its own.

    T. Thrush, R. Jiang, M. Bartolo, A. Singh, A. Williams, D. Kiela, C. Ross. *Winoground: Probing Vision and Language
    Models for Visio-Linguistic Compositionality.* CVPR 2022. Its text score asks for both images of an example to be
    right; that is whether `ID/0` and `ID/1` are.

    Args:
        folder: its `examples.jsonl`, and its `images.zip` unpacked to `images/`; they need not be there unless they are
            asked for.

    Returns:
        Two choices an example; the kind is its `collapsed_tag` (Object, Relation, Both).

    Raises:
        FileNotFoundError: there is no `examples.jsonl`.
        ValueError: a line of it is not in this schema; the message names the line.
    """
    file = needed(Path(folder) / "examples.jsonl", "the captions of Winoground", WINOGROUND)
    choices = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise damaged(file, f"is cut short, or line {number} is not JSON ({error})", WINOGROUND) from error
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in _WANTED):
            raise damaged(file, f"lacks one of {', '.join(_WANTED)} in line {number}", WINOGROUND)
        for own, other in ((0, 1), (1, 0)):
            reading = partial(read_image, Path(folder) / "images" / f"{entry[f'image_{own}']}.png")
            right, wrong = (entry[f"caption_{one}"].strip() for one in (own, other))
            key, kind = f"{entry.get('id', number - 1)}/{own}", str(entry.get("collapsed_tag", "winoground"))
            choices.append(Choice(key, kind, right, wrong, reading))
    return not_empty(choices, file, "examples", WINOGROUND)
