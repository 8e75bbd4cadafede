"""Lessons on another model: one of transformers with random weights, chosen by the environment as a user chooses it."""

import copy
from dataclasses import asdict
from pathlib import Path

import nbformat
import open_clip
import pytest
from nbclient import NotebookClient
from open_clip.transform import PreprocessCfg

from tests.conftest import build, wrap
from tests.test_notebooks import code_cells, troubles

pytest.importorskip("transformers")
pytestmark = pytest.mark.slow
NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny `CLIPModel` with its processor, as a folder on this machine."""
    from gradeclip_utils.models.convert import to_transformers

    place, model = tmp_path_factory.mktemp("hub") / "tiny", build(text={"context_length": 77})
    open_clip.model.set_model_preprocess_cfg(model, asdict(PreprocessCfg(size=32)))
    to_transformers(wrap(model), place)
    return place


@pytest.fixture
def chosen(folder, monkeypatch):
    monkeypatch.setenv("GRADECLIP_MODEL", str(folder))
    monkeypatch.delenv("GRADECLIP_PRETRAINED", raising=False)
    monkeypatch.setenv("GRADECLIP_DEVICE", "cpu")


@pytest.mark.parametrize("lesson", ["09_on_real_clip"])
def test_a_lesson_runs_on_a_model_of_transformers(lesson, chosen, folder):
    notebook = copy.deepcopy(nbformat.read(NOTEBOOKS / f"{lesson}.ipynb", as_version=4))
    place = {"metadata": {"path": NOTEBOOKS}}
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", allow_errors=True, resources=place)
    cells = code_cells(client.execute())
    assert not troubles(cells)
    said = "\n".join(output.get("text", "") for cell in cells for output in cell.outputs)
    assert f"transformers:{folder}" in said and "CLIPModel" in said
    assert "random weights: it shows" not in said  # whoever chose a model is told about that one
