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

PROMPTS_PER_BATCH = 64  # targets of an input whose channel weights are computed together


def grad_eclip_plain(
    model: torch.nn.Module,
    pixels: Tensor,
    tokens: Tensor,
    text_layers: int | None = None,
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
    text_blocks = getattr(model, "text", model).transformer.resblocks
    text_layers = text_layers or round(len(text_blocks) * 2 / 3)
    blocks = [model.visual.transformer.resblocks[-1], *text_blocks[-text_layers:]]
    layers = []  # of each explained block q, k and v (N, D), and o (1, N, D)

    def attend(attention, inputs, options, _):
        """The same attention, with q, k, v and o in sight."""
        projected = F.linear(inputs[0], attention.in_proj_weight, attention.in_proj_bias)
        heads = (attention.num_heads, -1)
        q, k, v = (
            part.unflatten(-1, heads).transpose(1, 2)  # (1, H, N, C)
            for part in projected.chunk(3, dim=-1)
        )
        o = F.scaled_dot_product_attention(q, k, v, options["attn_mask"])
        o = o.transpose(1, 2).flatten(2)  # (1, N, D)
        if not o.requires_grad:
            o.requires_grad_()
        layers.append((*projected.detach()[0].chunk(3, dim=-1), o))
        return attention.out_proj(o), None

    hooks = [block.attn.register_forward_hook(attend, with_kwargs=True) for block in blocks]
    try:
        with torch.enable_grad():
            image = model.encode_image(pixels, normalize=True)
            text = model.encode_text(tokens, normalize=True)
            similarity = (image * text).sum()
        gradients = torch.autograd.grad(similarity, [o for *_, o in layers])  # dS/do
    finally:
        for hook in hooks:
            hook.remove()

    def relevance(layer: int, query: int, first: int, end: int) -> Tensor:
        """Relevance of the tokens from `first` to `end` for what the token `query` collects."""
        q, k, v, _ = layers[layer]
        w = gradients[layer][0, query]  # (D,): which channels of o matter

        # how well each token answers the query
        cosine = F.cosine_similarity(q[query, None], k[first:end], dim=-1)
        lam = (cosine - cosine.min()) / (cosine.max() - cosine.min())
        return lam * (v[first:end] @ w)

    patch_count = len(layers[0][0]) - 1
    image_map = relevance(0, 0, 1, 1 + patch_count).unflatten(0, tuple(model.visual.grid_size))

    eot = int(tokens[0].argmax())
    scores = sum(relevance(layer, eot, 0, eot + 1) for layer in range(1, len(layers)))
    return image_map, scores[1:-1]


# The same for every tower. S is linear in the target's direction d, S = embedding . d: a similarity
# has the prompt's embedding for d, a contrast the difference of two. Since o is linear in alpha,
# w . v_i = dS/d alpha_i: the map is the gradient of the attention, weighted by a loosened
# attention. Differences from the published code: the model's own attention heads are kept (see
# `spatial_weights`), q and k are raw, lam never sees padding, and a constant lam gives zeros
# instead of NaN.
#
# Shapes: B inputs, T targets, L explained layers, R query tokens, N tokens, H heads of C channels,
# D = H * C, E the width of the embedding.


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
        options: none of them is used.
        spatial: the `kind` of `spatial_weights`.

    Returns:
        Signed maps (B, T, N) over the trace's tokens; an image's patches are the last h * w.
    """
    maps = []
    for batch in directions.split(PROMPTS_PER_BATCH, dim=1):
        maps_of_heads = grad_eclip_of_heads(tower, trace, batch, options, spatial=spatial)
        maps.append(maps_of_heads.sum(dim=(2, 3)))  # (B, T, L, H, N) -> (B, T, N)
    return torch.cat(maps, dim=1)


def grad_eclip_of_heads(
    tower: Tower,
    trace: Trace,
    directions: Tensor,
    options: Options = DEFAULTS,
    *,
    spatial: str = "loosened",
) -> Tensor:
    """The part of each layer and head in the maps of `grad_eclip`, (B, T, L, H, N)."""
    weights = channel_weights(tower, trace, directions)  # (B, T, L, R, D)
    layers = []
    for position, layer in enumerate(trace.layers):
        lam = spatial_weights(layer, trace.valid_mask, spatial)
        targets = []
        # one at a time: where all tokens are query tokens, (H, R, N) is large
        for target in range(directions.shape[1]):
            relevance = lam * attention_gradient(weights[:, target, position], layer.v)
            targets.append(relevance.sum(dim=2))  # (B, H, R, N) -> (B, H, N)
        layers.append(torch.stack(targets, dim=1))
    return torch.stack(layers, dim=2)


def channel_weights(
    tower: Tower,
    trace: Trace,
    directions: Tensor,
    delta: Tensor | None = None,
) -> Tensor:
    """Channel weights w = dS/do (B, T, L, R, D) of the targets S = embedding . direction.

    With `delta` (L, B, R, D) they are taken at o + delta, where integrated methods need them.
    """
    by_target = directions.transpose(0, 1)  # (T, B, E)

    if delta is None and trace.query_graph is not None:
        embedding, outputs = trace.query_graph  # (B, E), and an o (B, R, D) for each layer
        weights = torch.autograd.grad(
            embedding,
            outputs,
            by_target.to(embedding),
            is_grads_batched=True,
            retain_graph=True,
        )  # L of (T, B, R, D)
        return torch.stack(weights, dim=2).transpose(0, 1)

    if delta is None:
        delta = torch.stack([torch.zeros_like(layer.o) for layer in trace.layers])
    with torch.enable_grad():  # by functorch, because the live page is recorded through it
        embed = partial(tower.embed_from_attention, trace)
        _, pull_back = torch.func.vjp(embed, delta)
        (weights,) = torch.vmap(pull_back)(by_target)  # (T, L, B, R, D)
    return weights.detach().permute(2, 0, 1, 3, 4)


def attention_gradient(weights: Tensor, v: Tensor) -> Tensor:
    """Gradient of the attention, w . v_i = dS/d alpha_i, (B, H, R, N)."""
    weights = weights.unflatten(-1, v.shape[2:])  # (B, R, H, C)
    return torch.einsum("brhc,bnhc->bhrn", weights, v)


def spatial_weights(layer: Layer, valid_mask: Tensor, kind: str = "loosened") -> Tensor:
    """Spatial weights (B, H, R, N) in [0, 1], zero for tokens that are not valid.

    `kind` is "loosened" (how well the key of a token fits the query, the same for all heads),
    "softmax" (the attention itself) or "none" (one).
    """
    valid = valid_mask[:, None, None, :]  # (B, 1, 1, N)
    if kind == "none":
        return torch.ones_like(layer.attention) * valid
    if kind == "softmax":
        return layer.attention * valid
    assert kind == "loosened", kind

    q = F.normalize(layer.q.flatten(2), dim=-1)  # (B, R, D)
    k = F.normalize(layer.k.flatten(2), dim=-1)  # (B, N, D)
    cosine = torch.einsum("brd,bnd->brn", q, k)[:, None]  # (B, 1, R, N)

    lowest = cosine.masked_fill(~valid, torch.inf).amin(dim=-1, keepdim=True)
    highest = cosine.masked_fill(~valid, -torch.inf).amax(dim=-1, keepdim=True)
    spread = highest - lowest
    rounding = 16 * torch.finfo(cosine.dtype).eps  # cosines that differ by less are the same
    scaled = (cosine - lowest) / spread.clamp_min(rounding)
    lam = torch.where(valid & (spread > rounding), scaled, 0.0)
    return lam.expand_as(layer.attention)
