"""Takeaways: whatever was judged is said, in an order that nobody chooses."""

import doctest
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from gradeclip_utils.measures.statistics import interval, paired
from studies import verdicts
from studies.verdicts import Takeaways, Verdict

WHY = "two points in a hundred change nothing here"


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(verdicts).failed == 0


@pytest.mark.parametrize(
    ("low", "high", "margin", "answer"),
    [
        (0.03, 0.08, 0.02, "for"),
        (-0.08, -0.03, 0.02, "against"),
        (-0.01, 0.015, 0.02, "equivalent"),
        (0.005, 0.015, 0.02, "equivalent"),
        (-0.03, 0.015, 0.02, "cannot tell"),
        (-0.01, 0.3, 0.0, "cannot tell"),
        (0.001, 0.3, 0.0, "for"),
        (0.0, 0.0, 0.0, "cannot tell"),
    ],
)
def test_the_answer_follows_from_interval_and_margin_alone(low, high, margin, answer):
    assert Verdict("A is above B", (low + high) / 2, low, high, 40, margin, WHY if margin else "").answer == answer


def test_nothing_is_equivalent_without_a_margin_and_no_margin_goes_without_a_reason():
    assert Verdict("A is above B", 0.0, -1e-9, 1e-9, 10**6).answer == "cannot tell"
    with pytest.raises(ValueError, match="say why 0.02 is the smallest difference that matters in 'A is above B'"):
        Verdict("A is above B", 0.0, -0.01, 0.01, 40, 0.02)
    with pytest.raises(ValueError, match="a margin needs its reason"):
        Takeaways(margin=0.02).judge("A is above B", [0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="from low to high"):
        Verdict("A is above B", 0.0, 0.1, -0.1, 40)


def test_equivalence_is_two_one_sided_tests():
    """Re-derived: with normal values the 95 % interval lies within the margin when both t tests reject at 2.5 %."""
    from scipy.stats import t, ttest_1samp

    rng, margin, found = np.random.default_rng(0), 0.5, set()
    for _ in range(60):
        values = rng.normal(0.2, 1, 60)
        error = t.ppf(0.975, 59) * values.std(ddof=1) / 60**0.5
        one = Verdict("A", values.mean(), values.mean() - error, values.mean() + error, 60, margin, WHY)
        p = (
            ttest_1samp(values, -margin, alternative="greater").pvalue,
            ttest_1samp(values, margin, alternative="less").pvalue,
        )
        assert (one.answer == "equivalent") == (max(p) < 0.025)
        found.add(one.answer)
    assert len(found) > 1


def test_every_verdict_is_in_the_text_and_none_can_be_taken_out():
    takeaways, spread = Takeaways(0.02, WHY), np.linspace(-1, 1, 40)
    for mean, wide in [(0.5, 0.2), (-0.5, 0.2), (0.0, 0.002), (-0.025, 0.06), (0.025, 0.06), (0.03, 0.5)]:
        takeaways.judge(f"Something holds in a mean of {mean}", mean + wide * spread)
    text = str(takeaways)
    assert [one.answer for one in takeaways.verdicts] == ["for", "against", "equivalent", *3 * ["cannot tell"]]
    assert text.startswith("6 claims: 1 for, 1 against, 1 equivalent, 1 against but perhaps too small to matter, "
                           "1 for but perhaps too small to matter, 1 cannot tell.")  # fmt: skip
    assert all(f"- {one}" in text for one in takeaways.verdicts) and text.count("\n- ") == 6
    heads = re.findall(r"^\*\*(.+)\*\*$", takeaways.markdown, re.M)
    small = ["No, the opposite, but perhaps too small to matter", "Yes, but perhaps too small to matter"]
    assert heads == ["Yes", "No, the opposite", "No difference that matters", *small, "Cannot tell"]
    for one in takeaways.verdicts:
        bounds = f"{one.estimate:+.3f} [{one.low:+.3f}, {one.high:+.3f}], n = 40"
        assert bounds.replace("-0.000", "+0.000") in text
    assert not [name for name in dir(takeaways) if re.search("remove|drop|clear|pop|only", name)]
    shown = takeaways._repr_mimebundle_()
    assert shown["text/plain"] == shown["text/markdown"].replace("**", "") == text and "**yes**" in takeaways.markdown


def test_what_contradicts_what_is_published_comes_first_then_answer_by_answer():
    takeaways = Takeaways(0.02, WHY)
    for claim, mean, paper in [
        ("small", 0.1, ""), ("large", -0.9, ""), ("as published", 0.5, "A 2020"), ("none", 0.0, "B 2021"),
        ("turned round", -0.2, "C 2022"),
    ]:  # fmt: skip
        takeaways.judge(claim, mean + np.linspace(-0.01, 0.01, 21), published=paper)
    assert [one.claim for one in takeaways.verdicts] == ["turned round", "none", "as published", "small", "large"]
    heads = re.findall(r"^\*\*(.+)\*\*$", takeaways.markdown, re.M)
    assert heads == ["Against what is published", "Yes", "No, the opposite"]
    assert "against what is published (C 2022)" in str(takeaways) and "as published (A 2020)" in str(takeaways)


def test_the_unit_of_a_claim_does_not_move_it_within_its_answer():
    found = []
    for metres in (1, 1000):
        takeaways = Takeaways()
        takeaways.add("The road is longer", 2.0 * metres, 1.95 * metres, 2.05 * metres, 9)
        takeaways.add("Fractions are larger", 0.3, 0.1, 0.5, 9)
        takeaways.add("Correlations are larger", 0.2, 0.19, 0.21, 9)
        found.append([one.claim for one in takeaways.verdicts])
    assert found == 2 * [["The road is longer", "Correlations are larger", "Fractions are larger"]]


def test_a_loss_that_may_be_smaller_than_the_margin_is_still_called_a_loss():
    one = Verdict("It is better than before", -0.07, -0.12, -0.01, 5, 0.02, WHY, published="D 2023")
    assert one.answer == "cannot tell" and one.contradicts
    assert "**no, the opposite, but perhaps too small to matter**" in one.markdown and "**" not in str(one)


@pytest.mark.parametrize(("sign", "group"), [(1, "for"), (-1, "against")])
def test_a_direction_that_is_told_is_a_group_of_its_own_unless_the_correction_takes_it(sign, group):
    one = Verdict("It is better", 0.05 * sign, *sorted((0.01 * sign, 0.09 * sign)), 40, 0.02, WHY)
    assert one.answer == "cannot tell" and one.group == f"{group} but perhaps too small to matter"
    assert WHY in str(one)
    taken = replace(one, rejected=False)
    assert taken.group == "cannot tell" and WHY not in str(taken)
    touching = replace(one, **{"low" if sign > 0 else "high": 0.0})
    assert touching.group == "cannot tell" and "too small" not in str(touching)


def test_a_claim_that_is_judged_again_has_one_verdict():
    takeaways = Takeaways()
    takeaways.judge("A", [0.1, 0.2, 0.3])
    again = takeaways.judge("A", [-0.1, -0.2, -0.3])
    assert takeaways.verdicts == (again,) and again.answer == "against"


def test_a_mean_is_judged_by_its_interval_and_a_proportion_by_wilsons():
    values, takeaways = np.random.default_rng(0).normal(0.6, 0.1, 30), Takeaways()
    one = takeaways.judge("It finds more than chance", values, than=0.5)
    np.testing.assert_allclose([one.low, one.high], interval(values) - 0.5)
    assert one.estimate == pytest.approx(values.mean() - 0.5) and one.n == 30
    every = takeaways.judge("It knows", np.ones(30, dtype=bool), than=0.5)
    np.testing.assert_allclose([every.low, every.high], np.subtract(interval(np.ones(30)), 0.5))
    both = takeaways.judge("It knows more", np.ones(30), than=np.ones(30), margin=0.02, because=WHY)
    assert both.answer == "cannot tell"  # 30 pairs of right answers leave room for differences of .06


def test_a_number_that_has_its_interval_is_judged_as_it_is():
    takeaways = Takeaways(0.1, WHY)
    assert takeaways.add("Concrete words count more", 0.2, 0.15, 0.3, 300).answer == "for"
    assert (
        takeaways.add("Long words count more", 0.2, 0.15, 0.3, 300, margin=0.2, because="the same").answer
        == "cannot tell"
    )
    assert len(takeaways.verdicts) == 2


def test_every_row_of_a_table_is_judged_and_only_what_the_correction_leaves():
    rng = np.random.default_rng(1)
    base = rng.normal(size=20)
    others = {f"m{i}": base + rng.normal(0.45 if i else 3, 1, 20) for i in range(12)}
    rows = pd.concat(
        pd.DataFrame({"method": name, "image": range(20), "score": values})
        for name, values in {"grad-eclip": base, **others}.items()
    )
    table, takeaways = paired(rows, "score"), Takeaways()
    found = takeaways.read(table, "{method} is ahead of Grad-ECLIP")
    assert [one.claim for one in found] == [f"m{i} is ahead of Grad-ECLIP" for i in range(12)]
    assert len(takeaways.verdicts) == 12 and found[0].answer == "for"
    lone = [one.low > 0 for one in found]
    told = [one.answer == "for" for one in found]
    assert told == [low and p < 0.05 for low, p in zip(lone, table["p_holm"], strict=True)] and sum(told) < sum(lone)
    with pytest.raises(ValueError, match="two rows make the same claim"):
        takeaways.read(table, "something is ahead")
    with pytest.raises(ValueError, match="no column 'value'; it has 'method'"):
        takeaways.read(table, "{method}", value="value")


def test_without_a_comparison_it_says_so():
    assert str(Takeaways()) == "Nothing was compared."
