"""Panels survive: after any wrong value, from Python or from the browser, the next right one works."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.notices import mark_drawn
from gradeclip_utils.panels.explorer import Explorer
from gradeclip_utils.panels.explorer_view import View
from gradeclip_utils.panels.lesson import panel
from gradeclip_utils.panels.session import Session
from gradeclip_utils.panels.state import State, as_source
from gradeclip_utils.plots import InlineFigure

WRONG = {
    "caption": [None, 5, "", "dog " * 100, "a \ud800 dog", ["a", "dog"], b"dog"],
    "against": [None, 5, "dog " * 100],
    "source": [None, "/nowhere/at/all.png", "nope", 5, np.zeros((3, 3))],
    "phrase": [5, (0,), (0, "x"), (3, 1), (0, 99), (-1, 0), (0.5, 1)],
    "patch": [5, (0,), (0, 99), (-1, 0), ("a", "b")],
    "model": [None, "nobody", 5, ["tiny"]],
    "method": [None, "", "grad-clip", ["rise"], 5],
    "beside": [None, "nothing", 5],
    "attention": [None, "multi", 5],
    "resolution": [None, 224, "big"],
    "layers": [0, -1, 99, 1.5, "x", None, True],
    "spatial": [None, "loose", 5],
    "centred": [None, "yes", float("nan")],
    "shared": [None, "yes"],
    "dependence": [None, "yes"],
    "threshold": [9, -0.1, float("nan"), "x", None, float("inf")],
    "opacity": [-3, 1.1, float("nan"), "x", None],
    "colours": ["zzz", None, 5, "<script>"],
    "loosened": [float("nan")],
}
RIGHT = {"caption": "a blue ball", "layers": 2, "threshold": 0.5, "opacity": 0.4, "colours": "magma", "phrase": (0, 1)}


@pytest.fixture(scope="module")
def shown(tiny):
    noise = np.random.default_rng(0).integers(0, 256, (5, 8, 3), dtype=np.uint8)
    return Explorer(Image.fromarray(noise).resize((80, 50)), "a red car", tiny)


def test_every_field_of_a_state_is_tried_with_wrong_values():
    assert set(State.__dataclass_fields__) <= set(WRONG)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_wrong_value_is_answered_and_the_next_right_one_works(shown, name, value):
    before, view = shown.wanted, shown.view
    shown.change(**{name: value})
    assert shown.data["message"]["kind"] == "wrong" and "What is shown is still the last view" in shown.message
    assert (shown.wanted, shown.view) == (before, view)
    assert all(spec["value"] == getattr(before, spec["name"]) for spec in shown.data["controls"])
    shown.change(**RIGHT)
    assert shown.message == ""
    assert {field: getattr(shown.view.state, field) for field in RIGHT} == RIGHT
    shown.change(caption="a red car", layers=1)
    assert shown.view.state.caption == "a red car"


MESSAGES = [
    {}, {"kind": None}, {"kind": "scene"}, {"kind": "scene", "index": 99}, {"kind": "surprise", "index": "x"},
    {"kind": "change"}, {"kind": "change", "fields": 5}, {"kind": "change", "fields": {"zzz": 1}}, [], None, "word",
    {"kind": "change", "fields": {"phrase": [99, 99]}}, {"kind": "change", "fields": {"patch": [99, 0]}},
    {"kind": "scene", "index": "<b>"}, {"kind": "image", "name": "x.png"}, {"kind": "path"}, {"kind": "save"},
    {"kind": "change", "fields": {"caption": None}}, {"kind": "change", "fields": {"model": "<b>"}},
]  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES, ids=repr)
def test_a_message_that_no_browser_should_send_is_answered_and_the_next_right_one_works(shown, message):
    shown.change(caption="a red car", phrase=None, patch=None)
    view = shown.view
    shown.press(message)
    assert shown.view is view and shown.data["message"]["kind"] == "wrong"
    shown.press({"kind": "change", "fields": {"patch": [1, 2]}})
    assert shown.view.state.patch == (1, 2) and shown.message == ""


def test_a_browser_cannot_have_a_file_read_that_was_not_asked_for(shown):
    source = shown.view.state.source
    shown.press({"kind": "change", "fields": {"source": "/etc/hostname", "caption": "a red car"}})
    assert shown.view.state.source is source


def test_a_fault_while_a_view_is_shown_leaves_the_view_before_as_a_whole(tiny, picture, monkeypatch):
    panel_ = Explorer(picture, "a red car", tiny)
    before, data, times, payload = panel_.view, panel_.data, [], View.payload

    def broken(view):
        times.append(1)
        if len(times) == 1:
            raise ZeroDivisionError
        return payload(view)

    monkeypatch.setattr(View, "payload", broken)
    with pytest.raises(ZeroDivisionError):
        panel_.change(caption="a dog")
    assert panel_.view is before and panel_.wanted is before.state and "ZeroDivisionError" in panel_.message
    assert panel_.data | {"message": None, "controls": None} == data | {"message": None, "controls": None}
    panel_.change(caption="a cat")
    assert panel_.view.state.caption == "a cat"


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "no\0/where", "/proc/nobody/may"])
def test_a_name_that_no_file_can_have_is_answered(shown, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for what in ("image", "explanation"):
        shown.press({"kind": "save", "what": what, "name": name})
        assert "The name" in shown.message
    assert list(tmp_path.iterdir()) == []
    shown.press({"kind": "save", "what": "image", "name": "found"})
    assert [file.name for file in tmp_path.iterdir()] == ["found.png"]


@pytest.mark.parametrize("controls", [5, None, "words", ["wods"], [None]])
def test_a_panel_of_controls_that_do_not_exist_is_refused(tiny, picture, controls):
    with pytest.raises(GradeclipError, match="controls must be"):
        Explorer(picture, "a dog", tiny, controls=controls)


def test_a_state_that_cannot_be_is_refused_before_a_session_has_it(tiny, picture):
    session, state = Session(tiny), State(as_source(picture), "a dog")
    with pytest.raises(GradeclipError, match="threshold must be from 0 to 1, got 9"):
        replace(state, threshold=9)
    with pytest.raises(GradeclipError, match="caption must be a text, got 5"):
        State(picture, 5)
    with pytest.raises(GradeclipError, match="layers must be at most 3, got 4"):
        session.view(replace(state, layers=4))
    with pytest.raises(GradeclipError, match="must be a text"):
        session.explain(picture, None)


def test_what_a_user_wrote_is_never_executed_by_a_page(tiny, picture):
    evil = "<script>x</script> & <img onerror=x>"
    panel_ = Explorer(picture, evil, tiny)
    panel_.change(against=evil, beside="maskclip")
    panel_.open_image("<script>alert(1)</script>.png")
    page = panel_._repr_mimebundle_()[0]["text/html"]  # what the widget shows, its script sets as text
    assert "<script>x" not in page and "<img onerror" not in page and "\\u003cimg onerror" in page
    lesson = panel(lambda caption: InlineFigure(2, 1, caption), caption=evil)
    for widget in (lesson.image, lesson.status, lesson.answer):
        assert "<script" not in widget.value and "onerror=x>" not in widget.value


def test_a_control_of_a_lesson_that_cannot_have_a_value_keeps_its_own_and_so_do_the_others():
    lesson = panel(lambda power, colour: InlineFigure(2, 1, f"{power} {colour}"), power=(1, 5), colour=["red", "green"])
    lesson.change(power=2, colour="green")
    for wrong in ({"power": 4, "colour": "zzz"}, {"colour": "red", "power": "x"}, {"power": None}):
        lesson.change(**wrong)
        assert "cannot be" in lesson.message and lesson.values == {"power": 2, "colour": "green"}
    lesson.change(power=5)
    assert lesson.message == "" and lesson.figure.alt == "5 green"


def test_a_scene_that_comes_as_an_image_is_known_as_one(picture):
    assert not as_source(picture).drawn and as_source(mark_drawn(picture.copy())).drawn
