"""Relevance: where a map lies when several things have masks."""

import numpy as np
import pytest
import torch

from gradeclip_utils import Explainer
from gradeclip_utils.measures.localisation import localisation_scores
from gradeclip_utils.measures.sanity import randomised
from gradeclip_utils.towers import Tower
from studies import relevance
from studies.lesson import prompts_of, shown_scenes
from studies.relevance import (
    layer_maps,
    located,
    maps_by,
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
        places = located(heat, two_things)
        for mask, place in zip(two_things, places, strict=True):
            alone = localisation_scores(heat, mask)
            assert place.hit == pytest.approx(alone["pointing_game"])
            assert place.on_thing == pytest.approx(alone["energy_pointing_game"])
            assert sum(place[1:]) == pytest.approx(1)


def test_what_lies_on_one_thing_lies_on_the_others_other_thing(two_things):
    first, second = two_things
    outside = ~(first | second)
    heat = 3.0 * first + 1.0 * second - 1.0 * outside
    first, second = located(heat, two_things)
    assert first == pytest.approx((1, 0.75, 0.25, 0))
    assert second == pytest.approx((0, 0.25, 0.75, 0))


def test_a_map_that_knows_nothing_scores_the_areas(two_things):
    first_area, second_area = two_things.mean(axis=(1, 2))
    nothing = 1 - first_area - second_area
    constant = np.full((6, 8), -2.0)
    first, second = located(constant, two_things)
    assert first == pytest.approx((first_area, first_area, second_area, nothing))
    assert second == pytest.approx((second_area, second_area, first_area, nothing))


def test_of_each_thing_its_own_map_is_measured_and_how_concentrated_it_is(two_things):
    on_canvas = np.kron(two_things, np.ones((16, 12), bool))  # (2, 96, 96)
    on_second_thing = on_canvas[::-1]
    maps = np.stack([on_canvas, on_second_thing]).astype(float)
    of_first, of_second = on_own(maps, [on_canvas, on_canvas])
    on_own_thing = [1, 0, 0]
    on_other_thing = [0, 1, 0]
    np.testing.assert_allclose(of_first, [on_own_thing] * 2)
    np.testing.assert_allclose(of_second, [on_other_thing] * 2)

    on_thing = two_things.astype(float)
    without_positive_part = -on_thing
    highest = on_highest(np.stack([on_thing, without_positive_part]))
    assert highest == pytest.approx([4 / 6, 4 / 48])


def assert_same_maps(maps, expected):
    tolerance = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(maps, expected, atol=tolerance, rtol=0)


def test_explainers_that_share_a_trace_give_the_maps_that_each_gives_alone(bundled, monkeypatch):
    monkeypatch.setattr(relevance, "AT_ONCE", 2)
    scenes = shown_scenes(3)
    images = [scene.image(96) for scene in scenes]
    explainer = Explainer(bundled)
    texts = [explainer.embed_texts(prompts_of(scene)) for scene in scenes]
    texts = torch.stack(texts)  # (3, 2, E)
    explainers = {
        "one head": Explainer(bundled, method="grad-eclip-single-head", image_layers=1),
        "attention": Explainer(bundled, method="attention", image_layers=1),
        "GAME": Explainer(bundled, method="game"),
        "two layers": Explainer(bundled, image_layers=2),
        "random weights": Explainer(randomised(bundled), image_layers=1),
    }
    together = maps_by(explainers, images, texts)
    for name, explainer in explainers.items():
        alone = explainer.maps(images, texts)
        assert_same_maps(together[name], alone.numpy())


def test_the_sums_over_the_last_layers_are_the_maps_through_so_many_layers(bundled):
    images = [scene.image(96) for scene in shown_scenes(2)]
    texts = Explainer(bundled).embed_texts(["a dog", "a cat"]).expand(2, -1, -1)
    by_kind = layer_maps(bundled, images, texts, ["loosened", "softmax"])
    for kind, name in [("loosened", "grad-eclip"), ("softmax", "grad-eclip-softmax")]:
        through = by_kind[kind].cumsum(axis=2)
        for layers in (1, 3):
            explainer = Explainer(bundled, method=name, image_layers=layers)
            alone = explainer.maps(images, texts)
            maps = through[:, :, layers - 1]
            assert_same_maps(maps, alone.numpy())


def test_explainers_of_one_model_and_depth_trace_a_batch_once_between_them(bundled, monkeypatch):
    scene = shown_scenes(1)[0]
    texts = Explainer(bundled).embed_texts(prompts_of(scene))[None]
    explainers = {}
    for method in ("grad-eclip", "maskclip", "attention", "clip-surgery"):
        explainers[method] = Explainer(bundled, method=method, image_layers=1)
    explainers["two layers"] = Explainer(bundled, image_layers=2)

    traced = []
    trace = Tower.trace

    def counted(tower, inputs, graph=None):
        if inputs.ndim == 4:
            traced.append(tower.layers)
        return trace(tower, inputs, graph)

    monkeypatch.setattr(Tower, "trace", counted)
    maps_by(explainers, [scene.image(96)], texts)
    assert sorted(traced) == [1, 2]
