"""Compact files: small on disk, and ordinary open_clip models in memory."""

import open_clip
import pytest
import torch

from gradeclip_utils import load_clip
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.models.bundled import build_model
from training.compact import save_compact

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
    shades = torch.linspace(-1, 1, 3 * size * size)
    pixels = shades.reshape(1, 3, size, size)
    prompt = clip.tokenizer(["a red unbelievable car"])
    with torch.no_grad():
        expected_image = half.encode_image(pixels)
        expected_text = half.encode_text(prompt)
        image = clip.model.encode_image(pixels)
        text = clip.model.encode_text(prompt)
    torch.testing.assert_close(image, expected_image, atol=1e-5, rtol=0)
    torch.testing.assert_close(text, expected_text, atol=1e-5, rtol=0)


def test_a_word_that_a_model_does_not_know_is_the_mean_of_those_that_it_knows(tmp_path):
    model = random_model(VIT)
    path = save(model, VIT, tmp_path / "small.safetensors")
    rows = load_clip("emoji", path).model.token_embedding.weight
    tokenizer = open_clip.SimpleTokenizer()
    known = {tokenizer.sot_token_id, tokenizer.eot_token_id}
    for word in [*WORDS, ",", "."]:
        known.update(tokenizer.encode(word))
    known_rows = model.token_embedding.weight[sorted(known)]
    mean = known_rows.half().float().mean(dim=0)
    assert 12345 not in known
    torch.testing.assert_close(rows[12345], mean, atol=1e-6, rtol=0)


def test_a_model_that_half_precision_cannot_hold_is_not_saved(tmp_path):
    model = random_model(VIT)
    model.logit_scale.data.fill_(1e6)
    with pytest.raises(GradeclipError, match="logit_scale is not finite in half precision"):
        save(model, VIT, tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())
