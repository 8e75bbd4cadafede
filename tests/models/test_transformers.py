"""Models of transformers: loaded from a folder with their processor, or refused in one sentence that says why."""

import json
import os
import shutil
import sys
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gradeclip_utils import Clip, Explainer, UnsupportedModel, load_clip
from gradeclip_utils.errors import GradeclipError
from tests.refusals.cases import named
from tests.tiny_transformers import (
    build_tiny,
    images_of,
    processor_of,
    tokenizer_of,
    transformers,
    with_processor,
)

whole = cache(with_processor)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A `CLIPModel` and its processor as save_pretrained writes them."""
    place = tmp_path_factory.mktemp("clip")
    model, processor = whole("CLIP")
    model.save_pretrained(place)
    processor.image_processor.save_pretrained(place)
    processor.tokenizer.save_pretrained(place)
    config = json.loads((place / "preprocessor_config.json").read_text())
    (place / "preprocessor_config.json").write_text(
        json.dumps({**config, "processor_class": "CLIPProcessor"})
    )
    return place


@pytest.fixture
def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "model")


def test_a_folder_is_loaded_as_the_model_in_hand_is_explained(folder, picture, capfd):
    expected = Explainer(Clip.from_transformers(*whole("CLIP"))).explain(picture, "a red car")
    for name in (f"transformers:{folder}", str(folder)):
        clip = load_clip(name)
        found = Explainer(clip).explain(picture, "a red car")
        np.testing.assert_allclose(found.image_maps, expected.image_maps, atol=1e-6)
        assert [word.text for word in found.words[0]] == ["a", "red", "car"]
        assert clip.name == f"transformers:{folder}" and found.provenance["model"] == clip.name
        assert found.provenance["versions"]["transformers"] == transformers.__version__
        assert not clip.model.training and "Loading weights" not in capfd.readouterr().err
    assert "up to 16 tokens" in str(clip)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp16", torch.float16), ("pure_bf16", torch.bfloat16)]
)
def test_a_folder_is_loaded_in_half_precision(folder, precision, dtype, picture):
    clip = load_clip(f"transformers:{folder}", precision=precision)
    assert {parameter.dtype for parameter in clip.model.parameters()} == {dtype}
    assert Explainer(clip).explain(picture, "a red car").image_maps.any()


def processors():
    """Name -> model, processor and the reason why the two do not belong together."""
    (clip, own), word_piece = whole("CLIP"), tokenizer_of("word-piece")
    images, tokenizer = own.image_processor, own.tokenizer
    sizes = {
        "vocab_size": len(word_piece),
        "max_position_embeddings": 16,
        "eos_token_id": word_piece.eos_token_id + 1,
    }
    other = build_tiny("ChineseCLIP", text={"vocab_size": len(word_piece), "pad_token_id": 5})
    needs, another = (
        "CLIPModel needs its processor.*got no ",
        "the processor is another model's: .*",
    )
    left, padless, more = (tokenizer_of("byte-pair") for _ in range(3))
    left.padding_side, padless.pad_token = "left", None
    more.add_tokens(["<new>"])
    meanless = images_of("CLIP")
    meanless.image_mean = None
    return [
        ("none", clip, None, f"{needs}processor: AutoProcessor"),
        ("a tokenizer", clip, tokenizer, f"{needs}image processor: AutoProcessor"),
        (
            "an image processor",
            clip,
            SimpleNamespace(image_processor=images),
            f"{needs}tokenizer: AutoProcessor",
        ),
        (
            "another size",
            clip,
            processor_of(images_of("CLIP", 24), tokenizer),
            f"{another}makes images of 24 x 24 pixels, and CLIPModel reads 32 x 32",
        ),
        (
            "another vocabulary",
            clip,
            processor_of(images, word_piece),
            another + r"its \w+ (has \d+ tokens|ends a prompt)",
        ),
        (
            "another end",
            build_tiny("CLIP", text=sizes),
            processor_of(images, word_piece),
            "ends a prompt with token .*, which is not where CLIPModel reads it",
        ),
        (
            "another padding",
            other,
            processor_of(images_of("ChineseCLIP"), word_piece),
            "pads with token 0, and ChineseCLIPModel with 5",
        ),
        (
            "an added token",
            clip,
            processor_of(images, more),
            "has the added token '<new>', and CLIPModel has no row",
        ),
        ("padding on the left", clip, processor_of(images, left), "pads on the left"),
        (
            "no padding",
            clip,
            processor_of(images, padless),
            "the tokenizer of CLIPModel cannot read a prompt",
        ),
        (
            "no mean",
            clip,
            processor_of(meanless, tokenizer),
            "image processor of CLIPModel cannot prepare an image",
        ),
    ]


def test_a_processor_that_is_not_the_models_own_is_refused():
    for name, model, processor, message in processors():
        with pytest.raises(GradeclipError, match=message):
            Clip.from_transformers(model, processor)
            pytest.fail(name)


def weights(place, change):
    """The weights of a folder, changed."""
    state = load_file(place / "model.safetensors")
    change(state)
    save_file(state, place / "model.safetensors", metadata={"format": "pt"})


def only_pickles(place):
    (place / "model.safetensors").unlink()
    torch.save({"weight": torch.zeros(3)}, place / "pytorch_model.bin")


def without_vision(state):
    for key in [key for key in state if "vision" in key]:
        del state[key]


def bert(place):
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    transformers.BertModel(config).save_pretrained(place)


FOLDERS = [
    ("another model", bert, "BertModel is none of the known models: load one of CLIPModel, "),
    ("pickles only", only_pickles, r"cannot be loaded: .*model\.safetensors"),
    (
        "no weights",
        lambda p: (p / "model.safetensors").unlink(),
        "cannot be loaded: .*model.safetensors",
    ),
    (
        "no processor",
        lambda p: [file.unlink() for file in p.glob("*processor_config.json")],
        "has no processor",
    ),
    (
        "no config",
        lambda p: (p / "config.json").unlink(),
        r"there is no folder .*/model with config\.json",
    ),
    ("cut off", lambda p: os.truncate(p / "model.safetensors", 99), "cannot be loaded: "),
    (
        "NaN",
        lambda p: weights(p, lambda s: s["text_projection.weight"].fill_(torch.nan)),
        r"NaN\): text_pr",
    ),
    (
        "one encoder",
        lambda p: weights(p, without_vision),
        r"has no weights for \d+ parts of CLIPModel, vision_model",
    ),
    (
        "another shape",
        lambda p: weights(p, lambda s: s.update({"text_projection.weight": torch.zeros(5, 64)})),
        "weights of other shapes than its config says: text_projection.weight",
    ),
]


@pytest.mark.parametrize(("change", "message"), named(FOLDERS))
def test_a_folder_that_is_incomplete_or_damaged_is_refused(change, message, copied):
    change(copied)
    with pytest.raises(GradeclipError, match=message):
        load_clip(f"transformers:{copied}")


@pytest.mark.parametrize("half", ["Text", "Vision"])
def test_one_encoder_of_two_is_refused(half, copied):
    part = getattr(transformers, f"CLIP{half}ModelWithProjection")
    model = part(getattr(build_tiny("CLIP").config, f"{half.lower()}_config"))
    with pytest.raises(
        UnsupportedModel,
        match="is one encoder of two, and a similarity needs both: load one of CLIP",
    ):
        Clip.from_transformers(model, whole("CLIP")[1])
    model.save_pretrained(copied)
    with pytest.raises(
        UnsupportedModel, match=f"CLIP{half}ModelWithProjection is one encoder of two"
    ):
        load_clip(f"transformers:{copied}")


def test_a_name_that_cannot_be_loaded_is_refused_at_once(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("gradeclip_utils.models.open_clip.hub.HF_HUB_OFFLINE", True)
    with pytest.raises(
        GradeclipError, match="nobody/nothing is not in the cache .*HF_HUB_OFFLINE is set"
    ):
        load_clip("transformers:nobody/nothing")
    with pytest.raises(GradeclipError, match=f"there is no folder {tmp_path}/nowhere"):
        load_clip(f"transformers:{tmp_path}/nowhere")
    with pytest.raises(GradeclipError, match="There is no file of weights openai"):
        load_clip(f"transformers:{folder}", "openai")
    with pytest.raises(
        GradeclipError, match=r"the state dict does not fit .*: it lacks .*; it has besides x\."
    ):
        load_clip(f"transformers:{folder}", {"x": torch.ones(1)})
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(GradeclipError, match=r"needs transformers: pip install transformers"):
        load_clip(f"transformers:{folder}")
