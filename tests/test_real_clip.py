"""Lessons on a model of one's own: each that takes a model runs on a folder of open_clip with random weights."""

import nbformat
import pandas as pd
import pytest

from studies.__main__ import NOTEBOOKS, notebook_of, run_lesson
from studies.lesson import file_name
from tests.one_kernel import errors, execute_in_one_kernel
from tests.studies.folders import write_coco, write_open_clip

IMAGES = {"01": 12, "03": 6, "04": 24, "05": 12, "06": 60}  # 07 tunes and 08 compares bundled models; 09 prints no name
ON_PHOTOGRAPHS = ("04", "05")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(write_open_clip(tmp_path_factory.mktemp("real")))


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADECLIP_RESULTS", str(tmp_path))
    return tmp_path


def test_a_lesson_runs_on_a_model_of_ones_own_on_as_many_scenes_as_asked_for_and_says_so(folder, results):
    executed = run_lesson("02", folder, n=20, results=results)
    outputs = [output for cell in nbformat.read(executed, as_version=4).cells for output in cell.get("outputs", [])]
    assert folder in "".join(output.get("text", "") for output in outputs)
    assert executed.with_suffix(".html").is_file()
    assert 20 in set(pd.read_csv(executed.parent / "02.csv")["n"])


def test_every_lesson_that_takes_a_model_runs_on_few_images_of_it_and_on_photographs(folder, results, tmp_path_factory):
    coco = f"coco:{write_coco(tmp_path_factory.mktemp('coco'))}"
    lessons = {lesson: nbformat.read(notebook_of(lesson), as_version=4) for lesson in IMAGES}
    for lesson, notebook in lessons.items():
        (place,) = (i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
        given = f"MODEL, N, DATA = {folder!r}, {IMAGES[lesson]}, {coco if lesson in ON_PHOTOGRAPHS else ''!r}"
        notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(given))
    execute_in_one_kernel(lessons.values(), NOTEBOOKS)
    for lesson, notebook in lessons.items():
        assert errors(notebook) == []
        table = pd.read_csv(results / file_name(folder) / f"{lesson}.csv")
        assert (table["model"] == folder).any()
        assert table["claim"].str.startswith("photographs: ").any() == (lesson in ON_PHOTOGRAPHS)
