"""What all towers share: how explained layers are computed. See the package for the idea.

    model --here--> Trace --method--> map --Explanation--> figure

A family says how inputs become tokens (`_enter`), what its layers are (`blocks`) and what becomes of the query
tokens in the end (`_embed`). Everything else is the same for all of them, and is here.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import fields, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..checks import whole
from ..errors import GradeclipError
from .blocks import Block, UnsupportedModel, attend, attend_fused, in_precision
from .modes import eval_mode
from .trace import Entry, Layer, Trace

_VERIFIED = 4  # inputs of the first batch that the model itself embeds, too


class Tower:
    """One encoder, opened. Made by `open_image_tower(model, layers)` and `open_text_tower`, which compute nothing.

    `shielded` says that, within the explained layers, no other token sees what the query tokens become: always
    so in causal text, where they come last, and in a single layer. Then the readout carries the query tokens alone,
    and the others are remembered as keys and values. Otherwise it carries every token.

    Attributes: `blocks` (all `depth` layers, the lowest first, an attention pool last), `explained` (the last `layers`
    of them), `heads` (of the explained layers), `width` (E), `kind` (the model's own class) and `query_token` (who
    reads), in words, `causal`, `unit` (whether embeddings have unit length). Image towers have `patch_size`
    (pixels that one token of the grid stands for, down and across), `image_size`, the model's own (H, W), `any_size`
    (whether the model's own forward pass takes others too) and `own_grid` (whether it keeps each image's shape, so
    that no two need be alike); text towers have `context_length` and `ends`.

    Args:
        model: the whole model.
        part: of it, the encoder that is opened.
        blocks: its layers, the lowest first.
        layers: how many of the last are explained; None for two thirds.
        encode: the model's own forward pass, inputs -> embeddings, with which the first trace is compared.

    Raises:
        UnsupportedModel: there are several layers to explain, and the last is an attention pool; or, of one family's
            tower, a part of the encoder is not known. It says which.
        ValueError: there are not so many layers.
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
                f"where {self.query_token} and so the only one that can be explained; got {self.name}_layers={layers}"
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
        """Where the model is."""
        return next(self.part.parameters()).device

    @torch.no_grad()
    def trace(self, inputs: Tensor, graph: bool = False) -> Trace:
        """What became of a batch, from the unmodified model's parameters.

        Args:
            inputs: pixels (B, 3, H, W) or token ids (B, context_length).
            graph: whether the trace keeps what a gradient of its embedding in its layers' o needs, so that channel
                weights cost no second pass through the explained layers. It takes the memory of their activations for
                as long as the trace is there; where CLS or EOT alone is carried, that is little.

        Raises:
            ValueError: the embedding is not finite (the message names the broken weight).
            RuntimeError: the first trace of this tower is not what the model's own forward pass gives.
        """
        trace = self._trace_from(self._entered(inputs), graph)
        if not torch.isfinite(trace.embedding).all():
            broken = (name for name, value in self.model.named_parameters() if not torch.isfinite(value).all())
            why = f"{self.name} embedding is NaN or infinite on this input"
            if name := next(broken, None):
                why = f"weight {name!r} holds NaN or infinite values"
            raise GradeclipError(f"the model cannot be explained: its {why}")
        if not self.verified:
            self._verify(inputs, trace)
            self.verified = True
        return trace

    def trace_with_grad(self, inputs: Tensor) -> Trace:
        """`trace` within `blocks.with_grad`, with a graph from embedding, tokens and layers into the parameters.

        Args:
            inputs: as for `trace`; nothing is checked, since a tower that was traced once is known to be the model.
        """
        return self._trace_from(self._entered(inputs))

    @torch.no_grad()
    def with_one_head(self, trace: Trace) -> Trace:
        """The explained layers run again with ONE head over the full width, as the published code does.

        The result has another embedding: it traces a network that the model's training never saw.

        Args:
            trace: B inputs, traced by this tower.

        Raises:
            UnsupportedModel: each head has a bias of its own (T5), and nothing says which one head would have.
        """
        if trace.attention_mask is not None and trace.attention_mask.ndim == 4:
            raise UnsupportedModel(f"{self.kind} adds a bias to the logits of each head: one head would have none")
        return self._trace_from(replace(trace, heads=1), graph=True)

    def readout(self, trace: Trace, delta: Tensor) -> Tensor:
        """Embeddings (B, E) when o is changed in the L explained layers.

        A plain differentiable function, so that reverse mode gives channel weights and forward mode word directions.

        Args:
            trace: B inputs, traced by this tower.
            delta: (L, B, R, D), what is added to o.
        """
        known = [(layer.q, layer.k, layer.v) for layer in trace.layers]
        return self._read(trace, known, lambda place, o: o + delta[place])[0]

    def resume(self, trace: Trace, layer: int, tokens: Tensor) -> Tensor:
        """Embeddings (B, E) when other tokens enter a block; all of them are computed.

        Args:
            trace: says where to read, and how many heads its explained layers have.
            layer: number of the block, from 0, the lowest.
            tokens: (B, N, D), what enters it.
        """
        for position in range(layer, self.depth):
            tokens = self.run_block(trace, position, tokens)
        return self._finished(tokens if self.blocks[-1].latent else tokens[_at(trace)], trace)

    def run_block(self, trace: Entry, position: int, tokens: Tensor) -> Tensor:
        """One block for every token, (B, N, D); a pool gives its R queries, (B, R, D).

        Args:
            trace: of the B inputs. Explained blocks have its heads, so that a trace with one head goes on with one.
            position: number of the block, from 0, the lowest.
            tokens: (B, N, D), what enters it.
        """
        block = self.blocks[position]
        heads = trace.heads if position >= len(self.below) else block.heads
        normed = block.enter(tokens, trace.positions)
        q, k, v = (block.project(normed, part, heads, trace.positions) for part in range(3))
        return block.finish(tokens, attend_fused(q, k, v, trace.mask_of_heads(), self.causal))

    def dense(self, trace: Trace) -> Tensor:
        """Dense features (B, N, E) of an image: every token as if it had attended to itself alone in the last layer.

        So its value takes the place of o: through out_proj, residual and MLP (where the layer has them), norm and
        projection, of unit length. For an attention pool that is what MaskCLIP does in its ResNet, and for a
        transformer what its code does (Zhou, Loy and Dai, "Extract Free Dense Labels from CLIP", ECCV 2022).

        Args:
            trace: B images, traced by this tower.

        Raises:
            UnsupportedModel: this is a text encoder.
        """
        if trace.grid is None:
            raise UnsupportedModel(f"dense features belong to pictures; this is a {self.name} tower")
        tokens = trace.tokens
        for position in range(len(self.below), self.depth - 1):
            tokens = self.run_block(trace, position, tokens)
        last = self.blocks[-1]
        v = last.project(last.enter(tokens, trace.positions), 2, trace.heads, trace.positions).flatten(2)
        return self.embed_alone(last.finish(tokens, v))

    def embed_alone(self, tokens: Tensor) -> Tensor:
        """Unit embeddings (B, N, E) of tokens, each as the only one that is read.

        Args:
            tokens: (B, N, D), as they leave the last block.
        """
        alone = tokens.flatten(0, 1)[:, None]  # (B*N, 1, D)
        return F.normalize(self._embed(alone), dim=-1).unflatten(0, tokens.shape[:2])

    def embed_pixels(self, pixels: Tensor) -> Tensor:
        """Embeddings (B, E) by the unmodified model in evaluation mode; differentiable in the pixels.

        Args:
            pixels: (B, 3, H, W) of a size that it `reads`; of a text tower token ids (B, context_length).
        """
        with eval_mode(self.model):
            features = self._encode(in_precision(self.part, pixels))
        features = features[0] if isinstance(features, tuple) else features  # a model with output_tokens gives both
        features = features.to(torch.promote_types(features.dtype, torch.float32))
        return F.normalize(features, dim=-1) if self.unit else features

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> Tensor:
        """Embeddings (B, E) by the unmodified model in evaluation mode.

        Args:
            inputs: as for `embed_pixels`.
        """
        return self.embed_pixels(inputs)

    def embed_prompts(self, ids: Tensor) -> Tensor:
        """Embeddings (B, E) of prompts, those of their traces; of text towers alone.

        Args:
            ids: (B, context_length), token ids.
        """
        return self.trace(ids).embedding

    def ends(self, ids: Tensor) -> Tensor:
        """Where the words of each prompt end, (B,).

        Args:
            ids: (B, context_length), token ids.

        Raises:
            AssertionError: this is no text tower.
        """
        raise AssertionError(f"{type(self).__name__} reads no prompts")

    def _enter(self, inputs: Tensor) -> Entry:
        raise AssertionError(f"{type(self).__name__} does not say how its inputs become tokens")

    def _embed(self, x: Tensor) -> Tensor:
        raise AssertionError(f"{type(self).__name__} does not say what becomes of its reading tokens")

    def _entered(self, inputs: Tensor) -> Entry:
        with eval_mode(self.model):  # dropout and batch norm, in the layers below
            return self._enter(inputs)

    def _pool(self, x: Tensor, entry: Entry) -> Tensor:
        """What `_embed` gets, of query tokens (B, R, D): the same, unless inputs differ in how many of them count."""
        return x

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
        """Keys and values of all tokens in every explained layer; of the last layer nothing else is computed."""
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
        """Embeddings (B, E) and the explained layers, computed for no more tokens than the readout can feel."""
        at, layers = _at(entry), []
        x = entry.tokens[at] if self.shielded else entry.tokens
        for place, block in enumerate(self.explained):
            alone = self.shielded or place == self.layers - 1  # behind this layer nobody reads any other token
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
            elif place == 0 and own.shape[1] == 1:  # no other token feels the change: none of them needs a graph
                x = block.finish(x, o).index_put(at, block.finish(x[at], own))
            else:
                x = block.finish(x, o.index_put(at, own))
            if not alone:
                q, attention = q[at], attention.transpose(1, 2)[at].transpose(1, 2)
            layers.append(Layer(q, k, v, attention, own))
        return self._finished(x, entry), tuple(layers)

    def _query_mask(self, entry: Entry) -> Tensor | None:
        """What the query tokens can see, (B or 1, H or 1, R, N), or None where they see everything."""
        mask = entry.mask_of_heads()
        if mask is not None:
            rows = mask.expand(len(entry.tokens), -1, -1, -1).transpose(1, 2)  # (B, N, H, N)
            return rows[_at(entry)].transpose(1, 2)
        if not self.causal:
            return None
        place = torch.arange(entry.tokens.shape[1], device=entry.tokens.device)
        return (place <= entry.query_index[..., None])[:, None]  # (B, 1, R, N): EOT sees what stands before it

    def reads(self, pixels: Tensor) -> bool:
        """Whether the model's own forward pass takes images of this size: most have one size only.

        Args:
            pixels: (B, 3, H, W).
        """
        return self.any_size or tuple(pixels.shape[-2:]) == self.image_size

    def _verify(self, inputs: Tensor, trace: Trace) -> None:
        some = inputs[:_VERIFIED]
        native = self.name == "image" and not self.reads(some)  # such an image has no plain forward pass
        own = F.interpolate(some, self.image_size) if native else some
        found = (self._trace_from(self._entered(own)) if native else trace).embedding[: len(some)]
        expected = self.forward(own)
        precision = max(torch.finfo(p.dtype).eps for p in self.part.parameters() if p.is_floating_point())
        allowed = max(1e-5, precision) * max(1.0, 0.0 if self.unit else expected.abs().max().item())
        difference = (found - expected).abs().max().item()
        if not difference <= allowed:
            raise RuntimeError(
                f"the {self.name} tower of {type(self.model).__name__} was opened wrongly: its trace differs from the "
                f"model's own forward pass by {difference:.1e} (allowed {allowed:.1e})"
            )


def places(x: Tensor, reads: Sequence[int], first_patch: int) -> tuple[Tensor, Tensor]:
    """Query positions (B, R), and which tokens are patches (B, N), for tokens x (B, N, D)."""
    query_index = torch.tensor(list(reads), dtype=torch.long, device=x.device).expand(len(x), -1)
    return query_index, (torch.arange(x.shape[1], device=x.device) >= first_patch).expand(len(x), -1)


@contextmanager
def isolated_torch_state(device: torch.device) -> Iterator[None]:
    """The caller's inference mode, no_grad, autocast or default device must not reach an explanation's arithmetic."""
    plain = nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False), plain:
        yield


def _at(entry: Entry) -> tuple[Tensor, Tensor]:
    """An index of the query tokens."""
    return torch.arange(len(entry.query_index), device=entry.query_index.device)[:, None], entry.query_index
