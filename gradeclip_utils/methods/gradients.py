"""Gradients of the input: of an image's pixels, and of a prompt's tokens.

Input x gradient and integrated gradients need no look inside the model. `registry` describes the
common form of methods. Shapes: B inputs, T targets, N tokens of width D, E the width of the
embedding, P patches.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..errors import GradeclipError
from ..towers import Tower, Trace
from .common import BAR_DELAY, mean_over_patches, on_patches, one_word_per_token
from .options import DEFAULTS, Options

IMAGES_PER_BATCH = 16  # in one forward pass with a graph


def input_x_gradient(
    tower: Tower,
    trace: Trace,
    directions: Tensor,
    options: Options = DEFAULTS,
) -> Tensor:
    """Input x gradient: sum of x * dS/dx over the pixels x of a patch, or over a token."""
    embed, inputs = _differentiable(tower, trace)
    if trace.pixel_graph is None:
        slopes = target_gradients(embed, inputs, directions)
    else:
        slopes = _slopes(*trace.pixel_graph, directions)
    products = [_sum_channels(trace, slope * inputs) for slope in slopes]
    return _over_tokens(tower, trace, torch.stack(products, dim=1))


def integrated_gradients(
    tower: Tower,
    trace: Trace,
    directions: Tensor,
    options: Options = DEFAULTS,
    *,
    steps: int = 50,
) -> Tensor:
    """Integrated gradients: map_i = sum over the pixels x of patch i of x * mean_a dS/dx at a * x.

    a goes from 0 to 1: from a black image, or from a prompt whose words are zero.
    """
    embed, inputs = _differentiable(tower, trace)
    if trace.grid is None:
        words = one_word_per_token(trace) >= 0  # SOT and EOT stay as they are
        change = inputs * words[..., None]
        points_per_batch = 1  # the masks of the trace are those of its B prompts
    else:
        change = inputs
        points_per_batch = max(1, IMAGES_PER_BATCH // len(inputs))

    points = torch.tensor(list(path_points(steps)), dtype=torch.float64).to(change)
    places, weights = points.T.reshape(2, steps, *[1] * change.ndim)
    no_relevance = torch.zeros_like(_sum_channels(trace, change))
    maps = torch.stack([no_relevance] * directions.shape[1], dim=1)

    batches = torch.arange(steps, device=change.device).split(points_per_batch)
    for batch in tqdm(batches, "integrated gradients", delay=BAR_DELAY, leave=False):
        at = inputs + (places[batch] - 1) * change  # (n, B, ...)
        slopes = target_gradients(embed, at.flatten(0, 1), directions.repeat(len(batch), 1, 1))
        for target, slope in enumerate(slopes):
            mean = (weights[batch] * slope.unflatten(0, (len(batch), -1))).sum(dim=0)
            maps[:, target] += _sum_channels(trace, mean * change)
    return _over_tokens(tower, trace, maps)


def target_gradients(
    embed: Callable[[Tensor], Tensor],
    inputs: Tensor,
    directions: Tensor,
) -> Iterator[Tensor]:
    """Gradients of the targets embedding . direction by the inputs, one target after the other."""
    with torch.enable_grad():
        inputs = inputs.detach().requires_grad_()
        embedding = embed(inputs)
    yield from _slopes(embedding, inputs, directions)


def _slopes(embedding: Tensor, inputs: Tensor, directions: Tensor) -> Iterator[Tensor]:
    """The same from a graph that is there."""
    for direction in directions.unbind(dim=1):
        (slope,) = torch.autograd.grad(embedding, inputs, direction, retain_graph=True)
        yield slope


def path_points(steps: int) -> Iterator[tuple[float, float]]:
    """Points between 0 and 1, and their weights in a mean along a path: Gauss-Legendre's rule."""
    places, weights = np.polynomial.legendre.leggauss(steps)
    for place, weight in zip(places, weights, strict=True):
        yield float(place + 1) / 2, float(weight) / 2


def _differentiable(
    tower: Tower,
    trace: Trace,
) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """A function that embeds pixels (B, 3, H, W) or tokens (B, N, D), and those of the trace."""
    if trace.grid is None:
        return partial(tower.forward_from, trace, tower.first), trace.tokens
    if not tower.reads(trace.inputs):
        size = tuple(trace.inputs.shape[-2:])
        raise GradeclipError(
            "gradients of pixels need the model's own pass, which reads "
            f"{tower.image_size} pixels only, got {size}; use resolution='model'"
        )
    return tower.embed_pixels, trace.inputs.to(trace.embedding)


def _sum_channels(trace: Trace, values: Tensor) -> Tensor:
    """Sums of pixels (B, 3, H, W) over colours, or of tokens (B, N, D) over their channels."""
    return values.sum(dim=-1 if trace.grid is None else 1)


def _over_tokens(tower: Tower, trace: Trace, values: Tensor) -> Tensor:
    """Maps (B, T, N) from pixels (B, T, H, W), summed over patches, or from a prompt's tokens."""
    if trace.grid is None:
        return values * trace.valid_mask[:, None]
    pixels_per_patch = tower.patch_size[0] * tower.patch_size[1]
    return on_patches(trace, mean_over_patches(tower, trace, values) * pixels_per_patch)
