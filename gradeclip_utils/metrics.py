"""Metrics: does a map lie on the object, does it depend on the model, is it stable, and what does it cost?

    map --resized--> heat map, true mask --here--> one number a picture --statistics--> table

Everything takes plain arrays, so that a map made by anybody can be measured. A heat map is (H, W), signed or not, and
the mask of what it should lie on is (H, W) bool, in the same pixels. No measure means much alone: ``frames`` gives the
maps that every table should show beside a method's.

Values that differ by less than a millionth of the largest magnitude are ties, because single precision and resizing
cannot tell them apart; and ties are shared. So a constant map, whatever its value, marks the whole picture and scores
the mask's area, which is chance, in every measure of localisation. It never wins by the first pixel.
"""

import copy
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from PIL import Image
from scipy.stats import rankdata
from sklearn.metrics import precision_recall_curve

from .images import onto_picture, read_image
from .models import Clip

Box = tuple[float, float, float, float]
MEASURES = ("pointing", "energy", "pixel_accuracy", "average_precision", "iou_best", "iou_fixed")
THRESHOLD = 0.2  # of the maximum: as CAM marks its objects
_BLOCK = re.compile(r"^(.*?)\b(?:resblocks|blocks|layers?)\.(\d+)\.")
_STEM = re.compile(  # what a token passes before the first block
    r"\b(conv1|class_embedding|positional_embedding|ln_pre|token_embedding|cls_emb"
    r"|patch_embed|cls_token|reg_token|pos_embed|norm_pre|embeddings)\b"
)


def localisation(heat: np.ndarray, mask: np.ndarray, *, threshold: float = THRESHOLD) -> dict[str, float]:
    """How well a heat map (H, W) finds the object in ``mask`` (H, W): six measures between 0 and 1, 1 is best.

    - ``pointing``: does the maximum lie in the mask? (Zhang et al., "Top-down Neural Attention by Excitation Backprop",
      ECCV 2016, without its tolerance of 15 pixels: the mask is exact.) Of several maxima, their share in the mask.
    - ``energy``: the share of the positive relevance that lies in the mask (energy-based pointing game: Wang et al.,
      "Score-CAM", CVPR Workshops 2020, there with boxes). A map without a positive part points nowhere: chance.
    - ``average_precision``: of the pixels, ranked by the map; the area under precision over recall, by steps.
    - ``iou_best``: intersection over union of the mask and the pixels above a threshold, at the best of all thresholds.
      It knows the answer, so it bounds what any rule for a threshold could reach.
    - ``iou_fixed`` and ``pixel_accuracy``: intersection over union, and share of pixels on the right side, where the
      map's positive part reaches ``threshold`` times its maximum. 0.2 is the rule of Zhou et al., "Learning Deep
      Features for Discriminative Localization", CVPR 2016. Published tables use other rules (above the map's mean,
      say), so compare within a table only. With small objects, pixel accuracy favours maps that mark little.

    >>> mask = np.zeros((4, 4), bool)
    >>> mask[:2, :2] = True
    >>> set(localisation(mask.astype(float), mask).values()), set(localisation(np.ones((4, 4)), mask).values())
    ({1.0}, {0.25})

    Raises:
        ValueError: shapes that differ, a map that is not finite, a mask that is empty or not of True and False, a
            threshold outside (0, 1).
    """
    heat, mask = _heat(heat), _mask(mask)
    if heat.shape != mask.shape:
        raise ValueError(f"map and mask must have one shape, got {heat.shape} and {mask.shape}; resize the map first")
    if not 0 < threshold < 1:
        raise ValueError(f"threshold is a share of the map's maximum, between 0 and 1, got {threshold!r}")
    values, inside = levelled(heat).ravel(), mask.ravel()
    positive = np.maximum(values, 0)
    marked = positive >= threshold * positive.max()
    precision, recall, _ = precision_recall_curve(inside, values)
    steps = np.diff(-recall)  # >= 0: what each threshold adds
    reached = recall > 0
    overlap = 1 / (1 / precision[reached] + 1 / recall[reached] - 1)
    return {
        "pointing": float(inside[values == values.max()].mean()),
        "energy": float(positive[inside].sum() / positive.sum() if positive.any() else inside.mean()),
        "pixel_accuracy": float((marked == inside).mean()),
        "average_precision": float((steps * precision[:-1]).sum()),
        "iou_best": float(overlap.max()),
        "iou_fixed": float((marked & inside).sum() / (marked | inside).sum()),
    }


def quadrant_hit(heat: np.ndarray) -> np.ndarray:
    """In which quadrant does the map's maximum lie? Shares (4,) of the maximal pixels, which sum to one.

    Top left, top right, bottom left, bottom right. ``quadrant_hit(heat)[k]`` is therefore the score of a map whose
    object lies in quadrant k, and a constant map scores 1/4, which is chance. A middle row or column of an odd number
    of pixels belongs half to either side.

    >>> quadrant_hit(np.array([[0.0, 3.0], [1.0, 3.0]])).tolist()
    [0.0, 0.5, 0.0, 0.5]
    """
    values = levelled(_heat(heat))
    highest = (values == values.max()).astype(float)
    top, left = (np.clip(side / 2 - np.arange(side), 0, 1) for side in values.shape)
    shares = np.stack([top, 1 - top]) @ highest @ np.stack([left, 1 - left], axis=1)  # (2, 2)
    return shares.ravel() / highest.sum()


def frames(
    grid: tuple[int, int], mask: np.ndarray, rng: np.random.Generator, *, box: Box | None = None
) -> dict[str, np.ndarray]:
    """Heat maps (H, W) that frame a table: "random", "centre" and "ceiling", on the same token grid as the methods'.

    "random" has independent uniform values; "centre" is a Gaussian in the middle of what the model sees, its standard
    deviation a quarter of the sides, because pictures are taken with their subject in the middle; "ceiling" is the true
    mask, averaged over each token and resized as maps are: what a map of this resolution scores when it knows the
    answer. That is a reference and no proven bound: a map that lights only the token that lies deepest in the object
    can put a larger share of its energy inside.

    Args:
        grid: (h, w) tokens.
        mask: (H, W) bool, in the picture's pixels.
        rng: where the random map comes from.
        box: left, top, right, bottom of what the model saw, in the mask's pixels; the whole picture if left out.
    """
    mask = _mask(mask)
    size = mask.shape[::-1]
    box = (0.0, 0.0, *map(float, size)) if box is None else box
    down, across = (((np.arange(side) + 0.5) / side - 0.5) / 0.25 for side in grid)
    maps = {
        "random": rng.random(grid),
        "centre": np.exp(-(down[:, None] ** 2 + across**2) / 2),
        "ceiling": pool(mask, grid, box),
    }
    return {name: onto_picture(map_, box, size) for name, map_ in maps.items()}


def pool(values: np.ndarray, grid: tuple[int, int], box: Box | None = None) -> np.ndarray:
    """Means (h, w) of ``values`` (H, W) over each cell of a grid that covers ``box``; outside of the picture is zero.

    The way back from a picture's pixels to what the model sees: a mask onto the token grid, or another tool's heat map
    onto the pixels of the model's input (``grid`` is then the input's height and width).

    >>> pool(np.array([[1.0, 0.0, 0.0, 2.0]]), (1, 2)).tolist()
    [[0.5, 1.0]]
    """
    height, width = values.shape
    left, top, right, bottom = (0.0, 0.0, width, height) if box is None else box
    return _overlap(height, top, bottom, grid[0]) @ values.astype(float) @ _overlap(width, left, right, grid[1]).T


def randomised(clip: Clip, *, seed: int = 0, side: str = "both", blocks: int | None = None) -> Clip:
    """A copy of the model that knows nothing: every weight tensor drawn anew, normal, with its own mean and deviation.

    Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018: a map that survives this shows the picture and not
    the model. With ``blocks``, only the topmost blocks of each tower and what follows them are drawn (their cascading
    randomisation, one step of it). Single numbers, such as the logit scale, and buffers are kept.

    Args:
        side: "both" towers, "image" or "text".
        blocks: how many of the topmost blocks; every weight if left out.

    Raises:
        ValueError: a side that does not exist; more blocks than the tower has, or a tower that is no stack of blocks.
    """
    if side not in ("both", "image", "text"):
        raise ValueError(f"side must be 'both', 'image' or 'text', got {side!r}")
    generator = torch.Generator().manual_seed(seed)
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
    """Spearman's rank correlation (P,) of each map in ``maps`` (P, ...) with the same one in ``others``.

    A constant map has no order and agrees with nothing: zero. ``absolute`` compares magnitudes, so that a map with its
    sign flipped agrees fully (Adebayo et al. report both).
    """
    maps, others = np.asarray(maps, dtype=float), np.asarray(others, dtype=float)
    if maps.shape != others.shape or maps.ndim < 2:
        raise ValueError(f"agreement compares two stacks of maps (P, ...), got {maps.shape} and {others.shape}")
    ranks = []
    for stack in (maps, others):
        flat = np.stack([levelled(_finite(one)) for one in stack.reshape(len(stack), -1)])
        ranked = rankdata(np.abs(flat) if absolute else flat, axis=-1)
        centred = ranked - ranked.mean(axis=-1, keepdims=True)
        length = np.linalg.norm(centred, axis=-1, keepdims=True)
        ranks.append(centred / np.where(length > 0, length, 1))
    return (ranks[0] * ranks[1]).sum(axis=-1)


def randomisation_check(
    clip: Clip,
    maps_of: Callable[[Clip], np.ndarray],
    *,
    seeds: Iterable[int] = range(5),
    side: str = "both",
    blocks: Sequence[int | None] = (None,),
) -> pd.DataFrame:
    """How much the maps of randomised models agree with the model's own: rows of picture, blocks, seed, agreement.

    ``maps_of(clip)`` gives maps (P, h, w) of the same P pictures and prompts each time. ``blocks`` lists the steps of
    a cascade, from the top, such as (1, 2, 3, None); "all" in the table is a model with every weight drawn anew.
    """
    own, parts = maps_of(clip), []
    for count in blocks:
        for seed in seeds:
            found = agreement(own, maps_of(randomised(clip, seed=seed, side=side, blocks=count)))
            step = "all" if count is None else count
            parts.append(pd.DataFrame({"picture": range(len(own)), "blocks": step, "seed": seed, "agreement": found}))
    return pd.concat(parts, ignore_index=True)


def noisy(picture, *, level: int = 4, seed: int = 0) -> Image.Image:
    """The picture with independent noise on every colour of every pixel: whole steps from -level to level, of 255."""
    image = np.asarray(read_image(picture)).astype(int)
    noise = np.random.default_rng(seed).integers(-level, level + 1, image.shape)
    return Image.fromarray(np.clip(image + noise, 0, 255).astype(np.uint8))


def stability(
    maps_of: Callable[[list], np.ndarray], pictures: Sequence, *, level: int = 4, seeds: Iterable[int] = range(3)
) -> pd.DataFrame:
    """How much maps agree before and after a little noise that nobody sees: rows of picture, seed, agreement.

    ``maps_of(pictures)`` gives maps (P, h, w). The noise is random (``noisy``). Published figures of robustness use an
    attack instead (FGSM, 4/255), which is chosen to do harm, and cannot be compared with these.
    """
    own, parts = maps_of(list(pictures)), []
    for seed in seeds:
        changed = [noisy(picture, level=level, seed=seed) for picture in pictures]
        found = agreement(own, maps_of(changed))
        parts.append(pd.DataFrame({"picture": range(len(own)), "seed": seed, "agreement": found}))
    return pd.concat(parts, ignore_index=True)


def cost(calls: Mapping[str, Callable[[], object]], plain: Callable[[], object], *, repeats: int = 5) -> pd.DataFrame:
    """What each call costs in units of ``plain``, a call that runs one forward pass: rows of method, seconds, passes.

    Calls take turns, round by round, so that a machine that slows down slows all of them; the first round is not
    counted. ``passes`` is the median over rounds of the ratio to the plain call of the same round, ``low`` and
    ``high`` the smallest and the largest.
    """
    if repeats < 1:
        raise ValueError(f"repeats is the number of rounds that are counted, one or more, got {repeats!r}")
    rounds = [(_seconds(plain), [_seconds(call) for call in calls.values()]) for _ in range(repeats + 1)][1:]
    seconds = np.array([times for _, times in rounds])  # (rounds, calls)
    ratios = seconds / np.array([[base] for base, _ in rounds])
    return pd.DataFrame(
        {
            "method": list(calls),
            "seconds": np.median(seconds, axis=0),
            "passes": np.median(ratios, axis=0),
            "low": ratios.min(axis=0),
            "high": ratios.max(axis=0),
        }
    )


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    if torch.cuda.is_initialized():  # a CUDA call returns before it is done
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _heat(heat: np.ndarray) -> np.ndarray:
    heat = np.asarray(heat, dtype=float)
    if heat.ndim != 2 or not heat.size:
        raise ValueError(f"a map has rows and columns, (H, W), got shape {heat.shape}")
    return _finite(heat)


def _finite(heat: np.ndarray) -> np.ndarray:
    broken = int((~np.isfinite(heat)).sum())
    if broken:
        raise ValueError(f"{broken} of {heat.size} values of the map are NaN or infinite; it cannot be measured")
    return heat


def _mask(mask: np.ndarray) -> np.ndarray:
    mask = np.asarray(mask)
    if mask.ndim != 2 or not np.isin(mask, (0, 1)).all():
        raise ValueError(f"a mask is (H, W) of True and False, got shape {mask.shape} of {mask.dtype}")
    if not mask.any():
        raise ValueError("the mask is empty: there is no object to find; leave such pictures out, and say how many")
    return mask.astype(bool)


def levelled(heat: np.ndarray) -> np.ndarray:
    """The map over its largest magnitude, rounded, so that what differs by rounding is a tie."""
    largest = np.abs(heat).max()
    return np.round(heat / largest, 6) + 0.0 if largest > 0 else np.zeros_like(heat)


def _overlap(pixels: int, start: float, end: float, cells: int) -> np.ndarray:
    """Which share of each of ``cells`` between ``start`` and ``end`` each pixel covers: (cells, pixels)."""
    edges = np.linspace(start, end, cells + 1)[:, None]
    places = np.arange(pixels)
    covered = np.minimum(edges[1:], places + 1) - np.maximum(edges[:-1], places)
    return np.maximum(covered, 0) / (edges[1:] - edges[:-1])


def _drawn_anew(names: Iterable[str], side: str, blocks: int | None) -> list[str]:
    """The names of the weights to draw, in the model's own order."""
    chosen = [name for name in names if side == "both" or (side == "image") == name.startswith("visual.")]
    if blocks is None:
        return chosen
    drawn = []
    for image in (True, False):
        tower = [name for name in chosen if name.startswith("visual.") == image]
        found = {name: _BLOCK.match(name) for name in tower}
        stacks = {match[1] for match in found.values() if match}
        if tower and len(stacks) != 1:
            raise ValueError(f"the {'image' if image else 'text'} tower is no single stack of blocks; use blocks=None")
        depth = 1 + max((int(match[2]) for match in found.values() if match), default=-1)
        if tower and not (isinstance(blocks, int) and 1 <= blocks <= depth):
            raise ValueError(f"blocks must be a whole number from 1 to {depth}, or None for every weight: {blocks!r}")
        for name, match in found.items():
            if int(match[2]) >= depth - blocks if match else not _STEM.search(name):
                drawn.append(name)
    return drawn
