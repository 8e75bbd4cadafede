"""All lessons on one model, and what was predicted beside what was found.

    predictions()                                   # data/predictions.csv: a row per claim
    predicted_and_found()                           # every model in results/, claim by claim
    hits(predicted_and_found())                     # how many predictions came true, by model
    replicate("ViT-B-16", "openai", "coco:FOLDER")  # the lessons one after the other, and a page

A prediction was written down before the model was measured: "higher", "lower" or "about equal" to
the claim's reference, with the smallest effect that counts. It is

    hit      if the interval and the size of the effect say so
    missed   if the interval excludes every effect that counts (of "about equal", lies beyond it)
    open     otherwise
"""

import json
import platform
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from gradeclip_utils import load_clip
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.files import data_path, version, weights_digest, write_whole

from .choices import KINDS
from .lesson import (
    COMMITTED,
    SECOND,
    claim_cells,
    read_claims,
    result_rows,
    results_folder,
    results_name,
)
from .photographs import split_sources
from .runs import notebook_of, run_lesson, takes

# lesson 08 fine-tunes the bundled model; 10 reads results
LESSONS = ("01", "02", "03", "04", "05", "06", "07", "09")
EXPECTED = ("higher", "lower", "about equal", "not predicted")
LIBRARIES = ("gradeclip", "torch", "open_clip_torch", "transformers", "numpy")
OUTCOMES = ("hit", "missed", "open")
PAGE = "replication.md"
_RECORD = "replication.json"


# ------------------------------------------------------------------------------------- predictions


def predictions() -> pd.DataFrame:
    """What is predicted of real CLIP: lesson, claim, expected, smallest (effect), reason."""
    return pd.read_csv(data_path("predictions.csv"), dtype={"lesson": str})


def outcome(row, expected: str, smallest: float) -> str:
    """Whether a claim, a row with estimate, low, high and than, is a "hit", "missed" or "open".

    >>> row = pd.Series({"estimate": 0.6, "low": 0.55, "high": 0.65, "than": 0.5})
    >>> outcome(row, "higher", 0.05), outcome(row, "lower", 0.05), outcome(row, "higher", 0.2)
    ('hit', 'missed', 'missed')
    """
    effect = np.array([row.low, row.estimate, row.high]) - row.than
    if expected not in EXPECTED[:3] or not np.isfinite(effect).all():
        return "open"

    if expected == "lower":
        effect = -effect[::-1]
    low, estimate, high = effect
    if expected == "about equal":
        is_hit = max(abs(effect)) <= smallest
        is_missed = low > smallest or high < -smallest
    else:
        is_hit = low > 0 and estimate >= smallest
        is_missed = high < smallest
    if is_hit:
        return "hit"
    return "missed" if is_missed else "open"


def predicted_and_found(
    results: str | Path = COMMITTED,
) -> pd.DataFrame:
    """A row per predicted claim and model that was measured.

    Args:
        results: a folder with a folder per model; the lessons' second model has none of its own.

    Returns:
        lesson, claim, expected, smallest, model, found ("0.40 [0.30, 0.50], undecided"), outcome.

    Raises:
        GradeclipError: there are no results.
    """
    rows = result_rows(results)
    models = [SECOND, *[folder.name for folder in Path(results).iterdir()]]
    rows = rows[rows["model"].isin(models)]
    cells = claim_cells(rows)
    table = predictions().merge(rows, on=["lesson", "claim"])
    table = table[table["expected"].isin(EXPECTED[:3])]

    answers = []
    outcomes = []
    for row in table.itertuples():
        answers.append(cells[row.claim, row.model])
        outcomes.append(outcome(row, row.expected, row.smallest))
    table["found"] = answers
    table["outcome"] = outcomes
    columns = ["lesson", "claim", "expected", "smallest", "model", "found", "outcome"]
    return table[columns].reset_index(drop=True)


def hits(table: pd.DataFrame) -> pd.DataFrame:
    """How many predictions were hit, missed and left open: a row per model."""
    counts = pd.crosstab(table["model"], table["outcome"])
    counts = counts.reindex(columns=OUTCOMES, fill_value=0)
    order = list(dict.fromkeys(table["model"]))
    return counts.loc[order].rename_axis(columns=None)


# ----------------------------------------------------------------------------------------- one page


def replicate(model: str, pretrained: str | None, data: str = "", n: int | None = None) -> Path:
    """Run the lessons on a model one after the other, and return the page that sums them up.

    The same call goes on after a kill: lessons that ended are not run again. A lesson that fails is
    named on the page, and the others are run.

    Args:
        model: as `load_clip` takes it.
        pretrained: its weights.
        data: photographs, such as "coco:FOLDER,colorswap:FOLDER"; each lesson takes what it can.
        n: how many scenes or images; each lesson's own number by default.

    Raises:
        GradeclipError: a model that cannot be loaded, or results of other weights.
    """
    digest = weights_digest(load_clip(model, pretrained).model)
    folder = results_folder(model, pretrained)
    record_file = folder / _RECORD
    record: dict = {"weights": digest, "lessons": {}}
    if record_file.exists():
        record = json.loads(record_file.read_text())
        if record["weights"] != digest:
            raise GradeclipError(f"{folder} has results of other weights: rename it")

    for lesson in LESSONS:
        file = notebook_of(lesson)
        table = folder / f"{lesson}.csv"
        run = {
            "data": _data_for(lesson, data),
            "n": n,
            "version": version("gradeclip"),
        }
        earlier = record["lessons"].get(lesson, {})
        is_same = {name: earlier.get(name) for name in run} == run
        if is_same and "seconds" in earlier and table.exists():
            print(f"{file.stem}: done before", file=sys.stderr)
            continue

        start = time.monotonic()
        try:
            run_lesson(lesson, model, pretrained, run["data"], n)
            run["seconds"] = round(time.monotonic() - start)
        except GradeclipError as error:
            print(f"gradeclip: {error}", file=sys.stderr)
            run["failed"] = str(error)
        record["lessons"][lesson] = run
        text = json.dumps(record, indent=1)
        write_whole({record_file: text.encode()})

    page = folder / PAGE
    text = _page(results_name(model, pretrained), folder, record)
    write_whole({page: text.encode()})
    return page


def _data_for(lesson: str, data: str) -> str:
    """The data sets that a lesson can measure."""
    if lesson == "06":
        return data
    with_captions = []
    for source in split_sources(data):
        kind, _, _ = source.partition(":")
        if kind not in KINDS:
            with_captions.append(source)
    if lesson == "07":
        return ",".join(with_captions[:1])
    return ",".join(with_captions) if takes(lesson, "DATA") else ""


def _page(name: str, folder: Path, record: dict) -> str:
    """Claims predicted and found, hours, versions and the hash of the weights, as Markdown."""
    lines = [
        "| lesson | claim | predicted | found | |",
        "| --- | --- | --- | --- | --- |",
    ]
    outcomes = []
    claims = _claims_of(name, folder)
    cells = claim_cells(claims)
    for row in claims.itertuples():
        expected = row.expected
        answer = ""
        if expected in EXPECTED[:3]:
            answer = outcome(row, expected, row.smallest)
            outcomes.append(answer)
            expected = f"{expected} (from {row.smallest:g})"
        cell = cells[row.claim, row.model]
        lines.append(f"| {row.lesson} | {row.claim} | {expected} | {cell} | {answer} |")

    counts = ", ".join(f"{outcomes.count(kind)} {kind}" for kind in OUTCOMES)
    libraries = ", ".join(f"{library} {version(library)}" for library in LIBRARIES)
    head = [
        f"# {name}: predicted and found",
        "",
        f"Of {len(outcomes)} predictions: {counts}. They were written down before this model was "
        "measured (data/predictions.csv).",
        "",
        f"- weights: {record['weights']} (the beginning of the SHA-256 of all tensors)",
        f"- versions: Python {platform.python_version()}, {libraries}",
        f"- hours: {_hours(record)}",
    ]
    for lesson, run in record["lessons"].items():
        if "failed" in run:
            head.append(f"- lesson {lesson} failed: {run['failed']}")
    return "\n".join([*head, "", *lines, ""])


def _claims_of(name: str, folder: Path) -> pd.DataFrame:
    """The claims of the lessons about a model, with what is predicted of each."""
    files = [folder / f"{lesson}.csv" for lesson in LESSONS]
    tables = [read_claims(file) for file in files if file.exists()]
    if not tables:
        return pd.DataFrame(columns=["lesson", "claim", "model"])

    claims = pd.concat(tables)
    claims = claims[claims["model"] == name]
    predicted = predictions().drop(columns="reason")
    claims = claims.merge(predicted, how="left", on=["lesson", "claim"])
    return claims.fillna({"expected": "not predicted"})


def _hours(record: dict) -> str:
    hours = {}
    for lesson, run in record["lessons"].items():
        if "seconds" in run:
            hours[lesson] = run["seconds"] / 3600
    by_lesson = ", ".join(f"{lesson}: {duration:.2f}" for lesson, duration in hours.items())
    total = sum(hours.values())
    return f"{total:.2f} ({by_lesson})"
