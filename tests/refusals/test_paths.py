"""Paths: what is none, what cannot be written, and what is kept then."""

import os
from pathlib import Path

import pytest

from gradeclip_utils import Explanation
from gradeclip_utils.checks import readable, writable
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.files import write_whole
from tests.plots.cases import explanation
from tests.refusals.cases import full, named

PATHS = [
    ("none", None, "must be a path, got None"),
    ("a number", 5, "must be a path, got 5"),
    ("bytes", b"x.png", "must be a path"),
    ("empty", "", "an empty one was given"),
    ("NUL", "a\0b", "cannot be used"),
    ("5,000 letters", "x" * 5000, "File name too long"),
    ("nobody's home", "~nobody-at-all/x", "cannot be used"),
]


@pytest.mark.parametrize(("path", "message"), named(PATHS))
def test_what_is_no_path_is_refused_wherever_a_path_is_taken(path, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for take in (
        lambda: readable(path, "a picture"),
        lambda: writable(path, "--out"),
        lambda: Explanation.load(path),
        lambda: explanation("a dog").save(path),
    ):
        with pytest.raises(GradeclipError, match=message):
            take()
    assert list(tmp_path.iterdir()) == []


WRITTEN = [
    ("a folder", ".", {}, "must be a file, and .* is a folder"),
    ("a file", "there.txt", {"folder": True}, "must be a folder, and .* is a file"),
    ("below a file", "there.txt/x", {}, "cannot be written"),
    ("another ending", "x.pt", {"suffixes": (".safetensors",)}, "must end in .safetensors; got"),
    ("a full disk", "x", {"size": 10**18}, "needs about 1,000,000,000,000 MB, and .* has"),
    ("a pipe", "pipe", {}, "is a pipe or a device"),
]


@pytest.mark.parametrize(("path", "options", "message"), named(WRITTEN))
def test_a_place_that_cannot_be_written_is_refused_and_nothing_is_made(
    tmp_path, path, options, message
):
    (tmp_path / "there.txt").write_text("dear")
    os.mkfifo(tmp_path / "pipe")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(GradeclipError, match=message):
        writable(tmp_path / path, "--out", **options)
    assert sorted(tmp_path.iterdir()) == before
    assert (
        writable(tmp_path / "new" / "folders" / "x.png", "--out")
        == tmp_path / "new" / "folders" / "x.png"
    )
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.skipif(
    not Path("/proc").is_dir(), reason="a folder that nobody may write to is needed"
)
def test_a_place_that_is_read_only_is_refused():
    with pytest.raises(GradeclipError, match="x.png cannot be written: "):
        writable("/proc/x.png", "--out")
    with pytest.raises(GradeclipError, match="/proc/x cannot be written: "):
        explanation("a dog").save("/proc/x")


def test_what_cannot_be_written_in_the_end_leaves_what_was_there(tmp_path):
    (tmp_path / "model").write_bytes(b"old")
    with pytest.raises(GradeclipError, match="model could not be written: .*No space left"):
        write_whole({tmp_path / "model": full})
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("model", b"old")]
    (tmp_path / "model.new").write_bytes(b"half")  # of a process that was killed
    write_whole({tmp_path / "model": b"whole"})
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("model", b"whole")]
