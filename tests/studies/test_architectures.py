"""Architectures: one method for all, its promises, and measures that are fair to every grid."""

import numpy as np
import pytest
import torch

from gradeclip_utils import Explainer
from gradeclip_utils.methods.grad_eclip import grad_eclip
from gradeclip_utils.scenes import phrase
from studies import architectures as r
from tests.conftest import build, wrap
from tests.shrinking import stir


@pytest.fixture(scope="module")
def resnet():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return wrap(
            stir(
                build(
                    {
                        "layers": [1, 1, 1, 1],
                        "width": 16,
                        "head_width": 64,
                        "image_size": 64,
                    }
                )
            ),
            64,
        )


def test_the_table_of_architectures_is_what_their_traces_say(tiny, averaging, resnet):
    clips = {"CLS": tiny, "average": averaging, "ResNet": resnet}
    table = r.architecture_table({name: Explainer(clip) for name, clip in clips.items()})
    assert list(table.loc["query tokens"]) == [1, 16, 1]
    assert list(table.loc["key tokens"]) == [17, 17, 5]
    assert list(table.loc["map"]) == ["4 x 4", "4 x 4", "2 x 2"]
    assert table.loc["read by", "ResNet"] == "the mean of the patches reads"


@pytest.mark.parametrize("name", ["tiny", "averaging", "resnet"])
def test_promises_are_kept_by_every_architecture(name, picture, request):
    found = r.trace_deviations(
        request.getfixturevalue(name),
        picture,
        "a red car",
    )
    assert found["trace"] < 1e-5 and found["collects"] < 1e-9 and found["identity"] < 1e-5


def test_a_broken_promise_would_be_seen(tiny, picture, monkeypatch):
    right = r.attention_gradient
    monkeypatch.setattr(
        r,
        "attention_gradient",
        lambda weights, v: 1.01 * right(weights, v),
    )
    assert r.trace_deviations(tiny, picture, "a red car")["identity"] > 5e-3


def test_maps_of_queries_add_up_to_the_map(averaging, pixels, ids):
    explainer = Explainer(averaging)
    trace = explainer.image_tower.trace(pixels[:1])
    direction = explainer.text_tower.forward(ids[:1])[0]
    apart = r.maps_by_query(explainer.image_tower, trace, direction)
    expected = grad_eclip(
        explainer.image_tower,
        trace,
        direction[None, None],
    )[0, 0, 1:]
    assert apart.shape == (16, 16)
    assert torch.allclose(apart.sum(0), expected, atol=1e-6)
    assert apart.std(0).max() > 1e-6, "queries must differ"


def test_maps_of_both_things_are_those_of_explain(tiny):
    explainer, scenes = Explainer(tiny), r.two_thing_scenes(2)
    maps = r.maps_of_things(explainer, scenes)
    for both, scene in zip(maps, scenes, strict=True):
        found = explainer.explain(scene.image(96), [phrase(thing.noun) for thing in scene.objects])
        np.testing.assert_allclose(both, found.image_maps, atol=1e-5)


def test_relevance_on_a_thing_is_one_for_a_map_inside_of_it_and_its_area_for_an_even_map():
    scenes = r.two_thing_scenes(3)
    cover = np.stack([[r.pool(mask, (12, 12)) for mask in scene.masks(96)] for scene in scenes])
    inside = (cover >= 1).astype(float)
    found = r.on_things(inside, scenes)
    there = inside.sum((2, 3)).ravel() > 0
    assert (found["own"][there] == 1).all() and (found["other"][there] < 0.2).all()
    assert found["area"].to_numpy() == pytest.approx(cover.mean((2, 3)).ravel())
    assert (found["best"] > found["area"]).all() and (found["best"] <= 1).all()


def test_the_figure_has_a_row_a_prompt_and_a_column_a_model(tiny, averaging, picture):
    figure = r.plot_model_maps(
        {"CLS": Explainer(tiny), "average": Explainer(averaging)}, picture, ["a dog", "a car"]
    )
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["a dog", "CLS", "average", "a car", "CLS", "average"]
    assert figure.alt == "Maps of a dog, a car by CLS, average, each divided by its own maximum"
