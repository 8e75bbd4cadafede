"""Models of transformers: loaded from a folder with their processor, or refused in one sentence that says why."""

import copy
import json
import shutil
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gradeclip_utils import Clip, Explainer, UnsupportedModel, load_clip
from gradeclip_utils.errors import GradeclipError
from tests.huggingface import (
    NAMES,
    build_hub,
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
    (place / "preprocessor_config.json").write_text(json.dumps({**config, "processor_class": "CLIPProcessor"}))
    return place


@pytest.fixture
def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "model")


def test_a_folder_is_loaded_as_the_model_in_hand_is_explained(folder, picture):
    expected = Explainer(Clip.from_transformers(*whole("CLIP"))).explain(picture, "a red car")
    for name in (f"transformers:{folder}", str(folder)):
        clip = load_clip(name)
        found = Explainer(clip).explain(picture, "a red car")
        np.testing.assert_allclose(found.image_maps, expected.image_maps, atol=1e-6)
        assert [word.text for word in found.words[0]] == ["a", "red", "car"]
        assert clip.name == f"transformers:{folder}" and found.provenance["model"] == clip.name
        assert found.provenance["versions"]["transformers"] == transformers.__version__
        assert not clip.model.training
    assert "explained word by word, up to 14 pieces of 16 tokens" in clip.describe()


@pytest.mark.parametrize(("precision", "dtype"), [("fp16", torch.float16), ("pure_bf16", torch.bfloat16)])
def test_a_folder_is_loaded_in_half_precision(folder, precision, dtype, picture):
    clip = load_clip(f"transformers:{folder}", precision=precision)
    assert {parameter.dtype for parameter in clip.model.parameters()} == {dtype}
    assert Explainer(clip).explain(picture, "a red car").image_maps.any()


@pytest.mark.parametrize("name", NAMES)
def test_what_a_processor_crops_is_where_the_map_lies(name, picture):
    clip = Clip.from_transformers(*whole(name))
    box = Explainer(clip).explain(picture, "a").box
    cropped = name in ("CLIP", "MetaClip2", "AltCLIP")
    assert box == pytest.approx((15, 0, 65, 50) if cropped else (0, 0, 80, 50), abs=1)


# --- what is refused ---------------------------------------------------------------------------------------------


def test_a_model_without_its_processor_is_refused():
    model, processor = whole("CLIP")
    for wrong, missing in [(None, "processor"), (processor.tokenizer, "image processor"),
                           (SimpleNamespace(image_processor=processor.image_processor), "tokenizer")]:  # fmt: skip
        with pytest.raises(GradeclipError, match=f"CLIPModel needs its processor.*got no {missing}: AutoProcessor"):
            Clip.from_transformers(model, wrong)


@pytest.mark.parametrize(
    ("name", "images", "tokens", "reason"),
    [
        ("CLIP", ("CLIP", 24), None, "makes images of 24 x 24 pixels, and CLIPModel reads 32 x 32"),
        ("CLIP", None, "word-piece", r"its \w+ (has \d+ tokens, and CLIPModel knows|ends a prompt)"),
        ("ChineseCLIP", None, "sentence-piece", r"its \w+ (has \d+ tokens, and ChineseCLIPModel|pads with token 2)"),
        pytest.param("Siglip2", ("CLIP", 32), None, "Siglip2Model reads patches of 8 pixels of images of any shape",
                     marks=pytest.mark.skipif("Siglip2" not in NAMES, reason="not in this version")),
    ],
)  # fmt: skip
def test_a_processor_of_another_model_is_refused(name, images, tokens, reason):
    model, processor = whole(name)
    wrong = processor_of(
        images_of(*images) if images else processor.image_processor,
        tokenizer_of(tokens) if tokens else processor.tokenizer,
    )
    with pytest.raises(GradeclipError, match=f"the processor is another model's: .*{reason}"):
        Clip.from_transformers(model, wrong)


def test_a_vocabulary_of_the_right_size_with_another_end_or_padding_is_refused():
    tokenizer = tokenizer_of("word-piece")
    count, end = len(tokenizer), tokenizer.eos_token_id
    sizes = {"vocab_size": count, "max_position_embeddings": 16, "eos_token_id": end + 1}
    with pytest.raises(GradeclipError, match=f"ends a prompt with token {end}, which is not where CLIPModel reads it"):
        Clip.from_transformers(build_hub("CLIP", text=sizes), processor_of(images_of("CLIP"), tokenizer))
    other = build_hub("ChineseCLIP", text={"vocab_size": count, "pad_token_id": 5})
    with pytest.raises(GradeclipError, match="pads with token 0, and ChineseCLIPModel with 5"):
        Clip.from_transformers(other, processor_of(images_of("ChineseCLIP"), tokenizer))


@pytest.mark.parametrize(("half", "other"), [("Text", "image"), ("Vision", "text")])
def test_one_encoder_of_two_is_refused(half, other, copied):
    part = getattr(transformers, f"CLIP{half}ModelWithProjection")
    model = part(getattr(build_hub("CLIP").config, f"{half.lower()}_config"))
    with pytest.raises(UnsupportedModel, match=f"is one encoder of two: a similarity needs the {other} encoder too"):
        Clip.from_transformers(model, whole("CLIP")[1])
    model.save_pretrained(copied)
    with pytest.raises(UnsupportedModel, match=f"CLIP{half}ModelWithProjection is one encoder of two"):
        load_clip(f"transformers:{copied}")


def test_another_model_of_transformers_is_refused_by_name(copied):
    config = transformers.BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    transformers.BertModel(config).save_pretrained(copied)
    with pytest.raises(UnsupportedModel, match="BertModel is none of the models of transformers that are known"):
        load_clip(f"transformers:{copied}")


def test_a_folder_with_pickles_only_is_refused(copied):
    model = torch.zeros(3)
    (copied / "model.safetensors").unlink()
    torch.save({"weight": model}, copied / "pytorch_model.bin")
    with pytest.raises(GradeclipError, match=r"has its weights only as pickles \(pytorch_model.bin\), which"):
        load_clip(f"transformers:{copied}")
    (copied / "pytorch_model.bin").unlink()
    with pytest.raises(GradeclipError, match="has a config.json and no weights"):
        load_clip(f"transformers:{copied}")


def test_a_folder_that_lacks_a_part_is_refused(copied, tmp_path):
    for name in ("preprocessor_config.json", "processor_config.json"):
        (copied / name).unlink(missing_ok=True)
    with pytest.raises(GradeclipError, match="has no processor that can be loaded"):
        load_clip(f"transformers:{copied}")
    (copied / "config.json").unlink()
    with pytest.raises(GradeclipError, match=r"has no config.json, so it holds no model of transformers"):
        load_clip(f"transformers:{copied}")
    with pytest.raises(GradeclipError, match=f"there is no folder {tmp_path}/nowhere"):
        load_clip(f"transformers:{tmp_path}/nowhere")


def test_weights_that_are_damaged_or_not_finite_are_refused(copied):
    model = copy.deepcopy(whole("CLIP")[0])
    model.text_projection.weight.data[0, 0] = torch.nan
    model.save_pretrained(copied)
    with pytest.raises(GradeclipError, match=r"are not finite \(NaN\): text_projection.weight"):
        load_clip(f"transformers:{copied}")
    (copied / "model.safetensors").write_bytes((copied / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(GradeclipError, match="is damaged, cut off, or not a checkpoint"):
        load_clip(f"transformers:{copied}")


def test_weights_of_one_encoder_beside_a_config_of_two_are_refused(copied):
    state = load_file(copied / "model.safetensors")
    save_file({key: value for key, value in state.items() if "vision" not in key}, copied / "model.safetensors",
              metadata={"format": "pt"})  # fmt: skip
    with pytest.raises(GradeclipError, match=r"has no weights for \d+ parts of CLIPModel, vision_model"):
        load_clip(f"transformers:{copied}")


def test_a_weight_of_another_shape_than_the_config_says_is_refused_by_its_name(copied):
    state = load_file(copied / "model.safetensors")
    state["text_projection.weight"] = torch.zeros(5, 64)
    save_file(state, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(GradeclipError, match="weights of other shapes than its config says: text_projection.weight"):
        load_clip(f"transformers:{copied}")


def test_the_vocabulary_of_a_tokenizer_is_made_once():
    """As fast as a dictionary: it was built anew for every token that was looked up."""
    tokenizer = Clip.from_transformers(*whole("CLIP")).tokenizer
    assert tokenizer.decoder is tokenizer.decoder
    ids = tokenizer.encode("a red car")
    assert "".join(tokenizer.decoder[token] for token in ids).replace("</w>", " ").split() == ["a", "red", "car"]


def test_a_processor_that_does_not_fit_its_model_is_refused_in_a_sentence():
    model, processor = whole("CLIP")
    for change, message in [
        (lambda t: t.add_tokens(["<new>"]), "has the added token '<new>', and CLIPModel has no row for it"),
        (lambda t: setattr(t, "padding_side", "left"), "pads on the left"),
        (lambda t: setattr(t, "pad_token", None), "the tokenizer of CLIPModel cannot read a prompt"),
    ]:
        tokenizer = tokenizer_of("byte-pair")
        change(tokenizer)
        with pytest.raises(GradeclipError, match=message):
            Clip.from_transformers(model, processor_of(processor.image_processor, tokenizer))
    images = images_of("CLIP")
    images.image_mean = None
    with pytest.raises(GradeclipError, match="the image processor of CLIPModel cannot prepare an image"):
        Clip.from_transformers(model, processor_of(images, processor.tokenizer))


def test_weights_beside_the_config_are_the_only_ones(folder):
    with pytest.raises(GradeclipError, match="takes no pretrained, got 'openai'"):
        load_clip(f"transformers:{folder}", "openai")


def test_a_repository_that_is_out_of_reach_is_refused_at_once(monkeypatch):
    monkeypatch.setattr("gradeclip_utils.models.checkpoints.hub.HF_HUB_OFFLINE", True)
    with pytest.raises(GradeclipError, match="nobody/nothing is not in the cache .*HF_HUB_OFFLINE is set"):
        load_clip("transformers:nobody/nothing")


def test_without_the_library_it_is_named(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(GradeclipError, match=r"needs transformers: pip install transformers"):
        load_clip(f"transformers:{folder}")
