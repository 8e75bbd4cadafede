"""The explorer without a browser: what a state gives, what is refused, and what is shown of it."""

import json
import re
import signal
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from gradeclip_utils import Explainer
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.panels import explore
from gradeclip_utils.panels.session import Session, State, _sentence
from gradeclip_utils.scenes import arrange

CAPTION = "a red car and a blue ball"
KNOWN = frozenset("a an and the dog cat car red ball umbrella piano".split())


@pytest.fixture
def session(tiny):
    return Session(tiny)


@pytest.fixture
def state(picture):
    return State(picture, CAPTION)


@pytest.fixture
def panel(tiny, picture):
    return explore(picture, CAPTION, tiny)


@pytest.fixture
def drawn(tiny):
    """A panel whose model knows few words, on a scene."""
    return explore(arrange(["dog", "umbrella"], seed=3), "a dog", replace(tiny, vocabulary=KNOWN))


def test_a_view_holds_what_the_explainer_finds(session, state, tiny):
    for method in ("grad-eclip", "rollout", "grad-eclip-softmax"):
        found = Explainer(tiny, method=method).explain(state.source.image, CAPTION)
        view = session.view(replace(state, method=method))
        np.testing.assert_allclose(view.map, found.image_maps[0], atol=1e-6)
        assert view.explanation.words == found.words


@pytest.mark.parametrize(
    "options", [{}, {"layers": 3}, {"resolution": "native"}, {"method": "grad-eclip-single-head"}]
)
def test_a_phrase_is_the_sum_of_its_words_and_a_patch_is_a_column(session, state, tiny, options):
    state = replace(state, caption="a red car", **options)
    options = {
        "image_layers" if name == "layers" else name: value
        for name, value in ({"layers": 1} | options).items()
    }
    maps = Explainer(tiny, **options).interactions(state.source.image, "a red car").maps
    np.testing.assert_allclose(
        session.view(replace(state, phrase=(1, 2))).map, maps[1] + maps[2], atol=1e-6
    )
    shown = session.view(replace(state, patch=(3, 1))).drawing()
    np.testing.assert_allclose(
        [cell[0].score for cell in shown.panels[0].cells], maps[:, 3, 1], atol=1e-6
    )


def test_things_are_told_apart_by_what_they_share(session, state, tiny):
    whole = Explainer(tiny).interactions(state.source.image, CAPTION)
    view = session.view(replace(state, phrase=(2, 2)))
    np.testing.assert_allclose(view.map, whole.centred([2, 6]).maps[2], atol=1e-6)


def test_an_image_is_traced_once_whatever_is_wanted_of_it(session, state, tiny):
    runs = []
    with tiny.model.visual.conv1.register_forward_hook(lambda *_: runs.append(1)):
        session.view(state)
        first = len(runs)
        session.view(replace(state, phrase=(1, 2)))
        session.view(replace(state, caption="a dog"))
    assert len(runs) == first


@pytest.mark.parametrize(
    "fields", [{"phrase": (1, 9)}, {"patch": (9, 0)}, {"caption": "a dog", "against": " " * 3}]
)
def test_what_is_not_there_is_refused(session, state, fields):
    with pytest.raises(GradeclipError):
        session.view(replace(state, **fields))


def test_unknown_words_are_struck_out_and_the_rest_is_explained(drawn):
    drawn.change(caption="the happy dog and the umbrellas")
    assert drawn.view.state.caption == "the dog and the"
    struck = {one["text"]: one["near"] for one in drawn.data["struck"]}
    assert set(struck) == {"happy", "umbrellas"} and "umbrella" in struck["umbrellas"]
    drawn.change(caption=" ".join(f"umbrel{letter}" for letter in "bcdefghijk"))
    assert (
        drawn.message.startswith("The model 'tiny' does not know “umbrelb”, ")
        and "and 2 more. The" in drawn.message
    )
    assert (
        "umbrella" in drawn.data["struck"][0]["near"]
        and drawn.data["struck"][8]["text"] == "and 2 more"
    )
    drawn.change(
        layers=2
    )  # the caption that is explained, as it was typed, stands in the field again
    caption = next(one for one in drawn.data["controls"] if one["name"] == "caption")
    assert (
        caption["value"] == "the happy dog and the umbrellas"
        and drawn.view.state.caption == "the dog and the"
    )


def test_a_wrong_value_is_answered_and_the_last_view_stays(panel):
    before = panel.view
    for wrong in (
        {"caption": 5},
        {"method": "none"},
        {"layers": 99},
        {"colour": "red"},
        {"model": "none"},
    ):
        panel.change(**wrong)
        assert panel.view is before and "still shows the last view" in panel.message
    panel.change(caption="a dog")
    assert panel.message == "" and panel.view.state.caption == "a dog"


def test_a_new_image_is_shown_alone_with_an_empty_caption_and_becomes_a_thumbnail(panel):
    count = len(panel.shelf)
    panel.press({"kind": "image", "name": "notes.txt"}, [b"no image"])
    assert panel.message.startswith("notes.txt") and len(panel.shelf) == count == 1
    panel.open_image(Image.new("RGB", (60, 40), "red"), "red.png")
    assert panel.view.explanation is None and panel.data["panels"] == [] and panel.data["empty"]
    assert len(panel.shelf) == len(panel.thumbnails) == count + 1
    panel.change(caption="a dog")
    assert (
        panel.view.explanation.prompts == ("a dog",)
        and "image = read_image('red.png')  #" in panel.python()
    )
    panel.press({"kind": "scene", "index": 0})
    assert panel.view.state.caption == CAPTION  # the start is the first thumbnail


def test_an_image_of_ones_own_is_spoken_of_only_where_the_model_knows_drawn_scenes(panel, drawn):
    assert panel.data["message"]["text"] == "" and panel.data["sentences"]["all"] == ""
    drawn.open_image(Image.new("RGB", (60, 40), "red"), "red.png")
    drawn.change(caption="a dog")
    assert re.fullmatch(
        "The model .* trained on drawn scenes alone.*[.]", drawn.data["message"]["text"]
    )


def test_a_pinned_map_stands_beside_the_next_one_with_their_difference_until_the_reset(panel):
    start = panel.view.state
    panel.pin()
    panel.change(caption="a dog")
    one, other, difference = panel.data["panels"]
    assert [panel["name"] for panel in (one, other)] == ["a dog", CAPTION]
    maps = [np.maximum(view.explanation.image_maps[0], 0) for view in (panel.view, panel.beside)]
    top = max(map_.max() for map_ in maps)
    np.testing.assert_allclose(difference["map"], ((maps[0] - maps[1]) / top).ravel(), atol=1e-3)
    assert len(panel.figure().axes) >= 6
    panel.models["twin"] = replace(panel.models["tiny"], name="twin")
    panel.change(model="twin")
    assert [one["cells"][-1][0]["text"] for one in panel.data["panels"][:2]] == ["· twin", "· tiny"]
    panel.open_image(Image.new("RGB", (60, 40), "red"), "red.png")
    assert panel.data["panels"] == []  # no caption yet, and nothing to compare
    panel.change(caption="a dog")
    assert (
        len(panel.data["panels"]) == 3
        and "The pinned caption is explained on the new image, too." in panel.message
    )
    panel.press({"kind": "unpin"})
    assert len(panel.data["panels"]) == 1
    panel.change(phrase=(0, 1))
    panel.pin()
    one, other, difference = panel.data["panels"]
    assert (
        one["map"] == other["map"]
        and not any(difference["map"])
        and other["cells"][2][0]["text"] == "· “a dog”"
    )
    panel.change(layers=2, resolution="native")
    panel.reset()
    assert panel.view.state == start and panel.pinned is None


def test_the_script_computes_what_is_shown(panel):
    for fields in (
        {},
        {"phrase": (1, 2)},
        {"against": "a dog"},
        {"method": "rollout"},
        {"layers": 2},
    ):
        panel.reset()
        panel.change(**fields)
        assert panel.data["signed"] == ("against" in fields)
        names = {"image": panel.view.state.source.image, "clip": panel.models["tiny"]}
        lines = [
            line for line in panel.python().splitlines() if not re.match(r"(image|clip) = ", line)
        ]
        exec("\n".join(lines), names)
        np.testing.assert_allclose(names["map_"], panel.view.map, atol=1e-5)


def test_save_writes_the_whole_figure_and_overwrites_nothing(panel, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("found", "found.png"):
        panel.press({"kind": "save", "name": name})
    assert {path.name for path in tmp_path.iterdir()} == {
        "found.png",
        "found-2.png",
    } and "found-2.png" in panel.message
    image, figure = Image.open(tmp_path / "found.png"), panel.figure()
    assert image.height >= 0.9 * figure.get_figheight() * 100
    panel.save("a\0b")
    assert "Saved" not in panel.message


def test_a_page_without_a_kernel_shows_the_same_view(drawn):
    text = drawn._repr_mimebundle_()[0]["text/html"]
    view = json.loads(re.search(r'<script type="application/json">(.*?)</script>', text, re.S)[1])[
        "data"
    ]
    assert view["panels"] == json.loads(json.dumps(drawn.data["panels"])) and "<img" in text


def test_sentences_tell_where_relevance_lies_on_a_scene():
    scene = arrange(["dog", "umbrella"], seed=3)
    dog = scene.masks(96)[0].reshape(12, 8, 12, 8).mean((1, 3))
    assert _sentence(scene, dog, "a dog") == (
        "78% of the relevance of “a dog” lies on the dog, which covers 7% of the image."
    )
    assert _sentence(scene, dog, "an umbrella").endswith("The maximum lies on the dog.")
    assert _sentence(scene, dog, "a piano").startswith("There is no piano in this image.")
    assert _sentence(None, dog, "a dog") == "" and "no relevance" in _sentence(
        scene, 0 * dog, "a dog"
    )
    tagged = arrange(
        ["bee"], tag=["honey"], named=[False]
    )  # of its own caption a scene knows what each word is about
    assert " lies on the bee, " in _sentence(tagged, np.ones((12, 12)), tagged.caption)


def test_scenes_stand_beside_the_start_which_can_be_changed_and_put_back(drawn):
    assert [len(source.scene.objects) for source in drawn.shelf] == [2, 1, 2, 3, 4]
    for _ in range(2):  # the second one comes too late
        drawn.press({"kind": "scene", "name": "take the dog away"})
        assert drawn.message == "" and drawn.busy == {}
    assert len(drawn.view.state.source.scene.objects) == 1 and drawn.view.state.caption == "a dog"
    drawn.press({"kind": "scene", "name": "put it back"})
    assert len(drawn.view.state.source.scene.objects) == 2
    drawn.press({"kind": "scene", "name": "ask for a piano"})
    assert drawn.view.state.caption == "a piano" and "ask for a piano" not in drawn.data["changes"]


def test_a_computation_that_is_stopped_leaves_the_last_view(panel, monkeypatch):
    before, old = (
        panel.view,
        signal.signal(signal.SIGINT, signal.SIG_IGN),
    )  # as it is in a kernel that runs no cell
    monkeypatch.setattr(Explainer, "explain", lambda *_: signal.raise_signal(signal.SIGINT))
    panel.press({"kind": "change", "fields": {"caption": "a dog"}})
    assert signal.signal(signal.SIGINT, old) == signal.SIG_IGN
    assert panel.view is before and panel.message.startswith("Stopped") and panel.busy == {}
