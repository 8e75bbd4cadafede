"""open_clip's own VisionTransformer: CLS reads, all patches read (CLIPA), or a latent query reads (CoCa)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import Entry, Tower, pixel_dtype, places
from .blocks import Block, OpenClipBlock, UnsupportedModel, check_linear, linear, norm, packed, project_to, upcast


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
        blocks: list[Block] = [OpenClipBlock(block, self.name) for block in visual.transformer.resblocks]
        if visual.attn_pool is not None:
            blocks.append(QueryPool(visual.attn_pool, self.token))
            self.query_token = "a latent query reads" if self.token else "latent queries read and are averaged"
        else:
            self.query_token = "CLS reads" if self.token else "all patches read and are averaged"
        super().__init__(
            model, visual, blocks, layers, lambda pixels: model.encode_image(pixels.to(pixel_dtype(visual)))
        )
        self.transformer = visual.transformer

    def _enter(self, pixels: Tensor) -> Entry:
        visual = self.visual
        x = visual.conv1(pixels.to(visual.conv1.weight))  # (B, D, h, w)
        grid = tuple(x.shape[-2:])
        x = x.flatten(2).transpose(1, 2)  # (B, h*w, D)
        x = torch.cat([visual.class_embedding.to(x).expand(len(x), 1, -1), x], dim=1)  # (B, 1 + h*w, D)
        positions = resized(visual.positional_embedding, tuple(visual.grid_size), grid)
        x = visual.ln_pre(x + positions.to(x))  # patch dropout belongs to training and is left out
        x = upcast(through(visual.transformer, [block.module for block in self.below], x, None))
        latent = self.blocks[-1].latent
        query_index, patches = places(x, () if latent else [0] if self.token else range(1, x.shape[1]), 1)
        return Entry(pixels, x, query_index, patches, self.heads, grid)

    def _embed(self, x: Tensor) -> Tensor:
        if self.visual.final_ln_after_pool and not self.blocks[-1].latent:
            pooled = norm(self.visual.ln_post, x.mean(1))  # (B, R, D) -> (B, D)
        else:
            pooled = norm(self.visual.ln_post, x).mean(1)
        return project_to(self.visual.proj, pooled)


class QueryPool(Block):
    """open_clip's AttentionalPooler (CoCa): latent queries read all tokens, CLS too, and out_proj is all that follows.

    Of its queries the first one becomes the embedding, or, averaged, all but the first: only those are computed.
    """

    pools = latent = True

    def __init__(self, pool: nn.Module, first: bool):
        check_linear("the image tower has an AttentionalPooler", pool.attn.out_proj)
        super().__init__(pool, pool.attn.num_heads)
        self.queries = slice(0, 1) if first else slice(1, None)

    def enter(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """The norm of keys and values."""
        return norm(self.module.ln_k, x)

    def project(self, normed: Tensor, part: int, heads: int, positions: Tensor | None = None) -> Tensor:
        """The latent queries, or keys and values of the tokens."""
        attn = self.module.attn
        width = attn.embed_dim
        if part == 0:
            query = norm(self.module.ln_q, upcast(self.module.query[self.queries]))
            normed = query.expand(len(normed), -1, -1)
        if attn.in_proj_weight is not None:
            projected = packed(attn.in_proj_weight, attn.in_proj_bias, normed, part * width, width)
        else:  # keys and values have another width than queries
            weight = (attn.q_proj_weight, attn.k_proj_weight, attn.v_proj_weight)[part]
            bias = upcast(attn.in_proj_bias[part * width : (part + 1) * width])
            projected = nn.functional.linear(normed, upcast(weight), bias)
        return projected.unflatten(-1, (heads, -1))

    def finish(self, x: Tensor, o: Tensor) -> Tensor:
        """The output projection, which is all that follows."""
        return linear(self.module.attn.out_proj, o)


def through(transformer: nn.Module, blocks: list[nn.Module], x: Tensor, mask: Tensor | None) -> Tensor:
    """The model's own blocks, in the order of axes that they were built for.

    Args:
        transformer: knows the order of axes.
        blocks: some of its own.
        x: (B, N, D).
        mask: of attention, as the blocks take it.
    """
    x = x if transformer.batch_first else x.transpose(0, 1)  # (B, N, D) or (N, B, D)
    for block in blocks:
        x = block(x, attn_mask=mask)
    return x if transformer.batch_first else x.transpose(0, 1)


def resized(positions: Tensor, own: tuple[int, int], grid: tuple[int, int], antialias: bool = True) -> Tensor:
    """Position embeddings (prefix + h*w, D), for another grid than the model's own, as open_clip resizes them.

    Args:
        positions: (prefix + h*w, D).
        own: (h, w), the model's own.
        grid: (h, w), the other one.
        antialias: as for `F.interpolate`.
    """
    if grid == own:
        return positions
    prefix = len(positions) - own[0] * own[1]
    square = upcast(positions[prefix:]).reshape(1, *own, -1).permute(0, 3, 1, 2)  # (1, D, h, w)
    square = F.interpolate(square, grid, mode="bicubic", antialias=antialias, align_corners=False)
    return torch.cat([upcast(positions[:prefix]), square.flatten(2)[0].T])  # (prefix + h*w, D)
