"""The course map says what the lessons are: every notebook, every exercise, every section that it sends people to."""

import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "notebooks" / "README.md").read_text()
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MINUTES = {
    "a quarter of an hour": 15, "half an hour": 30, "three quarters of an hour": 45, "an hour": 60, "a minute": 1,
    "a minute and a half": 2, "one to two minutes": 2, "two minutes": 2, "three minutes": 3, "four minutes": 4,
    "five minutes": 5, "six minutes": 6,
}  # fmt: skip
PICTURES_LEFT = {"02", "03", "explorer"}  # lessons that still say "picture"; this list only gets shorter
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
        rows[short(Path(file))] = {"title": title, "file": file, "read": int(read), "run": int(run), "needs": needs}
    return rows


def test_every_notebook_has_its_row_and_every_row_its_notebook():
    assert {row["file"] for row in overview().values()} == {path.stem for path in PATHS}
    assert {page for _, page in table("<!-- pages -->")} == {f"`build/{path.stem}.html`" for path in PATHS}


def test_what_a_lesson_needs_comes_before_it():
    rows = overview()
    for place, (name, row) in enumerate(rows.items()):
        before = list(rows)[:place]
        assert all(needed in before for needed in re.findall(r"\b\d\d\b", row["needs"])), name


@pytest.mark.parametrize("name", TEXTS)
def test_minutes_are_those_that_the_lesson_says(name):
    said = re.search(r"\*\*Time\.\*\* (.+?) to (?:read|play)\w*; (?:about )?(.+?) to run", TEXTS[name])
    row = overview()[name]
    assert (row["read"], row["run"]) == tuple(MINUTES[part.lower()] for part in said.groups())


def measured_minutes(path):
    """Of a reader who takes in 200 words and 20 lines of code a minute, looks at what each cell shows, and guesses."""
    read, code = "", []
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            code.append(cell.source)
        else:
            read += re.sub(r"\]\([^)]*\)", "]", cell.source.split("## Exercises")[0])
            if "## Exercises" in cell.source:
                break
    lines = sum(len(source.splitlines()) for source in code)
    return len(read.split()) / 200 + lines / 20 + len(code) / 4 + read.count("**Predict")


@pytest.mark.parametrize("path", PATHS, ids=short)
def test_minutes_to_read_are_about_those_that_words_code_and_questions_take(path):
    assert measured_minutes(path) / 1.9 < overview()[short(path)]["read"] < 1.9 * measured_minutes(path)


@pytest.mark.parametrize("name", [name for name in TEXTS if name != "explorer"])
def test_every_lesson_asks_for_four_predictions_or_more(name):
    assert len(re.findall(r"\*\*Predict\b", TEXTS[name])) >= 4


@pytest.mark.parametrize("name", TEXTS)
def test_prose_says_image_where_it_means_an_image(name):
    said = re.sub(r"[“\"]a picture of[”\"]", "", TEXTS[name])
    assert name in PICTURES_LEFT or not re.search(r"\bpictures?\b", said, re.I)


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
