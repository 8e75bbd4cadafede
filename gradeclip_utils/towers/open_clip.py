"""open_clip's own encoders: `VisionTransformer`, and the text transformer of `CLIP`, `CustomTextCLIP` and `CoCa`."""

import open_clip
import torch
from open_clip.transformer import TextTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UnsupportedModel
from .base import Entry, Tower, places
from .blocks import Block, check_linear, linear, norm, open_clip_block, packed, project_to, upcast


class VisionTower(Tower):
    """A `VisionTransformer`: CLS reads, all patches read (CLIPA), or latent queries read in a pool (CoCa)."""

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
    """open_clip's AttentionalPooler (CoCa): latent queries read all tokens, CLS too; only out_proj follows."""
    attn, some = pool.attn, slice(0, 1) if first else slice(1, None)
    check_linear("the image tower has an AttentionalPooler", attn.out_proj)

    def _qkv(x: Tensor, part: int, positions: Tensor | None) -> Tensor:
        """By one matrix, or by three if keys and values have another width than queries."""
        if attn.in_proj_weight is not None:
            return packed(attn.in_proj_weight, attn.in_proj_bias, x, part)
        weight = (attn.q_proj_weight, attn.k_proj_weight, attn.v_proj_weight)[part]
        return F.linear(x, upcast(weight), upcast(attn.in_proj_bias.chunk(3)[part]))

    return Block(
        pool, attn.num_heads, _qkv, lambda o: linear(attn.out_proj, o), before=pool.ln_k,
        pools=True, latent=lambda: norm(pool.ln_q, upcast(pool.query[some])),
    )  # fmt: skip


def through(transformer: nn.Module, blocks: list[nn.Module], x: Tensor, mask: Tensor | None) -> Tensor:
    """Tokens (B, N, D) through the model's own blocks."""
    x = x if transformer.batch_first else x.transpose(0, 1)  # (B, N, D) or (N, B, D)
    for block in blocks:
        x = block(x, attn_mask=mask)
    return x if transformer.batch_first else x.transpose(0, 1)


def resized(positions: Tensor, own: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Position embeddings (prefix + h*w, D) for another grid, resized as open_clip does."""
    if grid == own:
        return positions
    prefix = len(positions) - own[0] * own[1]
    square = upcast(positions[prefix:]).reshape(1, *own, -1).permute(0, 3, 1, 2)  # (1, D, h, w)
    square = F.interpolate(square, grid, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([upcast(positions[:prefix]), square.flatten(2)[0].T])  # (prefix + h*w, D)


_CLIP_VOCABULARY = 49408
_QUERY_TOKENS = {"argmax": "EOT reads", "eos": "EOT reads", "last": "the last token reads",
                 "first": "the first token reads", "cls": "an appended CLS reads"}  # fmt: skip


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
            raise UnsupportedModel(f"the text tower pools by {pool!r}; only {', '.join(_QUERY_TOKENS)} are known")
        self.pool, self.query_token = pool, _QUERY_TOKENS[pool]
        self.causal = text.attn_mask is not None
        if pool == "first" and self.causal:
            raise UnsupportedModel("the text tower reads its first token, which sees no other token")
        self.masks_padding = pool == "cls" or getattr(text, "use_pad_mask", False)
        self.text_end = getattr(text, "eos_id", getattr(text, "text_eos_id", None))  # known to "eos" only
        self.context_length = text.context_length
        blocks = [open_clip_block(block, self.name) for block in text.transformer.resblocks]
        super().__init__(model, text.transformer, blocks, layers, model.encode_text)
        projection = text.text_projection
        width = text.ln_final.normalized_shape[0]
        self.width = width if projection is None else getattr(projection, "out_features", None) or projection.shape[1]

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
        query_index = (torch.full_like(ends, fixed[self.pool]) if self.pool in fixed else ends)[:, None]  # (B, 1)
        cropped = self.causal and not self.masks_padding
        length = int(query_index.max()) + 1 if cropped else ids.shape[1]  # later tokens are never read
        dtype = text.transformer.get_cast_dtype()
        x = text.token_embedding(ids[:, :length]).to(dtype)
        if self.pool == "cls":
            x = torch.cat([x, text.cls_emb.to(dtype).expand(len(x), 1, -1)], dim=1)
        count = x.shape[1]
        x = x + text.positional_embedding[:count].to(dtype)
        mask = text.attn_mask[:count, :count] if self.causal else None
        attention_mask = self._padding_mask(ids, count) if self.masks_padding else None
        if attention_mask is not None:  # as open_clip gives it to torch: one (N, N) for every input and head
            mask = torch.zeros_like(attention_mask, dtype=dtype).masked_fill(~attention_mask, -torch.inf)
            mask = mask.repeat_interleave(self.blocks[0].heads, dim=0)
        x = upcast(through(text.transformer, [block.module for block in self.below], x, mask))
        valid_mask = torch.arange(count, device=ids.device) <= ends[:, None]  # (B, N)
        return Entry(ids, x, query_index, valid_mask, self.heads, None, attention_mask)

    def _padding_mask(self, ids: Tensor, count: int) -> Tensor:
        """Which tokens see which (B, N, N); padding is hidden."""
        valid_mask = ids != self.text.pad_id
        if self.pool == "cls":
            cls = valid_mask.new_ones(len(valid_mask), 1)
            valid_mask = torch.cat([valid_mask, cls] if self.text.correct_cls_mask else [cls, valid_mask], dim=1)
        attention_mask = valid_mask[:, None, :].expand(-1, count, -1)  # (B, N, N)
        return attention_mask & (self.text.attn_mask[:count, :count] == 0) if self.causal else attention_mask

    def _embed(self, x: Tensor) -> Tensor:
        return project_to(self.text.text_projection, norm(self.text.ln_final, x)[:, 0])


def end_of_text(ids: Tensor, padding: int | None) -> Tensor:
    """The position (B,) of each prompt's last token that is no padding."""
    if padding is not None:
        return (torch.arange(ids.shape[1], device=ids.device) * (ids != padding)).amax(dim=-1)
    return ids.shape[1] - (ids == ids[:, -1:]).flip(-1).int().cumprod(-1).sum(-1)
