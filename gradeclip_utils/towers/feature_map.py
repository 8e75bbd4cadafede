"""A tower without attention to explain: the last feature map of a timm model, and the rest of the model after it.

It serves the methods that need no attention: Grad-CAM (`resume`), RISE (`forward`), input gradients (`embed_pixels`).
"""

import torch
from torch import Tensor, nn

from ..errors import UnsupportedModel
from .base import Entry, Tower, Trace, eval_mode, places
from .blocks import in_precision, upcast
from .timm import out_features


class FeatureMapTower(Tower):
    """Any timm trunk, alone (a classifier) or inside open_clip's `TimmModel`. Its trace has no layers."""

    name = "image"
    query_token = "no token reads"
    blocks = below = explained = ()
    depth = layers = heads = 0
    shielded = verified = False

    def __init__(self, model: nn.Module, trunk: nn.Module):
        if not (hasattr(trunk, "forward_features") and hasattr(trunk, "forward_head")):
            raise UnsupportedModel(f"the image tower is a {type(trunk).__name__}, whose last feature map is not known")
        self.model, self.part, self.trunk = model, trunk, trunk
        self.kind = f"timm {type(trunk).__name__}"
        self.unit = trunk is not model
        self.prefix = getattr(trunk, "num_prefix_tokens", 0)
        size = model.visual.image_size if self.unit else trunk.default_cfg["input_size"][-2:]
        self.image_size = tuple(getattr(getattr(trunk, "patch_embed", None), "img_size", None) or size)
        self._encode = model.encode_image if self.unit else model
        features = trunk.num_classes or trunk.num_features
        self.width = out_features(model.visual.head, features) if self.unit else features
        grid = _grid_of(trunk, self.image_size)
        self.patch_size = (self.image_size[0] // grid[0], self.image_size[1] // grid[1])

    def resume(self, trace: Trace, layer: int, tokens: Tensor) -> Tensor:
        """As `Tower.resume` of layer 0, the only one: `tokens` replace the last feature map."""
        assert layer == 0
        return self._go_on(tokens, trace.grid)

    def _entered(self, pixels: Tensor) -> Entry:
        with eval_mode(self.model):
            features = self.trunk.forward_features(in_precision(self.trunk, pixels))
        if features.ndim == 3:
            grid, x = _grid_of(self.trunk, tuple(pixels.shape[-2:])), features
        else:
            features = features if _channels_last(self.trunk) else features.permute(0, 2, 3, 1)  # (B, h, w, D)
            grid, x = tuple(features.shape[1:3]), features.flatten(1, 2)
        return Entry(pixels, upcast(x), *places(x, (), self.prefix), 0, grid)

    def _trace_from(self, entry: Entry, graph: bool = False) -> Trace:
        return Trace(**vars(entry), layers=(), embedding=self._go_on(entry.tokens, entry.grid))

    def _go_on(self, tokens: Tensor, grid: tuple[int, int] | None) -> Tensor:
        assert grid is not None
        x = in_precision(self.trunk, tokens)
        if not _sequence(self.trunk):
            x = x.unflatten(1, grid)  # (B, h, w, D)
            x = x if _channels_last(self.trunk) else x.permute(0, 3, 1, 2)
        with eval_mode(self.model):
            pooled = self.trunk.forward_head(x)
            features = self.model.visual.head(pooled) if self.unit else pooled
        features = features.to(torch.promote_types(features.dtype, torch.float32))
        return nn.functional.normalize(features, dim=-1) if self.unit else features


def _sequence(trunk: nn.Module) -> bool:
    return hasattr(trunk, "blocks") and hasattr(trunk, "num_prefix_tokens")


def _channels_last(trunk: nn.Module) -> bool:
    return str(getattr(trunk, "output_fmt", "NCHW")) in ("NHWC", "Format.NHWC")


def _grid_of(trunk: nn.Module, size: tuple[int, int]) -> tuple[int, int]:
    """The grid of the last feature map for an image of this size, from the reduction that timm records."""
    if _sequence(trunk):
        return tuple(trunk.patch_embed.dynamic_feat_size(size))
    reduction = trunk.feature_info[-1]["reduction"]
    return tuple(max(1, -(-side // reduction)) for side in size)
