"""Grad-ECLIP and its ablations: from traces and a target to a map.

    architecture --trace--> Trace --method--> map --Explanation--> picture

The reading token collected ``o = sum_i alpha_i v_i``. How much does the target S owe to token i?

    channel weight   w     = dS/do                    which channels of what was collected matter
    spatial weight   lam_i = minmax_i cos(q, k_i)     how strongly token i answers the reading token's query
    map              m_i   = sum_c w_c lam_i v_ic     signed; a heat map is relu(m), which is left to the plots

Since o is linear in alpha, ``w . v_i = dS/d alpha_i``: Grad-ECLIP is the gradient of the attention, weighted by a
*loosened* attention. The softmax is too sparse to serve as that weight; the cosine, stretched to [0, 1], is not.

Grad-ECLIP: Zhao, Wang, Hsiao and Chan, "Gradient-based Visual Explanation for Transformer-based CLIP", ICML 2024, and
arXiv 2502.18816. Where we deviate: the model's own attention heads are kept (see ``spatial_weights``), q and k are
raw, lam never sees padding, and a constant lam gives zeros instead of NaN.

Everything is linear in the target's direction: a similarity has the direction e_T (seen from the picture), the
difference of two similarities has e_A - e_B. Shapes: B inputs, T targets, L explained layers, R reading tokens,
N tokens, H heads of C channels, D = H * C, E the width of the embedding.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from ..towers import Layer, Tower, Trace

_AT_ONCE = 64  # directions whose channel weights are held at one time


def channel_weights(tower: Tower, trace: Trace, directions: Tensor) -> Tensor:
    """w = dS/do (B, T, L, R, D) of the targets S = embedding . direction, for ``directions`` (B, T, E).

    The readout is differentiated once, and pulled back along all directions in one batch.
    """
    with torch.enable_grad():
        _, pull_back = torch.func.vjp(lambda delta: tower.readout(trace, delta), zero_delta(trace))
        weights = torch.vmap(lambda direction: pull_back(direction)[0])(directions.transpose(0, 1))  # (T, L, B, R, D)
    return weights.permute(2, 0, 1, 3, 4)  # (B, T, L, R, D)


def gradients(encode: Callable[[Tensor], Tensor], at: Tensor, directions: Tensor) -> Iterator[Tensor]:
    """d (embedding . direction) / d ``at`` (B, ...), for one of the ``directions`` (B, T, E) after the other.

    ``encode`` goes from ``at`` to the embeddings (B, E). It runs once; every direction costs one backward pass, which
    takes about as long, because no parameter asks for its gradient.
    """
    with torch.enable_grad():
        at = at.detach().requires_grad_()
        embedding = encode(at)
    for direction in directions.unbind(1):
        yield torch.autograd.grad(embedding, at, direction, retain_graph=True)[0]


def spatial_weights(layer: Layer, valid_mask: Tensor, kind: str = "loosened", heads: str = "together") -> Tensor:
    """How strongly each token answers each reading token's query, (B, H, R, N) in [0, 1]; zero where not ``real``.

    ``kind``: "loosened" is Grad-ECLIP's minmax_i cos(q, k_i); "softmax" the attention itself, so that the map becomes
    attention times gradient; "none" is one everywhere, so that the map becomes the gradient alone.

    ``heads``: "together" takes one cosine over the whole width, the same for all heads, as the formula is written; so
    lam is that of the published single-head variant, while alpha, o and S stay the model's own. "apart" takes one
    cosine a head; on development scenes it found the named object less often. Where no token answers better than
    another there is nothing to say about where to look: zero.
    """
    there = valid_mask[:, None, None, :]  # (B, 1, 1, N)
    if kind == "none":
        return torch.ones_like(layer.attention) * there
    if kind == "softmax":
        return layer.attention * there
    if kind != "loosened" or heads not in ("apart", "together"):
        raise ValueError(
            f"kind must be 'loosened', 'softmax' or 'none' and heads 'apart' or 'together', got {kind!r}, {heads!r}"
        )
    q, k = (layer.q, layer.k) if heads == "apart" else (layer.q.flatten(2)[:, :, None], layer.k.flatten(2)[:, :, None])
    cosine = torch.einsum("brhc,bnhc->bhrn", F.normalize(q, dim=-1), F.normalize(k, dim=-1))
    low = cosine.masked_fill(~there, torch.inf).amin(-1, keepdim=True)
    spread = cosine.masked_fill(~there, -torch.inf).amax(-1, keepdim=True) - low
    rounding = 16 * torch.finfo(cosine.dtype).eps  # cosines that differ by less are the same cosine
    loosened = torch.where(there & (spread > rounding), (cosine - low) / spread.clamp_min(rounding), 0.0)
    return loosened.expand_as(layer.attention)


def attention_gradient(weights: Tensor, v: Tensor) -> Tensor:
    """w . v_i = dS/d alpha_i, (B, H, R, N), from one layer's channel ``weights`` (B, R, D) and ``v`` (B, N, H, C)."""
    return torch.einsum("brhc,bnhc->bhrn", weights.unflatten(-1, v.shape[2:]), v)


def grad_eclip(
    tower: Tower, trace: Trace, directions: Tensor, spatial: str = "loosened", heads: str = "together"
) -> Tensor:
    """Signed maps (B, T, N) over a trace's tokens: sum over layers, heads and readers of lam_i * dS/d alpha_i.

    ``directions`` (B, T, E) are the targets' directions in embedding space. In a picture the last h * w tokens are the
    patches. An image tower that averages its patches has many readers, and every one adds its own map.

    >>> trace = tower.trace(pixels)                                        # doctest: +SKIP
    >>> maps = grad_eclip(tower, trace, text_embeddings[None])             # doctest: +SKIP
    >>> maps[0, :, 1:].unflatten(-1, trace.grid)                           # (T, h, w); doctest: +SKIP
    """
    maps = [_grad_eclip(tower, trace, part, spatial, heads) for part in directions.split(_AT_ONCE, dim=1)]
    return torch.cat(maps, dim=1)


def _grad_eclip(tower: Tower, trace: Trace, directions: Tensor, spatial: str, heads: str) -> Tensor:
    weights = channel_weights(tower, trace, directions)
    maps = torch.zeros(*directions.shape[:2], trace.tokens.shape[1], dtype=weights.dtype, device=weights.device)
    for position, layer in enumerate(trace.layers):
        lam = spatial_weights(layer, trace.valid_mask, spatial, heads)
        for target in range(directions.shape[1]):  # one at a time: where all tokens read, (H, R, N) is large
            relevance = lam * attention_gradient(weights[:, target, position], layer.v)
            maps[:, target] += relevance.sum(dim=(1, 2))  # (B, H, R, N) -> (B, N)
    return maps


def zero_delta(trace: Trace) -> Tensor:
    return torch.zeros_like(torch.stack([layer.o for layer in trace.layers]))  # (L, B, R, D)


def grad_eclip_with_one_head(tower: Tower, trace: Trace, directions: Tensor) -> Tensor:
    """Grad-ECLIP as published: the explained layers run again with ONE head over the full width.

    Explains the similarity of that other network, a number that the model never gave. Cost: the explained layers once
    more, and a readout.
    """
    return grad_eclip(tower, trace if trace.heads == 1 else tower.with_one_head(trace), directions)
