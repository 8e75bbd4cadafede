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

from .. import checks
from ..checks import finite, instance, whole
from ..errors import GradeclipError
from ..models import Clip
from ..runtime import one_thread
from .localisation import levelled


def randomised(clip: Clip, *, seed: int = 0) -> Clip:
    """Return a copy of the model with random weights: each tensor drawn from a normal of its own mean and deviation.

    Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018: a map that survives this shows
    the image and not the model. Single numbers, such as the logit scale, and buffers are kept. The
    copy's name says that it is random.
    """
    generator = torch.Generator().manual_seed(checks.seed(seed))
    with torch.inference_mode(False), torch.no_grad():
        model = copy.deepcopy(instance("clip", clip, Clip, "a Clip").model)
        for weight in model.parameters():
            if weight.numel() > 1:
                noise = torch.randn(weight.shape, generator=generator).to(weight.device)
                weight.copy_(weight.float().mean() + weight.float().std() * noise)
    return replace(clip, model=model, name=f"{clip.name}, random weights (seed {seed})")


def rank_correlation(maps: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation (P,) of each map of a stack (P, ...) with the same one in another.

    A constant map has no order and agrees with nothing: zero.

    Raises:
        GradeclipError: stacks of different shapes, or maps that are not finite.
    """
    maps, others = (
        finite("maps", maps).astype(float, copy=False),
        finite("maps", others).astype(float, copy=False),
    )
    if maps.shape != others.shape or maps.ndim < 2 or not maps.size:
        raise GradeclipError(
            f"agreement compares two stacks of maps (P, ...), got {maps.shape} and {others.shape}"
        )
    pairs = [
        (levelled(one).ravel(), levelled(other).ravel())
        for one, other in zip(maps, others, strict=True)
    ]
    return np.array(
        [spearmanr(*pair).statistic if min(map(np.ptp, pair)) else 0.0 for pair in pairs]
    )


def time_methods(
    calls: Mapping[str, Callable[[], object]], plain: Callable[[], object], *, repeats: int = 5
) -> pd.DataFrame:
    """Measure what each call costs, in forward passes, on one thread.

    Calls take turns, round by round, so that a machine that slows down slows all of them. The first
    round is not counted.

    Args:
        calls: functions to time, by the method's name.
        plain: a function that runs one forward pass.
        repeats: how many rounds are counted, 1 to 1000.

    Returns:
        One row per call: method; seconds, the median over rounds; passes, the median over rounds of
        the ratio to the plain call of the same round; low and high, the smallest ratio and the
        largest.

    Raises:
        GradeclipError: `calls` does not map names to functions, or the number of rounds is out of
            range.
    """
    repeats, calls = (
        whole("repeats", repeats, 1, 1000),
        instance("calls", calls, Mapping, "a dictionary"),
    )
    for name, call in {**calls, "plain": plain}.items():
        instance(f"the call {name!r}", call, Callable, "a function")
    with one_thread(True):
        rounds = np.array(
            [[_seconds(call) for call in (plain, *calls.values())] for _ in range(repeats + 1)]
        )[1:]
    seconds, ratios = rounds[:, 1:], rounds[:, 1:] / rounds[:, :1]
    medians = {"seconds": np.median(seconds, axis=0), "passes": np.median(ratios, axis=0)}
    return pd.DataFrame(
        {"method": list(calls), **medians, "low": ratios.min(axis=0), "high": ratios.max(axis=0)}
    )


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    if torch.cuda.is_initialized():  # a CUDA call returns before it is done
        torch.cuda.synchronize()
    return time.perf_counter() - start
