"""Sanity: does a map depend on the model, and what does it cost?

model -> model that knows nothing --> maps --here--> agreement
"""

import copy
import math
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from .. import checks
from ..checks import chosen, finite, whole
from ..errors import GradeclipError
from ..models import BUNDLED_MODELS, Clip
from ..towers.base import one_thread
from .localisation import levelled
from .statistics import spearman

_OF_IMAGES = ("visual.", "vision_model.", "visual_projection.", "vision_proj.")  # in open_clip, in transformers


def randomised(clip: Clip, *, seed: int = 0, side: str = "both") -> Clip:
    """A copy of the model that knows nothing: every weight tensor drawn anew, normal, with its own mean and deviation.

    Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018: a map that survives this shows the image and not
    the model. Single numbers, such as the logit scale, and buffers are kept.

    Args:
        clip: the model, which is left as it is.
        seed: of what is drawn.
        side: "both" towers, "image" or "text".

    Returns:
        The copy; its name says what was drawn.

    Raises:
        ValueError: a side that does not exist.
    """
    chosen("side", side, ("both", "image", "text"))
    generator = torch.Generator().manual_seed(checks.seed(seed))
    with torch.inference_mode(False), torch.no_grad():
        model = copy.deepcopy(checks.instance("clip", clip, Clip, "a Clip").model)
        for name, weight in model.named_parameters():
            if weight.numel() > 1 and (side == "both" or (side == "image") == name.startswith(_OF_IMAGES)):
                noise = torch.randn(weight.shape, generator=generator).to(weight.device)
                weight.copy_(weight.float().mean() + weight.float().std() * noise)
    return replace(clip, model=model, name=f"{clip.name}, weights drawn anew ({side}, seed {seed})")


def agreement(maps: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of each map with the same one in another stack.

    Args:
        maps: (P, ...).
        others: (P, ...).

    Returns:
        (P,), from -1 to 1. A constant map has no order and agrees with nothing: zero.

    Raises:
        ValueError: stacks of different shapes, or maps that are not finite.
    """
    maps, others = finite("maps", maps).astype(float, copy=False), finite("maps", others).astype(float, copy=False)
    if maps.shape != others.shape or maps.ndim < 2 or not maps.size:
        msg = f"agreement compares two stacks of maps (P, ...), got {maps.shape} and {others.shape}"
        raise GradeclipError(msg)
    return np.nan_to_num(
        spearman(*(np.stack([levelled(one) for one in stack.reshape(len(stack), -1)]) for stack in (maps, others)))
    )


def randomisation_check(
    clip: Clip, maps_of: Callable[[Clip], np.ndarray], *, seeds: Iterable[int] = range(5)
) -> pd.DataFrame:
    """How much the maps of randomised models agree with the model's own."""
    seeds = checks.listed("seeds", seeds)
    if not seeds:
        raise GradeclipError("a randomisation check needs a seed or more")
    own, parts = maps_of(clip), []
    for seed in seeds:
        found = agreement(own, maps_of(randomised(clip, seed=seed)))
        parts.append(pd.DataFrame({"image": range(len(own)), "seed": seed, "agreement": found}))
    return pd.concat(parts, ignore_index=True)


def cost(
    calls: Mapping[str, Callable[[], object]], plain: Callable[[], object], *, repeats: int = 5, small: bool = True,
    warm: bool = False,
) -> pd.DataFrame:  # fmt: skip
    """What each call costs in forward passes.

    Calls take turns, round by round, so that a machine that slows down slows all of them; the first round is not
    counted, unless the calls are `warm`.

    Args:
        calls: what is timed, by the method's name.
        plain: a call that runs one forward pass.
        repeats: how many rounds are counted.
        small: of a small model (`towers.base.is_small`), whose explanations take one thread: then all calls do.
        warm: whether all calls were made before, so that none has to be made without being counted.

    Returns:
        Rows of method; seconds, the median over rounds; passes, the median over rounds of the ratio to the plain call
        of the same round; low and high, the smallest ratio and the largest.

    Raises:
        ValueError: fewer than one round.
    """
    repeats, calls = whole("repeats", repeats, 1), checks.instance("calls", calls, Mapping, "a dictionary of functions")
    with one_thread(small):
        rounds = [(_seconds(plain), [_seconds(call) for call in calls.values()]) for _ in range(repeats + (not warm))]
    rounds = rounds[-repeats:]
    seconds = np.array([times for _, times in rounds])  # (rounds, calls)
    ratios = seconds / np.array([[base] for base, _ in rounds])
    medians = {"seconds": np.median(seconds, axis=0), "passes": np.median(ratios, axis=0)}
    return pd.DataFrame({"method": list(calls), **medians, "low": ratios.min(axis=0), "high": ratios.max(axis=0)})


def affordable(clip: Clip, n: int, step: Callable[[], object], *, least: int = 8) -> int:
    """How many of `n` examples a cell of a lesson takes: all that two minutes allow with the model in use."""
    n = whole("n", n)
    minutes = os.environ.get("GRADECLIP_MINUTES") or "2"
    if not re.fullmatch(r"inf|\d*\.?\d+", minutes) or float(minutes) == 0:
        msg = f"GRADECLIP_MINUTES is how many minutes a cell may take, above 0, or 'inf'; got {minutes!r}"
        raise GradeclipError(msg)
    limit = 60 * float(minutes)
    if checks.instance("clip", clip, Clip, "a Clip").name in BUNDLED_MODELS or math.isinf(limit):
        return n
    each = _seconds(step)
    if n * each > limit:
        each = _seconds(step)  # the first call paid for what is set up once
    if n * each <= limit:
        return n
    taken = min(n, max(least, int(limit / each)))
    print(
        f"{taken} of {n} are taken: {taken * each / 60:.1f} minutes with this model, where all would take "
        f"{n * each / 60:.1f} (GRADECLIP_MINUTES={math.ceil(n * each / 60)} takes all)"
    )
    return taken


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    if torch.cuda.is_initialized():  # a CUDA call returns before it is done
        torch.cuda.synchronize()
    return time.perf_counter() - start
