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
    """CCI: the fall of the target when no token may read the patches of a cluster, for clusters of like patches.

    A patch has the fall of its cluster, divided by the sum of all clusters' absolute falls.
    Clusters are k-means of the last block's output.
    """
    assert trace.grid is not None
    count, features = trace.grid[0] * trace.grid[1], trace.tokens
    for position in range(tower.depth - tower.layers, tower.depth - tower.blocks[-1].pools):
        features = tower.run_block(trace, position, features)
    maps = []
    for i, patches in enumerate(features[:, -count:].detach().cpu().numpy()):
        labels = torch.as_tensor(
            KMeans(min(clusters, count), random_state=options.seed).fit_predict(patches)
        ).long()
        hidden = on_patches(trace, F.one_hot(labels.to(features.device)).T[None])[
            0
        ].bool()  # (K, N)
        one = repeat_input(trace, i, len(hidden))
        seen = ~hidden[:, None, None]  # (K, 1, 1, N): the same for every head and query
        one = replace(
            one, attention_mask=seen if one.attention_mask is None else seen & one.attention_mask
        )
        embeddings = tower.forward_from(one, tower.depth - tower.layers, one.tokens)  # (K, E)
        falls = directions[i] @ (trace.embedding[i] - embeddings).T  # (T, K)
        falls = falls / falls.abs().sum(-1, keepdim=True).clamp_min(torch.finfo(falls.dtype).tiny)
        maps.append(falls @ hidden.to(falls))
    return torch.stack(maps)


def integrated_attention(
    tower: Tower, trace: Trace, directions: Tensor, options: Options = DEFAULTS, *, steps: int = 8
) -> Tensor:
    """Integrated attention: score_i = sum over layers of alpha_i * mean_a dS/dalpha_i at a * alpha, a from 0 to 1."""
    word_ids = options.word_ids
    if word_ids is None:
        word_ids = one_word_per_token(trace)
    inside = word_ids >= 0  # (B, N)
    weighted = [
        layer.attention * inside[:, None, None] for layer in trace.layers
    ]  # (B, H, R, N) each
    brought = [
        torch.einsum("bhrn,bnhc->brhc", alpha, layer.v).flatten(2)
        for alpha, layer in zip(weighted, trace.layers, strict=True)
    ]
    collected = torch.stack(brought)  # (L, B, R, D)
    maps = zero_maps(trace, directions)
    for place, weight in path_points(steps):
        slopes = channel_weights(
            tower, trace, directions, (place - 1) * collected
        )  # (B, T, L, R, D)
        for position, (alpha, layer) in enumerate(zip(weighted, trace.layers, strict=True)):
            for target in range(directions.shape[1]):
                pulls = attention_gradient(slopes[:, target, position], layer.v) * alpha
                maps[:, target] += weight * pulls.sum(dim=(1, 2))
    return maps
