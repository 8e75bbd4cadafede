"""Every architecture that open_clip registers, from its config: without memory, or small."""

import copy
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
IDS = torch.tensor(
    [
        [50, 5, 7, 9, 3, 59, 0, 0, 0, 0, 0, 0],
        [50, 8, 11, 59, 0, 0, 0, 0, 0, 0, 0, 0],
    ]
)

SMALL_ROBERTA = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "max_position_embeddings": 20,
}
SMALL_M2M100 = {
    "d_model": 64,
    "encoder_ffn_dim": 96,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "max_position_embeddings": 20,
}
SMALL_T5 = {"d_model": 64, "d_kv": 20, "d_ff": 96, "num_heads": 4}
# text encoders whose config only a hub has: its class, few layers, and what else makes it small
HUB = {
    "roberta": ("RobertaConfig", {"num_hidden_layers": 2}, SMALL_ROBERTA),
    "xlm-roberta": ("XLMRobertaConfig", {"num_hidden_layers": 2}, SMALL_ROBERTA),
    "mt5": ("MT5Config", {"num_layers": 2}, SMALL_T5),
    "nllb": ("M2M100Config", {"encoder_layers": 2, "decoder_layers": 1}, SMALL_M2M100),
}


# ---------------------------------------------------------------------------- from a config


def config_of(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text())


def build_config(config: dict) -> nn.Module:
    """The model class that open_clip's factory would choose."""
    config = copy.deepcopy(config)
    text = config["text_cfg"]
    custom = config.pop("custom_text", False)
    hub_name = text.get("hf_model_name")
    if hub_name:
        text["hf_model_pretrained"] = False
    with hub_config(hub_name, small=text.pop("small", False)):
        if "multimodal_cfg" in config:
            return open_clip.CoCa(**config)
        if custom or hub_name:
            return open_clip.CustomTextCLIP(**config)
        return open_clip.CLIP(**config)


@contextmanager
def hub_config(name: str | None, small: bool):
    """Within it, the config that only a hub has is its class's default, with few layers."""
    original = transformers.AutoConfig.from_pretrained
    if name:
        longest_first = sorted(HUB, key=len, reverse=True)
        kind, options, sizes = HUB[next(key for key in longest_first if key in name)]
        if small:
            tokens = {"vocab_size": 60, "pad_token_id": 0, "eos_token_id": 2, "bos_token_id": 1}
            options = {**options, **sizes, **tokens}
        config = getattr(transformers, kind)(**options)
        transformers.AutoConfig.from_pretrained = lambda name, **options: config
    try:
        yield
    finally:
        transformers.AutoConfig.from_pretrained = original


@contextmanager
def timm_with(options_of):
    """Within it, timm's models are made with the options of their name."""
    create = timm.create_model

    def create_with_options(name, **options):
        return create(name, **{**options_of(name), **options})

    timm.create_model = create_with_options
    try:
        yield
    finally:
        timm.create_model = create


# ---------------------------------------------------------------------------- without memory


def without_memory(name: str) -> nn.Module:
    """The registered model, without weights and with few layers: the others repeat their blocks."""
    config = config_of(name)
    for part in (config["vision_cfg"], config["text_cfg"]):
        if isinstance(part.get("layers"), list):
            part["layers"] = [1, 1, 1, 1]
        elif "layers" in part and "hf_model_name" not in part:
            part["layers"] = min(part["layers"], 2)
    with torch.device("meta"), timm_with(shallow_options):
        return build_config(config)


def shallow_options(name: str) -> dict:
    """What leaves a timm model few layers."""
    if name.startswith(("vit_", "eva", "vitamin")):
        return {"depth": 2}
    if name.startswith(("convnext", "swin")):
        return {"depths": (1, 1, 1, 1)}
    stages = 5 if name in ("fastvit_mci3", "fastvit_mci4") else 4
    return {"layers": (1,) * stages}


# ------------------------------------------------------------------------------------- small


@functools.cache
def small(name: str) -> nn.Module:
    """The config, small, with random weights so large that every input, bias and norm matters.

    Copy it to change it.
    """
    with torch.random.fork_rng(), timm_with(narrow_options):
        torch.manual_seed(0)
        return stir(build_config(shrink(config_of(name))))


def shrink(config: dict) -> dict:
    """The same architecture with few, narrow layers and small pictures."""
    config = copy.deepcopy(config)
    vision = config["vision_cfg"]
    text = config["text_cfg"]
    if isinstance(vision.get("layers"), list):
        vision.update(layers=[1, 1, 1, 1], width=16, image_size=64, head_width=64)
    elif "timm_model_name" not in vision:
        vision.update(layers=2, width=64, head_width=16, image_size=3 * vision["patch_size"])
        if "attn_pooler_heads" in vision:
            vision["attn_pooler_heads"] = 4

    text.update({"small": True} if "hf_model_name" in text else SMALL_TEXT)
    if "multimodal_cfg" in config:
        config["multimodal_cfg"] = {**SMALL_TEXT, "attn_pooler_heads": 4}
    # with a projection the embedding has a width of its own
    unprojected = "none" in (vision.get("timm_proj"), text.get("proj_type"))
    return {**config, "embed_dim": 64 if unprojected else 48}


def narrow_options(name: str) -> dict:
    """What makes a timm model small, and leaves its parts as they are."""
    options = shallow_options(name)
    patch = re.search(r"patch(\d+)", name)
    image_size = 3 * int(patch[1] if patch else 16)
    if name.startswith("vitamin"):
        stem = VitCfg(embed_dim=(8, 16, 64), depths=(2, 2, 1), stem_width=8)
        return {**options, "img_size": 64, "embed_dim": 64, "num_heads": 4, "embed_cfg": stem}
    if name.startswith("vit_base_mci"):  # its stem fixes the width
        return {**options, "img_size": 64, "mlp_ratio": 0.25}
    if name.startswith(("vit_", "eva")):
        return {**options, "img_size": image_size, "embed_dim": 64, "num_heads": 4}
    if name.startswith("convnext"):
        return {**options, "dims": (8, 16, 24, 32)}
    if name.startswith("swin"):
        return {**options, "embed_dim": 32, "num_heads": (1, 1, 2, 2)}
    widths = (16, 32, 64, 128, 256)  # fastvit
    return {**options, "embed_dims": widths[: len(options["layers"])]}


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
    side.text_pool_type = model.text_pool_type
    side.attn_mask = model.attn_mask
    return side


def fingerprint(part: nn.Module) -> frozenset:
    """Which parts a tower is made of, whatever their number and size, and how they are used."""
    names = {("attn_mask", str(getattr(part, "attn_mask", None) is None))}
    for name, module in part.named_modules():
        names.add((re.sub(r"\d+", "#", name), type(module).__name__))
    for name, _ in part.named_parameters():
        names.add((re.sub(r"\d+", "#", name), "weight"))

    settings = (
        "pool_type",
        "text_pool_type",
        "final_ln_after_pool",
        "global_pool",
        "no_embed_class",
        "num_prefix_tokens",
    )
    for name in settings:
        if hasattr(part, name):
            names.add((name, str(getattr(part, name))))
    trunk = getattr(part, "trunk", None)
    if trunk is not None:
        names |= fingerprint(trunk)
    return frozenset(names)
