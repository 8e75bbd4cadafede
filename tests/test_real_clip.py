"""Lessons on a model of one's own: each that takes a model runs on a folder of open_clip with random weights."""

import nbformat
import pandas as pd
import pytest

from studies.__main__ import run_lesson
from tests.studies.folders import write_coco, write_open_clip

LESSONS = ["01", "02", "03", "04", "05", "06"]  # 07 tunes and 08 compares bundled models; 09 prints no name
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(write_open_clip(tmp_path_factory.mktemp("real")))


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    return f"coco:{write_coco(tmp_path_factory.mktemp('coco'))}"


def printed(notebook):
    """What the cells of an executed notebook print."""
    executed = nbformat.read(notebook, as_version=4)
    return "".join(output.get("text", "") for cell in executed.cells for output in cell.get("outputs", []))


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_lesson_runs_on_a_model_of_ones_own_and_says_so(lesson, folder, coco, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADECLIP_RESULTS", str(tmp_path))
    data = coco if lesson in ("04", "05") else ""
    executed = run_lesson(lesson, folder, data=data, results=tmp_path)
    assert folder in printed(executed), "the model is named in what the lesson prints"
    table = pd.read_csv(executed.parent / f"{lesson}.csv")
    assert table["claim"].str.startswith("photographs: ").any() == bool(data)


@pytest.mark.parametrize("lesson", ["04", "05"])
def test_a_lesson_runs_on_photographs_with_the_bundled_model(lesson, coco, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADECLIP_RESULTS", str(tmp_path))
    executed = run_lesson(lesson, "emoji", data=coco, results=tmp_path)
    assert len(list(executed.parent.glob(f"{lesson}/*/rows.jsonl"))) == 1
    assert "photographs: " in (executed.parent / f"{lesson}.csv").read_text()
