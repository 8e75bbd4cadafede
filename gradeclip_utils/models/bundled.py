"""The bundled models: small CLIPs that were trained on drawn scenes.

Each is two files; what wrote them is `training/compact.py`. NAME.safetensors holds the weights in
half precision. Of the token embeddings it holds the rows of the model's own tokens, whose ids are
`token_ids`; any other token gets their mean. NAME.json is open_clip's config, and beside its keys

    preprocess               open_clip's settings of images
    words                    the words that the model knows
    training                 how it was trained, in one sentence
    trained_on_drawn_scenes  whether it has seen nothing else
    image_layers             how many of the last layers are explained by default
    shared                   a student's only: the teacher's file, which has the tensors that are
                             equal in both
"""

import json
from pathlib import Path
from typing import Any

import open_clip
import timm
from open_clip.transform import PreprocessCfg, image_transform_v2
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ..errors import GradeclipError
from ..files import data_path
from ..runtime import usable_device
from .clip import Clip

BUNDLED = "emoji"
# An installed package holds the first alone; data/ of a checkout has all of them.
BUNDLED_MODELS = {
    name: f"{name}.safetensors"
    for name in (
        BUNDLED,
        "emoji-aided",
        "emoji-bag",
        "emoji-average",
        "emoji-siglip",
        "emoji-resnet",
        "emoji-fine",
    )
}
OF_CLIP = ("image_layers", "text_layers", "training", "trained_on_drawn_scenes")


def emoji_vit_map(pretrained: bool = False, **options) -> nn.Module:
    """A VisionTransformer for emoji scenes, without CLS, read by a latent query as in SigLIP."""
    options = {
        "img_size": 96,
        "patch_size": 8,
        "embed_dim": 192,
        "depth": 6,
        "num_heads": 3,
        "class_token": False,
        "global_pool": "map",
        "pre_norm": True,
        **options,
    }
    input_size = (3, options["img_size"], options["img_size"])
    options["pretrained_cfg"] = {"input_size": input_size, "num_classes": 0}
    name = emoji_vit_map.__name__
    return timm.models.build_model_with_cfg(VisionTransformer, name, pretrained, **options)


# open_clip's configs name timm's models, and this is one more of them
if not timm.is_model(emoji_vit_map.__name__):
    timm.models.register_model(emoji_vit_map)


def load_bundled(name: str, pretrained: str | Path | None, device: str, precision: str) -> Clip:
    """A bundled model, from data/ or from the two files of which `pretrained` is the first."""
    path = Path(pretrained).expanduser() if pretrained else data_path(BUNDLED_MODELS[name])
    if not path.is_file():
        raise GradeclipError(
            f"there is no {path}. An installed package holds {BUNDLED!r} alone, and the project's "
            f"checkout has {name} in data/: pass load_clip({name!r}, 'FOLDER/{name}.safetensors'), "
            "with its .json beside it"
        )

    config = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    about = {key: config.pop(key) for key in OF_CLIP if key in config}
    words = config.pop("words").split()
    preprocess = PreprocessCfg(**config.pop("preprocess"))
    shared = config.pop("shared", None)

    model = build_model(config)
    state = load_file(path)
    if shared is not None:
        state = {**load_file(data_path(shared)), **state}
    model.load_state_dict(_whole_state(model, state))
    model.to(usable_device(device), open_clip.get_input_dtype(precision))

    text = getattr(model, "text", model)
    return Clip(
        model.eval(),
        image_transform_v2(preprocess, is_train=False),
        open_clip.SimpleTokenizer(context_length=text.context_length),
        name,
        str(path) if pretrained else "bundled",
        vocabulary=frozenset(word for word in words if any(map(str.isalnum, word))),
        **about,
    )


def build_model(config: dict[str, Any]) -> nn.Module:
    """The model, with random weights, that a config of open_clip describes."""
    if config.get("custom_text"):
        parts = {key: value for key, value in config.items() if key != "custom_text"}
        return open_clip.CustomTextCLIP(**parts)
    return open_clip.CLIP(**config)


def token_table(state: dict[str, Tensor]) -> str:
    """The name of the token embeddings, which are part of `text` if the model has such a part."""
    return next(name for name in state if name.endswith("token_embedding.weight"))


def _whole_state(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights by their names in the model, with an embedding for every token."""
    own_state = model.state_dict()
    table = token_table(own_state)
    rows = state[table].float()  # of the tokens that the model knows
    every_row = rows.mean(dim=0).repeat(len(own_state[table]), 1)
    every_row.index_copy_(0, state["token_ids"].long(), rows)
    # a teacher has parts that its student has no place for
    return {name: state[name] for name in own_state} | {table: every_row}
