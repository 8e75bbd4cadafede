"""Each lesson that takes a model runs on a folder of open_clip with random weights."""

import re

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
    printed = re.search(r'"python -m studies (07 [^\\"]*)', notebook_of("07").read_text())[1]
    pairs = [(RATED[i % 16], RATED[(i + 1 + i // 16) % 16]) for i in range(60)]
    captions = [
        [f"a {('red', 'happy')[i % 2]} {first} with the small {second}"]
        for i, (first, second) in enumerate(pairs)
    ]
    photographs = str(write_coco_captions(tmp_path_factory.mktemp("captions"), captions))
    command = printed.replace("ViT-B-16 --pretrained openai", folder)
    command = command.replace("FOLDER", photographs)
    assert main([*command.split(), "--n", "50"]) == 0
    executed = results / results_name(folder) / "07_word_concreteness.ipynb"
    outputs = [
        output
        for cell in nbformat.read(executed, as_version=4).cells
        for output in cell.get("outputs", [])
    ]
    words = re.search(
        r"50 captions, (\d+) rated words", "".join(output.get("text", "") for output in outputs)
    )[1]
    assert executed.with_suffix(".html").is_file()
    assert int(words) >= 16
    assert int(words) in set(pd.read_csv(executed.parent / "07.csv")["n"])


def test_every_lesson_that_takes_a_model_runs_on_few_images_of_it_and_on_photographs(
    folder, results, tmp_path_factory
):
    coco = f"coco:{write_coco(tmp_path_factory.mktemp('coco'))}"
    lessons = {lesson: nbformat.read(notebook_of(lesson), as_version=4) for lesson in IMAGES}
    for lesson, notebook in lessons.items():
        (place,) = (
            i
            for i, cell in enumerate(notebook.cells)
            if "parameters" in cell.metadata.get("tags", [])
        )
        data = coco if lesson in ON_PHOTOGRAPHS else ""
        parameters = f"MODEL, N, DATA = {folder!r}, {IMAGES[lesson]}, {data!r}"
        notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(parameters))
    execute_in_one_kernel(lessons.values(), NOTEBOOKS)
    for lesson, notebook in lessons.items():
        assert errors(notebook) == []
        table = pd.read_csv(results / results_name(folder) / f"{lesson}.csv")
        assert (table["model"] == results_name(folder)).any()
        assert table["claim"].str.startswith("photographs: ").any() == (lesson in ON_PHOTOGRAPHS)
