"""Every notebook runs top to bottom in a fresh kernel, and its prose says what its cells print."""

import re
import subprocess

import nbformat
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from gradeclip_utils.errors import GradeclipError
from studies.execute import execute, main, parameters_of
from tests.conftest import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FEW = 20  # examples, instead of the hundreds of a lesson
NUMBER = re.compile(
    r"(?<![\w./])[-+−–]?(\d*\.\d+)(?![\w]|\.\d)"
)  # decimals; versions and arXiv numbers are none
PERCENT = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?) ?%")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def troubles(notebook):
    """Errors and warnings among the outputs, with the source of their cell."""
    pairs = []
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if output.output_type == "error" or output.get("name") == "stderr":
                pairs.append((cell.source, output.get("evalue") or output.text))
    return pairs


def alternative_text(output):
    of_image = output.get("metadata", {}).get("image/png", {})
    return str(of_image.get("alt", ""))


def printed(notebook):
    """All text that the cells print or show, figures by their alternative text."""
    texts = []
    for cell in code_cells(notebook):
        for output in cell.outputs:
            data = output.get("data", {})
            html = data.get("text/html", "")
            texts += [
                output.get("text", ""),
                data.get("text/plain", ""),
                data.get("text/markdown", ""),
                re.sub(r'src="data:[^"]*"|<[^>]*>', " ", html),
                alternative_text(output),
            ]
    return "\n".join(texts)


def _rounds_to(number, text):
    digits = len(text.partition(".")[2])
    return abs(round(number, digits) - float(text)) < 1e-9


def unprinted(notebook):
    """Numbers of the prose that no cell prints, to as many digits as the prose has."""
    numbers = [float(text) for text in re.findall(r"\d*\.?\d+(?:e-?\d+)?", printed(notebook))]
    missing = []
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            continue
        prose = re.sub(
            r"`[^`]*`|\]\([^)]*\)|\$[^$]*\$|arXiv[: ]\d+\.\d+|https?://\S+|[-*] \[[^\]]*\]",
            " ",
            cell.source,
        )
        for text in NUMBER.findall(prose):
            if not any(_rounds_to(number, text) for number in numbers):
                missing.append(text)
        for text in PERCENT.findall(prose):
            percentages = [*numbers, *(100 * number for number in numbers)]
            is_printed = any(_rounds_to(number, text) for number in percentages)
            if not is_printed and text not in {"95", "50", "100"}:
                missing.append(f"{text} %")
    return missing


def test_the_committed_notebook_was_executed_once_from_top_to_bottom_and_is_small(path):
    notebook = read(path)
    nbformat.validate(notebook)
    counts = [cell.execution_count for cell in code_cells(notebook)]
    text = re.sub(r'"image/\w+": "[^"]*"', "", path.read_text())
    assert counts == list(range(1, len(counts) + 1))
    assert "widgets" not in notebook.metadata
    assert notebook.metadata.kernelspec.name == "python3"
    assert not troubles(notebook)
    for cell in notebook.cells:
        assert "execution" not in cell.metadata, "times of one run"
    assert not re.search(r"/(root|work|home|tmp|Users)/\w+", text)
    for cell in code_cells(notebook):
        for line in cell.source.splitlines():
            assert len(line) <= 88
    assert path.stat().st_size <= 1_000_000
    ids = {cell.id for cell in notebook.cells}
    assert len(ids) == len(notebook.cells)


@pytest.mark.parametrize("name", ["01_start_here", "explorer"])
def test_the_first_cell_is_the_panel_in_at_most_six_lines_and_no_later_cell_changes_it(name):
    cells = [
        cell.source.splitlines() for cell in code_cells(read(ROOT / "notebooks" / f"{name}.ipynb"))
    ]
    first = next(
        lines for lines in cells if not lines[0].startswith(("MODEL", "try:"))
    )  # after the setup and the parameters of a lesson
    assert len(first) <= 6 and first[-1].startswith(
        "explore("
    )  # it has no name, which a later cell could use


def test_every_number_of_the_prose_is_printed_by_a_cell(path):
    assert unprinted(read(path)) == []


def test_every_figure_has_an_alternative_text(path):
    figures = []
    for cell in code_cells(read(path)):
        figures += [output for output in cell.outputs if "image/png" in output.get("data", {})]
    assert figures
    for figure in figures:
        assert alternative_text(figure)


def test_links_lead_to_files_beside_it(path):
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            for link in re.findall(r"\]\(([^)#]+)", cell.source):
                assert "://" in link or (path.parent / link).exists(), link


@pytest.mark.slow
def test_a_fresh_kernel_runs_every_cell_on_few_examples(path, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADECLIP_RESULTS", str(tmp_path))  # the committed tables stay as they are
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = read(path)
    execute(notebook, {"N": FEW} if "N" in parameters_of(notebook) else {})
    assert all(cell.execution_count for cell in code_cells(notebook))
    assert "claim" in printed(notebook) or path.stem == "explorer"


@pytest.mark.weekly
def test_a_fresh_kernel_runs_it_in_full_and_its_claims_come_out_as_told(
    path, tmp_path, monkeypatch
):
    monkeypatch.setenv("GRADECLIP_RESULTS", str(tmp_path))
    notebook = read(path)
    execute(notebook)
    assert not troubles(notebook)
    for table in tmp_path.rglob("*.csv"):
        found = pd.read_csv(table)[["claim", "model", "answer"]]
        committed = pd.read_csv(ROOT / "results" / table.relative_to(tmp_path))
        assert_frame_equal(found, committed[["claim", "model", "answer"]])


@pytest.mark.parametrize("given", [{"MODLE": "emoji"}, {"n": 5}])
def test_a_parameter_that_the_notebook_lacks_is_refused(given):
    with pytest.raises(GradeclipError, match=f"takes no {next(iter(given))}: its parameters are"):
        execute(read(NOTEBOOKS[0]), given)


def test_a_notebook_that_fails_is_named_and_the_others_are_written(tmp_path, capfd):
    for name, source in [("01_good", "1 + 1"), ("02_bad_one", "1 / 0")]:
        cell = nbformat.v4.new_code_cell(source)
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / f"{name}.ipynb")
    files = [str(file) for file in sorted(tmp_path.glob("*.ipynb"))]
    assert main([*files, "--out", str(tmp_path / "out")]) == 1

    printed_lines = capfd.readouterr().out
    assert re.search(r"^1 of 2 · 01 Good · \d+ s$", printed_lines, re.M)
    assert "2 of 2 · 02 Bad one · failed" in printed_lines and "ZeroDivision" in printed_lines
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["01_good.ipynb"]


def test_no_committed_file_is_larger_than_ten_megabytes():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no checkout")
    for name in listed.stdout.splitlines():
        file = ROOT / name
        assert not file.is_file() or file.stat().st_size <= 10_000_000, name
