"""Methods that read the tokens themselves: Grad-CAM, MaskCLIP and CLIP Surgery.

`registry` describes their common form. Shapes: B inputs, T targets, N tokens of width D, E the
width of the embedding.
"""

from functools import partial

import torch
from torch import Tensor

from ..errors import UnsupportedModel
from ..towers import Tower, Trace
from ..towers.blocks import apply, attend_fused
from .gradients import target_gradients
from .options import DEFAULTS, Options


def grad_cam(
    tower: Tower,
    trace: Trace,
    directions: Tensor,
    options: Options = DEFAULTS,
) -> Tensor:
    """Grad-CAM: map_i = sum_c w_c x_ic, with x the tokens that enter the last block.

    w_c is the mean of dS/dx_ic over the patches.
    """
    embed = partial(tower.forward_from, trace, tower.first)
    patches = trace.valid_mask[..., None]  # (B, N, 1)

    maps = []
    for slope in target_gradients(embed, trace.tokens, directions):
        weights = (slope * patches).sum(dim=1) / patches.sum(dim=1)  # (B, D)
        maps.append(torch.einsum("bd,bnd->bn", weights, trace.tokens))
    return torch.stack(maps, dim=1) * trace.valid_mask[:, None]


def maskclip(
    tower: Tower,
    trace: Trace,
    directions: Tensor,
    options: Options = DEFAULTS,
) -> Tensor:
    """MaskCLIP: map_i = f_i . d, with f_i the unit embedding of token i if it sees itself alone."""
    maps = torch.einsum("bne,bte->btn", tower.dense(trace), directions)
    return maps * trace.valid_mask[:, None]


def clip_surgery(
    tower: Tower,
    trace: Trace,
    directions: Tensor,
    options: Options = DEFAULTS,
) -> Tensor:
    """CLIP Surgery: map_i = f_i . d less what all targets share.

    f comes from a second path through the explained layers, of v-v attention alone.
    """
    tokens = surgery = trace.tokens  # the model's own path, and the second one
    for position, block in enumerate(tower.explained, start=tower.first):
        if block.pools or block.post_norms:
            kind = type(block.module).__name__
            raise UnsupportedModel(
                f"CLIP Surgery needs transformer blocks as CLIP's own are, the tower has a {kind}"
            )
        _, _, v = block.project(tokens, trace.positions, trace.heads)
        surgery = surgery + apply(block.out, attend_fused(v, v, v, None))
        if position < tower.depth - 1:
            tokens = tower.run_block(trace, position, tokens)

    targets = directions.shape[1]
    if targets == 1 and options.empty is not None:
        directions = directions - options.empty
    maps = torch.einsum("bne,bte->btn", tower.embed_alone(trace, surgery), directions)

    if targets > 1:
        similarity = torch.einsum("be,bte->bt", trace.embedding, directions)
        weights = (2 * similarity).softmax(dim=-1) * targets
        maps = maps * weights[..., None]
        maps = maps - maps.mean(dim=1, keepdim=True)
    return maps * trace.valid_mask[:, None]
