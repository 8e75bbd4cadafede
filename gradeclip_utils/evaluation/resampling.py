"""Resampling: bounds and p-values of many means at once, from one number a unit or cluster of units.

    one number a unit --here--> bounds, p-values --statistics--> tables

scipy's bootstrap draws the samples. Proportions have Wilson's bounds and differences of paired proportions those of
Agresti and Min instead: where all answers are alike there is nothing to draw from, and 30 of 30 is no certainty.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import bootstrap, norm
from statsmodels.stats.proportion import proportion_confint

from .. import checks
from ..checks import between, whole
from ..errors import InvalidValue

DRAWS = 4000  # bootstrap samples of an interval
FLIPS = 9999  # random sign flips of a test, where there are too many to try them all
EXACT = 12  # with up to so many units, all 2**12 sign patterns are tried
AT_ONCE = 2**21  # numbers drawn together, to bound the memory


def by_cluster(values: np.ndarray, clusters: Sequence | None) -> tuple[np.ndarray, np.ndarray]:
    """Sums (K, ...) and sizes (K,) of the clusters of values (n, ...); without labels every value is its own.

    Raises:
        ValueError: labels that are not one a value, or missing.
    """
    if clusters is None:
        return values, np.ones(len(values))
    if len(clusters) != len(values):
        msg = f"clusters needs one label a value, got {len(clusters)} labels for {len(values)} values"
        raise InvalidValue(msg, "cluster-labels")
    codes, names = pd.factorize(np.asarray(clusters))
    if (codes < 0).any():
        msg = f"{(codes < 0).sum()} of {len(codes)} cluster labels are missing; every value needs one"
        raise InvalidValue(msg, "cluster-labels")
    sums = np.zeros((len(names), *values.shape[1:]))
    np.add.at(sums, codes, values)
    return sums, np.bincount(codes).astype(float)


def bootstrap_bounds(sums: np.ndarray, sizes: np.ndarray, draws: int, seed: int, level: float = 0.95) -> np.ndarray:
    """Bounds (M, 2) of M means over clusters drawn with replacement, from their sums (K, M) and sizes (K,).

    Args:
        sums: (K, M), of the values in each of K clusters.
        sizes: (K,), how many values each has.
        draws: how many samples.
        seed: of the samples.
        level: of the interval.
    """

    def mean(sums: np.ndarray, sizes: np.ndarray, axis: int) -> np.ndarray:
        """Of all values in the clusters that were drawn."""
        return sums.sum(axis) / sizes.sum(axis)

    whole("draws", draws, 1)
    between("level", level)
    bounds = bootstrap(
        (sums.T, np.broadcast_to(sizes, sums.T.shape)), mean, paired=True, vectorized=True, axis=-1,
        method="percentile", confidence_level=level, n_resamples=draws, batch=max(1, AT_ONCE // sums.size),
        rng=np.random.default_rng(checks.seed(seed)),
    ).confidence_interval  # fmt: skip
    return np.stack([bounds.low, bounds.high], axis=-1)


def wilson_bounds(values: np.ndarray, clusters: Sequence | None, level: float = 0.95) -> np.ndarray | None:
    """Wilson's bounds (2,) of the mean of values (n,), if that is a proportion; else None.

    It is one if all values are 0 or 1. What happens to be 0, or 1, every time, such as the correlation of a map with
    itself, is taken for one, and its bounds are then too wide. In clusters answers are not independent; their bootstrap
    is trusted unless all are alike, when there is nothing to draw: then every cluster counts as one answer.

    Args:
        values: (n,).
        clusters: one label a value, or None.
        level: of the interval.
    """
    alike = len(values) > 0 and bool((values == values[0]).all())
    if not np.isin(values, (0.0, 1.0)).all() or (clusters is not None and not alike):
        return None
    count, mean = len(values) if clusters is None else len(set(clusters)), values.mean()
    low, high = proportion_confint(mean * count, count, 1 - between("level", level), method="wilson")
    return np.array([min(max(low, 0.0), mean), max(min(high, 1.0), mean)])  # no mean lies beyond its bounds by rounding


def paired_proportion_bounds(differences: np.ndarray) -> np.ndarray:
    """95 % bounds (2,) of the difference of two proportions, from the differences (n,) of pairs of answers: -1, 0 or 1.

    Wald's interval after half an answer was added to each of the four kinds of pairs. Agresti and Min, "Simple Improved
    Confidence Intervals for Comparing Matched Proportions", Statistics in Medicine 2005.
    """
    better, worse = (differences > 0).sum() + 0.5, (differences < 0).sum() + 0.5
    n = len(differences) + 2
    mean = (better - worse) / n
    error = np.sqrt(better + worse - (better - worse) ** 2 / n) / n
    return np.clip(mean + norm.ppf(0.975) * error * np.array([-1, 1]), -1, 1)


def sign_flip_p(sums: np.ndarray, flips: int, seed: int) -> np.ndarray:
    """Two-sided p-values (M,) of the sums (K, M) over K units whose signs are flipped.

    It counts what `scipy.stats.permutation_test(permutation_type="samples")` counts, of all M with the same flips and
    some twenty times as fast: all patterns for up to 12 units, else random ones.

    Args:
        sums: (K, M), K differences of each of M comparisons.
        flips: how many random patterns, where there are more than 12 units.
        seed: of these.
    """
    whole("flips", flips, 1)
    count = len(sums)
    found = np.abs(sums.sum(0))
    found = found - 1e-12 * np.abs(sums).sum(0)  # equal up to rounding counts as equal
    if count <= EXACT:
        signs = 1.0 - 2.0 * (np.arange(2**count)[:, None] >> np.arange(count) & 1)
        return (np.abs(signs @ sums) >= found).mean(0)
    generator, beyond = np.random.default_rng(checks.seed(seed)), np.zeros(sums.shape[1])
    step = max(1, AT_ONCE // count)
    for start in range(0, flips, step):
        signs = 1.0 - 2.0 * generator.integers(0, 2, (min(step, flips - start), count), dtype=np.int8)
        beyond += (np.abs(signs @ sums) >= found).sum(0)
    return (1 + beyond) / (1 + flips)
