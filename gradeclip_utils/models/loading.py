"""`load_clip`: a `Clip` by name, bundled by default; from open_clip, transformers, a file, a folder or a hub."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any

import open_clip
import torch

from ..checks import as_path, chosen, instance, nearest, short
from ..errors import GradeclipError
from .bundled import BUNDLED, BUNDLED_MODELS, load_bundled
from .clip import Clip
from .open_clip import BESIDE, CONFIG, SUFFIXES, load_open_clip
from .transformers import PREFIX, load_transformers


@torch.inference_mode(False)  # weights that are made within have no gradients
def load_clip(
    name: str | Path | None = None,
    pretrained: str | Path | Mapping[str, torch.Tensor] | None = None,
    *,
    device: str | None = None,
    precision: str = "fp32",
) -> Clip:
    """Load a CLIP in evaluation mode: the bundled one by default, or any model that open_clip or transformers knows.

        load_clip()                                              # the bundled model
        load_clip("emoji-resnet")                                # bundled too: BUNDLED_MODELS lists
        them load_clip("ViT-B-16", pretrained="openai")               # downloaded once
        load_clip("ViT-B-16-quickgelu", pretrained="/models/ViT-B-16.safetensors")
        load_clip("ViT-B-16-gelu", pretrained=fine_tuned.state_dict()) load_clip("my-clip")
        # a folder with open_clip_config.json, or config.json
        load_clip("hf-hub:timm/ViT-B-16-SigLIP2-256")            # the same on a hub
        load_clip("transformers:openai/clip-vit-base-patch32")

    Without a name, the environment decides (`GRADECLIP_MODEL`, `GRADECLIP_PRETRAINED`). Tags, also
    "openai", and OpenAI's own archive run with their own activation. Other files do not say theirs:
    if open_clip has the architecture in both forms, the name must say which, "ViT-B-32-quickgelu"
    or "ViT-B-32-gelu". Files do not say their normalisation either: it is the one that all
    published weights of the name share, or else OpenAI's.

    Args:
        name: an architecture of open_clip (`open_clip.list_models()`), a folder, "hf-hub:...",
            "transformers:..." (a repository or a folder), or one of `BUNDLED_MODELS`.
        pretrained: a tag of open_clip, the path of a checkpoint (safetensors, a `torch.save`d state
            dict, OpenAI's archive), or a state dict; for a folder or a repository, in place of the
            weights there. For a bundled model, a file written by `save_compact`.
        device: as torch names it. None is `GRADECLIP_DEVICE`; without this variable, a GPU if there
            is one and no name was given, and else the CPU.
        precision: "fp32", or open_clip's "bf16", "fp16", "pure_bf16", "pure_fp16".

    Raises:
        GradeclipError: an unknown name, tag, precision or device; weights that are damaged, not
            finite, integers, of another architecture or of an unknown activation; weights that are
            not here and cannot be downloaded. The message says which.
    """
    unsaid = {
        "GRADECLIP_MODEL": name is None,
        "GRADECLIP_PRETRAINED": name is None,
        "GRADECLIP_DEVICE": device is None,
    }
    variables = {
        key: os.environ[key] for key, wanted in unsaid.items() if wanted and os.environ.get(key)
    }
    if device is None:
        own = "cuda" if name is None and torch.cuda.is_available() else "cpu"
        device = variables.get("GRADECLIP_DEVICE", own)
    if name is None:
        name = variables.get("GRADECLIP_MODEL", BUNDLED)
        pretrained = variables.get("GRADECLIP_PRETRAINED") if pretrained is None else pretrained
    try:
        chosen("precision", precision, ("fp32", "bf16", "fp16", "pure_bf16", "pure_fp16"))
        return _load(name, pretrained, _checked(device), precision)
    except GradeclipError as refusal:
        if not variables:
            raise
        read = ", ".join(f"{key}={value!r}" for key, value in variables.items())
        raise type(refusal)(f"{refusal} (The environment has {read}.)") from refusal


def _load(name: Any, pretrained: Any, device: str, precision: str) -> Clip:
    name = str(instance("the name of a model", name, (str, os.PathLike), "a string or a path"))
    instance(
        "pretrained",
        pretrained,
        (str, os.PathLike, Mapping, NoneType),
        "a tag, a path or a state dict",
    )
    if isinstance(pretrained, Mapping) and not pretrained:
        raise GradeclipError("the state dict is empty: pass one with the weights of the model")
    if name.strip() in ("", "hf-hub:", "local-dir:", PREFIX):
        raise GradeclipError(f"{name!r} names no model: say which")
    if name in BUNDLED_MODELS:
        return load_bundled(name, pretrained, device, precision)
    folder = as_path(name.removeprefix("local-dir:"), "the name of a model")
    known = [*BUNDLED_MODELS, *open_clip.list_models()]
    if name.endswith(SUFFIXES) and folder.is_file():
        raise GradeclipError(
            f"{name} holds weights: give their architecture as the name, and the file as pretrained"
        )
    has_config = not name.startswith(BESIDE) and (folder / "config.json").is_file()
    of_transformers = has_config and not (folder / CONFIG).is_file()
    if (
        (folder.is_dir() or name.startswith(("/", "~", ".")))
        and not of_transformers
        and name not in known
    ):
        name = f"local-dir:{folder}"
    if of_transformers or name.startswith(PREFIX):
        name = name.removeprefix(PREFIX)
        model, processor, source = load_transformers(name, pretrained, device, precision)
        return Clip.from_transformers(model, processor, f"{PREFIX}{name}", source)
    if not name.startswith(BESIDE) and name.replace("/", "-").removesuffix("-gelu") not in known:
        raise _unknown(name, known)
    model, preprocess, tokenizer, source = load_open_clip(name, pretrained, device, precision)
    return Clip(model, preprocess, tokenizer, name, source)


def _checked(device: Any) -> str:
    """A device as torch writes it."""
    try:
        found = torch.device(device)
        if found.type not in ("cuda", "mps"):  # torch reports these late, in the middle of a model
            torch.empty(0, device=found)
    except (
        RuntimeError,
        TypeError,
        ValueError,
        AssertionError,
        ImportError,
        AttributeError,
    ) as error:
        msg = f"a device must be one that torch knows (cpu, cuda, cuda:1, mps) and has here; got device {short(device)}"
        raise GradeclipError(msg) from error
    if found.type == "meta":
        raise GradeclipError("weights have no values on the device 'meta': choose another device")
    seen = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (found.index or 0) >= seen.get(found.type, math.inf):
        gpus = seen[found.type] or "no"
        raise GradeclipError(
            f"device {short(device)} cannot be used: torch finds {gpus} such GPU here"
        )
    return str(found)


def _unknown(name: str, known: list[str]) -> GradeclipError:
    """The refusal of a name that is no model, with those that are near."""
    near = nearest(name.replace("/", "-"), known, most=4)
    more = f"Nearest: {', '.join(near)}." if near else "open_clip.list_models() lists what it has."
    if name.count("/") == 1:
        more += f" A repository of a hub is 'hf-hub:{name}' (open_clip's form) or 'transformers:{name}'."
    return GradeclipError(f"open_clip has no model {name!r}. {more}")
