"""`load_clip`: a `Clip` by name, bundled by default; from open_clip, transformers, a file, a folder or a hub.

    weights --here--> Clip -> towers -> trace -> method -> explanation

open_clip's own `create_model` would run a file of OpenAI's weights with the wrong activation and a warning, copy
integers into floats, and report a misfit without its reason. Here one function builds each model from its config, and
one puts weights into it.

The bundled models are compact files: safetensors in half precision. Of the token embeddings such a file holds the rows
of its own words only. A model that shares weights with another one (a student with its teacher's text encoder) leaves
these out and names the file that has them. The config beside it, .json, is open_clip's own with the preprocessing of
images added.
"""

import hashlib
import http.client
import json
import math
import os
import re
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
from huggingface_hub import constants as hub
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
from open_clip.convert import convert_state_dict
from open_clip.model import (
    convert_to_custom_text_state_dict,
    convert_weights_to_lp,
    get_cast_dtype,
    get_input_dtype,
    resize_pos_embed,
    resize_text_pos_embed,
    set_model_preprocess_cfg,
)  # fmt: skip
from open_clip.pretrained import download_pretrained_from_hf
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from open_clip.transformer import LayerNormFp32, QuickGELU
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..checks import as_path, chosen, first_line, listed, nearest, short, text
from ..errors import GradeclipError, UnsupportedModel
from ..files import data_path, write_path_whole
from ..towers.huggingface import check_kind
from .clip import Clip

BUNDLED = "emoji"
# An installed package holds the first alone; data/ of a checkout has all of them.
_NAMES = (BUNDLED, "emoji-bag", "emoji-average", "emoji-siglip", "emoji-resnet", "emoji-fine")
BUNDLED_MODELS = {name: f"{name}.safetensors" for name in _NAMES}  # its config has the same name and ends in .json
_EXPLAINED_LAYERS = ("image_layers", "text_layers")  # in a config: how many of the last ones Grad-ECLIP explains
_TABLE = "token_embedding.weight"  # under "text." in a model with a text encoder of its own
_PREFIX = "transformers:"
_PRECISIONS = ("fp32", "bf16", "fp16", "pure_bf16", "pure_fp16")
_CONFIG = "open_clip_config.json"
_PREFERRED = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # among several files in a folder
_SHOWN = ("mean", "std", "interpolation", "resize_mode")
_Found = tuple[dict, dict, dict[str, Tensor], str]  # config, preprocessing, weights and the name of the weights
_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
_REACH_SECONDS = 10
_WRAPPERS = ("module.", "_orig_mod.", "module.", "model.")  # DataParallel, torch.compile, both, a trainer
_OF_ARCHIVES = ("input_resolution", "context_length", "vocab_size")  # numbers among the weights that OpenAI published


@torch.inference_mode(False)  # weights that are made within have no gradients
def load_clip(
    name: str | Path | None = None, pretrained: str | Path | Mapping[str, torch.Tensor] | None = None, *,
    device: str | None = None, precision: str = "fp32",
) -> Clip:  # fmt: skip
    """Load a CLIP in evaluation mode: the bundled one by default, or any model that open_clip or transformers knows.

        load_clip()                                              # the bundled model
        load_clip("emoji-resnet")                                # bundled too: BUNDLED_MODELS lists them
        load_clip("ViT-B-16", pretrained="openai")               # downloaded once
        load_clip("ViT-B-16-quickgelu", pretrained="/models/ViT-B-16.safetensors")
        load_clip("ViT-B-16-gelu", pretrained=fine_tuned.state_dict())
        load_clip("my-clip")                                     # a folder with open_clip_config.json, or config.json
        load_clip("hf-hub:timm/ViT-B-16-SigLIP2-256")            # the same on a hub
        load_clip("transformers:openai/clip-vit-base-patch32")

    Without a name, the environment decides (`GRADECLIP_MODEL`, `GRADECLIP_PRETRAINED`), and without a device
    `GRADECLIP_DEVICE`. A tag runs with its own activation, also "openai", and so does OpenAI's own archive. Another
    file does not say its activation: for a name that open_clip has with "-quickgelu" too, the name must say it, as
    "ViT-B-32-quickgelu" or "ViT-B-32-gelu". A file does not say its normalisation either: it is the one that all
    published weights of the name share, or else OpenAI's.

    Args:
        name: an architecture of open_clip (`open_clip.list_models()`), a folder, "hf-hub:...", "transformers:..." (a
            repository or a folder), or one of `BUNDLED_MODELS`.
        pretrained: a tag of open_clip, the path of a checkpoint (safetensors, a `torch.save`d state dict, OpenAI's
            archive), or a state dict in hand. For a bundled model, a file written by `save_compact`.
        device: as torch names it. None is `GRADECLIP_DEVICE`; without this variable, a GPU if there is one and no name
            was given, and else the CPU.
        precision: "fp32", or open_clip's "bf16", "fp16", "pure_bf16", "pure_fp16".

    Raises:
        GradeclipError: an unknown name, tag, precision or device; weights that are damaged, not finite, integers, of
            another architecture or of an unknown activation; weights that are not here and cannot be downloaded. The
            message says which.
    """
    wanted = [*(["GRADECLIP_MODEL", "GRADECLIP_PRETRAINED"] if name is None else []),
              *(["GRADECLIP_DEVICE"] if device is None else [])]  # fmt: skip
    variables = {key: os.environ[key] for key in wanted if os.environ.get(key)}
    if device is None:
        own = "cuda" if name is None and torch.cuda.is_available() else "cpu"
        device = variables.get("GRADECLIP_DEVICE", own)
    if name is None:
        name = variables.get("GRADECLIP_MODEL", BUNDLED)
        pretrained = pretrained or variables.get("GRADECLIP_PRETRAINED")
    try:
        chosen("precision", precision, _PRECISIONS)
        return _load(name, pretrained, _checked(device), precision)
    except GradeclipError as refusal:
        if not variables:
            raise
        read = ", ".join(f"{key}={value!r}" for key, value in variables.items())
        raise type(refusal)(f"{refusal} (The environment has {read}.)") from refusal


def _load(name: Any, pretrained: Any, device: str, precision: str) -> Clip:
    if not isinstance(name, (str, os.PathLike)) or isinstance(name, bytes):
        raise GradeclipError(f"the name of a model must be a string or a path, got {short(name)}")
    if pretrained is not None and not isinstance(pretrained, (str, os.PathLike, Mapping)):
        raise GradeclipError(f"pretrained must be a tag, a path or a state dict, got {short(pretrained)}")
    name = str(name)
    if name.strip() in ("", "hf-hub:", "local-dir:", _PREFIX):
        raise GradeclipError(f"{name!r} names no model: say which")
    if len(name) > 1000 or "\0" in name:
        raise GradeclipError(f"no model and no folder has a name like {short(name)}")
    if name in BUNDLED_MODELS:
        return _load_bundled(name, pretrained, device, precision)
    if name.endswith(_SUFFIXES) and os.path.isfile(name):
        raise GradeclipError(f"{name} holds weights: give their architecture as the name, and the file as pretrained")
    folder, known = Path(name).expanduser(), [*BUNDLED_MODELS, *open_clip.list_models()]
    of_transformers = (folder / "config.json").is_file() and not (folder / _CONFIG).is_file()
    if folder.is_dir() and not of_transformers and name not in known:
        name = f"local-dir:{folder}"
    beside = of_transformers or name.startswith((_PREFIX, "local-dir:", "hf-hub:"))
    if beside and pretrained:
        where = "its weights beside its config (open_clip_config.json, or config.json)"
        raise GradeclipError(f"{name} has {where}: it takes no pretrained, got {short(pretrained)}")
    if of_transformers or name.startswith(_PREFIX):
        name = name.removeprefix(_PREFIX)
        model, processor = _load_transformers(name, device, precision)
        source = getattr(model.config, "_commit_hash", None) or name
        return Clip.from_transformers(model, processor, f"{_PREFIX}{name}", source)
    if not beside and name.replace("/", "-").removesuffix("-gelu") not in known:
        raise _unknown(name, known)
    model, preprocess, tokenizer, source = _load_open_clip(name, pretrained, device, precision)
    return Clip(model, preprocess, tokenizer, name, source)


def _checked(device: Any) -> str:
    """A device as torch writes it."""
    try:
        found = torch.device(device)
        if found.type not in ("cuda", "mps"):  # torch reports these late, in the middle of a model
            torch.empty(0, device=found)
    except (RuntimeError, TypeError, AssertionError, NotImplementedError, ImportError, AttributeError) as error:
        msg = f"a device must be one that torch knows (cpu, cuda, cuda:1, mps) and has here; got device {short(device)}"
        raise GradeclipError(msg) from error
    if found.type == "meta":
        raise GradeclipError("on the device 'meta' weights have no values, so that nothing is computed")
    seen = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (found.index or 0) >= seen.get(found.type, math.inf):
        gpus = seen[found.type] or "no"
        raise GradeclipError(f"device {short(device)} cannot be used: torch sees {gpus} such GPU here")
    return str(found)


def _unknown(name: str, known: list[str]) -> GradeclipError:
    """The refusal of a name that is no model, with those that are near."""
    if name.startswith(("/", "~", ".")):
        return GradeclipError(f"there is no folder {name}: one with {_CONFIG} or config.json is needed")
    near = nearest(name.replace("/", "-"), known, most=4)
    more = f"Nearest: {', '.join(near)}." if near else "open_clip.list_models() lists what it has."
    if name.count("/") == 1:
        more += f" A repository of a hub is 'hf-hub:{name}' (open_clip's form) or 'transformers:{name}'."
    return GradeclipError(f"open_clip has no model {name!r}. {more}")


# ------------------------------------------------------------------------------------------------------ of transformers


def _load_transformers(name: str, device: str, precision: str) -> tuple[nn.Module, Any]:
    """A model of transformers in evaluation mode, and its processor."""
    try:
        transformers = import_module("transformers")
    except ImportError as error:
        how = "pip install transformers (in a checkout, pip install '.[transformers]')"
        raise GradeclipError(f"{_PREFIX}{name} needs transformers: {how}") from error
    folder = Path(name).expanduser()
    if folder.is_dir():
        name = str(folder)
    elif folder.is_absolute() or name.startswith((".", "~")):
        msg = f"there is no folder {name}: {_PREFIX} takes a folder with config.json, or a hub's name."
        raise GradeclipError(msg)
    else:
        _check_reachable(name, "config.json")
    said = f"{_PREFIX}{name}"
    try:
        config = transformers.AutoConfig.from_pretrained(name)
        architectures = config.architectures or [f"{type(config).__name__.removesuffix('Config')}Model"]
        check_kind(architectures[0])
        options = {"use_safetensors": True, "output_loading_info": True, "ignore_mismatched_sizes": True}
        model, loaded = getattr(transformers, architectures[0]).from_pretrained(name, **options)
    except UnsupportedModel:
        raise
    except Exception as error:
        raise GradeclipError(f"{said} cannot be loaded: {first_line(error)}") from error
    if other := [key for key, *_ in loaded["mismatched_keys"]]:
        raise GradeclipError(f"{said} has weights of other shapes than its config says: {_some(other, 3)}")
    if lacks := [key for key in loaded["missing_keys"] if not key.endswith("position_ids")]:
        parts = f"{len(lacks)} parts of {architectures[0]}, {lacks[0]} among them: they would be random numbers"
        raise GradeclipError(f"{said} has no weights for {parts}")
    try:
        processor = transformers.AutoProcessor.from_pretrained(name)
    except Exception as error:
        files = "preprocessor_config.json and the files of the tokenizer belong beside the weights"
        msg = f"{said} has no processor that can be loaded ({first_line(error)}): {files}"
        raise GradeclipError(msg) from error
    _check_finite(model.state_dict(), said, "in its folder" if folder.is_dir() else "of its repository")
    return model.to(device, get_input_dtype(precision) or torch.float32).eval(), processor


# --------------------------------------------------------------------------------------------------------- of open_clip


def _load_open_clip(name: str, pretrained: Any, device: str, precision: str) -> tuple[nn.Module, Any, Any, str]:
    """Model, preprocessing, tokenizer and the source of the weights.

    The name is a registered architecture, with a tag, a file or a state dict; or "hf-hub:..." or "local-dir:...".
    """
    beside = name.startswith(("hf-hub:", "local-dir:"))
    config, shown, state, said = _beside(name) if beside else _registered(name, pretrained)
    try:
        for key, file in (("hf_model_name", "config.json"), ("hf_tokenizer_name", "tokenizer_config.json")):
            hub_name, within = config["text_cfg"].get(key), key == "hf_tokenizer_name" and name.startswith("local-dir:")
            if hub_name and not within and not Path(hub_name).is_dir():
                _check_reachable(hub_name, file)
        model = build(config, precision, device, empty=True)
        _put_in(model, state, name, said)
        preprocess = _preprocessing(model, shown)
        tokenizer = open_clip.get_tokenizer(name.removesuffix("-gelu"))
    except GradeclipError:
        raise
    except Exception as error:  # a config from elsewhere can be wrong in any way
        raise GradeclipError(f"{said} cannot be loaded as {name}: {_reason_of(error)}.") from error
    source = name if beside else "a state dict in hand" if isinstance(pretrained, Mapping) else said
    return model.eval(), preprocess, tokenizer, source


def _registered(name: str, pretrained: Any) -> _Found:
    """What belongs to an architecture that open_clip registers."""
    name, quick = name.replace("/", "-"), None
    if name.endswith("-gelu") and _quick_gelu_name(name.removesuffix("-gelu")):
        name, quick = name.removesuffix("-gelu"), False
    config, tags, published = open_clip.get_model_config(name), open_clip.list_pretrained_tags_by_model(name), {}
    if isinstance(pretrained, Mapping):
        said = "the state dict"
        state, known = _plain_state(pretrained, said)
    elif not pretrained:
        msg = f"{name} needs weights: pretrained={' or '.join(map(repr, tags[:5]))}, or the path of a file."
        raise GradeclipError(msg)
    else:
        said = str(pretrained)
        published = open_clip.get_pretrained_cfg(name, said)
        path = _find_weights(name, said) if published else Path(pretrained).expanduser()
        if not path.exists():
            if "/" in said or said.endswith(_SUFFIXES):
                raise GradeclipError(f"There is no file of weights {said}")
            hint = f"Weights of {name} known to open_clip: {', '.join(tags) or 'none'}."
            raise GradeclipError(f"{said!r} is neither a file nor a tag of {name}. {hint}")
        state, known = _read_weights(path)
    if quick is None:
        said_so = known if known is not None else config.get("quick_gelu") or None
        quick = published.get("quick_gelu", False) if published else said_so
    if quick is None and (twin := _quick_gelu_name(name)):
        trained = ", ".join(tag for tag in tags if open_clip.get_pretrained_cfg(name, tag).get("quick_gelu"))
        raise GradeclipError(
            f"{said} does not say its activation, and with the wrong one every number is wrong: pass {twin!r} as the "
            f"name if it was trained with quick GELU{f' ({trained})' if trained else ''}, or '{name}-gelu' for {name} "
            "with GELU"
        )
    config["quick_gelu"] = bool(quick)
    # a file has the settings of images on which all published weights agree; SigLIP's and CLIPA's are not CLIP's
    configs = [open_clip.get_pretrained_cfg(name, tag) for tag in ([said] if published else tags)]
    all_shown = [{key: one[key] for key in _SHOWN if key in one} for one in configs] or [{}]
    shown = {key: value for key, value in all_shown[0].items() if all(one.get(key) == value for one in all_shown)}
    return config, shown, state, said


def _beside(name: str) -> _Found:
    """The same of a folder ("local-dir:...") or of a hub ("hf-hub:...") with open_clip's config and weights."""
    kind, _, place = name.partition(":")
    file = Path(place) / _CONFIG
    if kind == "hf-hub":
        _check_reachable(place, _CONFIG)
    try:
        if kind == "hf-hub":
            file = Path(hf_hub_download(place, _CONFIG))  # nosec B615 # the repository that the user names
        settings = json.loads(file.read_text())
        config, shown = settings["model_cfg"], settings.get("preprocess_cfg", {})
        files = sorted(one for one in file.parent.iterdir() if one.suffix in _SUFFIXES)
        files.sort(key=lambda one: (one.name not in _PREFERRED, one.suffix != ".safetensors"))
        found = Path(download_pretrained_from_hf(place)) if kind == "hf-hub" else next(iter(files), None)
    except Exception as error:
        raise GradeclipError(f"{name} cannot be loaded: {_reason_of(error)}.") from error
    if found is None:
        raise GradeclipError(f"{place} has a config and no weights: put open_clip_model.safetensors beside it")
    return config, shown, _read_weights(found)[0], str(found)


def build(config: dict, precision: str = "fp32", device: str = "cpu", *, empty: bool = False) -> nn.Module:
    """The model that a config of open_clip describes: with random weights, or empty, for weights to be loaded."""
    config = deepcopy(config)
    custom = config.pop("custom_text", False) or "hf_model_name" in config["text_cfg"]
    of_timm = "timm_model_name" in config["vision_cfg"]
    if of_timm:
        config["vision_cfg"]["timm_model_pretrained"] = False
    if "hf_model_name" in config["text_cfg"]:
        config["text_cfg"]["hf_model_pretrained"] = False
    coca = custom and "multimodal_cfg" in config
    kind = open_clip.CoCa if coca else open_clip.CustomTextCLIP if custom else open_clip.CLIP
    with _Unset() if empty else nullcontext():
        model = kind(**config, cast_dtype=get_cast_dtype(precision))
    dtype, mixed = get_input_dtype(precision) or torch.float32, precision in ("fp16", "bf16")
    if mixed and not of_timm:
        convert_weights_to_lp(model, dtype=dtype)  # LayerNorm and embeddings stay float32
        return model.to(device)
    model.to(device, dtype)
    for module in model.modules() if mixed else ():
        if isinstance(module, LayerNormFp32):
            module.float()
    return model


class _Unset(TorchFunctionMode):
    """Within it no random numbers are drawn: all weights of a new model are about to be loaded."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        """Return a tensor as it is instead of filling it."""
        kwargs = kwargs or {}
        if function is torch.randn:
            return torch.empty(*args, **kwargs)
        if getattr(function, "__module__", "") == "torch.nn.init" and "tensor" in kwargs:
            return kwargs["tensor"]
        return args[0] if function in (Tensor.normal_, Tensor.uniform_) else function(*args, **kwargs)


def _put_in(model: nn.Module, state: dict[str, Tensor], name: str, said: str) -> None:
    """Load a state dict as open_clip does, its positions resized; what does not fit is named."""
    own = model.state_dict()
    other = f"{said} is a checkpoint of another architecture than {name}"
    state = convert_state_dict(model, dict(state))
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    for key in ("logit_scale", "logit_bias"):
        if key in state and key in own and state[key].numel() == own[key].numel():
            state[key] = state[key].reshape(own[key].shape)
    if own.get("logit_bias") is not None and "logit_bias" not in state:
        state["logit_bias"] = torch.zeros_like(own["logit_bias"])
    state = {key: value for key, value in state.items() if key in own or not key.endswith("position_ids")}
    whole = [key for key in state if key in own and own[key].is_floating_point() > state[key].is_floating_point()]
    if whole:
        kind = str(state[whole[0]].dtype).removeprefix("torch.")
        msg = f"{said} holds weights of integers or complex numbers ({whole[0]} is {kind}): save them as floats"
        raise GradeclipError(msg)
    state = {key: value.float() if key.endswith("positional_embedding") else value for key, value in state.items()}
    try:
        resize_pos_embed(state, model)
        resize_text_pos_embed(state, model)
    except (AssertionError, RuntimeError) as error:
        raise GradeclipError(f"{other}: {first_line(error).rstrip('!')}.") from error
    shapes = [key for key, value in own.items() if key in state and state[key].shape != value.shape]
    parts = [f"{key} is {list(state[key].shape)} in the file and {list(own[key].shape)} in the model" for key in shapes]
    lacks, besides = [key for key in own if key not in state], [key for key in state if key not in own]
    parts += [f"it lacks {_some(lacks, 3)}"] if lacks else []
    parts += [f"it has besides {_some(besides, 3)}"] if besides else []
    if parts:
        raise GradeclipError(f"{other}: {_some(parts, 6, '; ')}.")
    _check_finite(state, name, said)
    model.load_state_dict(state)


def _check_finite(state: Mapping[str, Tensor], name: str, said: str) -> None:
    """Refuse weights that are NaN or infinite, by their names."""
    floats = ((key, value.float()) for key, value in state.items() if value.is_floating_point())
    broken = [key for key, value in floats if not torch.isfinite(value.sum()) and not torch.isfinite(value).all()]
    if broken:
        raise GradeclipError(f"The weights {said} of {name} are not finite (NaN): {_some(broken, 3)}.")


def _preprocessing(model: nn.Module, shown: Mapping[str, Any]) -> Any:
    """open_clip's transform for evaluation, with these settings instead of OpenAI's."""
    cfg = {**merge_preprocess_dict(asdict(PreprocessCfg()), dict(shown)), "size": model.visual.image_size}
    if not len(cfg["mean"]) == len(cfg["std"]) == 3 or not all(cfg["std"]):
        raise GradeclipError(f"three means and three deviations above 0 are needed, got {cfg['mean']}, {cfg['std']}")
    chosen("interpolation", cfg["interpolation"], ("bicubic", "bilinear"))
    chosen("resize_mode", cfg["resize_mode"], ("shortest", "longest", "squash"))
    set_model_preprocess_cfg(model, cfg)
    preprocess = image_transform_v2(PreprocessCfg(**cfg), is_train=False)
    preprocess(Image.new("RGB", (8, 8)))  # wrong settings fail here
    return preprocess


# ---------------------------------------------------------------------------- bundled models, and models that are saved


def emoji_vit_map(pretrained: bool = False, **options) -> nn.Module:
    """A VisionTransformer at the size of emoji scenes, without CLS, read by a latent query (MAP), as in SigLIP."""
    size = {"img_size": 96, "patch_size": 8, "embed_dim": 192, "depth": 6, "num_heads": 3}
    own = {**size, "class_token": False, "global_pool": "map", "pre_norm": True, **options}
    own["pretrained_cfg"] = {"input_size": (3, own["img_size"], own["img_size"]), "num_classes": 0}  # there are none
    return timm.models.build_model_with_cfg(VisionTransformer, "emoji_vit_map", pretrained, **own)


if not timm.is_model(emoji_vit_map.__name__):  # open_clip's configs name timm's models, and this is one more of them
    timm.models.register_model(emoji_vit_map)


def save_compact(
    model: nn.Module, path: str | Path, *, words: Iterable[str], metadata: dict[str, str], config: dict | None = None,
    shared: str | Path | None = None,
) -> None:  # fmt: skip
    """Save a model that knows few words in half precision, with the embedding rows of its own tokens only.

    Tokens are those of `words`, comma and full stop, and the start and end of text. `load_clip("emoji", path)` makes an
    ordinary model of it again.

    Args:
        model: a `CLIP` or `CustomTextCLIP` of open_clip with CLIP's own BPE tokenizer.
        path: the file, ending in .safetensors.
        words: the words of the captions, with any punctuation beside comma and full stop.
        metadata: provenance (steps, seed, ...), written into the file.
        config: if given, written beside it as .json: open_clip's model config, under "preprocess" the mean, std,
            interpolation, resize_mode and size of the images, and under "image_layers" and "text_layers" how many of
            the last layers are explained by default.
        shared: a compact file in the same folder. Tensors that it has too, bit by bit, are left out and read from it.

    Raises:
        GradeclipError: a weight is not finite in half precision, or a word is no text.
    """
    tokenizer = open_clip.SimpleTokenizer()
    words = sorted({text("each of words", word).lower() for word in listed("words", words)})
    ids = {tokenizer.sot_token_id, tokenizer.eot_token_id}
    if hasattr(model, "text"):
        ids.add(0)  # fills the context, and may be the token that reads
    ids = torch.tensor(sorted(ids.union(*(tokenizer.encode(word) for word in [*words, ",", "."]))), dtype=torch.int32)
    state = {key: value.detach().cpu() for key, value in model.state_dict().items()}
    state = {key: one.half() if one.is_floating_point() else one for key, one in state.items()}  # batch norm counts
    table = _table_of(state)
    state[table] = state[table][ids.long()]
    broken = [key for key, value in state.items() if not torch.isfinite(value).all()]
    if broken:
        raise GradeclipError(f"Not finite in half precision: {', '.join(broken)}.")
    state = {key: value.clone(memory_format=torch.contiguous_format) for key, value in state.items()}
    state["token_ids"] = ids
    if shared is not None:
        others = load_file(shared)
        state = {key: value for key, value in state.items() if key not in others or not torch.equal(value, others[key])}
        metadata = {**metadata, "shared": Path(shared).name, "shared_sha256": _checksum(shared)}
    about = {**metadata, "words": " ".join(words)}
    write_path_whole(Path(path), lambda place: save_file(state, place, metadata=about))
    Path(path).chmod(0o644)  # safetensors writes through a private temporary file
    if config is not None:
        Path(path).with_suffix(".json").write_text(json.dumps(config, indent=2) + "\n")


def save_clip(clip: Clip, path: str | Path, metadata: dict[str, str], words: Sequence[str] = ()) -> None:
    """Write a model for `load_clip(name, path)`: compact for a bundled model, else its state as safetensors."""
    if clip.name in BUNDLED_MODELS:
        known = {*(clip.vocabulary or ()), *words}
        write_path_whole(Path(path), lambda new: save_compact(clip.model, new, words=known, metadata=metadata))
        return
    state = {key: value.detach().cpu().contiguous().clone() for key, value in clip.model.state_dict().items()}
    quick = any(isinstance(module, QuickGELU) for module in clip.model.modules())
    metadata = {**metadata, "quick_gelu": str(quick)}  # so that it can be loaded by its plain name
    write_path_whole(Path(path), lambda new: save_file(state, new, metadata=metadata))


@torch.inference_mode(False)
def _load_bundled(name: str, pretrained: Any, device: str, precision: str) -> Clip:
    """A bundled model, or a compact file of `save_compact` with the config of the bundled model of this name."""
    if isinstance(pretrained, Mapping):
        msg = f"{name} is a bundled model, whose weights are a file of save_compact, not a state dict."
        raise GradeclipError(msg)
    path = as_path(pretrained, "a file of weights") if pretrained else data_path(BUNDLED_MODELS[name])
    bundled = (one for one, file in BUNDLED_MODELS.items() if path.resolve() == data_path(file).resolve())
    name = next(bundled, name)  # a file of another bundled model is that model
    configs = (file.with_suffix(".json") for file in (path, data_path(BUNDLED_MODELS[name])))
    config_path = next((file for file in configs if file.is_file()), data_path(f"{BUNDLED}.json"))
    if not path.is_file() or not config_path.is_file():
        if pretrained:
            raise GradeclipError(f"There is no file of weights {path}")
        file = BUNDLED_MODELS[name]
        raise GradeclipError(
            f"{name} is not here: an installed package holds {BUNDLED!r} alone, and the project's checkout has it as "
            f"data/{file}. Run there, or copy {file} and its .json and pass load_clip({name!r}, 'FOLDER/{file}')"
        )
    metadata, state = _open_safetensors(path)
    try:
        config = json.loads(config_path.read_text())
        layers = {key: config.pop(key, None) for key in _EXPLAINED_LAYERS}
        shown, rows_of_all = config.pop("preprocess"), config["text_cfg"].get("vocab_size", 49408)
        model = build(config, precision, device, empty=True)
        preprocess = _preprocessing(model, shown)
    except Exception as error:
        raise GradeclipError(f"{config_path} is no config of a model: {_reason_of(error)}") from error
    if "shared" in metadata:  # the other model's tensors that this model has no place for are left out
        known, others = {*model.state_dict(), "token_ids"}, _shared_state(path, metadata)
        state = {key: value for key, value in others.items() if key in known} | state
    if "token_ids" not in state:
        msg = f"{path} is not a compact checkpoint: it has no token_ids. Pass its architecture as the name."
        raise GradeclipError(msg)
    table, ids = _table_of(state), state.pop("token_ids").long()
    rows = state[table].float()
    state[table] = rows.mean(0).repeat(rows_of_all, 1).index_copy(0, ids, rows)
    _put_in(model, state, config_path.name, str(path))
    tokenizer = open_clip.SimpleTokenizer(context_length=getattr(model, "text", model).context_length)
    vocabulary = frozenset(word for word in metadata.get("words", "").split() if any(map(str.isalnum, word)))
    inside = path.resolve().parent == data_path().resolve()
    source = "bundled" if inside else str(path)  # a path of this machine means nothing elsewhere
    return Clip(model.eval(), preprocess, tokenizer, name, source, vocabulary or None, **layers,
                training=_training(metadata))  # fmt: skip


def _training(metadata: dict[str, str]) -> str:
    """One sentence on the training of a model, from the metadata of its file."""
    if "teacher" in metadata:
        return f"distilled from {metadata['teacher']!r}: its embeddings are to be those of its teacher"
    if "maps" in metadata:
        return f"fine-tuned so that the maps of phrases ({metadata['maps']}) match their regions"
    if "hard_negatives" not in metadata:
        return ""
    sparse, scale = (float(metadata.get(key, 0)) for key in ("sparse_values", "logit_scale"))
    extra = [sentence for applies, sentence in (
        (metadata["hard_negatives"] == "True", "hard negatives in every batch"),
        (sparse, f"a penalty on patches whose values are large (weight {sparse:g})"),
        (scale, f"a fixed scale of {scale:g} in the loss"),
        (metadata.get("shuffled_colours") == "True", "the colours of each caption shuffled among its things"),
    ) if applies]  # fmt: skip
    if not extra:
        return "on drawn scenes, as CLIP was trained on photographs"
    return f"on drawn scenes, with {', '.join(extra)}; CLIP's own training has none of these"


def _shared_state(path: Path, metadata: dict[str, str]) -> dict[str, Tensor]:
    other = path.with_name(metadata["shared"])
    other = other if other.is_file() else data_path(metadata["shared"])
    if not other.is_file():
        msg = f"{path} shares weights with {metadata['shared']}, which is missing beside it."
        raise GradeclipError(msg)
    if _checksum(other) != metadata["shared_sha256"]:
        was = f"{metadata['shared']} as it was when the file was written"
        raise GradeclipError(f"{path} shares weights with {was}, and {other} is another one: distil it again.")
    return load_file(other)


def _checksum(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _table_of(state: dict[str, Tensor]) -> str:
    return next(key for key in state if key in (_TABLE, f"text.{_TABLE}"))


# ----------------------------------------------------------------------------------------------------- files of weights


def _find_weights(name: str, tag: str) -> Path:
    """The file with published weights of an open_clip model, from the cache or downloaded into it."""
    config = open_clip.get_pretrained_cfg(name, tag)
    repository, _, file = config["hf_hub"].rpartition("/")
    files = [re.sub(r"\.(bin|pth)$", ".safetensors", file), file] if file else [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME]
    for one in files:  # in the order in which open_clip tries them
        if isinstance(found := try_to_load_from_cache(repository, one), str):
            return Path(found)
    if (reason := _why_unreachable()) is None:
        try:
            return Path(open_clip.download_pretrained(config))
        except (OSError, RuntimeError) as error:
            reason = first_line(error)
    if twin := _quick_gelu_name(name):
        name = twin if config.get("quick_gelu") else f"{name}-gelu"
    file, folder = file or files[0], Path(hub.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    raise GradeclipError(
        f"The weights {tag!r} of {name} are not on this machine and cannot be downloaded ({reason}).\n"
        f"Without network, fetch them elsewhere with `hf download {repository} {file}`, and then\n"
        f'  1. copy the file here and pass its path: load_clip("{name}", pretrained="/path/to/{file}"), or\n'
        f"  2. copy the folder {folder.name} from that machine's cache to {folder} (HF_HOME names another place)."
    )


def _why_unreachable() -> str | None:
    """One quick request before a download: the hub's own client retries for most of a minute."""
    if hub.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        request = urllib.request.Request(hub.ENDPOINT, method="HEAD")
        urllib.request.urlopen(request, timeout=_REACH_SECONDS).close()  # nosec B310
    except urllib.error.HTTPError:
        return None  # any answer means that it is within reach
    except (OSError, http.client.HTTPException) as error:
        return f"{hub.ENDPOINT.split('/')[2]} cannot be reached: {getattr(error, 'reason', error)}"
    return None


def _check_reachable(name: str, file: str) -> None:
    """Refuse a repository of a hub at once if the file is neither in the cache nor within reach."""
    try:
        if isinstance(try_to_load_from_cache(name, file), str):
            return
    except HFValidationError as error:
        msg = f"{short(name)} is no name that a repository can have: owner/name"
        raise GradeclipError(msg) from error
    if reason := _why_unreachable():
        msg = f"{name} is not in the cache ({hub.HF_HUB_CACHE}) and cannot be downloaded ({reason})."
        raise GradeclipError(msg)


def _quick_gelu_name(name: str) -> str | None:
    """The name of the same architecture with OpenAI's activation, x * sigmoid(1.702 x), if open_clip has one."""
    return twin if (twin := f"{name}-quickgelu") in open_clip.list_models() else None


def _open_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The metadata and the tensors of a safetensors file."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        return metadata, load_file(path)
    except Exception as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> GradeclipError:
    understandable = isinstance(error, (SafetensorError, RuntimeError)) and "weights_only" not in str(error)
    reason = first_line(error) if understandable else "it cannot be read"
    return GradeclipError(f"{path} ({path.stat().st_size:,} bytes) is damaged, cut off, or not a checkpoint: {reason}.")


def _read_weights(path: Path) -> tuple[dict[str, Tensor], bool | None]:
    """The state dict in a file, and whether its model has quick GELU; None if the file does not say."""
    if path.is_dir():
        raise GradeclipError(f"{path} is a folder; pass the file with the weights ({', '.join(_SUFFIXES)}).")
    if path.suffix not in _SUFFIXES:
        raise GradeclipError(f"{path} does not end like a checkpoint; expected one of {', '.join(_SUFFIXES)}.")
    quick = None
    try:
        if path.suffix == ".safetensors":
            metadata, entries = _open_safetensors(path)
            quick = {"True": True, "False": False}.get(metadata.get("quick_gelu", ""))
        elif _is_torchscript(path):
            entries, quick = dict(torch.jit.load(path, map_location="cpu").state_dict()), True
        else:
            # tensors only: pickled objects could run code
            entries = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except GradeclipError:
        raise
    except Exception as error:
        if "unsupported global" in str(error).lower():
            how = "which could run code; save its state dict as safetensors instead"
            raise GradeclipError(f"{path} holds pickled Python objects, {how}.") from error
        raise _damaged(path, error) from error
    state, archived = _plain_state(entries, str(path))
    return state, archived or quick


def _is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive, the form in which OpenAI published CLIP."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _plain_state(state: Any, what: str) -> tuple[dict[str, Tensor], bool | None]:
    """The names and tensors of a state dict, without the wrappers of trainers, and True if it has OpenAI's form."""
    rule = f"{what} holds no state dict: expected names and tensors, also under 'state_dict'"
    if isinstance(state, Mapping) and "state_dict" in state:
        state = state["state_dict"]
    if not isinstance(state, Mapping):
        raise GradeclipError(f"{rule}; got {short(state)}")
    if not state or not all(isinstance(key, str) and torch.is_tensor(value) for key, value in state.items()):
        raise GradeclipError(f"{rule}; got {_some(list(map(str, state)), 6) or 'an empty one'}")
    for key, value in state.items():
        kind = "on the device 'meta'" if value.is_meta else str(value.layout).removeprefix("torch.")
        if value.is_meta or value.layout is not torch.strided:
            raise GradeclipError(f"{what} cannot be read: {key} is {kind}; save its weights as plain tensors of floats")
    for prefix in _WRAPPERS:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    archived = any(key in state for key in _OF_ARCHIVES) or None
    return {key: value.detach().cpu() for key, value in state.items() if key not in _OF_ARCHIVES}, archived


def _some(items: list[str], count: int, separator: str = ", ") -> str:
    """The first few of several things, and how many more there are."""
    more = f"{separator}and {len(items) - count} more" if len(items) > count else ""
    return separator.join(items[:count]) + more


def _reason_of(error: Exception) -> str:
    """The first line of an error's message; a KeyError names the missing key."""
    return f"it lacks {error}" if isinstance(error, KeyError) else first_line(error).rstrip(".")
