"""Predictions beside results, all lessons one after the other, and how much data "open" needs."""

import json
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, spearmanr

import studies.lesson
import studies.replication
from gradeclip_utils import load_clip
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.files import version, weights_digest
from studies.__main__ import main
from studies.lesson import COLUMNS, COMMITTED, Claims, results_name
from studies.power import (
    images_needed,
    pair_agreement,
    power_of_choices,
    power_of_correlation,
    power_table,
)
from studies.replication import EXPECTED, hits, outcome, predicted_and_found, predictions

from .folders import write_coco, write_open_clip, write_transformers

KNOWN = "a thing that is there beats one that is not"


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(studies.lesson, "RESULTS", tmp_path / "results")
    monkeypatch.setenv("GRADECLIP_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results"


# ------------------------------------------------------------------------------------- predictions


def test_every_claim_that_is_committed_has_one_prediction_or_is_named_as_not_predicted():
    table = predictions()
    assert set(table["expected"]) <= set(EXPECTED)
    assert not table.duplicated(["lesson", "claim"]).any()
    assert table["reason"].notna().all()
    is_predicted = table["expected"] != "not predicted"
    assert (table.loc[is_predicted, "smallest"] >= 0).all()

    named = set(zip(table["lesson"], table["claim"], strict=True))
    for file in sorted(COMMITTED.glob("emoji*/*.csv")):
        rows = pd.read_csv(file, dtype={"lesson": str})
        assert set(zip(rows["lesson"], rows["claim"], strict=True)) <= named, file


@pytest.mark.parametrize(
    ("interval", "expected", "smallest", "answer"),
    [
        ((0.1, 0.2, 0.3), "higher", 0.1, "hit"),
        ((0.1, 0.2, 0.3), "higher", 0.25, "open"),  # it may be large enough
        ((0.1, 0.2, 0.3), "higher", 0.4, "missed"),
        ((-0.1, 0.2, 0.5), "higher", 0.1, "open"),
        ((-0.3, -0.2, -0.1), "higher", 0.0, "missed"),
        ((-0.3, -0.2, -0.1), "lower", 0.1, "hit"),
        ((0.1, 0.2, 0.3), "lower", 0.0, "missed"),
        ((-0.02, 0.0, 0.02), "about equal", 0.05, "hit"),
        ((-0.02, 0.0, 0.12), "about equal", 0.05, "open"),
        ((0.1, 0.2, 0.3), "about equal", 0.05, "missed"),
        ((np.nan, 0.2, np.nan), "higher", 0.1, "open"),
    ],
)
def test_a_prediction_is_hit_missed_or_open(interval, expected, smallest, answer):
    low, estimate, high = np.array(interval) + 0.5
    row = pd.Series({"low": low, "estimate": estimate, "high": high, "than": 0.5})
    assert outcome(row, expected, smallest) == answer


def test_predictions_stand_beside_what_each_model_was_found_to_do_and_hits_are_counted(results):
    for model, estimate in (("good", 0.9), ("bad", 0.1)):
        claims = Claims("01", model)
        bounds = (estimate - 0.05, estimate + 0.05)
        claims.add(KNOWN, estimate=estimate, bounds=bounds, than=0.5, n=9)
        claims.add("nobody predicted this", estimate=estimate, bounds=bounds, n=9)
        claims.write()

    table = predicted_and_found(results)

    assert table["claim"].tolist() == [KNOWN, KNOWN]
    assert dict(zip(table["model"], table["outcome"], strict=True)) == {
        "good": "hit",
        "bad": "missed",
    }
    assert set(table["expected"]) == {"higher"}
    assert hits(table).loc["good"].tolist() == [1, 0, 0]
    assert hits(predicted_and_found(results, ["bad"])).loc["bad"].tolist() == [0, 1, 0]


# ------------------------------------------------------------------------- one lesson after another


def test_all_lessons_run_on_what_they_can_measure_and_go_on_where_they_stopped(
    results, monkeypatch, capsys
):
    calls = []

    def run_lesson(lesson, model, pretrained, data, n):
        calls.append((lesson, data))
        if lesson == stop:
            raise KeyboardInterrupt
        if lesson == "03":
            raise GradeclipError("a cell of 03 failed")
        claims = Claims(lesson, model, pretrained)
        claims.add(KNOWN, estimate=0.9, bounds=(0.8, 1), than=0.5, n=9)
        claims.write()

    monkeypatch.setattr(studies.replication, "run_lesson", run_lesson)
    monkeypatch.setattr(studies.replication, "LESSONS", ("01", "03", "05", "06", "07"))
    arguments = ["all", "--model", "emoji", "--data", "coco:A,colorswap:B"]

    stop = "05"
    with pytest.raises(KeyboardInterrupt):
        main(arguments)
    stop = None
    assert main(arguments) == 0

    both = "coco:A,colorswap:B"
    first = [("01", ""), ("03", ""), ("05", "coco:A")]
    assert calls == [*first, *first[1:], ("06", both), ("07", "coco:A")]
    page = (results / "emoji" / "replication.md").read_text()
    assert page in capsys.readouterr().out
    assert "Of 1 predictions: 1 hit, 0 missed, 0 open." in page
    assert f"| 01 | {KNOWN} | higher (from " in page
    assert "lesson 03 failed: a cell of 03 failed" in page
    assert weights_digest(load_clip().model) in page
    assert f"gradeclip {version('gradeclip')}" in page

    calls.clear()
    main(["all", "--model", "emoji"])  # other data: these lessons are measured again
    assert [lesson for lesson, _ in calls] == ["03", "05", "06", "07"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "write", [write_transformers, pytest.param(write_open_clip, marks=pytest.mark.weekly)]
)
def test_a_replication_that_is_killed_goes_on_with_the_lesson_it_was_at(write, results, tmp_path):
    """Random weights as transformers and open_clip save them, and a small COCO."""
    folder = tmp_path / "model"
    folder.mkdir()
    model = str(write(folder))
    coco = tmp_path / "coco"
    coco.mkdir()
    script = (
        "import sys, studies.replication, studies.__main__ as command\n"
        "studies.replication.LESSONS = ('01', '06')\n"
        "sys.exit(command.main(sys.argv[1:]))\n"
    )
    arguments = ["all", "--model", model, "--data", f"coco:{write_coco(coco)}", "--n", "20"]
    call = [sys.executable, "-c", script, *arguments]
    record = results / results_name(model) / "replication.json"

    first = subprocess.Popen(call)
    while not record.exists():
        assert first.poll() is None
        time.sleep(0.2)
    first.kill()
    first.wait()
    seconds = json.loads(record.read_text())["lessons"]["01"]["seconds"]
    second = subprocess.run(call, capture_output=True, text=True)

    assert second.returncode == 0, second.stderr
    assert "01_start_here: done before" in second.stderr
    lessons = json.loads(record.read_text())["lessons"]
    assert list(lessons) == ["01", "06"]
    assert lessons["01"]["seconds"] == seconds
    for lesson in lessons:
        table = pd.read_csv(record.parent / f"{lesson}.csv", dtype={"lesson": str})
        assert list(table.columns) == COLUMNS
        assert results_name(model) in set(table["model"])
    assert "photographs: a colour word lies on its object" in second.stdout


# ------------------------------------------------------------------------------------------- power


def test_the_power_of_choices_is_that_of_a_binomial_whose_interval_excludes_a_guess():
    """Where the two answers of a pair are alike, a pair is one answer."""
    pairs, right = 60, 0.7
    p = np.arange(pairs + 1) / pairs
    z = 1.959964
    middle = (p + z**2 / (2 * pairs)) / (1 + z**2 / pairs)
    half = z / (1 + z**2 / pairs) * np.sqrt(p * (1 - p) / pairs + z**2 / (4 * pairs**2))
    expected = binom.pmf(np.arange(pairs + 1), pairs, right)[middle - half > 0.5].sum()
    power = power_of_choices(pairs, right, agreement=1.0, studies=2000)
    assert power == pytest.approx(expected, abs=3 * np.sqrt(expected * (1 - expected) / 2000))


@pytest.mark.parametrize("reliability", [0.4, 1.0])
def test_the_power_of_a_correlation_is_that_of_studies_tested_one_by_one(reliability):
    rng = np.random.default_rng(7)
    seen = []
    for _ in range(400):
        truth, rest, noise = rng.normal(size=(3, 300))
        rating = 0.2 * truth + np.sqrt(0.96) * rest
        score = np.sqrt(reliability) * truth + np.sqrt(1 - reliability) * noise
        seen.append(spearmanr(rating, score).pvalue < 0.05)
    power = power_of_correlation(300, 0.2, reliability, studies=2000)
    assert power == pytest.approx(np.mean(seen), abs=0.08)


def test_without_an_effect_one_study_in_twenty_sees_one():
    assert power_of_correlation(200, 0.0, 0.6, studies=4000) == pytest.approx(0.05, abs=0.015)
    assert power_of_choices(200, 0.5, 0.0, studies=1000) < 0.025  # one side of two


def test_the_table_of_powers_grows_with_size_and_says_from_where_on_it_is_enough():
    table = power_table(0.3, [50, 200, 800], studies=200)
    powers = table[[50, 200, 800]].to_numpy(dtype=float)
    assert (np.diff(powers, axis=1) >= -0.1).all()
    for powers_of_effect, needed in zip(powers, table.iloc[:, -1], strict=True):
        enough = [
            n for n, power in zip([50, 200, 800], powers_of_effect, strict=True) if power >= 0.8
        ]
        assert needed == (enough[0] if enough else "more")


def test_agreement_of_pairs_and_images_for_a_reliability():
    rng = np.random.default_rng(1)
    first = rng.random(4000) < 0.7
    second = np.where(rng.random(4000) < 0.4, first, rng.random(4000) < 0.7)
    pairs = [*range(4000), *range(4000)]
    assert pair_agreement([*first, *second], pairs) == pytest.approx(0.4, abs=0.05)
    assert pair_agreement([1, 1, 1, 1], ["a", "a", "b", "b"]) == 0
    assert images_needed(0.5, 100, 2 / 3) == 200  # twice the length: Spearman-Brown's own case
