"""The photographs that the project carries: free, small, with their papers, and strange to the bundled model."""

import re

import pytest
from PIL import Image

from gradeclip_utils import Explainer, ExplanationWarning
from gradeclip_utils.datasets import load, photographs
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.files import data_path

FOLDER = data_path("photos")
FILES = sorted(file.name for file in FOLDER.glob("*.jpg"))


def test_every_photograph_is_found_with_its_caption():
    found = load("photographs:all")
    assert [example.key for example in found] == FILES and len(found) == 5
    for example in found:
        with Image.open(FOLDER / example.key) as file:
            assert example.image().size == file.size and max(file.size) == 384
        assert example.prompt.startswith("a photo of a") and example.mask() is None
    with pytest.raises(GradeclipError, match="write photographs:all, got"):
        load("photographs:some")


def test_every_photograph_is_small_and_says_whose_it_is_under_a_licence_that_lets_everybody_use_it():
    rows = re.findall(r"^\| `(\w+\.jpg)` \| .+ \| (.+) \| (.+) \| `\w+\.(?:png|jpg)` \|$",
                      (FOLDER / "README.md").read_text(), re.M)  # fmt: skip
    assert sorted(name for name, _, _ in rows) == FILES
    assert all(author and ("CC0" in licence or "public domain" in licence) for _, author, licence in rows)
    assert max((FOLDER / name).stat().st_size for name in FILES) <= 60_000


def test_the_bundled_model_says_of_each_that_it_was_trained_on_drawn_scenes_alone(bundled):
    with pytest.warns(ExplanationWarning, match="was trained on drawn scenes alone"):
        Explainer(bundled).explain(photographs()[0].image(), "a cat")
