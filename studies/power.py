"""How much data does "undecided" need? The power of two lessons, by simulation.

    power_of_correlation(words=800, correlation=0.1, reliability=0.6)   # lesson 07
    power_of_choices(pairs=150, right=0.6, agreement=0.2)               # lesson 06
    power_table(agreement=0.2)                                          # both, for many sizes

The power is the part of simulated studies whose 95 % interval excludes the reference, as the
lesson's own interval does. All draws come from generators with a fixed seed.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import norm, rankdata

from gradeclip_utils.measures.statistics import mean_interval

STUDIES = 1000  # simulated, for each number
CORRELATION = 0.1
RELIABILITIES = (0.4, 0.6, 0.8)
RIGHT = (0.55, 0.6, 0.7)
SIZES = (50, 100, 200, 400, 800, 1600, 3200)
_WANTED = 0.8
_SPREAD = 1.06  # of the arctanh of a rank correlation: Fieller, Hartley and Pearson 1957


def power_of_correlation(
    words: int,
    correlation: float = CORRELATION,
    reliability: float = 1.0,
    *,
    studies: int = STUDIES,
    seed: int = 0,
) -> float:
    """How often a rank correlation is seen to differ from 0.

    Ratings and true scores of words are normal with a correlation. A measured score is the true one
    with so much noise that two measurements correlate by the reliability.

    Args:
        words: how many have a rating and a score.
        correlation: of ratings and true scores.
        reliability: of the measured scores, from 0 to 1.
        studies: how many are simulated.
        seed: of the draws.

    Returns:
        The part of the studies whose interval excludes 0, from 0 to 1.
    """
    rng = np.random.default_rng(seed)
    rating, unrelated, noise = rng.normal(size=(3, studies, words))  # (studies, words) each
    truth = correlation * rating + np.sqrt(1 - correlation**2) * unrelated
    measured = np.sqrt(reliability) * truth + np.sqrt(1 - reliability) * noise

    rating_ranks = _centred_ranks(rating)
    measured_ranks = _centred_ranks(measured)
    covariance = (rating_ranks * measured_ranks).sum(axis=1)
    spread = np.linalg.norm(rating_ranks, axis=1) * np.linalg.norm(measured_ranks, axis=1)
    observed = covariance / spread  # (studies,)

    error = np.sqrt(_SPREAD / (words - 3))
    deviation = np.abs(np.arctanh(observed))
    is_seen = deviation > norm.ppf(0.975) * error
    return float(is_seen.mean())


def _centred_ranks(values: np.ndarray) -> np.ndarray:
    """The ranks of the values (studies, words) within each study, less their mean."""
    ranks = rankdata(values, axis=1)
    return ranks - ranks.mean(axis=1, keepdims=True)


def power_of_choices(
    pairs: int,
    right: float,
    agreement: float = 0.0,
    *,
    studies: int = STUDIES,
    seed: int = 0,
) -> float:
    """How often a model that finds its caption in a part of the cases is seen to beat a guess.

    Each pair gives two answers. The interval is that of claims: Wilson's, a pair counted once.

    Args:
        pairs: how many.
        right: the part of right answers, from .5 to 1.
        agreement: the correlation of the two answers of a pair.
        studies: how many are simulated.
        seed: of the draws.

    Returns:
        The part of the studies whose interval is above .5, from 0 to 1.
    """
    rng = np.random.default_rng(seed)
    answers = rng.random((studies, pairs, 2)) < right
    is_alike = rng.random((studies, pairs)) < agreement
    answers[is_alike, 1] = answers[is_alike, 0]
    counts = answers.sum(axis=(1, 2))  # (studies,)

    clusters = np.repeat(np.arange(pairs), 2)
    lows = {}
    for count in np.unique(counts):
        ordered = np.arange(2 * pairs) < count  # the interval depends on the count alone
        lows[count], _ = mean_interval(ordered, clusters, kind="proportion")
    return float(np.mean([lows[count] > 0.5 for count in counts]))


def pair_agreement(right: Sequence[float], pairs: Sequence) -> float:
    """The correlation of the two answers of a pair, from the answers and the pair of each."""
    answers = pd.Series(np.asarray(right, dtype=float)).groupby(np.asarray(pairs))
    first = answers.first()
    second = answers.last()
    both = np.concatenate([first, second])
    both_swapped = np.concatenate([second, first])
    if both.std() == 0:
        return 0.0
    return float(np.corrcoef(both, both_swapped)[0, 1])


def images_needed(reliability: float, images: int, wanted: float) -> int:
    """How many images give a reliability, if so many give another (Spearman-Brown)."""
    factor = wanted * (1 - reliability) / (reliability * (1 - wanted))
    return int(np.ceil(images * factor))


def power_table(
    agreement: float = 0.0,
    sizes: Sequence[int] = SIZES,
    *,
    studies: int = STUDIES,
    seed: int = 0,
) -> pd.DataFrame:
    """The power of both lessons: a row per effect, a column per number of words or pairs.

    The last column has the smallest of these numbers whose power is .8, or "more".
    """
    simulation = {"studies": studies, "seed": seed}
    rows = {}
    for reliability in RELIABILITIES:
        name = f"07, words: correlation {CORRELATION}, reliability {reliability}"
        rows[name] = [
            power_of_correlation(n, CORRELATION, reliability, **simulation) for n in sizes
        ]
    for right in RIGHT:
        name = f"06, pairs: right in {right:.2f}"
        rows[name] = [power_of_choices(n, right, agreement, **simulation) for n in sizes]

    table = pd.DataFrame.from_dict(rows, orient="index", columns=list(sizes))
    is_enough = table.ge(_WANTED)
    needed = is_enough.idxmax(axis=1).astype(object)
    table[f"power {_WANTED} from"] = needed.where(is_enough.any(axis=1), "more")
    return table
