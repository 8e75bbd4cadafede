"""Kills of what is no command: a training and an experiment end with the result of an undisturbed run."""

import sys

import pandas as pd
import pytest
import torch

from studies.finetuning import experiment
from tests.test_kills import STEPS, killed_again_and_again

pytestmark = pytest.mark.slow

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
