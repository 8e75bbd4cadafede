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


def test_things_lose_their_mean_and_other_words_keep_their_maps(interactions):
    centred = interactions.centred()
    groups = centred.provenance.centred
    words = interactions.words[0]
    texts = [[words[i].text for i in group] for group in groups]
    assert texts == [["car"], ["traffic", "light"], ["ball"]]  # a noun of two words is one

    maps = interactions.image_maps
    sums = sums_of(maps, groups)
    centred_sums = sums_of(centred.image_maps, groups)
    np.testing.assert_allclose(centred_sums, sums - sums.mean(axis=0), atol=1e-7)

    things = {word for group in groups for word in group}
    rest = [i for i in range(len(words)) if i not in things]
    np.testing.assert_array_equal(centred.image_maps[rest], maps[rest])
    assert centred.words == interactions.words
    assert interactions.provenance.centred is None


def test_a_centred_map_is_the_map_of_the_centred_direction(tiny, picture, interactions):
    explainer = Explainer(tiny)
    groups = [(2,), (5, 6), (10,)]
    ((_, words),) = explainer.word_directions(CAPTION)
    nouns = torch.stack([words[list(group)].sum(dim=0) for group in groups])
    expected = explainer.maps(picture, nouns - nouns.mean(dim=0))[0]

    maps = interactions.centred(groups).image_maps
    np.testing.assert_allclose(sums_of(maps, groups), expected, atol=1e-6)


def test_the_user_may_choose_the_words(interactions):
    maps = interactions.image_maps
    expected = (maps[2] - maps[10]) / 2
    np.testing.assert_allclose(interactions.centred([2, 10]).image_maps[2], expected, atol=1e-7)


def test_centring_twice_changes_nothing_more(interactions):
    once = interactions.centred()
    np.testing.assert_allclose(once.centred().image_maps, once.image_maps, atol=1e-6)


def test_words_that_cannot_be_centred_are_refused(tiny, picture, interactions):
    with pytest.raises(ValueError, match="each word at most once"):
        interactions.centred([2, (2, 3)])
    with pytest.raises(ValueError, match=r"'a dog' names fewer than two things \(dog\)"):
        Explainer(tiny).interactions(picture, "a dog").centred()
