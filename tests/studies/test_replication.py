"""Predictions beside results, all lessons one after the other, and how much data "open" needs."""

import json
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, binomtest, spearmanr

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


# ------------------------------------------------------------------------------------- predictions


def test_every_claim_that_is_committed_has_one_prediction_or_is_named_as_not_predicted():
    table = predictions()
    assert set(table["expected"]) <= set(EXPECTED)
    assert table["reason"].notna().all()
    is_predicted = table["expected"] != "not predicted"
    assert (table.loc[is_predicted, "smallest"] >= 0).all()

    names = pd.MultiIndex.from_frame(table[["lesson", "claim"]])
    assert names.is_unique
    for file in sorted(COMMITTED.glob("emoji*/*.csv")):
        rows = pd.read_csv(file, dtype={"lesson": str})
        claims = pd.MultiIndex.from_frame(rows[["lesson", "claim"]])
        assert claims.isin(names).all(), file


@pytest.mark.parametrize(
    ("interval", "expected", "smallest", "answer"),
    [
        ((0.1, 0.2, 0.3), "higher", 0.1, "hit"),
        ((0.1, 0.2, 0.3), "higher", 0.25, "open"),  # it may be large enough
        ((0.1, 0.2, 0.3), "higher", 0.4, "missed"),
        ((-0.1, 0.2, 0.5), "higher", 0.1, "open"),
        ((-0.3, -0.2, -0.1), "higher", 0.0, "missed"),
        ((-0.3, -0.2, -0.1), "lower", 0.1, "hit"),
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

    assert set(table["claim"]) == {KNOWN}
    assert set(table["expected"]) == {"higher"}
    outcomes = table.set_index("model")["outcome"]
    assert outcomes.to_dict() == {"good": "hit", "bad": "missed"}
    counts = hits(table)
    assert counts.loc["good"].tolist() == [1, 0, 0]
    assert counts.loc["bad"].tolist() == [0, 1, 0]


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
    data = f"coco:{write_coco(coco)}"
    call = [sys.executable, "-c", script, "all", "--model", model, "--data", data, "--n", "20"]
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
        table = pd.read_csv(record.with_name(f"{lesson}.csv"))
        assert list(table.columns) == COLUMNS
        assert results_name(model) in set(table["model"])
    assert "photographs: a colour word lies on its object" in second.stdout


# ------------------------------------------------------------------------------------------- power


def test_the_power_of_choices_is_that_of_a_binomial_whose_interval_excludes_a_guess():
    """Where the two answers of a pair are alike, a pair is one answer."""
    pairs, right = 60, 0.7
    expected = 0.0
    for count in range(pairs + 1):
        interval = binomtest(count, pairs).proportion_ci(method="wilson")
        if interval.low > 0.5:
            expected += binom.pmf(count, pairs, right)
    power = power_of_choices(pairs, right, agreement=1.0, studies=2000)
    standard_error = np.sqrt(expected * (1 - expected) / 2000)
    assert power == pytest.approx(expected, abs=3 * standard_error)


@pytest.mark.parametrize("reliability", [0.4, 1.0])
def test_the_power_of_a_correlation_is_that_of_studies_tested_one_by_one(reliability):
    rng = np.random.default_rng(7)
    significant = 0
    for _ in range(400):
        truth, scatter, noise = rng.normal(size=(3, 300))
        rating = 0.2 * truth + np.sqrt(0.96) * scatter
        signal = np.sqrt(reliability) * truth
        score = signal + np.sqrt(1 - reliability) * noise
        significant += spearmanr(rating, score).pvalue < 0.05
    power = power_of_correlation(300, 0.2, reliability, studies=2000)
    assert power == pytest.approx(significant / 400, abs=0.08)


def test_without_an_effect_one_study_in_twenty_sees_one():
    power = power_of_correlation(200, 0.0, 0.6, studies=4000)
    assert power == pytest.approx(0.05, abs=0.015)
    power = power_of_choices(200, 0.5, 0.0, studies=1000)
    assert power < 0.025  # one side of two


def test_the_table_of_powers_grows_with_size_and_says_from_where_on_it_is_enough():
    sizes = [50, 200, 800]
    table = power_table(0.3, sizes, studies=200)
    powers = table[sizes].astype(float)
    assert (np.diff(powers) >= -0.1).all()
    for _, row in table.iterrows():
        first_enough = next((n for n in sizes if row[n] >= 0.8), "more")
        assert row.iloc[-1] == first_enough


def test_agreement_of_pairs_and_images_for_a_reliability():
    rng = np.random.default_rng(1)
    first = rng.random(4000) < 0.7
    is_alike = rng.random(4000) < 0.4
    independent = rng.random(4000) < 0.7
    second = np.where(is_alike, first, independent)
    answers = np.concatenate([first, second])
    pairs = np.tile(np.arange(4000), 2)
    agreement = pair_agreement(answers, pairs)
    assert agreement == pytest.approx(0.4, abs=0.05)
    assert pair_agreement([1, 1, 1, 1], ["a", "a", "b", "b"]) == 0
    assert images_needed(0.5, 100, 2 / 3) == 200  # twice the length: Spearman-Brown's own case
