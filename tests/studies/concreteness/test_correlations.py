"""Correlations over words, with intervals that know of words and captions."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata, spearmanr

from gradeclip_utils.measures.statistics import spearman
from studies.concreteness.correlations import (
    Question,
    columns_of,
    correlate,
    mixed_model,
    partial,
    permutation_test,
)


def world(words=120, each=8, slope=1.0, noise=0.5, seed=0, steep=None):
    """Words with a rating x and a nuisance z, each in some captions; the value y follows x.

    Captions hold six words on average; with ``steep`` there is one for each of its numbers, by which y is multiplied.
    """
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"x": rng.normal(size=words), "z": rng.normal(size=words)})
    table.index = pd.Index([f"w{i:03d}" for i in range(words)], name="word")
    captions = words * each // 6 if steep is None else len(steep)
    rows = pd.DataFrame(
        [(caption, word) for word in table.index for caption in rng.choice(captions, each, replace=False)],
        columns=["caption", "word"],
    )
    own = rng.normal(size=words) * noise
    values = slope * table["x"].to_numpy() + own
    steep = np.ones(captions) if steep is None else np.array(steep)
    y = values[table.index.get_indexer(rows["word"])] * steep[rows["caption"]] + 0.3 * rng.normal(size=len(rows))
    table["all"], table["part"] = True, np.where(np.arange(words) % 3, "noun", "verb")
    return rows, pd.DataFrame({"y": y}, index=rows.index), table


PLAIN = Question("x", "x", "y", "all")


def test_the_estimate_is_spearmans_correlation_over_word_means():
    rows, values, table = world()
    found = correlate([PLAIN], rows, values, table, draws=50).iloc[0]
    means = values["y"].groupby(rows["word"]).mean()
    assert found.value == pytest.approx(spearmanr(table["x"], means[table.index])[0])
    assert found.low < found.value < found.high and found.n == len(table)


def test_the_interval_shrinks_with_the_number_of_words():
    widths = []
    for words in (40, 640):
        found = correlate([PLAIN], *world(words, slope=0.3), draws=200).iloc[0]
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 2.5


def test_the_interval_covers_zero_about_as_often_as_it_says_when_there_is_nothing():
    missed = 0
    for seed in range(40):
        found = correlate([PLAIN], *world(40, slope=0, seed=seed), draws=80).iloc[0]
        missed += not found.low <= 0 <= found.high
    assert missed <= 6  # 2 are expected; 7 or more have a chance below 0.5 %


def test_few_captions_that_disagree_make_the_interval_wide():
    """Every word is in all of the few captions, which disagree about the slope: more words do not help."""
    agree = correlate([PLAIN], *world(200, each=4, steep=[1, 1, 1, 1]), draws=200).iloc[0]
    disagree = correlate([PLAIN], *world(200, each=4, steep=[3, 3, -2, -2]), draws=200).iloc[0]
    assert agree.value > 0.8 and disagree.value > 0.7
    assert disagree.high - disagree.low > 5 * (agree.high - agree.low)


def test_questions_do_not_disturb_each_other():
    rows, values, table = world()
    alone = correlate([PLAIN], rows, values, table, draws=60)
    beside = correlate([PLAIN, Question("z", "z", "y", "all")], rows, values, table, draws=60)
    assert alone.iloc[0].equals(beside.iloc[0])


def test_a_difference_is_that_of_the_two_answers_and_is_paired():
    rows, values, table = world()
    table["copy"] = table["x"] + 0.05 * table["z"]
    other = Question("copy", "copy", "y", "all")
    found = correlate(
        [PLAIN, other, Question("difference", "x", "y", "all", minus=other)], rows, values, table, draws=150
    )
    difference = found.iloc[2]
    assert difference.value == pytest.approx(found.value[0] - found.value[1])
    assert difference.high - difference.low < 0.5 * (found.high[0] - found.low[0])


def test_spearman_of_many_rows_at_once_leaves_out_what_is_not_there():
    rng = np.random.default_rng(4)
    x, y, there = rng.integers(0, 9, (6, 40)).astype(float), rng.normal(size=40), rng.random((6, 40)) < 0.7
    there[4], x[5] = False, 3.0
    x[0, ~there[0]] = np.nan
    found = spearman(x, y, there)
    for row in range(4):
        some = there[row]
        assert found[row] == pytest.approx(spearmanr(x[row, some], y[some]).statistic, abs=1e-12)
    assert np.isnan(found[4:]).all()  # nothing there; all of it alike


def test_words_without_a_rating_or_in_few_captions_are_left_out_and_counted():
    rows, values, table = world()
    table.loc[table.index[:5], "x"] = np.nan
    rare = rows["word"] == table.index[10]
    some = rows.index[~rare].append(rows.index[rare][:2])
    found = correlate([PLAIN], rows.loc[some], values.loc[some], table, draws=20).iloc[0]
    assert found.n == len(table) - 6


def test_partial_correlation_takes_away_what_a_confounder_explains():
    rng = np.random.default_rng(1)
    z = rng.normal(size=800)
    x, y = z + 0.7 * rng.normal(size=800), z + 0.7 * rng.normal(size=800)
    assert spearman(x, y) > 0.5
    assert abs(partial(x, y, pd.DataFrame({"z": z}))) < 0.1


def test_partial_correlation_is_that_of_the_residuals_of_ranks():
    rng = np.random.default_rng(2)
    x, y, z = rng.normal(size=(3, 200))
    table = pd.DataFrame({"z": z, "part": rng.choice(["noun", "verb", "adjective"], 200)})
    controls = columns_of(table, ["z", "part"])
    assert list(controls) == ["z", "part_noun", "part_verb"]
    design = np.column_stack([np.ones(200), *(rankdata(controls[name]) for name in controls)])
    left = [rankdata(v) - design @ np.linalg.lstsq(design, rankdata(v), rcond=None)[0] for v in (x, y)]
    assert partial(x, y, controls) == pytest.approx(np.corrcoef(left)[0, 1])


def test_a_partial_question_is_answered_with_an_interval():
    rows, values, table = world()
    found = correlate([Question("x", "x", "y", "all", given=("z", "part"))], rows, values, table, draws=40).iloc[0]
    assert found.low < found.value < found.high and found.value > 0.5


def test_permuting_within_bins_keeps_what_bins_share():
    """x and y follow the bin and nothing else: what was found is what permuted ratings give."""
    rng = np.random.default_rng(3)
    bins = pd.Series(rng.integers(0, 5, 400))
    x, y = bins + 0.1 * rng.normal(size=400), bins + 0.1 * rng.normal(size=400)
    found = permutation_test(x, y, bins)
    assert found.observed > 0.9 and abs(found.observed - found.expected) < 0.03 and found.p > 0.01


def test_permuting_within_bins_finds_what_bins_do_not_explain():
    rng = np.random.default_rng(4)
    x = rng.normal(size=300)
    found = permutation_test(pd.Series(x), pd.Series(x + rng.normal(size=300)), pd.Series(np.arange(300) % 4))
    assert found.p == pytest.approx(1 / 2001) and abs(found.expected) < 0.03


def test_permuting_needs_bins_of_two_or_more():
    with pytest.raises(ValueError, match="each of the 3 bins holds a single word"):
        permutation_test(pd.Series([1.0, 2, 3]), pd.Series([1.0, 2, 3]), pd.Series(["a", "b", "c"]))


def test_the_mixed_model_finds_the_slope_and_ignores_what_a_caption_does_to_all_its_words():
    rows, values, table = world(slope=0.8, noise=0.3, seed=3)
    shift = np.random.default_rng(5).normal(size=rows["caption"].max() + 1) * 10
    for y in (values["y"], values["y"] + shift[rows["caption"]]):
        found = mixed_model(rows, y, table, "x", ["z", "part"], "all")
        expected = 0.8 * table["x"].std() * (1 - 1 / 6)  # a sixth goes away with the caption's mean
        assert found.converged and found.low < expected < found.high and found.low > 0.5 * expected
    together = rows.groupby("caption")["word"].transform("size") > 1  # a word alone has no mean to be taken from
    assert found.words == 120 and found.occurrences == together.sum()


def test_the_mixed_model_does_not_take_occurrences_for_words():
    """Words differ for reasons of their own; saying each of them more often must not narrow the interval much."""
    few = mixed_model(*unpacked(world(60, each=4, slope=0, noise=1.0)), "x", [], "all")
    many = mixed_model(*unpacked(world(60, each=32, slope=0, noise=1.0)), "x", [], "all")
    assert many.high - many.low > 0.7 * (few.high - few.low)


def test_a_mixed_model_that_does_not_converge_gives_no_slope(monkeypatch):
    from statsmodels.regression.mixed_linear_model import MixedLM

    fit = MixedLM.fit

    def unconverged(self, *arguments, **options):
        found = fit(self, *arguments, **options)
        found.converged = False
        return found

    monkeypatch.setattr(MixedLM, "fit", unconverged)
    found = mixed_model(*unpacked(world()), "x", [], "all")
    assert not found.converged and np.isnan([found.estimate, found.low, found.high]).all()


def unpacked(made):
    rows, values, table = made
    return rows, values["y"], table


def test_questions_that_cannot_be_answered_are_refused():
    rows, values, table = world(12)
    with pytest.raises(ValueError, match="the table has no column 'length'; it has "):
        correlate([Question("odd", "length", "y", "all")], rows, values, table)
    table["few"] = table.index < "w005"
    with pytest.raises(ValueError, match="'x' has 5 words; a correlation over words needs ten"):
        correlate([Question("x", "x", "y", "few")], rows, values, table)
    with pytest.raises(ValueError, match="needs ten or more, got 5"):
        mixed_model(rows, values["y"], table, "x", [], "few")
    with pytest.raises(ValueError, match="same occurrences"):
        correlate([PLAIN], rows.iloc[1:], values, table)
