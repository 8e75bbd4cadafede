"""What several methods share: empty maps, maps of patches, the words of a prompt, a repeated input.

Shapes: B inputs, T targets, N tokens, P = h * w patches, which are the last tokens of an image.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ..towers import Tower, Trace
from ..words import Split

BAR_DELAY = 1.0  # seconds after which a progress bar is shown


def zero_maps(trace: Trace, directions: Tensor) -> Tensor:
    """Zero in every map (B, T, N), in the precision of the directions."""
    return directions.new_zeros(*directions.shape[:2], trace.valid_mask.shape[1])


def on_patches(trace: Trace, values: Tensor) -> Tensor:
    """Maps over tokens (B, T, N) from values over patches (B, T, P); other tokens get zero."""
    other_tokens = trace.valid_mask.shape[1] - values.shape[-1]
    return F.pad(values, (other_tokens, 0))


def mean_over_patches(tower: Tower, trace: Trace, values: Tensor) -> Tensor:
    """Means (..., P) over patches of values (..., H, W).

    Pixels beyond the last whole patch, which no model reads, are left out.
    """
    assert trace.grid is not None
    rows, columns = trace.grid
    patch_height, patch_width = tower.patch_size
    bottom = rows * patch_height - values.shape[-2]
    right = columns * patch_width - values.shape[-1]
    whole_patches = F.pad(values, (0, right, 0, bottom))
    return F.avg_pool2d(whole_patches, tower.patch_size).flatten(-2)


def word_ids_of(splits: Sequence[Split], valid_mask: Tensor) -> Tensor:
    """The word of every token of B prompts (B, N); -1 for SOT, EOT and padding."""
    word_ids = torch.full_like(valid_mask, -1, dtype=torch.long)
    for row, split in zip(word_ids, splits, strict=True):
        row[split.first :][: len(split.word_ids)] = torch.tensor(split.word_ids)
    return word_ids


def one_word_per_token(trace: Trace) -> Tensor:
    """Word ids (B, N) if each token is a word of its own; -1 for SOT, EOT and padding."""
    rows = torch.arange(len(trace.valid_mask), device=trace.valid_mask.device)
    eot = trace.valid_mask.sum(dim=-1) - 1

    inside = trace.valid_mask.clone()
    inside[:, 0] = False  # SOT
    inside[rows, eot] = False
    return torch.where(inside, inside.cumsum(dim=-1), -1)


def repeat_input(trace: Trace, index: int, count: int) -> Trace:
    """One input of a trace, `count` times, as far as `Tower.forward_from` asks."""
    copies = [index] * count
    mask = trace.attention_mask
    if mask is not None and len(mask) > 1:
        mask = mask[[index]]
    return replace(
        trace,
        inputs=trace.inputs[copies],
        tokens=trace.tokens[copies],
        query_index=trace.query_index[copies],
        valid_mask=trace.valid_mask[copies],
        attention_mask=mask,
    )
