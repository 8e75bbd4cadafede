"""Interactions: word x region maps, and the same without the part that all named things share.

A word pushes the prompt's embedding in a direction; Grad-ECLIP of the image with that direction for
a target is the region that *this word* matches. The directions of a caption have a part in common,
which matches any object. Each noun's direction less the mean of all nouns' directions tells them
apart. Maps are linear in the direction, so the mean can be taken away before or after the map.

Shapes: N tokens, W words, E the width of the embedding.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import GradeclipError
from ..towers import Tower, Trace
from ..words import Split
from .grad_eclip import spatial_weights


def word_masks(split: Split, trace: Trace) -> Tensor:
    """The tokens of each word of a prompt, (W, N) bool; SOT, EOT and padding belong to no word."""
    word_ids = torch.tensor(split.word_ids, device=trace.valid_mask.device)
    return F.pad(
        F.one_hot(word_ids).T.bool(),
        (split.first, trace.valid_mask.shape[1] - split.first - len(word_ids)),
    )


def word_directions(
    tower: Tower, trace: Trace, word_mask: Tensor, spatial: str = "loosened"
) -> Tensor:
    """The direction t_j (W, E) in which each word pushes the embedding of the one prompt in `trace`; or of several."""
    masks, pushes = word_mask if word_mask.ndim == 3 else word_mask[:, None], []
    assert len(trace.tokens) == masks.shape[1]
    for layer in trace.layers:
        mu = spatial_weights(layer, trace.valid_mask, spatial)
        pushes.append(
            torch.einsum("wbn,bhrn,bnhc->wbrhc", masks.to(mu.dtype), mu, layer.v).flatten(3)
        )  # (W, B, R, D)
    start = torch.zeros_like(torch.stack([layer.o for layer in trace.layers]))

    def push(tangent: Tensor) -> Tensor:  # (L, B, R, D) -> (B, E)
        """The change of the embedding for a change of o."""
        return torch.func.jvp(
            lambda delta: tower.embed_from_attention(trace, delta), (start,), (tangent,)
        )[1]

    found = torch.vmap(push)(torch.stack(pushes, dim=1)).detach()  # (W, L, B, R, D) -> (W, B, E)
    return found if word_mask.ndim == 3 else found[:, 0]


def named_things(caption: str, spans: Sequence[tuple[int, int]]) -> tuple[tuple[int, ...], ...]:
    """The words that name things: for each noun phrase of a caption its nouns, as indices into the words."""
    from ..language import phrases  # its taggers are slow to import

    groups = []
    for phrase in phrases(caption):
        nouns = [word for word in phrase.words if word.part == "noun"] or [phrase.words[-1]]
        found = (
            i
            for i, (start, end) in enumerate(spans)
            if any(start < n.end and end > n.start for n in nouns)
        )
        if group := tuple(found):
            groups.append(group)
    return tuple(groups)


def centred(maps: np.ndarray, groups: Sequence[tuple[int, ...]]) -> np.ndarray:
    """Maps (W, ...) of words, each group's sum less the mean over the groups; other words keep their maps."""
    words = [i for group in groups for i in group]
    if len(groups) < 2 or not all(groups) or len(set(words)) < len(words):
        msg = f"centring needs two groups of words or more, each word at most once, none empty, got {list(groups)!r}"
        raise GradeclipError(msg)
    shared = np.mean([maps[list(group)].sum(0) for group in groups], axis=0)
    found = np.array(maps)
    for group in groups:
        found[list(group)] -= shared / len(group)
    return found
