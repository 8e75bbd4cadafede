"""The bundled models, and the compact form in which they are shipped.

A compact file is safetensors in half precision. Of the token embeddings it holds the rows of its
own words only. A model that shares weights with another one (a student with its teacher's text
encoder) leaves these out and names the file that has them. The config beside it, .json, is
open_clip's own with the preprocessing of images added.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import NoneType
from typing import Any

import open_clip
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ..checks import as_path, instance, listed, readable, short, text, writable
from ..errors import GradeclipError, first_line
from ..files import data_path, write_whole
from .clip import Clip
from .open_clip import build, open_safetensors, preprocessing, put_in

BUNDLED = "emoji"
# An installed package holds the first alone; data/ of a checkout has all of them.
_NAMES = (
    BUNDLED,
    "emoji-plain",
    "emoji-bag",
    "emoji-average",
    "emoji-siglip",
    "emoji-resnet",
    "emoji-fine",
)
BUNDLED_MODELS = {
    name: f"{name}.safetensors" for name in _NAMES
}  # its config has the same name and ends in .json
_TABLE = "token_embedding.weight"  # under "text." in a model with a text encoder of its own


def emoji_vit_map(pretrained: bool = False, **options) -> nn.Module:
    """A VisionTransformer at the size of emoji scenes, without CLS, read by a latent query (MAP), as in SigLIP."""
    size = {"img_size": 96, "patch_size": 8, "embed_dim": 192, "depth": 6, "num_heads": 3}
    own = {**size, "class_token": False, "global_pool": "map", "pre_norm": True, **options}
    own["pretrained_cfg"] = {
        "input_size": (3, own["img_size"], own["img_size"]),
        "num_classes": 0,
    }  # there are none
    return timm.models.build_model_with_cfg(VisionTransformer, "emoji_vit_map", pretrained, **own)


if not timm.is_model(
    emoji_vit_map.__name__
):  # open_clip's configs name timm's models, and this is one more of them
    timm.models.register_model(emoji_vit_map)


def save_compact(
    model: nn.Module,
    path: str | Path,
    *,
    words: Iterable[str],
    metadata: dict[str, str],
    config: dict | None = None,
    shared: str | Path | None = None,
) -> None:
    """Save a model that knows few words in half precision, with the embedding rows of its own tokens only.

    Tokens are those of `words`, comma and full stop, and the start and end of text.
    `load_clip("emoji", path)` makes an ordinary model of it again.

    Args:
        model: a `CLIP` or `CustomTextCLIP` of open_clip with CLIP's own BPE tokenizer.
        path: the file, ending in .safetensors.
        words: the words of the captions, with any punctuation beside comma and full stop.
        metadata: provenance (steps, seed, ...), written into the file.
        config: if given, written beside it as .json: open_clip's model config, under "preprocess"
            the mean, std, interpolation, resize_mode and size of the images, and under
            "image_layers" and "text_layers" how many of the last layers are explained by default.
        shared: a compact file in the same folder. Tensors that it has too, bit by bit, are left out
            and read from it.

    Raises:
        GradeclipError: a weight is not finite in half precision, or a word is not a text.
    """
    tokenizer, path = (
        open_clip.SimpleTokenizer(),
        writable(path, "the compact file", suffixes=(".safetensors",)),
    )
    instance(
        "model",
        model,
        (open_clip.CLIP, open_clip.CustomTextCLIP),
        "a CLIP or CustomTextCLIP of open_clip",
    )
    words = sorted({text("each of words", word).lower() for word in listed("words", words)})
    about = {
        str(name): str(value)
        for name, value in instance("metadata", metadata, dict, "a dictionary").items()
    }
    instance("config", config, (dict, NoneType), "a dictionary or None")
    ids = {tokenizer.sot_token_id, tokenizer.eot_token_id}
    if hasattr(model, "text"):
        ids.add(0)  # fills the context, and may be the token that reads
    ids = torch.tensor(
        sorted(ids.union(*(tokenizer.encode(word) for word in [*words, ",", "."]))),
        dtype=torch.int32,
    )
    state = {
        key: value.detach().cpu().clone() for key, value in model.state_dict().items()
    }  # which share no memory
    state = {
        key: one.half() if one.is_floating_point() else one for key, one in state.items()
    }  # batch norm counts
    table = _table_of(state)
    state[table] = state[table][ids.long()]
    if broken := [key for key, value in state.items() if not torch.isfinite(value).all()]:
        raise GradeclipError(f"Not finite in half precision: {', '.join(broken)}.")
    state = {key: value.contiguous() for key, value in state.items()} | {"token_ids": ids}
    if shared is not None:
        others = open_safetensors(readable(shared, "a compact file"))[1]
        state = {
            key: value
            for key, value in state.items()
            if key not in others or not torch.equal(value, others[key])
        }
        about |= {"shared": Path(shared).name, "shared_sha256": _checksum(shared)}
    about["words"] = " ".join(words)
    beside = (
        {}
        if config is None
        else {path.with_suffix(".json"): f"{json.dumps(config, indent=2)}\n".encode()}
    )
    write_whole({**beside, path: lambda place: save_file(state, place, metadata=about)})
    path.chmod(0o644)  # safetensors writes through a private temporary file


@torch.inference_mode(False)
def load_bundled(name: str, pretrained: Any, device: str, precision: str) -> Clip:
    """A bundled model, or a compact file of `save_compact` with the config of the bundled model of this name."""
    if isinstance(pretrained, Mapping) or (
        pretrained and not as_path(pretrained, "a file of weights").exists()
    ):
        takes = "a file of save_compact, neither a state dict nor a tag of open_clip"
        raise GradeclipError(
            f"{name} is a bundled model and takes {takes}: got {short(pretrained)}, which is no file"
        )
    file = BUNDLED_MODELS[name]
    path = readable(pretrained, "a file of weights") if pretrained else data_path(file)
    if not path.is_file():
        raise GradeclipError(
            f"{name} is not here: an installed package holds {BUNDLED!r} alone, and the project's checkout has it as "
            f"data/{file}. Run there, or copy {file} and its .json and pass load_clip({name!r}, 'FOLDER/{file}')"
        )
    metadata, state = open_safetensors(path)
    here, base = path.resolve(), metadata.get("base", name)  # a tuned file says of which model
    bundled = (one for one, file in BUNDLED_MODELS.items() if here == data_path(file).resolve())
    name = next(
        bundled, base if base in BUNDLED_MODELS else name
    )  # a file of another bundled model is that model
    config_path = config_of(name, path)
    try:
        config = instance("it", json.loads(config_path.read_text()), dict, "a dictionary")
        layers = {
            key: config.pop(key, None) for key in ("image_layers", "text_layers")
        }  # that Grad-ECLIP explains
        shown, rows_of_all = config.pop("preprocess"), config["text_cfg"].get("vocab_size", 49408)
        model = build(config, precision, device, empty=True)
        preprocess = preprocessing(model, shown)
    except Exception as error:
        raise GradeclipError(
            f"{config_path} is not the config of a model: {first_line(error)}"
        ) from error
    if (
        "shared" in metadata
    ):  # the other model's tensors that this model has no place for are left out
        known, others = {*model.state_dict(), "token_ids"}, _shared_state(path, metadata)
        state = {key: value for key, value in others.items() if key in known} | state
    if "token_ids" not in state:
        msg = f"{path} is not a compact checkpoint: it has no token_ids. Pass its architecture as the name."
        raise GradeclipError(msg)
    table, ids = _table_of(state), state.pop("token_ids").long()
    rows = state[table].float()
    state[table] = rows.mean(0).repeat(rows_of_all, 1).index_copy(0, ids, rows)
    put_in(model, state, config_path.name, str(path))
    tokenizer = open_clip.SimpleTokenizer(
        context_length=getattr(model, "text", model).context_length
    )
    vocabulary = frozenset(
        word for word in metadata.get("words", "").split() if any(map(str.isalnum, word))
    )
    source = (
        "bundled" if here.parent == data_path().resolve() else str(path)
    )  # a path means nothing elsewhere
    return Clip(
        model.eval(),
        preprocess,
        tokenizer,
        name,
        source,
        vocabulary or None,
        **layers,
        training=_training(metadata),
    )


def config_of(name: str, weights: Path | None) -> Path:
    """The config of a compact file: the one beside it, or that of the bundled model of this name."""
    places = (weights, data_path(BUNDLED_MODELS[name]), data_path(BUNDLED_MODELS[BUNDLED]))
    return next(
        config for place in places if place and (config := place.with_suffix(".json")).is_file()
    )


def _training(metadata: dict[str, str]) -> str:
    if "teacher" in metadata:
        return (
            f"distilled from {metadata['teacher']!r}: its embeddings are to be those of its teacher"
        )
    if "maps" in metadata:
        return f"fine-tuned so that the maps of phrases ({metadata['maps']}) match their regions"
    if "hard_negatives" not in metadata:
        return ""
    sparse, scale = (float(metadata.get(key, 0)) for key in ("sparse_values", "logit_scale"))
    extra = [
        sentence
        for applies, sentence in (
            (metadata["hard_negatives"] == "True", "hard negatives in every batch"),
            (sparse, f"a penalty on patches whose values are large (weight {sparse:g})"),
            (scale, f"a fixed scale of {scale:g} in the loss"),
            (
                metadata.get("shuffled_colours") == "True",
                "the colours of each caption shuffled among its things",
            ),
        )
        if applies
    ]
    if not extra:
        return "on drawn scenes, with the loss of CLIP alone"
    return f"on drawn scenes, with {', '.join(extra)}; CLIP's own training has none of these"


def _shared_state(path: Path, metadata: dict[str, str]) -> dict[str, Tensor]:
    other = path.with_name(metadata["shared"])
    other = other if other.is_file() else data_path(metadata["shared"])
    if not other.is_file():
        raise GradeclipError(
            f"{path} shares weights with {metadata['shared']}, which is missing beside it."
        )
    if _checksum(other) != metadata["shared_sha256"]:
        was = f"{metadata['shared']} as it was when the file was written"
        raise GradeclipError(
            f"{path} shares weights with {was}, but {other} is a different one: distil it again."
        )
    return load_file(other)


def _checksum(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _table_of(state: dict[str, Tensor]) -> str:
    return next(key for key in state if key in (_TABLE, f"text.{_TABLE}"))
