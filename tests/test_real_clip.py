"""Lessons on a model of one's own: each that takes a model runs on a folder of open_clip with random weights."""

import json
from pathlib import Path

import nbformat
import pytest
from safetensors.torch import save_file

from studies.__main__ import run_lesson
from tests.conftest import TINY_TEXT, TINY_VISION, build

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
LESSONS = ["01", "02", "03", "04", "05", "06"]  # 07 tunes and 08 compares bundled models; 09 prints no name
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Random weights with CLIP's own vocabulary and context, as open_clip publishes a model."""
    place = tmp_path_factory.mktemp("real")
    vision, text = {**TINY_VISION, "layers": 4}, {**TINY_TEXT, "context_length": 77}
    config = {"embed_dim": 48, "vision_cfg": vision, "text_cfg": text}
    (place / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {"size": 32}}))
    state = {key: value.contiguous() for key, value in build(vision, text).state_dict().items()}
    save_file(state, place / "open_clip_model.safetensors")
    return place


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_lesson_runs_on_a_model_of_ones_own_and_says_so(lesson, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADECLIP_MINUTES", "0.0001")
    executed = nbformat.read(run_lesson(lesson, str(folder), results=tmp_path), as_version=4)
    outputs = [output.get("text", "") for cell in executed.cells for output in cell.get("outputs", [])]
    assert str(folder) in "".join(outputs), "the model is named in what the lesson prints"
