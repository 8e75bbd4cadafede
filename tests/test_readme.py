"""The README shows what happens, and what it names exists."""

import re

from gradeclip_utils import Explainer, load_clip
from gradeclip_utils.__main__ import COMMANDS
from gradeclip_utils.scenes import arrange
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_piano_of_its_figure_is_absent_and_no_more_similar_than_half_of_the_other_captions():
    image = arrange(["dog", "umbrella"], seed=3).image()
    explanation = Explainer(load_clip()).explain(image, ["a dog", "a piano"])
    dog, piano = explanation.percentile
    assert dog > 95
    assert piano < 60
    assert abs(explanation.image_maps[1]).max() > 0


def test_every_file_that_it_shows_or_links_to_exists():
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", README)
    pictures = re.findall(r'(?:src|srcset)="([^"]+)"', README)
    for target in [*links, *pictures]:
        assert (ROOT / target).exists(), target


def test_every_command_that_it_names_exists():
    named = set(re.findall(r"`gradeclip ([a-z-]+)", README))
    assert named
    assert named <= set(COMMANDS)


def test_every_make_target_that_it_names_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?:^|`)make (\w+)", README, re.M):
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_every_notebook_is_listed():
    listed = set(re.findall(r"\]\(notebooks/(\w+)\.ipynb\) \|", README))
    assert listed == {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
