"""Relevance: which part of a map lies on which object."""

import numpy as np
import pytest

from gradeclip_utils import Explainer
from gradeclip_utils.scenes import arrange
from studies import relevance
from studies.relevance import choose_recognised, fraction_on_first, object_coverage


def test_coverage_holds_as_much_as_the_masks(tiny):
    scene = arrange(["red car", "blue car"])
    coverage = object_coverage(Explainer(tiny), scene, (4, 4))
    assert coverage.shape == (2, 4, 4) and np.allclose(coverage.mean((1, 2)), scene.masks(96).mean((1, 2)), atol=1e-6)


def test_fractions_of_two_things_add_up_and_ignore_what_speaks_against():
    map_, coverage = np.random.default_rng(1).normal(size=(4, 4)), np.random.default_rng(2).random((2, 4, 4))
    assert fraction_on_first(map_, coverage) + fraction_on_first(map_, coverage[::-1]) == pytest.approx(1)
    assert fraction_on_first(map_ - 9 * (map_ < 0), coverage) == pytest.approx(fraction_on_first(map_, coverage))
    assert fraction_on_first(-np.ones((4, 4)), coverage) == 0.5


def chosen_by(monkeypatch, drawn, most, *knows):
    """What is chosen of numbers in pairs, by models that are the sets of what they know; and what was looked at."""
    looked = []

    def alone(known, asked):
        looked.append(len(asked))
        return np.array([one in known for one in asked])

    monkeypatch.setattr(relevance, "recognised_alone", alone)
    return (*choose_recognised(range(drawn), lambda one: [2 * one, 2 * one + 1], most, *knows), sum(looked) / 2)


def test_the_first_are_chosen_whose_scenes_all_models_recognise_and_nobody_looks_much_further(monkeypatch):
    everything = set(range(200))
    found, known, looked = chosen_by(monkeypatch, 100, 8, everything - {0, 7, 9}, everything - {9, 10})
    assert found == [1, 2, 6, 7, 8, 9, 10, 11] and known.tolist() == [one in found for one in range(12)]
    assert looked == 16 + 13, "the first model looked at sixteen of the hundred, the other at what that one recognised"


def test_of_two_models_that_recognise_nothing_together_the_first_are_chosen(monkeypatch):
    found, known, looked = chosen_by(monkeypatch, 10, 4, {1, 2, 3}, set())
    assert found == [0, 1, 2, 3] and not known.any() and len(known) == 10 and looked == 10 + 1


def test_of_models_that_know_few_the_first_are_chosen_and_none_is_called_recognised(monkeypatch):
    some = {one for number in (3, 4, 20) for one in (2 * number, 2 * number + 1)}
    found, known, _ = chosen_by(monkeypatch, 40, 12, some)
    assert found == [3, 4, 20] and np.flatnonzero(known).tolist() == found and len(known) == 40
    found, known, _ = chosen_by(monkeypatch, 40, 16, some)
    assert found == list(range(16)) and known.sum() == 3, "three are fewer than a quarter of sixteen"
    found, known, _ = chosen_by(monkeypatch, 5, 4, {2, 3})
    assert found == [0, 1, 2, 3] and known.sum() == 1, "of one there is no interval"
