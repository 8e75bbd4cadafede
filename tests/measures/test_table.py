"""A table of rows: none is written twice, and a kill loses at most the last line."""

import json

import numpy as np

from gradeclip_utils.measures.table import Table

KEYS = ("image", "method")


def row(image, **values):
    return {"image": image, "method": "rise", **values}


def test_rows_come_back_as_they_were_written_and_none_is_written_twice(tmp_path):
    run = tmp_path / "run"
    table = Table(run, {"seed": 0}, KEYS)
    exact = row("a", value=0.1 + 0.2, count=np.int64(3))
    unknown = row("b", value=np.nan)
    written_before = row("a", value=7.0)
    rounded = row("ö", value=np.float32(0.5))
    table.add([exact, unknown])
    table.add([written_before, rounded])

    rows = Table(run, {"seed": 0}, KEYS).rows
    assert rows == table.rows
    assert list(rows) == [("a", "rise"), ("b", "rise"), ("ö", "rise")]
    assert rows["a", "rise"] == exact
    assert rows["b", "rise"]["value"] is None
    lines = (run / "rows.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == 3


def test_a_last_line_that_a_kill_cut_off_is_dropped_wherever_it_was_cut(tmp_path):
    Table(tmp_path, {}, KEYS).add([row("a", value=1.0)])
    file = tmp_path / "rows.jsonl"
    first_line = file.read_bytes()
    second_line = first_line.replace(b'"a"', '"ö"'.encode())
    for cut in range(1, len(second_line)):
        file.write_bytes(first_line + second_line[:cut])
        table = Table(tmp_path, {}, KEYS)
        assert list(table.rows) == [("a", "rise")]

        table.add([row("c")])
        lines = file.read_text("utf-8").splitlines()
        images = [json.loads(line)["image"] for line in lines]
        assert images == ["a", "c"]
