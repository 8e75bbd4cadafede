"""Grad-ECLIP a second time, from the model's own forward pass and autograd; nothing of the package is used.

Attention is replaced by its textbook formula while a model computes, so that alpha can be changed
from outside and everything can be recorded.
"""

from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch.nn import functional as F


class Attention(NamedTuple):
    """What one attention used and gave: q, k, v, o (B, H, N, C) and alpha (B, H, N, N)."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    alpha: torch.Tensor
    o: torch.Tensor


@contextmanager
def attention(change=None):
    """Within it, attention is its textbook formula; ``change(call, alpha)`` may return another alpha. Yields all."""
    kernel, fast, calls = (
        F.scaled_dot_product_attention,
        torch.backends.mha.get_fastpath_enabled(),
        [],
    )

    def textbook(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, **options):
        assert dropout_p == 0
        scores = q @ k.transpose(-2, -1) * (q.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            attn_mask = torch.ones_like(scores[0, 0], dtype=torch.bool).tril()
        if attn_mask is not None:
            scores = (
                scores.masked_fill(~attn_mask, -torch.inf)
                if attn_mask.dtype == torch.bool
                else scores + attn_mask
            )
        alpha = scores.softmax(-1)
        alpha = alpha if change is None else change(len(calls), alpha)
        calls.append(Attention(q, k, v, alpha, alpha @ v))
        return calls[-1].o

    F.scaled_dot_product_attention = textbook
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield calls
    finally:
        F.scaled_dot_product_attention = kernel
        torch.backends.mha.set_fastpath_enabled(fast)


def adding(calls, reader, token, amount):
    """A change of alpha: ``amount`` is added at (reader, token), in every head of these calls."""

    def change(call, alpha):
        if call in calls:
            alpha = alpha.clone()
            alpha[..., reader, token] += amount
        return alpha

    return change


def blocks_of(model, side):
    return (
        model.visual if side == "image" else getattr(model, "text", model)
    ).transformer.resblocks


def embed(model, side, inputs):
    embedding = model.encode_image(inputs) if side == "image" else model.encode_text(inputs)
    return embedding / embedding.norm(dim=-1, keepdim=True)


def grad_eclip(encode, direction, layers, readers, valid):
    """The map (N,) of the first input that ``encode`` embeds; layers, readers and heads are summed."""
    with attention() as calls, torch.enable_grad():
        score = encode()[0] @ direction
    gradients = torch.autograd.grad(score, [call.o for call in calls[-layers:]])
    total = torch.zeros(len(valid))
    for call, gradient in zip(calls[-layers:], gradients, strict=True):
        q, k, v = (
            part[0].transpose(0, 1).detach() for part in (call.q, call.k, call.v)
        )  # (N, H, C)
        for reader in readers:  # over the whole width: lam is the same for all heads
            lam = F.cosine_similarity(q[reader].flatten()[None], k.flatten(1)[: len(valid)], dim=-1)
            low, high = lam[valid].min(), lam[valid].max()
            values = torch.einsum("hc,nhc->n", gradient[0, :, reader], v)[: len(valid)]
            total += torch.where(valid, (lam - low) / (high - low) * values, 0)
    return total
