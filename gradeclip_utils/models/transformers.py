"""Models of transformers with their processor, which prepares images and tokenizes prompts.

The steps of the processor, where it resizes and crops, are read from its settings, so that maps lie
where they belong. transformers is optional: `pip install '.[transformers]'`.
"""

from collections.abc import Mapping
from typing import Any

import open_clip
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import CenterCrop, InterpolationMode, Normalize, Resize

from ..errors import GradeclipError, UnsupportedModel, first_line, optional_library
from ..runtime import usable_device
from ..towers import open_image_tower, open_text_tower
from ..towers.transformers import KINDS, kind_of, unwrapped

PREFIX = "transformers:"
_SAVE_BOTH = "Where the model was saved, save its processor too: processor.save_pretrained(FOLDER)"


class _Preprocess:
    """An image processor of transformers: PIL image -> (3, H, W).

    `transforms` are its steps, as torchvision's.
    """

    def __init__(self, processor: Any):
        self.processor = processor
        self.transforms = _steps(processor)

    def __call__(self, image: Image.Image) -> Tensor:
        return self.processor(images=image, return_tensors="pt")["pixel_values"][0]


class _Tokenizer:
    """A tokenizer of transformers: strings -> token ids (T, context length), padded or cut off."""

    def __init__(self, tokenizer: Any, context_length: int):
        self.tokenizer = tokenizer
        self.context_length = context_length

    def __call__(self, texts: list[str]) -> Tensor:
        tokens = self.tokenizer(
            list(texts),
            return_tensors="pt",
            padding="max_length",
            truncation=True,
            max_length=self.context_length,
        )
        return tokens["input_ids"]


def read_processor(model: nn.Module, processor: Any) -> tuple[_Preprocess, _Tokenizer]:
    """The preprocessing and the tokenizer of a model of transformers."""
    kind = kind_of(model) or type(unwrapped(model)).__name__
    _check_kind(kind)
    image_processor = getattr(processor, "image_processor", None)
    tokenizer = getattr(processor, "tokenizer", None)
    if image_processor is None or tokenizer is None:
        missing = "image processor" if image_processor is None else "tokenizer"
        raise GradeclipError(
            f"{kind} needs its processor, for images and for prompts, and got no {missing}: "
            "AutoProcessor.from_pretrained of the same name has both"
        )
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        # transformers 5 makes one where a folder has no files of a tokenizer: every word is unknown
        raise GradeclipError(f"the tokenizer of {kind} knows no words. {_SAVE_BOTH}")

    preprocess = _Preprocess(image_processor)
    height, width = preprocess(Image.new("RGB", (48, 40))).shape[-2:]
    model_height, model_width = open_image_tower(model).image_size
    if (height, width) != (model_height, model_width):
        raise GradeclipError(
            f"the processor is another model's: it makes images of {height} x {width} pixels, and "
            f"{kind} reads {model_height} x {model_width}"
        )
    context_length = min(open_text_tower(model).context_length, tokenizer.model_max_length)
    return preprocess, _Tokenizer(tokenizer, context_length)


def load_transformers(name: str, device: str, precision: str) -> tuple[nn.Module, Any]:
    """A model of transformers in evaluation mode, and its processor."""
    transformers = optional_library("transformers", f"{name} is one of its models", "transformers")
    place = name.removeprefix(PREFIX)
    try:
        config = transformers.AutoConfig.from_pretrained(place)
    except (OSError, ValueError) as error:
        raise GradeclipError(f"transformers cannot load {place}: {first_line(error)}") from error
    kind = type(config).__name__.replace("Config", "Model")
    _check_kind(kind)
    model = getattr(transformers, kind).from_pretrained(place)
    try:
        processor = transformers.AutoProcessor.from_pretrained(place)
    except (OSError, ValueError) as error:
        raise GradeclipError(
            f"transformers cannot load the processor of {place}: {first_line(error)} {_SAVE_BOTH}"
        ) from error
    dtype = open_clip.get_input_dtype(precision) or torch.float32
    return model.to(usable_device(device), dtype).eval(), processor


def _check_kind(kind: str) -> None:
    if kind in KINDS:
        return
    reason = "is none of the known models"
    if "Text" in kind or "Vision" in kind:
        reason = "is one encoder of two, and a similarity needs both"
    raise UnsupportedModel(f"{kind} {reason}: load one of {', '.join(KINDS)}")


def _steps(processor: Any) -> list:
    """The steps of a processor that move pixels, as torchvision's, and its normalisation.

    Where its settings are not known, the processor itself stands for them.
    """
    steps: list = []
    if getattr(processor, "do_resize", False):
        size = _size(processor.size)
        resample = getattr(processor, "resample", None)
        if resample is None:
            resample = InterpolationMode.BICUBIC
        steps.append(processor if size is None else Resize(size, resample))
    if getattr(processor, "do_center_crop", False):
        steps.append(CenterCrop(_size(processor.crop_size)))
    if getattr(processor, "do_normalize", False):
        steps.append(Normalize(processor.image_mean, processor.image_std))
    return steps


def _size(size: Any) -> list[int] | int | None:
    """(height, width), the shorter side, or None if it is something else."""
    if isinstance(size, int):
        return size
    sides = size if isinstance(size, Mapping) else vars(size)
    sides = {key: value for key, value in sides.items() if value is not None}
    if set(sides) == {"height", "width"}:
        return [sides["height"], sides["width"]]
    if set(sides) == {"shortest_edge"}:
        return sides["shortest_edge"]
    return None
