"""Methods that read attention: raw attention, rollout, GAME and LeGrad.

`registry` describes their common form. Shapes: B inputs, T targets, L explained layers, R query
tokens, N tokens of width D, H heads of C channels, E the width of the embedding.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from ..towers import Tower, Trace
from ..towers.blocks import Block, attend
from .common import zero_maps
from .options import DEFAULTS, Options


def attention(
    tower: Tower, trace: Trace, directions: Tensor, options: Options = DEFAULTS
) -> Tensor:
    """Raw attention: map_i = alpha_i of the last layer, averaged over heads and over query tokens."""
    weights, row = trace.layers[-1].attention.mean(1), _query_row(tower, trace)  # (B, R, N)
    row = row if tower.explained[-1].latent else row.gather(1, trace.query_index)
    return _same_for_all(trace, torch.einsum("br,brn->bn", row, weights), directions)


def rollout(tower: Tower, trace: Trace, directions: Tensor, options: Options = DEFAULTS) -> Tensor:
    """Attention rollout: the query tokens' row of prod_l (A_l + I) / 2, from the lowest layer to the highest."""
    layers = [
        (block, weights.mean(1)) for block, weights, _ in _layer_passes(tower, trace)
    ]  # (B, N, N)
    row = _query_row(tower, trace)
    for block, weights in reversed(layers):
        read = torch.einsum("bj,bji->bi", row, weights)
        row = read if block.pools else 0.5 * (row + read)
    return _same_for_all(trace, row, directions)


def game(tower: Tower, trace: Trace, directions: Tensor, options: Options = DEFAULTS) -> Tensor:
    """GAME (Chefer): the query tokens' row of R, where R = I, and R <- R + mean_h relu(dS/dA_l * A_l) R upwards."""
    with torch.enable_grad():
        blocks, attentions, outputs = zip(*_layer_passes(tower, trace), strict=True)
        embedding = tower.forward_from(trace, tower.depth, outputs[-1])
    maps = []
    for direction in directions.unbind(1):
        slopes = torch.autograd.grad(embedding, attentions, direction, retain_graph=True)
        row = start = _query_row(tower, trace)
        for block, weights, slope in zip(
            reversed(blocks), reversed(attentions), reversed(slopes), strict=True
        ):
            pulled = torch.einsum("bj,bji->bi", row, (slope * weights.detach()).relu().mean(1))
            row = pulled if block.pools else row + pulled
        maps.append(row if blocks[-1].pools else row - start)
    return torch.stack(maps, dim=1) * trace.valid_mask[:, None]


def legrad(tower: Tower, trace: Trace, directions: Tensor, options: Options = DEFAULTS) -> Tensor:
    """LeGrad: map_i = mean over layers, heads and queries j of relu(dS_l / dA_l,ji)."""
    maps = zero_maps(trace, directions)
    with torch.enable_grad():
        for block, weights, output in _layer_passes(tower, trace):
            read = output if block.pools else output.mean(1, keepdim=True).expand_as(output)
            embedding = tower.forward_from(trace, tower.depth, read)
            for target, direction in enumerate(directions.unbind(1)):
                (slope,) = torch.autograd.grad(
                    embedding, weights, direction, retain_graph=True
                )  # (B, H, N, N)
                maps[:, target] += slope.relu().mean(dim=(1, 2)) / tower.layers
    return maps * trace.valid_mask[:, None]


def _layer_passes(tower: Tower, trace: Trace) -> Iterator[tuple[Block, Tensor, Tensor]]:
    """Each explained layer, its attention (B, H, N, N) and its output (B, N, D), in the caller's graph."""
    x = trace.tokens.detach().requires_grad_()  # for callers that want a graph
    for block in tower.explained:
        weights, o = attend(*block.project(x, trace.positions, trace.heads), trace.attention_mask)
        x = block.after_attention(x, o)
        yield block, weights, x


def _query_row(tower: Tower, trace: Trace) -> Tensor:
    """(B, N), one shared out over the query tokens; (B, R) where latent queries read."""
    if tower.explained[-1].latent:
        return torch.full_like(trace.layers[-1].o[..., 0], 1 / trace.layers[-1].o.shape[1])
    row = trace.readers.to(trace.embedding)
    return row / row.sum(-1, keepdim=True)


def _same_for_all(trace: Trace, rows: Tensor, directions: Tensor) -> Tensor:
    """(B, N) -> (B, T, N)."""
    return (rows * trace.valid_mask)[:, None].repeat(1, directions.shape[1], 1)
