"""Files of weights: finding them, checking them before they are used, and saying what is wrong when they do not fit.

    weights -> models -> towers -> trace -> method -> explanation

`models.load_clip` is the door; this is where its error messages come from. open_clip does the downloading and the
loading. What it leaves open is answered here: is the hub within reach, how large is the file, where does it go on a
machine without network, and why does a checkpoint not fit.
"""

import http.client
import pickle
import re
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping
from pathlib import Path

import open_clip
import torch
from huggingface_hub import constants as hub
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
from safetensors import SafetensorError, safe_open
from torch import nn

from ..checks import first_line, short
from ..errors import GradeclipError

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
_IN_FOLDERS = (".safetensors", ".bin", ".pth")  # what open_clip looks for beside a config
_REACH_SECONDS = 10
FAULTS = SafetensorError, pickle.UnpicklingError, RuntimeError, OSError, EOFError, LookupError, ValueError  # of a file
_WRAPPERS = ("module.", "_orig_mod.", "module.", "model.")  # DataParallel, torch.compile, both, a trainer


def find_weights(name: str, tag: str) -> Path:
    """The file with weights of open_clip: from the cache, or else downloaded into it."""
    config = open_clip.get_pretrained_cfg(name, tag)
    repository, files = _hub_address(config)
    for file in files if repository else ():
        found = try_to_load_from_cache(repository, file)
        if isinstance(found, str):
            return Path(found)
    at_home = not repository and _url_cache(config).is_file()
    reason = None if at_home else _why_unreachable(hub.ENDPOINT if repository else config["url"])
    if reason is None:
        try:
            return Path(open_clip.download_pretrained(config))
        except (OSError, RuntimeError) as error:
            reason = first_line(error)
    raise GradeclipError(_how_to_get(name, tag, reason))


def _hub_address(config: dict) -> tuple[str, list[str]]:
    """The repository, and the names that the file may have there, in the order in which open_clip tries them."""
    repository, _, file = config.get("hf_hub", "").rpartition("/")
    if not file:
        return repository, [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME]
    return repository, list(dict.fromkeys((re.sub(r"\.(bin|pth)$", ".safetensors", file), file)))


def _url_cache(config: dict) -> Path:
    """Where open_clip keeps what it fetched from an address that is no hub."""
    return Path("~/.cache/clip").expanduser() / Path(config["url"]).name


def _why_unreachable(url: str) -> str | None:
    """One quick question before the download: the hub's own client retries for most of a minute."""
    if hub.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        asked = urllib.request.Request(url, method="HEAD")  # the hub's own address, or one of open_clip's
        urllib.request.urlopen(asked, timeout=_REACH_SECONDS).close()  # nosec B310
    except urllib.error.HTTPError:
        return None  # an answer, whatever it says
    except (OSError, http.client.HTTPException) as error:
        return f"{url.split('/')[2]} cannot be reached: {getattr(error, 'reason', error)}"
    return None


def check_reachable(name: str, file: str = "open_clip_config.json") -> None:
    """Refuse a repository of a hub at once when its config is neither cached nor within reach."""
    try:
        if isinstance(try_to_load_from_cache(name.removeprefix("hf-hub:"), file), str):
            return
    except HFValidationError as error:
        msg = f"{short(name)} is no name that a repository can have: owner/name"
        raise GradeclipError(msg) from error
    if reason := _why_unreachable(hub.ENDPOINT):
        msg = f"{name} is not in the cache ({hub.HF_HUB_CACHE}) and cannot be downloaded ({reason})."
        raise GradeclipError(msg)


def _how_to_get(name: str, tag: str, reason: str) -> str:
    config = open_clip.get_pretrained_cfg(name, tag)
    repository, files = _hub_address(config)
    file = files[0] if config.get("hf_hub", "").endswith("/") else files[-1]
    model = _without_memory(name)  # counted without making them
    size = f"about {sum(4e-9 * p.numel() for p in model.parameters()):.1f} GB in float32" if model else "size unknown"
    local_name = quick_gelu_name(name) if config.get("quick_gelu") else name
    folder = Path(hub.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    lines = [f"The weights {tag!r} of {name} ({size}) are not on this machine and cannot be downloaded ({reason})."]
    if repository:
        lines += [
            f"Without network, fetch them elsewhere with `hf download {repository} {file}`, and then",
            f'  1. copy the file here and pass its path: load_clip("{local_name}", pretrained="/path/to/{file}"), or',
            f"  2. copy the whole folder {folder.name} from that machine's Hugging Face cache",
            f"     (~/.cache/huggingface/hub) to {folder} (HF_HOME names another place).",
        ]
    else:
        lines += [
            f"Without network, fetch {config['url']} elsewhere, and then",
            f'  1. copy the file here and pass its path: load_clip("{local_name}", pretrained="/path/to/file"), or',
            f"  2. put it into {_url_cache(config).parent} under its own name.",
        ]
    return "\n".join(lines)


def quick_gelu_name(name: str) -> str:
    """The name of an architecture with OpenAI's activation (x * sigmoid(1.702 x)), which is no weight of a file."""
    quick = name if name.endswith("-quickgelu") else f"{name}-quickgelu"
    return quick if quick in open_clip.list_models() else name


def _without_memory(name: str) -> nn.Module | None:
    """The open_clip model `name` on the meta device; None where it cannot be made without files from a hub."""
    config = open_clip.get_model_config(name)
    if "hf_model_name" in config["text_cfg"] or "multimodal_cfg" in config:
        return None
    if "timm_model_name" in config["vision_cfg"]:
        config["vision_cfg"]["timm_model_pretrained"] = False
    kind = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
    with torch.device("meta"):
        return kind(**config)


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive, the form in which OpenAI published CLIP."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def check_checkpoint(path: Path) -> None:
    """Refuse a file that is no checkpoint, in one sentence. Only tensors are read: pickled objects could run code."""
    if path.is_dir():
        msg = f"{path} is a folder; pass the file with the weights ({', '.join(SUFFIXES)})."
        raise GradeclipError(msg)
    if path.suffix not in SUFFIXES:
        msg = f"{path} does not end like a checkpoint; expected one of {', '.join(SUFFIXES)}."
        raise GradeclipError(msg)
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                entries = dict.fromkeys(file.keys(), torch.empty(0))
        elif is_torchscript(path):
            entries = torch.jit.load(path, map_location="cpu").state_dict()
        else:
            entries = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        if "unsupported global" not in str(error).lower():
            raise GradeclipError(_damaged(path, "not a torch checkpoint")) from error
        msg = f"{path} holds pickled Python objects, which could run code; save its state dict as safetensors instead."
        raise GradeclipError(msg) from error
    except FAULTS as error:
        understandable = isinstance(error, (SafetensorError, RuntimeError)) and str(error)
        reason = first_line(error) if understandable else "it cannot be read"
        raise GradeclipError(_damaged(path, reason)) from error
    if isinstance(entries, dict) and isinstance(entries.get("state_dict"), dict):
        entries = entries["state_dict"]
    if not isinstance(entries, dict) or not entries or not all(torch.is_tensor(value) for value in entries.values()):
        found = f"the keys {', '.join(map(str, list(entries)[:6]))}" if isinstance(entries, dict) else type(entries)
        msg = f"{path} holds no state dict: expected names and tensors, also under 'state_dict'; got {found}."
        raise GradeclipError(msg)


def plain_state(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict as the model itself would name it, on the CPU."""
    state = state.get("state_dict", state)
    if not state or not all(isinstance(key, str) and torch.is_tensor(value) for key, value in state.items()):
        msg = f"a state dict holds names and tensors, also under 'state_dict'; got {_some(list(map(str, state)), 6)}"
        raise GradeclipError(msg)
    for prefix in _WRAPPERS:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return {key: value.detach().cpu().clone(memory_format=torch.contiguous_format) for key, value in state.items()}


def _damaged(path: Path, reason: str) -> str:
    return f"{path} ({path.stat().st_size:,} bytes) is damaged, cut off, or not a checkpoint: {reason}."


def misfit(name: str, path: Path, state: Mapping[str, torch.Tensor], model: nn.Module) -> str | None:
    """Why weights do not fit a model, found by comparing names and shapes; None if they fit."""
    own = model.state_dict()
    parts = [
        f"{key} is {list(state[key].shape)} in the file and {list(value.shape)} in the model"
        for key, value in own.items()
        if key in state and state[key].shape != value.shape
    ]
    lacks, besides = [key for key in own if key not in state], [key for key in state if key not in own]
    parts += [f"it lacks {_some(lacks, 3)}"] if lacks else []
    parts += [f"it has besides {_some(besides, 3)}"] if besides else []
    return f"{path} is a checkpoint of another architecture than {name}: {_some(parts, 6, '; ')}." if parts else None


def checkpoint_misfit(name: str, path: Path, *, weights_only: bool = True) -> str | None:
    """Why the weights in a file do not fit the open_clip model `name`; None if they do, or if it cannot be told."""
    model = _without_memory(name)
    if model is None:
        return None
    model.load_state_dict = lambda state, strict=True: state
    try:
        state = open_clip.load_checkpoint(model, str(path), weights_only=weights_only)
    except AssertionError as error:  # it makes positions longer or shorter, and not wider
        return f"{path} is a checkpoint of another architecture than {name}: {first_line(error).rstrip('!')}."
    return misfit(name, path, state, model)


def unloadable(name: str, error: Exception) -> str:
    """Why open_clip cannot load what has its weights beside its config."""
    missing = str(error).startswith("Required pretrained weights")
    if name.startswith("hf-hub:"):
        files = f"{HF_SAFE_WEIGHTS_NAME} or {HF_WEIGHTS_NAME}"
        return f"its weights ({files}) are not in the cache and could not be fetched" if missing else first_line(error)
    folder = Path(name.removeprefix("local-dir:"))
    if missing:
        ends = f"or another file that ends in {' or '.join(_IN_FOLDERS)}"
        return f"the folder has a config and no weights: put {HF_SAFE_WEIGHTS_NAME} beside it, {ends}"
    weights = [file for file in folder.glob("*") if file.suffix in _IN_FOLDERS]
    if len(weights) == 1:
        check_checkpoint(weights[0])
    return first_line(error)


def _some(items: list[str], count: int, separator: str = ", ") -> str:
    more = f"{separator}and {len(items) - count} more" if len(items) > count else ""
    return separator.join(items[:count]) + more
