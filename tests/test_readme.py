"""What the README shows a stranger is what happens."""

import re
from pathlib import Path

import nbformat
import pytest
from matplotlib.figure import Figure
from PIL import Image

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_lines_of_python_run_and_draw_the_picture_at_the_top(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", README, re.S).group(1)
    assert len(code.splitlines()) <= 12
    made = {}
    exec(code, made)
    assert any(isinstance(value, Figure) for value in made.values())
    committed = Image.open(ROOT / re.search(r"!\[[^]]*\]\(([^)]+\.png)\)", README).group(1))
    fresh = Image.open(next(tmp_path.glob("*.png")))
    assert fresh.size == pytest.approx(committed.size, rel=0.03), "the picture at the top is older than the code"


def test_its_scene_is_the_one_that_the_rule_of_the_first_lesson_chose():
    lesson = nbformat.read(ROOT / "notebooks" / "01_start_here.ipynb", as_version=4)
    outputs = [output for cell in lesson.cells if cell.cell_type == "code" for output in cell.outputs]
    (seed,) = re.findall(r"shown is seed (\d+)", "".join(output.get("text", "") for output in outputs))
    assert f'arrange(["dog", "umbrella"], seed={seed})' in README


def test_every_file_that_it_points_to_is_there():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_every_make_target_that_it_names_exists():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"(?:`|^ +)make (\w+)", README, re.M)):
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_it_stands_alone():
    assert not re.search(r"\.\./|/work/|shared/", README)
