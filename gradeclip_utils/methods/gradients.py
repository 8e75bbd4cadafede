"""Gradients of the input: input x gradient and integrated gradients, of an image's pixels and of a prompt's tokens.

They need no look inside the model, and so also apply to towers without attention. `registry`
describes the common form of methods. Shapes: B inputs, T targets, N tokens of width D, E the width
of the embedding, P patches.
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

_AT_ONCE = 16  # images in one forward pass with a graph


def input_x_gradient(
    tower: Tower, trace: Trace, directions: Tensor, options: Options = DEFAULTS
) -> Tensor:
    """Input x gradient: map_i = sum of x * dS/dx over the pixels and colours x of patch i, or over the token x_i."""
    encode, inputs, axis = _inputs_of(tower, trace)
    products = [
        (slope * inputs).sum(axis) for slope in target_gradients(encode, inputs, directions)
    ]
    return _over_tokens(tower, trace, torch.stack(products, dim=1))


def integrated_gradients(
    tower: Tower, trace: Trace, directions: Tensor, options: Options = DEFAULTS, *, steps: int = 50
) -> Tensor:
    """Integrated gradients: map_i = sum over the pixels x of patch i of x * mean_a dS/dx at a * x, a from 0 to 1."""
    encode, inputs, axis = _inputs_of(tower, trace)
    of_text = trace.grid is None
    change = (
        inputs * (one_word_per_token(trace) >= 0)[..., None] if of_text else inputs
    )  # SOT and EOT stay as they are
    maps = torch.stack([torch.zeros_like(change.sum(axis))] * directions.shape[1], dim=1)
    path = torch.tensor(list(path_points(steps)), dtype=torch.float64).to(change)
    places, weights = path.T.reshape(2, steps, *[1] * change.ndim)
    points = torch.arange(steps, device=change.device).split(
        1 if of_text else max(1, _AT_ONCE // len(change))
    )
    for some in tqdm(
        points, "integrated gradients", delay=BAR_DELAY, leave=False
    ):  # points of the path, (n, B, ...) of all inputs
        at = inputs + (places[some] - 1) * change
        along = target_gradients(encode, at.flatten(0, 1), directions.repeat(len(some), 1, 1))
        for target, slopes in enumerate(along):
            mean = (weights[some] * slopes.unflatten(0, (len(some), -1))).sum(0)
            maps[:, target] += (mean * change).sum(axis)
    return _over_tokens(tower, trace, maps)


def _inputs_of(tower: Tower, trace: Trace) -> tuple[Callable[[Tensor], Tensor], Tensor, int]:
    """What embeds pixels or tokens, these in the precision of the embedding, and the axis to sum over: colours or D."""
    if trace.grid is None:
        return partial(tower.forward_from, trace, tower.depth - tower.layers), trace.tokens, -1
    if not tower.reads(trace.inputs):
        why, got = "gradients of pixels need the model's own pass", tuple(trace.inputs.shape[-2:])
        raise GradeclipError(
            f"{why}, which reads {tower.image_size} pixels only, got {got}; use resolution='model'"
        )
    return tower.embed_pixels, trace.inputs.to(trace.embedding), 1


def _over_tokens(tower: Tower, trace: Trace, values: Tensor) -> Tensor:
    """Sums (B, T, N) of pixels (B, T, H, W) over patches; of a prompt the values (B, T, N) of its own tokens."""
    if trace.grid is None:
        return values * trace.valid_mask[:, None]
    return on_patches(
        trace,
        mean_over_patches(tower, trace, values) * (tower.patch_size[0] * tower.patch_size[1]),
    )


def path_points(steps: int) -> Iterator[tuple[float, float]]:
    """Points between 0 and 1, and their weights in a mean along a path: Gauss-Legendre's rule."""
    for place, weight in zip(*np.polynomial.legendre.leggauss(steps), strict=True):
        yield float(place + 1) / 2, float(weight) / 2


def target_gradients(
    encode: Callable[[Tensor], Tensor], at: Tensor, directions: Tensor
) -> Iterator[Tensor]:
    """Gradients of the targets embedding . direction, one direction after the other."""
    with torch.enable_grad():
        at = at.detach().requires_grad_()
        embedding = encode(at)
    for direction in directions.unbind(1):
        yield torch.autograd.grad(embedding, at, direction, retain_graph=True)[0]
