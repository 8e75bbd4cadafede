"""Loading: `load_clip` gives a `Clip`, everything an explainer needs to know about a model and nothing else.

    models -> towers -> trace -> method -> explanation

The default is the small bundled model, which needs no network. Real CLIP is one argument away, and stays an ordinary,
unmodified open_clip model.
"""

import math
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import open_clip
import torch
from open_clip.model import convert_weights_to_lp, get_input_dtype, set_model_preprocess_cfg
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from ..checks import chosen, first_line, nearest, readable, short
from ..errors import GradeclipError
from ..files import data_path
from ..notices import warn
from ..towers import Tower, UnsupportedModel, open_feature_map, open_image_tower, open_text_tower
from ..words import why_no_words
from . import checkpoints
from .compact import BUNDLED, BUNDLED_MODELS, EXPLAINED_LAYERS, read_compact
from .huggingface import PREFIX, load_transformers, read_processor

PRECISIONS = ("fp32", "bf16", "fp16", "pure_bf16", "pure_fp16")
OPEN_CLIP_CONFIG = "open_clip_config.json"
_PREPROCESSING = ("mean", "std", "interpolation", "resize_mode")


@dataclass(frozen=True)
class Clip:
    """A model with what belongs to it. An open_clip model in hand is wrapped by `Clip(model, preprocess, tokenizer)`.

    One of transformers is wrapped by `Clip.from_transformers(model, processor)`.

    Args:
        model: an open_clip `CLIP`, `CustomTextCLIP` or `CoCa`, a timm transformer (a classifier), or one of
            transformers' (CLIP, SigLIP, SigLIP 2, MetaCLIP 2, Chinese CLIP, AltCLIP, BLIP with its contrastive head);
            used as it is, in whatever mode and precision.
        preprocess: PIL image -> (3, H, W) float tensor; open_clip's own transform for evaluation.
        tokenizer: list of T strings -> (T, context length) long tensor; None where every prompt is an embedding, or
            the one-hot direction of a class.
        name, pretrained: where the weights come from; every explanation carries them.
        vocabulary: the lower-case words that the model was trained on, or None where no word is foreign to it.
        image_layers: how many of the last image layers Grad-ECLIP explains unless told otherwise; None for one, as
            published.
        text_layers: the same for text; None for two thirds of them, as published.
    """

    model: torch.nn.Module
    preprocess: Callable[[Image.Image], torch.Tensor]
    tokenizer: Any  # Callable[[list[str]], torch.Tensor] | None; typing it so asks every caller whether it is there
    name: str = "custom"
    pretrained: str = ""
    vocabulary: frozenset[str] | None = None
    image_layers: int | None = None
    text_layers: int | None = None

    @classmethod
    def from_transformers(cls, model: nn.Module, processor: Any, name: str = "custom", pretrained: str = "") -> Self:
        """A model of transformers in hand, with its processor.

            model = CLIPModel.from_pretrained("openai/clip-vit-base-patch32")
            Clip.from_transformers(model, AutoProcessor.from_pretrained("openai/clip-vit-base-patch32"))

        Args:
            model: a `CLIPModel`, `SiglipModel`, `Siglip2Model`, `MetaClip2Model`, `ChineseCLIPModel`, `AltCLIPModel`,
                or `BlipForImageTextRetrieval`, also inside PEFT's wrapper. It is not changed.
            processor: its own: an image processor and a tokenizer, fast or slow.
            name: what every explanation will call the model.
            pretrained: where its weights come from.

        Raises:
            UnsupportedModel: another model, one encoder only, or a quantised model.
            TypeError: there is no processor, or half of one.
            ValueError: it is another model's.
        """
        return cls(model, *read_processor(model, processor), name, pretrained)

    def describe(self) -> str:
        """A few lines for a person: what kind of towers, how fine a grid, and what can be explained."""
        weights = sum(parameter.numel() for parameter in self.model.parameters())
        sample = next(self.model.parameters())
        words = "any" if self.vocabulary is None else f"only {len(self.vocabulary)} (others get a warning)"
        return "\n".join((
            f"{self.name} ({self.pretrained or 'weights of your own'})",
            f"  model    {type(self.model).__name__}, {weights / 1e6:.1f} million weights, "
            f"{str(sample.dtype).removeprefix('torch.')} on {sample.device}",
            f"  image    {_describe_image(self.model, self.image_layers or 1)}",
            f"  prompt   {_describe_text(self.model, self.tokenizer, self.text_layers)}",
            f"  words    {words}",
        ))  # fmt: skip


def _describe_image(model: nn.Module, layers: int) -> str:
    try:
        tower = open_image_tower(model, layers)
        return f"{tower.kind}, explained as a map of {_describe_grid(tower)}; {_describe_layers(tower)}"
    except UnsupportedModel as refusal:
        said = f"cannot be explained by attention: {refusal}"
    try:
        grid = _describe_grid(open_feature_map(model))
        return f"{said}; Grad-CAM, RISE and input gradients apply, on a map of {grid}"
    except UnsupportedModel:
        return said


def _describe_grid(tower: Tower) -> str:
    (height, width), (down, across) = tower.image_size, tower.patch_size
    return f"{height // down} x {width // across} patches ({height} x {width} pixels)"


def _describe_layers(tower: Tower) -> str:
    pools = tower.explained[-1].pools
    blocks = tower.depth - pools
    if not pools:
        return f"{blocks} layers of {tower.heads} heads, {tower.query_token}; the last {tower.layers} by default"
    below = f"{blocks} layers of {tower.blocks[0].heads} heads and " if blocks else ""
    return f"{below}an attention pool of {tower.heads} heads, {tower.query_token}; the pool alone can be explained"


def _describe_text(model: nn.Module, tokenizer: Callable, layers: int | None) -> str:
    try:
        tower = open_text_tower(model, layers)
    except UnsupportedModel as refusal:
        return f"cannot be explained: {refusal}"
    how = "causal" if tower.causal else "not causal"
    count = min(tower.context_length, getattr(tokenizer, "context_length", None) or tower.context_length)
    length = f"{count} tokens"
    if why_no_words(tokenizer) is None:
        words = f"explained word by word (up to {count - 2} pieces of {length})"
    else:
        words = f"read as a whole ({length}; its tokenizer does not say which pieces make up a word): images alone"
    return f"{tower.kind}, {how}, {words}; {_describe_layers(tower)}"


@torch.inference_mode(False)  # what is made within has no gradients
def load_clip(
    name: str | Path | None = None, pretrained: str | Path | Mapping[str, torch.Tensor] | None = None, *,
    device: str | None = None, precision: str = "fp32",
) -> Clip:  # fmt: skip
    """Load a CLIP in evaluation mode: the bundled one by default, or any model that open_clip or transformers knows.

        load_clip()                                              # the bundled model
        load_clip("emoji-resnet")                                # bundled too: BUNDLED_MODELS lists them
        load_clip("ViT-B-16", pretrained="openai")               # downloaded once
        load_clip("ViT-B-16-quickgelu", pretrained="/models/ViT-B-16.safetensors")
        load_clip("ViT-B-16", pretrained=fine_tuned.state_dict())
        load_clip("my-clip")                                     # a folder with open_clip_config.json, or config.json
        load_clip("hf-hub:timm/ViT-B-16-SigLIP2-256")            # the same on a hub
        load_clip("transformers:openai/clip-vit-base-patch32")

    Without a name, the environment decides: `GRADECLIP_MODEL` and `GRADECLIP_PRETRAINED`; without a device it does as
    well, `GRADECLIP_DEVICE`. A tag's own activation is used (`ViT-B-16` with `openai` runs with quick GELU, where
    open_clip only warns). A file does not say which activation and normalisation it was trained with: the name must
    ("-quickgelu"), and the normalisation is the one that all published weights of that name share, or else OpenAI's.

    Args:
        name: an architecture of open_clip (`open_clip.list_models()`), a folder, "hf-hub:...", "transformers:..." (a
            repository or a folder), or one of `BUNDLED_MODELS`.
        pretrained: a tag of open_clip, the path of a checkpoint (safetensors, a `torch.save`d state dict, OpenAI's
            archive), or a state dict in hand. For a bundled model, a file written by `save_compact`.
        device: where the model goes, as torch names it. None is what `GRADECLIP_DEVICE` says; where it says nothing, a
            GPU if there is one for the model that no name was given for, and the CPU for any other.
        precision: "fp32", or open_clip's "bf16", "fp16", "pure_bf16", "pure_fp16".

    Raises:
        ValueError: an unknown name, tag, precision or device; weights that are damaged, not finite, or of another
            architecture: the message says which.
        FileNotFoundError: weights that are not on this machine and cannot be downloaded, or no such file.
    """
    device = _device(device, named=name is not None)
    if name is None:
        return _load_from_environment(pretrained, device, precision)
    chosen("precision", precision, PRECISIONS)
    name = _checked_name(name, pretrained)
    if name in BUNDLED_MODELS:
        if isinstance(pretrained, Mapping):
            msg = f"{name} is a bundled model, whose weights are a file of save_compact, not a state dict."
            raise GradeclipError(msg)
        path = Path(pretrained) if pretrained else data_path(BUNDLED_MODELS[name])
        return load_compact(path, name=name, device=device, precision=precision)
    folder = Path(name).expanduser()
    configs = [file for file in ("config.json", OPEN_CLIP_CONFIG) if (folder / file).is_file()]
    theirs = name.startswith(PREFIX) or configs == ["config.json"]
    if folder.is_dir() and not theirs and name not in open_clip.list_models():
        name = f"local-dir:{folder}"
    if theirs or name.startswith(("local-dir:", "hf-hub:")):
        return _load_folder(name.removeprefix(PREFIX), pretrained, theirs, device, precision)
    name = name.replace("/", "-")
    if name not in open_clip.list_models():
        near = nearest(name, [*BUNDLED_MODELS, *open_clip.list_models()], most=4)
        more = f"Nearest: {', '.join(near)}." if near else "open_clip.list_models() lists what it has."
        raise GradeclipError(f"open_clip has no model {name!r}. {more}")
    if isinstance(pretrained, Mapping):
        return _load_state(name, pretrained, device, precision)
    return _load_named(name, pretrained, device, precision)


def _load_from_environment(pretrained: Any, device: str, precision: str) -> Clip:
    """The model that the environment names, or else the bundled one; a refusal says which variables were read."""
    told = {name: value for name in ("GRADECLIP_MODEL", "GRADECLIP_PRETRAINED") if (value := os.environ.get(name))}
    name, pretrained = told.get("GRADECLIP_MODEL", BUNDLED), pretrained or told.get("GRADECLIP_PRETRAINED")
    try:
        return load_clip(name, pretrained, device=device, precision=precision)
    except GradeclipError as refusal:
        if not told:
            raise
        said = ", ".join(f"{name}={value!r}" for name, value in told.items())
        raise type(refusal)(f"{refusal} (The environment has {said}.)") from refusal


def _checked_name(name: Any, pretrained: Any) -> str:
    if not isinstance(name, (str, os.PathLike)) or isinstance(name, bytes):
        raise GradeclipError(f"the name of a model must be a string or a path, got {short(name)}")
    if pretrained is not None and not isinstance(pretrained, (str, os.PathLike, Mapping)):
        said = "a tag, a path or a state dict"
        raise GradeclipError(f"pretrained must be {said}, got {short(pretrained)}")
    name = str(name)
    if name.strip() in ("", "hf-hub:", "local-dir:", PREFIX):
        raise GradeclipError(f"{name!r} names no model: say which")
    if name.endswith(checkpoints.SUFFIXES) and os.path.isfile(name):
        msg = f"{name} holds weights: give their architecture as the name, and the file as pretrained"
        raise GradeclipError(msg)
    if len(name) > 1000 or "\0" in name:
        raise GradeclipError(f"no model and no folder has a name like {short(name)}")
    return name


def _device(device: Any, named: bool) -> str:
    """Where a model goes: what was asked for, what the environment says, or a GPU for the notebooks' own model."""
    said = f"device {short(device)}"
    if device is None:
        device = os.environ.get("GRADECLIP_DEVICE")
        if not device:
            return "cpu" if named or not torch.cuda.is_available() else "cuda"
        said = f"GRADECLIP_DEVICE={device}"
    try:
        asked = torch.device(device)
        if asked.type not in ("cuda", "mps"):  # of these torch says in the middle of a model that there are none
            torch.empty(0, device=asked)
    except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
        msg = f"a device must be one that torch knows (cpu, cuda, cuda:1, mps) and has here; got {said}"
        raise GradeclipError(msg) from error
    if asked.type == "meta":
        raise GradeclipError("on the device 'meta' weights have no values, so that nothing is computed")
    seen = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (asked.index or 0) >= seen.get(asked.type, math.inf):
        there = seen[asked.type] or "no"
        raise GradeclipError(f"{said} was asked for, and torch sees {there} such GPU here")
    return str(asked)


def _load_named(name: str, pretrained: str | Path | None, device: str, precision: str) -> Clip:
    tags = open_clip.list_pretrained_tags_by_model(name)
    if not pretrained:
        msg = f"{name} needs weights: pretrained={' or '.join(map(repr, tags[:5]))}, or the path of a file."
        raise GradeclipError(msg)
    config = open_clip.get_pretrained_cfg(name, str(pretrained))
    path = checkpoints.find_weights(name, str(pretrained)) if config else Path(pretrained).expanduser()
    if not path.exists():
        hint = f"Weights of {name} known to open_clip: {', '.join(tags) or 'none'}."
        raise GradeclipError(f"{str(pretrained)!r} is neither a file nor a tag of {name}. {hint}")
    checkpoints.check_checkpoint(path)
    published = checkpoints.is_torchscript(path)  # OpenAI's archives hold TorchScript; only its tensors are used
    if not config and not published:
        _warn_of_activation(name, tags)
    try:
        model = open_clip.create_model(
            name, pretrained=str(path), precision=precision, device=device, weights_only=not published,
            force_quick_gelu=published or config.get("quick_gelu", False),
            force_preprocess_cfg=_preprocessing(name, [str(pretrained)] if config else tags),
        )  # fmt: skip
    except (RuntimeError, AssertionError) as error:  # the latter of positions of another width
        reason = checkpoints.checkpoint_misfit(name, path, weights_only=not published)
        msg = reason or f"{path} cannot be loaded into {name}: {first_line(error)}"
        raise GradeclipError(msg) from error
    return _finish(model, name, str(pretrained))


def _load_state(name: str, state: Mapping[str, torch.Tensor], device: str, precision: str) -> Clip:
    """By way of a file: open_clip converts the forms of other libraries, and resizes positions, as it reads one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state_dict.safetensors"
        save_file(checkpoints.plain_state(state), path)
        try:
            clip = _load_named(name, path, device, precision)
        except ValueError as error:
            raise GradeclipError(str(error).replace(str(path), "the state dict")) from error
    return replace(clip, pretrained="a state dict in hand")


def _load_folder(name: str, pretrained: Any, theirs: bool, device: str, precision: str) -> Clip:
    if pretrained:
        where = "beside its config (model.safetensors; of open_clip open_clip_model.safetensors or the like)"
        msg = f"{name} has its weights {where}: it takes no pretrained, got {str(pretrained)[:60]!r}."
        raise GradeclipError(msg)
    if theirs:
        return _load_transformers(name, device, precision)
    if name.startswith("hf-hub:"):
        checkpoints.check_reachable(name)
    try:
        model = open_clip.create_model(name, precision=precision, device=device, require_pretrained=True)
    except (*checkpoints.FAULTS, TypeError, AttributeError) as error:  # half a config
        raise GradeclipError(f"{name} cannot be loaded: {checkpoints.unloadable(name, error)}") from error
    return _finish(model, name, name)


def _load_transformers(name: str, device: str, precision: str) -> Clip:
    model, processor = load_transformers(name, device, precision)
    source = getattr(model.config, "_commit_hash", None) or name
    _check_finite(model, name, source)
    return Clip.from_transformers(model, processor, f"{PREFIX}{name}", source)


def _check_finite(model: torch.nn.Module, name: str, pretrained: str) -> None:
    broken = [key for key, value in model.state_dict().items() if not torch.isfinite(value).all()]
    if broken:
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        msg = f"The weights {pretrained} of {name} are not finite (NaN): {', '.join(broken[:3])}{more}."
        raise GradeclipError(msg)


def _finish(model: torch.nn.Module, name: str, pretrained: str, tokenizer=None, vocabulary=None) -> Clip:
    _check_finite(model, name, pretrained)
    preprocess = image_transform_v2(PreprocessCfg(**open_clip.get_model_preprocess_cfg(model)), is_train=False)
    try:
        tokenizer = tokenizer or open_clip.get_tokenizer(name)
    except (ImportError, OSError) as error:
        raise GradeclipError(f"The tokenizer of {name} cannot be had: {first_line(error)}") from error
    return Clip(model.eval(), preprocess, tokenizer, name, pretrained, vocabulary)


def _preprocessing(name: str, tags: list[str]) -> dict:
    """What these weights of an architecture agree on: a bare file does not tell (SigLIP, CLIPA differ)."""
    configs = [open_clip.get_pretrained_cfg(name, tag) for tag in tags]
    known = [{key: config[key] for key in _PREPROCESSING if key in config} for config in configs]
    return {key: value for key, value in known[0].items() if all(k[key] == value for k in known)} if known else {}


def _warn_of_activation(name: str, tags: list[str]) -> None:
    quick = [tag for tag in tags if open_clip.get_pretrained_cfg(name, tag).get("quick_gelu")]
    other = checkpoints.quick_gelu_name(name)
    if quick and len(quick) < len(tags) and other != name:
        here = f"The file does not say which activation its model was trained with, and {name} uses GELU."
        advice = f"If these are the weights {', '.join(quick)}, pass {other!r} as the name; else every number is wrong."
        warn(f"{here} {advice}", UserWarning)


@torch.inference_mode(False)
def load_compact(path: str | Path, *, name: str = BUNDLED, device: str = "cpu", precision: str = "fp32") -> Clip:
    """Load what `save_compact` wrote as an ordinary open_clip model with the full vocabulary."""
    path = readable(path, "a file of weights") if Path(path).parent != data_path() else Path(path)
    bundled = (one for one, file in BUNDLED_MODELS.items() if path.resolve() == data_path(file).resolve())
    name = next(bundled, name)  # a file of another bundled model is that model
    configs = (file.with_suffix(".json") for file in (path, data_path(BUNDLED_MODELS[name])))
    config_path = next((file for file in configs if file.is_file()), data_path(f"{BUNDLED}.json"))
    model, config, words = read_compact(path, config_path, precision)
    set_model_preprocess_cfg(model, {**PreprocessCfg().__dict__, **config["preprocess"]})
    _cast(model, precision, device)
    tokenizer = open_clip.SimpleTokenizer(context_length=getattr(model, "text", model).context_length)
    vocabulary = frozenset(word for word in words.split() if any(map(str.isalnum, word)))
    inside = path.resolve().parent == data_path().resolve()
    source = "bundled" if inside else str(path)  # a path of this machine means nothing elsewhere
    clip = _finish(model, name, source, tokenizer, vocabulary or None)
    layers: dict[str, Any] = {name: config.get(name) for name in EXPLAINED_LAYERS}
    return replace(clip, **layers)


def _cast(model: torch.nn.Module, precision: str, device: str) -> None:
    """As `open_clip.create_model` does: "pure" casts everything, otherwise LayerNorm and embeddings stay float32."""
    dtype = get_input_dtype(precision) or torch.float32
    if precision in ("fp16", "bf16"):
        convert_weights_to_lp(model.to(device), dtype=dtype)
    else:
        model.to(device, dtype)
