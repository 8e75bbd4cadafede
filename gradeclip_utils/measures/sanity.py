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

from .. import checks
from ..checks import chosen, finite, instance, whole
from ..errors import GradeclipError
from ..models import Clip
from ..towers.base import one_thread
from .localisation import levelled
from .statistics import spearman

_OF_IMAGES = ("visual.", "vision_model.", "visual_projection.", "vision_proj.")  # in open_clip, in transformers
_MOST_REPEATS = 1000


def randomised(clip: Clip, *, seed: int = 0, side: str = "both") -> Clip:
    """Return a copy of the model with random weights: each tensor drawn from a normal of its own mean and deviation.

    Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018: a map that survives this shows the image and not
    the model. Single numbers, such as the logit scale, and buffers are kept.

    Args:
        clip: the model, which stays as it is.
        seed: of the random weights.
        side: "both" towers, "image" or "text".

    Returns:
        The copy; its name says what was drawn.

    Raises:
        GradeclipError: a side that does not exist.
    """
    chosen("side", side, ("both", "image", "text"))
    generator = torch.Generator().manual_seed(checks.seed(seed))
    with torch.inference_mode(False), torch.no_grad():
        model = copy.deepcopy(instance("clip", clip, Clip, "a Clip").model)
        for name, weight in model.named_parameters():
            if weight.numel() > 1 and (side == "both" or (side == "image") == name.startswith(_OF_IMAGES)):
                noise = torch.randn(weight.shape, generator=generator).to(weight.device)
                weight.copy_(weight.float().mean() + weight.float().std() * noise)
    return replace(clip, model=model, name=f"{clip.name}, random weights ({side}, seed {seed})")


def agreement(maps: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of each map with the same one in another stack.

    Args:
        maps: (P, ...).
        others: (P, ...).

    Returns:
        (P,), from -1 to 1. A constant map has no order and agrees with nothing: zero.

    Raises:
        GradeclipError: stacks of different shapes, or maps that are not finite.
    """
    maps, others = finite("maps", maps).astype(float, copy=False), finite("maps", others).astype(float, copy=False)
    if maps.shape != others.shape or maps.ndim < 2 or not maps.size:
        msg = f"agreement compares two stacks of maps (P, ...), got {maps.shape} and {others.shape}"
        raise GradeclipError(msg)
    return np.nan_to_num(
        spearman(*(np.stack([levelled(one) for one in stack.reshape(len(stack), -1)]) for stack in (maps, others)))
    )


def cost(
    calls: Mapping[str, Callable[[], object]], plain: Callable[[], object], *, repeats: int = 5, small: bool = True,
    warm: bool = False,
) -> pd.DataFrame:  # fmt: skip
    """Measure what each call costs, in forward passes.

    Calls take turns, round by round, so that a machine that slows down slows all of them. The first round is not
    counted, unless the calls are `warm`.

    Args:
        calls: functions to time, by the method's name.
        plain: a function that runs one forward pass.
        repeats: how many rounds are counted, 1 to 1000.
        small: of a small model, whose explanations take one thread: then all calls do.
        warm: whether all calls were made before, so that no first round is needed.

    Returns:
        One row a call: method; seconds, the median over rounds; passes, the median over rounds of the ratio to the
        plain call of the same round; low and high, the smallest ratio and the largest.

    Raises:
        GradeclipError: calls that are no functions by name, a number of rounds out of range.
    """
    repeats, calls = whole("repeats", repeats, 1, _MOST_REPEATS), instance("calls", calls, Mapping, "a dictionary")
    for name, call in {**calls, "plain": plain}.items():
        instance(f"the call {name!r}", call, Callable, "a function")
    with one_thread(small):
        rounds = [(_seconds(plain), [_seconds(call) for call in calls.values()]) for _ in range(repeats + (not warm))]
    rounds = rounds[-repeats:]
    seconds = np.array([times for _, times in rounds])  # (rounds, calls)
    ratios = seconds / np.array([[base] for base, _ in rounds])
    medians = {"seconds": np.median(seconds, axis=0), "passes": np.median(ratios, axis=0)}
    return pd.DataFrame({"method": list(calls), **medians, "low": ratios.min(axis=0), "high": ratios.max(axis=0)})


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    if torch.cuda.is_initialized():  # a CUDA call returns before it is done
        torch.cuda.synchronize()
    return time.perf_counter() - start
