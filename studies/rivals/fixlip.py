"""FIxLIP, the half for images: Banzhaf values of patches in the game of a masked image.

Baniecki, Muschalik, Fumagalli, Hammer, Huellermeier and Biecek, arXiv 2508.05430, explain how words
and patches act together. Of one prompt as a whole, that is the value of each patch. Shapes: B
images, T targets, N tokens, P patches, C coalitions, E the width of the embedding.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gradeclip_utils.methods.common import on_patches
from gradeclip_utils.methods.options import DEFAULTS, Options
from gradeclip_utils.methods.perturbation import embed_through_masks
from gradeclip_utils.towers import Tower, Trace


def fixlip(
    tower: Tower,
    trace: Trace,
    directions: Tensor,
    options: Options = DEFAULTS,
    *,
    masks: int = 500,
) -> Tensor:
    """Map_i is the Banzhaf value of patch i in the game of all patches: (B, T, N)."""
    assert trace.grid is not None
    rows, columns = trace.grid
    pixels = trace.inputs  # (B, 3, H, W)
    coalitions, weights = banzhaf_weights(rows * columns, masks, options.seed)
    width = trace.embedding.shape[-1]
    values = trace.embedding.new_zeros(len(pixels), len(weights), width)  # (B, P, E)

    patch = pixels.new_ones(1, *tower.patch_size)
    right = pixels.shape[-1] - columns * patch.shape[-1]
    bottom = pixels.shape[-2] - rows * patch.shape[-2]

    def draw_masks(numbers: Tensor) -> Tensor:
        """Coalitions as masks (n, H, W); pixels beyond the last whole patch are dark."""
        visible = coalitions[numbers].unflatten(1, (rows, columns)).to(pixels)
        return F.pad(torch.kron(visible, patch), (0, right, 0, bottom))

    batches = embed_through_masks(tower, trace, len(coalitions), draw_masks, "FIxLIP")
    for numbers, _, embeddings in batches:
        weight = weights[:, numbers].to(embeddings)
        values += torch.einsum("pn,bne->bpe", weight, embeddings)
    maps = torch.einsum("bpe,bte->btp", values, directions)
    return on_patches(trace, maps)


def banzhaf_weights(players: int, samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Coalitions (C, n) of n players, all or drawn, and weights (n, C) that give Banzhaf values.

    The values are the coefficients of the additive game that is nearest to the game.
    """
    if 2**players <= samples:
        coalitions = np.arange(2**players)[:, None] >> np.arange(players) & 1
    else:
        coalitions = np.random.default_rng(seed).random((samples, players)) < 0.5

    constant = np.ones(len(coalitions))
    weights = np.linalg.pinv(np.column_stack([constant, coalitions]))
    return torch.from_numpy(coalitions).bool(), torch.from_numpy(weights[1:])
