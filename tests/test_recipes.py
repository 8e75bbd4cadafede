"""The recipes of CONTRIBUTING.md and the how-to of problems, executed as they stand there."""

import re
from pathlib import Path

import pytest

from gradeclip_utils.datasets.registry import DATASETS
from gradeclip_utils.methods import METHODS
from gradeclip_utils.towers import REGISTERED

ROOT = Path(__file__).parent.parent
RECIPES = dict(
    re.findall(
        r"^### Add ([a-z ]+)\n(.*?)(?=^##)", (ROOT / "CONTRIBUTING.md").read_text(), re.M | re.S
    )
)
PROBLEMS = (ROOT / "docs/site/howto/problems.md").read_text()


@pytest.fixture
def as_before():
    """Names that a recipe registers are removed again."""
    registries = METHODS, DATASETS, REGISTERED
    before = [dict(registry) for registry in registries]
    yield
    for registry, content in zip(registries, before, strict=True):
        registry.clear()
        registry.update(content)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_works_outside_the_package(recipe, as_before):
    (code,) = re.findall(r"^```python\n(.*?)^```$", RECIPES[recipe], re.M | re.S)
    assert "assert " in code
    exec(compile(code, recipe, "exec"), {"__name__": "theirs"})


def test_there_are_five_recipes():
    assert len(RECIPES) == 5


@pytest.mark.slow
def test_every_call_of_the_page_of_problems_runs_as_it_stands():
    made, sections = {}, re.split(r"^## ", PROBLEMS, flags=re.M)
    for section in sections:
        for code in re.findall(r"^```python\n(.*?)^```$", section, re.M | re.S):
            exec(compile(code, section.splitlines()[0], "exec"), made)
    assert len(sections) > 15
