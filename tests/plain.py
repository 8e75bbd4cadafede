"""Methods a second time, from the model's own forward pass and autograd; the package is not used.

Attention is replaced by its textbook formula while a model computes, so that alpha can be changed
from outside and everything can be recorded.
"""

import copy
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
    """Within it, attention is its textbook formula. Yields a list of all attentions.

    ``change(call, alpha)`` may return another alpha for attention number ``call``.
    """
    kernel = F.scaled_dot_product_attention
    fast = torch.backends.mha.get_fastpath_enabled()
    calls = []

    def textbook(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, **options):
        assert dropout_p == 0
        if scale is None:
            scale = q.shape[-1] ** -0.5
        scores = q @ k.transpose(-2, -1) * scale
        if is_causal:
            attn_mask = torch.ones_like(scores[0, 0], dtype=torch.bool).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -torch.inf)
        elif attn_mask is not None:
            scores = scores + attn_mask

        alpha = scores.softmax(dim=-1)
        if change is not None:
            alpha = change(len(calls), alpha)
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
    encoder = model.visual if side == "image" else getattr(model, "text", model)
    return encoder.transformer.resblocks


def embed(model, side, inputs):
    embedding = model.encode_image(inputs) if side == "image" else model.encode_text(inputs)
    return embedding / embedding.norm(dim=-1, keepdim=True)


def similarities(clip, image, prompts):
    """The cosine of an image with each prompt, (T,), by the model's own two encoders."""
    pixels = clip.preprocess(image)[None]
    with torch.no_grad():
        (image_embedding,) = embed(clip.model, "image", pixels)
        return embed(clip.model, "text", clip.tokenizer(prompts)) @ image_embedding


class Recording:
    """A copy of an open_clip model, with all that its blocks read and give for some inputs.

    ``entering`` and ``leaving`` have the tokens (B, N, D) before and after each block, ``calls`` an
    `Attention` for each block, and ``embedding`` is (B, E), with a graph to all of them.
    """

    def __init__(self, model, side, inputs, change=None):
        self.model = copy.deepcopy(model)
        self.blocks = blocks_of(self.model, side)
        self.entering = []
        self.leaving = []
        for block in self.blocks:
            block.register_forward_pre_hook(lambda _, inputs: self.entering.append(inputs[0]))
            block.register_forward_hook(lambda _, inputs, output: self.leaving.append(output))
        with attention(change) as self.calls, torch.enable_grad():
            self.embedding = embed(self.model, side, inputs)

    @property
    def alphas(self):
        return [call.alpha for call in self.calls]

    def read(self, tokens):
        """Unit embeddings of image tokens (..., D) that leave the last block, each read alone."""
        visual = self.model.visual
        embedding = visual.ln_post(tokens) @ visual.proj
        return F.normalize(embedding, dim=-1)


def grad_eclip(encode, direction, layers, readers, valid):
    """The map (N,) of the first input that ``encode`` embeds, summed over layers and readers."""
    with attention() as calls, torch.enable_grad():
        score = encode()[0] @ direction
    calls = calls[-layers:]
    gradients = torch.autograd.grad(score, [call.o for call in calls])

    map_ = torch.zeros(len(valid))
    for call, gradient in zip(calls, gradients, strict=True):
        k, v = (
            part[0].transpose(0, 1).detach()[: len(valid)]  # (N, H, C)
            for part in (call.k, call.v)
        )
        for reader in readers:  # over the whole width: lam is the same for all heads
            query = call.q[0, :, reader].detach().flatten()
            lam = F.cosine_similarity(query[None], k.flatten(1), dim=-1)
            low = lam[valid].min()
            high = lam[valid].max()
            values = torch.einsum("hc,nhc->n", gradient[0, :, reader], v)
            map_ += torch.where(valid, (lam - low) / (high - low) * values, 0)
    return map_
