"""Methods that read attention: raw attention, rollout, GAME and LeGrad.

`registry` describes their common form. Shapes: B inputs, T targets, L explained layers, R query
tokens, N tokens of width D, H heads of C channels, E the width of the embedding.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from ..towers import Tower, Trace
from ..towers.blocks import Block
from .common import zero_maps
from .options import DEFAULTS, Options


def attention(
    tower: Tower,
    trace: Trace,
    directions: Tensor,
    options: Options = DEFAULTS,
) -> Tensor:
    """Raw attention: alpha_i of the last layer, averaged over heads and over query tokens."""
    weights = trace.layers[-1].attention.mean(dim=1)  # (B, R, N)
    shares = _query_shares(tower, trace)
    if not tower.explained[-1].latent:
        shares = shares.gather(1, trace.query_index)  # (B, N) -> (B, R)

    row = torch.einsum("br,brn->bn", shares, weights)
    return _same_for_all(trace, row, directions)


def rollout(
    tower: Tower,
    trace: Trace,
    directions: Tensor,
    options: Options = DEFAULTS,
) -> Tensor:
    """Attention rollout: the query tokens' row of prod_l (A_l + I) / 2, the lowest layer last."""
    layers = []
    for block, weights, _ in _layer_passes(tower, trace):
        layers.append((block, weights.mean(dim=1)))  # (B, N, N)

    row = _query_shares(tower, trace)
    for block, weights in reversed(layers):
        collected = torch.einsum("bj,bji->bi", row, weights)
        row = collected if block.pools else 0.5 * (row + collected)
    return _same_for_all(trace, row, directions)


def game(
    tower: Tower,
    trace: Trace,
    directions: Tensor,
    options: Options = DEFAULTS,
) -> Tensor:
    """GAME (Chefer): the query tokens' row of R, with R = I at the lowest layer.

    Every layer upwards adds mean_h relu(dS/dA_l * A_l) R to it.
    """
    with torch.enable_grad():
        blocks, attentions, outputs = zip(*_layer_passes(tower, trace), strict=True)
        embedding = tower.forward_from(trace, tower.depth, outputs[-1])
    shares = _query_shares(tower, trace)

    maps = []
    for direction in directions.unbind(dim=1):
        slopes = torch.autograd.grad(embedding, attentions, direction, retain_graph=True)
        layers = zip(blocks, attentions, slopes, strict=True)

        row = shares
        for block, weights, slope in reversed(list(layers)):
            relevance = (slope * weights.detach()).relu().mean(dim=1)  # (B, N, N)
            collected = torch.einsum("bj,bji->bi", row, relevance)
            row = collected if block.pools else row + collected
        if not blocks[-1].pools:
            row = row - shares
        maps.append(row)
    return torch.stack(maps, dim=1) * trace.valid_mask[:, None]


def legrad(
    tower: Tower,
    trace: Trace,
    directions: Tensor,
    options: Options = DEFAULTS,
) -> Tensor:
    """LeGrad: map_i = mean over layers, heads and tokens j of relu(dS_l / dA_l,ji).

    S_l is the similarity if the tower ended after layer l and averaged its tokens.
    """
    maps = zero_maps(trace, directions)
    with torch.enable_grad():
        for block, weights, output in _layer_passes(tower, trace):
            if not block.pools:
                output = output.mean(dim=1, keepdim=True).expand_as(output)
            embedding = tower.forward_from(trace, tower.depth, output)

            for target, direction in enumerate(directions.unbind(dim=1)):
                (slope,) = torch.autograd.grad(embedding, weights, direction, retain_graph=True)
                maps[:, target] += slope.relu().mean(dim=(1, 2)) / tower.layers
    return maps * trace.valid_mask[:, None]


def _layer_passes(tower: Tower, trace: Trace) -> Iterator[tuple[Block, Tensor, Tensor]]:
    """Each explained layer, its attention (B, H, N, N) and its output (B, N, D).

    They are computed again, in the caller's graph, if the trace does not have them.
    """
    if trace.layer_graph is not None:
        for block, (weights, output) in zip(tower.explained, trace.layer_graph, strict=True):
            yield block, weights, output
    else:
        for block, (layer, output) in zip(tower.explained, tower.run_explained(trace), strict=True):
            yield block, layer.attention, output


def _query_shares(tower: Tower, trace: Trace) -> Tensor:
    """One, shared equally by the query tokens: (B, N), or (B, R) for latent queries."""
    if tower.explained[-1].latent:
        o = trace.layers[-1].o  # (B, R, D)
        return torch.full_like(o[..., 0], 1 / o.shape[1])
    reads = trace.readers.to(trace.embedding)
    return reads / reads.sum(dim=-1, keepdim=True)


def _same_for_all(trace: Trace, row: Tensor, directions: Tensor) -> Tensor:
    """(B, N) -> (B, T, N): the map does not depend on the target."""
    return (row * trace.valid_mask)[:, None].repeat(1, directions.shape[1], 1)
