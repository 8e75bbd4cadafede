"""Localisation and sanity: a perfect map scores one, a map without information scores chance."""

import time

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score

from gradeclip_utils import Explainer
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.images import onto_image
from gradeclip_utils.measures import sanity
from gradeclip_utils.measures.localisation import (
    MEASURES,
    localisation_scores,
    reference_baselines,
    share_on,
)
from gradeclip_utils.measures.sanity import randomised, rank_correlation, time_methods

HEIGHT, WIDTH = 36, 48
GRID = (6, 8)  # tokens of 6 x 6 pixels


@pytest.fixture
def mask() -> np.ndarray:
    """A blob that respects no token border."""
    down, across = np.mgrid[:HEIGHT, :WIDTH]
    distance = (down - 20.5) ** 2 + 0.6 * (across - 14) ** 2
    return distance < 60


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def resized(map_) -> np.ndarray:
    return onto_image(map_, (0, 0, WIDTH, HEIGHT), (WIDTH, HEIGHT))


def in_all_measures(score):
    return pytest.approx(dict.fromkeys(MEASURES, score), abs=1e-12)


def test_the_true_mask_scores_one_in_everything(mask):
    scores = localisation_scores(mask.astype(float), mask)
    assert scores == dict.fromkeys(MEASURES, 1.0)


@pytest.mark.parametrize("value", [0.0, 0.7, -0.3, 1e-30, 1e9])
def test_a_constant_map_scores_exactly_chance_for_any_value(mask, value):
    scores = localisation_scores(np.full(mask.shape, value), mask)
    assert scores == in_all_measures(mask.mean())


def test_a_constant_map_scores_chance_after_resizing_which_rounds(mask):
    box = (-0.3, -0.7, WIDTH + 0.4, HEIGHT + 0.2)
    heat = onto_image(np.full(GRID, 0.1), box, (WIDTH, HEIGHT))
    assert np.ptp(heat) > 0
    scores = localisation_scores(heat, mask)
    assert scores == in_all_measures(mask.mean())


def test_tied_maxima_share_the_point(mask):
    inside = np.flatnonzero(mask)
    outside = np.flatnonzero(~mask)
    heat = np.zeros(mask.shape)
    heat.flat[[inside[0], outside[5]]] = 2.0
    heat.flat[outside[9]] = 2.0 + 1e-9  # a tie up to rounding
    scores = localisation_scores(heat, mask)
    assert scores["pointing_game"] == pytest.approx(1 / 3)


def overlap(marked, mask):
    """Intersection over union."""
    return (marked & mask).sum() / (marked | mask).sum()


def test_measures_are_as_their_definitions_pixel_by_pixel(mask, rng):
    heat = resized(rng.normal(size=GRID)) + mask
    scores = localisation_scores(heat, mask)

    positive = np.maximum(heat, 0)
    energy = positive[mask].sum() / positive.sum()
    precision = average_precision_score(mask.ravel(), heat.ravel())
    assert scores["energy_pointing_game"] == pytest.approx(energy, rel=1e-5)
    assert scores["average_precision"] == pytest.approx(precision, abs=1e-4)

    marked = heat >= 0.2 * heat.max()
    accuracy = (marked == mask).mean()
    best = max(overlap(heat >= threshold, mask) for threshold in np.unique(heat))
    assert scores["iou_fixed"] == pytest.approx(overlap(marked, mask), abs=2e-3)
    assert scores["pixel_accuracy"] == pytest.approx(accuracy, abs=2e-3)
    assert scores["iou_best"] == pytest.approx(best, abs=2e-3)

    scores_of_small_values = localisation_scores(1e-4 * heat, mask)
    assert scores_of_small_values == pytest.approx(scores)


def test_a_photograph_of_two_megapixels_scores_as_its_small_copy_and_in_a_tenth_of_a_second(rng):
    small = rng.normal(size=(27, 48))
    small_mask = small > rng.normal(size=small.shape)
    pixels = np.ones((40, 40))
    heat = np.kron(small, pixels)
    mask = np.kron(small_mask, pixels) > 0

    start = time.process_time()
    scores = localisation_scores(heat, mask)
    assert time.process_time() - start < 0.5  # of this process on a busy machine
    assert scores == pytest.approx(localisation_scores(small, small_mask))


def test_the_oracle_beats_every_other_map_on_its_grid(mask, rng):
    baselines = reference_baselines(GRID, mask, rng)
    assert list(baselines) == ["random", "centre", "oracle", "area"]
    best = localisation_scores(baselines["oracle"], mask)
    assert best["pointing_game"] == 1
    assert best["average_precision"] > 0.9
    for _ in range(30):
        baselines = reference_baselines(GRID, mask, rng)
        for name in ("random", "centre"):
            scores = localisation_scores(baselines[name], mask)
            for measure in MEASURES:
                assert best[measure] >= scores[measure]


def test_reference_baselines_are_seeded_and_zero_where_the_model_does_not_look(mask):
    box = (6.0, 0.0, 42.0, 36.0)
    first = reference_baselines(GRID, mask, np.random.default_rng(7), box=box)
    again = reference_baselines(GRID, mask, np.random.default_rng(7), box=box)
    for name, heat in first.items():
        np.testing.assert_array_equal(heat, again[name])
        assert heat.shape == mask.shape
        assert heat.any()
        if name != "area":
            assert not heat[:, :6].any()
            assert not heat[:, 42:].any()
    columns = first["centre"].sum(axis=0)
    assert 20 <= columns.argmax() < 28
    assert (first["area"] == 1).all()


@pytest.mark.parametrize(
    ("heat", "mask", "message"),
    [
        (
            np.ones((2, 4)),
            np.eye(4),
            r"one shape .*got \(2, 4\) and \(4, 4\): resize the map",
        ),
        (
            np.ones((4, 4)),
            np.zeros((4, 4)),
            "the mask is empty",
        ),
    ],
)
def test_a_map_or_mask_that_cannot_be_compared_is_refused(heat, mask, message):
    with pytest.raises(GradeclipError, match=message):
        localisation_scores(heat, mask)


# ------------------------------------------------------------------------------------ sanity


def test_a_randomised_model_is_a_seeded_copy_and_the_original_is_untouched(tiny, picture):
    before = {name: weight.clone() for name, weight in tiny.model.state_dict().items()}
    random_state = torch.get_rng_state()
    first = randomised(tiny)
    again = randomised(tiny)
    second = randomised(tiny, seed=1)

    assert torch.equal(torch.get_rng_state(), random_state)
    for name, weight in tiny.model.state_dict().items():
        assert torch.equal(weight, before[name])
    for name, weight in first.model.named_parameters():
        assert torch.equal(weight, again.model.get_parameter(name))
        is_constant = len(before[name].unique()) == 1
        assert torch.equal(weight, before[name]) == is_constant
        if not is_constant:
            assert not torch.equal(weight, second.model.get_parameter(name))
            assert weight.requires_grad
    assert "random weights (seed 0)" in first.name

    maps = Explainer(first).explain(picture, "a dog").image_maps
    assert np.isfinite(maps).all()


def test_rank_correlation_is_spearmans(rng):
    maps, other_maps = rng.normal(size=(2, 5, 4, 6)).round(1)  # rounded: there are ties
    expected = []
    for map_, other_map in zip(maps, other_maps, strict=True):
        correlation = spearmanr(map_.ravel(), other_map.ravel())
        expected.append(correlation.statistic)
    np.testing.assert_allclose(rank_correlation(maps, other_maps), expected)
    with_constant = rank_correlation(maps, np.ones_like(maps))
    assert with_constant.tolist() == [0, 0, 0, 0, 0]
    with pytest.raises(GradeclipError, match=r"two stacks .*got \(5, 4, 6\) and \(4, 6\)"):
        rank_correlation(maps, other_maps[0])


def test_cost_is_counted_in_plain_passes_after_a_first_round_that_does_not_count(monkeypatch):
    clock = [0.0]
    slow_start = iter([9.0])
    monkeypatch.setattr(sanity.time, "perf_counter", lambda: clock[0])

    def wait(seconds):
        def call():
            clock[0] += next(slow_start, seconds)

        return call

    methods = {"same": wait(2), "five": wait(10)}
    table = time_methods(methods, wait(2), repeats=3)
    assert table["method"].tolist() == ["same", "five"]
    assert table["seconds"].tolist() == [2, 10]
    for column in ("passes", "low", "high"):
        assert table[column].tolist() == [1, 5]


def test_the_share_on_a_thing_counts_positive_relevance_alone(rng):
    maps = rng.normal(size=(2, 5, *GRID))
    thing = rng.random(GRID) < 0.3
    inside = np.where(thing, maps, 0).clip(0).sum((-2, -1))
    expected = inside / maps.clip(0).sum((-2, -1))
    assert share_on(maps, thing) == pytest.approx(expected)
    assert share_on(maps[0, 0], thing) == pytest.approx(expected[0, 0])
    assert share_on(maps, thing) + share_on(maps, ~thing) == pytest.approx(1)


def test_the_share_among_things_leaves_the_background_out(rng):
    map_ = rng.random(GRID)
    first, second = np.zeros((2, *GRID))
    first[:3], second[3:5] = 0.5, 1
    both = first + second
    share = share_on(map_, first, among=both > 0)
    assert share == pytest.approx(0.5 * map_[:3].sum() / map_[:5].sum())


def test_a_map_without_positive_relevance_has_a_share_as_large_as_the_things_area():
    thing = np.zeros(GRID, bool)
    thing[:2] = True
    some = np.zeros(GRID, bool)
    some[:4] = True
    below = np.where(some, -1.0, 2)
    assert share_on(np.zeros(GRID), thing) == pytest.approx(1 / 3)
    assert share_on(below, thing, among=some) == pytest.approx(1 / 2)


def test_a_share_refuses_a_map_of_another_shape_and_one_that_is_not_finite():
    with pytest.raises(GradeclipError, match=r"\(6, 8\) and \(36, 48\): resize the map"):
        share_on(np.ones(GRID), np.ones((HEIGHT, WIDTH)))
    with pytest.raises(GradeclipError, match="must be finite"):
        share_on(np.full(GRID, np.nan), np.ones(GRID))
