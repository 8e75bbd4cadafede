"""timm's transformers, as open_clip's image encoders (SigLIP, PE-Core, EVA, ViTamin, MobileCLIP-B) or as classifiers.

CLS reads, all patches read and are averaged, or a latent query reads in an attention pool (MAP). A bare timm model is
a classifier: its logits take the place of the embedding, and the direction of a class is one-hot.
"""

import copy
from collections.abc import Sequence

import torch
from timm.layers import AttentionPoolLatent, GluMlp, Mlp, SwiGLU, apply_rot_embed_cat, resample_abs_pos_embed
from timm.layers.attention import Attention, AttentionRope
from timm.models.eva import Eva, EvaAttention, EvaBlock, EvaBlockPostNorm
from timm.models.vision_transformer import Block as VitBlock
from timm.models.vision_transformer import VisionTransformer
from timm.models.vitamin import GeGluMlp
from torch import Tensor, nn

from ..errors import UnsupportedModel
from .base import Entry, Tower, places
from .blocks import Block, apply, check_linear, check_norm, in_precision, linear, norm, packed, upcast

_WHY_NOT = {
    "ConvNeXt": "it is all convolutions and averages its last feature map, so there is no attention to explain",
    "FastVit": "it averages what convolutions make of its last feature map, so no attention says what was read",
    "SwinTransformer": "its attention stays within windows and its last feature map is averaged: no token reads it",
    "VisionTransformerRelPos": "its attention adds a bias for relative positions, which is not computed here",
}


class TrunkTower(Tower):
    """A timm `VisionTransformer` or `Eva`, alone (a classifier) or inside open_clip's `TimmModel`."""

    name = "image"

    def __init__(self, model: nn.Module, trunk: nn.Module, layers: int):
        _check_trunk(trunk)
        self.kind = f"timm {type(trunk).__name__}"
        self.trunk, self.prefix = trunk, trunk.num_prefix_tokens
        self.unit = trunk is not model
        self.head = nn.Sequential(trunk.head, model.visual.head) if self.unit else trunk.head
        for module in self.head.modules():
            if type(module) not in (nn.Sequential, nn.Identity, nn.Dropout, nn.Linear, Mlp, nn.GELU):
                raise UnsupportedModel(f"the image tower ends in a {type(module).__name__}, which cannot be opened")
        blocks = [_trunk_block(block) for block in trunk.blocks]
        if trunk.attn_pool is not None:
            blocks.append(_latent_pool(trunk.attn_pool, trunk.norm))
            self.query_token = "a latent query reads"
        else:
            self.query_token = "CLS reads" if trunk.global_pool == "token" else "all patches read and are averaged"
        size = trunk.patch_embed.img_size
        self.image_size, self.grid_size = tuple(size), tuple(trunk.patch_embed.grid_size)
        self.patch_size = tuple(trunk.patch_embed.feat_ratio(as_scalar=False))
        self.width = out_features(self.head, trunk.num_features)
        super().__init__(model, trunk, blocks, layers, model.encode_image if self.unit else model)

    def _enter(self, pixels: Tensor) -> Entry:
        trunk = self.trunk
        embed, x = trunk.patch_embed, in_precision(trunk, pixels)
        x = embed.proj(embed.backbone(x) if hasattr(embed, "backbone") else x)  # (B, D, h, w)
        grid = tuple(x.shape[-2:])
        x = getattr(embed, "norm", nn.Identity())(x.flatten(2).transpose(1, 2))
        x = trunk.norm_pre(self._with_positions(x, grid))
        rotary = None if getattr(trunk, "rope", None) is None else _rotary(trunk.rope, self.grid_size, grid)
        for block in self.below:
            if not block.latent:
                x = block.module(x) if rotary is None else block.module(x, rope=rotary)
        if trunk.attn_pool is not None:
            reads: Sequence[int] = ()
        elif trunk.global_pool == "token":
            reads = [0]
        else:
            reads = range(0 if getattr(trunk, "pool_include_prefix", False) else self.prefix, x.shape[1])
        rotary = None if rotary is None else upcast(rotary)
        return Entry(pixels, upcast(x), *places(x, reads, self.prefix), self.heads, grid, positions=rotary)

    def _with_positions(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Patches (B, h*w, D) after CLS and register tokens, with position embeddings added."""
        trunk = self.trunk
        tokens = [t.expand(len(x), -1, -1) for t in (trunk.cls_token, trunk.reg_token) if t is not None]
        positions = trunk.pos_embed
        if positions is None:
            return torch.cat([*tokens, x], dim=1)
        if grid != self.grid_size:
            prefix = 0 if trunk.no_embed_class else self.prefix
            positions = resample_abs_pos_embed(positions, list(grid), list(self.grid_size), num_prefix_tokens=prefix)
        if trunk.no_embed_class:
            return torch.cat([*tokens, x + positions], dim=1)
        return torch.cat([*tokens, x], dim=1) + positions

    def _embed(self, x: Tensor) -> Tensor:
        if self.trunk.attn_pool is None:
            x = norm(self.trunk.norm, x)  # (B, R, D)
            pooled = x.mean(1)
        else:
            pooled = x.mean(1) if self.trunk.attn_pool.pool == "avg" else x[:, 0]
        return apply([self.head], norm(self.trunk.fc_norm, pooled))


def _trunk_block(block: nn.Module) -> Block:
    """A timm block: norms before attention and MLP or behind them (EVA02-E), rotary positions or none."""
    inside = f"the image tower has a timm {type(block).__name__}"
    attn, mlp = block.attn, block.mlp
    for part, kinds in (
        (block, (VitBlock, EvaBlock, EvaBlockPostNorm)),
        (attn, (Attention, EvaAttention, AttentionRope)),
        (mlp, (Mlp, GluMlp, SwiGLU, GeGluMlp)),
    ):
        if type(part) not in kinds:
            known = ", ".join(kind.__name__ for kind in kinds)
            raise UnsupportedModel(f"{inside} with a {type(part).__name__}; only {known} can be opened")
    if getattr(attn, "gate", None) is not None or getattr(attn, "num_kv_groups", 1) != 1:
        raise UnsupportedModel(f"{inside} whose attention is gated or shares keys between heads")
    check_norm(inside, block.norm1, block.norm2, attn.norm, attn.q_norm, attn.k_norm, mlp.norm)
    check_linear(inside, attn.proj, *(m for m in mlp.modules() if isinstance(m, nn.Linear)))
    check_linear(inside, *([attn.qkv] if attn.qkv is not None else [attn.q_proj, attn.k_proj, attn.v_proj]))

    def _qkv(x: Tensor, part: int, positions: Tensor | None) -> Tensor:
        """Queries, keys or values by a linear layer or rows of a packed one; queries and keys normed and rotated."""
        if attn.qkv is None:
            x = linear((attn.q_proj, attn.k_proj, attn.v_proj)[part], x)
        else:
            x = packed(attn.qkv.weight, attn.qkv.bias, x, part)
            bias = getattr(attn, ("q_bias", "k_bias", "v_bias")[part], None)
            x = x if bias is None else x + upcast(bias)
        x = _normed_heads(attn, x, part)
        if part < 2 and positions is not None:  # patches are rotated by their place, tokens before them are not
            first, half = x.shape[1] - len(positions), getattr(attn, "rotate_half", False)
            turned = apply_rot_embed_cat(x[:, first:].transpose(1, 2), positions, half=half).transpose(1, 2)
            x = torch.cat([x[:, :first], turned], dim=1)
        return x.flatten(-2)

    if type(block) is EvaBlockPostNorm:
        return Block(
            block, attn.num_heads, _qkv, lambda o: apply((attn.norm, attn.proj, block.norm1), o),
            lambda x: norm(block.norm2, _mlp(mlp, x)),
        )  # fmt: skip
    return Block(
        block, attn.num_heads, _qkv, lambda o: _layer_scaled(block, 1, apply((attn.norm, attn.proj), o)),
        lambda x: _layer_scaled(block, 2, _mlp(mlp, norm(block.norm2, x))), before=block.norm1,
    )  # fmt: skip


def _latent_pool(pool: nn.Module, before: nn.Module) -> Block:
    """Timm's AttentionPoolLatent (MAP): latent queries read all tokens; then a projection, and a residual MLP."""
    inside = f"the image tower ends in a timm {type(pool).__name__}"
    check_linear(inside, pool.kv, *(m for m in (pool.q, pool.proj) if not isinstance(m, nn.Identity)))
    check_norm(inside, before, pool.norm, pool.q_norm, pool.k_norm)

    def _qkv(x: Tensor, part: int, positions: Tensor | None) -> Tensor:
        """The latent query, or keys and values of the tokens."""
        x = linear(pool.q, x) if part == 0 else packed(pool.kv.weight, pool.kv.bias, x, part - 1, 2)
        return _normed_heads(pool, x, part).flatten(-2)

    mlp = None if pool.mlp is None else lambda x: _mlp(pool.mlp, norm(pool.norm, x))
    return Block(
        pool, pool.num_heads, _qkv, lambda o: linear(pool.proj, o), mlp, before=before,
        pools=True, latent=lambda: upcast(pool.latent),
    )  # fmt: skip


def _normed_heads(attn: nn.Module, x: Tensor, part: int) -> Tensor:
    """(B, N, H * C) -> (B, N, H, C), by the model's own heads, with queries and keys normed head by head."""
    x = x.unflatten(-1, (attn.num_heads, -1))
    return norm((attn.q_norm, attn.k_norm)[part], x) if part < 2 else x


def _check_trunk(trunk: nn.Module) -> None:
    """Refuse trunks whose last attention is not known, with the reason."""
    kind = type(trunk).__name__
    inside = f"the image tower is a timm {kind}"
    if type(trunk) not in (VisionTransformer, Eva):
        why = _WHY_NOT.get(kind, "only VisionTransformer and Eva are known")
        raise UnsupportedModel(f"{inside}: {why}")
    pool = trunk.attn_pool
    if pool is None and trunk.global_pool not in ("token", "avg"):
        raise UnsupportedModel(f"{inside} that pools by {trunk.global_pool!r}; only 'token', 'avg' and 'map' are known")
    if pool is not None:
        known = type(pool) is AttentionPoolLatent and pool.pos_embed is None and pool.pool in ("token", "avg")
        if not known:
            raise UnsupportedModel(f"{inside} that ends in a {type(pool).__name__} of another form than SigLIP's")
        if type(trunk) is VisionTransformer and trunk.num_prefix_tokens and not trunk.pool_include_prefix:
            raise UnsupportedModel(f"{inside} whose attention pool does not see its class token; it cannot be opened")
    if getattr(trunk, "rope_mixed", False):
        raise UnsupportedModel(f"{inside} whose every layer has rotary positions of its own; it cannot be opened")


def out_features(head: nn.Module, features: int) -> int:
    """The width E of the embedding that a head gives."""
    layers = [module for module in head.modules() if isinstance(module, nn.Linear)]
    return layers[-1].out_features if layers else features


def _mlp(mlp: nn.Module, x: Tensor) -> Tensor:
    """A timm MLP: plain, or gated in one of three forms."""
    if isinstance(mlp, GeGluMlp):
        x = norm(mlp.norm, x)
        return linear(mlp.w2, mlp.act(linear(mlp.w0, x)) * linear(mlp.w1, x))
    if isinstance(mlp, SwiGLU):
        hidden = mlp.act(linear(mlp.fc1_g, x)) * linear(mlp.fc1_x, x)
    elif isinstance(mlp, GluMlp):
        first, second = linear(mlp.fc1, x).chunk(2, dim=-1)
        hidden = first * mlp.act(second) if mlp.gate_last else mlp.act(first) * second
    else:
        hidden = mlp.act(linear(mlp.fc1, x))
    return linear(mlp.fc2, norm(mlp.norm, hidden))


def _layer_scaled(block: nn.Module, number: int, x: Tensor) -> Tensor:
    """LayerScale is a module in a VisionTransformer (ls1), a parameter in Eva (gamma_1), or absent."""
    gamma = getattr(block, f"gamma_{number}", None)
    return x * upcast(gamma) if gamma is not None else apply([getattr(block, f"ls{number}", nn.Identity())], x)


def _rotary(rope: nn.Module, own: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Sine and cosine (h*w, 2 C) by which queries and keys of the patches are turned."""
    if grid != own and hasattr(rope, "update_feat_shape"):
        rope = copy.deepcopy(rope)  # the model's own keeps its grid
        rope.update_feat_shape(list(grid))
    return rope.get_embed(shape=list(grid))
