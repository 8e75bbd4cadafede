"""Towers: from an image or a prompt to a trace, and on from there.

    model --tower--> Trace --method--> map --Explanation--> figure

A tower is one of CLIP's two encoders, opened just before its embedding. In each explained layer the
*query tokens* (CLS; EOT; a latent query in an attention pool; every patch if the tower averages)
send queries to all tokens and collect

    o = sum_i alpha_i v_i,        alpha = softmax_i(q . k_i / sqrt(C)),        head by head,

and the rest of the tower after `o` is the *readout*. A tower knows nothing of relevance. It answers
four questions: `trace` (what were q, k, v, alpha and o?), `embed_from_attention` (what would the embedding be
with another o?), `forward_from` (what would it be if other tokens entered a layer?) and `forward` (what
does the unmodified model give?).

The model is not patched. The layers below the explained ones are the model's own; the explained
layers are computed here from the model's own parts, without hooks, in float32 at least. The first
trace of each tower is compared with the model's own forward pass. `docs/architectures.md` lists the
known families.
"""

from collections.abc import Callable
from typing import Any, Literal

from torch import nn

from ..checks import chosen, instance, text
from ..errors import GradeclipError, UnsupportedModel
from . import open_clip, timm, transformers
from .base import Entry, Layer, Tower, Trace
from .timm import FeatureMapTower
from .transformers import unwrapped

__all__ = [
    "REGISTERED",
    "Entry",
    "Layer",
    "Tower",
    "Trace",
    "UnsupportedModel",
    "open_feature_map",
    "open_image_tower",
    "open_text_tower",
    "register_tower",
]

_QUANTISING = (
    "torchao",
    "bitsandbytes",
    "optimum",
    "quanto",
)  # libraries with tensor classes of their own
_Opens = Callable[[nn.Module, int | None], Tower]
_Family = tuple[str, Callable[[nn.Module], Any], _Opens]  # side, matches, opens
REGISTERED: dict[str, _Family] = {**timm.FAMILIES, **open_clip.FAMILIES, **transformers.FAMILIES}


def register_tower(
    name: str, side: Literal["image", "text"], matches: Callable[[nn.Module], Any], opens: _Opens
) -> None:
    """Add a family of models that `Explainer` can open.

        register_tower("mine", "image", lambda model: isinstance(model, MyModel), MyTower)

    The latest registered family is tried first, the package's own last. `del REGISTERED[name]`
    removes one.

    Args:
        name: the family's name.
        side: "image" or "text", the encoder that is opened.
        matches: model -> whether it belongs to the family.
        opens: (model, number of explained layers, or None for the family's default) -> a `Tower`;
            most often a subclass of `Tower`.

    Raises:
        GradeclipError: the name is taken, `side` is neither of the two, or `matches` or `opens`
            cannot be called.
    """
    if text("name", name) in REGISTERED:
        raise GradeclipError(f"there is a family of towers {name!r}: choose another name")
    chosen("side", side, ("image", "text"))
    for what, value in (("matches", matches), ("opens", opens)):
        instance(what, value, Callable, "a function of a model")
    REGISTERED[name] = side, matches, opens


def open_image_tower(model: nn.Module, layers: int | None = 1) -> Tower:
    """Open the image encoder of a model of open_clip, timm (classifiers), transformers, or a registered family."""
    return _opened("image", model, layers)


def open_text_tower(model: nn.Module, layers: int | None = None) -> Tower:
    """Open the text encoder of a model of open_clip or transformers, or of a registered family."""
    return _opened("text", model, layers)


def open_feature_map(model: nn.Module) -> Tower:
    """Open the last feature map of a timm model, for methods that need no attention."""
    return FeatureMapTower(_inside(model))


def _opened(side: str, model: nn.Module, layers: int | None) -> Tower:
    model = _inside(model)
    opens = next(
        (
            opens
            for one, fits, opens in reversed(REGISTERED.values())
            if one == side and fits(model)
        ),
        None,
    )
    if opens is None:
        what = type(getattr(model, "visual", model)).__name__
        raise UnsupportedModel(f"the {side} tower is a {what}, which is not known")
    try:
        return opens(model, layers)
    except AttributeError as error:
        raise UnsupportedModel(
            f"the {side} tower of this {type(model).__name__} lacks a part: {error}"
        ) from error


def _inside(model: nn.Module) -> nn.Module:
    """The model without its wrappers, if it can have gradients."""
    model = unwrapped(model)
    for name, weight in model.named_parameters():
        if not weight.is_floating_point() or type(weight).__module__.split(".")[0] in _QUANTISING:
            kind = f"{type(weight).__name__}, {weight.dtype}"
            raise UnsupportedModel(
                f"the weights {name} are quantised ({kind}): load the model unquantised"
            )
        if weight.is_inference():
            made = f"the {type(model).__name__} was made in torch.inference_mode"
            raise UnsupportedModel(f"{made}, where nothing has gradients: make it outside")
    return model
