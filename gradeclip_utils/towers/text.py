"""open_clip's text transformer, in `CLIP`, `CustomTextCLIP` and `CoCa`: causal or not, read at EOT or not."""

import open_clip
import torch
from open_clip.transformer import TextTransformer
from torch import Tensor, nn

from .base import Entry, Tower
from .blocks import UnsupportedModel, norm, open_clip_block, project_to, upcast
from .vit import through

_CLIP_VOCABULARY = 49408
_QUERY_TOKENS = {"argmax": "EOT reads", "eos": "EOT reads", "last": "the last token reads",
                 "first": "the first token reads", "cls": "an appended CLS reads"}  # fmt: skip


class TextTransformerTower(Tower):
    """The text transformer of open_clip. Two thirds of its layers are explained by default."""

    name, kind = "text", "TextTransformer"

    def __init__(self, model: nn.Module, text: nn.Module, layers: int | None):
        pool = text.pool_type if isinstance(text, TextTransformer) else text.text_pool_type
        pool = pool if getattr(text, "cls_emb", None) is None else "cls"
        if pool not in _QUERY_TOKENS:
            raise UnsupportedModel(f"the text tower pools by {pool!r}; only {', '.join(_QUERY_TOKENS)} are known")
        self.text, self.pool, self.query_token = text, pool, _QUERY_TOKENS[pool]
        self.causal = text.attn_mask is not None
        self.masks_padding = pool == "cls" or getattr(text, "use_pad_mask", False)
        self.text_end = getattr(text, "eos_id", getattr(text, "text_eos_id", None))  # known to "eos" only
        self.context_length = text.context_length
        blocks = [open_clip_block(block, self.name) for block in text.transformer.resblocks]
        super().__init__(model, text.transformer, blocks, layers, model.encode_text)
        projection = text.text_projection
        width = self.text.ln_final.normalized_shape[0]
        self.width = width if projection is None else getattr(projection, "out_features", None) or projection.shape[1]

    def ends(self, ids: Tensor) -> Tensor:
        """Where the words of each prompt end, (B,), for token ids (B, context_length): the position of EOT."""
        if self.pool == "eos":
            return (ids == self.text_end).int().argmax(dim=-1)
        if self.pool == "argmax" or self.text.vocab_size == _CLIP_VOCABULARY:
            return ids.argmax(dim=-1)
        return end_of_text(ids, self.text.pad_id if self.masks_padding else None)

    @torch.no_grad()
    def embed_prompts(self, ids: Tensor) -> Tensor:
        """As `Tower.embed_prompts`; in causal text, every beginning that prompts share is computed once."""
        if not self.causal or self.masks_padding or self.query_token != "EOT reads":
            return super().embed_prompts(ids)
        if not self.verified:
            self.trace(ids[:1])
        nodes: dict[tuple[int, int], int] = {}  # a node is what it follows and its token; what it follows comes first
        ends = []
        for row, end in zip(ids.tolist(), self.ends(ids).tolist(), strict=True):
            node = -1
            for token in row[: end + 1]:
                node = nodes.setdefault((node, token), len(nodes))
            ends.append(node)
        sees = torch.eye(len(nodes), dtype=torch.bool)
        for node, (before, _) in enumerate(nodes):
            if before >= 0:
                sees[node] |= sees[before]
        tokens, sees = (torch.as_tensor(one, device=self.device) for one in ([token for _, token in nodes], sees))
        x = self.text.token_embedding(tokens) + self.text.positional_embedding[sees.sum(-1) - 1]
        x = upcast(x)[None]  # (1, nodes, D)
        everywhere = torch.arange(len(nodes), device=self.device)[None]
        entry = Entry(ids, x, everywhere, everywhere >= 0, self.heads, None, sees[None])
        for position in range(self.depth):
            x = self.run_block(entry, position, x)
        return self._finished(x[0, ends][:, None], entry)

    def _enter(self, ids: Tensor) -> Entry:
        text, ends = self.text, self.ends(ids)
        fixed = {"last": ids.shape[1] - 1, "first": 0, "cls": ids.shape[1]}
        query_index = (torch.full_like(ends, fixed[self.pool]) if self.pool in fixed else ends)[:, None]  # (B, 1)
        cropped = self.causal and not self.masks_padding
        length = int(query_index.max()) + 1 if cropped else ids.shape[1]  # nothing behind it is ever read
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
        """Who sees whom (B, N, N), where padding is hidden."""
        valid_mask = ids != self.text.pad_id
        if self.pool == "cls":
            cls = valid_mask.new_ones(len(valid_mask), 1)
            valid_mask = torch.cat([valid_mask, cls] if self.text.correct_cls_mask else [cls, valid_mask], dim=1)
        attention_mask = valid_mask[:, None, :].expand(-1, count, -1)  # (B, N, N)
        return attention_mask & (self.text.attn_mask[:count, :count] == 0) if self.causal else attention_mask

    def _embed(self, x: Tensor) -> Tensor:
        return project_to(self.text.text_projection, norm(self.text.ln_final, x)[:, 0])


def text_of(model: nn.Module) -> nn.Module:
    """The part that holds the text transformer."""
    text = getattr(model, "text", model)
    if not isinstance(text, (TextTransformer, open_clip.CLIP)):
        raise UnsupportedModel(
            f"the text tower is a {type(text).__name__}; only open_clip's own text transformer and Hugging Face "
            "encoders can be opened (prompts that the model itself has embedded can still be explained: pass the "
            "embeddings)"
        )
    return text


def end_of_text(ids: Tensor, padding: int | None) -> Tensor:
    """The last token (B,) of prompts that is no padding."""
    if padding is not None:
        return (torch.arange(ids.shape[1], device=ids.device) * (ids != padding)).amax(dim=-1)
    return ids.shape[1] - (ids == ids[:, -1:]).flip(-1).int().cumprod(-1).sum(-1)
