"""Mistakes: can it be told from outside when a model gives the wrong caption?

    answers, binding index, appearance -> one row an image -> nested logistic regressions -> added ROC-AUC

Whoever knows which of two similarities belongs to the right caption knows the answer. So what is known anyway are the
higher and the lower of the two, and how large and how visible the objects are; the question is what the binding index
adds to that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ...errors import InvalidValue
from ...evaluation.attributes import Pair
from ...scenes import CANVAS, Scene
from .binding_index import METHODS

KNOWN = ("similarity higher", "similarity lower", "size", "contrast with background")  # without any explanation
_BASE = [*KNOWN, "cell"]


def appearance(scene: Scene, asked: Sequence[int]) -> tuple[float, float]:
    """Size and contrast of some objects of a scene, on average.

    Args:
        scene: has the objects.
        asked: their numbers; others of the same noun count with them.

    Returns:
        The fraction of the image that one of them covers, and the distance of its mean colour from the background's,
        as sRGB in 0 to 1 (the most is the square root of 3).
    """
    pixels, masks = np.asarray(scene.image(CANVAS)) / 255, scene.masks(CANVAS)
    ground = pixels[~masks.any(0)].mean(0)
    nouns = {scene.objects[i].noun for i in asked}
    own = [k for k, thing in enumerate(scene.objects) if thing.noun in nouns]
    return float(masks[own].mean()), float(np.mean([np.linalg.norm(pixels[masks[k]].mean(0) - ground) for k in own]))


def mistake_table(rows: pd.DataFrame, index: pd.DataFrame, pairs: Sequence[Pair]) -> pd.DataFrame:
    """What could tell a wrong answer from a right one: one row an image, for `added_auc`.

    Args:
        rows: of `attributes.judge`, for all of `pairs` at least.
        index: of `binding_index`, for all of `pairs`.
        pairs: whose images are the rows.

    Returns:
        Columns: pair, side, kind, objects, `cell` (kind and number of objects), `wrong`; `similarity higher` and
        `similarity lower`, those of the two captions without saying which caption is right, because with it they *are*
        the answer; `size` and `contrast with background` of the objects asked; and for every method the mean index of
        the attribute words of the caption that the model chose (`chosen: ...`), which whoever does not know the answer
        can see as well, and of the right caption (`right: ...`).
    """
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
    """How much better are wrong answers told from right ones with `extra` than with what is known anyway (`KNOWN`)?

    Two nested logistic regressions (standardised, L2 with C = 1), each predicting every row from folds that it was not
    fitted on: five folds, `repeats` times, both images of a pair always in the same fold; the predictions of the
    repeats are averaged. The interval of the difference of the two areas under the ROC curve is a 95 % bootstrap
    interval over pairs, drawn anew with the predictions as they are (it does not include how the fits would vary).

    Args:
        table: rows of `mistake_table`.
        extra: a column.
        draws: bootstrap samples.
        repeats: of the five folds.

    Returns:
        `base`, `full`, `added`, `low`, `high`, and the numbers of rows `n` and of `wrong` ones.

    Raises:
        ValueError: fewer than ten wrong or right answers, or not two rows a pair.
    """
    wrong, pairs, folds = _folds(table, repeats)
    scores = [_out_of_fold(table, columns, wrong, folds) for columns in (_BASE, [*_BASE, extra])]
    areas = [float(auc(score[None], wrong[None])[0]) for score in scores]
    members = np.argsort(pairs, kind="stable").reshape(-1, 2)
    drawn = np.random.default_rng(0).integers(0, len(members), (draws, len(members)))
    rows = members[drawn].reshape(draws, -1)
    differences = auc(scores[1][rows], wrong[rows]) - auc(scores[0][rows], wrong[rows])
    low, high = np.nanquantile(differences, [0.025, 0.975])
    counts = {"n": len(wrong), "wrong": int(wrong.sum())}
    return {"base": areas[0], "full": areas[1], "added": areas[1] - areas[0], "low": low, "high": high, **counts}


def beside_shuffled(table: pd.DataFrame, extra: str) -> tuple[float, np.ndarray]:
    """What a column adds by one repeat of `added_auc`, and what it adds 199 times shuffled: of other images.

    Args:
        table: rows of `mistake_table`.
        extra: the column.

    Raises:
        ValueError: as `added_auc`.
    """
    wrong, _, folds = _folds(table, 1)

    def _area(columns: Sequence[str], values: pd.Series) -> float:
        """Under the ROC curve of fits with these columns, of which `own` has these values."""
        return float(auc(_out_of_fold(table.assign(own=values), columns, wrong, folds)[None], wrong[None])[0])

    rng, own = np.random.default_rng(0), table[extra]
    known, shuffled = _area(_BASE, own), [rng.permutation(own) for _ in range(199)]
    return _area([*_BASE, "own"], own) - known, np.array([_area([*_BASE, "own"], one) - known for one in shuffled])


def _folds(table: pd.DataFrame, repeats: int) -> tuple[np.ndarray, np.ndarray, list[list]]:
    """Which rows are wrong, the number of each row's pair, and the five folds of every repeat; checked."""
    wrong, pairs = table["wrong"].to_numpy(dtype=bool), pd.factorize(table["pair"])[0]
    if min(wrong.sum(), (~wrong).sum()) < 10:
        msg = f"ten right and ten wrong answers are the least to tell apart, got {wrong.sum()} of {len(wrong)}"
        raise InvalidValue(msg, "data-few")
    if (np.bincount(pairs) != 2).any():
        raise InvalidValue("every pair needs its two rows, one an image", "data-pairs")
    splits = (StratifiedGroupKFold(5, shuffle=True, random_state=repeat) for repeat in range(repeats))
    return wrong, pairs, [list(one.split(wrong, wrong, pairs)) for one in splits]


def _out_of_fold(table: pd.DataFrame, columns: Sequence[str], wrong: np.ndarray, folds: list[list]) -> np.ndarray:
    """Log-odds (n,) of being wrong, each from fits that did not see the row's pair."""
    numbers = [name for name in columns if table[name].dtype.kind in "fiub"]
    named = pd.get_dummies(table[[name for name in columns if name not in numbers]])
    scaled = make_column_transformer((StandardScaler(), slice(len(numbers))), remainder="passthrough")
    model, rows = make_pipeline(scaled, LogisticRegression(max_iter=1000)), np.column_stack([table[numbers], named])
    found = [cross_val_predict(model, rows.astype(float), wrong, cv=one, method="decision_function") for one in folds]
    return np.mean(found, axis=0)


def auc(scores: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Areas under ROC curves (draws,): the fraction of (wrong, right) rows that are in the right order.

    Args:
        scores: (draws, n), higher where a row is taken for wrong.
        wrong: (draws, n) bool; a draw without both kinds gives NaN.
    """
    ranks, positive = rankdata(scores, axis=1), wrong.sum(1)
    above = (ranks * wrong).sum(1) - positive * (positive + 1) / 2
    pairs = positive * (wrong.shape[1] - positive)
    return np.where(pairs > 0, above / np.where(pairs > 0, pairs, 1), np.nan)
