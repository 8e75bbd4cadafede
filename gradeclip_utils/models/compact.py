"""Compact files: a model that knows few words, small enough to be shipped, and an ordinary open_clip model again.

    compact -> models -> towers -> trace -> method -> explanation

A compact file is safetensors in half precision. Of the token embeddings it holds the rows that captions can need, and
a model that shares weights with another one (a student with its teacher's text encoder) leaves those out and names the
file that has them. The config beside it, .json, is open_clip's own, with the preprocessing of images added.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import open_clip
import timm
import torch
from open_clip.model import get_cast_dtype
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ..checks import listed, text
from ..errors import GradeclipError
from ..files import data_path, write_path_whole
from .checkpoints import check_checkpoint, misfit

BUNDLED = "emoji"
# What load_clip knows by name without a network: the file in data/, its config beside it. "emoji-bag" knows the same
# things and colours as the default, and not which thing has which colour.
BUNDLED_MODELS = {
    name: f"{name}.safetensors"
    for name in (BUNDLED, "emoji-bag", "emoji-average", "emoji-siglip", "emoji-resnet", "emoji-fine")
}
EXPLAINED_LAYERS = ("image_layers", "text_layers")  # in a config: how many of the last ones Grad-ECLIP explains
_TABLE = "token_embedding.weight"  # under "text." in a model with a text encoder of its own


def emoji_vit_map(pretrained: bool = False, **options) -> nn.Module:
    """A VisionTransformer at the size of emoji scenes, without CLS, read by a latent query (MAP), as in SigLIP."""
    size = {"img_size": 96, "patch_size": 8, "embed_dim": 192, "depth": 6, "num_heads": 3}
    own = {**size, "class_token": False, "global_pool": "map", "pre_norm": True, **options}
    own["pretrained_cfg"] = {"input_size": (3, own["img_size"], own["img_size"]), "num_classes": 0}  # there are none
    return timm.models.build_model_with_cfg(VisionTransformer, "emoji_vit_map", pretrained, **own)


if not timm.is_model(emoji_vit_map.__name__):  # open_clip's configs name timm's models, and this is one more of them
    timm.models.register_model(emoji_vit_map)


def build(config: dict, precision: str = "fp32") -> nn.Module:
    """The model that a config describes, with random weights: `CLIP`, or `CustomTextCLIP`."""
    config = {key: value for key, value in config.items() if key not in ("preprocess", *EXPLAINED_LAYERS)}
    kind = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
    return kind(**config, cast_dtype=get_cast_dtype(precision))


def save_compact(
    model: nn.Module, path: str | Path, *, words: Iterable[str], metadata: dict[str, str], config: dict | None = None,
    shared: str | Path | None = None,
) -> None:  # fmt: skip
    """Save a model that knows few words in half precision, with the embedding rows of its own tokens only.

    Tokens are those of `words`, comma and full stop, and the start and end of text. `models.load_compact` makes an
    ordinary model of it again.

    Args:
        model: a `CLIP` or `CustomTextCLIP` with CLIP's own BPE tokenizer.
        path: the file, ending in .safetensors.
        words: what stood in the captions, with any punctuation beside comma and full stop.
        metadata: provenance (steps, seed, ...), kept in the file.
        config: if given, written beside it as .json: open_clip's model config, under "preprocess" the mean, std,
            interpolation, resize_mode and size of the images, and under "image_layers" and "text_layers" how many of
            the last layers are explained by default.
        shared: a compact file in the same folder. Tensors that it has too, bit by bit, are left out and read from it.

    Raises:
        ValueError: a weight is not finite in half precision.
    """
    tokenizer = open_clip.SimpleTokenizer()
    words = sorted({text("each of words", word).lower() for word in listed("words", words)})
    ids = {tokenizer.sot_token_id, tokenizer.eot_token_id}
    if hasattr(model, "text"):
        ids.add(0)  # fills the context, and may be the token that reads
    ids = torch.tensor(sorted(ids.union(*(tokenizer.encode(word) for word in [*words, ",", "."]))), dtype=torch.int32)
    state = {key: value.detach().cpu() for key, value in model.state_dict().items()}
    state = {key: one.half() if one.is_floating_point() else one for key, one in state.items()}  # batch norm counts
    table = _table_of(state)
    state[table] = state[table][ids.long()]
    broken = [key for key, value in state.items() if not torch.isfinite(value).all()]
    if broken:
        raise GradeclipError(f"Not finite in half precision: {', '.join(broken)}.")
    state = {key: value.clone(memory_format=torch.contiguous_format) for key, value in state.items()}
    state["token_ids"] = ids
    if shared is not None:
        theirs = load_file(shared)
        state = {key: value for key, value in state.items() if key not in theirs or not torch.equal(value, theirs[key])}
        metadata = {**metadata, "shared": Path(shared).name, "shared_sha256": _checksum(shared)}
    about = {**metadata, "words": " ".join(words)}
    write_path_whole(Path(path), lambda place: save_file(state, place, metadata=about))
    Path(path).chmod(0o644)  # safetensors writes through a private temporary file
    if config is not None:
        Path(path).with_suffix(".json").write_text(json.dumps(config, indent=2) + "\n")


def read_compact(path: Path, config_path: Path, precision: str = "fp32") -> tuple[nn.Module, dict, str]:
    """What `models.load_compact` makes a `Clip` of: the model of a compact file, its config, and its words."""
    for file in (path, config_path):
        if not file.is_file():
            msg = f"{file} is missing; reinstall gradeclip, or train the bundled models (CONTRIBUTING.md says how)."
            raise GradeclipError(msg)
    check_checkpoint(path)
    config = json.loads(config_path.read_text())
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, it is no dict
    model = build(config, precision)
    if "shared" in metadata:  # what the other model has besides is not this one's
        known, theirs = {*model.state_dict(), "token_ids"}, _shared_state(path, metadata)
        state = {key: value for key, value in theirs.items() if key in known} | state
    if "token_ids" not in state:
        msg = f"{path} is not a compact checkpoint: it has no token_ids. Pass its architecture as the name."
        raise GradeclipError(msg)
    table, ids = _table_of(state), state.pop("token_ids").long()
    rows = state[table].float()
    state[table] = rows.mean(0).repeat(config["text_cfg"].get("vocab_size", 49408), 1).index_copy(0, ids, rows)
    if reason := misfit(config_path.name, path, state, model):
        raise GradeclipError(reason)
    model.load_state_dict(state)
    return model, config, metadata.get("words", "")


def _shared_state(path: Path, metadata: dict[str, str]) -> dict[str, Tensor]:
    other = path.with_name(metadata["shared"])
    other = other if other.is_file() else data_path(metadata["shared"])
    if not other.is_file():
        msg = f"{path} shares weights with {metadata['shared']}, which is missing beside it."
        raise GradeclipError(msg)
    if _checksum(other) != metadata["shared_sha256"]:
        was = f"{metadata['shared']} as it was when the file was written"
        teach = "teach the model again (python -m gradeclip_utils distil)."
        raise GradeclipError(f"{path} shares weights with {was}, and {other} is another one: {teach}")
    return load_file(other)


def _checksum(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _table_of(state: dict[str, Tensor]) -> str:
    return next(key for key in state if key in (_TABLE, f"text.{_TABLE}"))
