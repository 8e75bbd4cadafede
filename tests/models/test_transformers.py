"""Models of transformers: loaded from a folder with their processor, or refused in one sentence."""

import json
import sys
from functools import cache

import huggingface_hub
import numpy as np
import pytest
import torch

from gradeclip_utils import Clip, Explainer, UnsupportedModel, load_clip
from gradeclip_utils.errors import GradeclipError
from tests.tiny_transformers import (
    NAMES,
    build_tiny,
    images_of,
    processor_of,
    transformers,
    with_processor,
)

tiny_clip = cache(with_processor)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A `CLIPModel` and its processor as save_pretrained writes them."""
    folder = tmp_path_factory.mktemp("clip")
    model, processor = tiny_clip("CLIP")
    for part in (model, processor.image_processor, processor.tokenizer):
        part.save_pretrained(folder)
    settings = folder / "preprocessor_config.json"
    config = json.loads(settings.read_text()) | {"processor_class": "CLIPProcessor"}
    settings.write_text(json.dumps(config))
    return folder


def test_a_folder_is_loaded_as_the_model_in_hand_is_explained(folder, picture):
    in_hand = Clip.from_transformers(*tiny_clip("CLIP"))
    expected = Explainer(in_hand).explain(picture, "a red car")
    for name in (f"transformers:{folder}", str(folder)):
        clip = load_clip(name)
        explanation = Explainer(clip).explain(picture, "a red car")
        np.testing.assert_allclose(explanation.image_maps, expected.image_maps, atol=1e-6)
        assert [word.text for word in explanation.words[0]] == ["a", "red", "car"]
        assert clip.name == f"transformers:{folder}"
        assert str(clip).splitlines()[0] == clip.name  # which is also the source of the weights
        assert not clip.model.training
    assert "up to 16 tokens" in str(clip)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp16", torch.float16), ("pure_bf16", torch.bfloat16)]
)
def test_a_folder_is_loaded_in_half_precision(folder, precision, dtype, picture):
    clip = load_clip(f"transformers:{folder}", precision=precision)
    assert {parameter.dtype for parameter in clip.model.parameters()} == {dtype}
    assert Explainer(clip).explain(picture, "a red car").image_maps.any()


def test_a_processor_that_lacks_a_part_or_makes_other_images_is_refused():
    model, processor = tiny_clip("CLIP")
    images = processor.image_processor
    tokenizer = processor.tokenizer
    with pytest.raises(GradeclipError, match=r"needs its processor.*got no image processor"):
        Clip.from_transformers(model, tokenizer)
    with pytest.raises(GradeclipError, match=r"needs its processor.*got no tokenizer"):
        Clip.from_transformers(model, processor_of(images))

    sizes = "makes images of 24 x 24 pixels, and CLIPModel reads 32 x 32"
    with pytest.raises(GradeclipError, match=sizes):
        Clip.from_transformers(model, processor_of(images_of("CLIP", 24), tokenizer))


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_without_a_tokenizer_is_refused(name, tmp_path):
    model, processor = tiny_clip(name)
    model.save_pretrained(tmp_path)
    with pytest.raises(GradeclipError, match=r"save its processor too"):
        load_clip(tmp_path)
    processor.image_processor.save_pretrained(tmp_path)
    with pytest.raises(GradeclipError, match=r"save its processor too"):
        load_clip(tmp_path)


@pytest.mark.parametrize("half", ["Text", "Vision"])
def test_one_encoder_of_two_is_refused(half, folder, tmp_path):
    kind = getattr(transformers, f"CLIP{half}ModelWithProjection")
    config = getattr(build_tiny("CLIP").config, f"{half.lower()}_config")
    model = kind(config)
    with pytest.raises(UnsupportedModel, match="is one encoder of two, and a similarity needs"):
        Clip.from_transformers(model, tiny_clip("CLIP")[1])
    model.save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModel, match=f"CLIP{half}Model is one encoder of two"):
        load_clip(f"transformers:{tmp_path}")


@pytest.mark.parametrize("kind", ["Bert", "Siglip2"])
def test_another_kind_of_model_is_refused_by_name(kind, tmp_path):
    getattr(transformers, f"{kind}Config")().save_pretrained(tmp_path)
    message = f"{kind}Model is none of the known models: load one of CLIPModel, "
    with pytest.raises(UnsupportedModel, match=message):
        load_clip(f"transformers:{tmp_path}")


def test_a_name_that_cannot_be_loaded_is_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for name in ("nobody/nothing", str(tmp_path)):
        with pytest.raises(GradeclipError, match=f"transformers cannot load {name}: "):
            load_clip(f"transformers:{name}")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(GradeclipError, match="needs transformers: pip install"):
        load_clip(f"transformers:{folder}")
