"""timm's transformers, as open_clip's image encoders or as classifiers.

SigLIP, PE-Core, EVA, ViTamin and MobileCLIP-B are such encoders. CLS reads, all patches read and
are averaged, or a latent query reads in an attention pool (MAP). A bare timm model is a classifier:
its logits take the place of the embedding, and the direction of a class is one-hot.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from open_clip.timm_model import TimmModel
from timm.layers import AttentionPoolLatent, Format, apply_rot_embed_cat
from timm.models.eva import Eva, EvaBlock, EvaBlockPostNorm
from timm.models.vision_transformer import Block as VitBlock
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ..errors import UnsupportedModel
from .base import Entry, Tower
from .blocks import Block, apply, separate, upcast, width_of, with_parts

WHY_NOT = {
    "ConvNeXt": (
        "it is all convolutions and averages its last feature map, "
        "so there is no attention to explain"
    ),
    "FastVit": (
        "it averages what convolutions make of its last feature map, "
        "so no attention says what was read"
    ),
    "SwinTransformer": (
        "its attention stays within windows and its last feature map is averaged: no token reads it"
    ),
    "VisionTransformerRelPos": (
        "its attention adds a bias for relative positions, which is not computed here"
    ),
}


class _TrunkTower(Tower):
    """A timm `VisionTransformer` or `Eva`, alone (a classifier) or inside an open_clip model."""

    name = "image"

    def __init__(self, model: nn.Module, layers: int | None):
        trunk = _trunk_of(model)
        _check_trunk(trunk)
        self.trunk = trunk
        self.kind = f"timm {type(trunk).__name__}"
        if trunk is model:  # a classifier
            self.unit = False
            self.head = trunk.head
            encode = model
        else:
            self.head = nn.Sequential(trunk.head, model.visual.head)
            encode = model.encode_image
        self.width = width_of([self.head], trunk.num_features)

        embed = trunk.patch_embed
        self.image_size = tuple(embed.img_size)
        self.grid_size = tuple(embed.grid_size)
        self.patch_size = tuple(embed.feat_ratio(as_scalar=False))

        blocks = [_trunk_block(block) for block in trunk.blocks]
        if trunk.attn_pool is not None:
            blocks.append(_latent_pool(trunk.attn_pool, trunk.norm))
            self.query_token = "a latent query reads"
        elif trunk.global_pool == "token":
            self.query_token = "CLS reads"
        else:
            with_prefix = getattr(trunk, "pool_include_prefix", False)
            self.query_tokens = slice(0 if with_prefix else trunk.num_prefix_tokens, None)
            self.query_token = "all patches read and are averaged"
        super().__init__(model, trunk, blocks, layers, encode)

    def _enter(self, pixels: Tensor) -> Entry:
        trunk = self.trunk
        embed = with_parts(trunk.patch_embed)
        embed.img_size = None  # takes images of any size
        embed.flatten = False
        embed.output_fmt = Format.NHWC  # as the trunk wants it with `dynamic_img_size`
        grid = tuple(embed.dynamic_feat_size(pixels.shape[-2:]))

        rope = getattr(trunk, "rope", None)
        if rope is not None and grid != self.grid_size and hasattr(rope, "update_feat_shape"):
            rope = copy.deepcopy(rope)  # the model's own keeps its grid
            rope.update_feat_shape(list(grid))
        positions = None if rope is None else upcast(rope.get_embed(list(grid)))

        below = with_parts(
            trunk,
            patch_embed=embed,
            blocks=trunk.blocks[: self.first],
            norm=nn.Identity(),
            rope=rope,
        )
        below.dynamic_img_size = True
        x = below.forward_features(self.in_precision(pixels))  # (B, N, D)
        return self.image_entry(pixels, x, grid, positions)

    def _embed(self, x: Tensor, entry: Entry) -> Tensor:
        pool = self.trunk.attn_pool
        if pool is None:
            x = apply([self.trunk.norm], x)  # (B, R, D)
        averages = pool is None or pool.pool == "avg"
        pooled = x.mean(1) if averages else x[:, 0]
        return apply([self.trunk.fc_norm, self.head], pooled)


def _trunk_of(model: nn.Module) -> Any:
    """The timm model that encodes images, a part of an open_clip model or the model itself."""
    visual = getattr(model, "visual", None)
    if isinstance(visual, TimmModel):
        return visual.trunk
    is_timm = visual is None and type(model).__module__.startswith("timm.")
    return model if is_timm else None


def _check_trunk(trunk: nn.Module) -> None:
    """Refuse trunks whose last attention is not known, with the reason."""
    kind = type(trunk).__name__
    trunk_is = f"the image tower is a timm {kind}"
    if type(trunk) not in (VisionTransformer, Eva):
        reason = WHY_NOT.get(kind, "only VisionTransformer and Eva are known")
        raise UnsupportedModel(f"{trunk_is}: {reason}")
    if trunk.global_pool not in ("token", "avg", "map"):
        raise UnsupportedModel(
            f"{trunk_is} that pools by {trunk.global_pool!r}; "
            "only 'token', 'avg' and 'map' are known"
        )
    pool = trunk.attn_pool
    if pool is not None and type(pool) is not AttentionPoolLatent:
        raise UnsupportedModel(
            f"{trunk_is} that ends in a {type(pool).__name__}, which is not known"
        )


def _trunk_block(block: nn.Module) -> Block:
    """A timm block: norms before attention and MLP or behind them (EVA02-E)."""
    if type(block) not in (VitBlock, EvaBlock, EvaBlockPostNorm):
        raise UnsupportedModel(
            f"the image tower has a timm {type(block).__name__}, which is not known"
        )
    attn = block.attn
    norms_behind = type(block) is EvaBlockPostNorm

    def qkv(x: Tensor, positions: Tensor | None) -> Sequence[Tensor]:
        """By three linear layers or one; q and k are normed by head, and rotated by their place."""
        if not norms_behind:
            x = apply([block.norm1], x)
        q, k, v = _linear_qkv(attn, x)  # (B, N, D)
        q, k = _norm_heads(attn, q, k)  # (B, N, H, C)
        if positions is not None:
            half = getattr(attn, "rotate_half", False)
            q, k = _rotated(q, positions, half), _rotated(k, positions, half)
        return q.flatten(2), k.flatten(2), v

    if norms_behind:
        return Block(
            block,
            attn.num_heads,
            qkv,
            out=(attn.norm, attn.proj, block.norm1),
            mlp=(block.mlp, block.norm2),
        )
    return Block(
        block,
        attn.num_heads,
        qkv,
        out=(attn.norm, attn.proj, _layer_scale(block, 1)),
        mlp=(block.norm2, block.mlp, _layer_scale(block, 2)),
    )


def _linear_qkv(attn: nn.Module, x: Tensor) -> Sequence[Tensor]:
    """Queries, keys and values (B, N, D) of normed tokens."""
    if attn.qkv is None:
        return separate(x, attn.q_proj, attn.k_proj, attn.v_proj)
    parts = apply([attn.qkv], x).chunk(3, dim=-1)
    if getattr(attn, "q_bias", None) is None:
        return parts
    biases = (attn.q_bias, attn.k_bias, attn.v_bias)
    return [part + upcast(bias) for part, bias in zip(parts, biases, strict=True)]


def _latent_pool(pool: nn.Module, norm: nn.Module) -> Block:
    """An AttentionPoolLatent (MAP): latent queries read all tokens; then projection and MLP."""

    def qkv(x: Tensor, _: Tensor | None) -> Sequence[Tensor]:
        k, v = apply([norm, pool.kv], x).chunk(2, dim=-1)
        q = apply([pool.q], upcast(pool.latent))  # (1, R, D)
        q, k = _norm_heads(pool, q, k)
        return q.flatten(2), k.flatten(2), v

    mlp = () if pool.mlp is None else (pool.norm, pool.mlp)
    return Block(pool, pool.num_heads, qkv, out=(pool.proj,), mlp=mlp, pools=True, latent=True)


def _norm_heads(attn: nn.Module, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys (B, N, H, C), normed head by head."""
    q = q.unflatten(-1, (attn.num_heads, -1))
    k = k.unflatten(-1, (attn.num_heads, -1))
    return apply([attn.q_norm], q), apply([attn.k_norm], k)


def _rotated(x: Tensor, positions: Tensor, half: bool) -> Tensor:
    """Queries or keys (B, N, H, C), those of patches rotated by their place."""
    first_patch = x.shape[1] - len(positions)
    patches = x[:, first_patch:].transpose(1, 2)  # (B, H, P, C)
    patches = apply_rot_embed_cat(patches, positions, half=half).transpose(1, 2)
    return torch.cat([x[:, :first_patch], patches], dim=1)


def _layer_scale(block: nn.Module, number: int) -> Callable[[Tensor], Tensor]:
    """LayerScale: a parameter (gamma_1) in Eva, a module (ls1) in a ViT, or absent."""
    gamma = getattr(block, f"gamma_{number}", None)
    if gamma is None:
        return getattr(block, f"ls{number}", nn.Identity())
    return lambda x: x * upcast(gamma)


FAMILIES = {"timm": ("image", lambda model: _trunk_of(model) is not None, _TrunkTower)}
