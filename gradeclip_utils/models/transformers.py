"""Models of transformers with their processor, which prepares images and tokenizes prompts.

The steps of the processor, where it resizes and crops, are read from its settings, so that maps lie
where they belong. transformers is optional: `pip install '.[transformers]'`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from open_clip.model import get_input_dtype
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import CenterCrop, InterpolationMode, Normalize, Resize

from ..checks import as_path, optional_library
from ..errors import GradeclipError, UnsupportedModel, first_line
from ..towers import Tower, open_image_tower, open_text_tower
from ..towers.transformers import KINDS, kind_of, unwrapped
from .open_clip import check_reachable, given_weights, load_into, some

PREFIX = "transformers:"
_ANOTHER = "the processor is another model's: "


class _Preprocess:
    """An image processor of transformers: PIL image -> (3, H, W). `transforms` are its steps, as torchvision's."""

    def __init__(self, processor: Any):
        self.processor, self.transforms = processor, _steps(processor)

    def __call__(self, image: Image.Image) -> Tensor:
        """The image as the model sees it, (3, H, W); NaFlex's patches are put back in their places."""
        found = self.processor(images=image, return_tensors="pt")
        pixels = found["pixel_values"][0]
        if "spatial_shapes" not in found:
            return pixels
        down, across = found["spatial_shapes"][0].tolist()
        step = self.processor.patch_size
        patches = pixels[: down * across].reshape(down, across, step, step, 3)
        return patches.permute(4, 0, 2, 1, 3).reshape(3, down * step, across * step)


class _Tokenizer:
    """A tokenizer of transformers: strings -> token ids (T, context length), padded to it and cut off by it."""

    def __init__(self, tokenizer: Any, context_length: int):
        self.tokenizer, self.context_length = tokenizer, context_length

    def __call__(self, texts: list[str]) -> Tensor:
        options = {"padding": "max_length", "truncation": True, "max_length": self.context_length}
        return self.tokenizer(list(texts), return_tensors="pt", **options)["input_ids"]


def read_processor(model: nn.Module, processor: Any) -> tuple[_Preprocess, _Tokenizer]:
    """The preprocessing and the tokenizer of a model of transformers, checked against the model."""
    kind = type(unwrapped(model)).__name__
    _check_kind(kind_of(model) or kind)
    images, tokenizer = (
        getattr(processor, name, None) for name in ("image_processor", "tokenizer")
    )
    if images is None or tokenizer is None:
        missing = (
            "processor"
            if processor is None
            else "image processor"
            if images is None
            else "tokenizer"
        )
        needs = f"{kind} needs its processor, for images and for prompts, and got no {missing}"
        raise GradeclipError(f"{needs}: AutoProcessor.from_pretrained of the same name has both")
    tower = open_image_tower(model)
    try:
        preprocess = _Preprocess(images)
        size = tuple(preprocess(Image.new("RGB", (48, 40))).shape[-2:])
    except Exception as error:
        raise GradeclipError(
            f"the image processor of {kind} cannot prepare an image: {first_line(error)}"
        ) from error
    if size != tower.image_size:
        sizes = [f"{height} x {width} pixels" for height, width in (size, tower.image_size)]
        raise GradeclipError(
            f"{_ANOTHER}it makes images of {sizes[0]}, and {kind} reads {sizes[1]}"
        )
    try:
        text = open_text_tower(model)
    except UnsupportedModel:  # BLIP's: prompts are embeddings
        return preprocess, _Tokenizer(tokenizer, 77)
    found = _Tokenizer(tokenizer, min(text.context_length, tokenizer.model_max_length))
    _check_vocabulary(kind, text, found)
    return preprocess, found


def load_transformers(
    name: str, pretrained: Any, device: str, precision: str
) -> tuple[nn.Module, Any, str]:
    """A model of transformers in evaluation mode, its processor, and the source of its weights."""
    transformers = optional_library(
        "transformers", f"{PREFIX}{name} is a model of transformers", "transformers"
    )
    folder = as_path(name, "the name of a model")
    if (folder / "config.json").is_file():
        name = str(folder)
    elif folder.is_dir() or folder.is_absolute() or name.startswith((".", "~")):
        raise GradeclipError(
            f"there is no folder {name} with config.json: {PREFIX} takes one, or a hub's name."
        )
    else:
        check_reachable(name, "config.json")
    said, bars = f"{PREFIX}{name}", transformers.utils.logging
    hidden = (
        folder.is_dir() and bars.is_progress_bar_enabled()
    )  # nothing is downloaded, and loading takes a second
    if hidden:
        bars.disable_progress_bar()
    try:
        config = transformers.AutoConfig.from_pretrained(name)
        architectures = config.architectures or [
            f"{type(config).__name__.removesuffix('Config')}Model"
        ]
        _check_kind(architectures[0])
        options = {
            "use_safetensors": True,
            "output_loading_info": True,
            "ignore_mismatched_sizes": True,
        }
        model, loaded = getattr(transformers, architectures[0]).from_pretrained(name, **options)
    except UnsupportedModel:
        raise
    except Exception as error:
        raise GradeclipError(f"{said} cannot be loaded: {first_line(error)}") from error
    finally:
        if hidden:
            bars.enable_progress_bar()
    if other := [key for key, *_ in loaded["mismatched_keys"]]:
        raise GradeclipError(
            f"{said} has weights of other shapes than its config says: {some(other, 3)}"
        )
    if lacks := [key for key in loaded["missing_keys"] if not key.endswith("position_ids")]:
        parts = f"{len(lacks)} parts of {architectures[0]}, {lacks[0]} among them: they would be random numbers"
        raise GradeclipError(f"{said} has no weights for {parts}")
    try:
        processor = transformers.AutoProcessor.from_pretrained(name)
    except Exception as error:
        files = "preprocessor_config.json and the files of the tokenizer belong beside the weights"
        raise GradeclipError(
            f"{said} has no processor that can be loaded ({first_line(error)}): {files}"
        ) from error
    source = getattr(config, "_commit_hash", None) or name
    state, given = model.state_dict(), said
    if pretrained:
        state, _, given = given_weights(pretrained)
        source = "a state dict in hand" if isinstance(pretrained, Mapping) else given
    load_into(model, state, given, f"{given} does not fit {said}")
    return model.to(device, get_input_dtype(precision) or torch.float32).eval(), processor, source


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        half = "Text" in kind or "Vision" in kind
        why = (
            "is one encoder of two, and a similarity needs both"
            if half
            else "is none of the known models"
        )
        raise UnsupportedModel(f"{kind} {why}: load one of {', '.join(KINDS)}")


def _check_vocabulary(kind: str, tower: Tower, tokenizer: _Tokenizer) -> None:
    """Compare the tokenizer's ids, end and padding with those of the model."""
    text, own = tower.text, tokenizer.tokenizer  # type: ignore[attr-defined]
    rows, count, its = text.part.config.vocab_size, len(own), f"{_ANOTHER}its {type(own).__name__}"
    if (
        abs(count - rows) > 0.02 * rows
    ):  # some tables are filled up to a round number, and some tokens never occur
        raise GradeclipError(f"{its} has {count} tokens, and {kind} knows {rows}")
    if beyond := [token for token, number in own.get_added_vocab().items() if number >= rows]:
        msg = f"{its} has the added token {beyond[0]!r}, and {kind} has no row for it: resize_token_embeddings"
        raise GradeclipError(msg)
    if text.padding not in (None, own.pad_token_id):
        raise GradeclipError(
            f"{its} pads with token {own.pad_token_id}, and {kind} with {text.padding}"
        )
    try:
        ids = tokenizer(["a"])
    except Exception as error:  # no padding token
        raise GradeclipError(
            f"the tokenizer of {kind} cannot read a prompt: {first_line(error)}"
        ) from error
    if getattr(own, "padding_side", "right") != "right" and text.reads != "last":
        raise GradeclipError(
            f"{its} pads on the left, and {kind} reads from the right: set padding_side='right'"
        )
    if text.reads == "eos" and int(ids[0, tower.ends(ids)[0]]) != own.eos_token_id:
        raise GradeclipError(
            f"{its} ends a prompt with token {own.eos_token_id}, which is not where {kind} reads it"
        )


def _steps(processor: Any) -> list:
    """The steps of a processor that move pixels, as torchvision's; the processor itself if they are not known."""
    if hasattr(processor, "max_num_patches"):  # NaFlex keeps the whole image in its shape
        steps = []
    else:
        resample = getattr(processor, "resample", None)
        size = _size(processor.size) if getattr(processor, "do_resize", False) else ()
        resize = (
            [Resize(size, InterpolationMode.BICUBIC if resample is None else resample)]
            if size
            else []
        )
        steps = [processor] if size is None else resize
        if getattr(processor, "do_center_crop", False):
            steps.append(CenterCrop(_size(processor.crop_size)))
    if getattr(processor, "do_normalize", False):
        steps.append(Normalize(processor.image_mean, processor.image_std))
    return steps


def _size(size: Any) -> list[int] | int | None:
    """(height, width), the shorter side, or None if it is something else."""
    size = (
        size
        if isinstance(size, Mapping)
        else vars(size)
        if hasattr(size, "__dict__")
        else {"shortest_edge": size}
    )
    size = {key: value for key, value in size.items() if value is not None}
    if set(size) == {"height", "width"}:
        return [size["height"], size["width"]]
    return size["shortest_edge"] if set(size) == {"shortest_edge"} else None
