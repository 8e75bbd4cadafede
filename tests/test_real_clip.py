"""Lessons on a model that a reader has: a `CLIPModel` of transformers on disk, named by the environment."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from gradeclip_utils.models.convert import to_transformers
from tests.conftest import build, wrap
from tests.test_notebooks import code_cells

pytest.importorskip("transformers")

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
LESSONS = ["01", "02", "03", "04", "05", "06", "09"]
MEASURED = ["03", "04", "05", "06"]  # where cells loop over so many images that a large model would take long
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Random weights with CLIP's own vocabulary and context, as `save_pretrained` leaves them."""
    place = tmp_path_factory.mktemp("real") / "clip"
    model = build({"image_size": 64, "layers": 2}, {"context_length": 77, "layers": 2})
    to_transformers(wrap(model, size=64), place)
    return place


@pytest.mark.parametrize("number", LESSONS)
def test_a_lesson_runs_on_a_model_of_transformers_and_says_so(number, folder):
    (path,) = NOTEBOOKS.glob(f"{number}_*.ipynb")
    lesson = nbformat.read(path, as_version=4)
    for cell in code_cells(lesson):
        cell.outputs = []
    surroundings = {**os.environ, "GRADECLIP_MODEL": str(folder), "GRADECLIP_PRETRAINED": "", "GRADECLIP_DEVICE": "cpu"}
    surroundings["GRADECLIP_MINUTES"] = "0.01"
    place = {"metadata": {"path": path.parent}}
    client = NotebookClient(lesson, timeout=1800, kernel_name="python3", allow_errors=True, resources=place)
    outputs = [output for cell in code_cells(client.execute(env=surroundings)) for output in cell.outputs]
    assert not [output.evalue for output in outputs if output.output_type == "error"]
    said = "".join(output.get("text", "") for output in outputs)
    assert f"transformers:{folder}" in said and "CLIPModel" in said
    assert (" are taken: " in said) == (number in MEASURED)
