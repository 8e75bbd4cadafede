"""Relevance: where a map lies when several things have masks."""

import numpy as np
import pytest

from gradeclip_utils import Explainer
from gradeclip_utils.measures.localisation import localisation_scores
from studies.lesson import prompts_of, shown_scenes
from studies.relevance import AT_ONCE, located, maps_by, on_highest, on_own


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
            alone = localisation_scores(heat, mask)
            measured = (alone["pointing_game"], alone["energy_pointing_game"], 1)
            assert (found.hit, found.on_thing, sum(found[1:])) == pytest.approx(measured)


def test_what_lies_on_one_thing_lies_on_the_others_other_thing(two_things):
    heat = 3.0 * two_things[0] + 1.0 * two_things[1] - 1.0 * ~two_things.any(0)
    first, second = located(heat, two_things)
    assert [*first, *second] == pytest.approx([1, 0.75, 0.25, 0, 0, 0.25, 0.75, 0])


def test_a_map_that_knows_nothing_scores_the_areas(two_things):
    areas = two_things.mean((1, 2))
    for i, found in enumerate(located(np.full((6, 8), -2.0), two_things)):
        assert found == pytest.approx((areas[i], areas[i], areas[1 - i], 1 - areas.sum()))


def test_of_each_thing_its_own_map_is_measured_and_how_concentrated_it_is(two_things):
    maps = np.stack([two_things, two_things[::-1]]).astype(
        float
    )  # on its own thing, and on the other one
    found = on_own(maps, [two_things, two_things])
    assert found == pytest.approx(np.array([[[1, 0, 0]] * 2, [[0, 1, 0]] * 2]))
    assert on_highest(np.stack([maps[0], -maps[0]])) == pytest.approx([4 / 6, 4 / 48])


def test_explainers_that_share_a_trace_give_the_maps_that_each_gives_alone(bundled):
    scenes = shown_scenes(AT_ONCE + 1)
    images = [scene.image(96) for scene in scenes]
    prompts = [text for scene in scenes for text in prompts_of(scene)]
    texts = Explainer(bundled).embed_texts(prompts).unflatten(0, (-1, 2))
    asked = [
        ("grad-eclip", 1),
        ("grad-eclip-single-head", 1),
        ("game", None),
        ("grad-eclip", 2),
        ("attention", 1),
    ]
    explainers = [Explainer(bundled, method=name, image_layers=layers) for name, layers in asked]
    alone = [one.maps(images, texts).numpy() for one in explainers]
    together = maps_by(dict(enumerate(explainers)), images, texts)
    assert explainers[0].image_tower is explainers[1].image_tower is not explainers[3].image_tower
    for number, expected in enumerate(alone):
        assert np.abs(together[number] - expected).max() <= 1e-5 * np.abs(expected).max()
