"""The course map says what the lessons are: every notebook, every exercise, every section that it sends people to."""

import base64
import io
import re
from pathlib import Path

import nbformat
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
README = (ROOT / "notebooks" / "README.md").read_text()
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
pytestmark = pytest.mark.skipif(not PATHS, reason="there are no notebooks yet")


def short(path):
    """What the course map calls a lesson: its number, or its name where it has none."""
    return path.stem[:2] if path.stem[:2].isdigit() else path.stem


def prose(path):
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


TEXTS = {short(path): prose(path) for path in PATHS}


def table(heading):
    """The rows of the first table below a heading or a mark, as lists of cells."""
    below = README.split(heading, 1)[1]
    lines = re.search(r"(?:^\|.*\n)+", below, re.M).group().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def overview():
    rows = {}
    for name, read, run, needs, _ in table("## At a glance"):
        title, file = re.fullmatch(r"\[(.+)\]\((.+)\.ipynb\)", name).groups()
        minutes = {"read": [int(part) for part in read.split(" + ")], "run": int(run)}
        rows[short(Path(file))] = {"title": title, "file": file, "needs": needs, **minutes}
    return rows


def test_every_notebook_has_its_row_and_every_row_its_notebook():
    assert {row["file"] for row in overview().values()} == {path.stem for path in PATHS}


def test_what_a_lesson_needs_comes_before_it():
    rows = overview()
    for place, (name, row) in enumerate(rows.items()):
        before = list(rows)[:place]
        assert all(needed in before for needed in re.findall(r"\b\d\d\b", row["needs"])), name


@pytest.mark.parametrize("name", TEXTS)
def test_minutes_are_those_that_the_lesson_says(name):
    read, run = re.search(r"\*\*Time\.\*\* (.+); about (\d+) minutes? to run", TEXTS[name]).groups()
    row = overview()[name]
    assert [int(part) for part in re.findall(r"(\d+) minutes to (?:read|play)", read)] == row["read"]
    assert int(run) == row["run"]


def measured_minutes(cells):
    """Minutes to read each part of a lesson, exercises not counted.

    For 200 words or 20 lines of code a minute, for what a cell shows a quarter of one, and one for each prediction.
    """
    parts = [0.0]
    for cell in cells:
        text = re.sub(r"\]\([^)]*\)", "]", cell.source.split("## Exercises")[0])
        if cell.cell_type == "code":
            parts[-1] += len(text.splitlines()) / 20 + 1 / 4
            continue
        if text.startswith("## Part 2"):
            parts.append(0.0)
        parts[-1] += len(text.split()) / 200 + text.count("**Predict")
        if "## Exercises" in cell.source:
            break
    return parts


def test_minutes_are_counted_from_words_lines_cells_and_predictions_until_the_exercises():
    text, code = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell
    first = [text("word " * 399 + "**Predict.**"), code("1\n" * 15)]
    second = [
        text("## Part 2 " + "word " * 197),
        text("word " * 100 + "## Exercises " + "word " * 400),
        code("1\n" * 90),
    ]
    assert measured_minutes(first) == pytest.approx([4])
    assert measured_minutes(first + second) == pytest.approx([4, 1.5])


@pytest.mark.parametrize("path", PATHS, ids=short)
def test_minutes_to_read_are_those_that_are_counted_to_within_a_fifth(path):
    counted = measured_minutes(nbformat.read(path, as_version=4).cells)
    assert overview()[short(path)]["read"] == pytest.approx(counted, rel=0.2)


def test_the_two_longest_studies_are_parted_where_a_class_can_stop():
    assert {name for name, row in overview().items() if len(row["read"]) > 1} == {"04", "05"}


def quizzes(text):
    """Of each question that checks itself what stands behind its answers."""
    for block in text.split("**Check yourself.**")[1:]:
        answers = re.match(r"[^<]*((?:<details>.*?</details>\s*)+)", block, re.S)[1]
        yield re.findall(r"</summary>\s*(.*?)\s*</details>", answers, re.S)


@pytest.mark.parametrize("name", [name for name in TEXTS if name != "09"])
def test_every_lesson_has_a_question_that_checks_itself_with_one_right_answer_and_reasons(name):
    found = list(quizzes(TEXTS[name]))
    assert found
    for answers in found:
        assert len(answers) >= 3
        assert sorted(answer.split(".")[0] for answer in answers) == ["No"] * (len(answers) - 1) + ["Yes"]
        assert all(len(answer.split()) > 5 for answer in answers)


@pytest.mark.parametrize("name", [name for name in TEXTS if name != "explorer"])
def test_every_lesson_asks_for_four_predictions_or_more(name):
    asked = re.findall(r"\*\*Predict\b.*?(?=\n\n|\Z)", TEXTS[name], re.S)
    assert len([question for question in asked if "?" in question or "Write" in question or "Rank" in question]) >= 4


def test_the_first_lesson_opens_with_its_panel_and_few_words_before_it():
    text, code, *_ = nbformat.read(ROOT / "notebooks" / "01_start_here.ipynb", as_version=4).cells
    assert (text.cell_type, code.cell_type) == ("markdown", "code") and len(text.source.split()) < 80
    assert code.source.splitlines()[-1].startswith("opening(") and "hide-input" in code.metadata.tags


@pytest.mark.parametrize("path", PATHS, ids=short)
def test_no_figure_is_wider_than_the_column_of_a_notebook(path):
    outputs = [one for cell in nbformat.read(path, as_version=4).cells for one in cell.get("outputs", [])]
    pngs = [one.data["image/png"] for one in outputs if "image/png" in one.get("data", {})]
    widths = [Image.open(io.BytesIO(base64.b64decode(png))).width for png in pngs]
    assert widths and max(widths) <= 900


@pytest.mark.parametrize("name", TEXTS)
def test_prose_says_image_where_it_means_an_image(name):
    said = re.sub(r"[“\"]a picture of[”\"]", "", TEXTS[name])
    assert not re.search(r"\bpictures?\b", said, re.I)


@pytest.mark.parametrize("name", TEXTS)
def test_every_exercise_tests_a_goal_and_every_goal_has_exercises_that_exist(name):
    there = re.findall(r"^\*\*(\d+)\. ", TEXTS[name].split("## Exercises", 1)[1], re.M)
    named = [cells[2] for cells in table("## Goals, and the exercises that test them") if cells[0] == name]
    assert all(re.fullmatch(r"\d+(, \d+)*", cell) for cell in named)
    assert sorted(number for cell in named for number in cell.split(", ")) == sorted(there)


def test_sections_and_exercises_that_instructors_are_sent_to_exist():
    found = 0
    for name, rest in re.findall(r"(?<![\w/])(\d\d), ((?:sections?|exercise) [\d and]+|“[^”]+”|\"[^\"]+\")", README):
        numbers = re.findall(r"\d+", rest)
        for number in numbers:
            wanted = rf"^\*\*{number}\. " if rest.startswith("exercise") else rf"^## {number}\. "
            assert re.search(wanted, TEXTS[name], re.M), (name, rest)
        if not numbers:
            assert re.search(rf"^##+ {re.escape(rest[1:-1])}$", TEXTS[name], re.M), (name, rest)
        found += 1
    assert found > 10


def test_files_that_it_points_to_are_there():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / "notebooks" / target).exists(), target


def test_the_glossary_explains_each_word_once():
    words = [word for cells in table("## Glossary") for word in cells[0].split(", ")]
    assert len(set(words)) == len(words) > 30
    assert {"map", "heat map", "target", "trace", "readout", "reading token", "word score"} <= set(words)
