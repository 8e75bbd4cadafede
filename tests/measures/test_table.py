"""A table of rows: what a kill leaves, what is refused, and two processes on one folder."""

import json

import numpy as np
import pytest

from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.files import locked
from gradeclip_utils.measures.table import Table
from tests.refusals.cases import named

ROWS, SETTINGS = "rows.jsonl", "settings.json"
KEYS = ("image", "method")


def opened(folder, settings=None, **options):
    return Table(folder, {"seed": 0} if settings is None else settings, KEYS, **options)


def row(image, **values):
    return {"image": image, "method": "rise", **values}


def test_rows_come_back_as_they_were_written_and_none_is_written_twice(tmp_path):
    with opened(tmp_path / "run") as table:
        table.add([row("a", value=0.1 + 0.2, count=np.int64(3)), row("b", value=np.nan)])
        table.add([row("a", value=7.0), row("ö", value=np.float32(0.5))])
        before = dict(table.rows)
    with opened(tmp_path / "run") as table:
        assert table.rows == before and table.rows["a", "rise"]["value"] == 0.1 + 0.2
        assert table.rows["b", "rise"]["value"] is None and list(table.rows) == [
            (x, "rise") for x in "abö"
        ]
    assert len((tmp_path / "run" / ROWS).read_text("utf-8").splitlines()) == 3


def test_a_last_line_that_a_kill_cut_off_is_dropped_wherever_it_was_cut(tmp_path):
    with opened(tmp_path) as table:
        table.add([row("a", value=1.0)])
    whole = (tmp_path / ROWS).read_bytes()
    line = whole.replace(b'"a"', '"ö"'.encode())
    for cut in range(1, len(line)):
        (tmp_path / ROWS).write_bytes(whole + line[:cut])
        with opened(tmp_path) as table:
            assert list(table.rows) == [("a", "rise")]
            table.add([row("c", value=2.0)])
        assert [json.loads(one)["image"] for one in (tmp_path / ROWS).read_text().splitlines()] == [
            "a",
            "c",
        ]


def test_a_line_that_was_damaged_is_named(tmp_path):
    with opened(tmp_path) as table:
        table.add([row("a"), row("b")])
    whole = (tmp_path / ROWS).read_text()
    for damaged in ("dear\n", "[1]\n", '{"image": "a"}\n', "\n", "[" * 200_000 + "\n"):
        (tmp_path / ROWS).write_text(whole + damaged)
        with pytest.raises(
            GradeclipError, match=r"line 3 of .*rows.jsonl is damaged .*delete the line"
        ):
            opened(tmp_path)


SETTINGS_FILES = [
    ("emptied", "{}", "seed was None and is 0 now"),
    ("cut short", '{"seed"', "is damaged"),
    ("others", '{"seed": 77}', "holds another run: seed was 77 and is 0 now"),
    ("more", '{"seed": 0, "limit": 3}', "limit was 3 and is None now"),
]


@pytest.mark.parametrize(("text", "message"), named(SETTINGS_FILES))
def test_settings_that_are_not_those_of_the_rows_serve_no_rows(tmp_path, text, message):
    with opened(tmp_path) as table:
        table.add([row("a")])
    (tmp_path / SETTINGS).write_text(text)
    with pytest.raises(GradeclipError, match=message):
        opened(tmp_path)
    assert (tmp_path / SETTINGS).read_text() == text


def test_rows_without_settings_and_folders_of_something_else_are_refused(tmp_path):
    with opened(tmp_path / "run") as table:
        table.add([row("a")])
    (tmp_path / "run" / SETTINGS).unlink()
    with pytest.raises(GradeclipError, match="holds other files, such as rows.jsonl"):
        opened(tmp_path / "run")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.tex").write_text("dear")
    for overwrite in (False, True):
        with pytest.raises(GradeclipError, match="holds other files, such as thesis.tex"):
            opened(tmp_path / "own", overwrite=overwrite)
    with pytest.raises(GradeclipError, match="must be a folder, and .* is a file"):
        opened(tmp_path / "own" / "thesis.tex")
    assert [file.name for file in (tmp_path / "own").iterdir()] == ["thesis.tex"]


def test_half_a_file_that_a_killed_process_left_is_no_obstacle_and_no_lock_stays(tmp_path):
    (tmp_path / "settings.json.new").write_text("{")
    with opened(tmp_path):
        assert {file.name for file in tmp_path.iterdir()} == {ROWS, SETTINGS, ".lock"}
    assert {file.name for file in tmp_path.iterdir()} == {ROWS, SETTINGS}


def test_a_folder_at_which_another_process_is_at_work_is_refused(tmp_path):
    with (
        locked(tmp_path, ".lock"),
        pytest.raises(GradeclipError, match="another process is at work on"),
    ):
        opened(tmp_path)
    with (
        opened(tmp_path),
        pytest.raises(GradeclipError, match="another process"),
        locked(tmp_path, ".lock"),
    ):
        pass
