"""Numbers: statistics and measures of maps that are asked for what has no meaning."""

import numpy as np
import pandas as pd
import pytest

from gradeclip_utils.checks import between, finite, number, whole
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.evaluation.attributes import draw_pairs
from gradeclip_utils.evaluation.faithfulness import Protocol
from gradeclip_utils.evaluation.localisation import localisation, pool, reference_baselines
from gradeclip_utils.evaluation.pointing_game import games
from gradeclip_utils.evaluation.statistics import (
    difference_interval,
    interval,
    paired,
    summarise,
    verdict,
)
from gradeclip_utils.evaluation.verdicts import Takeaways
from tests.refusals.cases import named

ROWS = pd.DataFrame({"method": ["grad-eclip", "b"] * 8, "image": np.repeat(range(8), 2), "score": np.arange(16.0) % 7})
MASK, HEAT = np.eye(4, dtype=bool), np.arange(16.0).reshape(4, 4)
NAN = np.where(MASK, np.nan, HEAT)
VALUES = [0.1, 0.2, 0.4, 0.3]

STATISTICS = [
    ("flips below zero", lambda: paired(ROWS, "score", flips=-5), "flips must be at least 1, got -5"),
    ("no flips", lambda: paired(ROWS, "score", flips=0), "flips must be at least 1, got 0"),
    ("no draws", lambda: interval(VALUES, draws=0), "draws must be at least 1, got 0"),
    ("half a seed", lambda: interval(VALUES, seed=1.5), "seed must be a whole number, got 1.5"),
    ("level 95", lambda: interval(VALUES, level=95), "level must be from 0 to 1, got 95"),
    ("level 1", lambda: interval(VALUES, level=1), "level must lie between 0 and 1, got 1"),
    ("a proportion's level", lambda: interval([True, False], level=0), "level must lie between 0 and 1"),
    ("NaN", lambda: interval([*VALUES, np.nan]), "1 of 5 values of an interval are NaN or infinite"),
    ("words", lambda: interval(["a", "b"]), r"a list of one or more numbers, got \['a', 'b'\]"),
    ("lists of two lengths", lambda: interval([[1], [1, 2]]), "a list of one or more numbers, got"),
    ("no values", lambda: interval([]), "a list of one or more numbers"),
    ("one value", lambda: interval([1]), "at least two values, got 1"),
    ("NaN for a cluster", lambda: interval(VALUES, ["a", "b", np.nan, None]), "2 of 4 cluster labels are missing"),
    ("labels too few", lambda: interval(VALUES, ["a"]), "one label a value, got 1 labels for 4 values"),
    ("one cluster", lambda: interval(VALUES, ["a"] * 4), "all 4 values belong to 'a'"),
    ("pairs of two lengths", lambda: difference_interval(VALUES, [1]), "as many values on both sides, got 4 and 1"),
    ("a unit in 8 clusters", lambda: summarise(ROWS, "score", unit="method", cluster="image"), "8 clusters of 'image'"),
    ("no such column", lambda: summarise(ROWS, "points"), "no column 'points'; it has 'method', 'image', 'score'"),
    ("no table", lambda: summarise(None, "score"), "a table is needed, a pandas DataFrame, got None"),
    ("no table of pairs", lambda: paired("rows.csv", "score"), "a table is needed, .*got 'rows.csv'"),
    ("no rows", lambda: summarise(ROWS[:0], "score"), "the table is empty"),
    ("no such baseline", lambda: paired(ROWS, "score", baseline="c"), "baseline 'c' is not in column 'method'"),
    ("a pair without its other", lambda: paired(ROWS[:-1], "score"), "'b' has no value for 1 of 8 units"),
    ("a margin below zero", lambda: verdict(0, 1, -1, "a", "b", "c"), "margin must be 0 or more, got -1"),
    ("an interval upside down", lambda: verdict(1, 0, 0, "a", "b", "c"), "goes from low to high"),
    ("a margin without reason", lambda: Takeaways(margin=0.1).judge("it is", VALUES), "a margin needs its reason"),
]  # fmt: skip


@pytest.mark.parametrize(("ask", "message"), named(STATISTICS))
def test_a_conclusion_that_the_numbers_do_not_allow_is_refused(ask, message):
    with pytest.raises(GradeclipError, match=message):
        ask()


MEASURES = [
    ("NaN in a map", lambda: localisation(NAN, MASK), "4 of 16 values of the map are NaN or infinite"),
    ("a map of another shape", lambda: localisation(HEAT[:2], MASK), r"one shape, got \(2, 4\) and \(4, 4\)"),
    ("a flat map", lambda: localisation(HEAT.ravel(), MASK), "rows and columns"),
    ("an empty mask", lambda: localisation(HEAT, MASK & False), "the mask is empty"),
    ("a mask of grey", lambda: localisation(HEAT, HEAT), "a mask is .* of True and False"),
    ("threshold 20", lambda: localisation(HEAT, MASK, threshold=20), "threshold must be from 0 to 1, got 20"),
    ("threshold NaN", lambda: localisation(HEAT, MASK, threshold=np.nan), "threshold must be from 0 to 1, got nan"),
    ("a box turned round", lambda: pool(HEAT, (2, 2), (4, 0, 0, 4)), r"a box is \(left, top, right, bottom\)"),
    ("a box without height", lambda: reference_baselines((2, 2), MASK, None, box=(0, 2, 4, 2)), "a box is"),
    ("a curve of a million points", lambda: Protocol(points=10**6), "points must be at most 1001, got 1000000"),
    ("a curve of one point", lambda: Protocol(points=1), "points must be at least 2, got 1"),
    ("a curve by letters", lambda: Protocol(unit="letter"), "unit must be"),
    ("a curve from half a seed", lambda: Protocol(seed=1.5), "seed must be a whole number"),
    ("games of no scene", lambda: games(0), "n must be at least 1, got 0"),
    ("games of five objects", lambda: games(1, counts=(5,)), "games show one to four objects"),
    ("pairs of a kind", lambda: draw_pairs("smell", 1), "kind must be one of"),
    ("pairs of a split", lambda: draw_pairs("colour", 1, split="val"), "split must be one of train, development, test"),
    ("pairs of nine", lambda: draw_pairs("colour", 1, objects=9), "objects of 'colour' must be one of 2, 3, 4, got 9"),
]  # fmt: skip


@pytest.mark.parametrize(("ask", "message"), named(MEASURES))
def test_a_map_or_mask_that_cannot_be_measured_is_refused(ask, message):
    with pytest.raises(GradeclipError, match=message):
        ask()


@pytest.mark.parametrize("value", [True, 1.0, "1", None, np.nan])
def test_only_a_whole_number_is_one(value):
    with pytest.raises(GradeclipError, match="n must be a whole number"):
        whole("n", value)


def test_numbers_of_numpy_are_numbers():
    assert (whole("n", np.int64(3)), number("x", np.float32(0.5), 0), between("x", np.float64(0.5))) == (3, 0.5, 0.5)
    assert finite("it", HEAT) is HEAT
