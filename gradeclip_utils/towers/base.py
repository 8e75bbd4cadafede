"""The base class of all towers: how explained layers are computed.

A family of models says three things, and everything else is here:

    blocks     its layers, each a `Block`, given to `Tower.__init__`
    _enter     inputs -> the tokens that enter the first explained layer, an `Entry`
    _embed     the query tokens after the last layer -> embeddings

`_ResNetTower` in `open_clip.py` is the shortest family. Shapes: B inputs, N tokens, R query tokens,
H heads of C channels, D = H * C, and embeddings of width E.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import GradeclipError, UnsupportedModel, first_line
from .blocks import Block, attend, attend_fused, eval_mode, upcast

INPUTS_VERIFIED = 4  # of the first batch, compared with the model's own forward pass
# Weights of a tower that computes faster in one thread. The bundled model's have 3 million, the
# image tower of ViT-B/16 has 86.
SMALL_TOWER = 20_000_000
KNOWN_LIBRARIES = ("torch.", "open_clip.", "timm.", "transformers.", "peft.")
# The part of a trace that autograd knows, by the name of its field in `Trace`
Graph = Literal["query_graph", "pixel_graph", "layer_graph"]
# (place among the explained layers, o of its query tokens) -> another o
Change = Callable[[int, Tensor], Tensor]


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

    # pixels (B, 3, H, W) or token ids (B, context_length), as the tower was given them
    inputs: Tensor
    tokens: Tensor  # (B, N, D)
    # (B, R), positions of the query tokens; (B, 0) for a latent query, which is no token
    query_index: Tensor
    # (B, N) bool: the tokens that a map covers (patches; SOT, words and EOT, but no padding)
    valid_mask: Tensor
    heads: int  # of the explained layers
    grid: tuple[int, int] | None = None  # (h, w) of the patches, which are the last h * w tokens
    attention_mask: Tensor | None = None  # (B or 1, 1, N, N) bool: True if visible
    # by which layers rotate tokens (rotary embedding), or which a pool adds to them
    positions: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Trace(Entry):
    """The same batch with its explained layers and its embeddings, from one forward pass."""

    layers: tuple[Layer, ...]  # the lowest first
    embedding: Tensor  # (B, E), of unit length; the logits of a classifier as they are
    # At most one of these is there, with its tensors as autograd knows them:
    # embedding and each layer's o, for channel weights
    query_graph: tuple[Tensor, tuple[Tensor, ...]] | None = None
    # embedding and inputs
    pixel_graph: tuple[Tensor, Tensor] | None = None
    # each layer's attention (B, H, N, N) and output (B, N, D) for all tokens
    layer_graph: tuple[tuple[Tensor, Tensor], ...] | None = None

    @property
    def readers(self) -> Tensor:
        """The tokens that read, (B, N); where all do, padding is none of them."""
        reads = torch.zeros_like(self.valid_mask).scatter(1, self.query_index, True)
        reads_and_valid = reads & self.valid_mask
        return torch.where(reads_and_valid.any(-1, keepdim=True), reads_and_valid, reads)


class Tower:
    """One encoder of a model, opened just before its embedding.

    `open_image_tower` and `open_text_tower` make them.

    Attributes: `blocks` (all `depth` layers, the lowest first, an attention pool last), `explained`
    (the last `layers` of them, from number `first`), `heads` (of the explained layers), `width`
    (E), `kind` (the encoder's class), `query_token` (which token reads, in words), `causal` and
    `unit` (whether embeddings have unit length). Image towers have `patch_size` and `image_size`,
    both (height, width) in pixels, `any_size` (the model's own forward pass takes other sizes too),
    and `query_tokens` (which tokens read); text towers have `context_length` and `ends`.

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

    name: Literal["image", "text"]
    causal = False  # no token sees a later one, and the query token comes last
    unit = True
    any_size = False
    query_tokens = slice(0, 1)  # by default CLS
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
        if layers is None:
            layers = max(1, round(2 * len(blocks) / 3))
        if not 1 <= layers <= len(blocks):
            msg = f"{self.name}_layers must be between 1 and {len(blocks)}, got {layers}"
            raise GradeclipError(msg)
        if layers > 1 and blocks[-1].latent:
            raise UnsupportedModel(
                f"the {self.name} tower ends in an attention pool "
                f"({type(blocks[-1].module).__name__}), the one layer where {self.query_token}, "
                f"so only this layer can be explained; got {self.name}_layers={layers}"
            )

        if blocks[-1].latent:
            self.query_tokens = slice(0, 0)  # a latent query is no token

        self.model = model
        self.part = part
        self.blocks = tuple(blocks)
        self.layers = layers
        self.depth = len(self.blocks)
        self.first = self.depth - layers
        self.explained = self.blocks[self.first :]
        self.heads = self.explained[-1].heads
        self.verified = False
        self._encode = encode

    # --------------------------------------------------------------------- what a family computes

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
        for module in self.part.modules():
            if isinstance(module, nn.Conv2d):
                return pixels.to(module.weight.dtype)
        return pixels

    def image_entry(
        self,
        pixels: Tensor,
        x: Tensor,
        grid: tuple[int, int],
        positions: Tensor | None = None,
    ) -> Entry:
        """The entry of images, of whose tokens (B, N, D) the last h * w are patches."""
        batch, token_count, _ = x.shape
        place = torch.arange(token_count, device=x.device).expand(batch, -1)  # (B, N)

        return Entry(
            inputs=pixels,
            tokens=upcast(x),
            query_index=place[:, self.query_tokens],
            valid_mask=place >= token_count - grid[0] * grid[1],
            heads=self.heads,
            grid=grid,
            positions=positions,
        )

    # --------------------------------------------------------------------- what every tower gives

    @property
    def device(self) -> torch.device:
        """The device of the encoder's weights."""
        return next(self.part.parameters()).device

    @property
    def small(self) -> bool:
        """Whether the encoder computes faster in one thread."""
        return sum(weight.numel() for weight in self.part.parameters()) < SMALL_TOWER

    @torch.no_grad()
    def trace(self, inputs: Tensor, graph: Graph | None = None) -> Trace:
        """Trace pixels (B, 3, H, W) or token ids (B, context_length).

        With "query_graph", the trace is ready for channel weights; with "pixel_graph", for
        gradients of pixels, if there are any; with "layer_graph", for those of the attention of all
        tokens.
        """
        if not self.verified:
            self._verify(inputs[:INPUTS_VERIFIED])
        if graph == "pixel_graph" and self.name == "image":
            trace = self._trace_with_pixel_graph(inputs)
        elif graph == "layer_graph":
            trace = self._trace_with_layer_graph(self._enter_in_eval_mode(inputs))
        elif graph == "query_graph":
            trace = self._trace_with_query_graph(self._enter_in_eval_mode(inputs))
        else:
            trace = self.trace_with_grad(inputs)
        self._check_finite(trace)
        return trace

    def trace_with_grad(self, inputs: Tensor) -> Trace:
        """The same with a graph from embedding, tokens and layers into the parameters to train."""
        entry = self._enter_in_eval_mode(inputs)
        embedding, layers = self._forward_explained(entry)
        return Trace(**_as_fields(entry), layers=layers, embedding=embedding)

    @torch.no_grad()
    def with_one_head(self, trace: Trace) -> Trace:
        """The explained layers with ONE head over the full width, as the published code has them.

        They are computed again, unless they have one head.
        """
        if trace.heads == 1:
            return trace
        return self.trace_again(replace(trace, heads=1))

    @torch.no_grad()
    def trace_again(self, entry: Entry) -> Trace:
        """The explained layers computed again from a changed entry, such as one with a mask.

        The trace is ready for channel weights.
        """
        return self._trace_with_query_graph(entry)

    def embed_from_attention(self, trace: Trace, delta: Tensor) -> Tensor:
        """Embeddings (B, E) when `delta` (L, B, R, D) is added to o in the L explained layers.

        Differentiable.
        """
        embedding, _ = self._forward_explained(trace, lambda place, o: o + delta[place], trace)
        return embedding

    def forward_from(self, trace: Trace, layer: int, tokens: Tensor) -> Tensor:
        """Embeddings (B, E) when other tokens (B, N, D) enter block number `layer`, from 0."""
        for position in range(layer, self.depth):
            tokens = self.run_block(trace, position, tokens)
        if not self.blocks[-1].latent:
            tokens = tokens[_query_positions(trace)]  # (B, R, D)
        return self._scaled(self._embed(tokens, trace))

    def run_block(self, trace: Entry, position: int, tokens: Tensor) -> Tensor:
        """One block for every token, (B, N, D) -> (B, N, D); a pool gives (B, R, D)."""
        block = self.blocks[position]
        heads = trace.heads if position >= self.first else block.heads
        q, k, v = block.project(tokens, trace.positions, heads)
        return block.after_attention(tokens, attend_fused(q, k, v, trace.attention_mask))

    def run_explained(self, entry: Entry) -> Iterator[tuple[Layer, Tensor]]:
        """Each explained layer for every token as a query (R = N), and its output (B, N, D).

        They are part of a graph if the caller has one.
        """
        tokens = entry.tokens.detach().requires_grad_()
        for block in self.explained:
            q, k, v = block.project(tokens, entry.positions, entry.heads)
            attention, o = attend(q, k, v, entry.attention_mask)
            tokens = block.after_attention(tokens, o)
            yield Layer(q, k, v, attention, o), tokens

    def dense(self, trace: Trace) -> Tensor:
        """Dense features (B, N, E) of an image.

        Each token is embedded as if it attended to itself alone in the last layer (MaskCLIP, Zhou
        et al., ECCV 2022).

        Raises:
            UnsupportedModel: it is a text tower.
        """
        if trace.grid is None:
            raise UnsupportedModel(f"dense features belong to images; this is a {self.name} tower")
        tokens = trace.tokens
        for position in range(self.first, self.depth - 1):
            tokens = self.run_block(trace, position, tokens)

        last = self.blocks[-1]
        _, _, v = last.project(tokens, trace.positions, trace.heads)
        return self.embed_alone(trace, last.after_attention(tokens, v.flatten(2)))

    def embed_alone(self, trace: Trace, tokens: Tensor) -> Tensor:
        """Unit embeddings (B, N, E) of tokens (B, N, D), each as the only one that is read."""
        alone = tokens.flatten(0, 1)[:, None]  # (B * N, 1, D)
        embeddings = F.normalize(self._embed(alone, trace), dim=-1)  # (B * N, E)
        return embeddings.unflatten(0, tokens.shape[:2])

    def embed_pixels(self, pixels: Tensor) -> Tensor:
        """Embeddings (B, E) by the unmodified model in evaluation mode.

        Differentiable in the pixels.
        """
        with eval_mode(self.model):
            features = self._encode(self.in_precision(pixels))
        if isinstance(features, tuple):  # a model with output_tokens gives both
            features = features[0]
        return self._scaled(upcast(features))

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> Tensor:
        """The same without gradients, also for token ids (B, context_length)."""
        return self.embed_pixels(inputs)

    def reads(self, pixels: Tensor) -> bool:
        """Whether the model's own forward pass takes images of this size: most take one only."""
        return self.any_size or tuple(pixels.shape[-2:]) == self.image_size

    # ----------------------------------------------------------------------- the explained layers

    def _enter_in_eval_mode(self, inputs: Tensor) -> Entry:
        """Inputs at the first explained layer, without dropout or batch statistics below it."""
        with eval_mode(self.model):
            return self._enter(inputs)

    def _scaled(self, embedding: Tensor) -> Tensor:
        """Embeddings of unit length; the logits of a classifier as they are."""
        return F.normalize(embedding, dim=-1) if self.unit else embedding

    def _trace_with_query_graph(self, entry: Entry) -> Trace:
        """The trace of an entry, with a graph from the o of its layers to the embedding."""

        def start_graph(place: int, o: Tensor) -> Tensor:
            return o.requires_grad_() if place == 0 else o

        with torch.enable_grad():
            embedding, layers = self._forward_explained(entry, start_graph)
        return Trace(
            **_as_fields(entry),
            layers=tuple(_detached(layer) for layer in layers),
            embedding=embedding.detach(),
            query_graph=(embedding, tuple(layer.o for layer in layers)),
        )

    def _trace_with_pixel_graph(self, inputs: Tensor) -> Trace:
        """The trace of pixels, whose embedding alone has a graph."""
        pixels = inputs.detach().clone().requires_grad_()
        with torch.enable_grad():
            trace = self.trace_with_grad(pixels)

        positions = trace.positions
        return replace(
            trace,
            inputs=inputs,
            tokens=trace.tokens.detach(),
            positions=None if positions is None else positions.detach(),
            layers=tuple(_detached(layer) for layer in trace.layers),
            embedding=trace.embedding.detach(),
            pixel_graph=(trace.embedding, pixels),
        )

    def _trace_with_layer_graph(self, entry: Entry) -> Trace:
        """The trace of an entry, with a graph through its explained layers for all tokens."""
        queries = _query_positions(entry)
        layers = []
        graph = []
        with torch.enable_grad():
            for layer, tokens in self.run_explained(entry):
                graph.append((layer.attention, tokens))
                if not self.explained[-1].latent:
                    layer = _rows_of(layer, queries)
                layers.append(_detached(layer))

        query_tokens = tokens.detach()
        if not self.explained[-1].latent:
            query_tokens = query_tokens[queries]  # (B, R, D)
        return Trace(
            **_as_fields(entry),
            layers=tuple(layers),
            embedding=self._scaled(self._embed(query_tokens, entry)),
            layer_graph=tuple(graph),
        )

    def _forward_explained(
        self,
        entry: Entry,
        change: Change | None = None,
        unchanged: Trace | None = None,
    ) -> tuple[Tensor, tuple[Layer, ...]]:
        """Embeddings (B, E) and explained layers, with `change(place, o)` for the queries' o.

        `unchanged` is the trace of the same entry without the change, if there is one.
        """
        if self.causal:
            return self._forward_causal(entry, change, unchanged)
        return self._forward_all_tokens(entry, change)

    def _forward_causal(
        self,
        entry: Entry,
        change: Change | None,
        unchanged: Trace | None,
    ) -> tuple[Tensor, tuple[Layer, ...]]:
        """The same where the query token comes last, and no other token sees what it becomes.

        Only the query token feels the change; the others have no graph, and are not computed again.
        """
        queries = _query_positions(entry)
        query_mask = _query_mask(entry)
        tokens = entry.tokens  # (B, N, D), as they are without the change
        query_tokens = tokens[queries]  # (B, R, D), as they are with it

        layers = []
        for place, block in enumerate(self.explained):
            if unchanged is not None:
                layer = _detached(unchanged.layers[place])
                q, k, v = layer.q, layer.k, layer.v
            else:
                with _no_graph_if(change is not None):
                    q, k, v = block.project(tokens, entry.positions, entry.heads)
                    if place < self.layers - 1:
                        o_of_all = attend_fused(q, k, v, entry.attention_mask)  # (B, N, D)
                        tokens = block.after_attention(tokens, o_of_all)
                q = q[queries]  # (B, R, H, C)

            if place > 0:  # the change below has reached the query token, which also reads itself
                q, changed_k, changed_v = block.project(query_tokens, entry.positions, entry.heads)
                k = k.index_put(queries, changed_k)
                v = v.index_put(queries, changed_v)

            attention, o = attend(q, k, v, query_mask)
            if change is not None:
                o = change(place, o)
            query_tokens = block.after_attention(query_tokens, o)
            layers.append(Layer(q, k, v, attention, o))
        return self._scaled(self._embed(query_tokens, entry)), tuple(layers)

    def _forward_all_tokens(
        self,
        entry: Entry,
        change: Change | None,
    ) -> tuple[Tensor, tuple[Layer, ...]]:
        """The same where all tokens see the query tokens, and pass the change on."""
        queries = _query_positions(entry)
        tokens = entry.tokens  # (B, N, D)

        layers = []
        for place, block in enumerate(self.explained):
            with _no_graph_if(change is not None and place == 0):
                q, k, v = block.project(tokens, entry.positions, entry.heads)
            query_tokens = tokens[queries]  # (B, R, D)

            if place < self.layers - 1:
                attention, o_of_all = attend(q, k, v, entry.attention_mask)
                tokens = block.after_attention(tokens, o_of_all)
                q, o = q[queries], o_of_all[queries]
                attention = attention.transpose(1, 2)[queries].transpose(1, 2)  # (B, H, R, N)
                if change is not None:
                    o = change(place, o)
                    tokens = tokens.index_put(queries, block.after_attention(query_tokens, o))
            else:  # no token reads the others' output of the last layer
                if not block.latent:
                    q = q[queries]
                attention, o = attend(q, k, v, _query_mask(entry))
                if change is not None:
                    o = change(place, o)
                query_tokens = block.after_attention(query_tokens, o)
            layers.append(Layer(q, k, v, attention, o))
        return self._scaled(self._embed(query_tokens, entry)), tuple(layers)

    # ---------------------------------------------------------------------- parity with the model

    def _verify(self, inputs: Tensor) -> None:
        """Compare a trace with the model's own pass; refuse a model that does something else."""
        if self.name == "image" and not self.reads(inputs):
            inputs = F.interpolate(inputs, self.image_size)
        try:
            expected = self.forward(inputs)
            trace = self.trace_with_grad(inputs)
        except (RuntimeError, TypeError, AttributeError, IndexError, NotImplementedError) as error:
            failed = (
                f"the {self.name} encoder of {type(self.model).__name__} fails in its forward pass"
            )
            if self.name == "text" and inputs.shape[1] < self.context_length:
                failed += f" of {inputs.shape[1]} tokens; give it a tokenizer that fills "
                failed += f"{self.context_length}"
            raise UnsupportedModel(f"{failed}: {first_line(error)}") from error
        self._check_finite(trace)

        floats = [weight for weight in self.part.parameters() if weight.is_floating_point()]
        allowed = max(1e-5, *(torch.finfo(weight.dtype).eps for weight in floats))
        if not self.unit:
            allowed *= max(1.0, expected.abs().max().item())
        difference = (trace.embedding - expected).abs().max().item()
        if not difference <= allowed:  # NaN is refused, too
            changes = _changes_in(self.model)[:3] or ["no hook and no replaced method was found"]
            raise UnsupportedModel(
                f"the {self.name} encoder of this {type(self.model).__name__} does not compute "
                f"what its layers say ({'; '.join(changes)}; its embeddings differ by "
                f"{difference:.1e}): remove the changes, or load the model again"
            )
        self.verified = True

    def _check_finite(self, trace: Trace) -> None:
        if torch.isfinite(trace.embedding).all():
            return
        reason = f"{self.name} embedding is NaN or infinite on this input"
        for name, weight in self.model.named_parameters():
            if not torch.isfinite(weight).all():
                reason = f"weight {name!r} holds NaN or infinite values"
                break
        raise GradeclipError(f"the model cannot be explained: its {reason}")


def _changes_in(model: nn.Module) -> list[str]:
    """Hooks, replaced methods and classes from outside the known libraries in a model, in words."""
    changes = []
    for name, module in model.named_modules():
        name = name or "the model"
        kind = type(module)
        replaced = [key for key in vars(module) if callable(getattr(kind, key, None))]
        if module._forward_hooks or module._forward_pre_hooks:
            changes.append(f"a hook on {name}")
        elif replaced:
            changes.append(f"another {replaced[0]} of {name}")
        elif not kind.__module__.startswith(KNOWN_LIBRARIES):
            changes.append(f"{name} is a {kind.__name__} of {kind.__module__}")
    return changes


def _query_positions(entry: Entry) -> tuple[Tensor, Tensor]:
    """An index of the query tokens: x[index] is (B, R, ...) of x (B, N, ...)."""
    rows = torch.arange(len(entry.query_index), device=entry.query_index.device)
    return rows[:, None], entry.query_index


def _rows_of(layer: Layer, queries: tuple[Tensor, Tensor]) -> Layer:
    """A layer of all tokens as queries, for the query tokens alone."""
    attention = layer.attention.transpose(1, 2)[queries].transpose(1, 2)  # (B, H, R, N)
    return Layer(layer.q[queries], layer.k, layer.v, attention, layer.o[queries])


def _detached(layer: Layer) -> Layer:
    return Layer(*(part.detach() for part in vars(layer).values()))


def _as_fields(entry: Entry) -> dict[str, Any]:
    """What a trace takes over from its entry."""
    return {field.name: getattr(entry, field.name) for field in fields(Entry)}


def _query_mask(entry: Entry) -> Tensor | None:
    """The rows (B, 1, R, N) of the attention mask that belong to the query tokens."""
    if entry.attention_mask is None:
        return None
    mask = entry.attention_mask.expand(len(entry.tokens), -1, -1, -1)  # (B, 1, N, N)
    return mask.transpose(1, 2)[_query_positions(entry)].transpose(1, 2)


def _no_graph_if(condition: bool) -> torch.no_grad | nullcontext:
    return torch.no_grad() if condition else nullcontext()
