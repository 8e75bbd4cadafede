"""What a lesson claims: one number each, with its interval and its answer.

    record("04", clip, [claim("the list agrees with Shapley values", correlations)])

writes `results/emoji/04.csv`, and shows the claims beside those of other trainings.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from gradeclip_utils.files import data_path
from gradeclip_utils.measures.statistics import interpret_interval, mean_interval
from gradeclip_utils.models import Clip

COMMITTED = Path(__file__).parent.parent / "results"  # of the models that the project knows
MEASURED = ["estimate", "low", "high", "than", "n", "answer"]
COLUMNS = ["lesson", "claim", "model", *MEASURED]
pd.set_option("display.max_colwidth", None)  # tables of lessons show whole sentences


def claim(
    text: str,
    values: ArrayLike | None = None,
    *,
    than: float = 0,
    margin: float = 0,
    clusters: Sequence | None = None,
    estimate: float = np.nan,
    bounds: Sequence[float] = (np.nan, np.nan),
    n: int | None = None,
) -> dict:
    """One claim: the mean of `values`, or an estimate with its bounds, compared with a reference.

    Args:
        text: a short sentence without a full stop, such as "red lies on the red object".
        values: (n,) numbers, of which the mean and its 95 % interval are taken; NaN is left out.
            Answers (zeros and ones) that are compared with a guess are a proportion, with Wilson's
            interval.
        than: the reference, such as .5 for guessing.
        margin: a difference that does not matter, in the unit of the number.
        clusters: one label per value, such as its image; whole clusters are drawn.
        estimate: instead of `values`, a number that is no mean, such as a correlation;
        bounds: its 95 % interval [low, high],
        n: and of how many.
    """
    if values is not None:
        numbers = pd.Series(np.asarray(values, float))
        labels = None
        if clusters is not None:
            labels = np.asarray(clusters)[numbers.notna()]
        numbers = numbers.dropna()
        is_answers = numbers.isin([0, 0.5, 1]).all() and than > 0
        estimate, n = numbers.mean(), len(numbers)
        if len(set(range(n) if labels is None else labels)) > 1:
            bounds = mean_interval(numbers, labels, kind="proportion" if is_answers else "mean")

    low, high = bounds
    answer = "undecided"  # without an interval
    if np.isfinite(bounds).all():
        answer = interpret_interval(low, high, than=than, margin=margin)
    values = (text, estimate, low, high, than, n, answer)
    return dict(zip(("claim", *MEASURED), values, strict=True))


def record(lesson: str, clip: Clip, claims: Sequence[dict]) -> pd.DataFrame:
    """Write the claims to `results/MODEL/LESSON.csv`, and show them.

    Beside those of the default model stand small points, one for each other training of its recipe.
    A claim "differs between trainings" if most others give another answer.
    """
    model = results_name(clip.name, clip.pretrained)
    table = pd.DataFrame(claims).assign(lesson=lesson, model=model)[COLUMNS]
    folder = Path(os.environ.get("GRADECLIP_RESULTS") or COMMITTED) / model
    folder.mkdir(parents=True, exist_ok=True)
    table.round(4).to_csv(folder / f"{lesson}.csv", index=False)

    others = read_claims(data_path("seeds.csv"))
    others = others[(others["lesson"] == lesson) & (model == "emoji")]
    others = others.merge(table[["claim"]].reset_index(names="row"), on="claim")
    plot_claims(table, others)

    answers = table["answer"].copy()
    for row, other in others.groupby("row"):
        if (other["answer"] != answers[row]).mean() > 0.5:
            answers[row] = "differs between trainings"
    interval = "[" + table["low"].map("{:.2f}".format) + ", " + table["high"].map("{:.2f}]".format)
    shown = table[["claim", "estimate", "than", "n"]].round(2)
    shown.insert(2, "95 % interval", interval)
    return shown.assign(answer=answers).set_index("claim")


def plot_claims(table: pd.DataFrame, others: pd.DataFrame) -> None:
    """Draw a row a claim: its interval, its reference, and small points for other trainings."""
    fig, ax = plt.subplots(figsize=(8.1, 0.5 + 0.32 * len(table)), layout="constrained")
    errors = (table["estimate"] - table["low"], table["high"] - table["estimate"])
    ax.errorbar(table["estimate"], table.index, xerr=errors, fmt="o", color="#1b7f79")
    ax.scatter(table["than"], table.index, marker="|", s=150, color="0.3", label="compared with")
    if len(others):
        label = "other trainings"
        ax.scatter(others["estimate"], others["row"] + 0.25, s=9, color="0.5", label=label)
    ax.set_yticks(table.index, table["claim"], fontsize=8)
    ax.invert_yaxis()
    ax.spines[["top", "right", "left"]].set_visible(False)
    fig.legend(loc="outside lower right", ncols=2, frameon=False, fontsize=8)


def results_name(model: str, pretrained: str = "") -> str:
    """The name of a model's results: "emoji", "ViT-B-32-openai", "ViT-B-32-mine"."""
    weights = "" if pretrained in ("bundled", model) else Path(pretrained).stem
    name = "-".join(filter(None, [Path(model).name, weights]))
    return re.sub(r"[^\w.-]+", "_", name)


def read_claims(file: Path) -> pd.DataFrame:
    """A table of claims on disk; none, if there is no such file."""
    if not file.exists():
        return pd.DataFrame(columns=COLUMNS)
    return pd.read_csv(file, dtype={"lesson": str})
