"""Interactions: word x region maps, and the same without the part that all named things share.

A word pushes the prompt's embedding in a direction; Grad-ECLIP of the image with that direction for
a target is the region that *this word* matches. The directions of a caption have a part in common,
which matches any object. Each noun's direction less the mean of all nouns' directions tells them
apart. Maps are linear in the direction, so the mean can be taken away before or after the map.

Shapes: N tokens, W words, E the width of the embedding.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ..errors import GradeclipError
from ..language import phrases
from ..towers import Tower, Trace
from ..words import Split
from .common import word_ids_of
from .grad_eclip import spatial_weights


def word_masks(splits: Sequence[Split], trace: Trace) -> Tensor:
    """The tokens of each word of B prompts, (W, B, N) bool, as many as the longest prompt has.

    SOT, EOT and padding belong to no word.
    """
    word_ids = word_ids_of(splits, trace.valid_mask)  # (B, N)
    words = torch.arange(int(word_ids.max()) + 1, device=word_ids.device)
    return word_ids == words[:, None, None]


def word_directions(
    tower: Tower,
    trace: Trace,
    word_mask: Tensor,
    spatial: str = "loosened",
) -> Tensor:
    """The direction t_j in which each word pushes the prompt's embedding.

    Args:
        tower: the text encoder.
        trace: B prompts, traced by it.
        word_mask: the tokens of W words, (W, B, N); of a single prompt also (W, N).
        spatial: the `kind` of `spatial_weights`.

    Returns:
        (W, B, E); of a mask (W, N) also (W, E).
    """
    masks = word_mask if word_mask.ndim == 3 else word_mask[:, None]  # (W, B, N)
    assert len(trace.tokens) == masks.shape[1]

    pushes = []
    for layer in trace.layers:
        mu = spatial_weights(layer, trace.valid_mask, spatial)
        push = torch.einsum("wbn,bhrn,bnhc->wbrhc", masks.to(mu.dtype), mu, layer.v)
        pushes.append(push.flatten(3))  # (W, B, R, D)
    pushes = torch.stack(pushes, dim=1)  # (W, L, B, R, D)

    embed = partial(tower.embed_from_attention, trace)
    unchanged = torch.stack([torch.zeros_like(layer.o) for layer in trace.layers])

    def embedding_change(push: Tensor) -> Tensor:
        """The change (B, E) of the embedding for a small change (L, B, R, D) of o."""
        _, change = torch.func.jvp(embed, (unchanged,), (push,))
        return change

    directions = torch.vmap(embedding_change)(pushes).detach()  # (W, B, E)
    return directions if word_mask.ndim == 3 else directions[:, 0]


def named_things(prompt: str, spans: Sequence[tuple[int, int]]) -> tuple[tuple[int, ...], ...]:
    """The words that name things: for each noun phrase its nouns, as indices into the words."""
    groups = []
    for phrase in phrases(prompt):
        nouns = [word for word in phrase.words if word.part == "noun"] or [phrase.words[-1]]
        group = []
        for index, (start, end) in enumerate(spans):
            if any(start < noun.end and end > noun.start for noun in nouns):
                group.append(index)
        if group:
            groups.append(tuple(group))
    return tuple(groups)


def centred(maps: np.ndarray, groups: Sequence[tuple[int, ...]]) -> np.ndarray:
    """Maps (W, ...) of words, each group's sum less the mean over all groups."""
    words = [word for group in groups for word in group]
    if len(groups) < 2 or not all(groups) or len(set(words)) < len(words):
        raise GradeclipError(
            "centring needs two groups of words or more, each word at most once, none empty, "
            f"got {list(groups)!r}"
        )
    shared = np.mean([maps[list(group)].sum(axis=0) for group in groups], axis=0)

    centred_maps = np.array(maps)
    for group in groups:
        centred_maps[list(group)] -= shared / len(group)
    return centred_maps
