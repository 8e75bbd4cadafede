"""What the README shows a stranger is what happens."""

import importlib.util
import re
from pathlib import Path

import nbformat
import open_clip
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from gradeclip_utils.__main__ import COMMANDS
from gradeclip_utils.files import data_path
from gradeclip_utils.models.huggingface import PREFIX
from tests.huggingface import with_processor

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)


def test_it_is_what_a_visitor_reads():
    assert len(README.splitlines()) <= 120


def test_the_lines_of_python_run_and_draw_the_picture_at_the_top(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = BLOCKS[0]
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
    (seed,) = re.findall(r"the clearest of them has seed (\d+)", "".join(output.get("text", "") for output in outputs))
    assert f'arrange(["dog", "umbrella"], seed={seed})' in README, "make figures"


def test_its_figure_is_made_with_the_seed_that_a_lesson_chooses(tmp_path):
    place = importlib.util.spec_from_file_location("figures", ROOT / "docs" / "figures.py")
    figures = importlib.util.module_from_spec(place)
    place.loader.exec_module(figures)
    code = [nbformat.v4.new_code_cell(source) for source in ("seeds = [3, 7]", "chosen = max(seeds)", "chosen = 9")]
    nbformat.write(nbformat.v4.new_notebook(cells=code), tmp_path / "lesson.ipynb")
    assert figures.chosen_seed(tmp_path / "lesson.ipynb") == 7
    nbformat.write(nbformat.v4.new_notebook(cells=code[:1]), tmp_path / "lesson.ipynb")
    with pytest.raises(LookupError, match=r"no cell of lesson\.ipynb chooses a seed"):
        figures.chosen_seed(tmp_path / "lesson.ipynb")
    assert len(figures.SEED.findall(README)) == 1


def test_what_it_says_of_words_is_what_the_card_says():
    figures = pd.read_csv(data_path("figures.csv")).query("model == 'emoji'").set_index("figure")["value"]
    order = figures["rank correlation of a caption's word scores with leave-one-out"]
    above = figures["nouns of a true caption above zero, Grad-ECLIP"]
    told = " ".join(README.split())
    assert f"a rank correlation of {order:.2f}," in told and f"{above:.0%}".replace("%", " %") + " of the nouns" in told


def test_a_model_in_hand_is_explained_by_its_lines(tiny, picture, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture.convert("RGB").save("dog.jpg")
    opening, named, of_transformers, in_hand, in_hand_of_transformers, explained = (
        re.sub(r"  #.*", "", part) for part in re.sub(r"\n\n", "\n", BLOCKS[1]).splitlines()
    )
    name, tag = re.search(r'load_clip\("(.+)", pretrained="(.+)"\)', named).groups()
    assert (name, tag) in open_clip.list_pretrained()
    assert f'load_clip("{PREFIX}' in of_transformers
    model, processor = with_processor("CLIP")
    for line, given in (
        (in_hand, {"model": tiny.model, "preprocess": tiny.preprocess, "tokenizer": tiny.tokenizer}),
        (in_hand_of_transformers, {"model": model, "processor": processor}),
    ):
        exec("\n".join([opening, line, f"figure = {explained}"]), given)
        assert isinstance(given["figure"], Figure)


def test_every_command_that_it_names_exists():
    named = set(re.findall(r"python -m gradeclip_utils ([a-z-]+)", README))
    assert named and named <= set(COMMANDS)


def test_every_file_that_it_points_to_is_there():
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", README):
        assert (ROOT / target).exists(), target


def test_every_notebook_is_listed():
    assert set(re.findall(r"\]\(notebooks/(\w+)\.ipynb\) \|", README)) == {
        path.stem for path in (ROOT / "notebooks").glob("*.ipynb")
    }


def test_every_make_target_that_it_names_exists():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"(?:`|^ +)make (\w+)", README, re.M)):
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_it_stands_alone():
    assert not re.search(r"\.\./|/work/|shared/", README)
