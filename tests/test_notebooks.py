"""What every committed notebook keeps to. `make test` also executes each of them, with nbval."""

import ast
import json
import re
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
pytestmark = pytest.mark.skipif(not NOTEBOOKS, reason="there are no notebooks yet")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem, scope="module")
def path(request):
    return request.param


@pytest.fixture(scope="module")
def notebook(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def test_it_is_a_valid_notebook_for_the_kernel_that_everybody_has(notebook):
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"


def test_it_carries_no_widget_state(notebook):
    assert "widgets" not in notebook.metadata


def test_it_was_executed_top_to_bottom_in_one_fresh_kernel(notebook):
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))


def test_it_shows_no_error_and_no_warning(notebook):
    assert not [output for output in outputs(notebook) if output.output_type == "error"]
    assert not [output.text for output in outputs(notebook) if output.get("name") == "stderr"]


def test_it_names_no_path_of_the_machine_that_made_it(path):
    text = re.sub(r'"image/\w+": "[^"]*"', "", path.read_text())  # a picture in base64 may spell anything
    assert not re.search(r"/(root|work|home|tmp|Users)/\w+", text)


def test_no_cell_is_longer_than_a_reader_can_follow(notebook):
    assert max((len(cell.source.splitlines()) for cell in code_cells(notebook)), default=0) <= 25


def test_it_stays_small(path):
    assert path.stat().st_size < 3_000_000


def test_its_key_figures_are_compared_whenever_it_is_executed(notebook):
    """nbval compares the output of marked cells with what is committed: a stale figure fails `make test`."""
    marked = [cell for cell in code_cells(notebook) if "# NBVAL_CHECK_OUTPUT" in cell.source]
    assert marked and all(output.output_type == "stream" for cell in marked for output in cell.outputs)
    assert all(re.search(r"\d", "".join(output.text for output in cell.outputs)) for cell in marked)


def test_solutions_pass_their_own_checks_and_unsolved_exercises_do_not(notebook, monkeypatch):
    """A folded solution defines what is asked for, then asserts: run it with the definition, and without."""
    monkeypatch.setattr("builtins.print", lambda *values, **options: None)
    lesson = {}
    for cell in code_cells(notebook):
        exec(cell.source, lesson)
    text = [cell.source for cell in notebook.cells if cell.cell_type == "markdown" and "Solution" in cell.source]
    solutions = [code for source in text for code in re.findall(r"```python\n(.*?)```", source, re.S)]
    assert 3 <= len(solutions) <= 6
    for code in solutions:
        exec(code, dict(lesson))
        parts = ast.parse(code).body
        asked = [part.name for part in parts if isinstance(part, ast.FunctionDef)]
        checks = ast.Module([part for part in parts if not isinstance(part, ast.FunctionDef)], [])
        assert asked[0] in lesson, f"{asked[0]} has no stub"
        with pytest.raises((AssertionError, TypeError, ValueError, AttributeError)):
            exec(compile(checks, "checks", "exec"), dict(lesson))


def test_it_shows_figures(notebook):
    kinds = {kind for output in outputs(notebook) for kind in output.get("data", {})}
    assert "image/png" in kinds


def test_cells_have_unique_identifiers(path):
    identifiers = [cell["id"] for cell in json.loads(path.read_text())["cells"]]
    assert len(set(identifiers)) == len(identifiers)
