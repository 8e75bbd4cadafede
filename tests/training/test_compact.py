"""Compact files: small on disk, and ordinary open_clip models in memory."""

import json

import open_clip
import pytest
import torch
from safetensors import safe_open

from gradeclip_utils import Explainer, load_clip
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.files import data_path
from gradeclip_utils.models.bundled import build_model
from training.compact import describe_training, save_compact

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1}
VISION = {"image_size": 32, "patch_size": 16, "width": 64, "layers": 2, "head_width": 32}
VIT = {"embed_dim": 32, "vision_cfg": VISION, "text_cfg": TEXT}
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
    **VIT,
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


def random_model(config, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_model(config).eval()


def save(model, config, path, **options):
    config = {**config, "preprocess": PREPROCESS}
    save_compact(model, path, words=WORDS, config=config, **options)
    return path


@pytest.mark.parametrize("config", [VIT, SIGLIP, RESNET], ids=["ViT", "SigLIP", "ResNet"])
def test_every_kind_of_model_comes_back_as_it_was_in_half_precision(config, tmp_path):
    model = random_model(config)
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer += 0.1
    path = save(model, config, tmp_path / "small.safetensors")
    weights = sum(parameter.numel() for parameter in model.parameters())
    assert path.stat().st_size < 0.3 * 4 * weights

    clip = load_clip("emoji", path)
    assert type(clip.model) is type(model)
    assert not clip.model.training
    assert clip.vocabulary == set(WORDS)
    half = model.half().float()  # rounded as the file is
    size = config["vision_cfg"]["image_size"]
    pixels = torch.linspace(-1, 1, 3 * size * size).reshape(1, 3, size, size)
    prompt = clip.tokenizer(["a red unbelievable car"])
    with torch.no_grad():
        image, text = half.encode_image(pixels), half.encode_text(prompt)
        torch.testing.assert_close(clip.model.encode_image(pixels), image, atol=1e-5, rtol=0)
        torch.testing.assert_close(clip.model.encode_text(prompt), text, atol=1e-5, rtol=0)


def test_a_word_that_a_model_does_not_know_is_the_mean_of_those_that_it_knows(tmp_path):
    model = random_model(VIT)
    path = save(model, VIT, tmp_path / "small.safetensors")
    rows = load_clip("emoji", path).model.token_embedding.weight
    tokenizer = open_clip.SimpleTokenizer()
    known = {tokenizer.sot_token_id, tokenizer.eot_token_id}
    for word in [*WORDS, ",", "."]:
        known.update(tokenizer.encode(word))
    mean = model.token_embedding.weight[sorted(known)].half().float().mean(0)
    assert 12345 not in known
    torch.testing.assert_close(rows[12345], mean, atol=1e-6, rtol=0)


def test_the_config_says_how_many_layers_are_explained(tmp_path):
    path = save(random_model(VIT), {**VIT, "image_layers": 2}, tmp_path / "two.safetensors")
    clip = load_clip("emoji", path)
    assert Explainer(clip).image_tower.layers == 2
    assert Explainer(clip, image_layers=1).image_tower.layers == 1


def test_weights_that_a_bundled_model_has_too_are_left_out_and_found_there(tmp_path):
    emoji = data_path("emoji.safetensors")
    config = json.loads(emoji.with_suffix(".json").read_text())
    words = config.pop("words").split()
    student = load_clip().model
    student.visual.proj.data += 1
    path = tmp_path / "student.safetensors"
    save_compact(student, path, words=words, config=config, shared=emoji)

    with safe_open(path, framework="pt") as file:
        assert list(file.keys()) == ["visual.proj"]
    state = load_clip("emoji", path).model.state_dict()
    for name, value in student.state_dict().items():
        torch.testing.assert_close(state[name], value, atol=2e-3, rtol=0)


def test_a_model_that_half_precision_cannot_hold_is_not_saved(tmp_path):
    model = random_model(VIT)
    model.logit_scale.data.fill_(1e6)
    with pytest.raises(GradeclipError, match="logit_scale is not finite in half precision"):
        save(model, VIT, tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_recipe_is_told_in_one_sentence():
    recipe = {
        "hard_negatives": False,
        "sparse_values": 0.0,
        "logit_scale": 0.0,
        "shuffled_colours": False,
    }
    assert describe_training(recipe) == "on drawn scenes, with the loss of CLIP alone"
    aided = describe_training({**recipe, "hard_negatives": True, "logit_scale": 100.0})
    assert "hard negatives in every batch, a fixed scale of 100 in the loss; CLIP's own" in aided
