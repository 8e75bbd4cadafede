"""Gradients of the input: input x gradient and integrated gradients, of an image's pixels and of a prompt's tokens.

They need no look inside the model, and so also apply to towers without attention. `registry` describes the common form
of methods. Shapes: B inputs, T targets, N tokens of width D, E the width of the embedding, P patches.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ..errors import GradeclipError
from ..towers import Tower, Trace
from .grad_eclip import gradients
from .perturbation import bar, means_over_patches, on_patches, word_numbers

_AT_ONCE = 16  # images in one forward pass with a graph


def input_x_gradient(tower: Tower, trace: Trace, directions: Tensor) -> Tensor:
    """Input x gradient: map_i = sum of x * dS/dx over the pixels and colours x of patch i, or over the token x_i."""
    if trace.grid is None:
        slopes = gradients(lambda x: tower.resume(trace, tower.depth - tower.layers, x), trace.tokens, directions)
        return torch.stack([(slope * trace.tokens).sum(-1) for slope in slopes], dim=1) * trace.valid_mask[:, None]
    pixels = _own_pixels(tower, trace)
    slopes = gradients(tower.embed_pixels, pixels, directions)
    products = [(slope * pixels).sum(1) for slope in slopes]  # T times (B, H, W)
    return _summed_over_patches(tower, trace, torch.stack(products, dim=1))


def integrated_gradients(tower: Tower, trace: Trace, directions: Tensor, *, steps: int = 50) -> Tensor:
    """Integrated gradients: map_i = sum over the pixels x of patch i of x * mean_a dS/dx at a * x, a from 0 to 1."""
    if trace.grid is None:
        return _integrated_over_tokens(tower, trace, directions, steps)
    pixels = _own_pixels(tower, trace)
    maps = torch.zeros(*directions.shape[:2], *pixels.shape[-2:]).to(pixels)  # (B, T, H, W)
    path = torch.tensor(list(path_points(steps)), dtype=torch.float64).to(pixels)
    places, weights = path.T[..., None, None, None, None]
    points = torch.arange(steps, device=pixels.device).split(max(1, _AT_ONCE // len(pixels)))
    for some in bar("integrated gradients", points):  # points of the path, (n, B, 3, H, W) of all images
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
        raise GradeclipError(f"{why}, which reads {tower.image_size} pixels only, got {got}; use resolution='model'")
    return trace.inputs.to(trace.embedding)


def _summed_over_patches(tower: Tower, trace: Trace, values: Tensor) -> Tensor:
    """(B, T, H, W) -> (B, T, N)."""
    return on_patches(trace, means_over_patches(tower, trace, values) * (tower.patch_size[0] * tower.patch_size[1]))


def path_points(steps: int) -> Iterator[tuple[float, float]]:
    """Points between 0 and 1, and their weights in a mean along a path: Gauss-Legendre's rule."""
    for place, weight in zip(*np.polynomial.legendre.leggauss(steps), strict=True):
        yield float(place + 1) / 2, float(weight) / 2
