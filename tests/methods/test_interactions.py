"""Centring: what named things share is taken away from them, and from nothing else."""

import numpy as np
import pytest
import torch

from gradeclip_utils import Explainer

CAPTION = "a red car and a traffic light, and a ball"


@pytest.fixture(scope="module")
def found(tiny, picture):
    return Explainer(tiny).interactions(picture, CAPTION)


def test_things_lose_their_mean_and_other_words_keep_their_maps(found):
    own = found.centred()
    (car,), light, (ball,) = groups = own.provenance.centred  # a noun of two words is one
    assert [[found.words[0][i].text for i in group] for group in groups] == [
        ["car"],
        ["traffic", "light"],
        ["ball"],
    ]
    sums = [found.image_maps[list(group)].sum(0) for group in groups]
    mean = sum(sums) / 3
    np.testing.assert_allclose(own.image_maps[car], found.image_maps[car] - mean, atol=1e-7)
    np.testing.assert_allclose(own.image_maps[list(light)].sum(0), sums[1] - mean, atol=1e-7)
    others = [i for i in range(len(found.words[0])) if i not in (car, *light, ball)]
    np.testing.assert_array_equal(own.image_maps[others], found.image_maps[others])
    assert own.words == found.words and found.provenance.centred is None


def test_a_centred_map_is_the_map_of_the_centred_direction(tiny, picture, found):
    explainer, groups = Explainer(tiny), [(2,), (5, 6), (10,)]
    ((_, words),) = explainer.word_directions(CAPTION)
    nouns = torch.stack([words[list(group)].sum(0) for group in groups])
    expected, own = explainer.maps(picture, nouns - nouns.mean(0))[0], found.centred(groups)
    for map_, group in zip(expected, groups, strict=True):
        np.testing.assert_allclose(own.image_maps[list(group)].sum(0), map_, atol=1e-6)


def test_words_may_be_given_instead_of_found(found):
    np.testing.assert_allclose(
        found.centred([2, 10]).image_maps[2],
        (found.image_maps[2] - found.image_maps[10]) / 2,
        atol=1e-7,
    )
    assert found.centred().centred().image_maps == pytest.approx(
        found.centred().image_maps, abs=1e-6
    )  # nothing is left to take


def test_what_cannot_be_centred_is_refused(tiny, picture, found):
    with pytest.raises(
        ValueError, match=r"'a dog' names fewer than two things \(dog\): give the words in over="
    ):
        Explainer(tiny).interactions(picture, "a dog").centred()
    for over, message in (
        ([2], "two groups of words or more"),
        ([2, ()], "none empty"),
        ([2, (2, 3)], "each word at most once"),
    ):
        with pytest.raises(ValueError, match=message):
            found.centred(over)
