"""Kills: what is killed at a random moment, again and again, ends with exactly what an undisturbed run gives.

Every process that is killed is forked from one that has done its imports (`tests.forked`).
"""

import os
import random
import shutil
import sys
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
from gradeclip_utils.measures.evaluation import evaluate
from gradeclip_utils.models import load_clip, save_compact
from studies.finetuning import experiment
from tests.conftest import TINY_TEXT, TINY_VISION
from tests.forked import begin

pytestmark = pytest.mark.slow

CONFIG = {"embed_dim": 48, "vision_cfg": TINY_VISION, "text_cfg": {**TINY_TEXT, "vocab_size": 49408}}
PREPROCESS = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic", "resize_mode": "shortest", "size": 32}
WORDS = ["dog", "cat", "bus", "cow"]
KILLS = int(os.environ.get("GRADECLIP_KILLS", 1))  # of each command, to be quick; 20 try more
STEPS = 12 + 8 * KILLS  # of a training, so that it is not over before


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
    """24 images of noise, each with a box that is the object."""
    found, rng, lines = tmp_path_factory.mktemp("data"), np.random.default_rng(0), ["image,caption"]
    for kind in ("images", "masks"):
        (found / kind).mkdir()
    for i in range(24):
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


def test_an_evaluation_that_is_killed_gives_the_rows_of_one_that_is_not(model, folder, tmp_path):
    run, data = tmp_path / "run", f"folder:{folder}"
    arguments = ["evaluate", "--data", data, "--out", str(run), "--methods", "grad-eclip", "--chunk", "1", *model]
    assert killed_again_and_again(arguments, tmp_path, run) > 0
    whole = evaluate(load_clip(*model[1::2]), data, "grad-eclip", chunk=1, progress=False)
    found = pd.read_parquet(run / "rows.parquet")
    measured = [column for column in whole if column != "seconds"]
    pd.testing.assert_frame_equal(found[measured], whole[measured])
    assert {file.name for file in run.iterdir()} == {"settings.json", "chunks", "rows.parquet", "running.sqlite"}


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
    found, expected = (pd.read_parquet(place / "rows.parquet") for place in (killed, tmp_path / "whole"))
    pd.testing.assert_frame_equal(found, expected)
    assert not [name for name in found["thumbnail"] if not (killed / name).is_file()]
    assert (killed / "index.html").read_bytes() == (tmp_path / "whole" / "index.html").read_bytes()


# Both commands keep a state less often, and take longer for a step, than is good for a test.
TRAIN = """
import pathlib, sys
from training.rounds import Recipe
from training.scratch import train
train(pathlib.Path(sys.argv[1]), Recipe(steps=int(sys.argv[2]), batch=4, warmup=2), save_every=1, workers=0)
"""
STUDY = """
import pathlib, sys
from dataclasses import replace
import pandas as pd
from gradeclip_utils import Explainer
from studies.finetuning import experiment
from gradeclip_utils.finetune.run import Tuning

def measure(clip, amount, only=()):  # a minute less than all figures, and as much of the weights
    number = float(Explainer(clip).embed_texts("a red dog")[0, 0])
    return pd.DataFrame([("embedding", number, number, number, 1, 0.0)], columns=["figure", *COLUMNS])

COLUMNS = ["estimate", "low", "high", "n", "chance"]
experiment.measure, folder = measure, pathlib.Path(sys.argv[1])
recipe = Tuning(steps=int(sys.argv[2]), batch=4, learning_rate=1e-3, warmup=1, precision="fp32")
recipes = {"before": recipe, "global loss only": replace(recipe, regions=0.0), "grad-eclip": recipe}
experiment.run(folder / "table.csv", folder / "runs", recipes, range(2))
"""


@pytest.fixture
def run(monkeypatch):
    """Runs code here, undisturbed, with the arguments that a process would be given."""

    def whole(code, *arguments):
        monkeypatch.setattr(sys, "argv", ["-c", *arguments])
        exec(code, {})

    monkeypatch.setattr(experiment, "measure", experiment.measure)  # which one of them replaces
    return whole


def test_a_training_that_is_killed_gives_the_weights_of_one_that_is_not(run, tmp_path):
    killed = ["-c", TRAIN, str(tmp_path / "killed"), str(STEPS)]
    assert killed_again_and_again(killed, tmp_path, tmp_path / "killed") > 0
    run(TRAIN, str(tmp_path / "whole"), str(STEPS))
    found, expected = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("killed", "whole"))
    assert found["step"] == expected["step"] and found["model"].keys() == expected["model"].keys()
    assert all(torch.equal(found["model"][name], weight) for name, weight in expected["model"].items())


def test_a_study_that_is_killed_gives_the_rows_of_one_that_is_not(run, tmp_path):
    killed = ["-c", STUDY, str(tmp_path / "killed"), str(STEPS // 4)]
    assert killed_again_and_again(killed, tmp_path, tmp_path / "killed") > 0
    run(STUDY, str(tmp_path / "whole"), str(STEPS // 4))
    found, expected = (pd.read_csv(tmp_path / name / "table.csv") for name in ("killed", "whole"))
    found, expected = (one.drop(columns="cpu_minutes") for one in (found, expected))
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    assert found["estimate"].nunique() == len(found) == 5  # every arm and seed is another model
    assert not list(tmp_path.rglob("*.new"))


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="processes are looked up in /proc")
def test_workers_go_with_the_evaluation_that_began_them_and_take_along_what_it_put_aside(model, folder, tmp_path):
    arguments = ["evaluate", "--data", f"folder:{folder}", "--out", str(tmp_path / "run"), "--chunk", "1", *model]
    put_aside = tmp_path / "aside"
    put_aside.mkdir()
    process = begin([*arguments, "--jobs", "2", "--methods", "grad-eclip,rise"], put_aside, LOKY_MAX_CPU_COUNT="2")
    until = time.monotonic() + 240
    while len(children := workers_of(process.pid)) < 2 and process.is_alive() and time.monotonic() < until:
        time.sleep(0.1)
    while not any(tmp_path.glob("run/chunks/*.json")) and process.is_alive() and time.monotonic() < until:
        time.sleep(0.1)  # until the first chunk is there: the workers are at work
    process.kill()
    process.join()
    until = time.monotonic() + 60
    while any(map(alive, children)) and time.monotonic() < until:
        time.sleep(0.1)
    assert len(children) >= 2 and not any(map(alive, children))
    assert list(put_aside.glob("gradeclip-*")) == []


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
