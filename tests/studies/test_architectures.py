"""Architectures: one method for all of them, its promises kept, and comparisons that are fair."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from gradeclip_utils import Explainer
from gradeclip_utils.methods.grad_eclip import grad_eclip
from gradeclip_utils.panels.session import Session
from gradeclip_utils.plots import InlineFigure, draw_heatmap
from studies import architectures as r
from tests.conftest import build, wrap
from tests.shrinking import small, stir

pytestmark = pytest.mark.usefixtures("legible")


def siglip():
    return replace(wrap(small("ViT-B-16-SigLIP"), 48), tokenizer=None)


@pytest.fixture(scope="module")
def resnet():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return wrap(stir(build({"layers": [1, 1, 1, 1], "width": 16, "head_width": 64, "image_size": 64})), 64)


def test_the_table_of_architectures_is_what_their_traces_say(tiny, averaging, resnet):
    table = r.architecture_table({"CLS": tiny, "average": averaging, "ResNet": resnet})
    assert list(table.loc["query tokens"]) == [1, 16, 1]
    assert list(table.loc["key tokens"]) == [17, 17, 5]
    assert list(table.loc["map"]) == ["4 x 4", "4 x 4", "2 x 2"]
    assert table.loc["query token", "ResNet"] == "the mean of the patches reads"


@pytest.mark.parametrize("name", ["tiny", "averaging", "resnet"])
def test_promises_are_kept_by_every_architecture(name, picture, request):
    found = r.trace_deviations(request.getfixturevalue(name), picture, "a red car")
    assert found["trace"] < 1e-5 and found["collects"] < 1e-9 and found["identity"] < 1e-5


def test_a_broken_promise_would_be_seen(tiny, picture, monkeypatch):
    right = r.attention_gradient
    monkeypatch.setattr(r, "attention_gradient", lambda weights, v: 1.01 * right(weights, v))
    assert r.trace_deviations(tiny, picture, "a red car")["identity"] > 5e-3


def test_maps_of_queries_add_up_to_the_map(averaging, pixels, ids):
    explainer = Explainer(averaging)
    trace = explainer.image_tower.trace(pixels[:1])
    direction = explainer.text_tower.forward(ids[:1])[0]
    apart = r.maps_by_query(explainer.image_tower, trace, direction)
    expected = grad_eclip(explainer.image_tower, trace, direction[None, None])[0, 0, 1:]
    assert apart.shape == (16, 16)
    assert torch.allclose(apart.sum(0), expected, atol=1e-6)
    assert apart.std(0).max() > 1e-6, "queries must differ"


def test_maps_on_a_common_grid_keep_the_mean_of_a_cell(tiny):
    examples = r.two_thing_examples(3)
    cells = r.maps_on_common_grid(tiny, examples, [one.prompt for one in examples], grid=4)
    maps = np.stack([Explainer(tiny).explain(one.image(), one.prompt).image_maps[0] for one in examples])
    assert cells.shape == maps.shape == (3, 4, 4)
    assert all(np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.8 for a, b in zip(cells, maps, strict=True))


def test_a_model_agrees_with_itself_and_a_stranger_does_not():
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(20, 4, 4))
    table = r.map_agreement({"one": maps, "same": maps, "other": rng.normal(size=(20, 4, 4))}).set_index(
        ["one", "other"]
    )
    assert table.loc[("one", "same"), "mean"] == pytest.approx(1)
    assert table.loc[("one", "other"), "low"] < 0 < table.loc[("one", "other"), "high"]


def test_scenes_hold_two_things_of_which_one_is_asked_for():
    examples = r.two_thing_examples(5)
    assert len(examples) == 5 and all(len(one.present) == 2 and one.concept in one.present for one in examples)
    assert all(one.key.startswith("development") for one in examples)


def test_the_gallery_has_a_row_for_every_prompt_and_a_column_for_every_model(tiny, averaging, picture):
    sessions = {"CLS": Session(tiny), "average": Session(averaging)}
    figure = r.plot_model_maps(sessions, picture, ["a dog", "a red car"])
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]
    assert titles == ["a dog", "CLS", "average", "a red car", "CLS", "average"]
    parts = {}
    for name, session in sessions.items():
        maps = [session.explain(picture, prompt).image_maps[0] for prompt in ("a dog", "a red car")]
        falling = [np.sort(np.maximum(map_, 0), axis=None)[::-1].cumsum() for map_ in maps]
        halves = [(np.count_nonzero(one < one[-1] / 2) + 1) / one.size for one in falling if one[-1] > 0]
        parts[name] = sum(halves) / len(halves)
    (least, narrow), (most, wide) = sorted((part, name) for name, part in parts.items())
    told = figure.texts[0].get_text().replace("\n", " ")
    assert told.endswith(f"on {least:.0%} of the image by {narrow}, on {most:.0%} of the image by {wide}")
    columns = [{round(axes.get_position().x0, 3) for axes in figure.axes[i:6:3]} for i in range(3)]
    assert all(len(places) == 1 for places in columns), "a model stands in one column"


def test_the_gallery_shows_every_map_by_its_own_maximum_and_tells_how_far_it_is(tiny, averaging, picture):
    sessions, told = {"CLS": Session(tiny), "average": Session(averaging)}, []
    figure = r.plot_model_maps(sessions, picture, ["a dog", "a red car"], told.append)
    own, axes = Explainer(averaging).explain(picture, "a red car"), InlineFigure(2, 2).add_axes((0, 0, 1, 1))
    draw_heatmap(axes, own.image, own.heatmap(0))
    np.testing.assert_allclose(figure.axes[-1].images[0].get_array(), axes.images[0].get_array(), atol=1e-5)
    assert told == sorted(told) and set(told) == {0, 0.25, 0.5, 0.75}


def test_another_prompt_does_not_look_at_an_equal_picture_again(tiny, picture):
    sessions, looks = {"CLS": Session(tiny)}, []
    hook = tiny.model.visual.conv1.register_forward_hook(lambda *_: looks.append(1))
    try:
        r.plot_model_maps(sessions, picture, ["a dog"])
        first = len(looks)
        r.plot_model_maps(sessions, picture.copy(), ["a red car"])
        assert len(looks) == first > 0
        r.plot_model_maps(sessions, picture.rotate(90), ["a dog"])
        assert len(looks) > first
    finally:
        hook.remove()


def test_a_gallery_shows_the_picture_as_it_was_read_and_every_prompt(tiny, picture, tmp_path):
    """A file may say that it stands on its side; then the map does not, and nor does the picture beside it."""
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turned by 90 degrees
    picture.save(tmp_path / "turned.jpg", exif=exif)
    turned = Image.open(tmp_path / "turned.jpg")
    figure = r.plot_model_maps({"CLS": Session(tiny)}, turned, ["a dog", "a dog"])
    shapes = {axes.images[0].get_array().shape[:2] for axes in figure.axes}
    assert shapes == {(picture.width, picture.height)} and len(figure.axes) == 4


def test_a_tokenizer_without_words_takes_part_in_a_gallery(tiny, picture):
    def ids_only(prompts, tokenizer=tiny.tokenizer):
        return tokenizer(prompts)

    session = Session(replace(tiny, tokenizer=ids_only))
    own = Explainer(tiny).explain(picture, "a dog")
    np.testing.assert_array_equal(session.explain(picture, "a dog").image_maps, own.image_maps)
    assert len(r.plot_model_maps({"CLS": session}, picture, ["a dog"]).axes) == 2
