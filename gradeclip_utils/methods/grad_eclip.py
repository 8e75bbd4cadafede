"""Grad-ECLIP: the patches and words that made an image and a sentence match.

Zhao, Wang, Zeng, Zhao and Chan, "Gradient-based Visual Explanation for Transformer-based CLIP",
ICML 2024; with the text side Zhao, Wang, Hsiao and Chan, arXiv 2502.18816. `grad_eclip_plain` is
the whole method for an open_clip ViT. The rest of the file computes the same for every tower, and
for many inputs, targets and layers at once.
"""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from ..towers import Layer, Tower, Trace
from .options import DEFAULTS, Options


def grad_eclip_plain(
    model: torch.nn.Module, pixels: Tensor, tokens: Tensor, text_layers: int | None = None
) -> tuple[Tensor, Tensor]:
    """Grad-ECLIP of one image and one prompt with an open_clip ViT, from the formula alone.

    In an attention layer CLS (in the text: EOT) collects o = sum_i alpha_i v_i. The relevance of
    token i for the similarity S is sum_c w_c lam_i v_ic, with the channel weight w = dS/do and the
    spatial weight lam_i = cos(q, k_i), scaled to 0 to 1 over the tokens. The model keeps its own
    attention heads, where the published code runs the layer with one head; the relu belongs to the
    figure.

    Args:
        model: an open_clip `CLIP` or `CustomTextCLIP` with a ViT that reads CLS, in evaluation
            mode.
        pixels: (1, 3, H, W), as the model's preprocessing gives them.
        tokens: (1, context length), as its tokenizer gives them; EOT has the largest number.
        text_layers: how many of the last text layers are summed; by default two thirds (8 of 12, as
            published).

    Returns:
        The image's map (h, w), from its last layer, and the scores of the prompt's tokens between
        SOT and EOT.
    """
    blocks, seen = getattr(model, "text", model).transformer.resblocks, []
    text_layers = text_layers or round(len(blocks) * 2 / 3)

    def attend(attention, inputs, options, _):  # the same attention, with q, k, v and o in sight
        projected = F.linear(
            inputs[0], attention.in_proj_weight, attention.in_proj_bias
        )  # (1, N, 3 D)
        q, k, v = (
            part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
            for part in projected.chunk(3, -1)
        )
        o = (
            F.scaled_dot_product_attention(q, k, v, options["attn_mask"]).transpose(1, 2).flatten(2)
        )  # (1, N, D)
        o = o if o.requires_grad else o.requires_grad_()
        seen.append((*projected.detach()[0].chunk(3, dim=-1), o))
        return attention.out_proj(o), None

    layers = [model.visual.transformer.resblocks[-1], *blocks[-text_layers:]]
    hooks = [layer.attn.register_forward_hook(attend, with_kwargs=True) for layer in layers]
    try:
        with torch.enable_grad():
            image, text = (
                model.encode_image(pixels, normalize=True),
                model.encode_text(tokens, normalize=True),
            )
            gradients = torch.autograd.grad(
                (image * text).sum(), [o for *_, o in seen]
            )  # dS/do, each (1, N, D)
    finally:
        for hook in hooks:
            hook.remove()

    def relevance(layer: int, reads: int, first: int, end: int) -> Tensor:
        q, k, v, _ = seen[layer]
        w = gradients[layer][0, reads]  # (D,) which channels of o matter
        cosine = F.cosine_similarity(
            q[reads, None], k[first:end], dim=-1
        )  # how well each token answers the query
        lam = (cosine - cosine.min()) / (cosine.max() - cosine.min())
        return lam * (v[first:end] @ w)  # (N,)

    eot = int(tokens[0].argmax())
    scores = sum(relevance(layer, eot, 0, eot + 1) for layer in range(1, len(seen)))
    return relevance(0, 0, 1, len(seen[0][0])).unflatten(0, tuple(model.visual.grid_size)), scores[
        1:-1
    ]


# The same for every tower. S is linear in the target's direction d, S = embedding . d: a similarity
# has the prompt's embedding for d, a contrast the difference of two. Since o is linear in alpha, w
# . v_i = dS/d alpha_i: the map is the gradient of the attention, weighted by a loosened attention.
# Differences from the published code: the model's own attention heads are kept (see
# `spatial_weights`), q and k are raw, lam never sees padding, and a constant lam gives zeros
# instead of NaN.  Shapes: B inputs, T targets, L explained layers, R query tokens, N tokens, H
# heads of C channels, D = H * C, E the width of the embedding.

_AT_ONCE = 64  # directions whose channel weights are held at one time
_CACHED = 2**18  # numbers of one layer that go back at one time on a CPU: they stay in its cache


def channel_weights(
    tower: Tower, trace: Trace, directions: Tensor, delta: Tensor | None = None
) -> Tensor:
    """Channel weights w = dS/do (B, T, L, R, D) of the targets S = embedding . direction."""
    if delta is None and trace.graph is not None:
        embedding, collected = trace.graph
        along = directions.transpose(0, 1).to(embedding)
        carried = (collected[0] if tower.causal or tower.layers == 1 else trace.tokens).numel()
        step = max(1, _CACHED // carried) if along.device.type == "cpu" else len(along)
        back = partial(torch.autograd.grad, embedding, collected, retain_graph=True)
        found = [
            torch.stack(back(some, is_grads_batched=True), dim=1)
            if len(some) > 1
            else torch.stack(back(some[0]))[None]
            for some in along.split(step)
        ]  # each (t, L, B, R, D)
        return torch.cat(found).permute(2, 0, 1, 3, 4)
    with torch.enable_grad():  # by functorch, through which the live page is recorded
        at = (
            torch.stack([torch.zeros_like(layer.o) for layer in trace.layers])
            if delta is None
            else delta
        )
        _, pull_back = torch.func.vjp(lambda delta: tower.embed_from_attention(trace, delta), at)
        weights = torch.vmap(lambda direction: pull_back(direction)[0])(
            directions.transpose(0, 1)
        )  # (T, L, B, R, D)
    return weights.detach().permute(2, 0, 1, 3, 4)  # (B, T, L, R, D)


def spatial_weights(layer: Layer, valid_mask: Tensor, kind: str = "loosened") -> Tensor:
    """Spatial weights (B, H, R, N) in [0, 1] of a kind: "loosened", "softmax" (the attention itself) or "none"."""
    there = valid_mask[:, None, None, :]  # (B, 1, 1, N)
    if kind == "none":
        return torch.ones_like(layer.attention) * there
    if kind == "softmax":
        return layer.attention * there
    assert kind == "loosened", kind
    q, k = (F.normalize(part.flatten(2), dim=-1) for part in (layer.q, layer.k))
    cosine = torch.einsum("brd,bnd->brn", q, k)[:, None]
    low = cosine.masked_fill(~there, torch.inf).amin(-1, keepdim=True)
    spread = cosine.masked_fill(~there, -torch.inf).amax(-1, keepdim=True) - low
    rounding = 16 * torch.finfo(cosine.dtype).eps  # cosines that differ by less are the same cosine
    loosened = torch.where(
        there & (spread > rounding), (cosine - low) / spread.clamp_min(rounding), 0.0
    )
    return loosened.expand_as(layer.attention)


def attention_gradient(weights: Tensor, v: Tensor) -> Tensor:
    """Gradient of the attention, w . v_i = dS/d alpha_i, (B, H, R, N)."""
    return torch.einsum("brhc,bnhc->bhrn", weights.unflatten(-1, v.shape[2:]), v)


def grad_eclip(
    tower: Tower,
    trace: Trace,
    directions: Tensor,
    options: Options = DEFAULTS,
    *,
    spatial: str = "loosened",
) -> Tensor:
    """Grad-ECLIP: the sum over layers, heads and query tokens of lam_i * dS/d alpha_i.

    An image encoder that averages its patches has many query tokens, and every one adds its own
    map.

        trace = tower.trace(pixels)
        maps = grad_eclip(tower, trace, text_embeddings[None])             # (1, T, N)
        maps[0, :, 1:].unflatten(-1, trace.grid)                           # (T, h, w)

    Args:
        tower: the encoder.
        trace: B inputs, traced by it.
        directions: (B, T, E), the targets' directions in embedding space.
        options: not used.
        spatial: the `kind` of `spatial_weights`.

    Returns:
        Signed maps (B, T, N) over the trace's tokens; an image's patches are the last h * w.
    """
    maps = []
    for part in directions.split(_AT_ONCE, dim=1):
        weights = channel_weights(tower, trace, part)
        maps.append(
            torch.zeros(
                *part.shape[:2], trace.tokens.shape[1], dtype=weights.dtype, device=weights.device
            )
        )
        for position, layer in enumerate(trace.layers):
            lam = spatial_weights(layer, trace.valid_mask, spatial)
            for target in range(
                part.shape[1]
            ):  # one at a time: where all tokens read, (H, R, N) is large
                relevance = lam * attention_gradient(weights[:, target, position], layer.v)
                maps[-1][:, target] += relevance.sum(dim=(1, 2))  # (B, H, R, N) -> (B, N)
    return torch.cat(maps, dim=1)
