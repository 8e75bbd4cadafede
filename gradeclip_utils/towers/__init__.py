"""Towers: from a picture or a prompt to a trace, and on from there.

    architecture --trace--> Trace --method--> map --Explanation--> picture

A tower is one of CLIP's two encoders, opened just before its embedding. In each explained layer the *reading tokens*
(CLS; EOT; a latent query in an attention pool; every patch where the tower averages) ask a query of the others and
collect

    o = sum_i alpha_i v_i,        alpha = softmax_i(q . k_i / sqrt(C)),        head by head,

and what the tower does with ``o`` afterwards is the *readout*. A tower therefore answers four questions, and knows
nothing of relevance: ``trace`` (what were q, k, v, alpha and o?), ``readout`` (what would the embedding be if o were
nudged?), ``resume`` (what would it be if other tokens entered a layer?) and ``forward`` (what does the unmodified
model say?). A new model family is one more tower: it says how inputs become tokens, what its layers are, and what
becomes of the reading tokens in the end.

| file | family |
| --- | --- |
| ``vit`` | open_clip's VisionTransformer: CLS, average pooling (CLIPA), attention pool (CoCa) |
| ``resnet`` | open_clip's ModifiedResNet: attention pool |
| ``timm_vit`` | timm's transformers: SigLIP, PE-Core, EVA, ViTamin, MobileCLIP-B; plain classifiers |
| ``blip`` | BLIP's image side (transformers) |
| ``text`` | open_clip's text transformer: causal or not, read at EOT, at a fixed place or by an appended CLS |
| ``feature_map`` | what has no attention to explain: the last feature map alone |

Three promises. Nothing is patched: the layers below are the model's own blocks, the explained ones are computed here
from the model's parameters, without hooks, in float32 at least. What the readout cannot feel is not computed: causal
text stops at its last EOT, and the last block runs for the reading tokens alone. And the trace is the model: the first
trace of every tower is compared with the model's own forward pass.
"""

from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import nn

from .base import Entry, Layer, Tower, Trace
from .blip import BlipTower, is_blip
from .blocks import UnsupportedModel
from .feature_map import FeatureMapTower
from .resnet import ResNetTower
from .text import TextTransformerTower, text_of
from .timm_vit import TrunkTower
from .vit import VisionTower

__all__ = [
    "Entry",
    "Layer",
    "Tower",
    "Trace",
    "UnsupportedModel",
    "open_feature_map",
    "open_image_tower",
    "open_text_tower",
]


def open_image_tower(model: nn.Module, layers: int = 1) -> Tower:
    """Open the image side of a model: open_clip's, a bare timm transformer (a classifier), or BLIP's.

    Args:
        model: an open_clip ``CLIP``, ``CustomTextCLIP`` or ``CoCa``; a timm ``VisionTransformer`` or ``Eva``; a
            transformers ``BlipForImageTextRetrieval``. It is not changed.
        layers: how many of the last layers are explained.

    Raises:
        UnsupportedModel: it has no attention that could be explained, or one that is not computed here; says why.
        ValueError: there are not as many layers.
    """
    visual = getattr(model, "visual", None)
    if isinstance(visual, VisionTransformer):
        return VisionTower(model, visual, layers)
    if isinstance(visual, ModifiedResNet):
        return ResNetTower(model, visual, layers)
    if isinstance(visual, TimmModel):
        return TrunkTower(model, visual.trunk, layers)
    if is_blip(model):
        return BlipTower(model, layers)
    if visual is None and _from_timm(model):
        return TrunkTower(model, model, layers)
    what = model if visual is None else visual
    raise UnsupportedModel(f"the image tower is a {type(what).__name__}, which is not known")


def open_text_tower(model: nn.Module, layers: int | None = None) -> Tower:
    """Open the text side of an open_clip model. Two thirds of its layers are explained by default.

    Raises:
        UnsupportedModel: it is another encoder (Hugging Face, BLIP), or has a part that is not computed here.
        ValueError: there are not as many layers.
    """
    return TextTransformerTower(model, text_of(model), layers)


def open_feature_map(model: nn.Module) -> FeatureMapTower:
    """Open what a model without attention has, a last feature map: for methods that need no more than that.

    Raises:
        UnsupportedModel: the image side is not from timm; `open_image_tower` opens open_clip's own.
    """
    visual = getattr(model, "visual", None)
    if isinstance(visual, TimmModel):
        return FeatureMapTower(model, visual.trunk)
    if visual is None and _from_timm(model):
        return FeatureMapTower(model, model)
    what = type(model if visual is None else visual).__name__
    raise UnsupportedModel(f"the image tower is a {what}, whose last feature map is opened with its attention")


def _from_timm(model: nn.Module) -> bool:
    return type(model).__module__.startswith("timm.")
