"""`Clip`: a model with its preprocessing and tokenizer."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import open_clip
import torch
from PIL import Image
from torch import nn

from ..checks import listed, short, text, whole
from ..errors import GradeclipError
from ..towers import open_image_tower, open_text_tower
from .transformers import read_processor

_AS_OPEN_CLIP = (
    "load_clip(NAME, pretrained=TAG), or in two lines: model, preprocess = open_clip.create_model_from_pretrained("
    "NAME, pretrained=TAG) and Clip(model, preprocess, open_clip.get_tokenizer(NAME))"
)
_RANDOM = re.compile(
    r"Rand|AutoAug|TrivialAug|AugMix|ColorJitter|color_jitter|gray_scale|ElasticTransform"
)


@dataclass(frozen=True, repr=False)
class Clip:
    """A model with its preprocessing and tokenizer.

        Clip(model, preprocess, tokenizer)           # a loaded open_clip model
        Clip.from_transformers(model, processor)     # one of transformers

    `load_clip` makes one by name. `print(clip)` says in three lines what it is, and what is
    explained by default.

    Args:
        model: an open_clip `CLIP`, `CustomTextCLIP` or `CoCa`, a timm transformer (a classifier),
            or a model of transformers (CLIP, SigLIP, SigLIP 2, MetaCLIP 2, Chinese CLIP, AltCLIP,
            BLIP with its contrastive head); it is not changed, and may be in any mode and
            precision.
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

    Raises:
        GradeclipError: the model is not a torch module with weights, the preprocessing cannot be
            called or is the one for training, the tokenizer cannot be called or is a transform of
            images, or a name, a number of layers or the vocabulary is of another kind.
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
        elif random := [
            type(step).__name__ for step in steps if _RANDOM.match(type(step).__name__)
        ]:
            msg = f"the preprocessing has the random step {random[0]}: it is the transform for training"
            why = f"{msg}, the second that open_clip.create_model_and_transforms returns; take the third"
        elif tokenizer is not None and (
            not callable(tokenizer)
            or isinstance(tokenizer, type)
            or of_images
            or tokenizer is open_clip.get_tokenizer
        ):
            got = "a transform of images" if of_images else short(tokenizer)
            why = f"a Clip needs a tokenizer, a function of a list of texts, got {got}"
        else:
            for name in ("name", "pretrained", "training"):
                text(name, getattr(self, name))
            for name in ("image_layers", "text_layers"):
                if getattr(self, name) is not None:
                    whole(name, getattr(self, name), 1)
            if self.vocabulary is not None:
                words = (
                    text("each word of vocabulary", word)
                    for word in listed("vocabulary", self.vocabulary)
                )
                object.__setattr__(self, "vocabulary", frozenset(words))
            return
        raise GradeclipError(f"{why}: {_AS_OPEN_CLIP}")

    @classmethod
    def from_transformers(
        cls, model: nn.Module, processor: Any, name: str = "custom", pretrained: str = ""
    ) -> Self:
        """Make a `Clip` of a model of transformers and its processor.

            model = CLIPModel.from_pretrained("openai/clip-vit-base-patch32")
            Clip.from_transformers(model,
            AutoProcessor.from_pretrained("openai/clip-vit-base-patch32"))

        Args:
            model: a `CLIPModel`, `SiglipModel`, `Siglip2Model`, `MetaClip2Model`,
                `ChineseCLIPModel`, `AltCLIPModel`, or `BlipForImageTextRetrieval`, also inside
                PEFT's wrapper. It is not changed.
            processor: its own processor: an image processor and a tokenizer, fast or slow.
            name: the model's name; every explanation carries it.
            pretrained: the source of its weights.

        Raises:
            UnsupportedModel: an unknown kind of model, one encoder only, or a quantised model.
            GradeclipError: the processor is missing, incomplete, or another model's.
        """
        return cls(model, *read_processor(model, processor), name, pretrained)

    def __repr__(self) -> str:
        knows = f"knows {len(self.vocabulary)} words" if self.vocabulary is not None else ""
        training = f"training: {self.training}" if self.training else ""
        lines = [
            ", ".join(
                filter(
                    None,
                    (f"{self.name} ({self.pretrained or 'weights not named'})", knows, training),
                )
            )
        ]
        image, text = (
            (open_image_tower, self.image_layers or 1),
            (open_text_tower, self.text_layers),
        )
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
            depth = f"{tower.layers} of {tower.depth} layers explained"
            lines.append(f"  {side}: {tower.kind}, {depth}, {size}, {tower.query_token}")
        return "\n".join(lines)
