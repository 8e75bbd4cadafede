"""Blocks: one layer of a tower, taken apart at its attention.

A transformer block is `x + out(o)`, then `x + mlp(x)`, where o is the attention output. A `Block`
names these parts, whatever a library calls them. The parts are the model's own modules and are
called as they are, so norms, activations, gates and LoRA adapters need no code here; only the
attention itself is written out, in `attend`.

Shapes: B inputs, N tokens, R query tokens, H heads of C channels, D = H * C.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_Part = Callable[[Tensor], Tensor]  # most often a module of the model


@dataclass(eq=False)
class Block:
    """One layer as its parts."""

    module: nn.Module
    heads: int
    # tokens (B, N, D) and `Entry.positions` -> q, k and v, (B, N, D) each, for all heads in one;
    # latent queries are (1, R, D)
    qkv: Callable[[Tensor, Tensor | None], Sequence[Tensor]]
    out: Sequence[_Part]  # o (B, R, D) goes through these, and is added to the tokens
    mlp: Sequence[_Part] = ()  # so do the tokens, and are added to themselves
    # the norms behind both additions, if that is where they stand
    post_norms: Sequence[nn.Module] = ()
    # whether it is an attention pool, which adds nothing to the tokens before its MLP
    pools: bool = False
    latent: bool = False  # whether its queries are parameters of the layer, not made from tokens

    def project(
        self,
        x: Tensor,
        positions: Tensor | None,
        heads: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, N, H, C) of tokens (B, N, D); latent queries (B, R, ...)."""
        q, k, v = self.qkv(x, positions)
        q = q.expand(len(x), -1, -1)  # latent queries are the same for all inputs
        shape = (heads, -1)
        return q.unflatten(-1, shape), k.unflatten(-1, shape), v.unflatten(-1, shape)

    def after_attention(self, x: Tensor, o: Tensor) -> Tensor:
        """The tokens (B, R, D) after the layer, given those before it and its attention output."""
        attended = apply(self.out, o)
        if not self.pools:
            attended = x + attended
        x = apply(self.post_norms[:1], attended)
        if not self.mlp:
            return x
        return apply(self.post_norms[1:], x + apply(self.mlp, x))


def apply(parts: Iterable[_Part], x: Tensor) -> Tensor:
    """Apply parts of the model one after the other, in evaluation mode and in float32 at least."""
    for part in parts:
        if isinstance(part, nn.Module):
            weights = list(part.parameters())
            if any(weight.dtype.itemsize < 4 for weight in weights):
                part = copy.deepcopy(part, {id(weight): upcast(weight) for weight in weights})
            with eval_mode(part):
                x = part(x)
        else:
            x = part(x)
    return x


def width_of(parts: Iterable[nn.Module], width: int) -> int:
    """The width of what tokens of a width become in these parts: that of the last linear layer."""
    for part in parts:
        for module in part.modules():
            if isinstance(module, nn.Linear):
                width = module.out_features
    return width


def upcast(tensor: Tensor) -> Tensor:
    """Half precision widened to float32, float32 and float64 as they are."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


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


def with_parts(module: nn.Module, **parts: nn.Module | None) -> nn.Module:
    """A module in evaluation mode that shares weights with `module`, but has these submodules."""
    twin = copy.copy(module)
    twin._modules = {**module._modules, **parts}
    twin.training = False
    return twin


def separate(x: Tensor, *layers: nn.Module) -> list[Tensor]:
    """Queries, keys and values by three linear layers."""
    return [apply([layer], x) for layer in layers]


def packed(attn: nn.Module, x: Tensor, latent: Tensor | None = None) -> list[Tensor]:
    """Queries (of `latent` (1, R, D), if given), keys and values by torch's MultiheadAttention."""
    if attn.in_proj_weight is None:  # keys and values have another width than queries
        weights = (attn.q_proj_weight, attn.k_proj_weight, attn.v_proj_weight)
    else:
        weights = attn.in_proj_weight.chunk(3)
    biases: Sequence[Tensor | None] = (None, None, None)
    if attn.in_proj_bias is not None:
        biases = upcast(attn.in_proj_bias).chunk(3)
    queries = x if latent is None else upcast(latent)

    parts = []
    for tokens, weight, bias in zip((queries, x, x), weights, biases, strict=True):
        parts.append(F.linear(tokens, upcast(weight), bias))
    return parts


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Attention (B, H, R, N) and its output (B, R, D).

    The softmax is written out: fused kernels have no forward mode.
    """
    logits = torch.einsum("brhc,bnhc->bhrn", q * q.shape[-1] ** -0.5, k)
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf)
    attention = logits.softmax(dim=-1)
    o = torch.einsum("bhrn,bnhc->brhc", attention, v)
    return attention, o.flatten(2)  # (B, R, H * C)


def attend_fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """The attention output (B, R, D) alone, by the fused kernel."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, H, N, C)
    o = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return o.transpose(1, 2).flatten(2)  # (B, R, H * C)
