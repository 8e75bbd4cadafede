"""timm's transformers, as open_clip's image encoders (SigLIP, PE-Core, EVA, ViTamin, MobileCLIP-B) or as classifiers.

CLS reads, all patches read and are averaged, or a latent query reads in an attention pool (MAP). A
bare timm model is a classifier: its logits take the place of the embedding, and the direction of a
class is one-hot.
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
from .base import Entry, Tower, Trace
from .blocks import Block, apply, eval_mode, separate, upcast, width_of, with_parts

_WHY_NOT = {
    "ConvNeXt": "it is all convolutions and averages its last feature map, so there is no attention to explain",
    "FastVit": "it averages what convolutions make of its last feature map, so no attention says what was read",
    "SwinTransformer": "its attention stays within windows and its last feature map is averaged: no token reads it",
    "VisionTransformerRelPos": "its attention adds a bias for relative positions, which is not computed here",
}


def _trunk_of(model: nn.Module) -> Any:
    """The image encoder if it is a timm model: a part of an open_clip model, or the model itself; else None."""
    visual = getattr(model, "visual", None)
    if isinstance(visual, TimmModel):
        return visual.trunk
    return model if visual is None and type(model).__module__.startswith("timm.") else None


class _TrunkTower(Tower):
    """A timm `VisionTransformer` or `Eva`, alone (a classifier) or inside open_clip's `TimmModel`."""

    name = "image"

    def __init__(self, model: nn.Module, layers: int | None):
        trunk = _trunk_of(model)
        _check_trunk(trunk)
        self.kind = f"timm {type(trunk).__name__}"
        self.trunk, self.unit = trunk, trunk is not model
        self.head = nn.Sequential(trunk.head, model.visual.head) if self.unit else trunk.head
        blocks = [_trunk_block(block) for block in trunk.blocks]
        if trunk.attn_pool is not None:
            blocks.append(_latent_pool(trunk.attn_pool, trunk.norm))
            self.query_token = "a latent query reads"
        else:
            self.query_token = (
                "CLS reads" if trunk.global_pool == "token" else "all patches read and are averaged"
            )
        self.image_size, self.grid_size = (
            tuple(trunk.patch_embed.img_size),
            tuple(trunk.patch_embed.grid_size),
        )
        self.patch_size = tuple(trunk.patch_embed.feat_ratio(as_scalar=False))
        self.width = width_of([self.head], trunk.num_features)
        super().__init__(model, trunk, blocks, layers, model.encode_image if self.unit else model)

    def _enter(self, pixels: Tensor) -> Entry:
        trunk, rope = self.trunk, getattr(self.trunk, "rope", None)
        grid, embed = (
            tuple(trunk.patch_embed.dynamic_feat_size(pixels.shape[-2:])),
            with_parts(trunk.patch_embed),
        )
        embed.img_size, embed.flatten, embed.output_fmt = (
            None,
            False,
            Format.NHWC,
        )  # as for images of any size
        if rope is not None and grid != self.grid_size and hasattr(rope, "update_feat_shape"):
            rope = copy.deepcopy(rope)  # the model's own keeps its grid
            rope.update_feat_shape(list(grid))
        below = with_parts(
            trunk,
            patch_embed=embed,
            blocks=trunk.blocks[: self.first],
            norm=nn.Identity(),
            rope=rope,
        )
        below.dynamic_img_size = True
        x = below.forward_features(self.in_precision(pixels))
        first = 0 if getattr(trunk, "pool_include_prefix", False) else trunk.num_prefix_tokens
        reads = (
            ()
            if self.blocks[-1].latent
            else [0]
            if trunk.global_pool == "token"
            else range(first, x.shape[1])
        )
        return self.image_entry(
            pixels, x, reads, grid, None if rope is None else upcast(rope.get_embed(list(grid)))
        )

    def _embed(self, x: Tensor, entry: Entry) -> Tensor:
        pool = self.trunk.attn_pool
        x = x if pool is not None else apply([self.trunk.norm], x)  # (B, R, D)
        pooled = x.mean(1) if pool is None or pool.pool == "avg" else x[:, 0]
        return apply([self.trunk.fc_norm, self.head], pooled)


def _trunk_block(block: nn.Module) -> Block:
    """A timm block: norms before attention and MLP or behind them (EVA02-E), rotary positions or none."""
    if type(block) not in (VitBlock, EvaBlock, EvaBlockPostNorm):
        raise UnsupportedModel(
            f"the image tower has a timm {type(block).__name__}, which is not known"
        )
    attn, behind = block.attn, type(block) is EvaBlockPostNorm

    def qkv(x: Tensor, positions: Tensor | None) -> list[Tensor]:
        """By three linear layers or one, queries and keys normed head by head, and rotated by their place."""
        x = x if behind else apply([block.norm1], x)
        if attn.qkv is None:
            found = separate(x, attn.q_proj, attn.k_proj, attn.v_proj)
        else:
            found = list(apply([attn.qkv], x).chunk(3, dim=-1))
            if getattr(attn, "q_bias", None) is not None:
                found = [
                    one + upcast(b)
                    for one, b in zip(found, (attn.q_bias, attn.k_bias, attn.v_bias), strict=True)
                ]
        found[:2] = _normed_heads(attn, *found[:2])
        if positions is not None:
            found[:2] = [
                _rotated(one, positions, getattr(attn, "rotate_half", False)) for one in found[:2]
            ]
        return [one.flatten(2) if one.ndim == 4 else one for one in found]

    out: tuple = (attn.norm, attn.proj)
    if behind:
        return Block(block, attn.num_heads, qkv, (*out, block.norm1), (block.mlp, block.norm2))
    return Block(
        block,
        attn.num_heads,
        qkv,
        (*out, _scale(block, 1)),
        (block.norm2, block.mlp, _scale(block, 2)),
    )


def _latent_pool(pool: nn.Module, before: nn.Module) -> Block:
    """Timm's AttentionPoolLatent (MAP): latent queries read all tokens; then a projection, and a residual MLP."""

    def qkv(x: Tensor, _: Tensor | None) -> list[Tensor]:
        k, v = apply([before, pool.kv], x).chunk(2, dim=-1)
        q, k = _normed_heads(pool, apply([pool.q], upcast(pool.latent)), k)
        return [q.flatten(2), k.flatten(2), v]

    mlp = () if pool.mlp is None else (pool.norm, pool.mlp)
    return Block(pool, pool.num_heads, qkv, (pool.proj,), mlp, pools=True, latent=True)


def _normed_heads(attn: nn.Module, q: Tensor, k: Tensor) -> list[Tensor]:
    """Queries and keys (B, N, H, C), normed head by head."""
    q, k = (one.unflatten(-1, (attn.num_heads, -1)) for one in (q, k))
    return [apply([attn.q_norm], q), apply([attn.k_norm], k)]


def _rotated(x: Tensor, positions: Tensor, half: bool) -> Tensor:
    """Queries or keys (B, N, H, C): patches are rotated by their place, tokens before them are not."""
    first = x.shape[1] - len(positions)
    turned = apply_rot_embed_cat(x[:, first:].transpose(1, 2), positions, half=half).transpose(1, 2)
    return torch.cat([x[:, :first], turned], dim=1)


def _scale(block: nn.Module, number: int) -> Callable[[Tensor], Tensor]:
    """LayerScale is a parameter in Eva (gamma_1), a module in a VisionTransformer (ls1), or absent."""
    gamma = getattr(block, f"gamma_{number}", None)
    return (
        getattr(block, f"ls{number}", nn.Identity())
        if gamma is None
        else lambda x: x * upcast(gamma)
    )


def _check_trunk(trunk: nn.Module) -> None:
    """Refuse trunks whose last attention is not known, with the reason."""
    kind = type(trunk).__name__
    inside = f"the image tower is a timm {kind}"
    if type(trunk) not in (VisionTransformer, Eva):
        raise UnsupportedModel(
            f"{inside}: {_WHY_NOT.get(kind, 'only VisionTransformer and Eva are known')}"
        )
    pool = trunk.attn_pool
    if pool is None and trunk.global_pool not in ("token", "avg"):
        raise UnsupportedModel(
            f"{inside} that pools by {trunk.global_pool!r}; only 'token', 'avg' and 'map' are known"
        )
    if pool is not None:
        if (
            type(pool) is not AttentionPoolLatent
            or pool.pos_embed is not None
            or pool.pool not in ("token", "avg")
        ):
            raise UnsupportedModel(
                f"{inside} that ends in a {type(pool).__name__} that differs from SigLIP's"
            )
        if (
            type(trunk) is VisionTransformer
            and trunk.num_prefix_tokens
            and not trunk.pool_include_prefix
        ):
            raise UnsupportedModel(
                f"{inside} whose attention pool does not see its class token; it cannot be opened"
            )
    if getattr(trunk, "rope_mixed", False):
        raise UnsupportedModel(
            f"{inside} whose every layer has rotary positions of its own; it cannot be opened"
        )


class FeatureMapTower(Tower):
    """The last feature map of any timm model, for methods that need no attention. Its trace has no layers.

    These are Grad-CAM (`forward_from`), RISE (`forward`) and input gradients (`embed_pixels`).
    """

    name = "image"
    query_token = "no token reads"
    blocks = explained = ()
    depth = layers = heads = 0
    verified = False

    def __init__(self, model: nn.Module):
        trunk = _trunk_of(model)
        if not (hasattr(trunk, "forward_features") and hasattr(trunk, "forward_head")):
            what = type(getattr(model, "visual", model)).__name__
            raise UnsupportedModel(
                f"the image tower is a {what}, whose last feature map is not known"
            )
        self.model, self.part, self.trunk = model, trunk, trunk
        self.kind = f"timm {type(trunk).__name__}"
        self.unit = trunk is not model
        self.sequence = hasattr(trunk, "blocks") and hasattr(trunk, "num_prefix_tokens")
        self.channels_last = getattr(trunk, "output_fmt", "NCHW") == "NHWC"
        size = model.visual.image_size if self.unit else trunk.default_cfg["input_size"][-2:]
        self.image_size = tuple(
            getattr(getattr(trunk, "patch_embed", None), "img_size", None) or size
        )
        self._encode = model.encode_image if self.unit else model
        features = trunk.num_classes or trunk.num_features
        self.width = width_of([model.visual.head], features) if self.unit else features
        grid = self._grid(self.image_size)
        self.patch_size = (self.image_size[0] // grid[0], self.image_size[1] // grid[1])

    def forward_from(self, trace: Trace, layer: int, tokens: Tensor) -> Tensor:
        """As `Tower.forward_from` of layer 0, the only one: `tokens` replace the last feature map."""
        assert layer == 0
        return self._finished(tokens, trace)

    def _enter(self, pixels: Tensor) -> Entry:
        features = self.trunk.forward_features(self.in_precision(pixels))
        if features.ndim == 3:
            grid, x = self._grid(pixels.shape[-2:]), features
        else:
            features = (
                features if self.channels_last else features.permute(0, 2, 3, 1)
            )  # (B, h, w, D)
            grid, x = tuple(features.shape[1:3]), features.flatten(1, 2)
        return self.image_entry(pixels, x, (), grid)

    def _trace_from(self, entry: Entry, graph: bool = False) -> Trace:
        return Trace(**vars(entry), layers=(), embedding=self._finished(entry.tokens, entry))

    def _embed(self, x: Tensor, entry: Entry) -> Tensor:
        x = self.in_precision(x)
        if not self.sequence:
            assert entry.grid is not None
            x = x.unflatten(1, entry.grid)  # (B, h, w, D)
            x = x if self.channels_last else x.permute(0, 3, 1, 2)
        with eval_mode(self.model):
            pooled = self.trunk.forward_head(x)
            return upcast(self.model.visual.head(pooled) if self.unit else pooled)

    def _grid(self, size: Sequence[int]) -> tuple[int, int]:
        """The grid of the last feature map for an image of this size, from the reduction that timm records."""
        if self.sequence:
            return tuple(self.trunk.patch_embed.dynamic_feat_size(size))
        down, across = (
            max(1, -(-side // self.trunk.feature_info[-1]["reduction"])) for side in size
        )
        return down, across


FAMILIES = {"timm": ("image", lambda model: _trunk_of(model) is not None, _TrunkTower)}
