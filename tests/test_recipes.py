"""The recipes of CONTRIBUTING.md and the how-to of problems, executed as they stand there."""

import importlib
import re
import sys
from pathlib import Path

import pytest

from gradeclip_utils.datasets.registry import DATASETS
from gradeclip_utils.methods import METHODS
from gradeclip_utils.towers import REGISTERED

ROOT = Path(__file__).parent.parent
RECIPES = dict(re.findall(r"^### Add ([a-z ]+)\n(.*?)(?=^##)", (ROOT / "CONTRIBUTING.md").read_text(), re.M | re.S))
PROBLEMS = (ROOT / "docs/site/howto/problems.md").read_text()


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder that Python imports from; names that its modules register are removed again."""
    monkeypatch.syspath_prepend(tmp_path)
    registries = METHODS, DATASETS, REGISTERED
    before = [dict(registry) for registry in registries]
    yield tmp_path
    for registry, content in zip(registries, before, strict=True):
        registry.clear()
        registry.update(content)
    sys.modules.pop("theirs", None)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_works_in_a_project_outside(recipe, project):
    module, use = re.findall(r"^```python\n(.*?)^```$", RECIPES[recipe], re.M | re.S)
    (project / "theirs.py").write_text(module)
    theirs = importlib.import_module("theirs")
    assert "assert " in use
    exec(compile(use, recipe, "exec"), vars(theirs))


def test_there_are_five_recipes():
    assert len(RECIPES) == 5


def test_every_call_of_the_page_of_problems_runs_as_it_stands():
    made, sections = {}, re.split(r"^## ", PROBLEMS, flags=re.M)
    for section in sections:
        for code in re.findall(r"^```python\n(.*?)^```$", section, re.M | re.S):
            exec(compile(code, section.splitlines()[0], "exec"), made)
    assert len(sections) > 15
