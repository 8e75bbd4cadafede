"""Localisation: does a map lie on the object?

    map --resized--> heat map, true mask --here--> one number per image --statistics--> table

All functions take plain arrays: a heat map (H, W), signed or not, and the mask of the object (H, W)
bool in the same pixels. Values that differ by less than a millionth of the largest magnitude are
ties, and ties are shared, so that a constant map scores the mask's area, which is chance, in every
measure.
"""

import numpy as np

from ..checks import as_box, as_map, instance
from ..datasets.example import as_mask
from ..errors import GradeclipError
from ..images import Box, as_grid, onto_image, pool

MEASURES = (
    "pointing_game",
    "energy_pointing_game",
    "pixel_accuracy",
    "average_precision",
    "iou_best",
    "iou_fixed",
)
_THRESHOLD = 0.2  # of the maximum: as CAM marks its objects


def localisation_scores(heat: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Measure how well a heat map (H, W) finds the object in `mask` (H, W): numbers from 0 to 1 by name, 1 is best.

    - `pointing_game`: does the maximum lie in the mask? (Zhang et al., "Top-down Neural Attention
      by Excitation Backprop", ECCV 2016, without its tolerance of 15 pixels: the mask is exact.) Of
      several maxima, the fraction in the mask.
    - `energy_pointing_game`: the fraction of the positive relevance that lies in the mask (Wang et
      al., "Score-CAM", CVPR Workshops 2020, there with boxes). A map without a positive part scores
      chance.
    - `average_precision`: of the pixels, ranked by the map; the area under precision over recall,
    by steps.
    - `iou_best`: intersection over union of the mask and the pixels above a threshold, at the best
      of all thresholds: an upper bound for any rule.
    - `iou_fixed` and `pixel_accuracy`: intersection over union, and fraction of pixels on the right
      side, where the map's positive part reaches 0.2 of its maximum, the rule of Zhou et al.,
      "Learning Deep Features for Discriminative Localization", CVPR 2016. Published tables use
      other rules (above the map's mean, say), so compare within a table only. With small objects,
      pixel accuracy favours maps that mark little.

    >>> mask = np.zeros((4, 4), bool)
    >>> mask[:2, :2] = True
    >>> set(localisation_scores(mask.astype(float), mask).values()), set(localisation_scores(np.ones((4, 4)), mask).values())
    ({1.0}, {0.25})

    Raises:
        GradeclipError: shapes that differ, a map that is not finite, a mask that is empty or not of
            True and False.
    """
    heat, mask = as_map(heat), as_mask("the mask", mask)
    if heat.shape != mask.shape:
        raise GradeclipError(
            f"map and mask must have one shape, got {heat.shape} and {mask.shape}: resize the map"
        )
    values, inside = levelled(heat).ravel(), mask.ravel()
    positive = np.maximum(values, 0)
    marked = positive >= _THRESHOLD * positive.max()
    _, level, pixels = np.unique(
        -values, return_inverse=True, return_counts=True
    )  # from the largest value down
    above, found = (
        pixels.cumsum(),
        np.bincount(level, weights=inside).cumsum(),
    )  # of all pixels, and of the object's
    return {
        "pointing_game": float(inside[values == values.max()].mean()),
        "energy_pointing_game": float(
            positive[inside].sum() / positive.sum() if positive.any() else inside.mean()
        ),
        "pixel_accuracy": float((marked == inside).mean()),
        "average_precision": float((np.diff(found, prepend=0) / found[-1] * found / above).sum()),
        "iou_best": float((found / (found[-1] + above - found)).max()),
        "iou_fixed": float((marked & inside).sum() / (marked | inside).sum()),
    }


def reference_baselines(
    grid: tuple[int, int], mask: np.ndarray, rng: np.random.Generator, *, box: Box | None = None
) -> dict[str, np.ndarray]:
    """Draw the reference baselines "random", "centre", "oracle" and "area": heat maps (H, W) by name.

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

    Raises:
        GradeclipError: as `localisation_scores`, of the mask.
    """
    mask, grid = as_mask("the mask", mask), as_grid(grid)
    height, width = mask.shape
    box = as_box(box, width, height)
    down, across = (((np.arange(side) + 0.5) / side - 0.5) / 0.25 for side in grid)
    maps = {
        "random": instance("rng", rng, np.random.Generator, "a generator of numpy").random(grid),
        "centre": np.exp(-(down[:, None] ** 2 + across**2) / 2),
        "oracle": pool(mask, grid, box),
    }
    heats = {name: onto_image(map_, box, (width, height)) for name, map_ in maps.items()}
    heats["area"] = np.ones((height, width))
    return heats


def levelled(heat: np.ndarray) -> np.ndarray:
    """Return a map over its largest magnitude, rounded to six digits, so that rounding makes no order."""
    largest = np.abs(heat).max()
    return np.round(heat / largest, 6) + 0.0 if largest > 0 else np.zeros_like(heat)
