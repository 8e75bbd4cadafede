"""Relevance: where a map lies when several things have masks."""

import numpy as np
import pytest

from gradeclip_utils.measures.localisation import localisation
from studies.relevance import located


@pytest.fixture
def two_things():
    """Masks of two things that do not touch, (2, 6, 8)."""
    masks = np.zeros((2, 6, 8), bool)
    masks[0, 1:3, 1:4] = masks[1, 4:, 5:] = True
    return masks


def test_of_several_things_each_is_measured_as_it_would_be_alone(two_things):
    rng = np.random.default_rng(0)
    for _ in range(20):
        heat = rng.normal(size=(6, 8))
        for mask, found in zip(two_things, located(heat, two_things), strict=True):
            alone = localisation(heat, mask)
            assert found.hit == alone["pointing_game"]
            assert found.on_thing == pytest.approx(alone["energy_pointing_game"])
            assert sum(found[1:]) == pytest.approx(1)


def test_what_lies_on_one_thing_lies_on_the_others_other_thing(two_things):
    heat = 3.0 * two_things[0] + 1.0 * two_things[1] - 1.0 * ~two_things.any(0)
    first, second = located(heat, two_things)
    assert (first.hit, second.hit) == (1, 0)
    assert (first.on_thing, first.on_others) == pytest.approx((0.75, 0.25))
    assert (second.on_others, second.on_thing) == pytest.approx((0.75, 0.25))
    assert first.on_nothing == second.on_nothing == pytest.approx(0)


def test_a_map_that_knows_nothing_scores_the_areas(two_things):
    areas = two_things.mean((1, 2))
    for i, found in enumerate(located(np.full((6, 8), -2.0), two_things)):
        assert found == pytest.approx((areas[i], areas[i], areas[1 - i], 1 - areas.sum()))
