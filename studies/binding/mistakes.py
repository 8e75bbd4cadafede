"""Mistakes: can it be told from outside when a model gives the wrong caption?

    answers, binding index, appearance -> one row an image -> nested logistic regressions -> added ROC-AUC

Whoever knows which of two similarities belongs to the right caption knows the answer. So what is known anyway are the
higher and the lower of the two, and how large and how visible the objects are; the question is what the binding index
adds to that.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import rankdata
from sklearn.model_selection import StratifiedGroupKFold

from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.scenes import CANVAS, Scene

from ..pairs import Pair
from .binding_index import METHODS

KNOWN = ("similarity higher", "similarity lower", "size", "contrast with background")  # without any explanation
_CONSTANT = 1e-9  # a spread that is rounding alone


def appearance(scene: Scene, asked: Sequence[int]) -> tuple[float, float]:
    """Size and contrast of some objects of a scene, on average."""
    pixels, masks = np.asarray(scene.image(CANVAS)) / 255, scene.masks(CANVAS)
    ground = pixels[~masks.any(0)].mean(0)
    nouns = {scene.objects[i].noun for i in asked}
    own = [k for k, thing in enumerate(scene.objects) if thing.noun in nouns]
    return float(masks[own].mean()), float(np.mean([np.linalg.norm(pixels[masks[k]].mean(0) - ground) for k in own]))


def mistake_table(rows: pd.DataFrame, index: pd.DataFrame, pairs: Sequence[Pair]) -> pd.DataFrame:
    """What could tell a wrong answer from a right one: one row an image, for `added_auc`."""
    keys = ["pair", "side"]
    table = rows.set_index(keys)
    means = index.groupby([*keys, "role", "method"])["index"].mean().unstack(["role", "method"])
    found = []
    for pair in pairs:
        for side, scene in enumerate(pair.scenes):
            one, of_roles = table.loc[(pair.name, side)], means.loc[(pair.name, side)]
            high, low = sorted([one["similarity"], one["other_similarity"]], reverse=True)
            size, contrast = appearance(scene, pair.asked)
            about = {"pair": pair.name, "side": side, "kind": pair.kind, "objects": pair.objects}
            about["cell"] = f"{pair.kind}, {pair.objects}"
            known = dict(zip(KNOWN, (high, low, size, contrast), strict=True))
            chosen = "right" if one["right"] > 0.5 else "wrong"
            seen = {f"{name}: {m}": of_roles[role, m] for name, role in (("chosen", chosen), ("right", "right"))
                    for m in METHODS}  # fmt: skip
            found.append({**about, "wrong": chosen == "wrong", **known, **seen})
    return pd.DataFrame(found)


def added_auc(table: pd.DataFrame, extra: str, *, draws: int = 2000, repeats: int = 5) -> dict[str, float]:
    """How much better are wrong answers told from right ones with `extra` than with what is known anyway (`KNOWN`)?"""
    wrong, pairs, folds = _folds(table, repeats)
    scores = [_out_of_fold(table, added, wrong, folds)[0] for added in ([], [table[extra]])]
    areas = [float(auc(score[None], wrong[None])[0]) for score in scores]
    members = np.argsort(pairs, kind="stable").reshape(-1, 2)
    drawn = np.random.default_rng(0).integers(0, len(members), (draws, len(members)))
    rows = members[drawn].reshape(draws, -1)
    differences = auc(scores[1][rows], wrong[rows]) - auc(scores[0][rows], wrong[rows])
    low, high = np.nanquantile(differences, [0.025, 0.975])
    counts = {"n": len(wrong), "wrong": int(wrong.sum())}
    return {"base": areas[0], "full": areas[1], "added": areas[1] - areas[0], "low": low, "high": high, **counts}


def beside_shuffled(table: pd.DataFrame, extra: str) -> tuple[float, np.ndarray]:
    """What a column adds by one repeat of `added_auc`, and what it adds 199 times shuffled: of other images."""
    wrong, _, folds = _folds(table, 1)
    rng, own = np.random.default_rng(0), table[extra]
    asked = [], [own, *(rng.permutation(own) for _ in range(199))]
    scores = np.concatenate([_out_of_fold(table, added, wrong, folds) for added in asked])
    known, with_own, *shuffled = auc(scores, np.tile(wrong, (len(scores), 1)))
    return with_own - known, np.array(shuffled) - known


def _folds(table: pd.DataFrame, repeats: int) -> tuple[np.ndarray, np.ndarray, list[list]]:
    """Which rows are wrong, the number of each row's pair, and the five folds of every repeat; checked."""
    wrong, pairs = table["wrong"].to_numpy(dtype=bool), pd.factorize(table["pair"])[0]
    if min(wrong.sum(), (~wrong).sum()) < 10:
        msg = f"ten right and ten wrong answers are the least to tell apart, got {wrong.sum()} of {len(wrong)}"
        raise GradeclipError(msg)
    if (np.bincount(pairs) != 2).any():
        raise GradeclipError("every pair needs its two rows, one an image")
    splits = (StratifiedGroupKFold(5, shuffle=True, random_state=repeat) for repeat in range(repeats))
    return wrong, pairs, [list(one.split(wrong, wrong, pairs)) for one in splits]


def _out_of_fold(table: pd.DataFrame, added: Sequence, wrong: np.ndarray, folds: list[list]) -> np.ndarray:
    """Log-odds (R, n) of being wrong, each from fits that did not see the row's pair."""
    known, cells = table[list(KNOWN)].to_numpy(float), pd.get_dummies(table["cell"]).assign(one=1.0).to_numpy(float)
    numbers = np.stack([np.column_stack([known, *one]) for one in ([[column] for column in added] or [[]])])
    found = np.zeros(numbers.shape[:2])
    for fit, rest in chain.from_iterable(folds):
        spread = numbers[:, fit].std(1, keepdims=True)
        scaled = (numbers - numbers[:, fit].mean(1, keepdims=True)) / np.where(spread > _CONSTANT, spread, 1.0)
        rows = np.concatenate([scaled, np.broadcast_to(cells, (*found.shape, cells.shape[1]))], axis=2)
        found[:, rest] += (rows[:, rest] @ logistic_weights(rows[:, fit], wrong[fit])[..., None])[..., 0]
    return found / len(folds)


def logistic_weights(rows: np.ndarray, wrong: np.ndarray, steps: int = 25) -> np.ndarray:
    """Weights (R, p) of R logistic regressions, by Newton's method; L2 with C = 1, but for the last column."""
    weights, penalty = np.zeros(rows.shape[::2]), np.append(np.ones(rows.shape[2] - 1), 0.0)
    for _ in range(steps):
        odds = expit((rows @ weights[..., None])[..., 0])
        slope = ((odds - wrong)[:, None] @ rows)[:, 0] + penalty * weights
        curve = (rows * (odds * (1 - odds))[..., None]).swapaxes(1, 2) @ rows + np.diag(penalty)
        step = np.linalg.solve(curve, slope[..., None])[..., 0]
        weights -= step
        if np.abs(step).max() < 1e-9:
            break
    return weights


def auc(scores: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Areas under ROC curves (draws,): the fraction of (wrong, right) rows that are in the right order."""
    ranks, positive = rankdata(scores, axis=1), wrong.sum(1)
    above = (ranks * wrong).sum(1) - positive * (positive + 1) / 2
    pairs = positive * (wrong.shape[1] - positive)
    return np.where(pairs > 0, above / np.where(pairs > 0, pairs, 1), np.nan)
