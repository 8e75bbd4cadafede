"""What all lessons share: their models, their claims and the scenes that they show.

    models = lesson_models(MODEL, PRETRAINED)    # {"emoji": Clip, "emoji-aided": Clip}
    claims = Claims("06", MODEL, PRETRAINED)
    claims.add("the swapped caption loses", right, than=0.5, margin=0.05)
    claims.write()                               # results/emoji/06.csv; a cell shows the table
    shown_scenes(6)                              # the first six scenes that may be shown

A claim compares one number with a reference. Its answer is "higher", "lower", "about equal" (the
whole 95 % interval lies within the margin of the reference) or "undecided".
"""

import hashlib
import json
import os
import re
import textwrap
import zlib
from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from torch import Tensor

from gradeclip_utils import Explainer
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.files import data_path
from gradeclip_utils.measures.statistics import interpret_interval, mean_interval
from gradeclip_utils.models import Clip, load_clip
from gradeclip_utils.plots import paint
from gradeclip_utils.plots.figures import fit_height, new_figure, show_image
from gradeclip_utils.scenes import CANVAS, Object, Scene, draw_scene, phrase

FULL_WIDTH = 8.1  # inches: 860 pixels of a notebook
COLUMNS_OF_TEXT = 100  # that a notebook shows without a break
COMMITTED = Path(__file__).parent.parent / "results"  # of the models that the project knows
RESULTS = Path(os.environ.get("GRADECLIP_RESULTS") or COMMITTED)  # where lessons write
SEEDS = "seeds.csv"  # what lessons claim of trainings like the default model's, from other seeds
SECOND = "emoji-aided"  # trained with aids, which the lessons measure beside `emoji`
COLUMNS = ["lesson", "claim", "model", "estimate", "low", "high", "than", "n", "answer"]
pd.set_option("display.max_colwidth", None)  # tables of lessons show whole sentences


def lesson_models(model: str = "emoji", pretrained: str | None = None) -> dict[str, Clip]:
    """The models that a lesson measures, by name.

    This one and, beside `emoji`, the second training.
    """
    models = {model: load_clip(model, pretrained)}
    if model == "emoji":
        models[SECOND] = load_clip(SECOND)
    return models


# ----------------------------------------------------------------------------------------- results


def results_name(model: str, pretrained: str | None = None) -> str:
    """The folder of results of a model with these weights: "ViT-B-32-openai", "ViT-B-32-mine"."""
    parts = [Path(model).name if is_model_folder(model) else model]
    if pretrained:
        parts.append(Path(pretrained).stem if Path(pretrained).is_file() else pretrained)
    return file_name("-".join(parts))


def results_folder(model: str, pretrained: str | None = None) -> Path:
    """Where the results of a model lie.

    Refused if they are those of other weights of the same name.
    """
    folder = RESULTS / results_name(model, pretrained)
    record = folder / "weights.json"
    if record.exists():
        recorded = json.loads(record.read_text())
        if recorded != _local_weights(model, pretrained):
            raise GradeclipError(
                f"{folder} has results of other weights of this name: rename it, or the weights"
            )
    return folder


def _local_weights(model: str, pretrained: str | None) -> dict[str, str]:
    """SHA-256 of the files that hold a model, by name.

    None of a model that has a published name.
    """
    files = [Path(pretrained)] if pretrained else []
    if is_model_folder(model):
        files += sorted(Path(model).rglob("*"))

    checksums = {}
    for file in files:
        if file.is_file():
            checksums[file.name] = checksum_of(file)
    return checksums


def checksum_of(file: Path) -> str:
    """The SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_model_folder(model: str) -> bool:
    """Whether a model is a folder with its configuration, as open_clip and transformers save it."""
    return any(Path(model).glob("*config.json"))


def file_name(text: str) -> str:
    """A name for a file or folder, with _ for what such names cannot hold."""
    return re.sub(r"[^\w.-]+", "_", text)


class Claims:
    """The claims of a lesson, in the order in which they were measured.

    Args:
        lesson: its number, such as "06".
        model: the lesson's model, as `load_clip` takes it.
        pretrained: the model's weights.

    Raises:
        GradeclipError: there are results of other weights of the same name.
    """

    def __init__(self, lesson: str, model: str = "emoji", pretrained: str | None = None) -> None:
        self.lesson = lesson
        self.model = model
        self.pretrained = pretrained
        self.folder = results_folder(model, pretrained)
        self.rows: list[tuple] = []

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
        """Add one claim, from values whose mean it is about or from an estimate with its interval.

        A number that cannot be had, such as the interval of a single value, is NaN, and the answer
        is "undecided".

        Args:
            claim: a short sentence without a full stop, such as "red lies on the red object".
            values: (n,) numbers, of which the mean and its interval are taken; NaN is left out.
                Answers 0, .5 and 1 that are compared with a guess are a proportion, with Wilson's
                interval; others have the bootstrap's.
            estimate: the number, where it is no mean; it needs `bounds`.
            bounds: its 95 % interval, low and high.
            than: the reference, such as .5 for guessing.
            margin: a difference that does not matter, in the unit of the number.
            model: the model that was measured; the lesson's model by default.
            clusters: one label per value; whole clusters are drawn by the bootstrap.
            n: how many measurements; counted where `values` are given.

        Returns:
            The claim with its numbers and its answer, to print: one line, or two of a long claim.

        Raises:
            GradeclipError: neither values nor an estimate with bounds are given.
        """
        if values is not None:
            estimate, bounds, n = mean_and_interval(values, clusters, than)
        if estimate is None or bounds is None:
            raise GradeclipError(
                f"a claim needs values, or an estimate and bounds, and {claim!r} has neither"
            )

        low, high = map(float, bounds)
        verdict = "undecided"
        if np.isfinite([low, high]).all():
            verdict = interpret_interval(low, high, than=than, margin=margin)
        name = model
        if model in ("", self.model):
            name = results_name(self.model, self.pretrained)

        numbers_of_row = (float(estimate), low, high, float(than), n)
        self.rows.append((self.lesson, claim, name, *numbers_of_row, verdict))

        comparison = {
            "higher": "higher than",
            "lower": "lower than",
            "about equal": "about equal to",
            "undecided": "undecided against",
        }[verdict]
        sentence = f"{claim} ({name}):"
        numbers = f"{estimate:.2f} [{low:.2f}, {high:.2f}], {comparison} {than:.2f}"
        if len(f"{sentence} {numbers}") <= COLUMNS_OF_TEXT:
            return f"{sentence} {numbers}"
        return f"{textwrap.fill(sentence, COLUMNS_OF_TEXT)}\n    {numbers}"

    @property
    def table(self) -> pd.DataFrame:
        """One row per claim and model.

        Lesson, claim, model, estimate, low, high, than, n, answer.
        """
        return pd.DataFrame(self.rows, columns=COLUMNS)

    def write(self, name: str = "") -> pd.DataFrame:
        """Write the table to `results/MODEL-WEIGHTS/NAME.csv`, and return it in a form to read.

        The name is the lesson's number by default.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        weights = _local_weights(self.model, self.pretrained)
        if weights:
            record = self.folder / "weights.json"
            record.write_text(json.dumps(weights, indent=1))
        file = self.folder / f"{name or self.lesson}.csv"
        self.table.round(4).to_csv(file, index=False)
        return readable(self.table)

    def rows_folder(self, data: str, model: str = "") -> Path | None:
        """Where rows of a user's data are kept, so that a killed lesson goes on.

        None for drawn scenes.
        """
        if not data:
            return None
        folder = self.folder
        if model not in ("", self.model):
            folder = results_folder(model)
        checksum = zlib.crc32(data.encode())  # for data whose names differ in signs alone
        return folder / self.lesson / f"{file_name(data)}-{checksum:08x}"


def mean_and_interval(
    values: ArrayLike,
    clusters: Sequence | None = None,
    than: float = 0.0,
) -> tuple[float, np.ndarray, int]:
    """Mean, 95 % interval and number of the values that are not NaN.

    NaN where there are too few.
    """
    values = np.asarray(values, dtype=float)
    measured = ~np.isnan(values)
    values = values[measured]
    n = len(values)
    cluster_count = n
    if clusters is not None:
        clusters = np.asarray(clusters)[measured]
        cluster_count = len(set(clusters))

    no_interval = np.full(2, np.nan)
    if n == 0:
        return np.nan, no_interval, 0
    mean = float(values.mean())
    if cluster_count < 2:
        return mean, no_interval, n

    # Zeros and ones are answers where a guess scores, and differences where it does not. Ones alone
    # are answers, too: a bootstrap of equal values has no width.
    can_be_answers = np.isin(values, (0, 0.5, 1)).all()
    all_right = (values == 1).all()
    kind = "mean"
    if can_be_answers and (than > 0 or all_right):
        kind = "proportion"
    return mean, mean_interval(values, clusters, kind=kind), n


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A table of claims with two digits, and the interval in one column.

    Claims about the default model stand beside what trainings from other seeds gave.
    """
    lows = table["low"].map("[{:.2f}, ".format)
    highs = table["high"].map("{:.2f}]".format)
    columns = table.drop(columns=["lesson", "low", "high"])
    columns.insert(3, "95 % interval", lows + highs)
    others = other_trainings(table)
    if others.any():
        columns.insert(4, "other seeds", others)
    return columns.round({"estimate": 2, "than": 2})


def other_trainings(table: pd.DataFrame) -> pd.Series:
    """What other trainings gave of each claim about the default model, from lowest to highest.

    "" where no other training was measured.
    """
    estimates = read_claims(data_path(SEEDS)).groupby(["lesson", "claim"])["estimate"]
    spread = estimates.agg(["min", "max"])
    cells = []
    for row in table.itertuples():
        key = (row.lesson, row.claim)
        cell = ""
        if row.model == "emoji" and key in spread.index:
            low, high = spread.loc[key]
            cell = f"{low:.2f} to {high:.2f}"
        cells.append(cell)
    return pd.Series(cells, table.index)


def read_claims(file: Path) -> pd.DataFrame:
    """A table of claims on disk; none, if there is no such file."""
    if not file.exists():
        return pd.DataFrame(columns=COLUMNS)
    return pd.read_csv(file, dtype={"lesson": str})


def result_rows(results: str | Path = COMMITTED) -> pd.DataFrame:
    """The claims of all models of a folder of results: the columns of lessons, one row each.

    Of a claim that several runs measured of one model, the run with most measurements counts.

    Raises:
        GradeclipError: there are no results.
    """
    files = sorted(Path(results).glob("*/*.csv"))
    if not files:
        raise GradeclipError(
            f"{results} has no results: run a lesson first, such as `make lesson NOTEBOOK=06`"
        )
    rows = pd.concat(map(read_claims, files), ignore_index=True)
    largest_first = rows.sort_values("n", ascending=False, kind="stable")
    largest = largest_first.drop_duplicates(["lesson", "claim", "model"])
    return largest.sort_index()


def claim_cells(table: pd.DataFrame) -> dict[tuple[str, str], str]:
    """What a table found of each claim and model, to read: "0.40 [0.30, 0.50], undecided"."""
    cells = {}
    for row in table.itertuples():
        interval = f"{row.estimate:.2f} [{row.low:.2f}, {row.high:.2f}]"
        cells[row.claim, row.model] = f"{interval}, {row.answer}"
    return cells


# ------------------------------------------------------------------------------------------ scenes


def different_things(*seed: int, split: str = "test", **options: Any) -> Iterator[Scene]:
    """Scenes of different things and plain captions, of seeds (*seed, 0), (*seed, 1), ...

    The options are those of `draw_scene`.
    """
    for number in count():
        scene = draw_scene([*seed, number], split=split, plain=True, **options)
        if are_different(scene.objects):
            yield scene


def shown_scenes(n: int, n_objects: int = 2, *, whole: bool = True) -> list[Scene]:
    """The first n test scenes of different things.

    With `whole`, no thing is cut or below an eighth of the side.
    """
    scenes = different_things(n_objects=n_objects, tint=0)
    if whole:
        scenes = (scene for scene in scenes if all(map(_is_whole, scene.objects)))
    return list(islice(scenes, n))


def are_different(things: Sequence[Object]) -> bool:
    """Whether no two things have one noun."""
    return len({thing.noun for thing in things}) == len(things)


def _is_whole(thing: Object) -> bool:
    to_border = min(thing.x, thing.y, CANVAS - thing.x, CANVAS - thing.y)
    return CANVAS / 8 <= thing.size <= 2 * to_border


def prompts_of(scene: Scene) -> list[str]:
    """One prompt per thing of a scene: "a dog", "cheese"."""
    return [phrase(thing.noun) for thing in scene.objects]


def embed_prompts(explainer: Explainer, scenes: Sequence[Scene]) -> Tensor:
    """Unit embeddings (B, T, E) of the prompts of the T things of each scene."""
    prompts: list[str] = []
    for scene in scenes:
        prompts += prompts_of(scene)
    return explainer.embed_texts(prompts).unflatten(0, (len(scenes), -1))


def gallery(explainer: Explainer, scenes: Sequence[Scene]) -> Figure:
    """Scenes two a row: the image, and for each thing the map and similarity of its prompt."""
    explanations = [explainer.explain(scene.image(), prompts_of(scene)) for scene in scenes]
    prompts = [", ".join(explanation.prompts) for explanation in explanations]

    columns = 2
    rows = -(-len(scenes) // columns)
    side = FULL_WIDTH / columns / 3 - 0.1  # inches of a panel, of which a scene has three
    alt = f"Images and maps: {'; '.join(prompts)}"
    figure = new_figure(FULL_WIDTH, rows * (side + 0.3), alt, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.07, wspace=0, hspace=0)
    gap = 0.1  # of a panel, between two scenes
    grid = figure.add_gridspec(rows, 7, width_ratios=[1, 1, 1, gap, 1, 1, 1])

    image_axes = []
    for number, explanation in enumerate(explanations):
        row, column = divmod(number, columns)
        first = 4 * column  # of the scene's panels
        axes = figure.add_subplot(grid[row, first])
        show_image(axes, explanation.image)
        image_axes.append(axes)

        for i, prompt in enumerate(explanation.prompts):
            axes = figure.add_subplot(grid[row, first + 1 + i])
            show_image(axes, paint(explanation.image, explanation.image_maps[i]))
            axes.set_title(
                f"{prompt}  {explanation.similarity[i]:.2f}",
                fontsize=9,
                loc="left",
                pad=3,
            )
    fit_height(figure, [(axes, side) for axes in image_axes[::columns]])
    return figure
