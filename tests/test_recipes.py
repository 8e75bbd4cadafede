"""The recipes of CONTRIBUTING.md, executed as they stand there, in a project of somebody else's."""

import importlib
import re
import sys
from pathlib import Path

import pytest

from gradeclip_utils.datasets.registry import DATASETS
from gradeclip_utils.methods import METHODS
from gradeclip_utils.studies import STUDIES
from gradeclip_utils.towers import unregister_tower

GUIDE = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text()
RECIPES = dict(re.findall(r"^### Add (a [a-z ]+)\n(.*?)(?=^##)", GUIDE, re.M | re.S))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder that Python imports from; what its modules register is taken out again."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    registries = METHODS, DATASETS, STUDIES
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
    try:
        assert "assert " in use
        exec(compile(use, recipe, "exec"), vars(theirs))
    finally:
        if recipe == "a tower":
            unregister_tower("one-layer")
