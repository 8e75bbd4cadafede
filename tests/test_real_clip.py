"""Each lesson that takes a model runs on a folder of open_clip with random weights."""

import nbformat
import pandas as pd
import pytest

import studies.lesson
from studies.__main__ import main
from studies.lesson import results_name
from studies.runs import NOTEBOOKS, notebook_of
from tests.one_kernel import errors, execute_in_one_kernel
from tests.studies.folders import write_coco, write_coco_captions, write_open_clip

IMAGES = {
    "01": 12,
    "02": 20,
    "03": 6,
    "04": 6,
    "05": 24,
    "06": 12,
}  # 08 tunes and 09 compares bundled models; 10 prints no name
RATED = (
    "dog idea bus freedom apple love table hope chair truth river art horse peace bread luck"
).split()
ON_PHOTOGRAPHS = ("05", "06")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(write_open_clip(tmp_path_factory.mktemp("real")))


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADECLIP_RESULTS", str(tmp_path))
    return tmp_path


def test_the_command_of_lesson_07_runs_it_on_ones_own_model_and_captions(
    folder, results, tmp_path_factory, monkeypatch
):
    monkeypatch.setattr(studies.lesson, "RESULTS", results)
    captions = []
    for i in range(60):
        first = RATED[i % 16]
        second = RATED[(i + 1 + i // 16) % 16]
        adjective = ("red", "happy")[i % 2]
        captions.append([f"a {adjective} {first} with the small {second}"])
    photographs = write_coco_captions(tmp_path_factory.mktemp("captions"), captions)

    command = ["07", "--model", folder, "--data", f"coco:{photographs}", "--n", "50"]
    assert main(command) == 0

    executed = results / results_name(folder) / "07_word_concreteness.ipynb"
    assert executed.with_suffix(".html").is_file()
    assert pd.read_csv(executed.parent / "07.csv")["n"].max() >= 16  # rated words


def test_every_lesson_that_takes_a_model_runs_on_few_images_of_it_and_on_photographs(
    folder, results, tmp_path_factory
):
    coco = f"coco:{write_coco(tmp_path_factory.mktemp('coco'))}"
    lessons = {lesson: nbformat.read(notebook_of(lesson), as_version=4) for lesson in IMAGES}
    for lesson, notebook in lessons.items():
        is_parameters = ["parameters" in cell.metadata.get("tags", []) for cell in notebook.cells]
        assert sum(is_parameters) == 1
        data = coco if lesson in ON_PHOTOGRAPHS else ""
        parameters = f"MODEL, N, DATA = {folder!r}, {IMAGES[lesson]}, {data!r}"
        cell = nbformat.v4.new_code_cell(parameters)
        notebook.cells.insert(is_parameters.index(True) + 1, cell)

    execute_in_one_kernel(lessons.values(), NOTEBOOKS)
    for lesson, notebook in lessons.items():
        assert errors(notebook) == []
        table = pd.read_csv(results / results_name(folder) / f"{lesson}.csv")
        assert (table["model"] == results_name(folder)).any()
        assert table["claim"].str.startswith("photographs: ").any() == (lesson in ON_PHOTOGRAPHS)
