"""Kills: a command that is killed at random moments, again and again, ends with the result of an undisturbed run.

Every process that is killed is forked from one that has done its imports (`tests.forked`). `GRADECLIP_KILLS=20` kills
each command twenty times.
"""

import os
import random
import shutil
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from gradeclip_utils.__main__ import main
from gradeclip_utils.measures import evaluate
from gradeclip_utils.models import load_clip, save_compact
from tests.conftest import TINY_TEXT, TINY_VISION
from tests.forked import begin

pytestmark = pytest.mark.slow

CONFIG = {"embed_dim": 48, "vision_cfg": TINY_VISION, "text_cfg": {**TINY_TEXT, "vocab_size": 49408}}
PREPROCESS = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic", "resize_mode": "shortest", "size": 32}
WORDS = ["dog", "cat", "bus", "cow"]
KILLS = int(os.environ.get("GRADECLIP_KILLS", 2))  # of each command, to be quick
STEPS = 12 + 8 * KILLS  # of a tuning, so that it is not over before


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The arguments that load a small model of random weights."""
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        clip = open_clip.CLIP(**CONFIG)
    save_compact(clip, path, words=["a", *WORDS], metadata={}, config={**CONFIG, "preprocess": PREPROCESS})
    return ["--model", "emoji", "--pretrained", str(path)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """40 images of noise, each with a box that is the object."""
    found, rng, lines = tmp_path_factory.mktemp("data"), np.random.default_rng(0), ["image,caption"]
    for kind in ("images", "masks"):
        (found / kind).mkdir()
    for i in range(40):
        mask = np.zeros((32, 32), np.uint8)
        top, left = rng.integers(0, 16, 2)
        mask[top : top + 12, left : left + 12] = 255
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(found / f"images/{i}.png")
        Image.fromarray(mask).save(found / f"masks/{i}.png")
        lines.append(f"{i}.png,a {WORDS[i % 4]}")
    (found / "captions.csv").write_text("\n".join(lines))
    return found


def last_written(folder: Path) -> int:
    """When something below this folder was written last, in ns; 0 for nothing."""
    times = [0]
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # a file that was about to take its name
            times.append(path.stat().st_mtime_ns)
    return max(times)


def killed_again_and_again(arguments, folder, watched: Path, writes: int = 1):
    """Run a command to its end, killed at random moments after it has written something; how often it was.

    At the latest after so many `writes`, of which opening what is kept is one or two. Where it was over before, it
    begins anew.
    """
    moments, times = random.Random(len(arguments)), 0
    for _ in range(3 * KILLS):
        if times == KILLS:
            break
        before, process = last_written(watched), begin(arguments, folder)
        until = time.monotonic() + 240
        for _ in range(moments.randint(1, writes)):
            while last_written(watched) == before and process.is_alive() and time.monotonic() < until:
                time.sleep(0.01)
            before = last_written(watched)
        time.sleep(moments.uniform(0, 0.5))
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
    return times


def test_an_evaluation_that_is_killed_gives_the_rows_of_one_that_is_not_and_measures_nothing_twice(
    model, folder, tmp_path
):
    run, data = tmp_path / "run", f"folder:{folder}"
    arguments = ["evaluate", "--data", data, "--out", str(run), "--methods", "grad-eclip", *model]
    assert killed_again_and_again(arguments, tmp_path, run, writes=5) > 0
    whole = evaluate(load_clip(*model[1::2]), data, "grad-eclip", progress=False)
    found = pd.read_json(run / "rows.jsonl", lines=True)
    keys = ["image", "method"]
    assert not found.duplicated(keys).any()
    measured = [column for column in whole if column != "seconds"]
    found, whole = (one.sort_values(keys, ignore_index=True)[measured] for one in (found, whole))
    pd.testing.assert_frame_equal(found, whole, check_dtype=False)
    assert {file.name for file in run.iterdir()} == {"settings.json", "rows.jsonl", "summary.csv"}


def test_a_tuning_that_is_killed_gives_the_weights_of_one_that_is_not(model, folder, tmp_path):
    given = ["fine-tune", "--captions", str(folder / "captions.csv"), "--images", str(folder / "images"), *model]
    given += ["--steps", str(STEPS), "--batch", "4", "--save-every", "1", "--precision", "fp32", "--regions", "0"]
    whole, tuned = tmp_path / "whole.safetensors", tmp_path / "killed" / "tuned.safetensors"
    tuned.parent.mkdir()
    assert main([*given, "--out", str(whole)]) == 0
    assert not whole.with_suffix(".state").exists()  # the state goes when the model is written
    assert killed_again_and_again([*given, "--out", str(tuned)], tmp_path, tuned.parent) > 0
    expected, found = load_file(whole), load_file(tuned)
    assert expected.keys() == found.keys() and all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_report_that_is_killed_gives_the_page_of_one_that_is_not(model, folder, tmp_path):
    given = ["report", "--data", f"folder:{folder}", "--limit", "10", *model]
    assert main([*given, "--out", str(tmp_path / "whole")]) == 0
    killed = tmp_path / "killed"
    assert killed_again_and_again([*given, "--out", str(killed)], tmp_path, killed, writes=10) > 0  # of some fifteen
    found, expected = ((place / "rows.jsonl").read_text() for place in (killed, tmp_path / "whole"))
    assert found == expected
    assert len(list((killed / "thumbnails").iterdir())) == 10
    assert (killed / "index.html").read_bytes() == (tmp_path / "whole" / "index.html").read_bytes()


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="processes are looked up in /proc")
def test_workers_end_with_the_evaluation_that_began_them_and_leave_no_file(model, folder, tmp_path):
    arguments = ["evaluate", "--data", f"folder:{folder}", "--out", str(tmp_path / "run"), *model]
    put_aside = tmp_path / "aside"
    put_aside.mkdir()
    process = begin([*arguments, "--jobs", "2", "--methods", "grad-eclip,rise"], put_aside, LOKY_MAX_CPU_COUNT="2")
    until = time.monotonic() + 240
    while len(children := workers_of(process.pid)) < 2 and process.is_alive() and time.monotonic() < until:
        time.sleep(0.1)
    rows = tmp_path / "run" / "rows.jsonl"
    while not (rows.is_file() and rows.stat().st_size) and process.is_alive() and time.monotonic() < until:
        time.sleep(0.1)  # until the first rows are there: the workers are at work
    process.kill()
    process.join()
    until = time.monotonic() + 60
    while any(map(alive, children)) and time.monotonic() < until:
        time.sleep(0.1)
    assert len(children) >= 2 and not any(map(alive, children))
    assert not [file.name for file in put_aside.iterdir() if file.name.startswith(("gradeclip", "tmp"))]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def workers_of(parent: int) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split() if folder.name.isdigit() else []
            if fields and int(fields[1]) == parent and "loky" in (folder / "cmdline").read_text():
                found.append(int(folder.name))
        except OSError:  # it ended meanwhile
            continue
    return found
