"""The base class of all towers: how explained layers are computed.

A family of models says three things, and everything else is here:

    blocks     its layers, each a `Block`, given to `Tower.__init__`
    _enter     inputs -> the tokens that enter the first explained layer, an `Entry`
    _embed     the query tokens after the last layer -> embeddings

`_ResNetTower` in `open_clip.py` is the shortest family. Shapes: B inputs, N tokens, R query tokens,
H heads of C channels, D = H * C, and embeddings of width E.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..checks import whole
from ..errors import GradeclipError, UnsupportedModel, first_line
from .blocks import Block, attend, attend_fused, eval_mode, upcast

_VERIFIED = 4  # inputs of the first batch that are compared with the model's own forward pass
_SMALL = 20_000_000  # weights of a tower; the bundled model's have 3 million, the image tower of ViT-B/16 has 86


@dataclass(frozen=True)
class Layer:
    """The attention of one explained layer, for B inputs."""

    q: Tensor  # (B, R, H, C)
    k: Tensor  # (B, N, H, C)
    v: Tensor  # (B, N, H, C)
    attention: Tensor  # (B, H, R, N): alpha, rows sum to one
    o: Tensor  # (B, R, D): attention output, before out_proj


@dataclass(frozen=True)
class Entry:
    """A batch of inputs as it enters the first explained layer."""

    inputs: (
        Tensor  # pixels (B, 3, H, W) or token ids (B, context_length), as the tower was given them
    )
    tokens: Tensor  # (B, N, D)
    query_index: Tensor  # (B, R), positions of the query tokens; (B, 0) for a latent query, which is no token
    valid_mask: Tensor  # (B, N) bool: the tokens that a map covers (patches; SOT, words and EOT, but no padding)
    heads: int  # of the explained layers
    grid: tuple[int, int] | None = None  # (h, w) of the patches, which are the last h * w tokens
    attention_mask: Tensor | None = (
        None  # (B or 1, H or 1, N, N): bool, True if visible; or added to the logits
    )
    positions: Tensor | None = (
        None  # by which layers rotate tokens (rotary embedding), or which a pool adds to them
    )


@dataclass(frozen=True, kw_only=True)
class Trace(Entry):
    """The same batch with its explained layers, the lowest first, and its embeddings, from one forward pass."""

    layers: tuple[Layer, ...]
    embedding: Tensor  # (B, E), of unit length; the logits of a classifier as they are
    graph: tuple[Tensor, tuple[Tensor, ...]] | None = (
        None  # embedding and each layer's o, as autograd knows them
    )

    @property
    def readers(self) -> Tensor:
        """The tokens that read, (B, N); where all do, padding is none of them."""
        reads = torch.zeros_like(self.valid_mask).scatter(1, self.query_index, True)
        real = reads & self.valid_mask
        return torch.where(real.any(-1, keepdim=True), real, reads)


class Tower:
    """One encoder of a model, opened just before its embedding. `open_image_tower` and `open_text_tower` make them.

    Attributes: `blocks` (all `depth` layers, the lowest first, an attention pool last), `explained`
    (the last `layers` of them), `heads` (of the explained layers), `width` (E), `kind` (the
    encoder's class), `query_token` (which token reads, in words), `causal` and `unit` (whether
    embeddings have unit length). Image towers have `patch_size` and `image_size`, both (height,
    width) in pixels, `any_size` (the model's own forward pass takes other sizes too) and `own_grid`
    (each image keeps its shape); text towers have `context_length` and `ends`.

    Args:
        model: the whole model.
        part: the encoder in it.
        blocks: its layers, the lowest first.
        layers: how many of the last are explained; None for two thirds.
        encode: the model's own forward pass, inputs -> embeddings.

    Raises:
        UnsupportedModel: several layers are to be explained, and the last is an attention pool.
        GradeclipError: there are not so many layers.
    """

    name: str
    causal = False  # no token sees a later one, and the query token comes last
    unit = True
    any_size = own_grid = False
    width: int
    kind: str
    query_token: str
    patch_size: tuple[int, int]
    image_size: tuple[int, int]
    context_length: int

    def __init__(
        self,
        model: nn.Module,
        part: nn.Module,
        blocks: Sequence[Block],
        layers: int | None,
        encode: Callable,
    ):
        layers = max(1, round(2 * len(blocks) / 3)) if layers is None else layers
        layers = whole(f"{self.name}_layers", layers, 1, len(blocks))
        if layers > 1 and blocks[-1].latent:
            raise UnsupportedModel(
                f"the {self.name} tower ends in an attention pool ({type(blocks[-1].module).__name__}), the one layer "
                f"where {self.query_token}, so only this layer can be explained; got {self.name}_layers={layers}"
            )
        self.model, self.part, self.blocks, self.layers = model, part, tuple(blocks), layers
        self.depth = len(self.blocks)
        self.first = self.depth - layers
        self.explained = self.blocks[self.first :]
        self.heads = self.explained[-1].heads
        self.verified = False
        self._encode = encode

    # ----------------------------------------------------------------------- what a family computes

    def _enter(self, inputs: Tensor) -> Entry:
        raise NotImplementedError

    def _embed(self, x: Tensor, entry: Entry) -> Tensor:
        """Query tokens (B, R, D) after the last layer -> embeddings (B, E) of any length."""
        raise NotImplementedError

    def ends(self, ids: Tensor) -> Tensor:
        """The position (B,) of each prompt's last token; text towers only."""
        raise NotImplementedError

    def in_precision(self, pixels: Tensor) -> Tensor:
        """Pixels in the precision of the encoder's first convolution, if it has one."""
        weights = (module.weight for module in self.part.modules() if isinstance(module, nn.Conv2d))
        return pixels.to(next(weights, pixels).dtype)

    def image_entry(
        self,
        pixels: Tensor,
        x: Tensor,
        reads: Sequence[int],
        grid: tuple[int, int],
        positions: Tensor | None = None,
    ) -> Entry:
        """The entry of images, of which the tokens at `reads` are the query tokens; the last h * w are patches."""
        query_index = torch.tensor(list(reads), dtype=torch.long, device=x.device).expand(
            len(x), -1
        )
        patches = torch.arange(x.shape[1], device=x.device) >= x.shape[1] - grid[0] * grid[1]
        return Entry(
            pixels,
            upcast(x),
            query_index,
            patches.expand(len(x), -1),
            self.heads,
            grid,
            None,
            positions,
        )

    # ----------------------------------------------------------------------- what every tower gives

    @property
    def device(self) -> torch.device:
        """The device of the encoder's weights."""
        return next(self.part.parameters()).device

    @property
    def small(self) -> bool:
        """Whether the encoder computes faster in one thread."""
        return sum(p.numel() for p in self.part.parameters()) < _SMALL

    @torch.no_grad()
    def trace(self, inputs: Tensor, graph: bool = False) -> Trace:
        """Trace pixels (B, 3, H, W) or token ids (B, context_length); with `graph`, ready for channel weights."""
        if not self.verified:
            self._verify(inputs[:_VERIFIED])
        return self._finite(self._trace_from(self._entered(inputs), graph))

    def trace_with_grad(self, inputs: Tensor) -> Trace:
        """The same with a graph from embedding, tokens and layers into the parameters, so that they can be trained."""
        return self._trace_from(self._entered(inputs))

    @torch.no_grad()
    def with_one_head(self, trace: Trace) -> Trace:
        """The explained layers computed again with ONE head over the full width, as the paper's published code does."""
        if trace.attention_mask is not None and trace.attention_mask.shape[1] > 1:
            raise UnsupportedModel(
                f"{self.kind} adds a bias to the logits of each head: one head would have none"
            )
        return self._trace_from(replace(trace, heads=1), graph=True)

    def embed_from_attention(self, trace: Trace, delta: Tensor) -> Tensor:
        """Embeddings (B, E) when `delta` (L, B, R, D) is added to o in the L explained layers; differentiable."""
        return self._forward_explained(trace, lambda place, o: o + delta[place])[0]

    def forward_from(self, trace: Trace, layer: int, tokens: Tensor) -> Tensor:
        """Embeddings (B, E) when other tokens (B, N, D) enter block number `layer`, counted from 0, the lowest."""
        for position in range(layer, self.depth):
            tokens = self.run_block(trace, position, tokens)
        return self._finished(tokens if self.blocks[-1].latent else tokens[_at(trace)], trace)

    def run_block(self, trace: Entry, position: int, tokens: Tensor) -> Tensor:
        """One block for every token, (B, N, D) -> (B, N, D); a pool gives its R queries, (B, R, D)."""
        block = self.blocks[position]
        q, k, v = block.project(
            tokens, trace.positions, trace.heads if position >= self.first else block.heads
        )
        return block.after_attention(tokens, attend_fused(q, k, v, trace.attention_mask))

    def dense(self, trace: Trace) -> Tensor:
        """Dense features (B, N, E) of an image: each token as if it attended to itself alone in the last layer."""
        if trace.grid is None:
            raise UnsupportedModel(f"dense features belong to images; this is a {self.name} tower")
        tokens = trace.tokens
        for position in range(self.first, self.depth - 1):
            tokens = self.run_block(trace, position, tokens)
        last = self.blocks[-1]
        v = last.project(tokens, trace.positions, trace.heads)[2].flatten(2)
        return self.embed_alone(trace, last.after_attention(tokens, v))

    def embed_alone(self, trace: Trace, tokens: Tensor) -> Tensor:
        """Unit embeddings (B, N, E) of tokens (B, N, D) of the last block, each as the only one that is read."""
        alone = tokens.flatten(0, 1)[:, None]  # (B*N, 1, D)
        return F.normalize(self._embed(alone, trace), dim=-1).unflatten(0, tokens.shape[:2])

    def embed_pixels(self, pixels: Tensor) -> Tensor:
        """Embeddings (B, E) by the unmodified model in evaluation mode; differentiable in the pixels."""
        with eval_mode(self.model):
            features = self._encode(self.in_precision(pixels))
        features = (
            features[0] if isinstance(features, tuple) else features
        )  # a model with output_tokens gives both
        return F.normalize(upcast(features), dim=-1) if self.unit else upcast(features)

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> Tensor:
        """The same without gradients, also for token ids (B, context_length)."""
        return self.embed_pixels(inputs)

    def reads(self, pixels: Tensor) -> bool:
        """Whether the model's own forward pass takes images of this size: most take one size only."""
        return self.any_size or tuple(pixels.shape[-2:]) == self.image_size

    # ------------------------------------------------------------------------- the explained layers

    def _entered(self, inputs: Tensor) -> Entry:
        with eval_mode(self.model):  # for dropout and batch norm in the layers below
            return self._enter(inputs)

    def _finished(self, x: Tensor, entry: Entry) -> Tensor:
        embedding = self._embed(x, entry)
        return F.normalize(embedding, dim=-1) if self.unit else embedding

    def _trace_from(self, entry: Entry, graph: bool = False) -> Trace:
        entered = {field.name: getattr(entry, field.name) for field in fields(Entry)}
        if not graph:
            embedding, layers = self._forward_explained(entry)
            return Trace(**entered, layers=layers, embedding=embedding)
        with torch.enable_grad():
            embedding, layers = self._forward_explained(
                entry, lambda place, o: o.requires_grad_() if place == 0 else o
            )
        plain = tuple(Layer(*(part.detach() for part in vars(layer).values())) for layer in layers)
        known = embedding, tuple(layer.o for layer in layers)
        return Trace(**entered, layers=plain, embedding=embedding.detach(), graph=known)

    def _forward_explained(
        self, entry: Entry, change: Callable[[int, Tensor], Tensor] | None = None
    ) -> tuple[Tensor, tuple[Layer, ...]]:
        """Embeddings (B, E) and the explained layers, with `change(place, o)` for the o of the query tokens.

        In causal text no other token sees what the query tokens become, nor does any in the last
        layer of all: there only the query tokens feel the change, and the others have no graph.
        """
        at, mask, rows = _at(entry), entry.attention_mask, None
        if mask is not None:  # what query tokens see, (B, H or 1, R, N)
            rows = mask.expand(len(entry.tokens), -1, -1, -1).transpose(1, 2)[at].transpose(1, 2)
        x, own, layers = (
            entry.tokens,
            entry.tokens[at],
            [],
        )  # all tokens, and the query tokens with their change
        for place, block in enumerate(self.explained):
            last = place == self.layers - 1
            unchanged = change is not None and (self.causal or place == 0)
            with torch.no_grad() if unchanged else nullcontext():
                before, (q, k, v) = x, block.project(x, entry.positions, entry.heads)
                if self.causal and not last:
                    x = block.after_attention(x, attend_fused(q, k, v, mask))
            if self.causal or last:
                if self.causal and place > 0:
                    q, *others = block.project(own, entry.positions, entry.heads)
                    k, v = (old.index_put(at, new) for old, new in zip((k, v), others, strict=True))
                elif not block.latent:
                    q, own = q[at], before[at]
                attention, o = attend(q, k, v, rows)
                o = o if change is None else change(place, o)
                own = block.after_attention(own, o)
            else:
                attention, o = attend(q, k, v, mask)
                x = block.after_attention(x, o)
                q, attention, o = q[at], attention.transpose(1, 2)[at].transpose(1, 2), o[at]
                if change is not None:
                    o = change(place, o)
                    x = x.index_put(at, block.after_attention(before[at], o))
            layers.append(Layer(q, k, v, attention, o))
        return self._finished(own, entry), tuple(layers)

    # ------------------------------------------------------------------------ parity with the model

    def _verify(self, inputs: Tensor) -> None:
        """Compare a trace with the model's own forward pass, and refuse a model that computes something else."""
        if self.name == "image" and not self.reads(
            inputs
        ):  # the model itself cannot embed such images
            inputs = F.interpolate(inputs, self.image_size)
        try:
            expected = self.forward(inputs)
            found = self._finite(self._trace_from(self._entered(inputs))).embedding
        except (RuntimeError, TypeError, AttributeError, IndexError, NotImplementedError) as error:
            failed = (
                f"the {self.name} encoder of {type(self.model).__name__} fails in its forward pass"
            )
            if self.name == "text" and inputs.shape[1] < self.context_length:
                failed += f" of {inputs.shape[1]} tokens; give it a tokenizer that fills {self.context_length}"
            raise UnsupportedModel(f"{failed}: {first_line(error)}") from error
        precision = max(
            torch.finfo(p.dtype).eps for p in self.part.parameters() if p.is_floating_point()
        )
        allowed = max(1e-5, precision) * max(1.0, 0.0 if self.unit else expected.abs().max().item())
        difference = (found - expected).abs().max().item()
        if not difference <= allowed:
            seen = (
                "; ".join(_changes_in(self.model)[:3]) or "no hook and no replaced method was found"
            )
            raise UnsupportedModel(
                f"the {self.name} encoder of this {type(self.model).__name__} does not compute what its layers "
                f"say ({seen}; its embeddings differ by {difference:.1e}): remove the changes, or load the model again"
            )
        self.verified = True

    def _finite(self, trace: Trace) -> Trace:
        if torch.isfinite(trace.embedding).all():
            return trace
        broken = (
            name for name, value in self.model.named_parameters() if not torch.isfinite(value).all()
        )
        why = f"{self.name} embedding is NaN or infinite on this input"
        if name := next(broken, None):
            why = f"weight {name!r} holds NaN or infinite values"
        raise GradeclipError(f"the model cannot be explained: its {why}")


def _changes_in(model: nn.Module) -> list[str]:
    """The hooks, replaced methods and classes from outside the known libraries that a model contains, in words."""
    libraries, found = ("torch.", "open_clip.", "timm.", "transformers.", "peft."), []
    for name, module in model.named_modules():
        name, kind = name or "the model", type(module)
        replaced = [key for key in vars(module) if callable(getattr(kind, key, None))]
        if module._forward_hooks or module._forward_pre_hooks:
            found.append(f"a hook on {name}")
        elif replaced:
            found.append(f"another {replaced[0]} of {name}")
        elif not kind.__module__.startswith(libraries):
            found.append(f"{name} is a {kind.__name__} of {kind.__module__}")
    return found


def _at(entry: Entry) -> tuple[Tensor, Tensor]:
    """An index of the query tokens."""
    return torch.arange(len(entry.query_index), device=entry.query_index.device)[
        :, None
    ], entry.query_index
