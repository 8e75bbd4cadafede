"""BLIP's image encoder, as transformers has it (Li, Li, Xiong and Hoi, arXiv 2201.12086): CLS reads, contrastive head.

Images alone: the contrastive similarity has two sides, and the paper adapts its method to the image's. Prompts are
embedded by the model itself (`text_proj` of its text encoder's CLS, as its own forward pass does with
`use_itm_head=False`) and passed as embeddings. The matching head, which reads both together, is another number.

transformers is an optional library: it is not imported here. Whoever has a BLIP model has it.
"""

import torch
from torch import Tensor, nn

from .base import Entry, Tower, pixel_dtype, places, resized
from .blocks import Block, UnsupportedModel, check_linear, linear, norm, packed, upcast


class BlipTower(Tower):
    """The vision encoder of a `BlipForImageTextRetrieval`, read by its contrastive projection `vision_proj`."""

    name, kind = "image", "BLIP VisionModel"
    query_token = "CLS reads"

    def __init__(self, model: nn.Module, layers: int):
        vision = self.vision = model.vision_model
        size, patch = vision.config.image_size, vision.config.patch_size
        self.image_size, self.patch_size, self.width = (size, size), (patch, patch), model.vision_proj.out_features
        blocks = [BlipBlock(block) for block in vision.encoder.layers]

        def encode(pixels: Tensor) -> Tensor:
            hidden = vision(pixel_values=pixels.to(pixel_dtype(vision))).last_hidden_state
            return model.vision_proj(hidden[:, 0])

        super().__init__(model, vision, blocks, layers, encode)

    def _enter(self, pixels: Tensor) -> Entry:
        embeddings = self.vision.embeddings
        x = embeddings.patch_embedding(pixels.to(pixel_dtype(self.vision)))  # (B, D, h, w)
        grid = tuple(x.shape[-2:])
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([embeddings.class_embedding.to(x).expand(len(x), 1, -1), x], dim=1)
        own = (self.image_size[0] // self.patch_size[0], self.image_size[1] // self.patch_size[1])
        x = x + resized(embeddings.position_embedding[0], own, grid, antialias=False).to(x)  # as transformers does
        for block in self.below:
            x = block.module(x)
        query_index, patches = places(x, [0], 1)
        return Entry(pixels, upcast(x), query_index, patches, self.heads, grid)

    def _embed(self, x: Tensor) -> Tensor:
        return linear(self.model.vision_proj, norm(self.vision.post_layernorm, x)[:, 0])


class BlipBlock(Block):
    """A BlipEncoderLayer: norm, attention, norm, MLP."""

    def __init__(self, block: nn.Module):
        inside = f"the image tower has a {type(block).__name__}"
        if not hasattr(block, "self_attn") or not hasattr(block.self_attn, "qkv"):
            raise UnsupportedModel(f"{inside} without self_attn.qkv, which cannot be opened")
        check_linear(inside, block.self_attn.qkv, block.self_attn.projection, block.mlp.fc1, block.mlp.fc2)
        super().__init__(block, block.self_attn.num_heads)

    def enter(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """The norm before attention."""
        return norm(self.module.layer_norm1, x)

    def project(self, normed: Tensor, part: int, heads: int, positions: Tensor | None = None) -> Tensor:
        """Rows of the packed projection."""
        qkv, width = self.module.self_attn.qkv, normed.shape[-1]
        return packed(qkv.weight, qkv.bias, normed, part * width, width).unflatten(-1, (heads, -1))

    def finish(self, x: Tensor, o: Tensor) -> Tensor:
        """Output projection and MLP, each with its residual."""
        block = self.module
        x = x + linear(block.self_attn.projection, o)
        hidden = block.mlp.activation_fn(linear(block.mlp.fc1, norm(block.layer_norm2, x)))
        return x + linear(block.mlp.fc2, hidden)


def is_blip(model: nn.Module) -> bool:
    """Whether this is a BLIP with a contrastive head."""
    return type(model).__name__ == "BlipForImageTextRetrieval" and hasattr(model, "vision_proj")
