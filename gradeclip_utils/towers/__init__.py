"""Towers: from an image or a prompt to a trace, and on from there.

    model --tower--> Trace --method--> map --Explanation--> figure

A tower is one of CLIP's two encoders, opened just before its embedding. In each explained layer the
*query tokens* (CLS; EOT; a latent query in an attention pool; every patch if the tower averages)
send queries to all tokens and collect

    o = sum_i alpha_i v_i,        alpha = softmax_i(q . k_i / sqrt(C)),        head by head,

and the rest of the tower after `o` leads to the embedding. A tower knows nothing of relevance. It
answers four questions: `trace` (what were q, k, v, alpha and o?), `embed_from_attention` (what
would the embedding be with another o?), `forward_from` (what would it be if other tokens entered a
layer?) and `forward` (what does the unmodified model give?).

The model is not patched. The layers below the explained ones are the model's own; the explained
layers are computed here from the model's own parts, without hooks, in float32 at least. The first
trace of each tower is compared with the model's own forward pass. `docs/architectures.md` lists the
known families.
"""

from collections.abc import Callable
from typing import Any, Literal

from torch import nn

from ..errors import GradeclipError, UnsupportedModel
from . import open_clip, timm, transformers
from .base import Entry, Graph, Layer, Tower, Trace
from .blocks import with_parts

__all__ = [
    "REGISTERED",
    "Entry",
    "Graph",
    "Layer",
    "Tower",
    "Trace",
    "UnsupportedModel",
    "open_image_tower",
    "open_text_tower",
    "register_tower",
]

QUANTISING_LIBRARIES = ("torchao", "bitsandbytes", "optimum", "quanto")
_Opens = Callable[[nn.Module, int | None], Tower]
_Family = tuple[str, Callable[[nn.Module], Any], _Opens]  # side, matches, opens
REGISTERED: dict[str, _Family] = {
    **timm.FAMILIES,
    **open_clip.FAMILIES,
    **transformers.FAMILIES,
}


def register_tower(
    name: str,
    side: Literal["image", "text"],
    matches: Callable[[nn.Module], Any],
    opens: _Opens,
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
        GradeclipError: the name is taken, or `side` is neither of the two.
    """
    if name in REGISTERED:
        raise GradeclipError(f"there is a family of towers {name!r}: choose another name")
    if side not in ("image", "text"):
        raise GradeclipError(f"side must be 'image' or 'text', got {side!r}")
    REGISTERED[name] = side, matches, opens


def open_image_tower(model: nn.Module, layers: int | None = 1) -> Tower:
    """Open an image encoder of open_clip, timm (classifiers), transformers, or your own family."""
    return _open_tower("image", model, layers)


def open_text_tower(model: nn.Module, layers: int | None = None) -> Tower:
    """Open the text encoder of a model of open_clip, transformers, or of your own family."""
    return _open_tower("text", model, layers)


def _open_tower(side: str, model: nn.Module, layers: int | None) -> Tower:
    model = _without_wrappers(model)
    _check_weights(model)

    for family_side, matches, opens in reversed(REGISTERED.values()):
        if family_side != side or not matches(model):
            continue
        try:
            return opens(model, layers)
        except AttributeError as error:
            raise UnsupportedModel(
                f"the {side} tower of this {type(model).__name__} lacks a part: {error}"
            ) from error

    kind = type(getattr(model, "visual", model)).__name__
    raise UnsupportedModel(f"the {side} tower is a {kind}, which is not known")


def _without_wrappers(model: nn.Module) -> nn.Module:
    """The model without wrappers of PEFT, torch.compile and data parallelism, also of its parts."""
    model = transformers.unwrapped(model)
    compiled = {}
    for name, child in model.named_children():
        if hasattr(child, "_orig_mod"):
            compiled[name] = child._orig_mod
    return with_parts(model, **compiled) if compiled else model


def _check_weights(model: nn.Module) -> None:
    """Refuse quantised weights, which have no gradients."""
    for name, module in model.named_modules():
        if ".quantized." in type(module).__module__:
            raise _quantised(name, type(module).__name__)
    for name, weight in model.named_parameters():
        library = type(weight).__module__.split(".")[0]
        if not weight.is_floating_point() or library in QUANTISING_LIBRARIES:
            raise _quantised(name, f"{type(weight).__name__}, {weight.dtype}")


def _quantised(name: str, kind: str) -> UnsupportedModel:
    return UnsupportedModel(
        f"the weights {name} are quantised ({kind}): load the model unquantised"
    )
