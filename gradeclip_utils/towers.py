"""Towers: from a picture or a prompt to a trace, and on from there.

    architecture --trace--> Trace --method--> map --Explanation--> picture

A tower is one of CLIP's two encoders, opened just before its embedding. In each explained layer the *reading tokens*
(CLS; EOT; every patch where the tower averages) ask a query of the others and collect

    o = sum_i alpha_i v_i,        alpha = softmax_i(q . k_i / sqrt(C)),        head by head,

and what the tower does with ``o`` afterwards is the *readout*. A tower therefore answers four questions, and knows
nothing of relevance: ``trace`` (what were q, k, v, alpha and o?), ``readout`` (what would the embedding be if o were
nudged?), ``resume`` (what would it be if other tokens entered a layer?) and ``forward`` (what does the unmodified
model say?). A new model family is one more tower.

Three promises. Nothing is patched: the layers below are the model's own blocks, the explained ones are computed here
from the model's parameters, without hooks, in float32 at least. What the readout cannot feel is not computed: causal
text stops at its last EOT, and the last block runs for the reading tokens alone. And the trace is the model: the first
trace of every tower is compared with the model's own forward pass.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import open_clip
import torch
from open_clip.transformer import TextTransformer, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import (
    UnsupportedModel,
    attend,
    attend_fused,
    check_blocks,
    finish,
    linear,
    norm,
    project,
    whole_block,
    wide,
)


@dataclass(frozen=True)
class Layer:
    """What one explained layer did: B inputs, N tokens, R reading tokens, H heads of C channels, D = H * C."""

    q: Tensor  # (B, R, H, C)
    k: Tensor  # (B, N, H, C)
    v: Tensor  # (B, N, H, C)
    attention: Tensor  # (B, H, R, N): alpha, rows sum to one
    o: Tensor  # (B, R, D): attention output, before out_proj


@dataclass(frozen=True)
class Entry:
    """A batch of inputs as it enters the first explained layer."""

    tokens: Tensor  # (B, N, D)
    reading: Tensor  # (B, R), positions of the reading tokens
    real: Tensor  # (B, N) bool: the tokens that a map is about (patches; SOT, pieces and EOT, but no padding)
    heads: int  # of the explained layers
    grid: tuple[int, int] | None  # (h, w) of the patches, which are the last h * w tokens


@dataclass(frozen=True)
class Trace(Entry):
    """What became of it: the explained layers, the first one first, from one forward pass without a graph."""

    layers: tuple[Layer, ...]
    embedding: Tensor  # (B, E), unit length


class Tower:
    """What both towers share: explained layers computed from parameters. See the module for the idea.

    ``shielded`` says that, within the explained layers, no other token sees what the reading tokens become: always
    so in causal text, whose EOT comes last, and in a single image layer. Then the readout carries the reading tokens
    alone, and the others are remembered as keys and values. Otherwise it carries every token.
    """

    name: str
    causal: bool

    def __init__(self, model: nn.Module, transformer: nn.Module, layers: int):
        blocks = transformer.resblocks
        check_blocks(blocks, self.name)
        if not isinstance(layers, int) or not 1 <= layers <= len(blocks):
            raise ValueError(f"{self.name}_layers must be a whole number from 1 to {len(blocks)}, got {layers!r}")
        self.model, self.transformer, self.layers = model, transformer, layers
        self.below, self.explained = blocks[: len(blocks) - layers], blocks[len(blocks) - layers :]
        self.heads = blocks[0].attn.num_heads
        self.shielded = self.causal or layers == 1
        self.verified = False

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.explained[0].attn.in_proj_weight.device

    @torch.no_grad()
    def trace(self, inputs: Tensor) -> Trace:
        """Trace pixels (B, 3, H, W) or token ids (B, context_length).

        Raises:
            ValueError: the embedding is not finite (the message names the broken weight).
            RuntimeError: the first trace of this tower is not what the model's own forward pass gives.
        """
        trace = self._trace_from(self._enter(inputs))
        if not torch.isfinite(trace.embedding).all():
            raise ValueError(self._why_not_finite())
        if not self.verified:
            self._verify(inputs, trace)
            self.verified = True
        return trace

    @torch.no_grad()
    def with_one_head(self, trace: Trace) -> Trace:
        """The explained layers run again with ONE head over the full width, as the published code does.

        The result has another embedding: it traces a network that the model's training never saw.
        """
        return self._trace_from(Entry(trace.tokens, trace.reading, trace.real, 1, trace.grid))

    def readout(self, trace: Trace, nudge: Tensor) -> Tensor:
        """Unit embeddings (B, E) when ``nudge`` (L, B, R, D) is added to o in the L explained layers.

        A plain differentiable function, so that reverse mode gives channel weights and forward mode word directions.
        """
        return self._read(trace, [(layer.k, layer.v) for layer in trace.layers], nudge)[0]

    def resume(self, trace: Trace, layer: int, tokens: Tensor) -> Tensor:
        """Unit embeddings (B, E) when ``tokens`` (B, N, D) enter block ``layer``, counted from 0, the lowest.

        Every token is computed. The trace says where to read, and how many heads its explained layers have.
        """
        for position, block in enumerate(self.transformer.resblocks[layer:], start=layer):
            heads = trace.heads if position >= len(self.below) else self.heads
            tokens = whole_block(block, tokens, heads, self.causal)
        return self._embed(tokens[_rows(trace.reading), trace.reading])

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> Tensor:
        """Unit embeddings (B, E) by the unmodified model, in evaluation mode, on inputs of its own size."""
        with _evaluating(self.model):
            features = self._encode(inputs)
        features = features[0] if isinstance(features, tuple) else features  # a model with output_tokens gives both
        return F.normalize(wide(features), dim=-1)

    def _trace_from(self, entry: Entry) -> Trace:
        embedding, layers = self._read(entry, self._remember(entry) if self.shielded else None)
        return Trace(entry.tokens, entry.reading, entry.real, entry.heads, entry.grid, layers, embedding)

    def _remember(self, entry: Entry) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of all tokens in every explained layer; of the last block nothing else is computed."""
        remembered, tokens = [], entry.tokens
        for position, block in enumerate(self.explained):
            x = norm(block.ln_1, tokens)
            k, v = project(block, x, 1, entry.heads), project(block, x, 2, entry.heads)
            remembered.append((k, v))
            if position < self.layers - 1:
                o = attend_fused(project(block, x, 0, entry.heads), k, v, self.causal)
                tokens = finish(block, tokens, o)
        return remembered

    def _read(self, entry: Entry, remembered: list[tuple[Tensor, Tensor]] | None, nudge: Tensor | None = None):
        """Unit embeddings (B, E) and the explained layers, computed for no more tokens than the readout can feel."""
        at = _rows(entry.reading), entry.reading
        visible = entry.real[:, None, None] if self.causal else None  # (B, 1, 1, N): EOT sees what stands before it
        x, layers = entry.tokens[at] if self.shielded else entry.tokens, []
        for position, block in enumerate(self.explained):
            normed = norm(block.ln_1, x)
            q, k, v = (project(block, normed, part, entry.heads) for part in range(3))
            if self.shielded:  # the other tokens are as they were
                k, v = (old.index_put(at, new) for old, new in zip(remembered[position], (k, v), strict=True))
            attention, o = attend(q, k, v, visible)
            if nudge is not None:
                o = o + nudge[position] if self.shielded else o.index_put(at, nudge[position], accumulate=True)
            layers.append(
                Layer(q, k, v, attention, o)
                if self.shielded
                else Layer(q[at], k, v, attention.transpose(1, 2)[at].transpose(1, 2), o[at])
            )
            x = finish(block, x, o)
        return self._embed(x if self.shielded else x[at]), tuple(layers)

    def _verify(self, inputs: Tensor, trace: Trace) -> None:
        own = self._at_own_size(inputs)  # a native picture has no plain forward pass
        found = trace if own is inputs else self._trace_from(self._enter(own))
        allowed = max(1e-5, torch.finfo(self.transformer.get_cast_dtype()).eps)
        difference = (found.embedding - self.forward(own)).abs().max().item()
        if not difference <= allowed:
            raise RuntimeError(
                f"the {self.name} tower of {type(self.model).__name__} was opened wrongly: its trace differs from the "
                f"model's own forward pass by {difference:.1e} (allowed {allowed:.1e})"
            )

    def _why_not_finite(self) -> str:
        for name, parameter in self.model.named_parameters():
            if not torch.isfinite(parameter).all():
                return f"the model cannot be explained: its weight {name!r} holds NaN or infinite values"
        return f"the model cannot be explained: its {self.name} embedding is NaN or infinite on this input"


class ImageTower(Tower):
    """open_clip's VisionTransformer: a CLS token that reads, or all patches read and are averaged (CLIPA)."""

    name, causal = "image", False

    def __init__(self, model: nn.Module, layers: int = 1):
        visual = getattr(model, "visual", None)
        if not isinstance(visual, VisionTransformer):
            trunk = getattr(visual, "trunk", None)
            inside = f" (timm trunk {type(trunk).__name__})" if trunk is not None else ""
            raise UnsupportedModel(
                f"the image tower is a {type(visual).__name__}{inside}, only a VisionTransformer can be opened"
            )
        if visual.attn_pool is not None:
            raise UnsupportedModel("the image tower ends in an AttentionalPooler (CoCa), which cannot be opened yet")
        if visual.pool_type not in ("tok", "avg"):
            raise UnsupportedModel(f"the image tower pools by {visual.pool_type!r}; only 'tok' and 'avg' are known")
        if getattr(visual, "input_patchnorm", False):
            raise UnsupportedModel("the image tower normalises its patches (input_patchnorm), which cannot be opened")
        self.visual = visual
        super().__init__(model, visual.transformer, layers)

    def _encode(self, pixels: Tensor) -> Tensor:
        return self.model.encode_image(pixels.to(self.visual.conv1.weight.dtype))

    def _at_own_size(self, pixels: Tensor) -> Tensor:
        size = tuple(self.visual.image_size)
        return pixels if tuple(pixels.shape[-2:]) == size else F.interpolate(pixels, size)

    def _enter(self, pixels: Tensor) -> Entry:
        visual = self.visual
        x = visual.conv1(pixels.to(visual.conv1.weight))  # (B, D, h, w)
        grid = tuple(x.shape[-2:])
        x = x.flatten(2).transpose(1, 2)  # (B, h*w, D)
        x = torch.cat([visual.class_embedding.to(x).expand(len(x), 1, -1), x], dim=1)  # (B, 1 + h*w, D)
        x = visual.ln_pre(x + self._positions(grid).to(x))  # patch dropout belongs to training and is left out
        x = _through(self.transformer, self.below, x, None)
        reads = [0] if visual.pool_type == "tok" else range(1, x.shape[1])
        reading = torch.tensor(list(reads), device=x.device).expand(len(x), -1)  # (B, R)
        patches = (torch.arange(x.shape[1], device=x.device) > 0).expand(len(x), -1)  # (B, N)
        return Entry(wide(x), reading, patches, self.heads, grid)

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        """Position embeddings (1 + h*w, D); for another grid than the model's own, as open_clip resizes them."""
        positions, own = self.visual.positional_embedding, tuple(self.visual.grid_size)
        if grid == own:
            return positions
        square = wide(positions[1:]).reshape(1, *own, -1).permute(0, 3, 1, 2)  # (1, D, h, w)
        square = F.interpolate(square, grid, mode="bicubic", antialias=True, align_corners=False)
        return torch.cat([wide(positions[:1]), square.flatten(2)[0].T])  # (1 + h*w, D)

    def _embed(self, x: Tensor) -> Tensor:
        if self.visual.final_ln_after_pool:
            pooled = norm(self.visual.ln_post, x.mean(1))  # (B, R, D) -> (B, D)
        else:
            pooled = norm(self.visual.ln_post, x).mean(1)
        return F.normalize(pooled if self.visual.proj is None else pooled @ wide(self.visual.proj), dim=-1)


class TextTower(Tower):
    """CLIP's causal text transformer, in ``CLIP`` or ``CustomTextCLIP``: EOT reads. Two thirds of it by default."""

    name, causal = "text", True

    def __init__(self, model: nn.Module, layers: int | None = None):
        text = getattr(model, "text", model)
        if not isinstance(text, (TextTransformer, open_clip.CLIP)):
            raise UnsupportedModel(
                f"the text tower is a {type(text).__name__}; only CLIP's own causal text transformer can be opened"
            )
        pool = text.pool_type if isinstance(text, TextTransformer) else text.text_pool_type
        if getattr(text, "cls_emb", None) is not None:
            raise UnsupportedModel("the text tower appends a class token (CoCa), which cannot be opened yet")
        if text.attn_mask is None:
            raise UnsupportedModel("the text tower is not causal (no_causal_mask), which cannot be opened yet")
        if pool not in ("argmax", "eos"):
            raise UnsupportedModel(f"the text tower pools by {pool!r}; only 'argmax' and 'eos' are known")
        self.text = text
        self.end_id = None if pool == "argmax" else getattr(text, "eos_id", getattr(text, "text_eos_id", None))
        if layers is None:
            layers = max(1, round(2 * len(text.transformer.resblocks) / 3))
        super().__init__(model, text.transformer, layers)

    def _encode(self, ids: Tensor) -> Tensor:
        return self.model.encode_text(ids)

    def _at_own_size(self, ids: Tensor) -> Tensor:
        return ids

    def reading_positions(self, ids: Tensor) -> Tensor:
        """Where each prompt ends and is read, (B,), for token ids (B, context_length)."""
        return (ids if self.end_id is None else (ids == self.end_id).int()).argmax(dim=-1)

    def _enter(self, ids: Tensor) -> Entry:
        end = self.reading_positions(ids)
        length = int(end.max()) + 1  # nothing behind the last EOT is ever read
        dtype = self.transformer.get_cast_dtype()
        x = self.text.token_embedding(ids[:, :length]).to(dtype) + self.text.positional_embedding[:length].to(dtype)
        x = _through(self.transformer, self.below, x, self.text.attn_mask[:length, :length])
        real = torch.arange(length, device=ids.device) <= end[:, None]  # (B, N)
        return Entry(wide(x), end[:, None], real, self.heads, None)

    def _embed(self, x: Tensor) -> Tensor:
        pooled, projection = norm(self.text.ln_final, x)[:, 0], self.text.text_projection
        if isinstance(projection, nn.Linear):
            return F.normalize(linear(projection, pooled), dim=-1)
        return F.normalize(pooled if projection is None else pooled @ wide(projection), dim=-1)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; every module gets its own mode back, whatever happens."""
    training = [module for module in model.modules() if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True


def _through(transformer: nn.Module, blocks: nn.ModuleList, x: Tensor, mask: Tensor | None) -> Tensor:
    """The model's own blocks, in the order of axes that they were built for."""
    x = x if transformer.batch_first else x.transpose(0, 1)  # (B, N, D) or (N, B, D)
    for block in blocks:
        x = block(x, attn_mask=mask)
    return x if transformer.batch_first else x.transpose(0, 1)


def _rows(reading: Tensor) -> Tensor:
    return torch.arange(len(reading), device=reading.device)[:, None]  # (B, 1), beside reading (B, R)
