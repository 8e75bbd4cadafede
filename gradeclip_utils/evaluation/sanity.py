"""Sanity: does a map depend on the model, and what does it cost?

model -> model that knows nothing --> maps --here--> agreement
"""

import copy
import math
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from .. import checks
from ..checks import chosen, finite, whole
from ..errors import InvalidValue
from ..models import BUNDLED_MODELS, Clip
from .localisation import levelled
from .statistics import spearman

_OF_IMAGES = ("visual.", "vision_model.", "visual_projection.", "vision_proj.")  # in open_clip, in transformers
_BLOCK = re.compile(r"^(.*?)\b(?:resblocks|blocks|layers?)\.(\d+)\.")
_STEM = re.compile(  # what a token passes before the first block
    r"\b(conv1|class_embedding|positional_embedding|ln_pre|pre_layrnorm|token_embedding|cls_emb"
    r"|patch_embed|cls_token|reg_token|pos_embed|norm_pre|embeddings)\b"
)


def randomised(clip: Clip, *, seed: int = 0, side: str = "both", blocks: int | None = None) -> Clip:
    """A copy of the model that knows nothing: every weight tensor drawn anew, normal, with its own mean and deviation.

    Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018: a map that survives this shows the image and not
    the model. Single numbers, such as the logit scale, and buffers are kept.

    Args:
        clip: the model, which is left as it is.
        seed: of what is drawn.
        side: "both" towers, "image" or "text".
        blocks: how many of the topmost blocks of each tower, which are drawn with what follows them (one step of the
            cascading randomisation of Adebayo et al.); every weight if left out.

    Returns:
        The copy; its name says what was drawn.

    Raises:
        ValueError: a side that does not exist; more blocks than the tower has, or a tower that is no stack of blocks.
    """
    chosen("side", side, ("both", "image", "text"))
    generator = torch.Generator().manual_seed(checks.seed(seed))
    with torch.inference_mode(False), torch.no_grad():
        model = copy.deepcopy(clip.model)
        weights = {name: weight for name, weight in model.named_parameters() if weight.numel() > 1}
        for name in _drawn_anew(weights, side, blocks):
            weight = weights[name]
            noise = torch.randn(weight.shape, generator=generator).to(weight.device)
            weight.copy_(weight.float().mean() + weight.float().std() * noise)
    what = "weights" if blocks is None else f"the top {blocks} blocks"
    return replace(clip, model=model, name=f"{clip.name}, {what} drawn anew ({side}, seed {seed})")


def agreement(maps: np.ndarray, others: np.ndarray, *, absolute: bool = False) -> np.ndarray:
    """Spearman's rank correlation of each map with the same one in another stack.

    Args:
        maps: (P, ...).
        others: (P, ...).
        absolute: compare magnitudes, so that a map with its sign flipped agrees fully (Adebayo et al. report both).

    Returns:
        (P,), from -1 to 1. A constant map has no order and agrees with nothing: zero.

    Raises:
        ValueError: stacks of different shapes, or maps that are not finite.
    """
    maps, others = finite("maps", maps).astype(float, copy=False), finite("maps", others).astype(float, copy=False)
    if maps.shape != others.shape or maps.ndim < 2 or not maps.size:
        msg = f"agreement compares two stacks of maps (P, ...), got {maps.shape} and {others.shape}"
        raise InvalidValue(msg, "sanity-option")
    flat = [np.stack([levelled(one) for one in stack.reshape(len(stack), -1)]) for stack in (maps, others)]
    return np.nan_to_num(spearman(*(np.abs(flat) if absolute else flat)))


def randomisation_check(
    clip: Clip, maps_of: Callable[[Clip], np.ndarray], *, seeds: Iterable[int] = range(5), side: str = "both",
    blocks: Sequence[int | None] = (None,),
) -> pd.DataFrame:  # fmt: skip
    """How much the maps of randomised models agree with the model's own.

    Args:
        clip: the model.
        maps_of: a model -> maps (P, h, w) of the same P images and prompts each time.
        seeds: of the randomised models.
        side: as for `randomised`.
        blocks: the steps of a cascade, from the top, such as (1, 2, 3, None).

    Returns:
        Rows of image (0 to P - 1), blocks ("all" where every weight was drawn anew), seed, agreement.

    Raises:
        ValueError: no seeds or no blocks; and what `randomised` and `agreement` raise.
    """
    seeds, blocks = checks.listed("seeds", seeds), checks.listed("blocks", blocks)
    if not (seeds and blocks):
        raise InvalidValue("a randomisation check needs a seed or more, and a step or more in blocks", "sanity-option")
    own, parts = maps_of(clip), []
    for count in blocks:
        for seed in seeds:
            found = agreement(own, maps_of(randomised(clip, seed=seed, side=side, blocks=count)))
            step = "all" if count is None else count
            parts.append(pd.DataFrame({"image": range(len(own)), "blocks": step, "seed": seed, "agreement": found}))
    return pd.concat(parts, ignore_index=True)


def cost(calls: Mapping[str, Callable[[], object]], plain: Callable[[], object], *, repeats: int = 5) -> pd.DataFrame:
    """What each call costs in forward passes.

    Calls take turns, round by round, so that a machine that slows down slows all of them; the first round is not
    counted.

    Args:
        calls: what is timed, by the method's name.
        plain: a call that runs one forward pass.
        repeats: how many rounds are counted.

    Returns:
        Rows of method; seconds, the median over rounds; passes, the median over rounds of the ratio to the plain call
        of the same round; low and high, the smallest ratio and the largest.

    Raises:
        ValueError: fewer than one round.
    """
    repeats = whole("repeats", repeats, 1)
    rounds = [(_seconds(plain), [_seconds(call) for call in calls.values()]) for _ in range(repeats + 1)][1:]
    seconds = np.array([times for _, times in rounds])  # (rounds, calls)
    ratios = seconds / np.array([[base] for base, _ in rounds])
    medians = {"seconds": np.median(seconds, axis=0), "passes": np.median(ratios, axis=0)}
    return pd.DataFrame({"method": list(calls), **medians, "low": ratios.min(axis=0), "high": ratios.max(axis=0)})


def affordable(clip: Clip, n: int, step: Callable[[], object], *, least: int = 8) -> int:
    """How many of `n` examples a cell of a lesson takes: all that two minutes allow with the model in use.

    One step is measured. Where all examples would take longer, it says how long, and how many are taken instead;
    `GRADECLIP_MINUTES` in the environment sets other minutes ("inf": all of them). The examples of the lessons were
    counted for the bundled models, which take all of them without being measured: their figures must not depend on
    how busy a machine is.

    Args:
        clip: the model in use.
        n: how many are wanted.
        step: a call that does for one example what the cell does for each.
        least: fewer are never taken, whatever they take: a mean of next to nothing says nothing.

    Returns:
        From `least` to `n`.

    Raises:
        ValueError: `GRADECLIP_MINUTES` is no number above zero.
    """
    n = whole("n", n)
    minutes = os.environ.get("GRADECLIP_MINUTES") or "2"
    if not re.fullmatch(r"inf|\d*\.?\d+", minutes) or float(minutes) == 0:
        msg = f"GRADECLIP_MINUTES is how many minutes a cell may take, above 0, or 'inf'; got {minutes!r}"
        raise InvalidValue(msg, "sanity-option")
    limit = 60 * float(minutes)
    if clip.name in BUNDLED_MODELS or math.isinf(limit):
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


def _drawn_anew(names: Iterable[str], side: str, blocks: int | None) -> list[str]:
    """The names of the weights to draw, in the model's own order."""
    chosen = [name for name in names if side == "both" or (side == "image") == name.startswith(_OF_IMAGES)]
    if blocks is None:
        return chosen
    drawn = []
    for image in (True, False):
        tower = [name for name in chosen if name.startswith(_OF_IMAGES) == image]
        found = {name: _BLOCK.match(name) for name in tower}
        stacks = {match[1] for match in found.values() if match}
        if tower and len(stacks) != 1:
            msg = f"the {'image' if image else 'text'} tower is no single stack of blocks; use blocks=None"
            raise InvalidValue(msg, "sanity-option")
        depth = 1 + max((int(match[2]) for match in found.values() if match), default=-1)
        if tower:
            blocks = whole("blocks (None draws every weight)", blocks, 1, depth)
        for name, match in found.items():
            if int(match[2]) >= depth - blocks if match else not _STEM.search(name):
                drawn.append(name)
    return drawn
