"""The recipes of CONTRIBUTING.md and the how-to pages, executed as they stand there."""

import re

import pytest

from gradeclip_utils.datasets.registry import DATASETS
from gradeclip_utils.methods import METHODS
from gradeclip_utils.towers import REGISTERED
from tests.conftest import ROOT

RECIPES = dict(
    re.findall(
        r"^### Add ([a-z ]+)\n(.*?)(?=^##)", (ROOT / "CONTRIBUTING.md").read_text(), re.M | re.S
    )
)
HOWTO = ROOT / "docs" / "site" / "howto"
WITHOUT = {"index", "data", "teach"}  # `data` needs data sets, the others have no code
PAGES = sorted({page.stem for page in HOWTO.glob("*.md")} - WITHOUT)


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


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_every_call_of_a_how_to_page_runs_as_it_stands(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # pages write files
    variables = {}
    sections = re.split(r"^## ", (HOWTO / f"{name}.md").read_text(), flags=re.M)
    for section in sections:
        for code in re.findall(r"^```python\n(.*?)^```$", section, re.M | re.S):
            exec(compile(code, section.splitlines()[0], "exec"), variables)
