"""`Clip`: a model with its preprocessing and tokenizer, all that an explainer needs to know about it.

weights -> Clip --towers--> trace -> method -> explanation
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import open_clip
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import CenterCrop, InterpolationMode, Normalize, Resize

from ..checks import first_line, short
from ..errors import GradeclipError, UnsupportedModel
from ..towers import Tower, open_image_tower, open_text_tower
from ..towers.huggingface import check_kind, kind_of, unwrapped

_AS_OPEN_CLIP = (
    "load_clip(NAME, pretrained=TAG), or in two lines: model, preprocess = "
    "open_clip.create_model_from_pretrained(NAME, pretrained=TAG) and "
    "Clip(model, preprocess, open_clip.get_tokenizer(NAME))"
)
_RANDOM = re.compile(r"Rand|AutoAug|TrivialAug|AugMix|ColorJitter|color_jitter|gray_scale|ElasticTransform")
_ANOTHER = "the processor is another model's: "
_INTERPOLATION: dict[Any, InterpolationMode] = {
    0: InterpolationMode.NEAREST,
    2: InterpolationMode.BILINEAR,
    3: InterpolationMode.BICUBIC,
}


@dataclass(frozen=True, repr=False)
class Clip:
    """A model with its preprocessing and tokenizer.

        Clip(model, preprocess, tokenizer)           # an open_clip model in hand
        Clip.from_transformers(model, processor)     # one of transformers in hand

    `load_clip` makes one by name.
    `print(clip)` says what it is, and what is explained by default.

    Args:
        model: an open_clip `CLIP`, `CustomTextCLIP` or `CoCa`, a timm transformer (a classifier), or a model of
            transformers (CLIP, SigLIP, SigLIP 2, MetaCLIP 2, Chinese CLIP, AltCLIP, BLIP with its contrastive head);
            it is not changed, and may be in any mode and precision.
        preprocess: PIL image -> (3, H, W) float tensor; open_clip's transform for evaluation, not the one for training.
        tokenizer: list of T strings -> (T, context length) long tensor; None if every prompt is an embedding, or the
            one-hot direction of a class.
        name, pretrained: the model's name and the source of its weights; every explanation carries them.
        vocabulary: the lower-case words that the model was trained on, or None if it knows any word.
        image_layers: how many of the last image layers Grad-ECLIP explains by default; None for one, as the paper.
        text_layers: the same for text; None for two thirds of them, as the paper.
        training: one sentence on how the model was trained.

    Raises:
        GradeclipError: the model is no torch module with weights, the preprocessing cannot be called or is the one for
            training, the tokenizer cannot be called or is a transform of images, or the vocabulary is one text.
    """

    model: torch.nn.Module
    preprocess: Callable[[Image.Image], torch.Tensor]
    tokenizer: Any  # Callable[[list[str]], torch.Tensor] | None, but typing it so needs a check in every caller
    name: str = "custom"
    pretrained: str = ""
    vocabulary: frozenset[str] | None = None
    image_layers: int | None = None
    text_layers: int | None = None
    training: str = ""

    def __post_init__(self):
        weight = next(self.model.parameters(), None) if isinstance(self.model, nn.Module) else None
        tokenizer, steps = self.tokenizer, getattr(self.preprocess, "transforms", [self.preprocess])
        of_images = hasattr(tokenizer, "transforms")
        if weight is None or weight.is_meta:
            got = "one on the device 'meta'" if weight is not None else short(self.model)
            why = f"a Clip needs a model, a torch module with weights, got {got}"
        elif not callable(self.preprocess) or isinstance(self.preprocess, type):
            why = f"a Clip needs a preprocessing, a function of an image, got {short(self.preprocess)}"
        elif random := [type(step).__name__ for step in steps if _RANDOM.match(type(step).__name__)]:
            msg = f"the preprocessing has the random step {random[0]}: it is the transform for training"
            why = f"{msg}, the second that open_clip.create_model_and_transforms returns; take the third"
        elif tokenizer is not None and (not callable(tokenizer) or isinstance(tokenizer, type) or of_images
                                        or tokenizer is open_clip.get_tokenizer):  # fmt: skip
            got = "a transform of images" if of_images else short(tokenizer)
            why = f"a Clip needs a tokenizer, a function of a list of texts, got {got}"
        elif isinstance(self.vocabulary, str):
            raise GradeclipError(f"vocabulary must be a set of words, got the text {short(self.vocabulary)}")
        else:
            return
        raise GradeclipError(f"{why}: {_AS_OPEN_CLIP}")

    @classmethod
    def from_transformers(cls, model: nn.Module, processor: Any, name: str = "custom", pretrained: str = "") -> Self:
        """A model of transformers in hand, with its processor.

            model = CLIPModel.from_pretrained("openai/clip-vit-base-patch32")
            Clip.from_transformers(model, AutoProcessor.from_pretrained("openai/clip-vit-base-patch32"))

        Args:
            model: a `CLIPModel`, `SiglipModel`, `Siglip2Model`, `MetaClip2Model`, `ChineseCLIPModel`, `AltCLIPModel`,
                or `BlipForImageTextRetrieval`, also inside PEFT's wrapper. It is not changed.
            processor: its own processor: an image processor and a tokenizer, fast or slow.
            name: the model's name; every explanation carries it.
            pretrained: the source of its weights.

        Raises:
            UnsupportedModel: another model, one encoder only, or a quantised model.
            GradeclipError: the processor is missing, incomplete, or another model's.
        """
        return cls(model, *_read_processor(model, processor), name, pretrained)

    def __repr__(self) -> str:
        image, text = (open_image_tower, self.image_layers or 1), (open_text_tower, self.text_layers)
        lines, explained = [f"{self.name} ({self.pretrained or 'weights not named'})"], []
        for side, (opens, layers) in (("image", image), ("text", text)):
            try:
                tower = opens(self.model, layers)
            except GradeclipError as refusal:
                lines.append(f"  {side}: cannot be explained by attention: {refusal}")
                continue
            size = f"up to {getattr(tower, 'context_length', 0)} tokens"
            if side == "image":
                (height, width), (down, across) = tower.image_size, tower.patch_size
                size = f"{height // down} x {width // across} patches"
            lines.append(f"  {side}: {tower.kind}, {_count(tower.depth, 'layer')}, {size}, {tower.query_token}")
            explained.append(f"the last {_count(tower.layers, f'{side} layer')}")
        said = " and ".join(explained) or "nothing"
        lines.append(f"  explained by default: {said} (the paper explains 1 image layer)")
        if self.vocabulary is not None:
            lines.append(f"  words: only {len(self.vocabulary)} (others get a warning)")
        return "\n".join([*lines, *([f"  training: {self.training}"] if self.training else [])])


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + "s" * (number != 1)


# ---------------------------------------- models of transformers, whose processor prepares images and tokenizes prompts


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
        self.decoder = {number: piece for piece, number in tokenizer.get_vocab().items()}  # id -> piece of a word

    def __call__(self, texts: list[str]) -> Tensor:
        """Token ids (T, context length)."""
        options = {"padding": "max_length", "truncation": True, "max_length": self.context_length}
        return self.tokenizer(list(texts), return_tensors="pt", **options)["input_ids"]

    def encode(self, text: str) -> list[int]:
        """Token ids of the words alone, as open_clip's tokenizer gives them."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]


def _read_processor(model: nn.Module, processor: Any) -> tuple[_Preprocess, _Tokenizer]:
    """The preprocessing and the tokenizer of a model of transformers, checked against the model."""
    kind = type(unwrapped(model)).__name__
    check_kind(kind_of(model) or kind)
    images, tokenizer = (getattr(processor, name, None) for name in ("image_processor", "tokenizer"))
    if images is None or tokenizer is None:
        missing = "processor" if processor is None else "image processor" if images is None else "tokenizer"
        needs = f"{kind} needs its processor, for images and for prompts, and got no {missing}"
        raise GradeclipError(f"{needs}: AutoProcessor.from_pretrained of the same name has both")
    tower = open_image_tower(model)
    try:
        preprocess = _Preprocess(images)
        size = tuple(preprocess(Image.new("RGB", (48, 40))).shape[-2:])
    except Exception as error:
        raise GradeclipError(f"the image processor of {kind} cannot prepare an image: {first_line(error)}") from error
    step, patch = getattr(images, "patch_size", None), tower.patch_size[0]
    if tower.own_grid and not (hasattr(images, "max_num_patches") and step == patch):
        msg = f"{kind} reads patches of {patch} pixels of images of any shape, and it makes {step or size}"
        raise GradeclipError(f"{_ANOTHER}{msg}")
    if not tower.own_grid and size != tower.image_size:
        sizes = [f"{height} x {width} pixels" for height, width in (size, tower.image_size)]
        raise GradeclipError(f"{_ANOTHER}it makes images of {sizes[0]}, and {kind} reads {sizes[1]}")
    try:
        text = open_text_tower(model)
    except UnsupportedModel:  # BLIP's: prompts are embeddings
        return preprocess, _Tokenizer(tokenizer, 77)
    found = _Tokenizer(tokenizer, min(text.context_length, tokenizer.model_max_length))
    _check_vocabulary(kind, text, found)
    return preprocess, found


def _check_vocabulary(kind: str, tower: Tower, tokenizer: _Tokenizer) -> None:
    """Compare the tokenizer's ids, end and padding with those of the model."""
    text, own = tower.text, tokenizer.tokenizer  # type: ignore[attr-defined]
    rows, count, its = text.part.config.vocab_size, len(own), f"{_ANOTHER}its {type(own).__name__}"
    if abs(count - rows) > 0.02 * rows:  # some tables are filled up to a round number, and some tokens never occur
        raise GradeclipError(f"{its} has {count} tokens, and {kind} knows {rows}")
    if beyond := [token for token, number in own.get_added_vocab().items() if number >= rows]:
        msg = f"{its} has the added token {beyond[0]!r}, and {kind} has no row for it: resize_token_embeddings"
        raise GradeclipError(msg)
    if text.padding not in (None, own.pad_token_id):
        raise GradeclipError(f"{its} pads with token {own.pad_token_id}, and {kind} with {text.padding}")
    try:
        ids = tokenizer(["a"])
    except Exception as error:  # no padding token
        raise GradeclipError(f"the tokenizer of {kind} cannot read a prompt: {first_line(error)}") from error
    if getattr(own, "padding_side", "right") != "right" and text.reads != "last":
        raise GradeclipError(f"{its} pads on the left, and {kind} reads from the right: set padding_side='right'")
    if text.reads == "eos" and int(ids[0, tower.ends(ids)[0]]) != own.eos_token_id:
        raise GradeclipError(f"{its} ends a prompt with token {own.eos_token_id}, which is not where {kind} reads it")


def _steps(processor: Any) -> list:
    """The steps of a processor that move pixels, as torchvision's; the processor itself if they are not known."""
    if hasattr(processor, "max_num_patches"):  # NaFlex keeps the whole image in its shape
        steps = []
    else:
        resample = _INTERPOLATION.get(getattr(processor, "resample", None), InterpolationMode.BICUBIC)
        size = _size(processor.size) if getattr(processor, "do_resize", False) else ()
        steps = [processor] if size is None else [Resize(size, resample)] if size else []
        if getattr(processor, "do_center_crop", False):
            steps.append(CenterCrop(_size(processor.crop_size)))
    if getattr(processor, "do_normalize", False):
        steps.append(Normalize(processor.image_mean, processor.image_std))
    return steps


def _size(size: Any) -> list[int] | int | None:
    """(height, width), the shorter side, or None if it is something else."""
    size = size if isinstance(size, Mapping) else vars(size) if hasattr(size, "__dict__") else {"shortest_edge": size}
    size = {key: value for key, value in size.items() if value is not None}
    if set(size) == {"height", "width"}:
        return [size["height"], size["width"]]
    return size["shortest_edge"] if set(size) == {"shortest_edge"} else None
