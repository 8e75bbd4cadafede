"""open_clip's ModifiedResNet: the mean of the last feature map reads that map, in one attention pool.

All layers below the pool are convolutions, so the pool is the one layer with an attention to explain.
"""

import torch
from torch import Tensor, nn

from ..errors import UnsupportedModel
from .base import Entry, Tower, places
from .blocks import Block, check_linear, in_precision, linear, separate, upcast
from .open_clip import resized


class ResNetTower(Tower):
    """A `ModifiedResNet` of open_clip: RN50, RN101, RN50x4, RN50x16, RN50x64."""

    name, kind = "image", "ModifiedResNet"
    query_token = "the mean of the patches reads"
    patch_size = (32, 32)  # five halvings

    def __init__(self, model: nn.Module, visual: nn.Module, layers: int):
        if visual.attnpool is None:
            raise UnsupportedModel("the image tower is a ModifiedResNet without its attention pool")
        size = visual.image_size
        self.visual, self.width = visual, visual.output_dim
        self.image_size = (size, size) if isinstance(size, int) else tuple(size)
        super().__init__(model, visual, [_MeanPool(visual.attnpool)], layers, model.encode_image)

    def _enter(self, pixels: Tensor) -> Entry:
        visual = self.visual
        x = visual.stem(in_precision(visual, pixels))
        for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
            x = layer(x)
        grid = tuple(x.shape[-2:])
        x = upcast(x.flatten(2).transpose(1, 2))  # (B, h*w, D)
        x = torch.cat([x.mean(1, keepdim=True), x], dim=1)  # (B, 1 + h*w, D)
        own = (self.image_size[0] // 32, self.image_size[1] // 32)
        positions = upcast(resized(visual.attnpool.positional_embedding, own, grid))
        return Entry(pixels, x, *places(x, [0], 1), self.heads, grid, positions=positions)

    def _embed(self, x: Tensor) -> Tensor:
        return x[:, 0]  # the pool ends in c_proj


class _MeanPool(Block):
    """open_clip's AttentionPool2d. Token 0 is computed as the mean of the others, so it follows any change of them."""

    def __init__(self, pool: nn.Module):
        qkv = pool.q_proj, pool.k_proj, pool.v_proj
        check_linear("the image tower has an AttentionPool2d", *qkv, pool.c_proj)
        super().__init__(pool, pool.num_heads, separate(*qkv), lambda o: linear(pool.c_proj, o), pools=True)

    def enter(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """The tokens with their mean in place 0, and with positions added."""
        patches = x[:, 1:]
        return torch.cat([patches.mean(1, keepdim=True), patches], dim=1) + positions
