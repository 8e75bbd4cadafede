"""Figures: all that lesson 06 shows and judges, part by part; a judged figure has the name of its claim."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd

from gradeclip_utils.measures.statistics import DRAWS, expanded_tail, spearman
from gradeclip_utils.models import Clip

from .assigned import KINDS, assignments, tag_experiment, tag_pairs
from .correlations import correlate, mixed_model, permutation_test
from .saliency import METHODS, saliency
from .word_study import WordStudy, study_questions, word_study

Tables = list[pd.DataFrame]

NAMED = {
    "leave-one-out": "By leaving words out",
    "grad-eclip": "By Grad-ECLIP's scores",
    "attention": "By raw attention",
}
_BINS = {"part of speech and frequency": ("part",), "these two and role": ("part", "role")}


def word_means(found: WordStudy) -> pd.DataFrame:
    """Mean saliency of every studied word: a row a word, a column a method; words that lack one are left out."""
    means = found.values[list(METHODS)].groupby(found.rows["word"]).mean()
    return means.loc[found.table.index[found.table["studied"]]].dropna()


def measure_agreement(means: pd.DataFrame) -> pd.DataFrame:
    """Rank correlation of every two measures over words, with intervals that resample words."""
    rng, rows = np.random.default_rng(0), []
    beside = means.assign(shuffled=rng.permutation(means.iloc[:, 0]))
    picks = rng.integers(0, len(means), (2000, len(means)))
    for pair in combinations(beside, 2):
        both = [beside[name].to_numpy() for name in pair]
        low, high = np.percentile(spearman(*(column[picks] for column in both)), [2.5, 97.5])
        rows.append((*pair, float(spearman(*both)), low, high, len(means)))
    return pd.DataFrame(rows, columns=["one", "other", "value", "low", "high", "n"])


def controls_agreement(found: WordStudy) -> pd.DataFrame:
    """`measure_agreement` of concreteness with each number that is held constant; here it is dealt out for the control."""
    table = found.table[found.table["studied"]]
    numbers = [name for name in found.controls if table[name].dtype.kind == "f"]
    agree = measure_agreement(table[["concreteness", *numbers]].dropna())
    return agree[(agree["one"] == "concreteness") | (agree["other"] == "shuffled")]


def permutations(found: WordStudy) -> dict:
    """`permutation_test` of concreteness and leave-one-out, by the bins within which ratings change places."""
    ready = word_means(found)[["leave-one-out"]].join(found.table).dropna(subset="concreteness")
    common = pd.qcut(ready["frequency"], 4, labels=False).astype(str)
    kinds = {
        name: sum((ready[one] for one in columns[1:]), ready[columns[0]] + common) for name, columns in _BINS.items()
    }
    return {name: permutation_test(ready["concreteness"], ready["leave-one-out"], kind) for name, kind in kinds.items()}


def variants(found: WordStudy, draws: int = 60) -> pd.DataFrame:
    """The main correlations with the magnitude of a score for its positive part, and with the Glasgow ratings."""
    size = pd.DataFrame({name: saliency(found.rows, name, magnitude=True) for name in METHODS})
    plain = [one for one in study_questions(found) if one.figure.endswith(("studied words", "beyond all controls"))]
    asked = {"magnitude": (plain, size)}
    asked |= {name: ([replace(one, x=name) for one in plain], found.values) for name in ("glasgow", "shuffled")}
    table = found.table.assign(shuffled=np.random.default_rng(0).permutation(found.table["concreteness"]))
    return pd.concat([
        correlate(questions, found.rows, values, table, draws=draws).assign(variant=name.replace("glasgow", "Glasgow"))
        for name, (questions, values) in asked.items()
    ])  # fmt: skip


def _slopes(found: WordStudy) -> Tables:
    tables = []
    for method in ("leave-one-out", "grad-eclip"):
        for what, given in (("nothing", ()), ("all controls", found.controls)):
            one = mixed_model(found.rows, found.values[method], found.table, "concreteness", given, "studied")
            if one.converged:
                claim = f"{NAMED[method]}, a standard deviation of concreteness adds to saliency, {what} held constant"
                told = {"value": one.estimate, "low": one.low, "high": one.high, "n": one.words}
                tables.append(pd.DataFrame([{"figure": f"{claim} (mixed model)", **told}]))
    return tables


def question_figures(clip: Clip, draws: int = 300, **options) -> Tables:
    """Every correlation over words, with its controls and the other routes to it."""
    found = word_study(clip, **options)
    agree, other = measure_agreement(word_means(found)), variants(found, draws // 5)
    beside = controls_agreement(found)
    tables = [
        correlate(study_questions(found), found.rows, found.values, found.table, draws=draws),
        agree.assign(figure="rank correlation over words, " + agree["one"] + " and " + agree["other"]),
        beside.assign(figure="rank correlation over words, " + beside["one"] + " and " + beside["other"]),
        other.assign(figure=other["figure"] + ", " + other["variant"]),
    ]
    rated = int(found.table.loc[word_means(found).index, "concreteness"].notna().sum())
    for name, one in permutations(found).items():
        low, high = one.observed - np.quantile(one.null, [0.975, 0.025])
        claim = f"By leaving words out, concreteness tells more than {name} (interval: of the permutations)"
        told = {"value": one.observed - one.expected, "low": low, "high": high, "n": rated}
        tables.append(pd.DataFrame([{"figure": claim, **told}]))
    return [*tables, *_slopes(found)]


def crossed(figure: str, table: pd.DataFrame, permuted: bool = False) -> pd.DataFrame:
    """One row: a mean over pairs and assignments; the interval draws both (`correlations`), its percentiles expanded."""
    values, n, rng = table.to_numpy(), len(table), np.random.default_rng(0)
    value, tail = np.nanmean(values), expanded_tail(n)
    pairs, others = (rng.integers(0, size, (DRAWS, size)) for size in values.shape)
    means = np.nanmean(values[pairs[:, :, None], others[:, None]], axis=(1, 2))
    if permuted:
        means, tail = value - rng.choice([-1, 1], (DRAWS, n)) @ np.nanmean(values, axis=1) / n, 0.025
    low, high = np.nanquantile(means, [tail, 1 - tail])
    return pd.DataFrame([{"figure": figure, "value": value, "low": low, "high": high, "n": n}])


def assigned_figures(clip: Clip, square: pd.DataFrame | None = None, **options) -> Tables:
    """Concreteness assigned: how much more a concrete tag counts than an abstract one on the same drawings."""
    found = tag_experiment(clip, assignments(tag_pairs()) if square is None else square, **options)
    wide = found.pivot(index="pair", columns=["taught", "measure", "assignment"], values=[*KINDS])
    mean, more, tables = (wide["concrete"] + wide["abstract"]) / 2, wide["concrete"] - wide["abstract"], []
    for taught, when in ((True, ""), (False, ", before they are taught")):
        tables.append(crossed(f"Tags are told from those of other drawings{when}", mean[taught]["right"] - 0.5))
        for name in (*METHODS, "right"):
            tables += [crossed(f"{name} of {kind} tags{when}", wide[kind][taught][name]) for kind in KINDS]
        for name, said in NAMED.items():
            claim = f"{said}, a concrete tag counts more than an abstract one on the same drawings{when}"
            tables.append(crossed(claim, more[taught][name]))
            tables.append(crossed(f"{claim} (interval: of the permutations)", more[taught][name], permuted=True))
    for name, said in NAMED.items():
        tables.append(crossed(f"{said}, a tag counts more once it is taught", mean[True][name] - mean[False][name]))
    return tables


PARTS: dict[str, Callable[..., Tables]] = {"questions": question_figures, "assigned": assigned_figures}
