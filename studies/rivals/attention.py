"""Rivals that look at or change attention: CCI for images, integrated attention for prompts."""

from dataclasses import replace

import torch
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn import functional as F

from gradeclip_utils.methods.common import (
    on_patches,
    one_word_per_token,
    repeat_input,
    zero_maps,
)
from gradeclip_utils.methods.grad_eclip import attention_gradient, channel_weights
from gradeclip_utils.methods.gradients import path_points
from gradeclip_utils.methods.options import DEFAULTS, Options
from gradeclip_utils.towers import Tower, Trace


def cci(
    tower: Tower,
    trace: Trace,
    directions: Tensor,
    options: Options = DEFAULTS,
    *,
    clusters: int = 7,
) -> Tensor:
    """CCI: the fall of the target when no token may read a cluster of like patches.

    A patch has the fall of its cluster, divided by the sum of all clusters' absolute falls.
    Clusters are k-means of the last block's output.
    """
    assert trace.grid is not None
    first_explained = tower.depth - tower.layers
    features = trace.tokens
    for position in range(first_explained, tower.depth - tower.blocks[-1].pools):
        features = tower.run_block(trace, position, features)
    patch_count = trace.grid[0] * trace.grid[1]
    patches = features[:, -patch_count:].detach().cpu().numpy()  # (B, P, D)

    maps = []
    for i, image_patches in enumerate(patches):
        kmeans = KMeans(min(clusters, patch_count), random_state=options.seed)
        labels = torch.as_tensor(kmeans.fit_predict(image_patches)).long()
        members = F.one_hot(labels.to(features.device)).T[None]  # (1, K, P)
        hidden = on_patches(trace, members)[0].bool()  # (K, N)

        copies = repeat_input(trace, i, len(hidden))
        visible = ~hidden[:, None, None]  # (K, 1, 1, N): the same for every head and query
        if copies.attention_mask is not None:
            visible = visible & copies.attention_mask
        copies = replace(copies, attention_mask=visible)
        embeddings = tower.forward_from(copies, first_explained, copies.tokens)  # (K, E)

        falls = directions[i] @ (trace.embedding[i] - embeddings).T  # (T, K)
        smallest = torch.finfo(falls.dtype).tiny
        falls = falls / falls.abs().sum(-1, keepdim=True).clamp_min(smallest)
        maps.append(falls @ hidden.to(falls))
    return torch.stack(maps)


def integrated_attention(
    tower: Tower,
    trace: Trace,
    directions: Tensor,
    options: Options = DEFAULTS,
    *,
    steps: int = 8,
) -> Tensor:
    """Integrated attention.

    Score_i = sum over layers of alpha_i * mean_a dS/dalpha_i at a * alpha, a from 0 to 1.
    """
    word_ids = options.word_ids
    if word_ids is None:
        word_ids = one_word_per_token(trace)
    of_words = (word_ids >= 0)[:, None, None]  # (B, 1, 1, N)

    # the attention to words, and what the queries collect with it
    attentions = [layer.attention * of_words for layer in trace.layers]  # (B, H, R, N) each
    collected = []
    for attention, layer in zip(attentions, trace.layers, strict=True):
        collected.append(torch.einsum("bhrn,bnhc->brhc", attention, layer.v).flatten(2))
    collected = torch.stack(collected)  # (L, B, R, D)

    maps = zero_maps(trace, directions)
    for place, weight in path_points(steps):
        change = (place - 1) * collected
        slopes = channel_weights(tower, trace, directions, change)  # (B, T, L, R, D)
        for i, (attention, layer) in enumerate(zip(attentions, trace.layers, strict=True)):
            for target in range(directions.shape[1]):
                relevance = attention_gradient(slopes[:, target, i], layer.v) * attention
                maps[:, target] += weight * relevance.sum(dim=(1, 2))
    return maps
