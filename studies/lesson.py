"""Shared parts of the lessons: the models of a lesson, its claims, and the table that its last cell writes.

    models = lesson_models(MODEL, PRETRAINED)          # {"emoji": Clip, "emoji-plain": Clip} claims
    = Claims("05", MODEL) claims.add("the swapped caption loses", right, than=0.5, margin=0.05)
    claims.write()                                     # results/emoji/05.csv, and the table as the
    cell's output shown_scenes(6)                                    # scenes that may be shown: the
    first six, unchosen

A claim compares one number with a reference. Its answer is "higher", "lower", "about equal" (the
whole 95 % interval lies within the margin of the reference) or "undecided".
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Sequence
from itertools import count, islice
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from gradeclip_utils import Explainer
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.measures.statistics import interpret_interval, mean_interval
from gradeclip_utils.models import Clip, load_clip
from gradeclip_utils.plots import InlineFigure, axes_at, paint, show_image
from gradeclip_utils.scenes import CANVAS, Scene, draw_scene, phrase

FULL_WIDTH = 8.1  # inches: 860 pixels of a notebook
pd.set_option("display.max_colwidth", None)  # tables of lessons show whole sentences
# a folder a model, a table a lesson
RESULTS = Path(os.environ.get("GRADECLIP_RESULTS") or Path(__file__).parent.parent / "results")
SECOND = "emoji-plain"  # a second training, beside which the lessons stand `emoji`
COLUMNS = ["lesson", "claim", "model", "estimate", "low", "high", "than", "n", "answer"]


def lesson_models(model: str = "emoji", pretrained: str | None = None) -> dict[str, Clip]:
    """The models that a lesson measures, by name: the one asked for and, beside `emoji`, the second training."""
    names = [model, SECOND] if model == "emoji" else [model]
    return {name: load_clip(name, pretrained if name == model else None) for name in names}


class Claims:
    """The claims of a lesson, in the order in which they were measured."""

    def __init__(self, lesson: str, model: str = "emoji") -> None:
        self.lesson, self.model, self.rows = lesson, model, []

    def add(
        self,
        claim: str,
        values: ArrayLike | None = None,
        *,
        estimate: float | None = None,
        bounds: Sequence[float] | None = None,
        than: float = 0.0,
        margin: float = 0.0,
        model: str = "",
        clusters: Sequence | None = None,
        n: int | None = None,
    ) -> str:
        """Add one claim, from the values whose mean it is about or from an estimate with its interval.

        Args:
            claim: a short sentence without a full stop, such as "red lies on the red object".
            values: (n,) numbers, of which the mean and its bootstrap interval are taken.
            estimate: the number, where it is no mean; it needs `bounds`.
            bounds: its 95 % interval, low and high.
            than: the reference, such as .5 for guessing.
            margin: a difference that does not matter, in the unit of the number.
            model: whose number it is; the lesson's model by default.
            clusters: one label per value; whole clusters are drawn by the bootstrap.
            n: how many measurements; counted where `values` are given.

        Returns:
            The claim with its numbers and its answer, as one line to print.

        Raises:
            GradeclipError: neither values nor an estimate with bounds are given.
        """
        if values is not None:
            values = np.asarray(values, dtype=float)
            alike = (values == 1).all() or (
                than > 0 and (values == 0).all()
            )  # right or wrong answers, not differences
            kind = "proportion" if alike else "mean"  # a bootstrap of equal answers has no width
            estimate, bounds, n = (
                float(values.mean()),
                mean_interval(values, clusters, kind=kind),
                len(values),
            )
        if estimate is None or bounds is None:
            raise GradeclipError(
                f"a claim needs values, or an estimate and bounds, and {claim!r} has neither"
            )
        low, high = map(float, bounds)
        known = np.isfinite([low, high]).all()  # a correlation of too few words is none
        found, name = (
            interpret_interval(low, high, than=than, margin=margin) if known else "undecided",
            model or self.model,
        )
        self.rows.append(
            (self.lesson, claim, name, float(estimate), low, high, float(than), n, found)
        )
        relation = {"about equal": "about equal to", "undecided": "undecided against"}.get(
            found, f"{found} than"
        )
        return f"{claim} ({name}): {estimate:.2f} [{low:.2f}, {high:.2f}], {relation} {than:.2f}"

    @property
    def table(self) -> pd.DataFrame:
        """One row per claim and model: lesson, claim, model, estimate, low, high, than, n, answer."""
        return pd.DataFrame(self.rows, columns=COLUMNS)

    def write(self, folder: str | Path = RESULTS) -> pd.DataFrame:
        """Write the table to `FOLDER/MODEL/LESSON.csv`, and return it in a form to read."""
        place = Path(folder) / file_name(self.model)
        place.mkdir(parents=True, exist_ok=True)
        self.table.round(4).to_csv(place / f"{self.lesson}.csv", index=False)
        return readable(self.table)


def file_name(text: str) -> str:
    """A name for a file or folder, with _ for what such names cannot hold."""
    return re.sub(r"[^\w.-]+", "_", text)


def rows_folder(lesson: str, model: str, data: str) -> Path | None:
    """Where a lesson keeps rows of a user's data, to go on from there after a kill; None for drawn scenes."""
    apart = f"{zlib.crc32(data.encode()):08x}"  # of data whose names differ in signs alone
    return RESULTS / file_name(model) / lesson / f"{file_name(data)}-{apart}" if data else None


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A table of claims with two digits, and the interval in one column."""
    shown = table.drop(columns="lesson")
    within = [
        f"[{low:.2f}, {high:.2f}]"
        for low, high in zip(shown.pop("low"), shown.pop("high"), strict=True)
    ]
    shown.insert(3, "95 % interval", within)
    return shown.round({"estimate": 2, "than": 2})


def shown_scenes(n: int, n_objects: int = 2, *, whole: bool = True) -> list[Scene]:
    """The first n test scenes of different things; `whole`: none is cut, none below an eighth of the side."""

    def fits(scene: Scene) -> bool:
        things = scene.objects
        seen = (
            CANVAS / 8 <= one.size <= 2 * min(one.x, one.y, CANVAS - one.x, CANVAS - one.y)
            for one in things
        )
        return len({one.noun for one in things}) == n_objects and (not whole or all(seen))

    drawn = (
        draw_scene(seed, split="test", n_objects=n_objects, tint=0, plain=True) for seed in count()
    )
    return list(islice(filter(fits, drawn), n))


def prompts_of(scene: Scene) -> list[str]:
    """Return one prompt per thing of a scene: "a dog", "cheese"."""
    return [phrase(one.noun) for one in scene.objects]


def gallery(explainer: Explainer, scenes: Sequence[Scene], columns: int = 2) -> InlineFigure:
    """Scenes in rows: the image and, for each of its things, the map of its prompt with the similarity."""
    shown = [
        (scene.image(), explainer.explain(scene.image(CANVAS), prompts_of(scene)))
        for scene in scenes
    ]
    across, side, down = (
        FULL_WIDTH / columns,
        0.96 * FULL_WIDTH / columns / 3,
        0.96 * FULL_WIDTH / columns / 3 + 0.32,
    )
    alt = "Images and maps: " + "; ".join(", ".join(one.prompts) for _, one in shown)
    figure = InlineFigure(FULL_WIDTH, down * -(-len(scenes) // columns), alt)
    for number, (image, one) in enumerate(shown):
        left, top = number % columns * across, number // columns * down + 0.3
        show_image(axes_at(figure, left, top, side - 0.06, side - 0.06), image)
        for i, prompt in enumerate(one.prompts):
            axes = axes_at(figure, left + (i + 1) * side, top, side - 0.06, side - 0.06)
            show_image(axes, paint(image, one.image_maps[i]))
            axes.set_title(f"{prompt}  {one.similarity[i]:.2f}", fontsize=9, loc="left", pad=3)
    return figure
