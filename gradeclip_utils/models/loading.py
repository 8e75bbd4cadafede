"""`load_clip`: a `Clip` by name, bundled by default; from open_clip, transformers, a file, a folder or a hub.

weights --here--> Clip -> towers -> trace -> method -> explanation
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import torch

from ..checks import short
from ..errors import GradeclipError
from . import checkpoints
from .bundled import BUNDLED, BUNDLED_MODELS, load_bundled
from .clip import Clip
from .huggingface import PREFIX, load_transformers
from .open_clip import OPEN_CLIP_CONFIG, check_options, unknown_name


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
    `GRADECLIP_DEVICE`. `Clip.from_open_clip` says how the activation of a file is found. A file does not say its
    normalisation either: it is the one that all published weights of the name share, or else OpenAI's.

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
    if device is None:
        first = "cuda" if name is None and torch.cuda.is_available() else "cpu"
        device, said = os.environ.get("GRADECLIP_DEVICE") or first, "GRADECLIP_DEVICE="
    else:
        said = "device "
    if name is None:
        variables = {
            key: value for key in ("GRADECLIP_MODEL", "GRADECLIP_PRETRAINED") if (value := os.environ.get(key))
        }
        name, pretrained = (
            variables.get("GRADECLIP_MODEL", BUNDLED),
            pretrained or variables.get("GRADECLIP_PRETRAINED"),
        )
        try:
            return _load(name, pretrained, check_options(name, pretrained, device, precision, said), precision)
        except GradeclipError as refusal:
            if not variables:
                raise
            read = ", ".join(f"{key}={value!r}" for key, value in variables.items())
            raise type(refusal)(f"{refusal} (The environment has {read}.)") from refusal
    return _load(name, pretrained, check_options(name, pretrained, device, precision, said), precision)


def _load(name: str | Path, pretrained: Any, device: str, precision: str) -> Clip:
    name = str(name)
    if name.strip() in ("", "hf-hub:", "local-dir:", PREFIX):
        raise GradeclipError(f"{name!r} names no model: say which")
    if len(name) > 1000 or "\0" in name:
        raise GradeclipError(f"no model and no folder has a name like {short(name)}")
    if name in BUNDLED_MODELS:
        if isinstance(pretrained, Mapping):
            msg = f"{name} is a bundled model, whose weights are a file of save_compact, not a state dict."
            raise GradeclipError(msg)
        return load_bundled(name, pretrained, device, precision)
    if name.endswith(checkpoints.SUFFIXES) and os.path.isfile(name):
        msg = f"{name} holds weights: give their architecture as the name, and the file as pretrained"
        raise GradeclipError(msg)
    folder = Path(name).expanduser()
    configs = [file for file in ("config.json", OPEN_CLIP_CONFIG) if (folder / file).is_file()]
    hub_form = name.startswith(PREFIX) or configs == ["config.json"]
    if folder.is_dir() and not hub_form and name not in open_clip.list_models():
        name = f"local-dir:{folder}"
    if hub_form:
        name = name.removeprefix(PREFIX)
        if pretrained:
            where = f"beside its config (model.safetensors): it takes no pretrained, got {short(pretrained)}"
            raise GradeclipError(f"{name} has its weights {where}")
        model, processor = load_transformers(name, device, precision)
        source = getattr(model.config, "_commit_hash", None) or name
        return Clip.from_transformers(model, processor, f"{PREFIX}{name}", source)
    known = [*BUNDLED_MODELS, *open_clip.list_models()]
    registered = name.replace("/", "-").removesuffix("-gelu") in known
    if not registered and not name.startswith(("local-dir:", "hf-hub:")):
        raise unknown_name(name, known)
    return Clip.from_open_clip(name, pretrained, device=device, precision=precision)
