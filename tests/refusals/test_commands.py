"""The command line: one sentence, exit code 2, nothing computed before, nothing lost."""

import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gradeclip_utils.__main__ import _COMMANDS, main
from gradeclip_utils.errors import GradeclipError
from tests.refusals.cases import named

REFUSED = [
    ("evaluate into /proc", ["evaluate", "--out", "/proc/x"], "--out /proc/x cannot be written"),
    (
        "evaluate into a file",
        ["evaluate", "--out", "/proc/version"],
        "must be a folder, and /proc/version is a file",
    ),
    (
        "evaluate by no method",
        ["evaluate", "--methods", "grad-clip"],
        "'grad-clip' is not a method that explains",
    ),
    (
        "report into /proc",
        ["report", "--data", "photographs:all", "--out", "/proc/x"],
        "cannot be written: ",
    ),
    (
        "report of a long name",
        ["report", "--data", "x" * 5000, "--captions", "x", "--out", "x"],
        "there is no folder",
    ),
    ("explain into nothing", ["explain", "--out", ""], "an empty one was given"),
    ("explain no image", ["explain", "--image", "", "--caption", "x"], "empty"),
    ("explain what is not there", ["explain", "--image", "x.png", "--caption", "x"], "x.png"),
    (
        "explain an image without a caption",
        ["explain", "--image", "x.png"],
        "--image needs a --caption",
    ),
    ("explain into a tiff", ["explain", "--out", "x.tiff"], "must end in .png or .svg or .pdf"),
    (
        "explain two of a name",
        ["explain", "--image", "a.png", "b/a.png", "--caption", "x"],
        "two images would be",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), named(REFUSED))
def test_a_command_that_would_fail_late_is_refused_at_the_start(
    tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    room = import_module(_COMMANDS[arguments[0]].module, "gradeclip_utils")
    for module in ("gradeclip_utils.models", room.__name__):
        monkeypatch.setattr(f"{module}.load_clip", None, raising=False)  # nothing is loaded before
    assert main(arguments) == 2
    loading, error = capsys.readouterr().err.splitlines()
    assert (
        loading == f"gradeclip {arguments[0]}: loading"
        and error.startswith("gradeclip: ")
        and message in error
    )
    assert not list(tmp_path.iterdir())
    with pytest.raises(GradeclipError):
        main(["--debug", *arguments])


def test_a_mistake_inside_a_library_is_a_fault_of_gradeclip_and_shown_as_one(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "gradeclip_utils.models.load_clip", lambda *_, **__: np.zeros(3).reshape(2, 2)
    )
    with pytest.raises(ValueError, match="cannot reshape"):
        main(["explain"])


@pytest.fixture
def here(tmp_path, monkeypatch, tiny):
    """A folder with a photo under four names, weights, and what already exists; no model is loaded from a file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gradeclip_utils.models.load_clip", lambda *_, **__: tiny)
    Image.effect_noise((40, 40), 60).convert("RGB").save("photo.png")
    shutil.copy("photo.png", "explanation.png")
    Path("clip").mkdir()
    Path("clip/open_clip_model.safetensors").write_bytes(b"precious")
    Path("link.png").symlink_to("photo.png")
    os.link("photo.png", "hard.png")
    for name in ("mine.safetensors", "captions.csv"):
        Path(name).write_bytes(b"precious")
    return tmp_path


EXPLAIN = ["explain", "--caption", "a dog", "--image"]
LOST = [
    ("its image", [*EXPLAIN, "photo.png", "--out", "photo.png"]),
    ("its image by another path", [*EXPLAIN, "photo.png", "--out", "./x/../photo.png"]),
    ("its image by a link", [*EXPLAIN, "photo.png", "--out", "link.png"]),
    ("its image by a hard link", [*EXPLAIN, "hard.png", "--out", "photo.png"]),
    ("its image by the default --out", [*EXPLAIN, "explanation.png"]),
]


@pytest.mark.parametrize(("arguments",), named(LOST))
def test_no_command_writes_over_one_of_its_inputs(here, capsys, arguments):
    """Fails on the version before: the photo became a figure."""
    (here / "x").mkdir()
    before = {file: file.read_bytes() for file in here.rglob("*.*") if file.is_file()}
    for more in ([], ["--overwrite"]):
        assert main([*arguments, *more]) == 2
        assert "is an input of this command: choose another file" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in here.rglob("*.*") if file.is_file()} == before


def test_one_rule_says_what_is_overwritten_and_help_says_it(here, capsys):
    photo = Path("explanation.png").read_bytes()
    assert main([*EXPLAIN, "photo.png"]) == 2
    assert (
        "--out explanation.png exists: choose another file, or add --overwrite"
        in capsys.readouterr().err
    )
    assert Path("explanation.png").read_bytes() == photo
    assert main([*EXPLAIN, "photo.png", "--overwrite"]) == 0
    assert Path("explanation.png").read_bytes() != photo
    for arguments in (["--help"], *([name, "--help"] for name in _COMMANDS)):
        with pytest.raises(SystemExit):
            main(arguments)
        said = " ".join(capsys.readouterr().out.split())
        assert (
            "No command writes over one of its inputs, nor over a result that exists, unless you add --over"
            in said
        )


class Broken:
    """A standard output that takes nothing."""

    def __init__(self, error):
        self.error, self.written = error, ""

    def write(self, text):
        self.written += text

    def flush(self):
        if self.written:
            raise self.error


@pytest.mark.parametrize(
    ("error", "code"), [(BrokenPipeError(), 0), (OSError(28, "No space left on device"), 2)]
)
def test_figures_are_written_whatever_standard_output_takes(here, monkeypatch, capsys, error, code):
    closed = []
    monkeypatch.setattr("os.dup2", lambda _, number: closed.append(number))
    monkeypatch.setattr(sys, "stdout", Broken(error))
    assert main([*EXPLAIN, "photo.png", "hard.png", "--out", "b.png"]) == code
    assert Path("b-photo.png").is_file() and Path("b-hard.png").is_file() and closed == [1]
    said = capsys.readouterr().err.splitlines()[-1]
    assert ("could not be printed: [Errno 28] No space left on device" in said) == (code == 2)


def test_a_terminal_that_is_gone_stops_no_command(here, monkeypatch, capsys):
    monkeypatch.setattr("os.dup2", lambda *given: None)
    monkeypatch.setattr(sys, "stderr", Broken(BrokenPipeError()))
    assert main([*EXPLAIN, "photo.png", "--out", "b.png"]) == 0
    assert Path("b.png").is_file() and "figure: b.png" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["explain"], ["report", "--data", "photographs:all", "--out", "/tmp/x"]]
)
def test_a_folder_that_was_deleted_is_one_sentence(tmp_path, monkeypatch, capsys, arguments):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(arguments) == 2
    _, error = capsys.readouterr().err.splitlines()
    assert error == "gradeclip: the folder that this runs in was deleted: go to another one"


@pytest.mark.slow
def test_a_terminal_of_ascii_and_a_locale_of_c_lose_nothing(tmp_path):
    Image.effect_noise((40, 40), 60).convert("RGB").save(tmp_path / "a.png")
    ascii_only = {
        "PYTHONIOENCODING": "ascii",
        "PYTHONUTF8": "0",
        "LC_ALL": "C",
        "PYTHONCOERCECLOCALE": "0",
    }
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parent.parent.parent),
    } | ascii_only
    command = [
        sys.executable,
        "-m",
        "gradeclip_utils",
        "explain",
        "--image",
        "a.png",
        "--caption",
        "ein schöner 🐶",
    ]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert (tmp_path / "explanation.png").is_file() and "Traceback" not in found.stderr, (
        found.stderr
    )
    assert r"sch\xf6ner \U0001f436" in found.stdout


def test_a_caption_that_is_no_text_names_the_locale(here, capsys, monkeypatch):
    monkeypatch.setenv("LC_ALL", "C")
    with pytest.raises(SystemExit):
        main(["explain", "--caption", b"Gr\xf6\xdfe".decode("utf-8", "surrogateescape")])
    assert "a caption is not UTF-8 (the locale is C)" in capsys.readouterr().err


def test_a_command_says_something_before_it_imports_anything(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)

    def stopped(*given):
        assert capsys.readouterr().err == "gradeclip report: loading\n"
        raise KeyboardInterrupt

    monkeypatch.setattr("gradeclip_utils.__main__.import_module", stopped)
    assert (
        main(["report", "--data", "x", "--out", "y"]) == 130
    )  # and is stopped without a traceback
    assert capsys.readouterr().err.startswith("gradeclip: stopped.")


def test_memory_that_is_not_there_is_one_sentence(here, monkeypatch, capsys):
    def full(*given, **named):
        raise MemoryError("Unable to allocate 7.28 TiB")

    monkeypatch.setattr("gradeclip_utils.models.load_clip", full)
    assert main(["explain", "--out", "x.png"]) == 2
    assert "gradeclip: there is not enough memory" in capsys.readouterr().err
