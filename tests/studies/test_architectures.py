"""Architectures: one method for all, its promises, and measures that are fair to every grid."""

import numpy as np
import pandas as pd
import pytest
import torch

from gradeclip_utils import Explainer
from gradeclip_utils.methods.grad_eclip import grad_eclip
from gradeclip_utils.scenes import phrase
from studies import architectures
from studies.architectures import (
    architecture_table,
    maps_again,
    maps_by_query,
    maps_of_things,
    on_things,
    plot_agreement,
    plot_model_maps,
    trace_deviations,
    two_thing_scenes,
)
from studies.pairs import images_of
from tests.conftest import build, wrap
from tests.shrinking import stir


@pytest.fixture(scope="module")
def resnet():
    config = {"layers": [1, 1, 1, 1], "width": 16, "head_width": 64, "image_size": 64}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return wrap(stir(build(config)), 64)


def test_the_table_of_architectures_is_what_their_traces_say(tiny, averaging, resnet):
    clips = {"CLS": tiny, "average": averaging, "ResNet": resnet}
    table = architecture_table({name: Explainer(clip) for name, clip in clips.items()})
    assert list(table.loc["query tokens"]) == [1, 16, 1]
    assert list(table.loc["key tokens"]) == [17, 17, 5]
    assert list(table.loc["map"]) == ["4 x 4", "4 x 4", "2 x 2"]
    assert table.loc["read by", "ResNet"] == "the mean of the patches reads"


@pytest.mark.parametrize("name", ["tiny", "averaging", "resnet"])
def test_promises_are_kept_by_every_architecture(name, picture, request):
    clip = request.getfixturevalue(name)
    deviations = trace_deviations(clip, picture, "a red car")
    assert deviations["trace"] < 1e-5
    assert deviations["collects"] < 1e-9
    assert deviations["identity"] < 1e-5


def test_a_broken_promise_would_be_seen(tiny, picture, monkeypatch):
    gradient = architectures.attention_gradient
    monkeypatch.setattr(
        architectures, "attention_gradient", lambda weights, v: 1.01 * gradient(weights, v)
    )
    assert trace_deviations(tiny, picture, "a red car")["identity"] > 5e-3


def test_maps_of_queries_add_up_to_the_map(averaging, pixels, ids):
    explainer = Explainer(averaging)
    tower = explainer.image_tower
    trace = tower.trace(pixels[:1])
    (direction,) = explainer.text_tower.forward(ids[:1])
    by_query = maps_by_query(tower, trace, direction)
    maps = grad_eclip(tower, trace, direction[None, None])  # (1, 1, 17)
    assert by_query.shape == (16, 16)
    assert torch.allclose(by_query.sum(0), maps[0, 0, 1:], atol=1e-6)
    assert by_query.std(0).max() > 1e-6, "queries must differ"


def test_maps_of_both_things_are_those_of_explain(tiny):
    explainer = Explainer(tiny)
    scenes = two_thing_scenes(2)
    for maps, scene in zip(maps_of_things(explainer, scenes), scenes, strict=True):
        prompts = [phrase(thing.noun) for thing in scene.objects]
        explanation = explainer.explain(scene.image(96), prompts)
        np.testing.assert_allclose(maps, explanation.image_maps, atol=1e-5)


def test_relevance_on_a_thing_is_one_for_a_map_inside_of_it_and_its_area_for_an_even_map():
    scenes = two_thing_scenes(3)
    masks = np.array([scene.masks(96) for scene in scenes])
    cells = masks.reshape(3, 2, 12, 8, 12, 8)
    coverage = cells.mean(axis=(3, 5))  # (scenes, things, 12, 12)
    inside = (coverage == 1).astype(float)

    table = on_things(inside, scenes)
    has_map = inside.any(axis=(2, 3))
    with_a_map = table[has_map.ravel()]
    assert set(with_a_map["own"]) == {1}
    assert with_a_map["other"].max() < 0.2
    areas = coverage.mean(axis=(2, 3))
    np.testing.assert_allclose(table["area"], areas.ravel(), rtol=1e-6)
    assert (table["best"] > table["area"]).all()
    assert table["best"].max() <= 1


def test_the_figure_has_a_row_a_prompt_and_a_column_a_model(tiny, averaging, picture):
    explainers = {"CLS": Explainer(tiny), "average": Explainer(averaging)}
    figure = plot_model_maps(explainers, picture, ["a dog", "a car"])
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["a dog", "CLS", "average", "a car", "CLS", "average"]
    assert figure.alt == "Maps of a dog, a car by CLS, average, each divided by its own maximum"


def test_asked_again_of_the_mirrored_image_and_in_other_words_a_map_is_of_the_same_place(tiny):
    """A model that does not tell left from right has the same map of the mirrored image."""
    scenes = two_thing_scenes(2)

    class Mirrored(Explainer):
        def maps(self, images, directions):
            pixels = torch.stack([self.clip.preprocess(image) for image in images])
            return pixels.mean(1)[:, None]  # what the model sees, as a map

    maps = maps_again(Mirrored(tiny), scenes)
    assert np.abs(maps["mirrored"] - maps["photo"]).max() < 0.05

    explainer = Explainer(tiny)
    maps = maps_again(explainer, scenes)
    images = images_of(tiny, scenes)
    for map_, scene, image in zip(maps["photo"], scenes, images, strict=True):
        prompt = f"a photo of {phrase(scene.objects[0].noun)}"
        explanation = explainer.explain(image, prompt)
        np.testing.assert_allclose(map_, explanation.image_maps[0], atol=1e-6)


def test_the_figure_of_agreement_has_its_numbers_in_words():
    table = pd.DataFrame(
        {"CLS": [1.0, 0.42], "itself, mirrored": [0.62, np.nan]}, index=["CLS", "ResNet"]
    )
    figure = plot_agreement(table)
    assert figure.alt.endswith("CLS: CLS 1.00, itself, mirrored 0.62; ResNet: CLS 0.42")
