"""The README shows what happens."""

import re
from pathlib import Path

from gradeclip_utils import Explainer, load_clip
from gradeclip_utils.__main__ import COMMANDS
from gradeclip_utils.scenes import arrange

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_it_is_short_and_its_code_fits_the_page():
    code = "\n".join(re.findall(r"```\w+\n(.*?)```", README, re.S))
    assert len(README.split()) <= 700 and max(map(len, code.splitlines())) <= 88


def test_its_lines_of_python_run_on_the_bundled_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arrange(["dog", "umbrella"], seed=3).image().convert("RGB").save("dog.jpg")
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    assert (
        'load_clip("ViT-B-16", pretrained="openai")' in code
    )  # weights that these machines cannot have
    made = {}
    exec(code.replace('"ViT-B-16", pretrained="openai"', ""), made)
    assert made["explanation"].prompts == ("a dog on a sofa", "a piano")


def test_the_piano_of_its_figure_is_absent_and_its_similarity_is_no_higher_than_half_of_the_other_captions():
    explanation = Explainer(load_clip()).explain(
        arrange(["dog", "umbrella"], seed=3).image(), ["a dog", "a piano"]
    )
    assert explanation.percentile[0] > 95 and explanation.percentile[1] < 60
    assert abs(explanation.image_maps[1]).max() > 0


def test_every_command_file_and_make_target_that_it_names_exists():
    named = set(re.findall(r"`gradeclip ([a-z-]+)", README))
    assert named and named <= set(COMMANDS)
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)|(?:src|srcset)=\"([^\"]+)\"", README):
        assert (ROOT / (target[0] or target[1])).exists(), target
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"^make (\w+)|`make (\w+)", README, re.M)):
        assert re.search(rf"^{target[0] or target[1]}:", makefile, re.M), target


def test_every_notebook_is_listed():
    listed = set(re.findall(r"\]\(notebooks/(\w+)\.ipynb\) \|", README))
    assert listed == {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
