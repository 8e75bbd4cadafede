"""Models of open_clip with weights, preprocessing and tokenizer, from a name, a file, a folder or a hub.

open_clip's own `create_model` would run a file of OpenAI's weights with the wrong activation and a
warning, copy integers into floats, and report a misfit without its reason. Here one function builds
each model from its config, and one puts weights into it.
"""

import json
import re
import zipfile
from collections.abc import Mapping
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import open_clip
import torch
from huggingface_hub import constants as hub
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import get_session
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
from open_clip.convert import convert_state_dict
from open_clip.model import (
    convert_to_custom_text_state_dict,
    resize_pos_embed,
    resize_text_pos_embed,
)
from open_clip.pretrained import download_pretrained_from_hf
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from open_clip.transformer import LayerNormFp32, QuickGELU
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..checks import as_path, chosen, readable, short
from ..errors import GradeclipError, first_line

CONFIG, BESIDE = (
    "open_clip_config.json",
    ("hf-hub:", "local-dir:"),
)  # names with weights beside their config
_SHOWN = ("mean", "std", "interpolation", "resize_mode")
_Found = tuple[
    dict, dict, dict[str, Tensor], str
]  # config, preprocessing, weights and the name of the weights
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
_REACH_SECONDS = 10
_WRAPPERS = (
    "module.",
    "_orig_mod.",
    "module.",
    "model.",
)  # DataParallel, torch.compile, both, a trainer
_OF_ARCHIVES = (
    "input_resolution",
    "context_length",
    "vocab_size",
)  # numbers among the weights that OpenAI published


def load_open_clip(
    name: str, pretrained: Any, device: str, precision: str
) -> tuple[nn.Module, Any, Any, str]:
    """Model, preprocessing, tokenizer and weights' source of an architecture, or of "hf-hub:..." or "local-dir:..."."""
    beside = name.startswith(BESIDE)
    config, shown, state, said = (
        _beside(name, pretrained) if beside else _registered(name, pretrained)
    )
    try:
        for key, file in (
            ("hf_model_name", "config.json"),
            ("hf_tokenizer_name", "tokenizer_config.json"),
        ):
            hub_name, within = (
                config["text_cfg"].get(key),
                key == "hf_tokenizer_name" and name.startswith("local-dir:"),
            )
            if hub_name and not within and not Path(hub_name).is_dir():
                check_reachable(hub_name, file)
        model = build(config, precision, device, empty=True)
        put_in(model, state, name, said)
        preprocess = preprocessing(model, shown)
        tokenizer = _tokenizer(name.removesuffix("-gelu"))
    except GradeclipError:
        raise
    except Exception as error:  # a config from elsewhere can be wrong in any way
        raise GradeclipError(
            f"{said} cannot be loaded as {name}: {first_line(error).rstrip('.')}."
        ) from error
    source = (
        "a state dict in hand" if isinstance(pretrained, Mapping) else said if pretrained else name
    )
    return model.eval(), preprocess, tokenizer, source


def _tokenizer(name: str) -> Any:
    try:
        return open_clip.get_tokenizer(name)
    except Exception as error:  # transformers has many kinds
        failed = f"the tokenizer of {name} cannot be loaded ({first_line(error).rstrip('.: ')})"
        raise GradeclipError(
            f"{failed}: its files, such as tokenizer.json, belong beside the weights"
        ) from error


def _registered(name: str, pretrained: Any) -> _Found:
    """What belongs to an architecture that open_clip registers."""
    name, quick = name.replace("/", "-"), None
    if name.endswith("-gelu") and _quick_gelu_name(name.removesuffix("-gelu")):
        name, quick = name.removesuffix("-gelu"), False
    config, tags, published = (
        open_clip.get_model_config(name),
        open_clip.list_pretrained_tags_by_model(name),
        {},
    )
    if not pretrained:
        msg = f"{name} needs weights: pretrained={' or '.join(map(repr, tags[:5]))}, or the path of a file."
        raise GradeclipError(msg)
    if not isinstance(pretrained, Mapping) and (
        published := open_clip.get_pretrained_cfg(name, str(pretrained))
    ):
        state, known, _ = given_weights(_find_weights(name, str(pretrained)))
        said = str(pretrained)
    else:
        hint = f"is neither a file nor a tag of {name}. Weights known to open_clip: {', '.join(tags) or 'none'}."
        state, known, said = given_weights(pretrained, hint)
    if quick is None:
        said_so = known if known is not None else config.get("quick_gelu") or None
        quick = published.get("quick_gelu", False) if published else said_so
    if quick is None and (twin := _quick_gelu_name(name)):
        trained = ", ".join(
            tag for tag in tags if open_clip.get_pretrained_cfg(name, tag).get("quick_gelu")
        )
        raise GradeclipError(
            f"{said} does not say its activation, and with the wrong one every number is wrong: pass {twin!r} as the "
            f"name if it was trained with quick GELU{f' ({trained})' if trained else ''}, or '{name}-gelu' for {name} "
            "with GELU"
        )
    config["quick_gelu"] = bool(quick)
    # a file has the settings of images on which all published weights agree; SigLIP's and CLIPA's
    # are not CLIP's
    configs = [open_clip.get_pretrained_cfg(name, tag) for tag in ([said] if published else tags)]
    all_shown = [{key: one[key] for key in _SHOWN if key in one} for one in configs] or [{}]
    shown = {
        key: value
        for key, value in all_shown[0].items()
        if all(one.get(key) == value for one in all_shown)
    }
    return config, shown, state, said


def given_weights(pretrained: Any, hint: str = "") -> tuple[dict[str, Tensor], bool | None, str]:
    """A state dict in hand, or one in a file: with whether it has quick GELU, and what refusals call it."""
    if isinstance(pretrained, Mapping):
        return *_plain_state(pretrained, "the state dict"), "the state dict"
    said, path = str(pretrained), as_path(pretrained, "a file of weights")
    if hint and not (
        path.exists() or "/" in said or said.endswith(SUFFIXES)
    ):  # nothing says that it is a file
        raise GradeclipError(f"{said!r} {hint}")
    entries, quick = _read_weights(readable(path, "a file of weights"))
    state, archived = _plain_state(entries, said)
    return state, archived or quick, said


def _beside(name: str, pretrained: Any) -> _Found:
    """The same of a folder ("local-dir:...") or of a hub ("hf-hub:...") with open_clip's config and weights."""
    kind, _, place = name.partition(":")
    on_hub = kind == "hf-hub"
    if on_hub:
        check_reachable(place, CONFIG)
    elif not Path(place, CONFIG).is_file():
        raise GradeclipError(
            f"there is no model in {place}: a folder with {CONFIG} or config.json is needed"
        )
    try:
        file = hf_hub_download(place, CONFIG) if on_hub else Path(place, CONFIG)  # nosec B615 # which the user names
        settings = json.loads(Path(file).read_text())
        config, shown = settings["model_cfg"], settings.get("preprocess_cfg", {})
        if on_hub and not pretrained:
            pretrained = download_pretrained_from_hf(place)
        files = [one for one in Path(file).parent.iterdir() if one.suffix in SUFFIXES]
    except Exception as error:
        raise GradeclipError(
            f"{name} cannot be loaded: {first_line(error).rstrip('.')}."
        ) from error
    if not pretrained and not files:
        raise GradeclipError(
            f"{place} has a config and no weights: put open_clip_model.safetensors beside it"
        )
    files.sort(
        key=lambda one: (
            not one.name.startswith("open_clip_"),
            one.suffix != ".safetensors",
            one.name,
        )
    )
    state, _, said = given_weights(pretrained or files[0])
    return config, shown, state, said


def build(
    config: dict, precision: str = "fp32", device: str = "cpu", *, empty: bool = False
) -> nn.Module:
    """The model that a config of open_clip describes: with random weights, or empty, for weights to be loaded."""
    config = deepcopy(config)
    custom = config.pop("custom_text", False) or "hf_model_name" in config["text_cfg"]
    config["vision_cfg"]["timm_model_pretrained"] = config["text_cfg"]["hf_model_pretrained"] = (
        False
    )
    coca = custom and "multimodal_cfg" in config
    kind = open_clip.CoCa if coca else open_clip.CustomTextCLIP if custom else open_clip.CLIP
    with _Unset() if empty else nullcontext():
        model = kind(**config, cast_dtype=open_clip.get_cast_dtype(precision))
    dtype, mixed = (
        open_clip.get_input_dtype(precision) or torch.float32,
        precision in ("fp16", "bf16"),
    )
    if mixed and "timm_model_name" not in config["vision_cfg"]:
        open_clip.convert_weights_to_lp(model, dtype=dtype)  # LayerNorm and embeddings stay float32
        return model.to(device)
    model.to(device, dtype)
    for module in model.modules() if mixed else ():
        if isinstance(module, LayerNormFp32):
            module.float()
    return model


class _Unset(TorchFunctionMode):
    """Within it no random numbers are drawn: all weights of a new model are about to be loaded."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.randn:
            return torch.empty(*args, **kwargs)
        if getattr(function, "__module__", "") == "torch.nn.init" and "tensor" in kwargs:
            return kwargs["tensor"]
        return (
            args[0] if function in (Tensor.normal_, Tensor.uniform_) else function(*args, **kwargs)
        )


def put_in(model: nn.Module, state: dict[str, Tensor], name: str, said: str) -> None:
    """Load a state dict as open_clip does, its positions resized."""
    own = model.state_dict()
    other = f"{said} is not a checkpoint of {name}, but of a different architecture"
    state = convert_state_dict(model, dict(state))
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    for key in ("logit_scale", "logit_bias"):
        if key in state and key in own and state[key].numel() == own[key].numel():
            state[key] = state[key].reshape(own[key].shape)
    if "logit_bias" in own:
        state.setdefault("logit_bias", torch.zeros_like(own["logit_bias"]))
    state = {
        key: value for key, value in state.items() if key in own or not key.endswith("position_ids")
    }
    if whole := [
        key
        for key in state
        if key in own and own[key].is_floating_point() > state[key].is_floating_point()
    ]:
        kind = str(state[whole[0]].dtype).removeprefix("torch.")
        msg = f"{said} holds weights of integers or complex numbers ({whole[0]} is {kind}): save them as floats"
        raise GradeclipError(msg)
    state = {
        key: value.float() if key.endswith("positional_embedding") else value
        for key, value in state.items()
    }
    try:
        resize_pos_embed(state, model)
        resize_text_pos_embed(state, model)
    except (AssertionError, RuntimeError) as error:
        raise GradeclipError(f"{other}: {first_line(error).rstrip('!')}.") from error
    load_into(model, state, said, other)


def load_into(model: nn.Module, state: Mapping[str, Tensor], said: str, misfit: str) -> None:
    """Load finite weights that have the names and shapes of the model's own; those that do not come after `misfit`."""
    own = model.state_dict()
    shapes = [key for key, value in own.items() if key in state and state[key].shape != value.shape]
    parts = [
        f"{key} is {list(state[key].shape)} in the file and {list(own[key].shape)} in the model"
        for key in shapes
    ]
    lacks, besides = (
        [key for key in own if key not in state],
        [key for key in state if key not in own],
    )
    parts += [f"it lacks {some(lacks, 3)}"] if lacks else []
    parts += [f"it has besides {some(besides, 3)}"] if besides else []
    if parts:
        raise GradeclipError(f"{misfit}: {some(parts, 6, '; ')}.")
    model.load_state_dict(state)
    floats = ((key, value.float()) for key, value in state.items() if value.is_floating_point())
    if broken := [
        key
        for key, value in floats
        if not torch.isfinite(value.sum()) and not torch.isfinite(value).all()
    ]:
        raise GradeclipError(f"{said} has weights that are not finite (NaN): {some(broken, 3)}.")


def preprocessing(model: nn.Module, shown: Mapping[str, Any]) -> Any:
    """open_clip's transform for evaluation, with these settings instead of OpenAI's."""
    cfg = {
        **merge_preprocess_dict(asdict(PreprocessCfg()), dict(shown)),
        "size": model.visual.image_size,
    }
    if not len(cfg["mean"]) == len(cfg["std"]) == 3 or not all(cfg["std"]):
        raise GradeclipError(
            f"three means and three deviations above 0 are needed, got {cfg['mean']}, {cfg['std']}"
        )
    chosen("interpolation", cfg["interpolation"], ("bicubic", "bilinear"))
    chosen("resize_mode", cfg["resize_mode"], ("shortest", "longest", "squash"))
    open_clip.set_model_preprocess_cfg(model, cfg)
    preprocess = image_transform_v2(PreprocessCfg(**cfg), is_train=False)
    preprocess(Image.new("RGB", (8, 8)))  # wrong settings fail here
    return preprocess


def said_in_files(model: nn.Module) -> dict[str, str]:
    """Metadata with which a file of weights says its activation, so that it can be loaded by its plain name."""
    return {"quick_gelu": str(any(isinstance(module, QuickGELU) for module in model.modules()))}


# --------------------------------------------------------------------------------- files of weights


def _find_weights(name: str, tag: str) -> Path:
    """The file with published weights of an open_clip model, from the cache or downloaded into it."""
    config = open_clip.get_pretrained_cfg(name, tag)
    repository, _, file = config["hf_hub"].rpartition("/")
    files = (
        [re.sub(r"\.(bin|pth)$", ".safetensors", file), file]
        if file
        else [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME]
    )
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
    file, folder = (
        file or files[0],
        Path(hub.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}",
    )
    raise GradeclipError(
        f"The weights {tag!r} of {name} are not on this machine and cannot be downloaded ({reason}).\n"
        f"Without network, fetch them elsewhere with `hf download {repository} {file}`, and then\n"
        f'  1. copy the file here and pass its path: load_clip("{name}", pretrained="/path/to/{file}"), or\n'
        f"  2. copy the folder {folder.name} from that machine's cache to {folder} (HF_HOME names another place)."
    )


def _why_unreachable() -> str | None:
    """One quick request before a download, in the hub's own session: its downloads retry for most of a minute."""
    if hub.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        get_session().head(hub.ENDPOINT, timeout=_REACH_SECONDS)
    except Exception as error:  # of requests or of httpx, by the hub's version
        return f"{hub.ENDPOINT.split('/')[2]} cannot be reached: {first_line(error)}"
    return None  # any answer means that it is within reach


def check_reachable(name: str, file: str) -> None:
    """Refuse a repository of a hub at once if the file is neither in the cache nor within reach."""
    try:
        if isinstance(try_to_load_from_cache(name, file), str):
            return
    except HFValidationError as error:
        raise GradeclipError(
            f"{short(name)} is not the name of a repository: write owner/name"
        ) from error
    if reason := _why_unreachable():
        raise GradeclipError(
            f"{name} is not in the cache ({hub.HF_HUB_CACHE}) and cannot be downloaded ({reason})."
        )


def _quick_gelu_name(name: str) -> str | None:
    """The name of the same architecture with OpenAI's activation, x * sigmoid(1.702 x), if open_clip has one."""
    return twin if (twin := f"{name}-quickgelu") in open_clip.list_models() else None


def open_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The metadata and the tensors of a safetensors file."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        return metadata, load_file(path)
    except Exception as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> GradeclipError:
    understandable = isinstance(
        error, (SafetensorError, RuntimeError)
    ) and "weights_only" not in str(error)
    reason = first_line(error) if understandable else "it cannot be read"
    return GradeclipError(
        f"{path} ({path.stat().st_size:,} bytes) is damaged, cut off, or not a checkpoint: {reason}."
    )


def _read_weights(path: Path) -> tuple[Any, bool | None]:
    """What a file holds, and whether its model has quick GELU; None if the file does not say."""
    if path.suffix not in SUFFIXES:
        raise GradeclipError(
            f"{path} does not end like a checkpoint; expected one of {', '.join(SUFFIXES)}."
        )
    if path.suffix == ".safetensors":
        metadata, entries = open_safetensors(path)
        return entries, {"True": True, "False": False}.get(metadata.get("quick_gelu", ""))
    try:
        if _is_torchscript(path):
            return dict(torch.jit.load(path, map_location="cpu").state_dict()), True
        # tensors only: pickled objects could run code
        return torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        ), None
    except Exception as error:
        if "unsupported global" in str(error).lower():
            how = "which could run code; save its state dict as safetensors instead"
            raise GradeclipError(f"{path} holds pickled Python objects, {how}.") from error
        raise _damaged(path, error) from error


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
    if not state or not all(
        isinstance(key, str) and torch.is_tensor(value) for key, value in state.items()
    ):
        raise GradeclipError(f"{rule}; got {some(list(map(str, state)), 6) or 'an empty one'}")
    for key, value in state.items():
        kind = "on the device 'meta'" if value.is_meta else str(value.layout).removeprefix("torch.")
        if value.is_meta or value.layout is not torch.strided:
            raise GradeclipError(
                f"{what} cannot be read: {key} is {kind}; save its weights as plain tensors of floats"
            )
    for prefix in _WRAPPERS:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    archived = any(key in state for key in _OF_ARCHIVES) or None
    return {
        key: value.detach().cpu() for key, value in state.items() if key not in _OF_ARCHIVES
    }, archived


def some(items: list[str], count: int, separator: str = ", ") -> str:
    """The first few of several things, and how many more there are."""
    more = f"{separator}and {len(items) - count} more" if len(items) > count else ""
    return separator.join(items[:count]) + more
