"""Gradients of the input: input x gradient and integrated gradients, of an image's pixels and of a prompt's tokens.

    image or prompt -> model -> embedding -> target --gradient--> map

They need no look inside the model, and so also apply to towers that have no attention to read. `registry` says what
all methods have in common. Shapes: B inputs, T targets, N tokens of width D, E the width of the embedding, P patches.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ..checks import whole
from ..errors import InvalidValue
from ..towers import Tower, Trace
from .grad_eclip import gradients
from .perturbation import bar, means_over_patches, on_patches, word_numbers

_AT_ONCE = 16  # images in one forward pass with a graph


def input_x_gradient(tower: Tower, trace: Trace, directions: Tensor) -> Tensor:
    """Input x gradient: map_i = sum of x * dS/dx over the pixels and colours x of patch i, or over the token x_i.

    Explains the model's own similarity, as if it were linear between the image and the mean colour, which is zero
    after preprocessing. A prompt's token is what enters the first explained block; ours traces all blocks for it, so
    that x_i is the token's embedding plus that of its position: what the transformer reads, and what every tower has.
    Shrikumar et al., "Not Just a Black Box", arXiv 1605.01713. Linear in the direction. Cost: one forward pass with a
    graph, and one backward pass a target.

    Args:
        tower: the encoder.
        trace: B inputs, traced by it.
        directions: (B, T, E), the targets' directions in embedding space.

    Raises:
        ValueError: the image is not of the model's own size.
    """
    if trace.grid is None:
        slopes = gradients(lambda x: tower.resume(trace, tower.depth - tower.layers, x), trace.tokens, directions)
        return torch.stack([(slope * trace.tokens).sum(-1) for slope in slopes], dim=1) * trace.valid_mask[:, None]
    pixels = _own_pixels(tower, trace)
    slopes = gradients(tower.embed_pixels, pixels, directions)
    products = [(slope * pixels).sum(1) for slope in slopes]  # T times (B, H, W)
    return _summed_over_patches(tower, trace, torch.stack(products, dim=1))


def integrated_gradients(
    tower: Tower, trace: Trace, directions: Tensor, *, steps: int = 50, progress: bool | None = False
) -> Tensor:
    """Integrated gradients: map_i = sum over the pixels x of patch i of x * mean_a dS/dx at a * x, a from 0 to 1.

    Explains the model's own similarity. The baseline is an image of the mean colour, zero after preprocessing, and
    maps sum to S(image) - S(baseline), as far as `steps` points of Gauss-Legendre's rule follow the path, as they do
    in captum's `IntegratedGradients`. Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", ICML 2017,
    arXiv 1703.01365. Linear in the direction. Cost: `steps` forward passes, and as many backward passes a target.

    Of a prompt, map_i = x_i . mean_a dS/dx_i, with x_i as in `input_x_gradient`. The baseline has zero in place of
    every word's token, and SOT and EOT as they are, so they have no score. The cost is the same.

    Args:
        tower: the encoder.
        trace: B inputs, traced by it.
        directions: (B, T, E), the targets' directions in embedding space.
        steps: points on the path.
        progress: as for `perturbation.bar`; of images, along the path.

    Raises:
        ValueError: the image is not of the model's own size.
    """
    if trace.grid is None:
        return _integrated_over_tokens(tower, trace, directions, steps)
    pixels = _own_pixels(tower, trace)
    maps = torch.zeros(*directions.shape[:2], *pixels.shape[-2:]).to(pixels)  # (B, T, H, W)
    path = torch.tensor(list(path_points(steps)), dtype=torch.float64).to(pixels)
    places, weights = path.T[..., None, None, None, None]
    points = torch.arange(steps, device=pixels.device).split(max(1, _AT_ONCE // len(pixels)))
    for some in bar("integrated gradients", progress, points):  # points of the path, (n, B, 3, H, W) of all images
        along = gradients(tower.embed_pixels, (places[some] * pixels).flatten(0, 1), directions.repeat(len(some), 1, 1))
        for target, slopes in enumerate(along):
            maps[:, target] += ((weights[some] * slopes.unflatten(0, (len(some), -1))).sum(0) * pixels).sum(1)
    return _summed_over_patches(tower, trace, maps)


def _integrated_over_tokens(tower: Tower, trace: Trace, directions: Tensor, steps: int) -> Tensor:
    change = trace.tokens * (word_numbers(trace) >= 0)[..., None]
    start, first = trace.tokens - change, tower.depth - tower.layers
    slopes = torch.zeros(*directions.shape[:2], *change.shape[1:]).to(change)  # (B, T, N, D)
    for place, weight in path_points(steps):
        along = gradients(lambda x: tower.resume(trace, first, x), start + place * change, directions)
        slopes += weight * torch.stack(list(along), dim=1)
    return (slopes * change[:, None]).sum(-1)


def _own_pixels(tower: Tower, trace: Trace) -> Tensor:
    """The pixels, in the precision of the embedding."""
    if not tower.reads(trace.inputs):
        why, got = "gradients of pixels need the model's own pass", tuple(trace.inputs.shape[-2:])
        msg = f"{why}, which reads {tower.image_size} pixels only, got {got}; use resolution='model'"
        raise InvalidValue(msg, "method-native")
    return trace.inputs.to(trace.embedding)


def _summed_over_patches(tower: Tower, trace: Trace, values: Tensor) -> Tensor:
    """(B, T, H, W) -> (B, T, N)."""
    return on_patches(trace, means_over_patches(tower, trace, values) * (tower.patch_size[0] * tower.patch_size[1]))


def path_points(steps: int) -> Iterator[tuple[float, float]]:
    """Points between 0 and 1, and their weights in a mean along a path: Gauss-Legendre's rule.

    Args:
        steps: how many, one or more.
    """
    for place, weight in zip(*np.polynomial.legendre.leggauss(whole("steps", steps, 1)), strict=True):
        yield float(place + 1) / 2, float(weight) / 2
