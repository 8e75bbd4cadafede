"""Centring: what named things share is taken away from them, and from nothing else."""

import numpy as np
import pytest
import torch

from gradeclip_utils import Explainer

CAPTION = "a red car and a traffic light, and a ball"


@pytest.fixture(scope="module")
def interactions(tiny, picture):
    return Explainer(tiny).interactions(picture, CAPTION)


def sums_of(maps, groups):
    """The sum of the maps of each group of words, (groups, h, w)."""
    return np.stack([maps[list(group)].sum(axis=0) for group in groups])


def test_things_lose_their_mean_once_and_other_words_keep_their_maps(interactions):
    centred = interactions.centred()
    groups = centred.provenance.centred
    assert groups == ((2,), (5, 6), (10,))  # "traffic light" is one noun

    maps = interactions.image_maps
    sums = sums_of(maps, groups)
    centred_sums = sums_of(centred.image_maps, groups)
    np.testing.assert_allclose(centred_sums, sums - sums.mean(axis=0), atol=1e-7)

    no_things = [0, 1, 3, 4, 7, 8, 9]  # a, red, and, a, the comma, and, a
    np.testing.assert_array_equal(centred.image_maps[no_things], maps[no_things])
    assert centred.words == interactions.words
    assert interactions.provenance.centred is None
    twice = centred.centred()
    np.testing.assert_allclose(twice.image_maps, centred.image_maps, atol=1e-6)


def test_a_centred_map_of_chosen_words_is_the_map_of_the_centred_direction(
    tiny, picture, interactions
):
    explainer = Explainer(tiny)
    ((_, words),) = explainer.word_directions(CAPTION)
    car, traffic, light = words[[2, 5, 6]]
    nouns = torch.stack([car, traffic + light])
    centred = nouns - nouns.mean(dim=0)
    expected = explainer.maps(picture, centred)[0]

    maps = interactions.centred([2, (5, 6)]).image_maps
    np.testing.assert_allclose(maps[2], expected[0], atol=1e-6)
    np.testing.assert_allclose(maps[5] + maps[6], expected[1], atol=1e-6)


def test_words_that_cannot_be_centred_are_refused(tiny, picture, interactions):
    with pytest.raises(ValueError, match="each word at most once"):
        interactions.centred([2, (2, 3)])
    with pytest.raises(ValueError, match=r"'a dog' names fewer than two things \(dog\)"):
        Explainer(tiny).interactions(picture, "a dog").centred()
