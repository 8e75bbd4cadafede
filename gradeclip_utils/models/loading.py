"""`load_clip`: a `Clip` by name; bundled, of open_clip or transformers, in a folder or a hub."""

import os
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import load_file

from ..errors import GradeclipError, first_line, nearest
from .bundled import BUNDLED, BUNDLED_MODELS, load_bundled
from .clip import Clip
from .transformers import PREFIX, load_transformers

OPEN_CLIP_CONFIG = "open_clip_config.json"
WITH_WEIGHTS = ("hf-hub:", "local-dir:", PREFIX)  # names of places that have weights of their own
PRECISIONS = ("fp32", "bf16", "fp16", "pure_bf16", "pure_fp16")


def load_clip(
    name: str | Path | None = None,
    pretrained: str | Path | None = None,
    *,
    device: str | None = None,
    precision: str = "fp32",
) -> Clip:
    """Load a CLIP in evaluation mode: the bundled one, or any of open_clip or transformers.

        load_clip()                                      # the bundled model
        load_clip("emoji-resnet")                        # bundled too: BUNDLED_MODELS lists them
        load_clip("ViT-B-16", pretrained="openai")       # downloaded once
        load_clip("ViT-B-16-quickgelu", pretrained="/models/ViT-B-16.safetensors")
        load_clip("my-clip")     # a folder with open_clip_config.json, or config.json
        load_clip("hf-hub:timm/ViT-B-16-SigLIP2-256")    # the same on a hub
        load_clip("transformers:openai/clip-vit-base-patch32")

    Without a name, the environment decides (`GRADECLIP_MODEL`, `GRADECLIP_PRETRAINED`). A tag of
    open_clip runs with its own activation. A file does not say its activation: if open_clip has the
    architecture in both forms, the name must say which, "ViT-B-32-quickgelu" or "ViT-B-32-gelu". A
    file does not say its normalisation either: it is that of the name's first published weights.

    Args:
        name: an architecture of open_clip (`open_clip.list_models()`), a folder, "hf-hub:...",
            "transformers:..." (a repository or a folder), or one of `BUNDLED_MODELS`.
        pretrained: a tag of open_clip, or the path of a file that open_clip reads, also one that
            OpenAI published, such as ViT-B-32.pt. For a bundled model, a .safetensors file of the
            project's own form, with its .json beside it. For a folder or a repository, a
            .safetensors file in place of the weights there.
        device: as torch names it. None is `GRADECLIP_DEVICE`; without this variable, a GPU if there
            is one and no name was given, and else the CPU.
        precision: "fp32", or open_clip's "bf16", "fp16", "pure_bf16", "pure_fp16"; bundled models
            and those of transformers are in half precision throughout.

    Raises:
        GradeclipError: an unknown name, tag or precision; a file of unknown activation; weights
            that cannot be downloaded or loaded. The message says which.
    """
    if precision not in PRECISIONS:
        raise GradeclipError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if device is None:
        on_gpu = name is None and torch.cuda.is_available()
        device = os.environ.get("GRADECLIP_DEVICE") or ("cuda" if on_gpu else "cpu")
    if name is None:
        name = os.environ.get("GRADECLIP_MODEL") or BUNDLED
        pretrained = pretrained or os.environ.get("GRADECLIP_PRETRAINED") or None

    name = str(name)
    if name in BUNDLED_MODELS:
        return load_bundled(name, pretrained, device, precision)
    name = _with_prefix(name)
    if not name.startswith(WITH_WEIGHTS):
        return _load_open_clip(name, str(pretrained or ""), device, precision)

    if name.startswith(PREFIX):
        clip = Clip.from_transformers(*load_transformers(name, device, precision), name, name)
    else:
        clip = _load_open_clip(name, "", device, precision)
    if pretrained:
        clip.model.load_state_dict(load_file(pretrained))
        clip = replace(clip, pretrained=str(pretrained))
    return clip


def _with_prefix(name: str) -> str:
    """The name of a folder with the library that reads it in front; other names as they are."""
    folder = Path(name).expanduser()
    if (folder / OPEN_CLIP_CONFIG).is_file():
        return f"local-dir:{folder}"
    if (folder / "config.json").is_file():
        return f"{PREFIX}{folder}"
    return name


# ----------------------------------------------------------------------------------- open_clip


def _load_open_clip(name: str, pretrained: str, device: str, precision: str) -> Clip:
    architecture = name
    options: dict[str, Any] = {}
    if not name.startswith(WITH_WEIGHTS):
        architecture, options = _check_names(name, pretrained)
    if _is_torchscript(pretrained):
        options["weights_only"] = False  # torch.jit then reads the file, and unpickles nothing
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'torch.load' received a zip file")
            model, preprocess = open_clip.create_model_from_pretrained(
                architecture,
                pretrained or None,
                precision=precision,
                device=device,
                **options,
            )
        tokenizer = open_clip.get_tokenizer(architecture)
    except (OSError, RuntimeError, ValueError, AssertionError) as error:
        raise GradeclipError(
            f"open_clip cannot load {name}: {first_line(error)}{_how_to_fetch(name, pretrained)}"
        ) from error
    return Clip(model.eval(), preprocess, tokenizer, name, pretrained or name)


def _is_torchscript(file: str) -> bool:
    """Whether a file is a TorchScript archive, as OpenAI published its weights."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _check_names(name: str, pretrained: str) -> tuple[str, dict[str, Any]]:
    """The architecture, and options that give it the activation and images of its weights."""
    models = open_clip.list_models()
    architecture = name.removesuffix("-gelu").replace("/", "-")
    if architecture not in models:
        raise GradeclipError(_unknown(name, models))
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if not pretrained:
        few = " or ".join(repr(tag) for tag in tags[:5])
        raise GradeclipError(f"{name} needs weights: pretrained={few}, or the path of a file")

    if pretrained in tags:
        published = open_clip.get_pretrained_cfg(architecture, pretrained)
        return architecture, {"force_quick_gelu": published.get("quick_gelu", False)}
    if not Path(pretrained).is_file():
        raise GradeclipError(
            f"pretrained={pretrained!r} is neither a file nor a tag of {architecture}, which has: "
            f"{', '.join(tags) or 'none'}"
        )
    quick_name = f"{architecture}-quickgelu"
    if quick_name in models and not name.endswith("-gelu"):
        raise GradeclipError(
            f"{pretrained} does not say its activation, and with the wrong one every number is "
            f"wrong: the name is {quick_name!r} if it was trained with QuickGELU (as OpenAI's, "
            f"DFN's and MetaCLIP's were), and '{name}-gelu' if not"
        )
    if not tags:
        return architecture, {}
    first = open_clip.get_pretrained_cfg(architecture, tags[0])
    keys = ("mean", "std", "interpolation", "resize_mode")
    return architecture, {f"image_{key}": first[key] for key in keys if key in first}


def _unknown(name: str, models: list[str]) -> str:
    """The refusal of a name that is no model, with those that are near."""
    near = nearest(name, [*BUNDLED_MODELS, *models], most=4)
    message = f"there is no folder and no model {name!r}. "
    if near:
        message += f"Nearest: {', '.join(near)}."
    else:
        message += "open_clip.list_models() lists open_clip's."
    if "/" in name:
        message += f" A repository of a hub is 'hf-hub:{name}' or 'transformers:{name}'."
    return message


def _how_to_fetch(name: str, pretrained: str) -> str:
    """The end of a refusal: how the weights of a tag come to a machine without network."""
    config = open_clip.get_pretrained_cfg(name, pretrained)
    if "hf_hub" not in config:
        return ""
    if config.get("quick_gelu") and f"{name}-quickgelu" in open_clip.list_models():
        name = f"{name}-quickgelu"
    repository = config["hf_hub"].strip("/")
    return (
        f"\nWithout network, run `hf download {repository}` on another machine, copy the file, "
        f"and write load_clip({name!r}, pretrained=PATH)."
    )
