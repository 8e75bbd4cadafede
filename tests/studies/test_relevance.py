"""Relevance: which part of a map lies on which object."""

import numpy as np
import pytest

from gradeclip_utils import Explainer
from gradeclip_utils.scenes import arrange
from studies.relevance import fraction_on_first, object_coverage


def test_coverage_holds_as_much_as_the_masks(tiny):
    scene = arrange(["red car", "blue car"])
    coverage = object_coverage(Explainer(tiny), scene, (4, 4))
    assert coverage.shape == (2, 4, 4) and np.allclose(coverage.mean((1, 2)), scene.masks(96).mean((1, 2)), atol=1e-6)


def test_fractions_of_two_things_add_up_and_ignore_what_speaks_against():
    map_, coverage = np.random.default_rng(1).normal(size=(4, 4)), np.random.default_rng(2).random((2, 4, 4))
    assert fraction_on_first(map_, coverage) + fraction_on_first(map_, coverage[::-1]) == pytest.approx(1)
    assert fraction_on_first(map_ - 9 * (map_ < 0), coverage) == pytest.approx(fraction_on_first(map_, coverage))
    assert fraction_on_first(-np.ones((4, 4)), coverage) == 0.5
