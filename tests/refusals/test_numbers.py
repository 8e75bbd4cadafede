"""Numbers and names: measures that are asked for what has no meaning, and what a refusal proposes."""

import numpy as np
import pandas as pd
import pytest
import torch

from gradeclip_utils.checks import all_chosen, chosen, finite, hint, listed, nearest, number, whole
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.images import pool
from gradeclip_utils.measures import report_best, summary
from gradeclip_utils.measures.faithfulness import (
    Protocol,
    colours_of,
    curve_auc,
    image_curves,
    word_curves,
)
from gradeclip_utils.measures.localisation import localisation_scores, reference_baselines
from gradeclip_utils.measures.sanity import randomised, rank_correlation, time_methods
from gradeclip_utils.measures.statistics import (
    group_means,
    interpret_interval,
    mean_interval,
    paired_differences,
)
from gradeclip_utils.words import Word
from studies.pairs import draw_pairs
from tests.refusals.cases import refused

ROWS = pd.DataFrame(
    {
        "method": ["grad-eclip", "b"] * 8,
        "image": np.repeat(range(8), 2),
        "score": np.arange(16.0) % 7,
    }
)
HOLES = ROWS.assign(score=ROWS["score"].where(ROWS["score"] > 0))
PIXELS, GREY = torch.zeros(3, 8, 8), ((0.5,) * 3, (0.25,) * 3)
MASK, HEAT = np.eye(4, dtype=bool), np.arange(16.0).reshape(4, 4)
NAN = np.where(MASK, np.nan, HEAT)
VALUES, DOG = [0.1, 0.2, 0.4, 0.3], [Word("dog", 0.5, 0, 3)]

STATISTICS = [
    (
        "NaN",
        lambda: mean_interval([*VALUES, np.nan]),
        "1 of 5 values of an interval are NaN or infinite",
    ),
    (
        "lists of two lengths",
        lambda: mean_interval([[1], [1, 2]]),
        "an interval must be an array of numbers, got",
    ),
    ("no values", lambda: mean_interval([]), "a list of one or more numbers"),
    (
        "masked values",
        lambda: mean_interval(np.ma.masked_array([1.0, 2.0], [True, False])),
        "must have no masked values",
    ),
    ("values without bounds", lambda: mean_interval([1e308, -1e308]), "at most 1e"),
    (
        "a proportion of scores",
        lambda: mean_interval(VALUES, kind="proportion"),
        "a proportion has values 0 and 1 only",
    ),
    (
        "a fraction",
        lambda: mean_interval([1, 0], kind="fraction"),
        "kind must be 'mean' or 'proportion', got 'fraction'",
    ),
    ("labels in a text", lambda: mean_interval(VALUES, "abcd"), "clusters must be a list"),
    (
        "NaN for a cluster",
        lambda: mean_interval(VALUES, ["a", "b", np.nan, None]),
        "2 of 4 cluster labels are missing",
    ),
    (
        "labels too few",
        lambda: mean_interval(VALUES, ["a"]),
        "one label per value, got 1 labels for 4 values",
    ),
    ("one cluster", lambda: mean_interval(VALUES, ["a"] * 4), "all 4 values belong to 'a'"),
    (
        "a unit in 2 clusters",
        lambda: group_means(ROWS, "score", "image", cluster="method"),
        r"\(0\) belongs to 2 clust",
    ),
    (
        "a pair in 2",
        lambda: paired_differences(ROWS.assign(by=ROWS["method"]), "score", cluster="by"),
        r"\(0\) belongs to 2 clust",
    ),
    (
        "no such column",
        lambda: group_means(ROWS, "points"),
        "no column 'points'; it has 'method', 'image', 'score'",
    ),
    (
        "no table",
        lambda: group_means(None, "score"),
        "the table must be a pandas DataFrame, got None",
    ),
    ("no rows", lambda: group_means(ROWS[:0], "score"), "the table is empty"),
    (
        "a column of the result",
        lambda: group_means(ROWS.assign(n="a"), "score", by="n"),
        "has a column 'n' of its own",
    ),
    (
        "no names",
        lambda: group_means(ROWS.assign(image=np.nan), "score"),
        "16 rows have no 'image'",
    ),
    (
        "NaN in a table",
        lambda: paired_differences(HOLES, "score"),
        "3 of 16 values of 'score' are NaN or inf.*the first at method=grad-eclip, image=0; leave",
    ),
    (
        "by no column",
        lambda: group_means(ROWS, "score", by=[]),
        "by must name a column or more, and none was given",
    ),
    (
        "a mean of words",
        lambda: group_means(ROWS, "method", unit="image"),
        "the column 'method' must hold numbers",
    ),
    (
        "a list for a column",
        lambda: paired_differences(ROWS, "score", cluster=["image"]),
        "cluster must be a text, got",
    ),
    (
        "a summary of nothing",
        lambda: summary(None),
        "the table must be a pandas DataFrame, got None",
    ),
    ("a conclusion from rows", lambda: report_best(ROWS), "the table has no column 'measure'"),
    (
        "one method",
        lambda: paired_differences(ROWS[::2], "score"),
        "needs another method beside the baseline 'grad-eclip'",
    ),
    (
        "no such baseline",
        lambda: paired_differences(ROWS, "score", baseline="c"),
        "baseline 'c' is not in column 'method'",
    ),
    (
        "a pair without its other",
        lambda: paired_differences(ROWS[:-1], "score"),
        "'b' has no value for 1 of 8 images",
    ),
    (
        "a margin below zero",
        lambda: interpret_interval(0, 1, margin=-1),
        "margin must be 0 or more, got -1",
    ),
    ("an interval upside down", lambda: interpret_interval(1, 0), "goes from low to high"),
]

test_a_conclusion_that_the_numbers_do_not_allow_is_refused = refused(STATISTICS)


MEASURES = [
    (
        "NaN in a map",
        lambda: localisation_scores(NAN, MASK),
        "4 of 16 values of the map are NaN or infinite",
    ),
    (
        "a map of another shape",
        lambda: localisation_scores(HEAT[:2], MASK),
        r"one shape, got \(2, 4\) and \(4, 4\)",
    ),
    ("an empty mask", lambda: localisation_scores(HEAT, MASK & False), "the mask is empty"),
    (
        "a mask of grey",
        lambda: localisation_scores(HEAT, HEAT),
        "the mask must be .H, W. of True and False, got float64",
    ),
    (
        "a box turned round",
        lambda: pool(HEAT, (2, 2), (4, 0, 0, 4)),
        r"a box is \(left, top, right, bottom\)",
    ),
    (
        "a box without end",
        lambda: pool(HEAT, (2, 2), (0, 0, np.inf, 4)),
        "1 of 4 values of a box are NaN or infinite",
    ),
    (
        "a grid without cells",
        lambda: pool(HEAT, (0, 2)),
        "rows and columns of a grid must be at least 1, got 0",
    ),
    ("a grid of one number", lambda: pool(HEAT, 7), "a grid must be a list, got 7"),
    (
        "a sparse map",
        lambda: localisation_scores(torch.eye(4).to_sparse(), MASK),
        "the map must be an array of numbers, got",
    ),
    (
        "a map of words",
        lambda: localisation_scores([["a", "b"]] * 2, MASK),
        "the map must be an array of numbers, got",
    ),
    (
        "a curve of a million points",
        lambda: Protocol(points=10**6),
        "points must be at most 1001, got 1000000",
    ),
    ("a curve of no length", lambda: Protocol(span=0), "span is the fraction"),
    (
        "a curve into a blur",
        lambda: Protocol(fill="blur"),
        "fill must be one of mean, random, black, got 'blur'",
    ),
    (
        "a curve by another shape",
        lambda: curves(maps={"m": np.ones((9, 8))}),
        r"map of 'm' has shape \(9, 8\)",
    ),
    ("a curve by NaN", lambda: curves(maps={"m": NAN}), "4 of 16 values of the map of 'm' are NaN"),
    (
        "a curve of a batch",
        lambda: curves(pixels=PIXELS[None]),
        r"tensor \(3, H, W\), got \(1, 3, 8, 8\)",
    ),
    (
        "a curve without colours",
        lambda: curves(colours=None),
        "'random' pixels need the model's normalisation",
    ),
    (
        "a curve of another game",
        lambda: curves(games=["removal"]),
        "each of games must be .*, got 'removal'",
    ),
    ("colours of no preprocessing", lambda: colours_of(len), "no Normalize step"),
    ("a curve on letters", lambda: Protocol(canvas="letter"), "canvas must be"),
    ("a curve from half a seed", lambda: Protocol(seed=1.5), "seed must be a whole number"),
    (
        "a curve by a map without a name",
        lambda: curves(maps=HEAT),
        "maps must be a dict, by the names of methods",
    ),
    ("a curve of NaN pixels", lambda: curves(pixels=PIXELS * torch.nan), "pixels must be finite"),
    (
        "a curve by a word",
        lambda: curves(protocol="half"),
        "protocol must be one of published, full, mean",
    ),
    (
        "a curve in no colours",
        lambda: curves(colours=((1, 2), (1, 2))),
        "mean and deviation of three channels",
    ),
    (
        "a score that is NaN",
        lambda: curves(score=lambda x: x.mean((1, 2, 3)) * torch.nan),
        "values of a score are NaN",
    ),
    (
        "a score for all together",
        lambda: curves(score=lambda x: 1.0),
        r"one number for each of .*, got \(\)",
    ),
    ("words of a number", lambda: word_curves(len, 5, {"a": DOG}), "caption must be a text, got 5"),
    (
        "words without a method",
        lambda: word_curves(len, "dog", DOG),
        "words must be a dict, by the names of",
    ),
    ("no words", lambda: word_curves(len, " ", {"a": []}), r"'a' needs the words of ' ', got \[\]"),
    (
        "words of another caption",
        lambda: word_curves(len, "cat", {"a": DOG}),
        r"words of 'cat', got \['dog'\]",
    ),
    (
        "words by no function",
        lambda: word_curves(None, "dog", {"a": DOG}),
        "score must be a function, got",
    ),
    (
        "no generator",
        lambda: reference_baselines((2, 2), MASK, 5),
        "rng must be a generator of numpy, got 5",
    ),
    ("no model", lambda: randomised(None), "clip must be a Clip, got None"),
    (
        "the cost of nothing",
        lambda: time_methods(None, len),
        "calls must be a dictionary, got None",
    ),
    (
        "words by half a seed",
        lambda: word_curves(len, "dog", {"a": DOG}, seed=-1),
        "seed must be at least 0",
    ),
    ("areas of another table", lambda: curve_auc(ROWS), "the table has no column 'fraction'"),
    (
        "agreement of words",
        lambda: rank_correlation("a", "b"),
        "maps must be an array of numbers, got 'a'",
    ),
    ("pairs of a kind", lambda: draw_pairs("smell", 1), "kind must be one of"),
    (
        "pairs of a split",
        lambda: draw_pairs("colour", 1, split="val"),
        "split must be one of train, development, test",
    ),
    (
        "pairs without end",
        lambda: draw_pairs("colour", 10**12),
        "n must be at most 100000, got 1000000000000",
    ),
    (
        "pairs of two to count",
        lambda: draw_pairs("count", objects=2),
        "objects of 'count' must be 4, got 2",
    ),
    (
        "pairs of nine",
        lambda: draw_pairs("colour", 1, objects=9),
        "objects of 'colour' must be one of 2, 3, 4, got 9",
    ),
]


def curves(**changed):
    given = {
        "pixels": PIXELS,
        "maps": {"a": HEAT},
        "colours": GREY,
        "score": lambda x: x.mean((1, 2, 3)),
    }
    return image_curves(**(given | changed))


test_a_map_or_mask_that_cannot_be_measured_is_refused = refused(MEASURES)


@pytest.mark.parametrize("options", [{"seed": -1}, {"seed": "x"}])
def test_a_model_is_not_randomised_by_what_is_no_number(tiny, options):
    with pytest.raises(GradeclipError, match=f"{next(iter(options))}.* must be "):
        randomised(tiny, **options)


def test_maps_are_measured_whatever_holds_them():
    found = localisation_scores(HEAT, MASK)
    for heat in (
        torch.tensor(HEAT, requires_grad=True),
        torch.tensor(HEAT).bfloat16(),
        HEAT.tolist(),
        HEAT.astype("O"),
    ):
        assert localisation_scores(heat, MASK) == found
    for mask in (torch.tensor(MASK), MASK.tolist(), MASK * 1):
        assert localisation_scores(HEAT, mask) == found


@pytest.mark.parametrize("value", [True, 1.0, "1", None, np.nan])
def test_only_a_whole_number_is_one(value):
    with pytest.raises(GradeclipError, match="n must be a whole number"):
        whole("n", value)


def test_numbers_of_numpy_are_numbers():
    assert (whole("n", np.int64(3)), number("x", np.float32(0.5), 0)) == (3, 0.5)
    assert finite("it", HEAT) is HEAT


METHODS = ["grad-eclip", "Grad-CAM", "maskclip", "rise"]


def test_the_nearest_names_come_best_first_whatever_their_case():
    assert nearest("GRAD-ECLIPS", METHODS)[:2] == ["grad-eclip", "Grad-CAM"]
    assert nearest("grad-cam", METHODS, most=1) == ["Grad-CAM"]
    assert nearest("xyz", METHODS) == []
    assert nearest("", METHODS) == []


def test_a_hint_names_what_is_near_or_else_all_there_is():
    assert hint("maskclipp", iter(METHODS)) == "did you mean maskclip or grad-eclip?"
    assert hint("rize", METHODS) == "did you mean rise?"
    assert hint("xyz", iter(METHODS)) == "choose from grad-eclip, Grad-CAM, maskclip, rise"


def test_a_choice_may_be_a_number_or_a_text_of_numpy_and_comes_back_as_ours():
    assert type(chosen("objects", np.int64(3), (2, 3, 4))) is int
    assert type(chosen("method", np.str_("rise"), METHODS)) is str
    for wrong in (np.int64(5), np.array([3]), [3], None):
        with pytest.raises(GradeclipError, match="objects must be one of 2, 3, 4, got"):
            chosen("objects", wrong, (2, 3, 4))


@pytest.mark.parametrize(
    "several",
    [
        ("rise", "maskclip"),
        iter(["rise", "maskclip"]),
        pd.Series(["rise", "maskclip"]),
        np.array(["rise", "maskclip"]),
        {"rise": 1, "maskclip": 2}.keys(),
    ],
    ids=lambda one: type(one).__name__,
)
def test_several_may_come_in_whatever_holds_them_but_not_as_a_text_or_a_mapping(several):
    assert all_chosen("methods", several, METHODS) == ["rise", "maskclip"]
    for wrong in ("rise", {"rise": 1}, b"rise", 5, None):
        with pytest.raises(GradeclipError, match="methods must be a list"):
            listed("methods", wrong)
