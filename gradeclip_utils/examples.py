"""Examples: one question about one picture, with the truth where it is known. What every data set is made of.

    data set -> Example: picture, prompt, mask -> Explainer -> map -> metrics

Two data sets that are nobody's publication live here as well: emoji scenes, and a folder of your own pictures. The
published ones, and `load`, which finds them all by name, are in `datasets`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from .images import read_image
from .scenes import SPLITS, Scene, describe, draw_scene


@dataclass(frozen=True, eq=False)
class Example:
    """One question about one picture: where is what the prompt names?

    Attributes:
        key: its name, unique in the data set.
        prompt: what to look for, as it is given to the model.
        concept: what the prompt is about; examples of one concept are alike, and intervals treat them as a cluster.
        caption: the picture's own caption, where it has one.
        present: every concept that is known to be in the picture, `concept` among them.
    """

    key: str
    prompt: str
    concept: str
    caption: str
    present: tuple[str, ...]
    _picture: Callable[[], Image.Image]
    _truth: Callable[[], np.ndarray] | None = None

    def image(self) -> Image.Image:
        """The picture, upright RGB, read now.

        Raises FileNotFoundError if the file is not there, ValueError if it is not a picture.
        """
        return self._picture()

    def mask(self) -> np.ndarray | None:
        """Which pixels show what the prompt names, (H, W) bool, read now; None where the data set does not say.

        Raises FileNotFoundError if the file is not there, ValueError if it does not fit the picture.
        """
        return None if self._truth is None else self._truth()

    @property
    def has_mask(self) -> bool:
        """Whether the data set says where the prompt's object is."""
        return self._truth is not None


def emoji_scenes(split: str, n: int, *, n_objects: int | None = None) -> list[Example]:
    """`n` emoji scenes of a split, one question a scene: where is this thing (or: these like things)?

    The thing is drawn from those in the scene, the prompt is its name as a caption would say it ("a red car", "two
    owls"), and the mask is exact. `n_objects`: 1 to 4; as `draw_scene` by default.

    Raises ValueError for a split that does not exist, or for no scenes.
    """
    if split not in SPLITS or n < 1:
        raise ValueError(f"scenes come from {', '.join(SPLITS)}, one or more; got {split!r} and {n}")
    return [_scene(f"{split}/{i}", draw_scene([50, n_objects or 0, i], split=split, n_objects=n_objects), i)
            for i in range(n)]  # fmt: skip


def _scene(key: str, scene: Scene, i: int) -> Example:
    asked = scene.objects[np.random.default_rng([51, i]).integers(len(scene.objects))]
    members = [k for k, thing in enumerate(scene.objects) if thing.noun == asked.noun]
    prompt, _ = describe([scene.objects[k] for k in members])
    present = tuple(dict.fromkeys(thing.noun for thing in scene.objects))
    truth = partial(_covered_by, scene, members)
    return Example(key, prompt, asked.noun, scene.caption, present, scene.image, truth)


def _covered_by(scene: Scene, members: list[int]) -> np.ndarray:
    return scene.masks()[members].any(axis=0)


def own_pictures(path: str | Path) -> list[Example]:
    """Pictures of your own: a folder with `captions.csv`, `pictures/` and, if you have them, `masks/`.

    `captions.csv` has a row for every question, and the columns `picture` (a file in `pictures/`) and `caption` (the
    prompt); optionally `mask` (a file in `masks/`, of the picture's size, where anything but black is the object; the
    picture's name with `.png` if there is no such column) and `concept` (the caption if there is no such column).

    Raises FileNotFoundError or ValueError; they name the line of the table.
    """
    path = Path(path)
    table = path / "captions.csv"
    if not table.is_file():
        columns = "a table with the columns picture and caption, and if you like mask and concept"
        raise FileNotFoundError(f"{table} is missing: write {columns}, for pictures in {path / 'pictures'}")
    try:
        rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise ValueError(f"{table} cannot be read as a table with the columns picture and caption: {error}") from error
    if not {"picture", "caption"} <= set(rows.columns):
        raise ValueError(f"{table} must have the columns picture and caption, and has {', '.join(rows.columns)}")
    concepts = rows["concept"].where(rows["concept"] != "", rows["caption"]) if "concept" in rows else rows["caption"]
    present = concepts.groupby(rows["picture"]).agg(lambda of_picture: tuple(dict.fromkeys(of_picture)))
    examples = [
        _own(path, row, concept, present[row["picture"]], f"{table}, line {line}")
        for line, (row, concept) in enumerate(zip(rows.to_dict("records"), concepts, strict=True), start=2)
    ]
    return not_empty(examples, f"{table} has no rows: write one for every picture and caption")


def _own(path: Path, row: dict, concept: str, present: tuple[str, ...], where: str) -> Example:
    if not row["picture"] or not row["caption"]:
        raise ValueError(f"{where}: a picture and a caption are needed, got {row}")
    picture = path / "pictures" / row["picture"]
    mask = path / "masks" / (row.get("mask") or f"{picture.stem}.png")
    for file, wanted in ((picture, True), (mask, bool(row.get("mask")))):
        if wanted and not file.is_file():
            raise FileNotFoundError(f"{where}: there is no file {file}")
    truth = partial(_drawn_mask, mask, picture) if mask.is_file() else None
    key = f"{where.rsplit(maxsplit=1)[1]}-{row['picture']}"
    return Example(key, row["caption"], concept, row["caption"], present, partial(read_image, picture), truth)


def _drawn_mask(file: Path, picture: Path) -> np.ndarray:
    mask = fitting(np.asarray(read_image(file)).any(axis=-1), file, picture)
    if not mask.any():
        raise ValueError(f"{file} is black all over: what shows the object must have another colour")
    return mask


def fitting(mask: np.ndarray, file: Path, picture: Path) -> np.ndarray:
    """The mask, if it has the size of its picture; ValueError, with both sizes, if not."""
    size = read_image(picture).size
    if mask.shape != size[::-1]:
        raise ValueError(f"{file} is {mask.shape[1]} x {mask.shape[0]} pixels, its picture {size[0]} x {size[1]}")
    return mask


def needed(path: str | Path, what: str, source: str) -> Path:
    """The path, if something is there; FileNotFoundError, with what it should be and where to get it, if not."""
    if not Path(path).exists():
        raise FileNotFoundError(f"{path} is missing: {what}. Get it from {source}")
    return Path(path)


def not_empty(examples: list[Example], otherwise: str) -> list[Example]:
    """The examples, if there are any; ValueError with `otherwise` if not."""
    if not examples:
        raise ValueError(otherwise)
    return examples
