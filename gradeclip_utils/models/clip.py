"""`Clip`: a model with its preprocessing and tokenizer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from PIL import Image
from torch import nn

from ..errors import GradeclipError
from ..towers import Tower, open_image_tower, open_text_tower
from .transformers import read_processor

RANDOM_STEPS = ("Random", "AutoAugment", "ColorJitter", "color_jitter", "gray_scale")  # prefixes
AS_OPEN_CLIP = (
    "model, preprocess = open_clip.create_model_from_pretrained(NAME, pretrained=TAG); "
    "Clip(model, preprocess, open_clip.get_tokenizer(NAME))"
)


@dataclass(frozen=True, repr=False)
class Clip:
    """A model with its preprocessing and tokenizer.

        Clip(model, preprocess, tokenizer)           # a loaded open_clip model
        Clip.from_transformers(model, processor)     # one of transformers

    `load_clip` makes one by name. `print(clip)` says in a few lines what it is, how it was trained,
    and what is explained by default.

    Args:
        model: an open_clip `CLIP`, `CustomTextCLIP` or `CoCa`, a timm transformer (a classifier),
            or a model of transformers (CLIP, SigLIP, MetaCLIP 2, Chinese CLIP, AltCLIP); it is not
            changed, and may be in any mode and precision.
        preprocess: PIL image -> (3, H, W) float tensor; open_clip's transform for evaluation, not
            the one for training.
        tokenizer: list of T strings -> (T, context length) long tensor; None if prompts are
            embeddings or one-hot directions of classes.
        name, pretrained: the model's name and the source of its weights; every explanation carries
            them.
        vocabulary: the lower-case words that the model was trained on, or None if it knows any
            word.
        image_layers: how many of the last image layers Grad-ECLIP explains by default; None for
            one, as the paper.
        text_layers: the same for text; None for two thirds of them, as the paper.
        training: one sentence on how the model was trained.
        trained_on_drawn_scenes: whether it was trained on drawn scenes alone, so that on a
            photograph it can only guess.

    Raises:
        GradeclipError: the preprocessing is the one for training, or the tokenizer is a transform
            of images.
    """

    model: torch.nn.Module
    preprocess: Callable[[Image.Image], torch.Tensor]
    # Callable[[list[str]], torch.Tensor] | None, but typing it so needs a check in every caller
    tokenizer: Any
    name: str = "custom"
    pretrained: str = ""
    vocabulary: frozenset[str] | None = None
    image_layers: int | None = None
    text_layers: int | None = None
    training: str = ""
    trained_on_drawn_scenes: bool = False

    def __post_init__(self):
        for step in getattr(self.preprocess, "transforms", [self.preprocess]):
            kind = type(step).__name__
            if kind.startswith(RANDOM_STEPS):
                raise GradeclipError(
                    f"the preprocessing has the random step {kind}: it is the transform for "
                    "training, the second that open_clip.create_model_and_transforms returns; "
                    f"take the third, or: {AS_OPEN_CLIP}"
                )
        if hasattr(self.tokenizer, "transforms"):
            raise GradeclipError(
                f"a Clip needs a tokenizer, got a transform of images: {AS_OPEN_CLIP}"
            )

    @classmethod
    def from_transformers(
        cls,
        model: nn.Module,
        processor: Any,
        name: str = "custom",
        pretrained: str = "",
    ) -> Self:
        """Make a `Clip` of a model of transformers and its processor.

            model = CLIPModel.from_pretrained("openai/clip-vit-base-patch32")
            processor = AutoProcessor.from_pretrained("openai/clip-vit-base-patch32")
            Clip.from_transformers(model, processor)

        Args:
            model: a `CLIPModel`, `SiglipModel`, `MetaClip2Model`, `ChineseCLIPModel` or
                `AltCLIPModel`, also inside PEFT's wrapper. It is not changed.
            processor: its own processor: an image processor and a tokenizer.
            name: the model's name; every explanation carries it.
            pretrained: the source of its weights.

        Raises:
            UnsupportedModel: an unknown kind of model, one encoder only, or a quantised model.
            GradeclipError: the processor lacks a part, or makes images of another size.
        """
        preprocess, tokenizer = read_processor(model, processor)
        return cls(model, preprocess, tokenizer, name, pretrained)

    def __repr__(self) -> str:
        first = model_title(self.name, self.pretrained)
        if self.vocabulary is not None:
            first += f", knows {len(self.vocabulary)} words"
        lines = [first]
        if self.training:
            lines.append(f"  trained {self.training}")
        lines.append(f"  image: {_describe(open_image_tower, self.model, self.image_layers or 1)}")
        lines.append(f"  text: {_describe(open_text_tower, self.model, self.text_layers)}")
        return "\n".join(lines)


def model_title(name: str, pretrained: str) -> str:
    """A model and the source of its weights, for people."""
    if pretrained == name:  # a folder of transformers, or a name of a hub, is both
        return name
    return f"{name} ({pretrained or 'weights not named'})"


def _describe(
    open_tower: Callable[[nn.Module, int | None], Tower],
    model: nn.Module,
    layers: int | None,
) -> str:
    """An encoder with its explained layers, or why it has none."""
    try:
        tower = open_tower(model, layers)
    except GradeclipError as refusal:
        return f"cannot be explained: {refusal}"

    if tower.name == "image":
        rows = tower.image_size[0] // tower.patch_size[0]
        columns = tower.image_size[1] // tower.patch_size[1]
        size = f"{rows} x {columns} patches"
    else:
        size = f"up to {tower.context_length} tokens"
    explained = f"{tower.layers} of {tower.depth} layers explained"
    return f"{tower.kind}, {explained}, {size}, {tower.query_token}"
