"""The recipes of CONTRIBUTING.md, executed as they stand there, in a project of somebody else's."""

import importlib
import re
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from gradeclip_utils import Explanation
from gradeclip_utils.datasets.registry import DATASETS
from gradeclip_utils.methods import METHODS
from gradeclip_utils.scenes import arrange
from gradeclip_utils.towers import REGISTERED
from studies import STUDIES

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "CONTRIBUTING.md").read_text()
RECIPES = dict(re.findall(r"^### Add (a [a-z ]+)\n(.*?)(?=^##)", GUIDE, re.M | re.S))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder that Python imports from; what its modules register is taken out again."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    registries = METHODS, DATASETS, STUDIES, REGISTERED
    before = [dict(registry) for registry in registries]
    yield tmp_path
    for registry, content in zip(registries, before, strict=True):
        registry.clear()
        registry.update(content)
    sys.modules.pop("theirs", None)


def test_there_is_a_recipe_for_everything_that_can_be_added():
    assert list(RECIPES) == ["a method", "a tower", "a data set", "a study", "a panel"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_works_in_a_project_outside(recipe, project):
    module, use = re.findall(r"^```python\n(.*?)^```$", RECIPES[recipe], re.M | re.S)
    (project / "theirs.py").write_text(module)
    theirs = importlib.import_module("theirs")
    assert "assert " in use
    exec(compile(use, recipe, "exec"), vars(theirs))


def python_of(page):
    """The only Python of a how-to."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/site/howto" / page).read_text(), re.M | re.S)
    return compile(code, page, "exec")


def test_the_how_to_of_a_method_of_ones_own_measures_it_on_a_folder_of_ones_own(project, capsys):
    for folder in ("images", "masks"):
        (project / "mine" / folder).mkdir(parents=True)
    (project / "mine/captions.csv").write_text("image,caption\ncat.png,a cat\ndog.png,a dog\n")
    for noun in ("cat", "dog"):
        scene = arrange([noun])
        image = scene.image()
        image.save(project / f"mine/images/{noun}.png")
        Image.fromarray(scene.masks(image.size[0])[0].astype(np.uint8) * 255).save(project / f"mine/masks/{noun}.png")
    (project / "theirs.py").write_text(re.search(r"^```python\n(.*?)^```$", RECIPES["a method"], re.M | re.S)[1])
    exec(python_of("evaluate.md"), {})
    assert {"grad-eclip", "value-norm", "oracle"} <= set(capsys.readouterr().out.split())


def test_the_how_to_of_a_folder_of_images_keeps_every_map_and_its_figure(project):
    (project / "photos").mkdir()
    (project / "captions.csv").write_text("image,caption\na.jpg,a cat\nb.jpg,a dog\n")
    for name in "ab":
        arrange(["cat"]).image().convert("RGB").save(project / f"photos/{name}.jpg")
    with mpl.rc_context():
        exec(python_of("many.md"), {})
    folders = sorted((project / "maps").iterdir())
    assert [Explanation.load(folder).prompts for folder in folders] == [("a cat",), ("a dog",)]
    assert all(b"/Type3" not in (folder / "figure.pdf").read_bytes() for folder in folders)
