"""open_clip's own encoders: `VisionTransformer`, `ModifiedResNet`, and the text transformer."""

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

ATTENTION_WEIGHTS = {"in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"}
RESNET_PATCH = 32  # pixels: five halvings
CLIP_VOCABULARY = 49408  # tokens of CLIP's own tokenizer, whose EOT is the largest id
QUERY_TOKENS = {
    "argmax": "EOT reads",
    "eos": "EOT reads",
    "last": "the last token reads",
    "first": "the first token reads",
    "cls": "an appended CLS reads",
}


# --------------------------------------------------------------------------- VisionTransformer


class _VisionTower(Tower):
    """A `VisionTransformer`: CLS, all patches (CLIPA), or latent queries in a pool (CoCa) read."""

    name = "image"
    kind = "VisionTransformer"

    def __init__(self, model: nn.Module, layers: int | None):
        visual = model.visual
        if getattr(visual, "attn_pool_contrastive", None) is not None:
            raise UnsupportedModel(
                f"the image tower has two attention pools ({visual.attn_pool_type}); "
                "only one is known"
            )
        if visual.pool_type not in ("tok", "avg"):
            raise UnsupportedModel(
                f"the image tower pools by {visual.pool_type!r}; only 'tok' and 'avg' are known"
            )
        self.visual = visual
        self.width = visual.output_dim
        self.image_size = tuple(visual.image_size)
        self.patch_size = tuple(visual.patch_size)

        blocks = [_block_of(block, self.name) for block in visual.transformer.resblocks]
        one_reads = visual.pool_type == "tok"
        if visual.attn_pool is not None:
            blocks.append(_query_pool(visual.attn_pool, one_reads))
            self.query_token = "a latent query reads"
            if not one_reads:
                self.query_token = "latent queries read and are averaged"
        elif one_reads:
            self.query_token = "CLS reads"
        else:
            self.query_tokens = slice(1, None)
            self.query_token = "all patches read and are averaged"
        super().__init__(model, visual, blocks, layers, model.encode_image)

    def _enter(self, pixels: Tensor) -> Entry:
        visual = self.visual
        x = visual.conv1(pixels.to(visual.conv1.weight))  # (B, D, h, w)
        grid = tuple(x.shape[-2:])
        x = x.flatten(2).transpose(1, 2)  # (B, h * w, D)
        cls = visual.class_embedding.to(x).expand(len(x), 1, -1)
        x = torch.cat([cls, x], dim=1)  # (B, 1 + h * w, D)

        positions = _resized(visual.positional_embedding, tuple(visual.grid_size), grid)
        x = visual.ln_pre(x + positions.to(x))  # patch dropout belongs to training and is left out
        x = _below(visual.transformer, self.first)(x)
        return self.image_entry(pixels, x, grid)

    def _embed(self, x: Tensor, entry: Entry) -> Tensor:
        if self.visual.final_ln_after_pool and not self.blocks[-1].latent:
            x = x.mean(1, keepdim=True)  # (B, R, D) -> (B, 1, D)
        pooled = apply([self.visual.ln_post], x).mean(1)  # (B, D)
        return _project(pooled, self.visual.proj)


def _block_of(block: nn.Module, tower: str) -> Block:
    """A ResidualAttentionBlock, known by its parts: norm, attention, norm, MLP."""
    attn = block.attn
    for name, _ in attn.named_parameters():
        if name not in ATTENTION_WEIGHTS:
            raise UnsupportedModel(
                f"the {tower} tower has a {type(block).__name__} with attn.{name}, "
                "which is not computed here"
            )

    def qkv(x: Tensor, _: Tensor | None) -> Sequence[Tensor]:
        return packed(attn, apply([block.ln_1], x))

    return Block(
        block,
        attn.num_heads,
        qkv,
        out=(attn.out_proj, block.ls_1),
        mlp=(block.ln_2, block.mlp, block.ls_2),
    )


def _query_pool(pool: nn.Module, one_reads: bool) -> Block:
    """open_clip's AttentionalPooler (CoCa): latent queries read all tokens; out_proj follows."""
    queries = slice(0, 1) if one_reads else slice(1, None)

    def qkv(x: Tensor, _: Tensor | None) -> Sequence[Tensor]:
        latent = apply([pool.ln_q], upcast(pool.query[queries]))[None]  # (1, R, D)
        return packed(pool.attn, apply([pool.ln_k], x), latent)

    return Block(pool, pool.attn.num_heads, qkv, out=(pool.attn.out_proj,), pools=True, latent=True)


def _below(transformer: nn.Module, count: int) -> nn.Module:
    """The lowest layers of a transformer."""
    return with_parts(transformer, resblocks=transformer.resblocks[:count])


def _project(x: Tensor, projection: Tensor | nn.Linear | None) -> Tensor:
    if projection is None:
        return x
    if isinstance(projection, nn.Linear):
        return apply([projection], x)
    return x @ upcast(projection)


def _resized(positions: Tensor, model_grid: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Position embeddings (prefix + h * w, D) for another grid, resized as open_clip does."""
    if grid == model_grid:
        return positions
    prefix = len(positions) - model_grid[0] * model_grid[1]
    square = upcast(positions[prefix:]).unflatten(0, model_grid)  # (h, w, D)
    square = square.permute(2, 0, 1)[None]  # (1, D, h, w)
    square = F.interpolate(square, grid, mode="bicubic", antialias=True, align_corners=False)
    of_patches = square[0].flatten(1).T  # (h * w, D)
    return torch.cat([upcast(positions[:prefix]), of_patches])


# ------------------------------------------------------------------------------ ModifiedResNet


class _ResNetTower(Tower):
    """A `ModifiedResNet` (RN50, RN50x4, ...): the mean of the last feature map reads that map.

    All layers below the attention pool are convolutions, so the pool is the one layer with an
    attention to explain.
    """

    name = "image"
    kind = "ModifiedResNet"
    query_token = "the mean of the patches reads"
    patch_size = (RESNET_PATCH, RESNET_PATCH)

    def __init__(self, model: nn.Module, layers: int | None):
        visual = model.visual
        self.visual = visual
        self.width = visual.output_dim
        self.image_size = (visual.image_size, visual.image_size)
        super().__init__(model, visual, [_mean_pool(visual.attnpool)], layers, model.encode_image)

    def _enter(self, pixels: Tensor) -> Entry:
        visual = self.visual
        x = visual.stem(self.in_precision(pixels))
        for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
            x = layer(x)  # (B, D, h, w)
        grid = tuple(x.shape[-2:])
        x = upcast(x.flatten(2).transpose(1, 2))  # (B, h * w, D)
        x = torch.cat([x.mean(1, keepdim=True), x], dim=1)  # (B, 1 + h * w, D)

        height, width = self.image_size
        model_grid = (height // RESNET_PATCH, width // RESNET_PATCH)
        positions = _resized(visual.attnpool.positional_embedding, model_grid, grid)
        return self.image_entry(pixels, x, grid, upcast(positions))

    def _embed(self, x: Tensor, entry: Entry) -> Tensor:
        return x[:, 0]  # the pool ends in c_proj


def _mean_pool(pool: nn.Module) -> Block:
    """open_clip's AttentionPool2d.

    Token 0 is computed as the mean of the others, so it follows any change of them.
    """

    def qkv(x: Tensor, positions: Tensor | None) -> list[Tensor]:
        patches = x[:, 1:]
        x = torch.cat([patches.mean(1, keepdim=True), patches], dim=1) + positions
        return separate(x, pool.q_proj, pool.k_proj, pool.v_proj)

    return Block(pool, pool.num_heads, qkv, out=(pool.c_proj,), pools=True)


# ----------------------------------------------------------------------------- text transformer


class TextTransformerTower(Tower):
    """open_clip's text transformer. Two thirds of its layers are explained by default."""

    name = "text"
    kind = "TextTransformer"

    def __init__(self, model: nn.Module, layers: int | None):
        text = getattr(model, "text", model)
        if not isinstance(text, (TextTransformer, open_clip.CLIP)):
            raise UnsupportedModel(
                f"a {type(text).__name__} does not read prompts: only open_clip's own text "
                "transformer and Hugging Face encoders do. Give embeddings in their place, which "
                "the model computes (of a classifier, a one-hot vector for each class)"
            )
        self.text = text
        self.pool = _pool_of(text)
        self.query_token = QUERY_TOKENS[self.pool]
        self.causal = text.attn_mask is not None
        self.masks_padding = self.pool == "cls" or getattr(text, "use_pad_mask", False)
        # known to "eos" only
        self.text_end = getattr(text, "eos_id", getattr(text, "text_eos_id", None))
        self.context_length = text.context_length

        projection = text.text_projection
        if projection is None:
            self.width = text.ln_final.normalized_shape[0]
        elif isinstance(projection, nn.Linear):
            self.width = projection.out_features
        else:
            self.width = projection.shape[1]
        blocks = [_block_of(block, self.name) for block in text.transformer.resblocks]
        super().__init__(model, text.transformer, blocks, layers, model.encode_text)

    def ends(self, ids: Tensor) -> Tensor:
        """The position (B,) of EOT in token ids (B, context_length)."""
        if self.pool == "eos":
            return (ids == self.text_end).int().argmax(dim=-1)
        if self.pool == "argmax" or self.text.vocab_size == CLIP_VOCABULARY:
            return ids.argmax(dim=-1)
        return end_of_text(ids, self.text.pad_id if self.masks_padding else None)

    def _enter(self, ids: Tensor) -> Entry:
        text = self.text
        ends = self.ends(ids)  # (B,)
        position = {"last": ids.shape[1] - 1, "first": 0, "cls": ids.shape[1]}.get(self.pool)
        query_index = ends[:, None]  # (B, 1)
        if position is not None:
            query_index = torch.full_like(query_index, position)

        length = ids.shape[1]
        if self.causal and not self.masks_padding:  # later tokens are never read
            length = int(query_index.max()) + 1
        dtype = text.transformer.get_cast_dtype()
        x = text.token_embedding(ids[:, :length]).to(dtype)  # (B, N, D)
        if self.pool == "cls":
            x = torch.cat([x, text.cls_emb.to(dtype).expand(len(x), 1, -1)], dim=1)
        count = x.shape[1]
        x = x + text.positional_embedding[:count].to(dtype)

        logit_mask = self._logit_mask(ids, count, dtype)
        x = _below(text.transformer, self.first)(x, logit_mask)
        attention_mask = None
        if logit_mask is not None:  # all heads of an input have the same
            masks = logit_mask.reshape(-1, count, count)[:: self.heads]  # (B or 1, N, N)
            attention_mask = (masks == 0)[:, None]

        return Entry(
            inputs=ids,
            tokens=upcast(x),
            query_index=query_index,
            valid_mask=torch.arange(count, device=ids.device) <= ends[:, None],  # (B, N)
            heads=self.heads,
            attention_mask=attention_mask,
        )

    def _logit_mask(self, ids: Tensor, count: int, dtype: torch.dtype) -> Tensor | None:
        """What the model adds to its logits: (N, N), or (B * H, N, N) if it hides padding."""
        mask = self.text.attn_mask[:count, :count] if self.causal else None
        if not self.masks_padding:
            return mask
        padding = self.text._build_additive_mask(ids, count, dtype)
        return padding if mask is None else mask + padding

    def _embed(self, x: Tensor, entry: Entry) -> Tensor:
        x = apply([self.text.ln_final], x)[:, 0]  # (B, D)
        return _project(x, self.text.text_projection)


def _pool_of(text: nn.Module) -> str:
    """How a text transformer picks the token that reads: a key of `QUERY_TOKENS`."""
    if getattr(text, "cls_emb", None) is not None:
        return "cls"
    pool = getattr(text, "pool_type", None) or text.text_pool_type
    if pool not in QUERY_TOKENS:
        raise UnsupportedModel(
            f"the text tower pools by {pool!r}; only {', '.join(QUERY_TOKENS)} are known"
        )
    return pool


def end_of_text(ids: Tensor, padding: int | None) -> Tensor:
    """The position (B,) of each prompt's last token that is no padding."""
    if padding is not None:
        place = torch.arange(ids.shape[1], device=ids.device)
        return (place * (ids != padding)).amax(dim=-1)
    repeats_last = (ids == ids[:, -1:]).flip(-1).int().cumprod(-1)  # from the end
    return ids.shape[1] - repeats_last.sum(-1)


def _is_resnet(model: nn.Module) -> bool:
    return isinstance(getattr(model, "visual", model), ModifiedResNet)


def _is_vision_transformer(model: nn.Module) -> bool:
    return isinstance(getattr(model, "visual", model), VisionTransformer)


FAMILIES = {
    "ResNet": ("image", _is_resnet, _ResNetTower),
    "ViT": ("image", _is_vision_transformer, _VisionTower),
    "text": ("text", lambda model: True, TextTransformerTower),
}
