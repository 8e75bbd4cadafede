"""transformers' models as a `Clip`: found, checked, and put together with their processor.

    checkpoint, model and processor of transformers --here--> Clip --towers--> trace

A processor prepares images and tokenizes prompts. What it does to an image stays its own; where it crops and resizes is
read from it, so that maps lie where they belong. transformers is optional: `pip install '.[transformers]'`.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from open_clip.model import get_input_dtype
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import CenterCrop, InterpolationMode, Normalize, Resize

from ..checks import first_line
from ..errors import GradeclipError
from ..towers import Tower, UnsupportedModel, open_image_tower, open_text_tower
from ..towers.huggingface import IMAGES, MODELS, kind_of, unwrapped
from .checkpoints import check_checkpoint, check_reachable

PREFIX = "transformers:"
_INTERPOLATION: dict[Any, InterpolationMode] = {
    0: InterpolationMode.NEAREST,
    2: InterpolationMode.BILINEAR,
    3: InterpolationMode.BICUBIC,
}


class Preprocess:
    """An image processor of transformers: PIL image -> (3, H, W). `transforms` are steps that say where it crops."""

    def __init__(self, processor: Any):
        self.processor, self.transforms = processor, _steps(processor)

    def __call__(self, image: Image.Image) -> Tensor:
        """What the model sees of the image, (3, H, W); of NaFlex's patches the real ones, back in their places."""
        found = self.processor(images=image, return_tensors="pt")
        pixels = found["pixel_values"][0]
        if "spatial_shapes" not in found:
            return pixels
        down, across = found["spatial_shapes"][0].tolist()
        step = self.processor.patch_size
        patches = pixels[: down * across].reshape(down, across, step, step, 3)
        return patches.permute(4, 0, 2, 1, 3).reshape(3, down * step, across * step)


class Tokenizer:
    """A tokenizer of transformers: strings -> token ids (T, context length), padded to it and cut off by it."""

    def __init__(self, tokenizer: Any, context_length: int):
        self.tokenizer, self.context_length = tokenizer, context_length

    def __call__(self, texts: list[str]) -> Tensor:
        """Token ids (T, context length)."""
        options = {"padding": "max_length", "truncation": True, "max_length": self.context_length}
        return self.tokenizer(list(texts), return_tensors="pt", **options)["input_ids"]

    def encode(self, text: str) -> list[int]:
        """Token ids of the words alone, as open_clip's tokenizer gives them; lessons ask it of any model's."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    @property
    def decoder(self) -> dict[int, str]:
        """The piece of a word that each token id stands for."""
        return {number: piece for piece, number in self.tokenizer.get_vocab().items()}


def read_processor(model: nn.Module, processor: Any) -> tuple[Preprocess, Tokenizer]:
    """The preprocessing and the tokenizer of a model of transformers, checked to be its own."""
    kind = type(unwrapped(model)).__name__
    _check_kind(kind_of(model, IMAGES) or kind)
    images, tokenizer = (getattr(processor, name, None) for name in ("image_processor", "tokenizer"))
    if images is None or tokenizer is None:
        missing = "processor" if processor is None else "image processor" if images is None else "tokenizer"
        needs = f"{kind} needs its processor, for images and for prompts, and got no {missing}"
        raise GradeclipError(f"{needs}: AutoProcessor.from_pretrained of the same name has both")
    tower, preprocess = open_image_tower(model), Preprocess(images)
    _check_images(kind, tower, preprocess)
    try:
        text = open_text_tower(model)
    except UnsupportedModel:  # BLIP's: prompts are embeddings
        return preprocess, Tokenizer(tokenizer, 77)
    _check_vocabulary(kind, text, tokenizer)
    return preprocess, Tokenizer(tokenizer, min(text.context_length, tokenizer.model_max_length))


def load_transformers(name: str, device: str, precision: str) -> tuple[nn.Module, Any]:
    """A model of transformers in evaluation mode, and its processor."""
    try:
        transformers = import_module("transformers")
    except ImportError as error:
        how = "pip install transformers (in a checkout, pip install '.[transformers]')"
        raise GradeclipError(f"{PREFIX}{name} needs transformers: {how}") from error
    folder = Path(name).expanduser()
    if folder.is_dir():
        name = str(folder)
        _check_folder(folder)
    elif folder.is_absolute() or name.startswith((".", "~")):
        msg = f"there is no folder {name}: {PREFIX} takes a folder with config.json, or a hub's name."
        raise GradeclipError(msg)
    else:
        check_reachable(name, "config.json")
    try:
        config = transformers.AutoConfig.from_pretrained(name)
        architectures = config.architectures or [f"{type(config).__name__.removesuffix('Config')}Model"]
        _check_kind(architectures[0])
        options = {"use_safetensors": True, "output_loading_info": True}
        model, loaded = getattr(transformers, architectures[0]).from_pretrained(name, **options)
    except UnsupportedModel:
        raise
    except (OSError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise GradeclipError(f"{PREFIX}{name} cannot be loaded: {first_line(error)}") from error
    lacks = [key for key in loaded["missing_keys"] if not key.endswith("position_ids")]
    if lacks:
        some = f"{len(lacks)} parts of {architectures[0]}, {lacks[0]} among them: they would be random numbers"
        raise GradeclipError(f"{PREFIX}{name} has no weights for {some}")
    try:
        processor = transformers.AutoProcessor.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        files = "preprocessor_config.json and the files of the tokenizer belong beside the weights"
        msg = f"{PREFIX}{name} has no processor that can be loaded ({first_line(error)}): {files}"
        raise GradeclipError(msg) from error
    dtype = get_input_dtype(precision) or torch.float32
    return model.to(device, dtype).eval(), processor


def _check_kind(kind: str) -> None:
    if kind in IMAGES:
        return
    half = next((half for half in ("Text", "Vision") if half in kind), None)
    if half:
        other = "image" if half == "Text" else "text"
        raise UnsupportedModel(f"{kind} is one encoder of two: a similarity needs the {other} encoder too; load the "
                               f"checkpoint that has both ({', '.join(MODELS)})")  # fmt: skip
    raise UnsupportedModel(f"{kind} is none of the models of transformers that are known: {', '.join(IMAGES)}")


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        msg = f"{folder} has no config.json, so it holds no model of transformers (save_pretrained writes one)"
        raise GradeclipError(msg)
    weights = sorted(folder.glob("*.safetensors"))
    for path in weights:
        check_checkpoint(path)
    if weights:
        return
    pickles = sorted(file.name for suffix in ("*.bin", "*.pt", "*.pth", "*.ckpt") for file in folder.glob(suffix))
    if pickles:
        why = "which could run code when they are read: save the model with safe_serialization=True"
        raise GradeclipError(f"{folder} has its weights only as pickles ({pickles[0]}), {why}")
    raise GradeclipError(f"{folder} has a config.json and no weights (model.safetensors)")


def _check_images(kind: str, tower: Tower, preprocess: Preprocess) -> None:
    """By what the processor makes of an image."""
    found, wanted = tuple(preprocess(Image.new("RGB", (48, 40))).shape[-2:]), tower.image_size
    if tower.own_grid:
        step, patch = getattr(preprocess.processor, "patch_size", None), tower.patch_size[0]
        fits = hasattr(preprocess.processor, "max_num_patches") and step == patch
        msg = f"{kind} reads patches of {patch} pixels of images of any shape, and it makes {step or found}"
    else:
        fits, sizes = found == wanted, f"{found[0]} x {found[1]} pixels, and {kind} reads {wanted[0]} x {wanted[1]}"
        msg = f"it makes images of {sizes}"
    if not fits:
        raise GradeclipError(f"the processor is another model's: {msg}")


def _check_vocabulary(kind: str, tower: Tower, tokenizer: Any) -> None:
    text = tower.text  # type: ignore[attr-defined]
    rows, count = text.part.config.vocab_size, len(tokenizer)
    another = f"the processor is another model's: its {type(tokenizer).__name__}"
    if abs(count - rows) > 0.02 * rows:  # some tables are filled up to a round number, and some tokens never occur
        raise GradeclipError(f"{another} has {count} tokens, and {kind} knows {rows}")
    if text.padding not in (None, tokenizer.pad_token_id):
        msg = f"{another} pads with token {tokenizer.pad_token_id}, and {kind} with {text.padding}"
        raise GradeclipError(msg)
    ids = torch.tensor([tokenizer("a")["input_ids"]])
    end = tokenizer.eos_token_id
    if text.reads == "eos" and int(ids[0, tower.ends(ids)[0]]) != end:
        msg = f"{another} ends a prompt with token {end}, which is not where {kind} reads it"
        raise GradeclipError(msg)


def _steps(processor: Any) -> list:
    """What a processor does to the place of pixels, as torchvision's steps; itself, where that is not known."""
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
    """(height, width), the shorter side, or None where it is something else."""
    size = size if isinstance(size, Mapping) else vars(size) if hasattr(size, "__dict__") else {"shortest_edge": size}
    size = {key: value for key, value in size.items() if value is not None}
    if set(size) == {"height", "width"}:
        return [size["height"], size["width"]]
    return size["shortest_edge"] if set(size) == {"shortest_edge"} else None
