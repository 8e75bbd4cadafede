"""Mistakes: what foretells a wrong answer, and no figure comes out better than it is."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from gradeclip_utils.scenes import Object, arrange
from studies.binding.binding_index import binding_index
from studies.binding.mistakes import (
    KNOWN,
    added_auc,
    appearance,
    auc,
    beside_shuffled,
    logistic_weights,
    mistake_table,
)
from studies.pairs import draw_pairs, judge

FEW = 16  # concepts: what these tests draw


def drawn(kind, n=3, **options):
    return draw_pairs(kind, n, nouns=FEW, **options)


def made_up(n=200, signal=0.0, seed=0):
    """Rows as `mistake_table` gives them: `similarity lower` tells errors a little, `chosen: contrast` by `signal`."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(2 * n) < 0.3
    table = pd.DataFrame({name: rng.normal(size=2 * n) for name in KNOWN})
    table["similarity lower"] += wrong
    return table.assign(
        pair=np.repeat(np.arange(n), 2).astype(str), cell=rng.choice(["a", "b"], 2 * n), wrong=wrong,
        **{"chosen: contrast": rng.normal(size=2 * n) - signal * wrong},
    )  # fmt: skip


def test_an_index_that_knows_adds_and_one_that_does_not_adds_nothing():
    knows, blind = (added_auc(made_up(signal=s), "chosen: contrast", repeats=1, draws=500) for s in (2.0, 0.0))
    assert knows["low"] > 0.05 and knows["full"] > knows["base"]
    assert blind["low"] < 0 < blind["high"] + 0.01 and abs(blind["added"]) < 0.03


def test_an_index_that_knows_is_ahead_of_all_that_belong_to_other_images_and_one_that_does_not_is_among_them():
    (knows, others), (blind, as_blind) = (beside_shuffled(made_up(signal=s), "chosen: contrast") for s in (2.0, 0.0))
    assert len(others) == 199 and knows > 0.05 > others.max()
    assert as_blind.min() - 0.01 < blind < as_blind.max() + 0.01


def test_the_same_column_twice_adds_nothing():
    table = made_up().assign(again=lambda rows: rows["similarity lower"])
    told = added_auc(table, "again", repeats=1, draws=100)
    assert abs(told["added"]) < 0.01


def test_the_areas_are_those_of_scikit_learn():
    rng = np.random.default_rng(1)
    scores, wrong = rng.integers(0, 5, (1, 60)).astype(float), rng.random((1, 60)) < 0.4
    assert auc(scores, wrong)[0] == pytest.approx(roc_auc_score(wrong[0], scores[0]))


def test_regressions_are_those_of_scikit_learn_one_by_one():
    rng = np.random.default_rng(3)
    rows, wrong = rng.normal(size=(4, 90, 3)), rng.random(90) < 0.3
    rows[2] *= 0  # nothing but the intercept
    found = logistic_weights(np.concatenate([rows, np.ones((4, 90, 1))], 2), wrong)
    for one, weights in zip(rows, found, strict=True):
        fitted = LogisticRegression(tol=1e-8).fit(one, wrong)
        assert weights == pytest.approx([*fitted.coef_[0], fitted.intercept_[0]], abs=1e-4)


def test_a_column_that_is_one_number_tells_nothing():
    table = made_up().assign(same=0.1 + 0.2)
    told = added_auc(table, "same", repeats=1, draws=100)
    assert told["added"] == told["low"] == told["high"] == 0


def test_too_few_mistakes_are_refused():
    with pytest.raises(ValueError, match="ten right and ten wrong"):
        added_auc(made_up(4), "chosen: contrast")


def test_trials_show_what_whoever_does_not_know_the_answer_can_see(bundled_shape):
    pairs = drawn("colour", 2)
    answers = judge(bundled_shape, pairs)
    index = binding_index(bundled_shape, pairs)
    table = mistake_table(answers, index, pairs)
    means = index.groupby(["pair", "side", "role", "method"])["index"].mean()
    for row in table.to_dict("records"):
        own = answers[(answers["pair"] == row["pair"]) & (answers["side"] == row["side"])].iloc[0]
        assert row["similarity higher"] >= row["similarity lower"]
        assert row["wrong"] == (own["margin"] <= 0)
        role = "wrong" if row["wrong"] else "right"
        assert row["chosen: contrast"] == means[row["pair"], row["side"], role, "contrast"]


def test_appearance_measures_the_objects_that_are_asked():
    small, big = Object("dog", "openmoji", "red", 24, 48, 26), Object("cat", "openmoji", "red", 72, 48, 46)
    scene = arrange([small, big])
    assert appearance(scene, [0])[0] < appearance(scene, [0, 1])[0] < appearance(scene, [1])[0]
    assert 0 < appearance(scene, [0])[1] < 3**0.5
