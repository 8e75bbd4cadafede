"""The command line: one sentence, exit code 2, and nothing computed before."""

import numpy as np
import pytest

from gradeclip_utils.__main__ import main
from gradeclip_utils.errors import GradeclipError
from tests.refusals.cases import named

COMMANDS = [
    ("fine-tune into a folder", ["fine-tune", "--out", "."], "E-path-suffix"),
    ("fine-tune into nothing", ["fine-tune", "--out", ""], "E-path"),
    ("fine-tune into a .pt", ["fine-tune", "--out", "x.pt"], "--out must end in .safetensors"),
    ("fine-tune into /proc", ["fine-tune", "--out", "/proc/x.safetensors"], "E-path-read-only"),
    ("fine-tune saved never", ["fine-tune", "--out", "x.safetensors", "--save-every", "0"], "--save-every must be at"),
    ("fine-tune with workers below zero", ["fine-tune", "--out", "x.safetensors", "--workers", "-1"], "--workers must"),
    ("fine-tune with a seed below zero", ["fine-tune", "--out", "x.safetensors", "--seed", "-1"], "seed must be at"),
    ("study fine-tuning into a folder", ["study", "fine-tuning", "--table", "."], "E-path"),
    ("study fine-tuning into text", ["study", "fine-tuning", "--table", "x.txt"], "--table must end in .csv"),
    ("study fine-tuning kept in /proc", ["study", "fine-tuning", "--table", "x.csv", "--runs", "/proc/x"], "--runs"),
    ("study fine-tuning of no seeds", ["study", "fine-tuning", "--table", "x.csv", "--seeds", "0"], "--seeds must be"),
    ("distil into /proc", ["distil", "--out", "/proc/x"], "E-path-read-only"),
    ("distil what is none", ["distil", "emoji-vgg"], "each of names must be one of emoji-average"),
    ("card's gallery into a folder", ["card", "--gallery", "."], "E-path-is-folder"),
    ("explain into nothing", ["explain", "--out", ""], "E-path-empty"),
    ("explain a NUL", ["explain", "--out", "a\0.png"], "E-path-unusable"),
]


@pytest.mark.parametrize(("arguments", "message"), named(COMMANDS))
def test_a_command_that_would_fail_in_the_end_is_refused_at_the_start(
    tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gradeclip_utils.models.load_clip", None)  # nothing is loaded before
    if arguments[0] == "fine-tune":
        arguments = [*arguments, "--captions", "no.csv", "--images", "no"]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("gradeclip: ") and error.count("\n") == 1 and message in error and "[E-" in error
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(GradeclipError):
        main(["--debug", *arguments])


def test_a_mistake_inside_a_library_is_a_fault_of_ours_and_shown_as_one(monkeypatch):
    monkeypatch.setattr("gradeclip_utils.models.load_clip", lambda *_, **__: np.zeros(3).reshape(2, 2))
    with pytest.raises(ValueError, match="cannot reshape"):
        main(["explain"])
