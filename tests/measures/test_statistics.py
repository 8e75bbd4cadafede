"""Statistics: intervals cover what they should, tests reject as often as they may, and nothing is silently left out."""

import doctest
import sys
import time
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import kstest, norm, t
from statsmodels.stats.multitest import multipletests

from gradeclip_utils.measures.statistics import (
    _sign_flip_p,
    group_means,
    interpret_interval,
    mean_interval,
    paired_differences,
)


def table(values: dict, **columns) -> pd.DataFrame:
    """Rows of a image and a method each, from the values of each method."""
    parts = [
        pd.DataFrame({"method": name, "image": range(len(row)), "score": row, **columns})
        for name, row in values.items()
    ]
    return pd.concat(parts, ignore_index=True)


def expanded(clusters):
    """The percentiles of Hesterberg 2015: those of a normal with Student's deviations and the plain variance."""
    deviations = t.ppf(0.975, clusters - 1) * np.sqrt(clusters / (clusters - 1))
    return norm.cdf([-deviations, deviations])


@pytest.mark.parametrize("name", ["statistics", "localisation", "sanity", "faithfulness"])
def test_the_examples_in_the_docstrings_hold(name):
    assert doctest.testmod(sys.modules[f"gradeclip_utils.measures.{name}"]).failed == 0


def test_an_interval_is_the_textbook_bootstrap_written_plainly():
    values = np.random.default_rng(1).exponential(size=40)
    means = np.random.default_rng(0).choice(values, (4000, 40)).mean(axis=1)
    np.testing.assert_allclose(mean_interval(values), np.quantile(means, expanded(40)))


@pytest.mark.parametrize(("n", "covers"), [(3, 0.74), (12, 0.95)])
def test_intervals_cover_the_true_mean_about_as_often_as_they_say(n, covers):
    rng = np.random.default_rng(3)
    bounds = np.array([mean_interval(rng.normal(size=n)) for _ in range(150)])
    covered = ((bounds[:, 0] < 0) & (bounds[:, 1] > 0)).mean()
    assert abs(covered - covers) < 3 * np.sqrt(covers * (1 - covers) / 150)


def test_on_clustered_data_only_the_clustered_interval_covers():
    rng, labels, plain, clustered = np.random.default_rng(4), np.repeat(np.arange(25), 8), [], []
    for _ in range(40):
        values = rng.normal(size=25)[labels] + 0.3 * rng.normal(size=200)
        plain.append(mean_interval(values))
        clustered.append(mean_interval(values, labels))
    covers = [np.mean([low < 0 < high for low, high in bounds]) for bounds in (plain, clustered)]
    assert covers[0] < 0.7 and covers[1] > 0.85
    assert np.mean(np.ptp(clustered, axis=1)) > 2 * np.mean(np.ptp(plain, axis=1))


def test_a_clustered_interval_takes_its_mean_over_all_values_of_the_clusters_drawn():
    clusters = [[0.1, 0.9, 0.3], [2.0], [0.5, 0.7]]  # of different sizes
    drawn = np.random.default_rng(0).integers(0, 3, (4000, 3))
    means = [np.concatenate([clusters[k] for k in one]).mean() for one in drawn]
    found = mean_interval(np.concatenate(clusters), list("aaabcc"))
    assert np.array_equal(
        found, mean_interval(np.concatenate(clusters), torch.tensor([0, 0, 0, 1, 2, 2]))
    )
    np.testing.assert_allclose(found, np.quantile(means, expanded(3)), atol=1e-12)


@pytest.mark.parametrize(("right", "of"), [(0, 5), (3, 40), (20, 20)])
def test_the_interval_of_a_proportion_holds_those_whose_score_test_does_not_reject(right, of):
    """Wilson's bounds are the proportions p that lie 1.96 of their own standard errors from the one that was seen."""
    for p in mean_interval([True] * right + [False] * (of - right), kind="proportion"):
        error = (p * (1 - p) / of) ** 0.5
        assert abs(p - right / of) == pytest.approx(1.959964 * error, abs=1e-6)


def test_proportions_of_clusters_use_the_bootstrap_unless_all_answers_are_alike():
    labels, every, mixed = np.arange(30) // 3, np.ones(30), np.repeat([1.0, 0.0], 15)
    np.testing.assert_allclose(
        mean_interval(every, labels, kind="proportion"),
        mean_interval(every[:10], kind="proportion"),
    )
    assert (
        np.ptp(mean_interval(every)) == 0 < np.ptp(mean_interval(every, kind="proportion"))
    )  # which has to be asked for
    np.testing.assert_allclose(
        mean_interval(mixed, labels, kind="proportion"), mean_interval(mixed, labels)
    )


@pytest.mark.slow
def test_many_values_have_an_interval_and_a_p_value_in_a_second_as_resampling_gives_them():
    values = np.random.default_rng(0).exponential(size=10_000)
    labels = np.random.default_rng(1).integers(0, 5_000, 10_000)
    exact = mean_interval(values), mean_interval(values, np.arange(10_000) // 2)
    assert np.ptp(exact[0]) == pytest.approx(2 * 1.96 * values.std() / 100, rel=0.03)
    assert np.ptp(exact[1]) == pytest.approx(np.ptp(exact[0]), rel=0.1)
    start = time.perf_counter()
    mean_interval(np.random.default_rng(0).random(10**6))
    assert time.perf_counter() - start < 5
    assert np.isfinite(mean_interval(values, labels)).all()
    signed = values[None] * np.random.default_rng(2).choice([-1, 1], 10_000)
    assert _sign_flip_p(signed) == pytest.approx(_sign_flip_p(signed[:, 1:]), abs=0.03)


def test_a_summary_has_one_row_a_group_with_the_interval_of_its_units():
    rows = table({"a": [0.1, 0.2, 0.6], "b": [0.5, 0.5, 0.5]})
    got = group_means(rows, "score")
    assert list(got.columns) == ["method", "mean", "low", "high", "n"]
    assert got["method"].tolist() == ["a", "b"] and got["n"].tolist() == [3, 3]
    np.testing.assert_allclose(
        got.loc[0, ["low", "high"]].astype(float), mean_interval([0.1, 0.2, 0.6])
    )
    np.testing.assert_allclose(got.loc[1, ["mean", "low", "high"]].astype(float), 0.5)


def test_a_group_of_one_keeps_its_mean_and_says_that_it_has_no_interval():
    with pytest.warns(
        UserWarning, match="no interval for a: resampling needs at least two values, got 1"
    ):
        got = group_means(table({"a": [0.3]}), "score")
    assert got["mean"][0] == 0.3 and got[["low", "high"]].isna().all(axis=None)


def test_a_paired_difference_sees_what_the_separate_intervals_cannot():
    rng = np.random.default_rng(0)
    images = rng.normal(size=40)  # some images are easy for every method
    rows = table({"grad-eclip": images, "other": images + 0.1 + 0.05 * rng.normal(size=40)})
    apart = group_means(rows, "score")
    together = paired_differences(rows, "score").iloc[0]
    assert apart["low"].max() < apart["high"].min()  # the intervals overlap
    assert 0 < together["low"] < together["difference"] < together["high"]
    np.testing.assert_allclose(together["difference"], np.diff(apart["mean"])[0])
    assert together["p"] < 0.001


def test_p_values_of_few_pairs_count_every_pattern_of_signs():
    rng = np.random.default_rng(1)
    base, others = rng.normal(size=8), rng.normal(0.25, 1, (2, 8))
    got = paired_differences(
        table({"grad-eclip": base, "a": base + others[0], "b": base + others[1]}), "score"
    )
    signs = np.array(list(product((-1, 1), repeat=8)))
    expected = [(np.abs(signs @ one) >= abs(one.sum()) - 1e-12).mean() for one in others]
    np.testing.assert_allclose(got["p"], expected)


def test_p_values_are_uniform_where_nothing_differs_and_small_where_something_does():
    rng = np.random.default_rng(2)
    base = rng.normal(size=20)
    values = {f"m{i}": base + rng.normal(size=20) for i in range(80)}
    got = paired_differences(
        table({"grad-eclip": base, **values, "ahead": base + 1 + 0.1 * rng.normal(size=20)}),
        "score",
    )
    null = got["p"][:80]
    assert kstest(null, "uniform").pvalue > 0.01 and (null < 0.05).mean() < 0.12
    assert got["p"].iloc[-1] <= 0.0002 and got["p_holm"].iloc[-1] < 0.05


def test_holms_correction_is_monotone_and_is_statsmodels_own():
    rng = np.random.default_rng(0)
    base = rng.normal(size=25)
    got = paired_differences(
        table({"grad-eclip": base, **{f"m{i}": base + rng.normal(i / 5, 1, 25) for i in range(5)}}),
        "score",
    )
    np.testing.assert_array_equal(got["p_holm"], multipletests(got["p"], method="holm")[1])
    ordered = got.sort_values("p")
    assert ordered["p_holm"].is_monotonic_increasing and (got["p_holm"] >= got["p"]).all()


def test_a_method_that_equals_the_baseline_has_no_difference_and_p_one():
    for count in (6, 40, 10_000):
        got = paired_differences(
            table({"grad-eclip": np.arange(count) / 7, "same": np.arange(count) / 7}), "score"
        ).iloc[0]
        assert (got["difference"], got["low"], got["high"], got["p"], got["p_holm"]) == (
            0,
            0,
            0,
            1,
            1,
        )


@pytest.mark.parametrize(
    ("low", "high", "options", "found"),
    [
        (0.01, 0.5, {}, "higher"),
        (-0.30, -0.12, {"margin": 0.2}, "lower"),
        (-0.02, 0.01, {}, "undecided"),
        (0.01, 0.02, {"margin": 0.02}, "about equal"),
        (0.51, 0.6, {"than": 0.5}, "higher"),
        (0.49, 0.52, {"than": 0.5, "margin": 0.02}, "about equal"),
        (-0.3, 0.3, {"margin": 0.02}, "undecided"),
        (0.0, 0.0, {}, "about equal"),
    ],
)
def test_an_answer_follows_from_interval_and_margin_alone(low, high, options, found):
    assert interpret_interval(low, high, **options) == found


def test_a_mean_does_not_lie_beyond_its_bounds_by_rounding():
    """Error bars of a negative length are refused, and two ways to add the same values differ in their last digit."""
    rows = pd.DataFrame(
        {
            "image": [*range(10)] * 2,
            "method": ["a"] * 10 + ["b"] * 10,
            "hit": [0.7] * 10 + [0.95] * 10,
        }
    )
    for one in group_means(rows, "hit", by="method", unit="image").itertuples():
        assert one.low <= one.mean <= one.high == pytest.approx(one.low)
