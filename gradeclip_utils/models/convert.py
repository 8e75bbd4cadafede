"""Convert: a CLIP of open_clip as a folder of transformers, and back; the numbers stay the same.

    python -m gradeclip_utils convert emoji --out emoji-hf                     # a CLIPModel, with its processor
    python -m gradeclip_utils convert transformers:emoji-hf --out emoji-back   # open_clip's, with its config

Both libraries keep the same weights under other names: open_clip holds query, key and value in one matrix, and its
projections lie on their sides. What was converted is compared with the original before anything is written. A folder
holds the whole vocabulary in full precision: it is no compact file, and does not say which words a model knows.
"""

import argparse
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.transformer import QuickGELU
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode

from ..checks import as_path, writable
from ..errors import GradeclipError
from ..towers import UnsupportedModel, open_image_tower, open_text_tower
from ..towers.huggingface import kind_of
from .huggingface import PREFIX
from .loading import OPEN_CLIP_CONFIG, Clip, load_clip

_PARTS = {
    "logit_scale": "logit_scale",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "text_projection": "text_projection.weight",
    "visual.proj": "visual_projection.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
    "ln_final": "text_model.final_layer_norm",
}
_IN_A_LAYER = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj",
               "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}  # fmt: skip
_TURNED = ("text_projection", "visual.proj")  # (D, E) in open_clip, (E, D) in a Linear


def to_transformers(clip: Clip, folder: str | Path) -> None:
    """Write a CLIP of open_clip as a `CLIPModel` of transformers, with its processor."""
    transformers, model = import_module("transformers"), clip.model
    if not isinstance(model, open_clip.CLIP) or not isinstance(clip.tokenizer, open_clip.SimpleTokenizer):
        raise UnsupportedModel(f"a CLIPModel is made of open_clip's CLIP with its own tokenizer, and this is a "
                               f"{type(model).__name__} with a {type(clip.tokenizer).__name__}")  # fmt: skip
    visual, sizes = model.visual, _preprocess_cfg(clip.preprocess)
    try:
        vision = {**_layers(visual.transformer), "image_size": visual.image_size[0], "patch_size": visual.patch_size[0],
                  "projection_dim": visual.output_dim}  # fmt: skip
        text = {**_layers(model.transformer), "vocab_size": model.vocab_size, "projection_dim": visual.output_dim,
                "max_position_embeddings": model.context_length, "bos_token_id": clip.tokenizer.sot_token_id,
                "eos_token_id": clip.tokenizer.eot_token_id, "pad_token_id": clip.tokenizer.eot_token_id}  # fmt: skip
        config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=visual.output_dim)
        new = transformers.CLIPModel(config)
        new.load_state_dict(dict(pair for key, value in model.state_dict().items() for pair in _to_hub(key, value)))
    except (AttributeError, RuntimeError, KeyError) as error:
        raise UnsupportedModel(f"a CLIPModel has no place for a part of {clip.name}: {str(error)[:200]}") from error
    _check_same(clip.model, new.eval())
    with _whole(folder) as place:
        new.save_pretrained(place)
        vocabulary = dict(clip.tokenizer.encoder)
        renamed = ("<|startoftext|>", "<|endoftext|>")
        for name, token in zip(renamed, (clip.tokenizer.sot_token_id, clip.tokenizer.eot_token_id), strict=True):
            vocabulary[name] = vocabulary.pop(clip.tokenizer.decoder[token])
        (place / "vocab.json").write_text(json.dumps(vocabulary))
        merges = "\n".join(" ".join(pair) for pair in clip.tokenizer.bpe_ranks)
        (place / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
        tokenizer = transformers.CLIPTokenizerFast.from_pretrained(place, model_max_length=model.context_length)
        transformers.CLIPProcessor(_image_processor(transformers, sizes), tokenizer).save_pretrained(place)


def to_open_clip(clip: Clip, folder: str | Path) -> None:
    """Write a `CLIPModel` of transformers as a folder of open_clip."""
    new = as_open_clip(clip.model)
    with _whole(folder) as place:
        save_file(new.state_dict(), place / "open_clip_model.safetensors")
        settings = {"model_cfg": _open_clip_config(clip.model), "preprocess_cfg": _preprocess_cfg(clip.preprocess)}
        (place / OPEN_CLIP_CONFIG).write_text(json.dumps(settings, indent=2) + "\n")


def as_open_clip(model: nn.Module) -> nn.Module:
    """A model whose layers are open_clip's: a `CLIPModel`'s weights under open_clip's names, or the model itself."""
    if not kind_of(model):
        return model
    rows = model.config.text_config.vocab_size if kind_of(model) == "CLIPModel" else None
    if rows != len(open_clip.SimpleTokenizer().encoder):
        raise UnsupportedModel(f"open_clip's CLIP is made of a CLIPModel with CLIP's own vocabulary, and this is a "
                               f"{type(model).__name__}" + (f" of {rows} tokens" if rows else ""))  # fmt: skip
    theirs, new = model.state_dict(), open_clip.CLIP(**_open_clip_config(model))
    new.load_state_dict({key: _from_hub(key, theirs) for key in new.state_dict()})
    _check_same(model, new.eval())
    return new


def _open_clip_config(model: nn.Module) -> dict:
    """What open_clip's config says of a `CLIPModel`."""
    text, vision = model.config.text_config, model.config.vision_config
    head_width = vision.hidden_size // vision.num_attention_heads
    return {
        "embed_dim": model.config.projection_dim,
        "quick_gelu": vision.hidden_act == "quick_gelu",
        "vision_cfg": {"image_size": vision.image_size, "patch_size": vision.patch_size, "width": vision.hidden_size,
                       "layers": vision.num_hidden_layers, "head_width": head_width,
                       "mlp_ratio": vision.intermediate_size / vision.hidden_size},
        "text_cfg": {"context_length": text.max_position_embeddings, "vocab_size": text.vocab_size,
                     "width": text.hidden_size, "heads": text.num_attention_heads, "layers": text.num_hidden_layers,
                     "mlp_ratio": text.intermediate_size / text.hidden_size},
    }  # fmt: skip


def _layers(transformer: nn.Module) -> dict:
    """What a config of transformers says of the layers."""
    block = transformer.resblocks[0]
    kinds = {QuickGELU: "quick_gelu", nn.GELU: "gelu"}
    return {"hidden_size": transformer.width, "num_hidden_layers": transformer.layers,
            "num_attention_heads": block.attn.num_heads, "intermediate_size": block.mlp.c_fc.out_features,
            "hidden_act": kinds[type(block.mlp.gelu)], "layer_norm_eps": block.ln_1.eps}  # fmt: skip


def _hub_names(key: str) -> list[str]:
    """Where transformers keeps a parameter of open_clip: under one name, or under three."""
    layer = re.fullmatch(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+?)([._](?:weight|bias))", key)
    if layer:
        side, number, name, last = layer.groups()
        before = f"{'vision' if side else 'text'}_model.encoder.layers.{number}."
        if name == "attn.in_proj":
            return [f"{before}self_attn.{part}_proj.{last[1:]}" for part in "qkv"]
        return [f"{before}{_IN_A_LAYER[name]}{last}"]
    if key in _PARTS:
        return [_PARTS[key]]
    name, _, last = key.rpartition(".")
    return [f"{_PARTS[name]}.{last}"]


def _to_hub(key: str, value: Tensor) -> list[tuple[str, Tensor]]:
    names = _hub_names(key)
    value = value.float()
    parts = [value.T if key in _TURNED else value] if len(names) == 1 else value.chunk(3)
    return [(name, part.contiguous()) for name, part in zip(names, parts, strict=True)]


def _from_hub(key: str, theirs: dict[str, Tensor]) -> Tensor:
    parts = [theirs[name].float() for name in _hub_names(key)]
    return torch.cat(parts).clone() if len(parts) > 1 else parts[0].T.contiguous() if key in _TURNED else parts[0]


def _check_same(old: nn.Module, new: nn.Module) -> None:
    """Both models' own forward passes, on the same image and the same prompt."""
    for opened in (open_image_tower, open_text_tower):
        towers = [opened(old), opened(new)]
        if opened is open_image_tower:
            inputs = torch.rand(1, 3, *towers[0].image_size, generator=torch.Generator().manual_seed(0))
        else:
            inputs = open_clip.SimpleTokenizer(context_length=towers[0].context_length)(["a red car"])
        a, b = (F.normalize(tower.forward(inputs.to(tower.device)).cpu(), dim=-1) for tower in towers)
        precision = torch.finfo(next(old.parameters()).dtype).eps
        if not (difference := float((a - b).abs().max())) <= max(1e-5, precision):
            raise UnsupportedModel(f"the converted {type(new).__name__} differs from the {type(old).__name__} by "
                                   f"{difference:.1e}: it reads or computes something in another way")  # fmt: skip


def _image_processor(transformers: Any, sizes: dict):
    """open_clip's preprocessing as a CLIPImageProcessor."""
    height, width = sizes["size"]
    squash = sizes["resize_mode"] == "squash"
    square = {"height": height, "width": width}
    resample = getattr(Image.Resampling, sizes["interpolation"].upper())
    return transformers.CLIPImageProcessor(
        size=square if squash else {"shortest_edge": min(height, width)}, crop_size=square, do_center_crop=not squash,
        resample=resample, image_mean=list(sizes["mean"]), image_std=list(sizes["std"]),
    )  # fmt: skip


def _preprocess_cfg(preprocess: Any) -> dict:
    """The steps of a preprocessing as open_clip says them."""
    steps = {type(step).__name__: step for step in getattr(preprocess, "transforms", ())}
    resize, normalize = steps.get("Resize"), steps.get("Normalize")
    squash = not isinstance(getattr(resize, "size", 0), int)
    if not (resize and normalize and (squash or "CenterCrop" in steps)):
        raise UnsupportedModel("only a preprocessing that resizes, crops and normalises can be converted, and this one "
                               f"is made of {', '.join(steps) or type(preprocess).__name__}")  # fmt: skip
    return {
        "size": list(resize.size) if squash else list(steps["CenterCrop"].size),
        "resize_mode": "squash" if squash else "shortest",
        "interpolation": "bicubic" if resize.interpolation is InterpolationMode.BICUBIC else "bilinear",
        "mean": list(normalize.mean),
        "std": list(normalize.std),
    }


def _check_new(folder: str | Path) -> Path:
    path = as_path(folder, "--out")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise GradeclipError(f"{folder} is there already: --out takes a new folder")
    return writable(path, "--out", folder=True)


@contextmanager
def _whole(folder: str | Path) -> Iterator[Path]:
    """A new folder, there with everything in it or not at all."""
    path = _check_new(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(dir=path.parent))
    try:
        yield place
        place.chmod(0o755)
        place.replace(path)
    except BaseException:
        shutil.rmtree(place)
        raise


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `convert`."""
    parser.add_argument("model", help="as `load_clip` takes it: a CLIP of open_clip, or transformers:FOLDER")
    parser.add_argument("--pretrained", metavar="TAG_OR_PATH", help="weights of a model of open_clip")
    parser.add_argument("--out", metavar="FOLDER", required=True, help="a new folder")


def run_command(options: argparse.Namespace) -> None:
    """Convert a model to the other library's form."""
    _check_new(options.out)  # before a model is loaded
    clip = load_clip(options.model, options.pretrained)
    if kind_of(clip.model):
        to_open_clip(clip, options.out)
        print(f"written: an open_clip CLIP; load_clip({options.out!r}) reads it")
    else:
        to_transformers(clip, options.out)
        print(f"written: a CLIPModel of transformers; load_clip({PREFIX + options.out!r}) reads it")
