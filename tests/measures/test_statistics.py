"""Statistics: intervals cover the truth, and tests reject, as often as they say."""

import doctest
import sys
from itertools import product

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import kstest, norm, t
from statsmodels.stats.multitest import multipletests

from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.measures.statistics import (
    group_means,
    interpret_interval,
    mean_interval,
    paired_differences,
)


def table(values: dict) -> pd.DataFrame:
    """Rows of an image and a method each, from the values of each method."""
    parts = []
    for name, scores in values.items():
        rows = {"method": name, "image": range(len(scores)), "score": scores}
        parts.append(pd.DataFrame(rows))
    return pd.concat(parts, ignore_index=True)


def expanded(clusters):
    """The percentiles of Hesterberg 2015: Student's deviations and the plain variance."""
    widened = np.sqrt(clusters / (clusters - 1))
    deviations = t.ppf(0.975, clusters - 1) * widened
    return norm.cdf([-deviations, deviations])


@pytest.mark.parametrize("name", ["statistics", "localisation", "faithfulness"])
def test_the_examples_in_the_docstrings_hold(name):
    module = sys.modules[f"gradeclip_utils.measures.{name}"]
    assert doctest.testmod(module).failed == 0


def test_an_interval_is_the_textbook_bootstrap_written_plainly():
    values = np.random.default_rng(1).exponential(size=40)
    samples = np.random.default_rng(0).choice(values, (4000, 40))
    expected = np.quantile(samples.mean(axis=1), expanded(40))
    assert_allclose(mean_interval(values), expected)


@pytest.mark.parametrize(
    ("n", "covers"),
    [
        (3, 0.74),
        (12, 0.95),
    ],
)
def test_intervals_cover_the_true_mean_about_as_often_as_they_say(n, covers):
    rng = np.random.default_rng(3)
    trials = 150
    covering = 0
    for _ in range(trials):
        low, high = mean_interval(rng.normal(size=n))
        covering += low < 0 < high
    deviation = np.sqrt(covers * (1 - covers) / trials)
    assert abs(covering / trials - covers) < 3 * deviation


def test_a_clustered_interval_takes_its_mean_over_all_values_of_the_clusters_drawn():
    clusters = [[0.1, 0.9, 0.3], [2.0], [0.5, 0.7]]  # of different sizes
    draws = np.random.default_rng(0).integers(0, 3, (4000, 3))
    means = []
    for draw in draws:
        values = np.concatenate([clusters[k] for k in draw])
        means.append(values.mean())
    expected = np.quantile(means, expanded(3))

    bounds = mean_interval(np.concatenate(clusters), list("aaabcc"))
    assert_allclose(bounds, expected, atol=1e-12)


def assert_wilson(bounds, proportion, n):
    """Wilson's bounds lie 1.96 of their own standard errors from the observed proportion."""
    for p in bounds:
        error = (p * (1 - p) / n) ** 0.5
        assert abs(p - proportion) == pytest.approx(1.959964 * error, abs=1e-6)


@pytest.mark.parametrize(
    ("right", "of"),
    [
        (0, 5),
        (3, 40),
        (20, 20),
    ],
)
def test_the_interval_of_a_proportion_holds_those_whose_score_test_does_not_reject(right, of):
    answers = np.arange(of) < right
    assert_wilson(mean_interval(answers, kind="proportion"), right / of, of)


def test_an_interval_of_a_proportion_counts_a_cluster_as_one_answer_and_all_right_is_no_wider():
    """Fifty clusters of two answers: the more are right, the narrower is the interval."""
    clusters = np.arange(100) // 2
    widths = []
    for wrong in (0, 1, 2, 10):
        right = np.arange(100) >= wrong
        bounds = mean_interval(right, clusters, kind="proportion")
        widths.append(np.ptp(bounds))
        assert_wilson(bounds[bounds < 1], right.mean(), 50)
    assert widths == sorted(widths)
    assert np.ptp(mean_interval(np.ones(100))) == 0  # of a mean


@pytest.mark.slow
def test_of_ten_thousand_values_the_interval_is_the_textbook_normal_one():
    values = np.random.default_rng(0).exponential(size=10_000)
    width = np.ptp(mean_interval(values))
    standard_error = values.std() / 100
    assert width == pytest.approx(2 * 1.96 * standard_error, rel=0.03)

    pairs = np.arange(10_000) // 2  # 5,000 clusters: the bootstrap
    width_of_pairs = np.ptp(mean_interval(values, pairs))
    assert width_of_pairs == pytest.approx(width, rel=0.1)


def test_p_values_of_a_thousand_pairs_are_those_of_sign_flips():
    rng = np.random.default_rng(2)
    base = rng.normal(size=1000)
    sizes = rng.exponential(size=1000)
    differences = sizes * rng.choice([-1, 1], 1000)
    rows = table({"grad-eclip": base, "other": base + differences})
    (p,) = paired_differences(rows, "score")["p"]

    signs = rng.choice([-1, 1], (1000, 4000))
    sums = differences @ signs
    is_further = np.abs(sums) >= abs(differences.sum())
    assert p == pytest.approx(is_further.mean(), abs=0.03)


def test_a_summary_has_one_row_a_group_with_the_interval_of_its_units():
    values = [0.1, 0.2, 0.6]
    rows = table({"a": values, "b": [0.5, 0.5, 0.5]})
    means = group_means(rows, "score")
    assert list(means.columns) == ["method", "mean", "low", "high", "n"]
    first, second = means.itertuples(index=False)
    assert first == pytest.approx(("a", 0.3, *mean_interval(values), 3))
    assert second == pytest.approx(("b", 0.5, 0.5, 0.5, 3))


def test_a_group_of_one_keeps_its_mean_and_says_that_it_has_no_interval():
    rows = table({"a": [0.3]})
    with pytest.warns(UserWarning, match="no interval for a: .* at least two values, got 1"):
        (row,) = group_means(rows, "score").itertuples()
    assert row.mean == 0.3
    assert np.isnan([row.low, row.high]).all()


def test_a_paired_difference_sees_what_the_separate_intervals_cannot():
    rng = np.random.default_rng(0)
    images = rng.normal(size=40)  # some images are easy for every method
    noise = 0.05 * rng.normal(size=40)
    ahead = images + 0.1 + noise
    rows = table({"grad-eclip": images, "other": ahead})

    means = group_means(rows, "score")
    assert means["low"].max() < means["high"].min()  # the intervals overlap
    (row,) = paired_differences(rows, "score").itertuples()
    assert 0 < row.low < row.difference < row.high
    assert row.difference == pytest.approx(np.diff(means["mean"])[0])
    assert row.p < 0.001


def test_p_values_of_few_pairs_count_every_pattern_of_signs():
    rng = np.random.default_rng(1)
    base = rng.normal(size=8)
    differences = rng.normal(0.25, 1, (2, 8))
    first, second = base + differences
    rows = table({"grad-eclip": base, "a": first, "b": second})

    signs = np.array(list(product((-1, 1), repeat=8)))
    expected = []
    for difference in differences:
        sums = np.abs(signs @ difference)
        is_further = sums >= abs(difference.sum()) - 1e-12
        expected.append(is_further.mean())
    p_values = paired_differences(rows, "score")["p"]
    assert_allclose(p_values, expected)


def test_p_values_are_uniform_where_nothing_differs_and_small_where_something_does():
    rng = np.random.default_rng(2)
    base = rng.normal(size=20)
    values = {"grad-eclip": base}
    for i in range(80):
        values[f"m{i}"] = base + rng.normal(size=20)
    noise = 0.1 * rng.normal(size=20)
    values["ahead"] = base + 1 + noise
    differences = paired_differences(table(values), "score")
    differences = differences.set_index("method")

    null = differences["p"].drop("ahead")
    assert kstest(null, "uniform").pvalue > 0.01
    assert differences.loc["ahead", "p"] <= 0.0002
    assert differences.loc["ahead", "p_holm"] < 0.05


def test_holms_correction_is_statsmodels_own():
    rng = np.random.default_rng(0)
    base = rng.normal(size=25)
    values = {"grad-eclip": base}
    for i in range(5):
        differences = rng.normal(i / 5, 1, 25)
        values[f"m{i}"] = base + differences
    differences = paired_differences(table(values), "score")
    _, expected, *_ = multipletests(differences["p"], method="holm")
    assert_array_equal(differences["p_holm"], expected)


def test_a_method_that_equals_the_baseline_has_no_difference_and_p_one():
    for count in (6, 40, 10_000):
        values = np.arange(count) / 7
        rows = table({"grad-eclip": values, "same": values})
        (row,) = paired_differences(rows, "score").itertuples()
        assert (row.difference, row.low, row.high) == (0, 0, 0)
        assert (row.p, row.p_holm) == (1, 1)


@pytest.mark.parametrize(
    ("low", "high", "options", "answer"),
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
def test_an_answer_follows_from_interval_and_margin_alone(low, high, options, answer):
    assert interpret_interval(low, high, **options) == answer


def test_a_mean_does_not_lie_beyond_its_bounds_by_rounding():
    """Two ways to add the same values differ in their last digit."""
    rows = pd.DataFrame(
        {
            "image": np.tile(np.arange(10), 2),
            "method": np.repeat(["a", "b"], 10),
            "hit": np.repeat([0.7, 0.95], 10),
        }
    )
    for row in group_means(rows, "hit", by="method", unit="image").itertuples():
        assert row.low <= row.mean <= row.high
        assert row.low == pytest.approx(row.high)


ROWS = table({"grad-eclip": np.arange(8), "b": np.ones(8)})
REFUSED = {
    "NaN": (
        lambda: mean_interval([0.1, np.nan]),
        "a list of finite numbers",
    ),
    "one cluster": (
        lambda: mean_interval([0.1, 0.2], ["a", "a"]),
        "one of 2 values",
    ),
    "scores": (
        lambda: mean_interval([0.1, 1], kind="proportion"),
        "values 0 and 1, and .5 for a tie",
    ),
    "NaN in a table": (
        lambda: group_means(ROWS.assign(score=np.nan), "score"),
        "16 of 16 values of 'score' are NaN or infinite, as at method=grad-eclip, image=0",
    ),
    "a column that is not there": (
        lambda: paired_differences(ROWS, "scores"),
        "there is no column 'scores': did you mean score",
    ),
    "clusters that are not there": (
        lambda: group_means(ROWS, "score", cluster="concept"),
        "there is no column 'concept'",
    ),
    "an image in two clusters": (
        lambda: paired_differences(ROWS.assign(by=ROWS["method"]), "score", cluster="by"),
        "image = 0 belongs to 2 clusters",
    ),
    "half a pair": (
        lambda: paired_differences(ROWS[:-1], "score"),
        "1 images lack a method, such as 7",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_conclusion_that_the_numbers_do_not_allow_is_refused(name):
    conclude, message = REFUSED[name]
    with pytest.raises(GradeclipError, match=message):
        conclude()
