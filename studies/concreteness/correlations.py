"""Correlations over words, whose values are means over captions, with intervals that know both.

    word scores -> saliency, a table of words --here--> correlation, partial correlation, permutation test, mixed model

The unit of inference is the word: were other words chosen, and other captions, what would change? So an interval draws
captions anew (each word's mean changes with them) and then words (Owen, "The pigeonhole bootstrap", Annals of Applied
Statistics 2007; on the wide side). Drawing captions anew makes means noisier than they are, which pulls correlations
towards zero; so the draws are shifted until their median is the estimate, and the interval tells how wide they spread.
All questions of one call share what is drawn, so differences are paired.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
import pingouin
from scipy.sparse import csr_array
from statsmodels.regression.mixed_linear_model import MixedLM, MixedLMResults
from statsmodels.tools.sm_exceptions import ConvergenceWarning

from gradeclip_utils.checks import columns
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.measures.statistics import spearman

FEWEST = 3  # captions that must hold a word, or its mean says too little
PERMUTATIONS = 2000  # of the ratings


@dataclass(frozen=True)
class Question:
    """Does one value follow another over words?"""

    figure: str  # what to call the answer
    x: str  # a column of the table of words, or of the measured values
    y: str  # a measured value
    words: str  # a column of booleans of the table: which words take part
    given: tuple[str, ...] = ()  # what is held constant; the correlation is partial then
    minus: Question | None = None  # whose answer is subtracted


def correlate(
    questions: Sequence[Question], rows: pd.DataFrame, values: pd.DataFrame, table: pd.DataFrame, *, draws: int = 1000
) -> pd.DataFrame:
    """Spearman's rank correlation for every question, with a 95 % percentile interval over captions and words."""
    means = _Means(rows, values)
    table = table.reindex(means.words)
    for question in questions:
        _check(question, table, values)
    kept = [_kept(question, table, means.counts, means.of()) for question in questions]
    for question, some in zip(questions, kept, strict=True):
        if some.sum() < 10:
            msg = f"{question.figure!r} has {some.sum()} words; a correlation over words needs ten or more"
            raise GradeclipError(msg)
    everything, once = np.arange(len(table))[None], {name: mean[:, None] for name, mean in means.of().items()}
    weights, picks = _resampled(means.captions, len(table), draws)
    anew = means.of(weights)
    (found,), drawn = (
        np.stack([_correlations(*asked, picked, table, of) for asked in zip(questions, kept, strict=True)], axis=1)
        for picked, of in ((everything, once), (picks, anew))
    )
    drawn += found - np.nanmedian(drawn, axis=0)
    low, high = np.nanquantile(drawn, [0.025, 0.975], axis=0)
    names = [question.figure for question in questions]
    counts = [int(some.sum()) for some in kept]
    return pd.DataFrame({"figure": names, "value": found, "low": low, "high": high, "n": counts})


class _Means:
    """The mean of each value over the captions that hold a word, for any weighting of the captions."""

    def __init__(self, rows: pd.DataFrame, values: pd.DataFrame):
        if not rows.index.equals(values.index):
            msg = f"rows and values must be of the same occurrences, got {len(rows)} and {len(values)} rows"
            raise GradeclipError(msg)
        captions, _ = pd.factorize(rows["caption"])
        occurrences, words = pd.factorize(rows["word"], sort=True)
        self.words, self.captions, self.names = pd.Index(words, name="word"), int(captions.max()) + 1, list(values)
        shape, self._sums, self._sizes = (len(words), self.captions), {}, {}
        for name in self.names:
            value = values[name].to_numpy(dtype=float)
            there = np.isfinite(value)
            where = occurrences[there], captions[there]
            self._sums[name] = csr_array((value[there], where), shape=shape)
            self._sizes[name] = csr_array((np.ones(there.sum()), where), shape=shape)
        self.counts = {name: (size > 0).sum(axis=1) for name, size in self._sizes.items()}  # captions of each word

    def of(self, weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """(W,) for each value, or (W, draws) for weights (captions, draws); NaN for a word in no caption of weight."""
        weights = np.ones(self.captions) if weights is None else weights
        found = {}
        for name in self.names:
            size = self._sizes[name] @ weights
            found[name] = np.divide(self._sums[name] @ weights, size, out=np.full(size.shape, np.nan), where=size > 0)
        return found


@lru_cache(maxsize=2)  # a panel asks for the same draws again and again
def _resampled(captions: int, words: int, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each caption is drawn (captions, draws), and which words (draws, words)."""
    rng, even = np.random.default_rng(0), np.full(captions, 1 / captions)
    drawn = [(rng.multinomial(captions, even), rng.integers(0, words, words)) for _ in range(draws)]
    weights, picks = (np.stack(part) for part in zip(*drawn, strict=True))
    return weights.T.astype(float, order="C"), picks


def _check(question: Question, table: pd.DataFrame, values: pd.DataFrame) -> None:
    columns([*table, *values], (question.x, question.y, question.words, *question.given))
    if question.minus is not None:
        _check(question.minus, table, values)


def _kept(question: Question, table: pd.DataFrame, counts: dict, means: dict) -> np.ndarray:
    """Which words (W,) bool have all that a question asks for."""
    kept = table[question.words].fillna(False).to_numpy(dtype=bool, copy=True)
    for name in (question.x, question.y, *question.given):
        kept &= ~pd.isna(means[name] if name in means else table[name].to_numpy())
        if name in counts:
            kept &= counts[name] >= FEWEST
    return kept if question.minus is None else kept & _kept(question.minus, table, counts, means)


def _correlations(question: Question, kept: np.ndarray, picks: np.ndarray, table: pd.DataFrame, means: dict):
    """The answer (draws,) for each draw of words, picks (draws, words), and the means (W, draws) that go with it."""
    x, y = (
        np.take_along_axis(means[name].T, picks, axis=1) if name in means else table[name].to_numpy(dtype=float)[picks]
        for name in (question.x, question.y)
    )
    there = kept[picks] & np.isfinite(x) & np.isfinite(y)
    if question.given:
        found = np.array([
            partial(a[some], b[some], columns_of(table.iloc[picked[some]], question.given))
            for a, b, some, picked in zip(x, y, there, picks, strict=True)
        ])  # fmt: skip
    else:
        found = spearman(x, y, there)
    return found if question.minus is None else found - _correlations(question.minus, kept, picks, table, means)


def columns_of(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Columns as numbers: text becomes 0/1 columns, one a value but the first; constant ones are left out."""
    numbers = pd.get_dummies(table[list(names)], drop_first=True, dtype=float)
    return numbers.loc[:, numbers.nunique() > 1]


def partial(x: np.ndarray, y: np.ndarray, controls: pd.DataFrame) -> float:
    """Spearman's partial correlation of x and y (n,) given controls (n, k), by pingouin; NaN for fewer than k + 5."""
    if len(x) < controls.shape[1] + 5:
        return float("nan")
    data = controls.reset_index(drop=True).assign(x=x, y=y)
    return float(pingouin.partial_corr(data, "x", "y", list(controls), method="spearman")["r"].iloc[0])


@dataclass(frozen=True, eq=False)
class Permutation:
    """What is left of a correlation when ratings change places within bins: the null's draws, and a p-value."""

    observed: float
    null: np.ndarray
    p: float

    @property
    def expected(self) -> float:
        """The correlation that the bins alone bring about."""
        return float(self.null.mean())


def permutation_test(x: pd.Series, y: pd.Series, bins: pd.Series) -> Permutation:
    """Spearman's correlation of x and y, against x permuted within bins."""
    x, y, labels = np.asarray(x, dtype=float), np.asarray(y, dtype=float), pd.factorize(np.asarray(bins))[0]
    members = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
    if max(map(len, members)) < 2:
        raise GradeclipError(f"each of the {len(members)} bins holds a single word: make the bins coarser")
    rng, found, changed = np.random.default_rng(0), float(spearman(x, y)), np.tile(x, (PERMUTATIONS, 1))
    for one in changed:
        for some in members:
            one[some] = x[rng.permutation(some)]
    null = spearman(changed, y)
    beyond = np.abs(null - null.mean()) >= np.abs(found - null.mean()) - 1e-12
    return Permutation(found, null, float((1 + beyond.sum()) / (1 + PERMUTATIONS)))


@dataclass(frozen=True)
class MixedModel:
    """A mixed model's slope, in units of y for one standard deviation of x over words; no slope unless it converged."""

    estimate: float
    low: float
    high: float
    words: int
    captions: int
    occurrences: int
    converged: bool
    optimiser: str


def mixed_model(
    rows: pd.DataFrame, y: pd.Series, table: pd.DataFrame, x: str, given: Sequence[str], words: str
) -> MixedModel:
    """Does y of a word in a caption follow x, given the controls, with an intercept of its own for every word?"""
    own = table[table[words].fillna(False).astype(bool)].dropna(subset=[x, *given])
    own = own[~own.index.duplicated()]
    predictors = columns_of(own, [x, *given])
    predictors = (predictors - predictors.mean()) / predictors.std()
    frame = rows[["caption", "word"]].assign(y=y)[rows["word"].isin(own.index) & y.notna()]
    frame = frame[frame.groupby("caption")["y"].transform("size") > 1]
    if frame["word"].nunique() < 10:
        raise GradeclipError(f"a mixed model over words needs ten or more, got {frame['word'].nunique()}")
    centred = frame["y"] - frame.groupby("caption")["y"].transform("mean")
    design = predictors.loc[frame["word"]].to_numpy()
    design = np.column_stack([design, np.ones(len(design))])
    model = MixedLM(centred.to_numpy(), design, groups=frame["word"].to_numpy())
    for optimiser in ("lbfgs", "bfgs", "powell"):
        if (fit := _fitted(model, optimiser)) is not None:
            break
    sizes = frame["word"].nunique(), frame["caption"].nunique(), len(frame)
    if fit is None:
        return MixedModel(float("nan"), float("nan"), float("nan"), *sizes, False, optimiser)
    at = list(predictors).index(x)
    low, high = fit.conf_int()[at]
    return MixedModel(float(fit.fe_params[at]), float(low), float(high), *sizes, True, optimiser)


def _fitted(model: MixedLM, optimiser: str) -> MixedLMResults | None:
    """The fit if it converged: statsmodels says so, nothing warned of it, and no matrix was singular."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            fit = model.fit(reml=True, method=optimiser)
        except np.linalg.LinAlgError:
            return None
    warned = any(issubclass(one.category, ConvergenceWarning) for one in caught)
    return fit if fit.converged and not warned else None
