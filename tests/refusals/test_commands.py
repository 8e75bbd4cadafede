"""The command line: one sentence, exit code 2, and nothing computed before."""

import numpy as np
import pytest

from gradeclip_utils.__main__ import main, parser_of
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
    ("fine-tune's state in /proc", ["fine-tune", "--out", "x.safetensors", "--folder", "/proc/x"], "--folder cannot"),
    (
        "fine-tune's state in a file",
        ["fine-tune", "--out", "x.safetensors", "--folder", "/proc/version"],
        "E-path-is-f",
    ),
    ("fine-tune's state nowhere", ["fine-tune", "--out", "x.safetensors", "--folder", ""], "--folder must be a path"),
    (
        "fine-tune by no maps",
        ["fine-tune", "--out", "x.safetensors", "--maps", "gradcam"],
        "maps must be one of grad-e",
    ),
    ("fine-tune by 10^9 pairs", ["fine-tune", "--out", "x.safetensors", "--batch", "1000000000"], "at most 65536"),
    ("train in /proc", ["train", "--folder", "/proc/x"], "cannot be written to /proc/x"),
    ("train in a file", ["train", "--folder", "/proc/version"], "E-path-is-file"),
    ("train nowhere", ["train", "--folder", ""], "E-path-empty"),
    ("train no steps", ["train", "--folder", "x", "--steps", "0"], "steps must be at least 1, got 0"),
    ("train one scene", ["train", "--folder", "x", "--batch", "1"], "batch must be at least 2, got 1"),
    ("train with a seed below zero", ["train", "--folder", "x", "--seed", "-1"], "seed must be at least 0"),
    ("train at no rate", ["train", "--folder", "x", "--learning-rate", "nan"], "learning_rate must be from 0 to 10"),
    ("train with negative patches", ["train", "--folder", "x", "--patches-dropped", "-1"], "patches_dropped must be"),
    ("train's export into /proc", ["train", "--folder", "x", "--export", "/proc/x.safetensors"], "E-path-read-only"),
    ("train's export into a folder", ["train", "--folder", "x", "--export", "."], "--export must end in .safetensors"),
    ("train's export of nothing", ["train", "--folder", "x", "--export", "x.safetensors"], "E-run-missing"),
    ("study fine-tuning of no steps", ["study", "fine-tuning", "--table", "x.csv", "--steps", "0"], "steps must be at"),
    ("study fine-tuning into noise", ["study", "fine-tuning", "--table", "NOISE.csv"], "cannot be read as a table"),
    ("study fine-tuning into captions", ["study", "fine-tuning", "--table", "PAIRS.csv"], "has no column 'arm'"),
    ("study matching into noise", ["study", "matching", "--out", "NOISE.csv"], "cannot be read as a table"),
    ("study fine-tuning into a folder", ["study", "fine-tuning", "--table", "."], "E-path"),
    ("study fine-tuning into text", ["study", "fine-tuning", "--table", "x.txt"], "--table must end in .csv"),
    ("study fine-tuning kept in /proc", ["study", "fine-tuning", "--table", "x.csv", "--runs", "/proc/x"], "--runs"),
    ("study fine-tuning of no seeds", ["study", "fine-tuning", "--table", "x.csv", "--seeds", "0"], "--seeds must be"),
    ("distil into /proc", ["distil", "--out", "/proc/x"], "E-path-read-only"),
    ("distil what is none", ["distil", "emoji-vgg"], "each of names must be one of emoji-average"),
    (
        "distil in no steps",
        ["distil", "--out", "x", "--folder", "x", "--steps", "0"],
        "steps must be at least 1, got 0",
    ),
    ("distil's card where none is", ["distil", "--card", "--out", "."], "There is no card students.md"),
    *(
        (f"a shard of study {name}", ["study", name, "--shard", "0/2"], f"study {name} is short and takes all of its")
        for name in ("two-models", "exposure")
    ),
    (
        "a shard of study binding without a table",
        ["study", "binding", "--shard", "0/2"],
        "--shard needs --out FILE.csv",
    ),
    ("no part of study causal", ["study", "causal", "--part", "slow"], "part must be one of quick, m2ib, rise"),
    ("a part of a whole study", ["study", "words", "--part", "quick"], "study words is measured as a whole"),
    ("two models into /proc", ["study", "two-models", "--out", "/proc/x.csv"], "--out cannot be written to /proc/x"),
    ("two models into text", ["study", "two-models", "--out", "x.txt"], "--out must end in .csv"),
    ("art into /proc", ["art", "--out", "/proc/x.zip"], "--out cannot be written to /proc/x.zip"),
    ("art into a folder", ["art", "--out", "."], "--out must end in .zip"),
    ("convert into /proc", ["convert", "emoji", "--out", "/proc/x"], "--out cannot be written to /proc/x"),
    ("convert into nothing", ["convert", "emoji", "--out", ""], "E-path-empty"),
    ("card's gallery into text", ["card", "--gallery", "x.txt"], "--gallery must end in .png"),
    ("card's gallery into a folder", ["card", "--gallery", "."], "E-path-suffix"),
    ("evaluate into /proc", ["evaluate", "--out", "/proc/x"], "--out cannot be written to /proc/x"),
    ("evaluate into a file", ["evaluate", "--out", "/proc/version"], "E-path-is-file"),
    ("evaluate by no method", ["evaluate", "--methods", "grad-clip"], "'grad-clip' is no method that explains images"),
    ("report into /proc", ["report", "--data", "photographs:all", "--out", "/proc/x"], "--out cannot be written to"),
    ("report by no method", ["report", "--data", "photographs:all", "--out", "x", "--method", "x"], "E-method-unknown"),
    ("report of a name too long", ["report", "--data", "x" * 5000, "--captions", "x.csv", "--out", "x"], "E-opt"),
    ("explain into nothing", ["explain", "--out", ""], "E-path-empty"),
    ("explain no image", ["explain", "--image", "", "--caption", "x"], "E-path-empty"),
    ("explain what is not there", ["explain", "--image", "x.png", "--caption", "x"], "There is no picture file x.png"),
    ("explain an image without a caption", ["explain", "--image", ""], "E-option-caption"),
    ("explain a NUL", ["explain", "--out", "a\0.png"], "E-path-unusable"),
]


@pytest.mark.parametrize(("arguments", "message"), named(COMMANDS))
def test_a_command_that_would_fail_in_the_end_is_refused_at_the_start(
    tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    there = {"NOISE.csv": b"\xec\x00,\xff", "PAIRS.csv": b"image,caption\n"}
    for name in (made := [name for name in there if name in arguments]):
        (tmp_path / name).write_bytes(there[name])
    if arguments[0] == "fine-tune":
        arguments = [*arguments, "--captions", "no.csv", "--images", "no"]
    room = parser_of(arguments).parse_args(arguments).run.__module__  # imported with the real one, for other tests
    for module in ("gradeclip_utils.models", room):
        monkeypatch.setattr(f"{module}.load_clip", None, raising=False)  # nothing is loaded before
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("gradeclip: ") and error.count("\n") == 1 and message in error and "[E-" in error
    assert [path.name for path in tmp_path.iterdir()] == made
    with pytest.raises(GradeclipError):
        main(["--debug", *arguments])


def test_a_mistake_inside_a_library_is_a_fault_of_ours_and_shown_as_one(monkeypatch):
    monkeypatch.setattr("gradeclip_utils.models.load_clip", lambda *_, **__: np.zeros(3).reshape(2, 2))
    with pytest.raises(ValueError, match="cannot reshape"):
        main(["explain"])
