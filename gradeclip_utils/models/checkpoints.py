"""Checkpoints: files of weights are found, downloaded, read and checked.

weights --here--> model -> towers -> trace -> method -> explanation
"""

import http.client
import re
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import torch
from huggingface_hub import constants as hub
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from ..checks import first_line, short
from ..errors import GradeclipError

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
_REACH_SECONDS = 10
_WRAPPERS = ("module.", "_orig_mod.", "module.", "model.")  # DataParallel, torch.compile, both, a trainer
_OF_ARCHIVES = ("input_resolution", "context_length", "vocab_size")  # numbers among the weights that OpenAI published


def find_weights(name: str, tag: str) -> Path:
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
    if twin := quick_gelu_name(name):
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


def check_reachable(name: str, file: str) -> None:
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


def quick_gelu_name(name: str) -> str | None:
    """The name of the same architecture with OpenAI's activation, x * sigmoid(1.702 x), if open_clip has one."""
    return twin if (twin := f"{name}-quickgelu") in open_clip.list_models() else None


def open_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The metadata and the tensors of a safetensors file; a damaged file is refused."""
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


def read_weights(path: Path) -> tuple[dict[str, Tensor], bool | None]:
    """The state dict in a file, and whether its model has quick GELU; None if the file does not say."""
    if path.is_dir():
        raise GradeclipError(f"{path} is a folder; pass the file with the weights ({', '.join(SUFFIXES)}).")
    if path.suffix not in SUFFIXES:
        raise GradeclipError(f"{path} does not end like a checkpoint; expected one of {', '.join(SUFFIXES)}.")
    quick = None
    try:
        if path.suffix == ".safetensors":
            metadata, entries = open_safetensors(path)
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
    state, archived = plain_state(entries, str(path))
    return state, archived or quick


def _is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive, the form in which OpenAI published CLIP."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def plain_state(state: Any, what: str) -> tuple[dict[str, Tensor], bool | None]:
    """The names and tensors of a state dict, without the wrappers of trainers, and True if it has OpenAI's form."""
    rule = f"{what} holds no state dict: expected names and tensors, also under 'state_dict'"
    if isinstance(state, Mapping) and "state_dict" in state:
        state = state["state_dict"]
    if not isinstance(state, Mapping):
        raise GradeclipError(f"{rule}; got {short(state)}")
    if not state or not all(isinstance(key, str) and torch.is_tensor(value) for key, value in state.items()):
        raise GradeclipError(f"{rule}; got {some(list(map(str, state)), 6) or 'an empty one'}")
    for key, value in state.items():
        kind = "on the device 'meta'" if value.is_meta else str(value.layout).removeprefix("torch.")
        if value.is_meta or value.layout is not torch.strided:
            raise GradeclipError(f"{what} cannot be read: {key} is {kind}; save its weights as plain tensors of floats")
    for prefix in _WRAPPERS:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    archived = any(key in state for key in _OF_ARCHIVES) or None
    return {key: value.detach().cpu() for key, value in state.items() if key not in _OF_ARCHIVES}, archived


def some(items: list[str], count: int, separator: str = ", ") -> str:
    """The first few of several things, and how many more there are."""
    more = f"{separator}and {len(items) - count} more" if len(items) > count else ""
    return separator.join(items[:count]) + more
