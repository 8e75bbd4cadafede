"""Causal: the effect of an object is that of taking it out, and a map is judged by what it says of it."""

import numpy as np
import pandas as pd
import pytest
from gradeclip_utils.measures.maps import method_maps
from scipy.stats import spearmanr

from gradeclip_utils import Explainer
from gradeclip_utils.methods import METHODS
from gradeclip_utils.scenes import draw_scene, without
from gradeclip_utils.towers import Tower
from studies.causal import causal, causal_agreement
from tests.conftest import build, wrap

SCENES = [draw_scene([95, i], split="development", n_objects=3) for i in range(3)]


@pytest.fixture(scope="module")
def effects(bundled):
    return causal(bundled, SCENES, ["grad-eclip", "attention"])


def test_a_fall_is_the_similarity_of_the_scene_less_that_of_the_scene_drawn_without_the_object(bundled, effects):
    explainer = Explainer(bundled)
    for k, scene in enumerate(SCENES):
        before = explainer.explain(scene.image(), scene.caption).similarity[0]
        for i in range(3):
            after = explainer.explain(without(scene, i).image(), scene.caption).similarity[0]
            some = effects[(effects["image"] == k) & (effects["object"] == i)]
            np.testing.assert_allclose(some["effect"], before - after, atol=1e-5)
            assert len(some) == 4 and set(some["noun"]) == {scene.objects[i].noun}


def test_sums_are_those_of_the_heat_map_on_the_object_and_all_of_it_is_there(bundled, effects):
    scene = SCENES[0]
    heat = Explainer(bundled).explain(scene.image(), scene.caption).heatmap(0, signed=True)
    masks = scene.masks()
    some = effects[(effects["image"] == 0) & (effects["method"] == "grad-eclip")]
    by_hand = [heat[mask].sum() / heat.size for mask in masks]
    nearly = 0.02 * np.abs(by_hand).max()  # here of 384 pixels, there of 96
    np.testing.assert_allclose(some["sum"], by_hand, atol=nearly)
    area = effects[(effects["image"] == 0) & (effects["method"] == "area")]
    np.testing.assert_allclose(area["sum"], [mask.mean() for mask in scene.masks(96)], rtol=1e-5)


def test_a_map_that_says_the_true_effects_agrees_fully_and_one_that_says_the_opposite_not_at_all(effects):
    one = effects[effects["method"] == "area"]
    knows, denies = one.assign(method="knows", sum=one["effect"]), one.assign(method="denies", sum=-one["effect"])
    found = causal_agreement(pd.concat([knows, denies, one])).set_index("method")
    assert (found.loc["knows", ["correlation", "first"]] == 1).all(axis=None)
    assert (found.loc["denies", "correlation"] == -1).all() and (found.loc["denies", "first"] == 0).all()
    for k in range(3):
        part = one[one["image"] == k]
        expected = spearmanr(part["sum"], part["effect"]).statistic
        assert found.loc["area", "correlation"].iloc[k] == pytest.approx(expected)


def test_a_map_that_says_nothing_agrees_with_nothing_and_lone_objects_are_left_out(effects):
    one = effects[effects["method"] == "area"].assign(sum=0.0)
    found = causal_agreement(one)
    assert (found["correlation"] == 0).all() and found["first"].tolist() == pytest.approx([1 / 3] * 3)
    assert causal_agreement(one[one["object"] == 0]).empty


def test_what_cannot_be_ranked_is_refused(bundled):
    with pytest.raises(ValueError, match="'leave-one-out' is no method that explains images"):
        causal(bundled, SCENES, "leave-one-out")
    for scenes in ([], [draw_scene(0, n_objects=1)]):
        with pytest.raises(ValueError, match="give scenes, each of two objects or more"):
            causal(bundled, scenes)


def test_an_image_that_is_traced_once_for_many_methods_has_the_maps_that_each_gives_alone(monkeypatch):
    model = wrap(build(text={"context_length": 77}))
    quick = [name for name, method in METHODS.items() if method.image and name not in ("rise", "fixlip", "m2ib")]
    images, traced, trace = [scene.image(96) for scene in SCENES], [], Tower.trace
    texts = Explainer(model).embed_texts([scene.caption for scene in SCENES])[:, None]
    alone = {name: Explainer(model, method=name).maps(images, texts).numpy() for name in quick}
    monkeypatch.setattr(Tower, "trace", lambda tower, *given: traced.append(tower.layers) or trace(tower, *given))
    together = method_maps(model, quick, images, texts)
    assert list(together) == quick and len(traced) < len(quick) / 2
    for name, maps in together.items():
        np.testing.assert_allclose(maps, alone[name], atol=1e-5 * np.abs(maps).max(), err_msg=name)
