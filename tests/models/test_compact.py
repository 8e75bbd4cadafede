"""Compact files: small on disk, ordinary open_clip models in memory, and honest about what they share."""

import json

import open_clip
import pytest
import timm
import torch
from safetensors import safe_open

from gradeclip_utils import Explainer, load_clip
from gradeclip_utils.files import data_path
from gradeclip_utils.models import BUNDLED_MODELS, load_compact, save_compact
from gradeclip_utils.models.compact import build, emoji_vit_map

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1}
VISION = {"image_size": 32, "patch_size": 16, "width": 64, "layers": 2, "head_width": 32}
CONFIG = {"embed_dim": 32, "vision_cfg": VISION, "text_cfg": TEXT}
SIGLIP = {
    "embed_dim": 192,
    "custom_text": True,
    "vision_cfg": {"image_size": 96, "timm_model_name": "emoji_vit_map", "timm_pool": "map", "timm_proj": "none"},
    "text_cfg": {**TEXT, "no_causal_mask": True, "pool_type": "last", "proj_bias": True},
}
RESNET = {**CONFIG, "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64}}
PREPROCESS = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic", "resize_mode": "shortest", "size": 32}
WORDS = ["a", "red", "car", "unbelievable"]


def test_a_compact_model_says_how_many_layers_of_each_encoder_are_explained(tmp_path):
    for layers in (None, 2):
        path = tmp_path / f"layers_{layers}.safetensors"
        save_compact(
            made(CONFIG),
            path,
            words=WORDS,
            metadata={},
            config={**CONFIG, "preprocess": PREPROCESS}
            | ({"image_layers": layers, "text_layers": 1} if layers else {}),
        )
        clip = load_compact(path)
        assert (clip.image_layers, clip.text_layers) == (layers, layers and 1)
        assert Explainer(clip).image_tower.layers == (layers or 1)
        assert Explainer(clip, image_layers=1).image_tower.layers == 1
        assert Explainer(clip, method="grad-eclip-single-head").image_tower.layers == 1  # as published


def made(config, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build(config).eval()


def saved(model, config, path, **options):
    save_compact(model, path, words=WORDS, metadata={}, config={**config, "preprocess": PREPROCESS}, **options)
    return path


def names_in(path):
    with safe_open(path, framework="pt") as file:
        return set(file.keys())


@pytest.mark.parametrize("config", [CONFIG, SIGLIP, RESNET], ids=["ViT", "SigLIP", "ResNet"])
def test_every_kind_of_model_comes_back_as_it_was(config, tmp_path):
    model = made(config)
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer += 0.1
    clip = load_compact(saved(model, config, tmp_path / "small.safetensors"))
    assert type(clip.model) is type(model) and not clip.model.training
    prompt = clip.tokenizer(["a red unbelievable car"])
    size = config["vision_cfg"]["image_size"]
    pixels = torch.linspace(-1, 1, 3 * size * size).reshape(1, 3, size, size)
    half = made(config)
    half.load_state_dict({k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()})
    with torch.no_grad():
        assert torch.allclose(clip.model.encode_text(prompt), half.encode_text(prompt), atol=1e-5)
        assert torch.allclose(clip.model.encode_image(pixels), half.encode_image(pixels), atol=1e-5)


def test_what_two_models_share_is_kept_once_and_read_from_the_other(tmp_path):
    teacher, student = made(CONFIG), made(CONFIG)
    student.visual.proj.data += 1
    base = saved(teacher, CONFIG, tmp_path / "base.safetensors")
    path = saved(student, CONFIG, tmp_path / "student.safetensors", shared=base)
    assert names_in(path) == {"visual.proj"}
    assert path.stat().st_size < base.stat().st_size / 10
    found = load_compact(path).model
    assert torch.allclose(found.visual.proj, student.visual.proj, atol=2e-3)
    for name, value in load_compact(base).model.state_dict().items():
        assert name == "visual.proj" or torch.equal(value, found.state_dict()[name])


def test_a_shared_file_that_is_missing_or_another_one_is_noticed(tmp_path):
    base = saved(made(CONFIG), CONFIG, tmp_path / "base.safetensors")
    path = saved(made(CONFIG, seed=1), CONFIG, tmp_path / "student.safetensors", shared=base)
    saved(made(CONFIG, seed=2), CONFIG, base)
    with pytest.raises(ValueError, match=r"shares weights with base.safetensors as it was when .* is another one"):
        load_compact(path)
    base.unlink()
    with pytest.raises(FileNotFoundError, match=r"shares weights with base.safetensors, which is missing"):
        load_compact(path)


def test_timm_knows_the_trunk_by_name_and_it_is_as_siglips():
    trunk = timm.create_model(emoji_vit_map.__name__, num_classes=0)
    siglip = timm.create_model("vit_base_patch16_siglip_224", num_classes=0, depth=6, embed_dim=192, num_heads=3)
    assert trunk.cls_token is None and type(trunk.attn_pool) is type(siglip.attn_pool)
    differ = {name for name, _ in trunk.named_parameters()} ^ {name for name, _ in siglip.named_parameters()}
    assert differ == {"norm_pre.weight", "norm_pre.bias", "patch_embed.proj.bias"}, (
        "the docstring says what is not as in SigLIP"
    )


@pytest.mark.parametrize("name", BUNDLED_MODELS)
def test_a_bundled_model_is_found_by_its_name(name):
    clip = load_clip(name)
    assert (clip.name, clip.pretrained) == (name, "bundled")
    assert "car" in clip.vocabulary and clip.preprocess.transforms
    config = json.loads(data_path(BUNDLED_MODELS[name]).with_suffix(".json").read_text())
    assert config["text_cfg"]["vocab_size"] == open_clip.SimpleTokenizer().vocab_size


def test_the_models_that_read_in_other_ways_and_the_default_weigh_less_than_24_megabytes_together():
    names = ("emoji", "emoji-average", "emoji-siglip", "emoji-resnet")
    files = [data_path(BUNDLED_MODELS[name]) for name in names]
    assert sum(file.stat().st_size + file.with_suffix(".json").stat().st_size for file in files) < 24e6
