"""Methods that read attention: raw attention, rollout, GAME, LeGrad and integrated attention.

    model --tower--> Trace --here--> map --Explanation--> figure

`registry` says what they have in common. Shapes: B inputs, T targets, L explained layers, R query tokens, N tokens of
width D, H heads of C channels, E the width of the embedding.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from ..towers import Tower, Trace
from ..towers.blocks import Block, attend
from .grad_eclip import attention_gradient, channel_weights
from .input_gradients import path_points
from .perturbation import blank_maps, word_numbers


def attention(tower: Tower, trace: Trace, directions: Tensor) -> Tensor:
    """Raw attention: map_i = alpha_i of the last layer, averaged over heads and over query tokens.

    Explains where the tower looks, whatever the target is: the directions are not used and all T maps are the same.
    Vaswani et al., "Attention Is All You Need", NeurIPS 2017; as an explanation, Jain and Wallace, "Attention is not
    Explanation", NAACL 2019. Cost: the trace.

    Args:
        tower: the encoder.
        trace: B inputs, traced by it.
        directions: (B, T, E), of which only the number T counts.
    """
    return _same_for_all(trace, trace.layers[-1].attention.mean(dim=(1, 2)), directions)


def rollout(tower: Tower, trace: Trace, directions: Tensor) -> Tensor:
    """Attention rollout: the query tokens' row of prod_l (A_l + I) / 2, from the lowest layer to the highest.

    A_l is the attention of layer l averaged over heads; the identity stands for the residual stream. Explains how
    attention could mix the input, whatever the target is, as raw attention. Abnar and Zuidema, "Quantifying Attention
    Flow in Transformers", ACL 2020, arXiv 2005.00928. Only the row that is read is multiplied, from the top down. An
    attention pool has no residual stream, and so no identity. Cost: 1 forward pass.

    Args:
        tower: the encoder.
        trace: B inputs, traced by it.
        directions: (B, T, E), of which only the number T counts.
    """
    layers = [(block, weights.mean(1)) for block, weights, _ in _layer_passes(tower, trace)]  # (B, N, N)
    row = _query_row(tower, trace)
    for block, weights in reversed(layers):
        row = _times(row, weights) if block.pools else 0.5 * (row + _times(row, weights))
    return _same_for_all(trace, row, directions)


def game(tower: Tower, trace: Trace, directions: Tensor) -> Tensor:
    """GAME (Chefer): the query tokens' row of R, where R = I, and R <- R + mean_h relu(dS/dA_l * A_l) R upwards.

    Explains the model's own similarity, by attention that pulls it up in any layer. Chefer, Gur and Wolf, "Generic
    Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder Transformers", ICCV 2021, arXiv
    2103.15679 (the rule for self-attention, each tower by itself). All layers take part; the authors' notebook for CLIP
    takes only the last unless it is told otherwise. Not linear in the direction, because of the relu.

    Where we deviate, in arithmetic only: one call of autograd for the gradients of all layers; only the row that is
    read is multiplied, from the top down; the 1 that the identity gives a query token itself is left out. An
    attention pool has no residual stream, and so no identity. Cost: 1 forward pass with a graph, and a backward pass
    (as long again) a target.

    Args:
        tower: the encoder.
        trace: B inputs, traced by it.
        directions: (B, T, E), the targets' directions in embedding space.
    """
    with torch.enable_grad():
        blocks, attentions, outputs = zip(*_layer_passes(tower, trace), strict=True)
        embedding = tower.resume(trace, tower.depth, outputs[-1])
    maps = []
    for direction in directions.unbind(1):
        slopes = torch.autograd.grad(embedding, attentions, direction, retain_graph=True)
        row = start = _query_row(tower, trace)
        for block, weights, slope in zip(reversed(blocks), reversed(attentions), reversed(slopes), strict=True):
            pulled = _times(row, (slope * weights.detach()).relu().mean(1))
            row = pulled if block.pools else row + pulled
        maps.append(row if blocks[-1].pools else row - start)
    return torch.stack(maps, dim=1) * trace.valid_mask[:, None]


def legrad(tower: Tower, trace: Trace, directions: Tensor) -> Tensor:
    """LeGrad: map_i = mean over layers, heads and queries j of relu(dS_l / dA_l,ji).

    S_l is the target as it would be if the tower ended after layer l: the layer's tokens, averaged, through the final
    norm and projection. Explains these S_l, of which not even the last is the model's similarity, since the model reads
    CLS alone. Bousselham et al., "LeGrad: An Explainability Method for Vision Transformers via Feature Formation
    Sensitivity", ICCV 2025, arXiv 2404.03214. The last sixth of the layers, two of twelve, as the authors' code has it
    by default; an attention pool is read as it is. Where we deviate: their code changes the model's forward pass on
    current open_clip, ours does not; a mean over layers instead of a sum. Not linear in the direction. Cost: the
    explained layers forward with a graph, and each of them backward for each target.

    Args:
        tower: the encoder.
        trace: B inputs, traced by it.
        directions: (B, T, E), the targets' directions in embedding space.
    """
    maps = blank_maps(trace, directions)
    with torch.enable_grad():
        for block, weights, output in _layer_passes(tower, trace):
            read = output if block.pools else output.mean(1, keepdim=True).expand_as(output)
            embedding = tower.resume(trace, tower.depth, read)
            for target, direction in enumerate(directions.unbind(1)):
                (slope,) = torch.autograd.grad(embedding, weights, direction, retain_graph=True)  # (B, H, N, N)
                maps[:, target] += slope.relu().mean(dim=(1, 2)) / tower.layers
    return maps * trace.valid_mask[:, None]


def integrated_attention(
    tower: Tower, trace: Trace, directions: Tensor, *, words: Tensor | None = None, steps: int = 8
) -> Tensor:
    """Integrated attention: score_i = sum over layers of alpha_i * mean_a dS/dalpha_i at a * alpha, a from 0 to 1.

    Along the path what EOT collects from all words, in every explained layer, grows from nothing to what the trace
    has; SOT and EOT stay. Scores add up to S(prompt) - S(prompt of whose words nothing is collected there), so they see
    what attention times gradient does not: a similarity that has levelled off before the end of the path, where all
    gradients are small. Explains the model's own similarity. Hao, Dong, Wei and Xu, "Self-Attention Attribution:
    Interpreting Information Interactions Inside Transformer", AAAI 2021, arXiv 2004.11207.

    Where we deviate: only the query token's row of the attention is scaled, and what its words brought in a layer is
    that of the trace, while its own later queries follow the path; their path goes through one layer's whole matrix,
    ours through all explained layers at once. Linear in the direction. Cost: `steps` readouts and their gradients.

    Args:
        tower: the text encoder.
        trace: B prompts, traced by it.
        directions: (B, T, E), the targets' directions in embedding space.
        words: (B, N) numbers the word of every token, -1 where there is none; by default every token is a word.
        steps: points of Gauss-Legendre's rule on the path.
    """
    inside = (word_numbers(trace) if words is None else words) >= 0  # (B, N)
    weighted = [layer.attention * inside[:, None, None] for layer in trace.layers]  # (B, H, R, N) each
    brought = [
        torch.einsum("bhrn,bnhc->brhc", alpha, layer.v).flatten(2)
        for alpha, layer in zip(weighted, trace.layers, strict=True)
    ]
    collected = torch.stack(brought)  # (L, B, R, D)
    maps = blank_maps(trace, directions)
    for place, weight in path_points(steps):
        slopes = channel_weights(tower, trace, directions, (place - 1) * collected)  # (B, T, L, R, D)
        for position, (alpha, layer) in enumerate(zip(weighted, trace.layers, strict=True)):
            for target in range(directions.shape[1]):
                pulls = attention_gradient(slopes[:, target, position], layer.v) * alpha
                maps[:, target] += weight * pulls.sum(dim=(1, 2))
    return maps


def _layer_passes(tower: Tower, trace: Trace) -> Iterator[tuple[Block, Tensor, Tensor]]:
    """Each explained layer, its attention (B, H, N, N) and its output (B, N, D) for every token, in the caller's graph.

    Of a pool with latent queries, which are no tokens, (B, H, R, N) and (B, R, D).
    """
    x = trace.tokens.detach().requires_grad_()  # so that a graph is kept where the caller wants one
    attention_mask = trace.mask_of_heads()
    if tower.causal and attention_mask is None:
        attention_mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
    for block in tower.explained:
        normed = block.enter(x, trace.positions)
        q, k, v = (block.project(normed, part, trace.heads, trace.positions) for part in range(3))
        weights, o = attend(q, k, v, attention_mask)
        x = block.finish(x, o)
        yield block, weights, x


def _query_row(tower: Tower, trace: Trace) -> Tensor:
    """(B, N), one shared out over the query tokens; (B, R) where latent queries read."""
    if tower.explained[-1].latent:
        return torch.full_like(trace.layers[-1].o[..., 0], 1 / trace.layers[-1].o.shape[1])
    row = torch.zeros_like(trace.valid_mask, dtype=trace.embedding.dtype)
    return row.scatter(1, trace.query_index, 1 / trace.query_index.shape[1])


def _times(row: Tensor, matrix: Tensor) -> Tensor:
    return torch.einsum("bj,bji->bi", row, matrix)


def _same_for_all(trace: Trace, rows: Tensor, directions: Tensor) -> Tensor:
    """(B, N) -> (B, T, N)."""
    return (rows * trace.valid_mask)[:, None].repeat(1, directions.shape[1], 1)
