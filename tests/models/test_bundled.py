"""Bundled models and compact files: small on disk, ordinary open_clip models in memory."""

import json

import open_clip
import pytest
import torch
from safetensors import safe_open

from gradeclip_utils import Explainer, load_clip
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.files import data_path
from gradeclip_utils.models import BUNDLED_MODELS, bundled, save_compact
from gradeclip_utils.models.open_clip import build

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1}
VISION = {"image_size": 32, "patch_size": 16, "width": 64, "layers": 2, "head_width": 32}
CONFIG = {"embed_dim": 32, "vision_cfg": VISION, "text_cfg": TEXT}
SIGLIP = {
    "embed_dim": 192,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 96,
        "timm_model_name": "emoji_vit_map",
        "timm_pool": "map",
        "timm_proj": "none",
    },
    "text_cfg": {**TEXT, "no_causal_mask": True, "pool_type": "last", "proj_bias": True},
}
RESNET = {
    **CONFIG,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64},
}
PREPROCESS = {
    "mean": [0.5] * 3,
    "std": [0.25] * 3,
    "interpolation": "bicubic",
    "resize_mode": "shortest",
    "size": 32,
}
WORDS = ["a", "red", "car", "unbelievable"]


def made(config, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build(config).eval()


def saved(model, config, path, **options):
    config, metadata = (
        {**config, "preprocess": PREPROCESS, **options.pop("layers", {})},
        options.pop("metadata", {}),
    )
    save_compact(model, path, words=WORDS, metadata=metadata, config=config, **options)
    return path


def half_of(model, config):
    half = made(config)
    half.load_state_dict(
        {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    )
    return half


@pytest.mark.parametrize("config", [CONFIG, SIGLIP, RESNET], ids=["ViT", "SigLIP", "ResNet"])
def test_every_kind_of_model_comes_back_as_it_was_in_half_precision(config, tmp_path):
    model = made(config)
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer += 0.1
    path = saved(model, config, tmp_path / "small.safetensors")
    clip, half, size = (
        load_clip("emoji", path),
        half_of(model, config),
        config["vision_cfg"]["image_size"],
    )
    assert (
        type(clip.model) is type(model)
        and not clip.model.training
        and clip.vocabulary == set(WORDS)
    )
    assert path.stat().st_size < 0.3 * 4 * sum(
        parameter.numel() for parameter in model.parameters()
    )
    prompt = clip.tokenizer(["a red unbelievable car"])
    pixels = torch.linspace(-1, 1, 3 * size * size).reshape(1, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(
            clip.model.encode_text(prompt), half.encode_text(prompt), atol=1e-5, rtol=0
        )
        torch.testing.assert_close(
            clip.model.encode_image(pixels), half.encode_image(pixels), atol=1e-5, rtol=0
        )


def test_a_word_that_a_compact_model_does_not_know_is_the_mean_of_those_that_it_knows(tmp_path):
    model = made(CONFIG)
    rows = load_clip(
        "emoji", saved(model, CONFIG, tmp_path / "x.safetensors")
    ).model.token_embedding.weight
    tokenizer = open_clip.SimpleTokenizer()
    known = {token for word in [*WORDS, ",", "."] for token in tokenizer.encode(word)} | {
        49406,
        49407,
    }
    assert len(rows) == 49408
    mean = model.token_embedding.weight[sorted(known)].half().float().mean(0)
    torch.testing.assert_close(rows[12345], mean, atol=1e-6, rtol=0)


def test_a_compact_model_says_how_many_layers_are_explained_and_how_it_was_trained(tmp_path):
    plain = load_clip("emoji", saved(made(CONFIG), CONFIG, tmp_path / "plain.safetensors"))
    assert (plain.image_layers, plain.text_layers, plain.training) == (None, None, "")
    asked = {"hard_negatives": "True", "sparse_values": "2.0", "logit_scale": "100.0"}
    layers = {"image_layers": 2, "text_layers": 1}
    path = saved(made(CONFIG), CONFIG, tmp_path / "two.safetensors", layers=layers, metadata=asked)
    clip = load_clip("emoji", path)
    assert (
        Explainer(clip).image_tower.layers == 2
        and Explainer(clip, image_layers=1).image_tower.layers == 1
    )
    assert Explainer(clip, method="grad-eclip-single-head").image_tower.layers == 1  # as published
    assert "training: on drawn scenes, with hard negatives in every batch, a penalty" in str(clip)
    as_clip = saved(
        made(CONFIG), CONFIG, tmp_path / "own.safetensors", metadata={"hard_negatives": "False"}
    )
    assert load_clip("emoji", as_clip).training == "on drawn scenes, with the loss of CLIP alone"


def test_weights_that_two_models_share_are_stored_once(tmp_path):
    teacher, student = made(CONFIG), made(CONFIG)
    student.visual.proj.data += 1
    base = saved(teacher, CONFIG, tmp_path / "base.safetensors")
    path = saved(student, CONFIG, tmp_path / "student.safetensors", shared=base)
    with safe_open(path, framework="pt") as file:
        assert set(file.keys()) == {"visual.proj"}
    found, others = (
        load_clip("emoji", path).model.state_dict(),
        load_clip("emoji", base).model.state_dict(),
    )
    assert torch.allclose(found["visual.proj"], student.visual.proj, atol=2e-3)
    assert all(
        name == "visual.proj" or torch.equal(value, found[name]) for name, value in others.items()
    )
    saved(made(CONFIG, seed=2), CONFIG, base)
    with pytest.raises(
        GradeclipError,
        match=r"shares weights with base.safetensors as it was .* is a different one",
    ):
        load_clip("emoji", path)
    base.unlink()
    with pytest.raises(
        GradeclipError, match=r"shares weights with base.safetensors, which is missing"
    ):
        load_clip("emoji", path)


def test_a_model_that_half_precision_cannot_hold_and_words_that_are_no_texts_are_not_saved(
    tmp_path,
):
    model = made(CONFIG)
    for words, message in ((None, "words must be a list, got None"), ([5], "got 5")):
        with pytest.raises(GradeclipError, match=message):
            save_compact(model, tmp_path / "x.safetensors", words=words, metadata={})
    model.logit_scale.data.fill_(1e6)
    with pytest.raises(GradeclipError, match="Not finite in half precision: logit_scale"):
        save_compact(model, tmp_path / "x.safetensors", words=WORDS, metadata={})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", BUNDLED_MODELS)
def test_a_bundled_model_is_found_by_its_name(name):
    clip = load_clip(name)
    assert (clip.name, clip.pretrained) == (name, "bundled")
    assert (
        load_clip("emoji", data_path(BUNDLED_MODELS[name])).name == name
    )  # by its file, it is that model, too
    assert (
        "car" in clip.vocabulary
        and clip.training
        and str(clip).startswith(f"{name} (bundled), knows ")
    )
    config = json.loads(data_path(BUNDLED_MODELS[name]).with_suffix(".json").read_text())
    assert config["text_cfg"]["vocab_size"] == open_clip.SimpleTokenizer().vocab_size


def test_a_bundled_model_that_an_installed_package_lacks_is_refused_with_its_place(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(bundled, "data_path", lambda name="": tmp_path / name)
    with pytest.raises(
        GradeclipError,
        match=r"emoji-bag is not here: .*'emoji' alone, .* data/emoji-bag.safetensors",
    ):
        load_clip("emoji-bag")


@pytest.mark.parametrize(
    "change",
    [
        lambda c: "{",
        lambda c: "[]",
        lambda c: json.dumps({**c, "extra": 1}),
        lambda c: json.dumps({**c, "vision_cfg": {**c["vision_cfg"], "width": "x"}}),
        lambda c: json.dumps({**c, "preprocess": {**PREPROCESS, "std": 0}}),
    ],
)
def test_a_damaged_config_beside_a_compact_file_is_refused(change, tmp_path):
    path = saved(made(CONFIG), CONFIG, tmp_path / "x.safetensors")
    path.with_suffix(".json").write_text(change({**CONFIG, "preprocess": PREPROCESS}))
    with pytest.raises(GradeclipError, match=r"x.json is not the config of a model: \w"):
        load_clip("emoji", path)
