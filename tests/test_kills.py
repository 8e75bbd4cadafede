"""Kills: a command that is killed at random moments ends with the result of an undisturbed run.

Every process that is killed is forked from one that has done its imports (`tests.forked`).
"""

import random
import time
from pathlib import Path

import pandas as pd
import pytest

from gradeclip_utils.__main__ import main
from gradeclip_utils.measures import evaluate
from gradeclip_utils.models import load_clip
from tests.forked import begin
from tests.studies.folders import write_compact, write_noise

pytestmark = pytest.mark.slow

CAPTIONS = 40 * ["a dog", "a cat", "a bus", "a cow"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_compact(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_noise(tmp_path_factory.mktemp("data"), CAPTIONS)


def size_of(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def run_with_kills(arguments, folder, rows: Path, kills: int):
    """Run a command to its end, killed so many times at random moments after it wrote rows."""
    moments = random.Random(0)
    for _ in range(kills):
        before = size_of(rows)
        process = begin(arguments, folder)
        while size_of(rows) == before and process.is_alive():
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.1))
        process.kill()
        process.join()
    process = begin(arguments, folder)
    process.join()
    assert process.exitcode == 0, (folder / "said.txt").read_text()


def test_an_evaluation_that_is_killed_has_the_rows_of_an_undisturbed_one_each_once(
    model, folder, tmp_path
):
    run, data = tmp_path / "run", f"folder:{folder}"
    arguments = ["evaluate", "--data", data, "--out", str(run), "--methods", "grad-eclip", *model]
    run_with_kills(arguments, tmp_path, run / "rows.jsonl", kills=8)

    keys = ["image", "method"]
    rows = pd.read_json(run / "rows.jsonl", lines=True)
    assert not rows.duplicated(keys).any()
    expected = evaluate(load_clip(*model[1::2]), data, "grad-eclip")
    columns = list(expected.columns.drop("seconds"))
    rows = rows.sort_values(keys, ignore_index=True)[columns]
    expected = expected.sort_values(keys, ignore_index=True)[columns]
    pd.testing.assert_frame_equal(rows, expected, check_dtype=False)


def test_a_report_that_is_killed_gives_the_page_of_one_that_is_not(model, folder, tmp_path):
    arguments = ["report", "--data", f"folder:{folder}", "--limit", "10", *model]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main([*arguments, "--out", str(whole)]) == 0
    run_with_kills([*arguments, "--out", str(killed)], tmp_path, killed / "rows.jsonl", kills=2)

    for name in ("rows.jsonl", "index.html"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    assert len(list((killed / "thumbnails").iterdir())) == 10
