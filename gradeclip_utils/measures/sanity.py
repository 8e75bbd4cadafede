"""Sanity: does a map depend on the model, and what does it cost?

model -> the same model with random weights -> maps -> agreement with the model's own maps
"""

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr

from ..errors import GradeclipError
from ..models import Clip
from ..runtime import one_thread
from .localisation import as_levels


@torch.no_grad()
def randomised(clip: Clip, *, seed: int = 0) -> Clip:
    """Copy a model with random weights: each tensor has a normal's values, of its own moments.

    Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018: a map that survives this shows
    the image and not the model. Single numbers, such as the logit scale, and buffers are kept. The
    copy's name says that it is random.

        Explainer(randomised(clip)).explain(image, "a dog").image_maps

    Args:
        clip: the model, which stays as it is.
        seed: of the weights.
    """
    generator = torch.Generator().manual_seed(seed)
    model = copy.deepcopy(clip.model)
    for weight in model.parameters():
        if weight.numel() > 1:
            noise = torch.randn(weight.shape, generator=generator).to(weight.device)
            weight.copy_(weight.float().mean() + weight.float().std() * noise)
    return replace(clip, model=model, name=f"{clip.name}, random weights (seed {seed})")


def rank_correlation(maps: np.ndarray, other_maps: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation (P,) of each map of a stack (P, ...) with its partner (P, ...).

    A constant map has no order and agrees with nothing: zero.

    >>> maps = np.arange(4).reshape(1, 2, 2)
    >>> rank_correlation(maps, -maps).tolist()
    [-1.0]

    Args:
        maps: (P, ...), signed or not.
        other_maps: the same shape.

    Raises:
        GradeclipError: stacks of different shapes.
    """
    if maps.shape != other_maps.shape or maps.ndim < 2:
        msg = f"two stacks of maps (P, ...) are compared, got {maps.shape} and {other_maps.shape}"
        raise GradeclipError(msg)

    correlations = []
    for map_, other_map in zip(maps, other_maps, strict=True):
        levels = as_levels(map_).ravel()
        other_levels = as_levels(other_map).ravel()
        if np.ptp(levels) == 0 or np.ptp(other_levels) == 0:
            correlations.append(0.0)
        else:
            correlations.append(spearmanr(levels, other_levels).statistic)
    return np.array(correlations)


def time_methods(
    calls: Mapping[str, Callable[[], object]],
    plain: Callable[[], object],
    *,
    repeats: int = 5,
) -> pd.DataFrame:
    """Measure what each call costs, in forward passes, on one thread.

        time_methods({"grad-eclip": explain}, lambda: model.encode_image(pixels))

    Calls take turns, round by round, so that a machine that slows down slows all of them. The first
    round is not counted.

    Args:
        calls: functions to time, by the method's name.
        plain: a function that runs one forward pass.
        repeats: how many rounds are counted.

    Returns:
        One row per call: method; seconds, the median over rounds; passes, the median over rounds of
        the ratio to the plain call of the same round; low and high, the smallest ratio and the
        largest.
    """
    rounds = []
    with one_thread(True):
        for _ in range(repeats + 1):
            rounds.append([_seconds(call) for call in (plain, *calls.values())])
    counted = np.array(rounds[1:])  # (repeats, 1 + calls)

    seconds = counted[:, 1:]
    passes = seconds / counted[:, :1]
    return pd.DataFrame(
        {
            "method": list(calls),
            "seconds": np.median(seconds, axis=0),
            "passes": np.median(passes, axis=0),
            "low": passes.min(axis=0),
            "high": passes.max(axis=0),
        }
    )


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    if torch.cuda.is_initialized():  # a CUDA call returns before it is done
        torch.cuda.synchronize()
    return time.perf_counter() - start
