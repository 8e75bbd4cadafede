"""Relevance: where a map lies when several things have masks."""

import numpy as np
import pytest

from gradeclip_utils import Explainer
from gradeclip_utils.measures.localisation import localisation_scores
from studies.lesson import prompts_of, shown_scenes
from studies.relevance import (
    AT_ONCE,
    layer_maps,
    located,
    maps_by,
    null_mean,
    on_highest,
    on_own,
)


@pytest.fixture
def two_things():
    """Masks of two things that do not touch, (2, 6, 8)."""
    masks = np.zeros((2, 6, 8), bool)
    masks[0, 1:3, 1:4] = True
    masks[1, 4:, 5:] = True
    return masks


def test_of_several_things_each_is_measured_as_it_would_be_alone(two_things):
    rng = np.random.default_rng(0)
    for _ in range(20):
        heat = rng.normal(size=(6, 8))
        for mask, place in zip(two_things, located(heat, two_things), strict=True):
            alone = localisation_scores(heat, mask)
            assert place.hit == pytest.approx(alone["pointing_game"])
            assert place.on_thing == pytest.approx(alone["energy_pointing_game"])
            assert sum(place[1:]) == pytest.approx(1)


def test_what_lies_on_one_thing_lies_on_the_others_other_thing(two_things):
    heat = 3.0 * two_things[0] + 1.0 * two_things[1] - 1.0 * ~two_things.any(0)
    first, second = located(heat, two_things)
    assert first == pytest.approx((1, 0.75, 0.25, 0))
    assert second == pytest.approx((0, 0.25, 0.75, 0))


def test_a_map_that_knows_nothing_scores_the_areas(two_things):
    areas = two_things.mean((1, 2))
    first, second = located(np.full((6, 8), -2.0), two_things)
    nothing = 1 - areas.sum()
    assert first == pytest.approx((areas[0], areas[0], areas[1], nothing))
    assert second == pytest.approx((areas[1], areas[1], areas[0], nothing))


def test_of_each_thing_its_own_map_is_measured_and_how_concentrated_it_is(two_things):
    on_thing = two_things.astype(float)
    on_second = on_thing[::-1]
    parts = on_own(np.stack([on_thing, on_second]), [two_things, two_things])
    assert parts[0] == pytest.approx(np.array([[1, 0, 0], [1, 0, 0]]))
    assert parts[1] == pytest.approx(np.array([[0, 1, 0], [0, 1, 0]]))

    empty = -on_thing
    highest = on_highest(np.stack([on_thing, empty]))
    assert highest == pytest.approx([4 / 6, 4 / 48])


def test_explainers_that_share_a_trace_give_the_maps_that_each_gives_alone(bundled):
    scenes = shown_scenes(AT_ONCE + 1)
    images = [scene.image(96) for scene in scenes]
    prompts = [text for scene in scenes for text in prompts_of(scene)]
    texts = Explainer(bundled).embed_texts(prompts).unflatten(0, (-1, 2))
    explainers = {
        "last layer": Explainer(bundled, image_layers=1),
        "one head": Explainer(
            bundled,
            method="grad-eclip-single-head",
            image_layers=1,
        ),
        "GAME": Explainer(bundled, method="game"),
        "two layers": Explainer(bundled, image_layers=2),
        "attention": Explainer(bundled, method="attention", image_layers=1),
    }
    together = maps_by(explainers, images, texts)
    for name, explainer in explainers.items():
        alone = explainer.maps(images, texts).numpy()
        assert np.abs(together[name] - alone).max() <= 1e-5 * np.abs(alone).max()


def test_the_sums_over_the_last_layers_are_the_maps_through_so_many_layers(bundled):
    images = [scene.image(96) for scene in shown_scenes(2)]
    texts = Explainer(bundled).embed_texts(["a dog", "a cat"]).expand(2, -1, -1)
    by_kind = layer_maps(bundled, images, texts, ["loosened", "softmax"])
    for kind, name in [("loosened", "grad-eclip"), ("softmax", "grad-eclip-softmax")]:
        through = by_kind[kind].cumsum(axis=2)
        for layers in (1, 3):
            alone = Explainer(bundled, method=name, image_layers=layers).maps(images, texts).numpy()
            difference = np.abs(through[:, :, layers - 1] - alone).max()
            assert difference <= 1e-5 * np.abs(alone).max()


def test_the_lead_is_a_similarity_less_its_mean_over_null_captions(bundled):
    explainer = Explainer(bundled)
    image = explainer.embed_images([shown_scenes(1)[0].image(96)])[0]
    text = explainer.embed_texts(["a dog"])[0]
    nulls = explainer.embed_texts(explainer.null_captions)
    expected = image @ text - np.mean([float(image @ null) for null in nulls])
    assert float(image @ (text - null_mean(explainer))) == pytest.approx(float(expected), abs=1e-6)
