"""Localisation: does a map lie on the object?

    map --resized--> heat map, true mask --here--> one number per image --statistics--> table

Values of a map that differ by less than a millionth of its largest magnitude are ties, and ties
are shared, so that a constant map scores the mask's area, which is chance, in every measure. The
measures therefore take a map's `levels`, whole numbers (N,), and `inside` (N,), True for pixels of
the object; or, for every distinct level from the top, how many pixels are `selected` and how many
of them are `hits`.
"""

import numpy as np
from numpy.typing import ArrayLike

from ..errors import GradeclipError
from ..images import Box, onto_image, pool

MEASURES = (
    "pointing_game",
    "energy_pointing_game",
    "pixel_accuracy",
    "average_precision",
    "iou_best",
    "iou_fixed",
)
LEVELS = 1_000_000  # between zero and the largest magnitude
MANY_PIXELS = 250_000  # from so many on, all levels are counted, which is faster than a sort
THRESHOLD = 0.2  # of the maximum: as CAM marks its objects


def localisation_scores(heat: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Measure how well a heat map finds an object: numbers from 0 to 1 by name, 1 is best.

    >>> mask = np.zeros((4, 4), bool)
    >>> mask[:2, :2] = True
    >>> set(localisation_scores(mask.astype(float), mask).values())
    {1.0}
    >>> set(localisation_scores(np.ones((4, 4)), mask).values())
    {0.25}

    Args:
        heat: (H, W), signed or not.
        mask: (H, W) bool, True on the object.

    Returns:
        The values of the functions in `MEASURES`, by their names.

    Raises:
        GradeclipError: shapes that differ, a map that is not finite, or an empty mask.
    """
    heat = np.asarray(heat, dtype=float)
    mask = np.asarray(mask, dtype=bool)
    if heat.ndim != 2 or heat.shape != mask.shape:
        msg = f"map and mask must have one shape (H, W), got {heat.shape} and {mask.shape}"
        raise GradeclipError(f"{msg}: resize the map")
    if not np.isfinite(heat).all():
        raise GradeclipError("the map must be finite: leave out images whose map is NaN")
    if not mask.any():
        raise GradeclipError("the mask is empty: leave out images without the object")

    levels = as_levels(heat).ravel()
    inside = mask.ravel()
    selected, hits = _ranked(levels, inside)
    scores = {
        "pointing_game": pointing_game(levels, inside),
        "energy_pointing_game": energy_pointing_game(levels, inside),
        "pixel_accuracy": pixel_accuracy(levels, inside),
        "average_precision": average_precision(selected, hits),
        "iou_best": iou_best(selected, hits),
        "iou_fixed": iou_fixed(levels, inside),
    }
    return {name: float(score) for name, score in scores.items()}


def share_on(
    map_: ArrayLike, mask: ArrayLike, *, among: ArrayLike | None = None
) -> float | np.ndarray:
    """The share of a map's positive relevance that lies on a mask, 0 to 1.

    A map without positive relevance says nothing about places: it counts as uniform, and its share
    is the mask's share of the area.

    >>> share_on([[3, 1], [0, -5]], [[True, False], [False, False]])
    0.75

    Args:
        map_: (..., H, W) relevance, on pixels or on patches; many maps at once.
        mask: (..., H, W) bool, or how much of each patch the thing covers, 0 to 1.
        among: (..., H, W), where relevance counts, such as all things; everywhere if left out.

    Returns:
        A number, or one (...) for each map.

    Raises:
        GradeclipError: a map that is not finite, or a mask with other sides (H, W).
    """
    map_, mask = np.asarray(map_, float), np.asarray(mask, float)
    if map_.shape[-2:] != mask.shape[-2:]:
        msg = f"map and mask must have one shape (H, W), got {map_.shape} and {mask.shape}"
        raise GradeclipError(f"{msg}: resize the map")
    if not np.isfinite(map_).all():
        raise GradeclipError("the map must be finite: leave out images whose map is NaN")

    counted = np.ones(map_.shape[-2:]) if among is None else np.asarray(among, float)
    positive = np.maximum(map_, 0) * counted
    positive = np.where(positive.any((-2, -1), keepdims=True), positive, counted)
    on_mask, total = (positive * mask).sum((-2, -1)), positive.sum((-2, -1))
    share = on_mask / total
    return float(share) if share.ndim == 0 else share


def pointing_game(levels: np.ndarray, inside: np.ndarray) -> float:
    """Does the maximum lie on the object? Of several maxima, the fraction that does.

    Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016; without its
    tolerance of 15 pixels, because the mask is exact.
    """
    return inside[levels == levels.max()].mean()


def energy_pointing_game(levels: np.ndarray, inside: np.ndarray) -> float:
    """The fraction of the positive relevance that lies on the object; chance without any.

    Wang et al., "Score-CAM", CVPR Workshops 2020, there with boxes.
    """
    return float(share_on(levels[None], inside[None]))


def pixel_accuracy(levels: np.ndarray, inside: np.ndarray) -> float:
    """The fraction of pixels on the right side of a threshold, as `iou_fixed` has it.

    With small objects it favours maps that mark little.
    """
    return (_marked(levels) == inside).mean()


def average_precision(selected: np.ndarray, hits: np.ndarray) -> float:
    """The area under precision over recall, by steps, of the pixels as the map ranks them."""
    recall, precision = hits / hits[-1], hits / selected
    return np.sum(np.diff(recall, prepend=0) * precision)


def iou_best(selected: np.ndarray, hits: np.ndarray) -> float:
    """Intersection over union at the best of all thresholds: an upper bound for any rule."""
    return (hits / (hits[-1] + selected - hits)).max()


def iou_fixed(levels: np.ndarray, inside: np.ndarray) -> float:
    """Intersection over union of the object and where the map reaches 0.2 of its maximum.

    The rule of Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016.
    Published tables use other rules (above the map's mean, say): compare within a table only.
    """
    marked = _marked(levels)
    return (marked & inside).sum() / (marked | inside).sum()


def reference_baselines(
    grid: tuple[int, int],
    mask: np.ndarray,
    rng: np.random.Generator,
    *,
    box: Box | None = None,
) -> dict[str, np.ndarray]:
    """Draw the reference baselines "random", "centre", "oracle" and "area": heat maps (H, W).

        reference_baselines((12, 12), mask, np.random.default_rng(0))["centre"]

    "random" has independent uniform values; "centre" is a Gaussian in the middle of what the model
    sees, its standard deviation a quarter of the sides; "oracle" is the true mask, averaged over
    each token. These lie on the token grid and are resized as maps are. "area" is the same
    everywhere. The oracle is not an upper bound: a map on the token deepest in the object can put
    more of its energy inside.

    Args:
        grid: (h, w) tokens.
        mask: (H, W) bool, in the image's pixels.
        rng: the generator of the random map.
        box: left, top, right, bottom of what the model saw, in the mask's pixels; the whole image
            if left out.

    Returns:
        A heat map (H, W), as large as the mask, for each name.
    """
    height, width = mask.shape
    if box is None:
        box = (0.0, 0.0, float(width), float(height))
    down, across = (((np.arange(side) + 0.5) / side - 0.5) / 0.25 for side in grid)

    maps = {
        "random": rng.random(grid),
        "centre": np.exp(-(down[:, None] ** 2 + across**2) / 2),
        "oracle": pool(mask, grid, box),
    }
    heats = {name: onto_image(map_, box, (width, height)) for name, map_ in maps.items()}
    heats["area"] = np.ones((height, width))
    return heats


def as_levels(heat: np.ndarray) -> np.ndarray:
    """A map in millionths of its largest magnitude, rounded, so that rounding makes no order."""
    largest = np.abs(heat).max()
    if largest == 0:
        return np.zeros(heat.shape, dtype=np.int32)
    return np.rint(heat / float(largest) * LEVELS).astype(np.int32)


def _marked(levels: np.ndarray) -> np.ndarray:
    """The pixels (N,) where the map's positive part reaches the threshold."""
    positive = np.maximum(levels, 0)
    return positive >= THRESHOLD * positive.max()


def _ranked(levels: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For every distinct level from the top: how many pixels are selected, and how many hit."""
    if len(levels) < MANY_PIXELS:
        levels = np.unique(levels, return_inverse=True)[1]
    places = levels.max() - levels
    pixels = np.bincount(places)
    hits = np.bincount(places[inside], minlength=len(pixels))
    occupied = pixels > 0
    return pixels[occupied].cumsum(), hits[occupied].cumsum()
