"""open_clip's own VisionTransformer: CLS reads, all patches read (CLIPA), or a latent query reads (CoCa)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import Entry, Tower, places
from .blocks import Block, UnsupportedModel, check_linear, linear, norm, open_clip_block, packed, project_to, upcast


class VisionTower(Tower):
    """A `VisionTransformer` of open_clip. Without an attention pool, CLS reads or all patches do."""

    name, kind = "image", "VisionTransformer"

    def __init__(self, model: nn.Module, visual: nn.Module, layers: int):
        if getattr(visual, "input_patchnorm", False):
            raise UnsupportedModel("the image tower normalises its patches (input_patchnorm), which cannot be opened")
        if getattr(visual, "attn_pool_contrastive", None) is not None:
            kind = visual.attn_pool_type
            raise UnsupportedModel(f"the image tower has two attention pools ({kind}); only one is known")
        if visual.pool_type not in ("tok", "avg"):
            raise UnsupportedModel(f"the image tower pools by {visual.pool_type!r}; only 'tok' and 'avg' are known")
        self.visual, self.token = visual, visual.pool_type == "tok"
        self.width, self.image_size = visual.output_dim, tuple(visual.image_size)
        self.patch_size = tuple(visual.patch_size)
        blocks = [open_clip_block(block, self.name) for block in visual.transformer.resblocks]
        if visual.attn_pool is not None:
            blocks.append(_query_pool(visual.attn_pool, self.token))
            self.query_token = "a latent query reads" if self.token else "latent queries read and are averaged"
        else:
            self.query_token = "CLS reads" if self.token else "all patches read and are averaged"
        super().__init__(model, visual, blocks, layers, model.encode_image)

    def _enter(self, pixels: Tensor) -> Entry:
        visual = self.visual
        x = visual.conv1(pixels.to(visual.conv1.weight))  # (B, D, h, w)
        grid = tuple(x.shape[-2:])
        x = x.flatten(2).transpose(1, 2)  # (B, h*w, D)
        x = torch.cat([visual.class_embedding.to(x).expand(len(x), 1, -1), x], dim=1)  # (B, 1 + h*w, D)
        positions = resized(visual.positional_embedding, tuple(visual.grid_size), grid)
        x = visual.ln_pre(x + positions.to(x))  # patch dropout belongs to training and is left out
        x = upcast(through(visual.transformer, [block.module for block in self.below], x, None))
        reads = () if self.blocks[-1].latent else [0] if self.token else range(1, x.shape[1])
        return Entry(pixels, x, *places(x, reads, 1), self.heads, grid)

    def _embed(self, x: Tensor) -> Tensor:
        if self.visual.final_ln_after_pool and not self.blocks[-1].latent:
            pooled = norm(self.visual.ln_post, x.mean(1))  # (B, R, D) -> (B, D)
        else:
            pooled = norm(self.visual.ln_post, x).mean(1)
        return project_to(self.visual.proj, pooled)


def _query_pool(pool: nn.Module, first: bool) -> Block:
    """open_clip's AttentionalPooler (CoCa): latent queries read all tokens, CLS too, and out_proj is all that follows."""
    attn, some = pool.attn, slice(0, 1) if first else slice(1, None)
    check_linear("the image tower has an AttentionalPooler", attn.out_proj)

    def _qkv(x: Tensor, part: int, positions: Tensor | None) -> Tensor:
        """Of one matrix, or of three where keys and values have another width than queries."""
        if attn.in_proj_weight is not None:
            return packed(attn.in_proj_weight, attn.in_proj_bias, x, part)
        weight = (attn.q_proj_weight, attn.k_proj_weight, attn.v_proj_weight)[part]
        return F.linear(x, upcast(weight), upcast(attn.in_proj_bias.chunk(3)[part]))

    return Block(
        pool, attn.num_heads, _qkv, lambda o: linear(attn.out_proj, o), before=pool.ln_k,
        pools=True, latent=lambda: norm(pool.ln_q, upcast(pool.query[some])),
    )  # fmt: skip


def through(transformer: nn.Module, blocks: list[nn.Module], x: Tensor, mask: Tensor | None) -> Tensor:
    """The model's own blocks, in the order of axes that they were built for."""
    x = x if transformer.batch_first else x.transpose(0, 1)  # (B, N, D) or (N, B, D)
    for block in blocks:
        x = block(x, attn_mask=mask)
    return x if transformer.batch_first else x.transpose(0, 1)


def resized(positions: Tensor, own: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Position embeddings (prefix + h*w, D), for another grid than the model's own, as open_clip resizes them."""
    if grid == own:
        return positions
    prefix = len(positions) - own[0] * own[1]
    square = upcast(positions[prefix:]).reshape(1, *own, -1).permute(0, 3, 1, 2)  # (1, D, h, w)
    square = F.interpolate(square, grid, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([upcast(positions[:prefix]), square.flatten(2)[0].T])  # (prefix + h*w, D)
