"""The base class of all towers: how explained layers are computed.

    image or prompt --tower--> Trace --method--> map --Explanation--> figure

A family says how inputs become tokens (`_enter`), what its layers are (`blocks`) and what becomes of the query tokens
(`_embed`). Everything else is here. Shapes: B inputs, N tokens, R query tokens, H heads of C channels, D = H * C, and
embeddings of width E.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..checks import first_line, whole
from ..errors import GradeclipError
from .blocks import Block, UnsupportedModel, attend, attend_fused, in_precision

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

    inputs: Tensor  # pixels (B, 3, H, W) or token ids (B, context_length), as the tower was given them
    tokens: Tensor  # (B, N, D)
    query_index: Tensor  # (B, R), positions of the query tokens; (B, 0) for a latent query, which is no token
    valid_mask: Tensor  # (B, N) bool: the tokens that a map covers (patches; SOT, words and EOT, but no padding)
    heads: int  # of the explained layers
    grid: tuple[int, int] | None  # (h, w) of the patches, which are the last h * w tokens
    attention_mask: Tensor | None = None  # beyond "causal": (B or 1, N, N) bool, True if visible, or a bias that is
    # added to the logits, (B or 1, H, N, N) float
    positions: Tensor | None = None  # by which layers rotate tokens (rotary embedding), or which a pool adds to them

    def mask_of_heads(self) -> Tensor | None:
        """The attention mask for every head, (B or 1, H or 1, N, N)."""
        mask = self.attention_mask
        return mask[:, None] if mask is not None and mask.ndim == 3 else mask


@dataclass(frozen=True, kw_only=True)
class Trace(Entry):
    """The same batch with its explained layers, the lowest first, and its embeddings, from one forward pass."""

    layers: tuple[Layer, ...]
    embedding: Tensor  # (B, E), of unit length; the logits of a classifier as they are
    graph: tuple[Tensor, tuple[Tensor, ...]] | None = None  # embedding and each layer's o, as autograd knows them


class Tower:
    """One encoder of a model, opened just before its embedding. `open_image_tower` and `open_text_tower` make them.

    `shielded` means that, within the explained layers, no other token sees what the query tokens become. This holds
    for causal text, whose query tokens come last, and for a single layer. The readout then computes the query tokens
    alone, and takes the keys and values of all others from the trace.

    Attributes: `blocks` (all `depth` layers, the lowest first, an attention pool last), `explained` (the last `layers`
    of them), `heads` (of the explained layers), `width` (E), `kind` (the encoder's class), `query_token` (which token
    reads, in words), `causal` and `unit` (whether embeddings have unit length). Image towers have `patch_size` and
    `image_size`, both (height, width) in pixels, `any_size` (the model's own forward pass takes other sizes too) and
    `own_grid` (each image keeps its shape); text towers have `context_length` and `ends`.

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
    causal = False
    unit = True
    any_size = own_grid = False
    width: int
    kind: str
    query_token: str
    patch_size: tuple[int, int]
    image_size: tuple[int, int]
    context_length: int

    def __init__(
        self, model: nn.Module, part: nn.Module, blocks: Sequence[Block], layers: int | None, encode: Callable
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
        self.below, self.explained = self.blocks[:-layers], self.blocks[-layers:]
        self.heads = self.explained[-1].heads
        self.shielded = self.causal or layers == 1
        self.verified = False
        self._encode = encode

    @property
    def device(self) -> torch.device:
        """The device of the encoder's weights."""
        return next(self.part.parameters()).device

    @torch.no_grad()
    def trace(self, inputs: Tensor, graph: bool = False) -> Trace:
        """Trace pixels (B, 3, H, W) or token ids (B, context_length); with `graph`, ready for channel weights."""
        if self.verified:
            return self._finite(self._trace_from(self._entered(inputs), graph))
        own = inputs[:_VERIFIED]
        if resized := self.name == "image" and not self.reads(own):  # the model itself cannot embed such images
            own = F.interpolate(own, self.image_size)
        try:
            expected = self.forward(own)
            trace = self._finite(self._trace_from(self._entered(inputs), graph))
            found = (self._trace_from(self._entered(own)) if resized else trace).embedding[: len(own)]
        except (RuntimeError, TypeError, AttributeError, IndexError, NotImplementedError) as error:
            failed = f"the {self.name} encoder of {type(self.model).__name__} fails in its forward pass"
            raise UnsupportedModel(f"{failed}: {first_line(error)}") from error
        self._compare(found, expected)
        self.verified = True
        return trace

    def trace_with_grad(self, inputs: Tensor) -> Trace:
        """The same within `blocks.with_grad`, with a graph from embedding, tokens and layers into the parameters."""
        return self._trace_from(self._entered(inputs))

    @torch.no_grad()
    def with_one_head(self, trace: Trace) -> Trace:
        """The explained layers computed again with ONE head over the full width, as the paper's published code does."""
        if trace.attention_mask is not None and trace.attention_mask.ndim == 4:
            raise UnsupportedModel(f"{self.kind} adds a bias to the logits of each head: one head would have none")
        return self._trace_from(replace(trace, heads=1), graph=True)

    def readout(self, trace: Trace, delta: Tensor) -> Tensor:
        """Embeddings (B, E) when `delta` (L, B, R, D) is added to o in the L explained layers; differentiable."""
        known = [(layer.q, layer.k, layer.v) for layer in trace.layers]
        return self._read(trace, known, lambda place, o: o + delta[place])[0]

    def resume(self, trace: Trace, layer: int, tokens: Tensor) -> Tensor:
        """Embeddings (B, E) when other tokens (B, N, D) enter block number `layer`, counted from 0, the lowest."""
        for position in range(layer, self.depth):
            tokens = self.run_block(trace, position, tokens)
        return self._finished(tokens if self.blocks[-1].latent else tokens[_at(trace)], trace)

    def run_block(self, trace: Entry, position: int, tokens: Tensor) -> Tensor:
        """One block for every token, (B, N, D) -> (B, N, D); a pool gives its R queries, (B, R, D)."""
        block = self.blocks[position]
        heads = trace.heads if position >= len(self.below) else block.heads
        normed = block.enter(tokens, trace.positions)
        q, k, v = (block.project(normed, part, heads, trace.positions) for part in range(3))
        return block.finish(tokens, attend_fused(q, k, v, trace.mask_of_heads(), self.causal))

    def dense(self, trace: Trace) -> Tensor:
        """Dense features (B, N, E) of an image: each token as if it attended to itself alone in the last layer."""
        if trace.grid is None:
            raise UnsupportedModel(f"dense features belong to images; this is a {self.name} tower")
        tokens = trace.tokens
        for position in range(len(self.below), self.depth - 1):
            tokens = self.run_block(trace, position, tokens)
        last = self.blocks[-1]
        v = last.project(last.enter(tokens, trace.positions), 2, trace.heads, trace.positions).flatten(2)
        return self.embed_alone(last.finish(tokens, v))

    def embed_alone(self, tokens: Tensor) -> Tensor:
        """Unit embeddings (B, N, E) of tokens (B, N, D) of the last block, each as the only one that is read."""
        alone = tokens.flatten(0, 1)[:, None]  # (B*N, 1, D)
        return F.normalize(self._embed(alone), dim=-1).unflatten(0, tokens.shape[:2])

    def embed_pixels(self, pixels: Tensor) -> Tensor:
        """Embeddings (B, E) by the unmodified model in evaluation mode; differentiable in the pixels."""
        with eval_mode(self.model):
            features = self._encode(in_precision(self.part, pixels))
        features = features[0] if isinstance(features, tuple) else features  # a model with output_tokens gives both
        features = features.to(torch.promote_types(features.dtype, torch.float32))
        return F.normalize(features, dim=-1) if self.unit else features

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> Tensor:
        """The same without gradients, also for token ids (B, context_length)."""
        return self.embed_pixels(inputs)

    def ends(self, ids: Tensor) -> Tensor:
        """The position (B,) of each prompt's last token; text towers only."""
        raise NotImplementedError

    def reads(self, pixels: Tensor) -> bool:
        """Whether the model's own forward pass takes images of this size: most take one size only."""
        return self.any_size or tuple(pixels.shape[-2:]) == self.image_size

    def _enter(self, inputs: Tensor) -> Entry:
        raise NotImplementedError

    def _embed(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _pool(self, x: Tensor, entry: Entry) -> Tensor:
        """Query tokens (B, R, D) as `_embed` takes them; T5's mean leaves padding out."""
        return x

    def _entered(self, inputs: Tensor) -> Entry:
        with eval_mode(self.model):  # for dropout and batch norm in the layers below
            return self._enter(inputs)

    def _finished(self, x: Tensor, entry: Entry) -> Tensor:
        embedding = self._embed(self._pool(x, entry))
        return F.normalize(embedding, dim=-1) if self.unit else embedding

    def _trace_from(self, entry: Entry, graph: bool = False) -> Trace:
        entered = {field.name: getattr(entry, field.name) for field in fields(Entry)}
        known = self._remember(entry) if self.shielded else []
        if not graph:
            embedding, layers = self._read(entry, known)
            return Trace(**entered, layers=layers, embedding=embedding)
        collected: list[Tensor] = []

        def kept(place: int, o: Tensor) -> Tensor:
            """The same o, as a node of the graph."""
            collected.append(o.requires_grad_() if place == 0 else o)
            return collected[-1]

        with torch.enable_grad():
            embedding, found = self._read(entry, known, kept)
        layers = tuple(Layer(*(getattr(layer, part.name).detach() for part in fields(Layer))) for layer in found)
        return Trace(**entered, layers=layers, embedding=embedding.detach(), graph=(embedding, tuple(collected)))

    def _remember(self, entry: Entry) -> list[tuple[Tensor | None, Tensor, Tensor]]:
        """Keys and values of all tokens in every explained layer; the last layer computes nothing else."""
        cached, tokens = [], entry.tokens
        for place, block in enumerate(self.explained):
            normed = block.enter(tokens, entry.positions)
            k, v = (block.project(normed, part, entry.heads, entry.positions) for part in (1, 2))
            cached.append((self._queries(block, normed, entry) if place == 0 else None, k, v))
            if place < self.layers - 1:
                q = block.project(normed, 0, entry.heads, entry.positions)
                tokens = block.finish(tokens, attend_fused(q, k, v, entry.mask_of_heads(), self.causal))
        return cached

    def _queries(self, block: Block, normed: Tensor, entry: Entry) -> Tensor:
        if entry.positions is None or block.latent:
            return block.project(normed[_at(entry)], 0, entry.heads)
        return block.project(normed, 0, entry.heads, entry.positions)[_at(entry)]

    def _read(self, entry: Entry, cached: list, change: Callable[[int, Tensor], Tensor] | None = None):
        """Embeddings (B, E) and the explained layers, computed for no more tokens than the readout needs."""
        at, layers = _at(entry), []
        x = entry.tokens[at] if self.shielded else entry.tokens
        for place, block in enumerate(self.explained):
            alone = self.shielded or place == self.layers - 1  # no later layer reads any other token
            if self.shielded and place == 0:
                q, k, v = cached[0]
            else:
                normed = block.enter(x, entry.positions)
                k, v = (block.project(normed, part, entry.heads, entry.positions) for part in (1, 2))
                if alone and not self.shielded:
                    q, x = self._queries(block, normed, entry), x[at]
                else:
                    q = block.project(normed, 0, entry.heads, entry.positions)
            if self.shielded and place > 0:  # the other tokens are as they were
                k, v = (old.index_put(at, new) for old, new in zip(cached[place][1:], (k, v), strict=True))
            attention, o = attend(q, k, v, self._query_mask(entry) if alone else entry.mask_of_heads())
            own = o if alone else o[at]
            own = own if change is None else change(place, own)
            if alone:
                x = block.finish(x, own)
            elif place == 0 and own.shape[1] == 1:  # the change reaches no other token: those need no graph
                x = block.finish(x, o).index_put(at, block.finish(x[at], own))
            else:
                x = block.finish(x, o.index_put(at, own))
            if not alone:
                q, attention = q[at], attention.transpose(1, 2)[at].transpose(1, 2)
            layers.append(Layer(q, k, v, attention, own))
        return self._finished(x, entry), tuple(layers)

    def _query_mask(self, entry: Entry) -> Tensor | None:
        """The tokens that query tokens can see, (B or 1, H or 1, R, N), or None if they see everything."""
        mask = entry.mask_of_heads()
        if mask is not None:
            rows = mask.expand(len(entry.tokens), -1, -1, -1).transpose(1, 2)  # (B, N, H, N)
            return rows[_at(entry)].transpose(1, 2)
        if not self.causal:
            return None
        place = torch.arange(entry.tokens.shape[1], device=entry.tokens.device)
        return (place <= entry.query_index[..., None])[:, None]  # (B, 1, R, N): EOT sees the tokens before it

    def _finite(self, trace: Trace) -> Trace:
        if torch.isfinite(trace.embedding).all():
            return trace
        broken = (name for name, value in self.model.named_parameters() if not torch.isfinite(value).all())
        why = f"{self.name} embedding is NaN or infinite on this input"
        if name := next(broken, None):
            why = f"weight {name!r} holds NaN or infinite values"
        raise GradeclipError(f"the model cannot be explained: its {why}")

    def _compare(self, found: Tensor, expected: Tensor) -> None:
        precision = max(torch.finfo(p.dtype).eps for p in self.part.parameters() if p.is_floating_point())
        allowed = max(1e-5, precision) * max(1.0, 0.0 if self.unit else expected.abs().max().item())
        difference = (found - expected).abs().max().item()
        if not difference <= allowed:
            seen = "; ".join(_changes_in(self.model)[:3]) or "no hook and no replaced method was found"
            raise UnsupportedModel(
                f"the {self.name} encoder of this {type(self.model).__name__} computes something else than its layers "
                f"say ({seen}; its embeddings differ by {difference:.1e}): remove the changes, or load the model again"
            )


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


def places(x: Tensor, reads: Sequence[int], first_patch: int) -> tuple[Tensor, Tensor]:
    """Query positions (B, R), and which tokens are patches (B, N), for tokens x (B, N, D)."""
    query_index = torch.tensor(list(reads), dtype=torch.long, device=x.device).expand(len(x), -1)
    return query_index, (torch.arange(x.shape[1], device=x.device) >= first_patch).expand(len(x), -1)


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; then every module has its own mode again."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def is_small(tower: Tower) -> bool:
    """Whether a tower computes faster in one thread."""
    return sum(p.numel() for p in tower.part.parameters()) < _SMALL


@contextmanager
def one_thread(wanted: bool) -> Iterator[None]:
    """Compute in one thread: those of a small model wait for each other ten times longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if wanted else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def isolated_torch_state(device: torch.device) -> Iterator[None]:
    """Keep the caller's inference mode, no_grad, autocast, default device and anomaly detection out of arithmetic."""
    plain = nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")
    anomaly = torch.autograd.set_detect_anomaly(False)
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False), plain, anomaly:
        yield


def _at(entry: Entry) -> tuple[Tensor, Tensor]:
    """An index of the query tokens."""
    return torch.arange(len(entry.query_index), device=entry.query_index.device)[:, None], entry.query_index
