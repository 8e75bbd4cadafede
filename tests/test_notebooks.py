"""What every committed notebook keeps to, as it stands and when a fresh kernel executes it.

A cell marked `# NBVAL_CHECK_OUTPUT` (nbval's own mark) prints key figures that every execution has to print again.
"""

import ast
import copy
import html
import json
import re
from itertools import takewhile
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
pytestmark = pytest.mark.skipif(not NOTEBOOKS, reason="there are no notebooks yet")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem, scope="module")
def path(request):
    return request.param


@pytest.fixture(scope="module")
def notebook(path):
    return nbformat.read(path, as_version=4)


@pytest.fixture(scope="module")
def executed(path, notebook):
    """The notebook, executed top to bottom in a fresh kernel, then its exercises, two cells a solution, and at the end
    what is wrong with the texts of the figures that its cells gave.
    """
    lesson = copy.deepcopy(notebook)
    for code in solutions(notebook):
        lesson.cells += [nbformat.v4.new_code_cell(in_a_copy(code)), nbformat.v4.new_code_cell(unsolved(code))]
    lesson.cells.append(nbformat.v4.new_code_cell(in_a_copy(READ_FIGURES)))
    place = {"metadata": {"path": path.parent}}
    return NotebookClient(lesson, timeout=1800, kernel_name="python3", allow_errors=True, resources=place).execute()


READ_FIGURES = (
    (Path(__file__).parent / "legible.py").read_text()
    + """
import gc

from gradeclip_utils.plots import InlineFigure

made = [one for one in gc.get_objects() if issubclass(type(one), InlineFigure)]  # asks no stand-in what it stands for
faults = {fault for figure in made for fault in unreadable(figure) + untold(figure)}
print(f"{len(made)} figures", *sorted(faults), sep="; ")
"""
)


def in_a_copy(code):
    return f"exec({code!r}, dict(globals()))"


def unsolved(code):
    """A cell that fails if the checks of a solution pass with the stub of the exercise instead of the solution."""
    checks = ast.Module([part for part in ast.parse(code).body if not isinstance(part, ast.FunctionDef)], [])
    return "\n".join(
        [
            "try:",
            f"    {in_a_copy(ast.unparse(checks))}",
            "except (AssertionError, TypeError, ValueError, AttributeError):",
            "    pass",
            "else:",
            "    raise AssertionError('the checks pass although nothing is solved')",
        ]
    )


def solutions(notebook):
    text = [cell.source for cell in notebook.cells if cell.cell_type == "markdown" and "Solution" in cell.source]
    return [code for source in text for code in re.findall(r"```python\n(.*?)```", source, re.S)]


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def troubles(cells):
    """What went wrong or was warned of: (source, message) of each."""
    return [
        (cell.source, output.get("evalue") or output.text)
        for cell in cells
        for output in cell.outputs
        if output.output_type == "error" or output.get("name") == "stderr"
    ]


def marked(cells):
    """What the cells print that are marked to print the same at every execution."""
    return ["".join(output.text for output in cell.outputs) for cell in cells if "# NBVAL_CHECK_OUTPUT" in cell.source]


def test_it_is_a_valid_notebook_for_the_kernel_that_everybody_has(notebook):
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"


def test_it_carries_no_widget_state(notebook):
    assert "widgets" not in notebook.metadata


def test_it_was_executed_top_to_bottom_in_one_fresh_kernel(notebook):
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))


def test_it_shows_no_error_and_no_warning(notebook):
    assert not troubles(code_cells(notebook))


def test_a_fresh_kernel_executes_it_without_error_or_warning(notebook, executed):
    assert not troubles(code_cells(executed)[: len(code_cells(notebook))])


def test_a_fresh_kernel_prints_the_same_key_figures(notebook, executed):
    key_figures = marked(code_cells(notebook))
    assert key_figures and all(re.search(r"\d", text) for text in key_figures)
    assert marked(code_cells(executed)) == key_figures


SAID = re.compile(
    r"^(?:in units of [^:]+: |right in +\d+%\. )?(?:- )?(.+): "
    r"(?:\*\*)?(?:yes|no, the opposite|no difference that matters|cannot tell)"
    r"(?:, but perhaps too small to matter)?(?:\*\*)?, [+-][\d.]+ \[[+-][\d.]+, [+-][\d.]+\], n = \d+",
    re.MULTILINE,
)


def test_every_verdict_that_a_cell_shows_is_in_the_takeaways(notebook):
    texts = [output.get("text") or output.get("data", {}).get("text/markdown", "") for output in outputs(notebook)]
    texts = [html.unescape(text) for text in texts]
    takeaways = [text for text in texts if re.match(r"\d+ claims: ", text)]
    claims = [claim for text in texts for claim in SAID.findall(text)]
    assert bool(claims) == bool(takeaways)
    assert not [claim for claim in claims if f"- {claim}: **" not in takeaways[-1]]


def test_it_names_no_path_of_the_machine_that_made_it(path):
    text = re.sub(r'"image/\w+": "[^"]*"', "", path.read_text())  # a picture in base64 may spell anything
    assert not re.search(r"/(root|work|home|tmp|Users)/\w+", text)


def test_what_contradicts_what_is_published_stands_first_among_the_key_figures(notebook):
    said = [output.get("data", {}).get("text/markdown", "") for output in outputs(notebook)]
    against = re.findall(r"^(?:- )?(.+): \*\*.+; against what is published \(", html.unescape("\n".join(said)), re.M)
    first, *lines = marked(code_cells(notebook))[0].splitlines()
    listed = list(takewhile(lambda line: line.startswith("  "), lines)) if first.startswith("Published") else []
    assert not [claim for claim in against if not any(line.strip().startswith(claim) for line in listed)]


def test_no_cell_is_longer_than_a_reader_can_follow(notebook):
    assert max((len(cell.source.splitlines()) for cell in code_cells(notebook)), default=0) <= 25


def test_it_stays_small(path):
    assert path.stat().st_size < 4_000_000  # every image is there as HTML and as a PNG


def test_solutions_pass_their_own_checks_and_unsolved_exercises_do_not(notebook, executed):
    """A folded solution defines what is asked for, then asserts: run it with the definition, and without."""
    attempts = code_cells(executed)[len(code_cells(notebook)) : -1]
    assert 3 <= len(attempts) // 2 <= 6
    assert not [(cell.source, output.evalue) for cell in attempts for output in cell.outputs if "evalue" in output]


def test_whatever_is_written_in_its_figures_can_be_read_and_the_headline_says_what_they_come_to(executed):
    said = executed.cells[-1].outputs[0].text.strip()
    assert re.fullmatch(r"[1-9]\d* figures", said), said


def test_every_exercise_has_a_stub(notebook):
    defined = {
        part.name
        for cell in code_cells(notebook)
        for part in ast.parse(cell.source).body
        if isinstance(part, ast.FunctionDef)
    }
    asked = [
        [part.name for part in ast.parse(code).body if isinstance(part, ast.FunctionDef)]
        for code in solutions(notebook)
    ]
    assert not [names[0] for names in asked if names[0] not in defined]


def test_it_shows_figures(notebook):
    kinds = {kind for output in outputs(notebook) for kind in output.get("data", {})}
    assert "image/png" in kinds


def test_every_picture_says_what_it_shows_to_those_who_cannot_see_it(notebook):
    pictures = [output for output in outputs(notebook) if "image/png" in output.get("data", {})]
    told = [output.metadata.get("image/png", {}).get("alt", "") for output in pictures]
    assert all(told) and not [one for one in told if one.startswith("a scene: ")]  # which has no headline


def test_its_links_lead_to_files_beside_it(path, notebook):
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    links = [link for link in re.findall(r"\]\(([^)#]+)", prose) if "://" not in link]
    assert links and all((path.parent / link).exists() for link in links), links


def test_no_bar_of_something_that_took_long_is_kept(notebook):
    shown = [output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in outputs(notebook)]
    assert not [text for text in shown if re.search(r"\d%\|", text)]


def test_cells_have_unique_identifiers(path):
    identifiers = [cell["id"] for cell in json.loads(path.read_text())["cells"]]
    assert len(set(identifiers)) == len(identifiers)
