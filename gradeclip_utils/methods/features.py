"""Methods that read the tokens themselves: Grad-CAM, MaskCLIP and CLIP Surgery.

`registry` describes their common form. Shapes: B inputs, T targets, N tokens of width D, E the
width of the embedding.
"""

import torch
from torch import Tensor

from ..errors import UnsupportedModel
from ..towers import Tower, Trace
from ..towers.blocks import apply, attend_fused
from .gradients import target_gradients
from .options import DEFAULTS, Options


def grad_cam(tower: Tower, trace: Trace, directions: Tensor, options: Options = DEFAULTS) -> Tensor:
    """Grad-CAM: map_i = sum_c w_c x_ic, with x the tokens that enter the last block, w_c = mean_i dS/dx_ic."""
    maps = []
    for slope in target_gradients(
        lambda x: tower.forward_from(trace, tower.depth - tower.layers, x), trace.tokens, directions
    ):
        weights = (slope * trace.valid_mask[..., None]).sum(1) / trace.valid_mask.sum(
            1, keepdim=True
        )  # (B, D)
        maps.append(torch.einsum("bd,bnd->bn", weights, trace.tokens))
    return torch.stack(maps, dim=1) * trace.valid_mask[:, None]


def maskclip(tower: Tower, trace: Trace, directions: Tensor, options: Options = DEFAULTS) -> Tensor:
    """MaskCLIP: map_i = f_i . d, with f_i the unit embedding of token i when it attends to itself alone."""
    return torch.einsum("bne,bte->btn", tower.dense(trace), directions) * trace.valid_mask[:, None]


def clip_surgery(
    tower: Tower, trace: Trace, directions: Tensor, options: Options = DEFAULTS
) -> Tensor:
    """CLIP Surgery: map_i = f_i . d less what all targets share, with f from a second path of v-v attention."""
    x = y = trace.tokens
    for position, block in enumerate(tower.explained, start=tower.depth - tower.layers):
        if block.pools or block.post_norms:
            kind = type(block.module).__name__
            raise UnsupportedModel(
                f"CLIP Surgery needs transformer blocks as CLIP's own are, the tower has a {kind}"
            )
        v = block.project(x, trace.positions, trace.heads)[2]
        y = y + apply(block.out, attend_fused(v, v, v, None))
        if (
            position < tower.depth - 1
        ):  # of the model's own path only what feeds the other is needed
            x = tower.run_block(trace, position, x)
    if directions.shape[1] == 1 and options.empty is not None:
        directions = directions - options.empty
    maps = torch.einsum("bne,bte->btn", tower.embed_alone(trace, y), directions)
    if directions.shape[1] > 1:
        weights = (
            torch.einsum("be,bte->bt", trace.embedding, 2 * directions).softmax(-1)
            * directions.shape[1]
        )
        maps = maps * weights[..., None]
        maps = maps - maps.mean(1, keepdim=True)
    return maps * trace.valid_mask[:, None]
