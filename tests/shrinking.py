"""Every architecture that open_clip registers, from its config: as wide as it is but without memory, or small."""

import functools
import json
import re
from contextlib import contextmanager
from pathlib import Path

import open_clip
import timm
import torch
import transformers
from timm.models.vitamin import VitCfg
from torch import nn

FOLDER = Path(open_clip.__file__).parent / "model_configs"
NAMES = sorted((path.stem for path in FOLDER.glob("*.json")), key=str.lower)
SMALL_TEXT = {"width": 64, "heads": 4, "layers": 2, "context_length": 12, "vocab_size": 60}
HUB = {  # a text encoder whose config only a hub has: the class of its config, and what makes it small
    "roberta": (
        "RobertaConfig",
        {"num_hidden_layers": 2},
        {
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_attention_heads": 4,
            "max_position_embeddings": 20,
        },
    ),
    "xlm-roberta": (
        "XLMRobertaConfig",
        {"num_hidden_layers": 2},
        {
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_attention_heads": 4,
            "max_position_embeddings": 20,
        },
    ),
    "mt5": (
        "MT5Config",
        {"num_layers": 2},
        {"d_model": 64, "d_kv": 20, "d_ff": 96, "num_heads": 4},
    ),
    "nllb": (
        "M2M100Config",
        {"encoder_layers": 2, "decoder_layers": 1},
        {
            "d_model": 64,
            "encoder_ffn_dim": 96,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "max_position_embeddings": 20,
        },
    ),
}
IDS = torch.tensor(
    [[50, 5, 7, 9, 3, 59, 0, 0, 0, 0, 0, 0], [50, 8, 11, 59, 0, 0, 0, 0, 0, 0, 0, 0]]
)


def config_of(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text())


def build_config(config: dict) -> nn.Module:
    """The model class that open_clip's factory would choose."""
    config = json.loads(json.dumps(config))
    custom, name = config.pop("custom_text", False), config["text_cfg"].get("hf_model_name")
    if name:
        config["text_cfg"]["hf_model_pretrained"] = False
    with hub_config(name, small=config["text_cfg"].pop("small", False)):
        if "multimodal_cfg" in config:
            return open_clip.CoCa(**config)
        return (open_clip.CustomTextCLIP if custom or name else open_clip.CLIP)(**config)


@contextmanager
def hub_config(name: str | None, small: bool):
    """Within it, the config that only a hub has is its class's default, with few layers."""
    original = transformers.AutoConfig.from_pretrained
    if name:
        found = next(key for key in sorted(HUB, key=len, reverse=True) if key in name)
        kind, layers, sizes = HUB[found]
        tokens = {"vocab_size": 60, "pad_token_id": 0, "eos_token_id": 2, "bos_token_id": 1}
        config = getattr(transformers, kind)(**layers, **({**sizes, **tokens} if small else {}))
        transformers.AutoConfig.from_pretrained = lambda name, **options: config
    try:
        yield
    finally:
        transformers.AutoConfig.from_pretrained = original


def without_memory(name: str) -> nn.Module:
    """The registered model, without weights and with few layers: the others repeat their blocks."""
    config = config_of(name)
    for part in (config["vision_cfg"], config["text_cfg"]):
        if isinstance(part.get("layers"), int) and "hf_model_name" not in part:
            part["layers"] = min(part["layers"], 2)
        elif isinstance(part.get("layers"), list):
            part["layers"] = [1, 1, 1, 1]
    with torch.device("meta"), timm_with(_shallow):
        return build_config(config)


def shrink(config: dict) -> dict:
    """The same architecture with few, narrow layers and small pictures."""
    config = json.loads(json.dumps(config))
    vision, text = config["vision_cfg"], config["text_cfg"]
    if isinstance(vision.get("layers"), list):
        vision.update(layers=[1, 1, 1, 1], width=16, image_size=64, head_width=64)
    elif "timm_model_name" not in vision:
        vision.update(layers=2, width=64, head_width=16, image_size=3 * vision["patch_size"])
        vision.update({key: 4 for key in ("attn_pooler_heads",) if key in vision})
    text.update({"small": True} if "hf_model_name" in text else SMALL_TEXT)
    if "multimodal_cfg" in config:
        config["multimodal_cfg"] = {**SMALL_TEXT, "attn_pooler_heads": 4}
    unprojected = "none" in (vision.get("timm_proj"), text.get("proj_type"))
    return {
        **config,
        "embed_dim": 64 if unprojected else 48,
    }  # elsewhere the embedding has a width of its own


def _shallow(name: str) -> dict:
    """What leaves a timm model few layers."""
    if name.startswith(("vit_", "eva", "vitamin")):
        return {"depth": 2}
    if name.startswith(("convnext", "swin")):
        return {"depths": (1, 1, 1, 1)}
    return {"layers": (1,) * (5 if name in ("fastvit_mci3", "fastvit_mci4") else 4)}


def _narrow(name: str) -> dict:
    """What makes a timm model small, and leaves its parts as they are."""
    patch, few = int((re.search(r"patch(\d+)", name) or [0, 16])[1]), _shallow(name)
    if name.startswith("vitamin"):
        stem = VitCfg(embed_dim=(8, 16, 64), depths=(2, 2, 1), stem_width=8)
        return {**few, "img_size": 64, "embed_dim": 64, "num_heads": 4, "embed_cfg": stem}
    if name.startswith("vit_base_mci"):  # its stem fixes the width
        return {**few, "img_size": 64, "mlp_ratio": 0.25}
    if name.startswith(("vit_", "eva")):
        return {**few, "img_size": 3 * patch, "embed_dim": 64, "num_heads": 4}
    if name.startswith("convnext"):
        return {**few, "dims": (8, 16, 24, 32)}
    if name.startswith("swin"):
        return {**few, "embed_dim": 32, "num_heads": (1, 1, 2, 2)}
    return {**few, "embed_dims": (16, 32, 64, 128, 256)[: len(few["layers"])]}  # fastvit


@contextmanager
def timm_with(options):
    """Within it, timm's models are made with the ``options`` of their name."""
    create = timm.create_model
    timm.create_model = lambda name, **given: create(name, **{**options(name), **given})
    try:
        yield
    finally:
        timm.create_model = create


@functools.cache
def small(name: str) -> nn.Module:
    """The config, small, with random weights so large that every input, bias and norm matters. Copy it to change it."""
    with torch.random.fork_rng(), timm_with(_narrow):
        torch.manual_seed(0)
        return stir(build_config(shrink(config_of(name))))


def stir(model: nn.Module) -> nn.Module:
    """Random weights, biases, norms and positions, none of which is a no-op."""
    trunk = getattr(getattr(model, "visual", None), "trunk", None)
    gain = 0.5 if "FastVit" in str(type(trunk)) else 1.5  # its branches add up
    for name, parameter in model.named_parameters():
        noise = torch.randn_like(parameter)
        if re.search(r"pos|token|latent|query|class_emb|cls_emb", name):
            parameter.data = 0.5 * noise
        elif parameter.ndim > 1:
            parameter.data = noise * (gain / parameter[0].numel() ** 0.5)
        else:
            parameter.data += 0.3 * noise
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer += 0.3 * torch.rand_like(buffer)
    return model.eval()


def text_side(model: nn.Module) -> nn.Module:
    """The text tower, also of a ``CLIP``, which holds its parts beside ``visual``."""
    if hasattr(model, "text"):
        return model.text
    side = nn.Module()
    for name in ("transformer", "token_embedding", "ln_final", "text_projection"):
        setattr(side, name, getattr(model, name))
    side.text_pool_type, side.attn_mask = model.text_pool_type, model.attn_mask
    return side


def fingerprint(part: nn.Module) -> frozenset:
    """Which parts a tower is made of, whatever their number and size, and the settings that say how they are used."""
    names = {
        (re.sub(r"\d+", "#", name), type(module).__name__) for name, module in part.named_modules()
    }
    names |= {(re.sub(r"\d+", "#", name), "weight") for name, _ in part.named_parameters()}
    settings = (
        "pool_type",
        "text_pool_type",
        "final_ln_after_pool",
        "global_pool",
        "no_embed_class",
        "num_prefix_tokens",
    )
    names |= {("attn_mask", str(getattr(part, "attn_mask", None) is None))}
    names |= {(name, str(getattr(part, name))) for name in settings if hasattr(part, name)}
    trunk = getattr(part, "trunk", None)
    return frozenset(names if trunk is None else names | fingerprint(trunk))
