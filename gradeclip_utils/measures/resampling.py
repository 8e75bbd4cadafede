"""Resampling: bounds of means and p-values, from one number a unit or cluster of units.

    one number a unit --here--> bounds, p-values --statistics--> tables

scipy's bootstrap draws the samples, and its permutation test flips the signs. Percentiles are expanded, else bounds of
few values were too narrow: Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 2015.
Proportions have Wilson's bounds and differences of paired proportions those of Agresti and Min instead: where all
answers are alike there is nothing to draw from, and 30 of 30 is no certainty.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import bootstrap, norm, permutation_test, t
from statsmodels.stats.proportion import proportion_confint

from ..errors import GradeclipError

DRAWS = 4000  # bootstrap samples of an interval
FLIPS = 9999  # random sign flips of a test, where there are too many to try them all
AT_ONCE = 2**21  # numbers drawn together, to bound the memory


def by_cluster(values: np.ndarray, clusters: Sequence | None) -> tuple[np.ndarray, np.ndarray]:
    """Sums (K, ...) and sizes (K,) of the clusters of values."""
    if clusters is None:
        return values, np.ones(len(values))
    if len(clusters) != len(values):
        msg = f"clusters needs one label a value, got {len(clusters)} labels for {len(values)} values"
        raise GradeclipError(msg)
    codes, names = pd.factorize(np.asarray(clusters))
    if (codes < 0).any():
        msg = f"{(codes < 0).sum()} of {len(codes)} cluster labels are missing; every value needs one"
        raise GradeclipError(msg)
    sums = np.zeros((len(names), *values.shape[1:]))
    np.add.at(sums, codes, values)
    return sums, np.bincount(codes).astype(float)


def expanded_tail(count: int) -> float:
    """The fraction of bootstrap means that lies beyond either 95 % bound, once percentiles are expanded."""
    return float(norm.sf(np.sqrt(count / (count - 1)) * t.ppf(0.975, count - 1)))  # beyond 1.96 of many, 2.8 of six


def bootstrap_bounds(sums: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """95 % bounds (2,) of the mean over clusters drawn with replacement."""

    def _mean(sums: np.ndarray, sizes: np.ndarray, axis: int) -> np.ndarray:
        """Of all values in the clusters that were drawn."""
        return sums.sum(axis) / sizes.sum(axis)

    return np.array(bootstrap(
        (sums, sizes), _mean, paired=True, vectorized=True, axis=-1, method="percentile",
        confidence_level=1 - 2 * expanded_tail(len(sums)), n_resamples=DRAWS,
        batch=max(1, AT_ONCE // sums.size), rng=np.random.default_rng(0),
    ).confidence_interval)  # fmt: skip


def wilson_bounds(values: np.ndarray, clusters: Sequence | None) -> np.ndarray | None:
    """Wilson's 95 % bounds (2,) of a mean, if that is a proportion; else None."""
    alike = len(values) > 0 and bool((values == values[0]).all())
    if not np.isin(values, (0.0, 1.0)).all() or (clusters is not None and not alike):
        return None
    count, mean = len(values) if clusters is None else len(set(clusters)), values.mean()
    low, high = proportion_confint(mean * count, count, method="wilson")
    return np.array([min(max(low, 0.0), mean), max(min(high, 1.0), mean)])  # no mean lies beyond its bounds by rounding


def paired_proportion_bounds(differences: np.ndarray) -> np.ndarray:
    """95 % bounds (2,) of the difference of two proportions."""
    better, worse = (differences > 0).sum() + 0.5, (differences < 0).sum() + 0.5
    n = len(differences) + 2
    mean = (better - worse) / n
    error = np.sqrt(better + worse - (better - worse) ** 2 / n) / n
    return np.clip(mean + norm.ppf(0.975) * error * np.array([-1, 1]), -1, 1)


def sign_flip_p(sums: np.ndarray) -> np.ndarray:
    """Two-sided p-values (M,) of the sums over K units whose signs are flipped: all patterns if there are so few."""
    return permutation_test(
        (sums,), lambda flipped, axis: np.abs(flipped.sum(axis)), permutation_type="samples", alternative="greater",
        vectorized=True, axis=-1, n_resamples=FLIPS, batch=max(1, AT_ONCE // sums.size), rng=np.random.default_rng(0),
    ).pvalue  # fmt: skip
