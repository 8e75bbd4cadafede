"""The command line: one sentence, exit code 2, nothing computed, and no input overwritten."""

import os
import re
import shutil

import pytest
from PIL import Image

from gradeclip_utils.__main__ import main

EXPLAIN = ["explain", "--caption", "a dog", "--image"]
REFUSED = [
    pytest.param(["explain", "--image", "photo.png"], "--caption", id="no caption"),
    pytest.param([*EXPLAIN, "photo.png", "--out", "x.tiff"], r"\.png.*\.svg", id="a format"),
    pytest.param([*EXPLAIN, "a/x.png", "b/x.png"], "two images", id="two results of one name"),
    pytest.param([*EXPLAIN, "no.png", "--out", "x.png"], "no.png", id="an image that is not there"),
    pytest.param(["evaluate", "--methods", "grad-clip"], "grad-eclip", id="a method"),
    pytest.param(
        ["report", "--data", "photos", "--captions", "no.csv", "--out", "out"],
        "photos|no.csv",
        id="a table that is not there",
    ),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a photograph under several names, where no model can be loaded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gradeclip_utils.models.load_clip", None)
    Image.effect_noise((40, 40), 60).convert("RGB").save("photo.png")
    shutil.copy("photo.png", "explanation.png")
    os.link("photo.png", "hard.png")
    (tmp_path / "link.png").symlink_to("photo.png")
    return tmp_path


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_a_command_that_would_fail_late_is_refused_at_the_start(folder, capsys, arguments, message):
    before = sorted(folder.rglob("*"))
    assert main(arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("gradeclip: ")
    assert re.search(message, error)
    assert sorted(folder.rglob("*")) == before


OVERWRITING = [
    pytest.param("photo.png", "photo.png", id="the image"),
    pytest.param("photo.png", "link.png", id="a link to it"),
    pytest.param("hard.png", "photo.png", id="a hard link of it"),
    pytest.param("explanation.png", "explanation.png", id="by the default"),
]


@pytest.mark.parametrize(("image", "out"), OVERWRITING)
def test_no_command_writes_over_one_of_its_inputs(folder, capsys, image, out):
    before = (folder / image).read_bytes()
    assert main([*EXPLAIN, image, "--out", out, "--overwrite"]) == 2
    assert "is an input" in capsys.readouterr().err
    assert (folder / image).read_bytes() == before


def test_a_result_that_exists_is_kept_without_overwrite(folder, capsys):
    before = (folder / "explanation.png").read_bytes()
    assert main([*EXPLAIN, "photo.png"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (folder / "explanation.png").read_bytes() == before
