"""Towers: from an image or a prompt to a trace, and on from there.

    model --tower--> Trace --method--> map --Explanation--> figure

A tower is one of CLIP's two encoders, opened just before its embedding. In each explained layer the *query tokens*
(CLS; EOT; a latent query in an attention pool; every patch where the tower averages) ask a query of the others and
collect

    o = sum_i alpha_i v_i,        alpha = softmax_i(q . k_i / sqrt(C)),        head by head,

and what the tower does with `o` afterwards is the *readout*. A tower therefore answers four questions, and knows
nothing of relevance: `trace` (what were q, k, v, alpha and o?), `readout` (what would the embedding be if o were
changed?), `resume` (what would it be if other tokens entered a layer?) and `forward` (what does the unmodified
model say?). A new model family is one more tower: it says how inputs become tokens, what its layers are, and what
becomes of the query tokens in the end.

| file | family |
| --- | --- |
| `vit` | open_clip's VisionTransformer: CLS, average pooling (CLIPA), attention pool (CoCa) |
| `resnet` | open_clip's ModifiedResNet: attention pool |
| `timm_vit` | timm's transformers: SigLIP, PE-Core, EVA, ViTamin, MobileCLIP-B; plain classifiers |
| `huggingface` | transformers' CLIPs (SigLIP 2 with NaFlex, MetaCLIP 2, ..., BLIP's images); BERTs in open_clip |
| `huggingface_blocks` | their layers, by their parts |
| `text` | open_clip's text transformer: causal or not, read at EOT, at a fixed place or by an appended CLS |
| `feature_map` | what has no attention to explain: the last feature map alone |

Three promises. Nothing is patched: the layers below are the model's own blocks, the explained ones are computed here
from the model's parameters, without hooks, in float32 at least. What the readout cannot feel is not computed: causal
text stops at its last EOT, and the last block runs for the query tokens alone. And the trace is the model: the first
trace of every tower is compared with the model's own forward pass.
"""

from collections.abc import Callable
from typing import Literal

from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import nn

from ..checks import chosen, unused
from .base import Entry, Layer, Tower, Trace
from .blocks import UnsupportedModel
from .feature_map import FeatureMapTower
from .huggingface import IMAGES, TransformersImageTower, TransformersTextTower, kind_of, unwrapped
from .resnet import ResNetTower
from .text import TextTransformerTower, text_of
from .timm_vit import TrunkTower
from .vit import VisionTower

__all__ = [
    "REGISTERED", "Entry", "Layer", "Tower", "Trace", "UnsupportedModel", "open_feature_map", "open_image_tower",
    "open_text_tower", "register_tower",
]  # fmt: skip


_Opens = Callable[[nn.Module, int | None], Tower]
# what projects outside have registered: name -> side, whether a model is of the family, and what opens it
REGISTERED: dict[str, tuple[str, Callable[[nn.Module], bool], _Opens]] = {}


def register_tower(
    name: str, side: Literal["image", "text"], matches: Callable[[nn.Module], bool], opens: _Opens
) -> None:
    """Let `open_image_tower` or `open_text_tower`, and so `Explainer`, open one more family of models.

        register_tower("mine", "image", lambda model: isinstance(model, MyModel), MyTower)

    What was registered (`REGISTERED`) is asked first, the latest before the others, and then the families that are
    known here. `del REGISTERED[name]` forgets it again.

    Args:
        name: what the family is called.
        side: "image" or "text".
        matches: whether a model is of this family.
        opens: from the model, and how many of its last layers are explained (None: as many as the family likes), to a
            `towers.base.Tower`; most often a subclass of it.

    Raises:
        ValueError: there is a family of this name, or another side.
    """
    unused("a family of towers", name, REGISTERED)
    chosen("side", side, ("image", "text"))
    REGISTERED[name] = side, matches, opens


def _registered(side: str, model: nn.Module) -> _Opens | None:
    """What opens the family that was registered last of those to which the model belongs."""
    return next((opens for of, fits, opens in reversed(REGISTERED.values()) if of == side and fits(model)), None)


def open_image_tower(model: nn.Module, layers: int = 1) -> Tower:
    """Open the image encoder of a model: open_clip's, transformers', or a bare timm transformer (a classifier)."""
    model = _inside(model)
    if opens := _registered("image", model):
        return opens(model, layers)
    if kind_of(model, IMAGES):
        return TransformersImageTower(model, layers)
    visual = getattr(model, "visual", None)
    if isinstance(visual, VisionTransformer):
        return VisionTower(model, visual, layers)
    if isinstance(visual, ModifiedResNet):
        return ResNetTower(model, visual, layers)
    if (trunk := _trunk_of(model)) is not None:
        return TrunkTower(model, trunk, layers)
    what = model if visual is None else visual
    raise UnsupportedModel(f"the image tower is a {type(what).__name__}, which is not known")


def open_text_tower(model: nn.Module, layers: int | None = None) -> Tower:
    """Open the text encoder of a model of open_clip or transformers, or of a registered family."""
    model = _inside(model)
    if opens := _registered("text", model):
        return opens(model, layers)
    if kind_of(model) or type(getattr(model, "text", None)).__name__ == "HFTextEncoder":
        return TransformersTextTower(model, layers)
    return TextTransformerTower(model, text_of(model), layers)


def open_feature_map(model: nn.Module) -> FeatureMapTower:
    """Open what a model without attention has, a last feature map: for methods that need no more than that."""
    model = _inside(model)
    if (trunk := _trunk_of(model)) is not None:
        return FeatureMapTower(model, trunk)
    what = type(getattr(model, "visual", model)).__name__
    raise UnsupportedModel(f"the image tower is a {what}, whose last feature map is opened with its attention")


def _inside(model: nn.Module) -> nn.Module:
    """The model without its wrappers, if it has gradients."""
    model = unwrapped(model)
    if any(parameter.is_inference() for parameter in model.parameters()):
        made = f"the {type(model).__name__} was made in torch.inference_mode"
        raise UnsupportedModel(f"{made}, where nothing has gradients: make it outside")
    return model


def _trunk_of(model: nn.Module) -> nn.Module | None:
    """The image encoder that is timm's: a part of an open_clip model, or the model itself."""
    visual = getattr(model, "visual", None)
    if isinstance(visual, TimmModel):
        return visual.trunk
    return model if visual is None and type(model).__module__.startswith("timm.") else None
