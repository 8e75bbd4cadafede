"""A table of rows: a kill loses at most the last line, and other settings are refused."""

import json

import numpy as np
import pytest

from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.measures.table import Table

KEYS = ("image", "method")


def row(image, **values):
    return {"image": image, "method": "rise", **values}


def test_rows_come_back_as_they_were_written_and_none_is_written_twice(tmp_path):
    table = Table(tmp_path / "run", {"seed": 0}, KEYS)
    exact = row("a", value=0.1 + 0.2, count=np.int64(3))
    unknown = row("b", value=np.nan)
    table.add([exact, unknown])
    table.add([row("a", value=7.0), row("ö", value=np.float32(0.5))])

    again = Table(tmp_path / "run", {"seed": 0}, KEYS)
    assert again.rows == table.rows
    assert [image for image, _ in again.rows] == ["a", "b", "ö"]
    assert again.rows["a", "rise"] == exact
    assert again.rows["b", "rise"]["value"] is None
    lines = (tmp_path / "run" / "rows.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == 3


def test_a_last_line_that_a_kill_cut_off_is_dropped_wherever_it_was_cut(tmp_path):
    Table(tmp_path, {}, KEYS).add([row("a", value=1.0)])
    file = tmp_path / "rows.jsonl"
    whole = file.read_bytes()
    second_line = whole.replace(b'"a"', '"ö"'.encode())
    for cut in range(1, len(second_line)):
        file.write_bytes(whole + second_line[:cut])
        table = Table(tmp_path, {}, KEYS)
        assert list(table.rows) == [("a", "rise")]

        table.add([row("c")])
        lines = file.read_text("utf-8").splitlines()
        images = [json.loads(line)["image"] for line in lines]
        assert images == ["a", "c"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": 77}, "holds another run: seed was 0, is 77. Choose another folder"),
        ({"seed": 0, "limit": 3}, "limit was None, is 3"),
    ],
)
def test_rows_of_other_settings_are_refused_with_the_difference(tmp_path, settings, message):
    Table(tmp_path, {"seed": 0}, KEYS).add([row("a")])
    with pytest.raises(GradeclipError, match=message):
        Table(tmp_path, settings, KEYS)
    assert list(Table(tmp_path, {"seed": 0}, KEYS).rows) == [("a", "rise")]
    assert not Table(tmp_path, settings, KEYS, overwrite=True).rows


def test_rows_without_their_settings_are_refused(tmp_path):
    Table(tmp_path, {"seed": 0}, KEYS).add([row("a")])
    (tmp_path / "settings.json").unlink()
    with pytest.raises(GradeclipError, match="seed was None, is 0"):
        Table(tmp_path, {"seed": 0}, KEYS)
