"""Bundled models: two files each, and ordinary open_clip models in memory."""

import json

import open_clip
import pytest
import torch

from gradeclip_utils import load_clip
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.files import data_path
from gradeclip_utils.models import BUNDLED_MODELS, bundled


@pytest.mark.parametrize("name", BUNDLED_MODELS)
def test_a_bundled_model_is_found_by_its_name_and_says_how_it_was_trained(name):
    clip = load_clip(name)
    assert (clip.name, clip.pretrained) == (name, "bundled")
    assert clip.trained_on_drawn_scenes
    assert "car" in clip.vocabulary
    first, training, *towers = str(clip).splitlines()
    assert first == f"{name} (bundled), knows {len(clip.vocabulary)} words"
    assert training == f"  trained {clip.training}"
    assert len(clip.training) > 20
    assert len(towers) == 2

    config = json.loads(data_path(f"{name}.json").read_text())
    vocab_size = config["text_cfg"]["vocab_size"]
    assert vocab_size == open_clip.SimpleTokenizer().vocab_size


def test_a_students_missing_weights_are_its_teachers():
    teacher = load_clip("emoji").model.state_dict()
    student = load_clip("emoji-resnet").model.state_dict()
    for name, value in student.items():
        if not name.startswith("visual."):
            assert torch.equal(value, teacher[name]), name


def test_a_bundled_model_is_loaded_in_half_precision(bundled, picture):
    model = load_clip("emoji", precision="bf16").model
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    pixels = bundled.preprocess(picture)[None]
    with torch.no_grad():
        expected = bundled.model.encode_image(pixels, normalize=True)
        embedding = model.encode_image(pixels.bfloat16(), normalize=True)
    assert (embedding * expected).sum() > 0.99


def test_a_bundled_model_that_an_installed_package_lacks_is_refused_with_its_place(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(bundled, "data_path", lambda name: tmp_path / name)
    with pytest.raises(GradeclipError, match=r"holds 'emoji' alone, .* has emoji-bag in data/"):
        load_clip("emoji-bag")
    with pytest.raises(GradeclipError, match="there is no openai"):
        load_clip("emoji", "openai")
