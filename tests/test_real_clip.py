"""Lessons on a model that a reader has: a `CLIPModel` of transformers on disk, named by the environment."""

import os
import re
from pathlib import Path

import nbformat
import pytest

from gradeclip_utils.models.convert import to_transformers
from tests.conftest import build, wrap
from tests.one_kernel import errors, execute_in_one_kernel
from tests.test_notebooks import code_cells

pytest.importorskip("transformers")

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
LESSONS = ["01", "02", "03", "04", "05", "06", "09"]
MEASURED = ["03", "04", "05", "06"]  # where cells loop over so many images that a large model would take long
SMALLER = {  # what takes as long with any model: scenes drawn, seen, batches of the training counted again, bootstraps
    r"^N_CAUSAL = \d+": "N_CAUSAL = 30",
    r"^N_WORDS = \d+": "N_WORDS = 20",
    r"N_CHECKS = (\d+, \d+), \d+": r"N_CHECKS = \1, 2",
    r"attribute_exposure\(steps=\d+\)": "attribute_exposure(steps=4)",
    r"^DRAWS = \d+": "DRAWS = 20",
    r"count_words\(sampled_batches\(\)\)": "training_exposure()['sample']",
    r"(word_study\(clip, .*)\)$": r"\1, draw=1500)",
    r"portraits\(explainer, \d+, kind\)": "portraits(explainer, 40, kind)",
}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Random weights with CLIP's own vocabulary and context, as `save_pretrained` leaves them."""
    place = tmp_path_factory.mktemp("real") / "clip"
    model = build({"layers": 2}, {"context_length": 77, "layers": 2})
    to_transformers(wrap(model), place)
    return place


@pytest.fixture(scope="module")
def executed(folder):
    """Number -> lesson, executed on the model."""
    lessons, smaller = {}, set()
    for number in LESSONS:
        (path,) = NOTEBOOKS.glob(f"{number}_*.ipynb")
        lessons[number] = nbformat.read(path, as_version=4)
        for cell in code_cells(lessons[number]):
            cell.outputs = []
            for said, instead in SMALLER.items():
                cell.source, times = re.subn(said, instead, cell.source, flags=re.M)
                smaller |= {said} if times else set()
    assert smaller == set(SMALLER), "a lesson says it otherwise now"
    model = {"GRADECLIP_MODEL": str(folder), "GRADECLIP_PRETRAINED": "", "GRADECLIP_DEVICE": "cpu"}
    execute_in_one_kernel(lessons.values(), NOTEBOOKS, {**os.environ, **model, "GRADECLIP_MINUTES": "0.0001"})
    return lessons


@pytest.mark.parametrize("number", LESSONS)
def test_a_lesson_runs_on_a_model_of_transformers_and_says_so(number, folder, executed):
    assert not errors(executed[number])
    said = "".join(output.get("text", "") for cell in code_cells(executed[number]) for output in cell.outputs)
    assert f"transformers:{folder}" in said and "CLIPModel" in said
    assert (" are taken: " in said) == (number in MEASURED)
