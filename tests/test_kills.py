"""Kills: a command that is killed at random moments, again and again, ends with the result of an undisturbed run.

Every process that is killed is forked from one that has done its imports (`tests.forked`).
"""

import random
import shutil
import time
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest

from gradeclip_utils.__main__ import main
from gradeclip_utils.measures import evaluate
from gradeclip_utils.models import load_clip
from tests.forked import begin
from tests.studies.folders import write_compact, write_noise

pytestmark = pytest.mark.slow

WORDS = ["dog", "cat", "bus", "cow"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_compact(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_noise(tmp_path_factory.mktemp("data"), [f"a {word}" for word in 40 * WORDS])


def last_written(folder: Path) -> int:
    """When something below this folder was written last, in ns; 0 for nothing."""
    times = [0]
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # a file that was about to take its name
            times.append(path.stat().st_mtime_ns)
    return max(times)


def killed_again_and_again(arguments, folder, watched: Path, kills: int, writes: int):
    """Run a command to its end, killed so many times at random moments, each after at most so many writes.

    Opening what is kept is a write. A command that is over before it is killed begins anew.
    """
    moments, times = random.Random(len(arguments)), 0
    while times < kills:
        before, process = last_written(watched), begin(arguments, folder)
        until = time.monotonic() + 240
        for _ in range(moments.randint(1, writes)):
            while (
                last_written(watched) == before and process.is_alive() and time.monotonic() < until
            ):
                time.sleep(0.01)
            before = last_written(watched)
        time.sleep(moments.uniform(0, 0.1))
        if not process.is_alive():
            assert process.exitcode == 0, (folder / "said.txt").read_text()
            for path in watched.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            continue
        process.kill()
        process.join()
        times += 1
    process = begin(arguments, folder)
    process.join()
    assert process.exitcode == 0, (folder / "said.txt").read_text()


def test_an_evaluation_killed_twenty_times_has_the_rows_of_an_undisturbed_one_each_once(
    model, folder, tmp_path
):
    run, data = tmp_path / "run", f"folder:{folder}"
    arguments = ["evaluate", "--data", data, "--out", str(run), "--methods", "grad-eclip", *model]
    killed_again_and_again(arguments, tmp_path, run, kills=20, writes=2)  # of some twenty
    whole = evaluate(load_clip(*model[1::2]), data, "grad-eclip", progress=False)
    found = pd.read_json(run / "rows.jsonl", lines=True)
    keys = ["image", "method"]
    assert not found.duplicated(keys).any()
    measured = [column for column in whole if column != "seconds"]
    found, whole = (one.sort_values(keys, ignore_index=True)[measured] for one in (found, whole))
    pd.testing.assert_frame_equal(found, whole, check_dtype=False)
    assert {file.name for file in run.iterdir()} == {"settings.json", "rows.jsonl", "summary.csv"}


def test_a_report_that_is_killed_gives_the_page_of_one_that_is_not(model, folder, tmp_path):
    given = ["report", "--data", f"folder:{folder}", "--limit", "10", *model]
    assert main([*given, "--out", str(tmp_path / "whole")]) == 0
    killed = tmp_path / "killed"
    killed_again_and_again(
        [*given, "--out", str(killed)], tmp_path, killed, kills=1, writes=10
    )  # of some fifteen
    found, expected = ((place / "rows.jsonl").read_text() for place in (killed, tmp_path / "whole"))
    assert found == expected
    assert len(list((killed / "thumbnails").iterdir())) == 10
    assert (killed / "index.html").read_bytes() == (tmp_path / "whole" / "index.html").read_bytes()
