"""open_clip's own encoders: `VisionTransformer`, `ModifiedResNet`, and the text transformer of all its models."""

from collections.abc import Sequence

import open_clip
import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import TextTransformer, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UnsupportedModel
from .base import Entry, Tower
from .blocks import Block, apply, packed, separate, upcast, with_parts

_IN_ATTENTION = {"in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"}


def _block(block: nn.Module, tower: str) -> Block:
    """A ResidualAttentionBlock, known by its parts, not by its class: norm, attention, norm, MLP."""
    attn = block.attn
    if more := [name for name, _ in attn.named_parameters() if name not in _IN_ATTENTION]:
        inside = f"the {tower} tower has a {type(block).__name__}"
        raise UnsupportedModel(f"{inside} with attn.{more[0]}, which is not computed here")
    return Block(
        block,
        attn.num_heads,
        lambda x, _: packed(attn, apply([block.ln_1], x)),
        out=(attn.out_proj, block.ls_1),
        mlp=(block.ln_2, block.mlp, block.ls_2),
    )


class _VisionTower(Tower):
    """A `VisionTransformer`: CLS reads, all patches read (CLIPA), or latent queries read in a pool (CoCa)."""

    name, kind = "image", "VisionTransformer"

    def __init__(self, model: nn.Module, layers: int | None):
        visual = model.visual
        if getattr(visual, "attn_pool_contrastive", None) is not None:
            kind = visual.attn_pool_type
            raise UnsupportedModel(
                f"the image tower has two attention pools ({kind}); only one is known"
            )
        if visual.pool_type not in ("tok", "avg"):
            raise UnsupportedModel(
                f"the image tower pools by {visual.pool_type!r}; only 'tok' and 'avg' are known"
            )
        self.visual, self.token = visual, visual.pool_type == "tok"
        self.width, self.image_size = visual.output_dim, tuple(visual.image_size)
        self.patch_size = tuple(visual.patch_size)
        blocks = [_block(block, self.name) for block in visual.transformer.resblocks]
        if visual.attn_pool is not None:
            blocks.append(_query_pool(visual.attn_pool, self.token))
            self.query_token = (
                "a latent query reads" if self.token else "latent queries read and are averaged"
            )
        else:
            self.query_token = "CLS reads" if self.token else "all patches read and are averaged"
        super().__init__(model, visual, blocks, layers, model.encode_image)

    def _enter(self, pixels: Tensor) -> Entry:
        visual = self.visual
        x = visual.conv1(pixels.to(visual.conv1.weight))  # (B, D, h, w)
        grid = tuple(x.shape[-2:])
        x = x.flatten(2).transpose(1, 2)  # (B, h*w, D)
        x = torch.cat(
            [visual.class_embedding.to(x).expand(len(x), 1, -1), x], dim=1
        )  # (B, 1 + h*w, D)
        positions = _resized(visual.positional_embedding, tuple(visual.grid_size), grid)
        x = visual.ln_pre(x + positions.to(x))  # patch dropout belongs to training and is left out
        x = _below(visual.transformer, self.first)(x)
        reads = () if self.blocks[-1].latent else [0] if self.token else range(1, x.shape[1])
        return self.image_entry(pixels, x, reads, grid)

    def _embed(self, x: Tensor, entry: Entry) -> Tensor:
        if self.visual.final_ln_after_pool and not self.blocks[-1].latent:
            x = x.mean(1, keepdim=True)  # (B, R, D) -> (B, 1, D)
        return _projected(self.visual.proj, apply([self.visual.ln_post], x).mean(1))


def _query_pool(pool: nn.Module, first: bool) -> Block:
    """open_clip's AttentionalPooler (CoCa): latent queries read all tokens, CLS too; only out_proj follows."""
    some = slice(0, 1) if first else slice(1, None)

    def qkv(x: Tensor, _: Tensor | None) -> Sequence[Tensor]:
        return packed(
            pool.attn, apply([pool.ln_k], x), apply([pool.ln_q], upcast(pool.query[some]))[None]
        )

    return Block(pool, pool.attn.num_heads, qkv, out=(pool.attn.out_proj,), pools=True, latent=True)


def _below(transformer: nn.Module, count: int) -> nn.Module:
    return with_parts(transformer, resblocks=transformer.resblocks[:count])


def _projected(projection: Tensor | nn.Linear | None, x: Tensor) -> Tensor:
    if isinstance(projection, nn.Linear):
        return apply([projection], x)
    return x if projection is None else x @ upcast(projection)


def _resized(positions: Tensor, own: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Position embeddings (prefix + h*w, D) for another grid, resized as open_clip does."""
    if grid == own:
        return positions
    prefix = len(positions) - own[0] * own[1]
    square = upcast(positions[prefix:]).reshape(1, *own, -1).permute(0, 3, 1, 2)  # (1, D, h, w)
    square = F.interpolate(square, grid, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([upcast(positions[:prefix]), square.flatten(2)[0].T])  # (prefix + h*w, D)


class _ResNetTower(Tower):
    """A `ModifiedResNet` (RN50, RN101, RN50x4, RN50x16, RN50x64): the mean of the last feature map reads that map.

    All layers below the attention pool are convolutions, so the pool is the one layer with an
    attention to explain.
    """

    name, kind = "image", "ModifiedResNet"
    query_token = "the mean of the patches reads"
    patch_size = (32, 32)  # five halvings

    def __init__(self, model: nn.Module, layers: int | None):
        visual = model.visual
        self.visual, self.width, self.image_size = (
            visual,
            visual.output_dim,
            (visual.image_size,) * 2,
        )
        super().__init__(model, visual, [_mean_pool(visual.attnpool)], layers, model.encode_image)

    def _enter(self, pixels: Tensor) -> Entry:
        visual = self.visual
        x = visual.stem(self.in_precision(pixels))
        for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
            x = layer(x)
        grid = tuple(x.shape[-2:])
        x = upcast(x.flatten(2).transpose(1, 2))  # (B, h*w, D)
        x = torch.cat([x.mean(1, keepdim=True), x], dim=1)  # (B, 1 + h*w, D)
        own = (self.image_size[0] // 32, self.image_size[1] // 32)
        positions = upcast(_resized(visual.attnpool.positional_embedding, own, grid))
        return self.image_entry(pixels, x, [0], grid, positions)

    def _embed(self, x: Tensor, entry: Entry) -> Tensor:
        return x[:, 0]  # the pool ends in c_proj


def _mean_pool(pool: nn.Module) -> Block:
    """open_clip's AttentionPool2d. Token 0 is computed as the mean of the others, so it follows any change of them."""

    def qkv(x: Tensor, positions: Tensor | None) -> list[Tensor]:
        patches = x[:, 1:]
        x = torch.cat([patches.mean(1, keepdim=True), patches], dim=1) + positions
        return separate(x, pool.q_proj, pool.k_proj, pool.v_proj)

    return Block(pool, pool.num_heads, qkv, out=(pool.c_proj,), pools=True)


_CLIP_VOCABULARY = 49408
_QUERY_TOKENS = {
    "argmax": "EOT reads",
    "eos": "EOT reads",
    "last": "the last token reads",
    "first": "the first token reads",
    "cls": "an appended CLS reads",
}


class TextTransformerTower(Tower):
    """open_clip's text transformer. Two thirds of its layers are explained by default."""

    name, kind = "text", "TextTransformer"

    def __init__(self, model: nn.Module, layers: int | None):
        text = self.text = getattr(model, "text", model)
        if not isinstance(text, (TextTransformer, open_clip.CLIP)):
            raise UnsupportedModel(
                f"the text tower is a {type(text).__name__}; only open_clip's own text transformer and Hugging Face "
                "encoders can be opened (embeddings that the model computes can be explained instead of prompts)"
            )
        pool = text.pool_type if isinstance(text, TextTransformer) else text.text_pool_type
        pool = pool if getattr(text, "cls_emb", None) is None else "cls"
        if pool not in _QUERY_TOKENS:
            raise UnsupportedModel(
                f"the text tower pools by {pool!r}; only {', '.join(_QUERY_TOKENS)} are known"
            )
        self.pool, self.query_token = pool, _QUERY_TOKENS[pool]
        self.causal = text.attn_mask is not None
        if pool == "first" and self.causal:
            raise UnsupportedModel(
                "the text tower reads its first token, which sees no other token"
            )
        self.masks_padding = pool == "cls" or getattr(text, "use_pad_mask", False)
        self.text_end = getattr(
            text, "eos_id", getattr(text, "text_eos_id", None)
        )  # known to "eos" only
        self.context_length = text.context_length
        blocks = [_block(block, self.name) for block in text.transformer.resblocks]
        super().__init__(model, text.transformer, blocks, layers, model.encode_text)
        projection = text.text_projection
        width = text.ln_final.normalized_shape[0]
        self.width = (
            width
            if projection is None
            else getattr(projection, "out_features", None) or projection.shape[1]
        )

    def ends(self, ids: Tensor) -> Tensor:
        """The position (B,) of EOT in token ids (B, context_length)."""
        if self.pool == "eos":
            return (ids == self.text_end).int().argmax(dim=-1)
        if self.pool == "argmax" or self.text.vocab_size == _CLIP_VOCABULARY:
            return ids.argmax(dim=-1)
        return end_of_text(ids, self.text.pad_id if self.masks_padding else None)

    def _enter(self, ids: Tensor) -> Entry:
        text, ends = self.text, self.ends(ids)
        fixed = {"last": ids.shape[1] - 1, "first": 0, "cls": ids.shape[1]}
        query_index = (torch.full_like(ends, fixed[self.pool]) if self.pool in fixed else ends)[
            :, None
        ]  # (B, 1)
        cropped = self.causal and not self.masks_padding
        length = (
            int(query_index.max()) + 1 if cropped else ids.shape[1]
        )  # later tokens are never read
        dtype = text.transformer.get_cast_dtype()
        x = text.token_embedding(ids[:, :length]).to(dtype)
        if self.pool == "cls":
            x = torch.cat([x, text.cls_emb.to(dtype).expand(len(x), 1, -1)], dim=1)
        count = x.shape[1]
        x = x + text.positional_embedding[:count].to(dtype)
        mask = (
            text.attn_mask[:count, :count] if self.causal else None
        )  # what is added to the logits
        if self.masks_padding:
            padding = text._build_additive_mask(
                ids, count, dtype
            )  # (B * H, N, N), one for every input and head
            mask = padding if mask is None else mask + padding
        x = _below(text.transformer, self.first)(x, mask)
        valid_mask = torch.arange(count, device=ids.device) <= ends[:, None]  # (B, N)
        each = text.heads if self.masks_padding else 1  # masks of an input, which are equal
        attention_mask = None if mask is None else (mask == 0).view(-1, each, count, count)[:, :1]
        return Entry(
            ids, upcast(x), query_index, valid_mask, self.heads, attention_mask=attention_mask
        )

    def _embed(self, x: Tensor, entry: Entry) -> Tensor:
        return _projected(self.text.text_projection, apply([self.text.ln_final], x)[:, 0])


def end_of_text(ids: Tensor, padding: int | None) -> Tensor:
    """The position (B,) of each prompt's last token that is no padding."""
    if padding is not None:
        return (torch.arange(ids.shape[1], device=ids.device) * (ids != padding)).amax(dim=-1)
    return ids.shape[1] - (ids == ids[:, -1:]).flip(-1).int().cumprod(-1).sum(-1)


FAMILIES = {
    "ResNet": (
        "image",
        lambda model: isinstance(getattr(model, "visual", model), ModifiedResNet),
        _ResNetTower,
    ),
    "ViT": (
        "image",
        lambda model: isinstance(getattr(model, "visual", model), VisionTransformer),
        _VisionTower,
    ),
    "text": ("text", lambda model: True, TextTransformerTower),
}
