"""Blending: Grad-ECLIP with a spatial weight anywhere between softmax and loosened.

    architecture --trace--> Trace --method--> map --Explanation--> picture

What the paper loosens is the attention's softmax, because it is too sparse to say where to look. How much loosening is
right? This makes the choice continuous, so that it can be turned with a slider and seen.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..explain import isolated_torch_state
from ..images import read_image, view_of
from ..methods.grad_eclip import attention_gradient, channel_weights, spatial_weights
from ..methods.interactions import word_directions, word_members
from ..words import split_read


def blended_maps(explainer, image, caption: str, share: float, against: str = "", words: bool = False) -> np.ndarray:
    """Grad-ECLIP with a spatial weight between softmax (``share`` 0) and loosened (1): signed maps (T, h, w).

    Maps are linear in lam, so this is (1 - share) * (map with softmax) + share * (map with loosened). The two weights
    have no common scale by themselves: lam's largest value is 1, while a row of alpha adds up to 1. So each row of
    alpha (a head, a reading token, a layer) is divided by its largest value; then the strongest token counts 1 in
    both, and what ``share`` changes is how fast the others fall off.

    Args:
        explainer: an `Explainer` of Grad-ECLIP.
        image: as for `Explainer.explain`.
        caption: one prompt; T is 1.
        share: 0 to 1.
        against: another prompt; then the map is for the lead over it.
        words: instead one map for each word of the caption, T of them, as `Explainer.interactions`.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must lie in 0 (softmax) to 1 (loosened), got {share!r}")
    soft, loose = map_pair(explainer, read_image(image), caption, against, words)
    return (1 - share) * soft + share * loose


def map_pair(explainer, picture: Image.Image, caption: str, against: str, words: bool) -> np.ndarray:
    """The two maps that are blended, (2, T, h, w)."""
    clip, tower, text_tower = explainer.clip, explainer.image_tower, explainer.text_tower
    single = explainer.attention == "single-head"
    with isolated_torch_state(tower.device):
        seen = view_of(clip.preprocess, picture, explainer.resolution, tower.patch_size)
        trace = tower.trace(seen.pixels[None].to(tower.device))
        trace = tower.with_one_head(trace) if single else trace
        texts = [text_tower.trace(clip.tokenizer([text]).to(text_tower.device)) for text in (caption, against) if text]
        if words:
            text = text_tower.with_one_head(texts[0]) if single else texts[0]
            members = word_members(split_read(caption, clip.tokenizer, text_tower).owners, text)
            directions = word_directions(text_tower, text, members)  # (W, E)
        else:
            directions = texts[0].embedding - (texts[1].embedding if against else 0)  # (1, E)
        maps = spatial_pair(tower, trace, directions[None])[:, 0]  # (2, T, N)
    height, width = trace.grid
    return maps[..., -height * width :].unflatten(-1, trace.grid).float().cpu().numpy()


def spatial_pair(tower, trace, directions: Tensor) -> Tensor:
    """Signed maps (2, B, T, N): with softmax (each row divided by its largest value), and with loosened weight."""
    weights = channel_weights(tower, trace, directions)  # (B, T, L, R, D)
    maps = weights.new_zeros(2, *directions.shape[:2], trace.real.shape[1])
    for position, layer in enumerate(trace.layers):
        soft = spatial_weights(layer, trace.real, "softmax")  # (B, H, R, N)
        soft = soft / soft.amax(-1, keepdim=True).clamp_min(torch.finfo(soft.dtype).tiny)
        both = torch.stack([soft, spatial_weights(layer, trace.real)])
        for target in range(directions.shape[1]):
            gradient = attention_gradient(weights[:, target, position], layer.v)
            maps[:, :, target] += (both * gradient).sum(dim=(2, 3))
    return maps
