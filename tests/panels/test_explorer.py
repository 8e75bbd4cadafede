"""Panels without a browser: what a state gives, that nothing is computed twice or stale, and that scripts agree."""

import asyncio
import gc
import io
import threading
import time
import weakref
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from PIL import Image
from safetensors.numpy import load_file

from gradeclip_utils import METHODS, Explainer, Explanation
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.methods.registry import with_spatial_weight
from gradeclip_utils.panels import explorer_view, verdict
from gradeclip_utils.panels.explorer import CONTROLS, Explorer, explore, layer_slider
from gradeclip_utils.panels.explorer_view import View, model_line
from gradeclip_utils.panels.jobs import Interrupted, Work
from gradeclip_utils.panels.session import Session
from gradeclip_utils.panels.state import State, as_source
from gradeclip_utils.panels.verdict import missed, offers
from gradeclip_utils.plots import paint
from gradeclip_utils.scenes import Object, arrange, draw_scene
from gradeclip_utils.towers.base import one_thread
from tests import plain

CAPTION = "a red car and a blue ball"


@pytest.fixture
def session(tiny):
    return Session(tiny)


@pytest.fixture
def state(picture):
    return State(as_source(picture, "noise"), CAPTION)


@pytest.fixture
def panel(tiny, picture):
    return Explorer(picture, CAPTION, tiny)


@pytest.fixture
def trunk(tiny):
    """Counts how often the image tower's first layer runs."""
    runs = []
    hook = tiny.model.visual.conv1.register_forward_hook(lambda *_: runs.append(1))
    yield runs
    hook.remove()


# ------------------------------------------------------------------------------------------------------------ numbers


def test_a_view_holds_what_the_explainer_finds(session, state, tiny):
    found = Explainer(tiny).explain(state.source.image, CAPTION)
    (view,) = session.view(state).panels
    np.testing.assert_allclose(view.map, found.image_maps[0], atol=1e-6)
    assert view.words == found.words[0]


def test_every_method_shows_its_own_map(session, state, tiny):
    for method in ("maskclip", "rollout", "grad-eclip-no-spatial"):
        one, other = session.view(replace(state, beside=method)).panels
        expected = Explainer(tiny, method=method).explain(state.source.image, CAPTION).image_maps[0]
        np.testing.assert_allclose(other.map, expected, atol=1e-6)
        assert one.method == "grad-eclip"


def test_a_phrase_is_the_sum_of_its_words_and_a_patch_is_a_column(session, state, tiny):
    maps = Explainer(tiny).interactions(state.source.image, CAPTION).maps
    (view,) = session.view(replace(state, phrase=(1, 2), centred=False)).panels
    np.testing.assert_allclose(view.map, maps[1] + maps[2], atol=1e-6)
    (view,) = session.view(replace(state, patch=(3, 1))).panels
    np.testing.assert_allclose([word.score for word in view.words], maps[:, 3, 1], atol=1e-6)


def test_the_spatial_weight_softmax_is_attention_times_gradient(tiny, picture):
    """By the model's own forward pass with attention written out, and autograd; nothing of the package."""
    pixels, ids = tiny.preprocess(picture)[None], tiny.tokenizer([CAPTION])
    with torch.no_grad():
        text = plain.embed(tiny.model, "text", ids)[0]
    copied, record = plain.copy.deepcopy(tiny.model), []
    plain.open_attention(plain.blocks_of(copied, "image")[-1], record=record)
    (plain.embed(copied, "image", pixels)[0] @ text).backward()
    (layer,), expected = record, 0
    width = layer["q"].shape[-1] // layer["heads"]
    for head in range(layer["heads"]):
        part = slice(head * width, (head + 1) * width)
        alpha = torch.softmax(layer["k"][0, :, part] @ layer["q"][0, 0, part] / width**0.5, dim=0)
        expected = expected + alpha[1:] * (layer["v"][0, 1:, part] @ layer["o"].grad[0, 0, part])
    found = Explainer(tiny, method=with_spatial_weight("softmax")).explain(picture, CAPTION).image_maps[0]
    np.testing.assert_allclose(found.ravel(), expected.detach(), atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"layers": 3}, {"resolution": "native"}, {"attention": "single-head"}])
def test_the_words_of_every_spatial_weight_are_told_apart_by_their_own_maps(session, state, tiny, options):
    """The loosened ones are those of `interactions`; maps are linear, so words add up to the same map as their sum."""
    state = replace(state, centred=False, **options)
    own = session.view(replace(state, phrase=(1, 2))).panels[0].map
    options = {"image_layers" if name == "layers" else name: value for name, value in options.items()}
    expected = Explainer(tiny, **options).interactions(state.source.image, CAPTION).maps[1:3].sum(0)
    np.testing.assert_allclose(own, expected, atol=1e-6)
    for kind in ("softmax", "none"):
        one, other, both = (
            session.view(replace(state, phrase=phrase, spatial=kind)).panels[0].map
            for phrase in ((1, 1), (2, 2), (1, 2))
        )
        np.testing.assert_allclose(both, one + other, atol=1e-6)
        differs = np.abs(both - own).max() > 1e-6
        assert differs == ("attention" not in options)  # one head is the published variant, with its own weight


def test_the_trunk_of_a_picture_runs_once_whatever_is_asked_of_it(session, state, trunk):
    session.view(state)
    once = len(trunk)
    for changed in (
        {"caption": "a dog"}, {"against": "a cat"}, {"phrase": (0, 2)}, {"patch": (1, 1)}, {"spatial": "none"},
        {"threshold": 0.4, "opacity": 0.2, "colours": "cividis"}, {"attention": "single-head"}, {"shared": False},
        {"beside": "grad-eclip-no-spatial"},
    ):  # fmt: skip
        session.view(replace(state, **changed))
        assert len(trunk) == once, changed
    assert session.is_quick(replace(state, caption="a house", spatial="softmax"))
    assert not session.is_quick(replace(state, layers=2)) and not session.is_quick(replace(state, method="rise"))


def test_quick_answers_of_a_small_model_take_one_thread_and_give_the_others_back(session, state):
    before, seen = torch.get_num_threads(), []

    def fail(passes):
        raise Interrupted

    try:
        torch.set_num_threads(2)
        for caption in (CAPTION, "a blue ball"):  # the first also looks at the picture
            session.view(replace(state, caption=caption), lambda passes: seen.append(torch.get_num_threads()))
        with pytest.raises(Interrupted):
            session.view(replace(state, caption="a red car"), fail)
        assert seen[-1] == 1 and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_words_share_a_scale_and_methods_do_only_where_their_units_agree(session, state):
    several = [session.view(replace(state, phrase=(i, i))).panels[0].scale for i in range(3)]
    assert len(set(several)) == 1
    assert len({session.view(replace(state, phrase=(i, i), shared=False)).panels[0].scale for i in range(3)}) == 3
    one, other = session.view(replace(state, beside="grad-eclip-no-spatial")).panels
    assert one.scale == other.scale == max(np.maximum(panel.map, 0).max() for panel in (one, other))
    one, other = session.view(replace(state, beside="maskclip")).panels
    assert one.scale != other.scale and other.note == "the largest in this map"


def test_regions_of_nouns_are_without_what_they_share_and_the_title_says_so(session, state, tiny):
    found = Explainer(tiny).interactions(state.source.image, CAPTION)
    view = session.view(replace(state, phrase=(1, 2)))
    np.testing.assert_allclose(view.panels[0].map, found.centred().maps[1:3].sum(0), atol=1e-6)
    assert np.abs(view.panels[0].map - found.maps[1:3].sum(0)).max() > 1e-5
    assert "less what the nouns share" in repr(view)
    for changed in (
        {"phrase": (0, 1)},
        {"caption": "a red car", "phrase": (2, 2)},
        {"phrase": (1, 2), "centred": False},
    ):
        plain = session.view(replace(state, **changed))  # no noun; the only noun; left in
        assert "nouns share" not in repr(plain)


def test_another_method_reads_a_phrase_alone_and_says_so(session, state, tiny):
    (view,) = session.view(replace(state, method="maskclip", phrase=(1, 2))).panels
    expected = Explainer(tiny, method="maskclip").explain(state.source.image, "red car").image_maps[0]
    np.testing.assert_allclose(view.map, expected, atol=1e-6)
    assert view.subject == "“red car” read alone"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"caption": "  "}, "The caption is empty. Type what to look for"),
        ({"against": " "}, "The other caption is empty"),
        ({"caption": "dog " * 40}, "The caption is too long: the model stops reading before “dog"),
        ({"phrase": (2, 9)}, "has 7 words"),
        ({"patch": (4, 0)}, "4 x 4 patches"),
        ({"method": "magic"}, "method must be one of"),
        ({"layers": 9}, "layers must be at most 3, got 9"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_a_sentence(session, state, fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        session.view(replace(state, **fields))


def test_a_word_that_the_model_never_saw_is_refused_with_words_that_are_near(knowing, state):
    with pytest.raises(ValueError, match="never shown the word “dogg” .near: dog"):
        Session(knowing).view(replace(state, caption="a red dogg"))
    with pytest.raises(ValueError, match="the word “dot”\n"):  # to which "dog" is not near enough
        Session(knowing).view(replace(state, caption="dot"))
    with pytest.raises(ValueError, match="never shown the words “ein”, “hund”, “und”, “brot”\n"):
        Session(knowing).view(replace(state, caption="ein Hund und Brot"))


def test_a_refusal_stays_short_however_long_the_caption_was(knowing, session, state):
    knowing_one = Session(knowing)
    for one, caption in ((session, "red " * 200), (knowing_one, "zq" * 10), (knowing_one, "b c e f g h i j k l m")):
        with pytest.raises(ValueError, match="too long: the model stops|never shown the word") as refused:
            one.view(replace(state, caption=caption))
        assert len(str(refused.value)) < 140
    assert str(refused.value).endswith("the words “b”, “c”, “e”, “f”, “g”, “h” and 5 more")


def test_interrupted_work_leaves_nothing_half_done(session, state):
    def stop(passes):
        if passes > 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        session.view(replace(state, method="m2ib"), stop)
    expected = Session(session.clip).view(state).panels[0].map
    np.testing.assert_allclose(session.view(state).panels[0].map, expected, atol=1e-7)


@pytest.mark.parametrize("method", ["m2ib", "rise", "integrated-gradients"])
def test_every_slow_method_can_be_interrupted_between_two_passes(session, state, method):
    told = []

    def stop(passes):
        told.append(passes)
        if passes > 3:
            raise Interrupted

    with pytest.raises(Interrupted):
        session.view(replace(state, method=method), stop)
    assert told == [1, 2, 3, 4]


@pytest.mark.parametrize("allowed", [0, 1000])
def test_who_is_told_of_passes_is_forgotten_after_a_view_also_when_it_ended_the_work(session, state, allowed):
    class Told:
        def __call__(self, passes):
            if passes > allowed:
                raise Interrupted

    told = Told()
    gone = weakref.ref(told)
    with nullcontext() if allowed else pytest.raises(Interrupted):
        session.view(state, told)
    del told
    gc.collect()  # a traceback refers to it in a circle
    assert gone() is None


def test_a_session_finds_one_view_at_a_time_whichever_threads_ask(session, state):
    """What it keeps, and the number of passes, are of one view alone."""
    asked, first_ends, order = threading.Event(), threading.Event(), []

    def wait(passes):
        asked.set()
        assert first_ends.wait(20)

    def view(name, on_pass):
        session.view(replace(state, caption=name), on_pass)
        order.append(name)

    first = threading.Thread(target=view, args=("a dog", wait))
    second = threading.Thread(target=view, args=("a cat", lambda passes: order.append(passes)))
    first.start()
    assert asked.wait(20)
    second.start()
    time.sleep(0.3)
    assert order == []
    first_ends.set()
    first.join(60), second.join(60)
    assert {"a dog", 1, "a cat"} <= set(order)


def test_a_large_picture_is_reduced_once_and_the_script_says_so(tmp_path):
    Image.new("RGB", (3000, 1500), "red").save(tmp_path / "large.png")
    source = as_source(tmp_path / "large.png")
    assert source.image.size == (1024, 512) and source.name == "large.png"
    assert "image.thumbnail((1024, 1024))" in source.code


# ------------------------------------------------------------------------------------------------------------- scripts


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"against": "a dog"},
        {"phrase": (1, 2), "opacity": 0.5},
        {"phrase": (1, 2), "centred": False},
        {"phrase": (2, 2), "spatial": "softmax", "resolution": "native"},
        {"patch": (2, 1), "threshold": 0.3},
        {"dependence": True, "against": "a dog"},
        {"spatial": "none", "layers": 2},
        {"spatial": "softmax", "against": "a dog", "colours": "viridis"},
        {"phrase": (0, 2), "attention": "single-head"},
        {"spatial": "none", "phrase": (1, 2)},
        {"spatial": "softmax", "patch": (0, 0)},
        {"method": "maskclip", "resolution": "native"},
        {"method": "rollout", "layers": 2, "attention": "single-head"},
        {"method": "clip-surgery", "phrase": (1, 2)},
        {"method": "grad-eclip-no-spatial", "layers": 2, "beside": "attention"},
    ],
    ids=str,
)
def test_the_copied_script_gives_the_same_map_and_the_same_picture(session, state, tiny, tmp_path, fields):
    path = tmp_path / "a 'quoted' name.png"
    state.source.image.save(path)
    view = session.view(replace(state, source=as_source(path), **fields))
    made = {"clip": tiny}
    exec(view.python("clip = clip"), made)
    np.testing.assert_allclose(made["map_"], view.panels[0].map, atol=1e-6)
    panel, display = view.panels[0], {name: getattr(view.state, name) for name in ("threshold", "opacity", "colours")}
    scale = {"signed": panel.signed, "vmax": panel.scale}
    own = paint(panel.explanation.image, panel.map, box=panel.explanation.box, **scale, **display)
    difference = np.asarray(made["painting"]).astype(int) - np.asarray(own)
    assert np.abs(difference).max() <= 1
    if "dependence" in made:
        assert made["dependence"] == pytest.approx(view.panels[0].dependence, abs=1e-6)
    assert ("dependence" in made) == ("dependence" in fields)
    if "scores" in made:
        np.testing.assert_allclose(made["scores"], [word.score for word in view.panels[0].words], atol=1e-6)


@pytest.mark.parametrize(
    ("scene", "written"),
    [
        (draw_scene(3, split="development"), "arrange([Object("),
        (arrange(["red car", "dog"], seed=3), "arrange(['red car', 'dog'], seed=3)"),
        (arrange(["red car", "dog"]), "arrange(['red car', 'dog'])"),
        (arrange([Object("dog")], prefix="here is"), "Scene("),
    ],
    ids=["drawn", "arranged", "unseeded", "with a prefix"],
)
def test_the_script_draws_the_scene_again(session, scene, written):
    source = as_source(scene)
    made = {"clip": session.clip}
    script = session.view(State(source, "a dog")).python("clip = clip")
    exec(script, made)
    assert np.array_equal(np.asarray(made["image"]), np.asarray(source.image))
    assert written in script or written == "arrange([Object("  # a drawn scene may have a prefix of its own


def test_copy_as_python_runs_as_it_stands_in_an_empty_notebook(bundled):
    shown, made = layer_slider(arrange(["red car", "dog"]), clip=bundled), {}
    exec(shown.python(), made)
    np.testing.assert_allclose(made["map_"], shown.view.panels[0].map, atol=1e-5)


def test_the_script_makes_its_model_itself_where_that_can_be_written(tiny, bundled, session, state):
    assert model_line(bundled) == "clip = load_clip('emoji')"
    named = replace(tiny, name="ViT-B-32", pretrained="openai")
    assert model_line(named) == "clip = load_clip('ViT-B-32', pretrained='openai')"
    assert model_line(tiny).startswith("clip = ...") and "'tiny'" in model_line(tiny)
    script = session.view(state).python(model_line(bundled))
    assert "\nclip = load_clip('emoji')\n" in script
    assert "image_layers=1" in script  # which is not what the bundled model has when it is not told


# ---------------------------------------------------------------------------------------------------------- what shows


def test_the_title_says_picture_caption_method_model_and_number(session, state):
    view = session.view(replace(state, layers=2, spatial="softmax", resolution="native"))
    said = view.payload()["sides"][0]["origin"]
    similarity = f"similarity {view.panels[0].explanation.similarity[0]:.3f}".replace("-", "\N{MINUS SIGN}")
    parts = (
        "image: noise",
        "tiny",
        "Grad-ECLIP",
        "last 2 layers",
        "spatial weight softmax",
        similarity,
        "own resolution",
    )
    assert all(part in said for part in parts)
    assert CAPTION in view.payload()["sides"][0]["title"]


def test_the_maps_of_all_words_come_with_the_caption(session, state, tiny):
    found = Explainer(tiny).interactions(state.source.image, CAPTION)
    sent = session.view(state).payload()["sides"][0]
    top = np.abs(found.maps).max()
    centred = found.centred().maps
    np.testing.assert_allclose(sent["regions"], centred.reshape(7, -1), atol=2e-3 * top)
    np.testing.assert_allclose(sent["columns"], found.maps.reshape(7, -1), atol=2e-3 * top)
    assert sent["region_scale"] == pytest.approx(np.abs(centred).max(), rel=1e-5) and sent["shape"] == [4, 4]
    np.testing.assert_allclose(sent["map"], session.view(state).panels[0].map.ravel(), atol=2e-3 * sent["scale"])
    assert session.view(replace(state, shared=False)).payload()["sides"][0]["region_scale"] == 0  # each its own


def test_a_method_that_tells_no_words_apart_sends_the_map_of_the_phrase_that_it_read_alone(session, state):
    whole, phrase = (
        session.view(replace(state, method="maskclip", phrase=p)).payload()["sides"][0] for p in (None, (1, 2))
    )
    assert whole["regions"] is None and phrase["regions"] is None and phrase["map"] != whole["map"]
    assert "read alone" in phrase["title"] and whole["columns"] is not None


def test_words_are_signed_and_only_articles_and_marks_are_muted(session, state):
    sent = session.view(replace(state, caption="a red car, and the ball")).payload()
    words = session.view(replace(state, caption="a red car, and the ball")).panels[0].whole.words[0]
    assert [word["score"] for word in sent["words"]] == [word.score for word in words]
    assert min(word["score"] for word in sent["words"]) < 0
    assert [word["text"] for word in sent["words"] if word["muted"]] == ["a", ",", "the"]


def test_under_another_caption_both_ends_of_the_axis_say_for_which(session, state):
    view = session.view(replace(state, against="a blue <i>"))
    sent, whole = view.payload(), view.panels[0].whole
    assert sent["axis"] == ["for the other caption", "for this caption"]
    assert [word["text"] for word in sent["others"]] == ["a", "blue", "<", "i", ">"]
    assert [word["score"] for word in sent["others"]] == [word.score for word in whole.against_words[0]]
    assert [one["value"] for one in sent["match"]] == pytest.approx([*whole.similarity, *whole.against_similarity])
    assert sent["sides"][0]["signed"] and "The model prefers" in sent["verdict"]["all"]


def test_of_two_methods_each_is_named_also_over_the_map_of_a_word(session, state):
    one, other = session.view(replace(state, beside="maskclip", phrase=(1, 2))).payload()["sides"]
    assert one["by"] == "Grad-ECLIP, " and one["regions"] and one["title"].startswith(one["by"])
    assert other["title"] == "MaskCLIP, “red car” read alone"
    assert session.view(state).payload()["sides"][0]["by"] == ""


def test_a_figure_stands_for_the_view(session, state):
    view = session.view(replace(state, phrase=(1, 2), beside="attention"))
    made = view.figure()
    assert made.texts[0].get_text().replace("\n", " ") == view.payload()["verdict"]["phrase"] and "red car" in made.alt
    written = " ".join(text.get_text().replace("\n", " ") for text in made.findobj(Text))
    assert "“red car” in" in written and "Raw attention" in written
    assert made._repr_png_().startswith(b"\x89PNG")


def test_a_slow_method_says_how_long_it_takes_here(session, state):
    assert session.expected("rise") == 0  # nobody knows yet
    session.view(state)
    assert session.expected("rise") == pytest.approx(500 * session.seconds["", "model"])
    assert session.expected("integrated-gradients") == pytest.approx(150 * session.seconds["", "model"])
    assert session.expected("grad-eclip") == session.expected("attention") == 0
    session.view(replace(state, resolution="native"))  # which may have many more patches
    assert session.expected("rise") == pytest.approx(500 * session.seconds["", "model"])
    assert session.expected("rise", "native") == pytest.approx(500 * session.seconds["", "native"])
    assert session.seconds["", "native"] != session.seconds["", "model"]
    session.view(replace(state, method="m2ib"))
    assert session.expected("m2ib") == session.seconds["m2ib", "model"] > 0


# --------------------------------------------------------------------------------------------------------- the verdict


SCENE = arrange([Object("dog", x=24, y=24, size=30), Object("car", x=72, y=72, size=30, colour="red")])


def said(map_, text, caption=SCENE.caption):
    start = caption.index(text)
    return verdict.sentence(SCENE, map_, caption, start, start + len(text))


def test_a_map_that_is_the_thing_itself_has_all_of_its_relevance_there():
    dog, car = verdict.covers(SCENE, (12, 12)) > 0.6
    area = verdict.covers(SCENE, (12, 12))[0].mean()
    sentence = said(1.0 * dog, "dog")
    assert int(sentence.removeprefix("“dog” puts ").split("%")[0]) > 60
    assert sentence.endswith(f"of its relevance on the dog (its area: {area:.0%}).")
    assert said(1.0 * car, "red").endswith(").") and "on the car (" in said(1.0 * car, "red")
    assert said(1.0 * car, "dog").endswith("It missed: its maximum lies on the car.")
    nothing = np.zeros((12, 12))
    assert said(nothing, "dog") == "“dog” has no relevance above zero anywhere."
    nothing[0, 11] = 1
    assert said(nothing, "dog").endswith("It missed: its maximum lies on nothing.")
    assert said(nothing, "and") == "“and” speaks of no thing; its maximum lies on nothing."


def test_several_of_a_kind_are_named_as_several():
    scene = arrange([Object("trophy", x=24, y=24, size=30), Object("trophy", x=72, y=72, size=30), Object("dog")])
    covered = verdict.covers(scene, (12, 12))
    assert "on the trophies (their area" in verdict.sentence(scene, covered[:2].sum(0), "two trophies")
    assert "on the trophies and the dog (" in verdict.sentence(scene, covered.sum(0), "two trophies and a dog")


def test_what_is_not_there_is_said_to_be_not_there():
    dog = 1.0 * (verdict.covers(SCENE, (12, 12))[0] > 0.6)
    assert said(dog, "a piano", "a piano").startswith(
        "There is no piano here, and the map of “a piano” has its maximum on the dog"
    )
    assert "puts" in said(dog, "a blue dog", "a blue dog")  # of another colour, but it is there


def test_a_scene_whose_map_misses_is_offered_as_a_failure(tiny):
    dog, car = verdict.covers(SCENE, (12, 12))
    assert missed(SCENE, np.stack([dog, car])) == [] and missed(SCENE, np.stack([car, dog])) == ["dog", "car"]
    offered = offers(tiny)
    assert offered is offers(tiny)
    assert [len(offer.source.scene.objects) for offer in offered[:4]] == [1, 2, 3, 4]
    for offer in offered:
        assert offer.failure == ("misses" in offer.note) and (offer.failure or offered.index(offer) < 4)


def test_a_failure_that_is_chosen_says_what_to_look_for(panel):
    failures = [i for i, offer in enumerate(panel.offers) if offer.failure]
    assert 0 < len(failures) < len(panel.offers)
    for i, offer in enumerate(panel.offers):
        panel.press({"kind": "scene", "index": i})
        said = {"text": offer.note, "kind": "note"} if i in failures else {"text": "", "kind": ""}
        assert panel.data["message"] == said


# ----------------------------------------------------------------------------------------------------------- the panel


def turn(panel, **fields):
    """As the browser does."""
    panel.press({"kind": "change", "fields": fields})


def control(panel, name):
    return next(one for one in panel.data["controls"] if one["name"] == name)


def test_every_control_has_a_name_and_a_help_and_few_are_seen(panel):
    specs = panel.data["controls"]
    assert [spec["name"] for spec in specs] == list(CONTROLS)
    assert all(spec["label"] and len(spec["help"]) > 20 for spec in specs)
    assert len({spec["help"] for spec in specs}) == len(specs)
    seen = [spec["name"] for spec in specs if spec["place"] not in ("method", "drawing", "ask")]
    assert seen == ["model", "caption", "opacity"]  # and scenes, and what is asked: five
    assert [ask["key"] for ask in panel.data["asks"]] == ["where", "against", "beside"]


def test_what_is_asked_is_one_of_three_questions(panel):
    where, against, beside = (ask["fields"] for ask in panel.data["asks"])
    for fields, key in ((against, "against"), (beside, "beside"), (where, "where")):
        turn(panel, **fields)
        assert panel.data["ask"] == key and panel.message == ""
    assert len(panel.data["sides"]) == 1 and panel.data["others"] == []


def test_wrong_input_gets_a_sentence_and_the_last_view_stays(panel):
    view, sides = panel.view, panel.data["sides"]
    turn(panel, caption="")
    assert "is empty" in panel.message and panel.data["message"]["kind"] == "wrong"
    assert control(panel, "caption")["refused"] and control(panel, "caption")["value"] == CAPTION
    turn(panel, threshold=0.5)  # goes on with the last good caption, and the sentence stays
    assert panel.view.state == replace(view.state, threshold=0.5) and "is empty" in panel.message
    assert panel.data["sides"] == sides
    turn(panel, caption="a dog")
    assert (
        panel.message == "" and "a dog" in panel.data["sides"][0]["title"] and not control(panel, "caption")["refused"]
    )


def test_how_a_view_is_drawn_and_what_is_refused_compute_nothing_again(panel, monkeypatch):
    monkeypatch.setattr(View, "payload", None)
    turn(panel, opacity=0.4, threshold=0.2)
    turn(panel, caption="")
    assert (panel.data["opacity"], panel.data["threshold"]) == (0.4, 0.2) and "is empty" in panel.message


def test_a_sentence_about_a_wrong_path_goes_with_the_next_caption_and_with_the_emptied_field(panel):
    for then in ({"kind": "change", "fields": {"caption": "a dog"}}, {"kind": "path", "path": " "}):
        panel.press({"kind": "path", "path": "/nowhere/at/all.png"})
        assert "There is no image file" in panel.message
        panel.press(then)
        assert panel.message == panel.data["message"]["text"] == ""


@pytest.mark.parametrize(
    ("name", "value"),
    [("layers", 2), ("spatial", "softmax"), ("threshold", 0.6), ("opacity", 0.1), ("method", "attention"),
     ("beside", "maskclip"), ("attention", "single-head"), ("resolution", "native"), ("shared", False),
     ("colours", "cividis"), ("against", "a dog"), ("centred", False)],
)  # fmt: skip
def test_every_control_turns_its_field_and_follows_the_view(panel, name, value):
    before = panel.data
    turn(panel, **{name: value})
    assert getattr(panel.view.state, name) == control(panel, name)["value"] == value and panel.message == ""
    changed = [key for key in ("sides", "threshold", "opacity", "colours") if panel.data[key] != before[key]]
    assert changed == [name if name in before else "sides"]
    panel.change(**{name: getattr(State(panel.view.state.source, CAPTION), name)})
    assert control(panel, name)["value"] == getattr(panel.view.state, name) != value


def test_whether_the_map_depends_on_the_caption_is_said_when_asked_until_something_else_is(panel):
    turn(panel, beside="rollout", phrase=[1, 2])
    assert panel.data["dependence"] == ""
    turn(panel, dependence=True)
    explainer, image = Explainer(panel.session.clip), panel.view.state.source.image
    expected = explainer.explain(image, CAPTION).prompt_dependence(explainer.null_maps(image, CAPTION))
    one, other = (shown.dependence for shown in panel.view.panels)
    assert one == pytest.approx(expected, abs=1e-6) and one[1] > 0
    assert other == pytest.approx((0, 0, 0), abs=1e-6)  # rollout is the same whatever is asked
    assert f"differs from those of 16 other prompts by {expected[0]:.2f} [" in panel.data["dependence"]
    turn(panel, opacity=0.4)
    assert "by 0.00 [0.00, 0.00]" in panel.data["dependence"]
    turn(panel, phrase=None)
    assert panel.data["dependence"] == "" and panel.view.panels[0].dependence is None
    assert panel.session.expected("grad-eclip") == 0  # a map takes no longer than before


def test_braces_in_a_caption_stand_as_they_were_written_in_what_is_said_of_it(panel):
    turn(panel, caption="a {red} car {0}", dependence=True)
    assert "the map of “a {red} car {0}” differs from those of 16 other prompts" in panel.data["dependence"]


def test_pressing_words_patches_and_scenes(panel):
    turn(panel, phrase=[0, 2], patch=None)
    assert panel.view.state.phrase == (0, 2) and panel.data["phrase"] == (0, 2)
    assert panel.data["verdict"]["phrase"].startswith("Half of the relevance of “a red car”")
    turn(panel, phrase=None, patch=[1, 2])
    assert panel.view.state.patch == (1, 2) and panel.view.state.phrase is None and panel.data["patch"] == (1, 2)
    turn(panel, phrase=None, patch=None)
    assert panel.view.state.patch is None
    turn(panel, phrase=[5, 5])
    panel.press({"kind": "scene", "index": 2})
    assert panel.view.state.phrase is None and panel.view.state.caption == panel.offers[2].source.scene.caption
    assert [scene["chosen"] for scene in panel.data["scenes"]] == [i == 2 for i in range(len(panel.offers))]


def test_a_scene_is_changed_in_one_press_and_put_back(panel):
    panel.open_image(SCENE)
    names = [surprise["text"] for surprise in panel.data["surprises"]]
    assert names[:2] == ["swap the colours", "take the dog away"] and names[2].startswith("ask for a ")
    panel.press({"kind": "surprise", "index": 1})
    assert [thing.noun for thing in panel.view.state.source.scene.objects] == ["car"]
    assert panel.view.state.caption == SCENE.caption and panel.data["match"][0]["name"] == "similarity, the dog is gone"
    before = Explainer(panel.session.clip).explain(SCENE.image(), SCENE.caption).similarity[0]
    assert panel.data["match"][1]["value"] == pytest.approx(before, abs=1e-6)
    made = {}
    exec(panel.python().split("clip = ")[0].split("explainer")[0], made)
    assert np.array_equal(np.asarray(made["image"]), np.asarray(panel.view.state.source.image))
    assert panel.data["surprises"][0]["text"] == "put it back"
    panel.press({"kind": "surprise", "index": 0})
    assert panel.view.state.source.scene is SCENE and len(panel.data["match"]) == 1
    panel.press({"kind": "surprise", "index": 0})
    assert [thing.colour for thing in panel.view.state.source.scene.objects] == ["red", None]
    panel.open_image(SCENE)
    panel.press({"kind": "surprise", "index": 2})
    assert panel.data["verdict"]["all"].startswith("There is no ")


def test_another_model_keeps_image_caption_and_selection(panel, averaging):
    panel.models["averaging"] = replace(averaging, name="averaging", image_layers=2)
    panel.change(phrase=(1, 2))
    source = panel.view.state.source
    turn(panel, model="averaging")
    state = panel.view.state
    assert (state.source, state.caption, state.phrase, state.layers) == (source, CAPTION, (1, 2), 2)
    own = Explainer(panel.models["averaging"]).explain(source.image, CAPTION).similarity[0]
    assert panel.data["match"][0]["value"] == pytest.approx(own, abs=1e-6)
    assert panel.session.clip.name == "averaging" and "averaging" in panel.data["sides"][0]["origin"]
    panel.change(patch=(3, 3), phrase=None)
    turn(panel, model="tiny")
    assert panel.view.state.patch == (3, 3) and panel.view.state.layers == 1
    assert {"tiny", "emoji"} <= {name for name, _ in control(panel, "model")["options"]}


def test_a_model_that_a_variable_of_the_notebook_holds_can_be_chosen(tiny, averaging, picture, monkeypatch):
    notebook = SimpleNamespace(user_ns={"mine": averaging, "_1": averaging, "clip": tiny, "number": 5})
    monkeypatch.setattr(explorer_view, "get_ipython", lambda: notebook)
    panel = Explorer(picture, CAPTION, tiny)
    name = f"mine ({averaging.name})"
    assert [one for one in panel.models if one.endswith(")")] == [name]
    turn(panel, model=name)
    own = Explainer(averaging).explain(picture, CAPTION).similarity[0]
    assert panel.data["match"][0]["value"] == pytest.approx(own, abs=1e-6) and "\nclip = mine  #" in panel.python()


def test_a_model_that_cannot_be_loaded_is_answered_and_the_one_before_stays(panel, monkeypatch):
    monkeypatch.setitem(panel.models, "nowhere", None)
    turn(panel, model="nowhere")
    assert "The model 'nowhere' cannot be used" in panel.message and panel.view.state.model == "tiny"
    turn(panel, caption="a dog")
    assert panel.view.state.caption == "a dog" and panel.message == ""


def test_the_known_words_are_listed(knowing, picture):
    assert Explorer(picture, "a dog", knowing).vocabulary == ["a", "dog", "don't", "red"]


def test_a_page_without_a_kernel_has_the_same_view_inside(panel):
    data, _ = panel._repr_mimebundle_()
    assert "front.open(" in data["text/html"] and '"regions": [[' in data["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in data and "a panel that shows" in data["text/plain"]


def test_a_model_whose_tokenizer_tells_no_words_apart_is_explored_by_its_maps(tiny, picture):
    def ids_only(prompts, tokenizer=tiny.tokenizer):
        return tokenizer(prompts)

    shown = Explorer(picture, "a dog", replace(tiny, tokenizer=ids_only))
    own = Explainer(tiny).explain(picture, "a dog").image_maps[0]
    np.testing.assert_array_equal(shown.view.panels[0].map, own)
    assert shown.data["words"] == [] and "does not tell words apart" in shown.data["words_of"]
    shown.change(patch=(0, 0))
    assert "word scores need" in shown.message and shown.view.state.patch is None
    shown.change(caption="a cat", against="a dog", method="maskclip")
    assert shown.view.state.caption == "a cat" and "Traceback" not in shown.message
    assert shown.figure().axes and "a cat" in shown.python()


def test_two_threads_on_one_thread_each_leave_the_usual_number_behind():
    before, inside, left = torch.get_num_threads(), threading.Barrier(2), threading.Event()

    def first():
        with one_thread(True):
            inside.wait(10)  # the second begins while torch hands on a 1
        left.set()

    def second():
        with one_thread(True):
            inside.wait(10)
            assert left.wait(10)

    found = []
    try:
        torch.set_num_threads(2)
        threads = [threading.Thread(target=target) for target in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        later.start(), later.join(10)
        assert found == [2] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_two_threads_may_turn_controls_at_once_and_the_panel_stays_in_line(panel):
    """JupyterLab hands messages of one panel to two threads of the kernel; a lost one left slider and map apart."""
    shares = np.linspace(0.05, 0.9, 12).round(2)
    one = threading.Thread(target=lambda: [turn(panel, threshold=float(x)) for x in shares])
    other = threading.Thread(target=lambda: [turn(panel, opacity=float(x)) for x in shares])
    for thread in (one, other):
        thread.start()
    for thread in (one, other):
        thread.join(60)
        assert not thread.is_alive()
    assert panel.view.state == panel.wanted
    assert panel.view.state.threshold == control(panel, "threshold")["value"] == panel.data["threshold"] == shares[-1]
    assert panel.view.state.opacity == control(panel, "opacity")["value"] == panel.data["opacity"] == shares[-1]


def test_an_upload_is_shown_under_its_name_and_what_is_no_picture_is_not(panel, picture):
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    note = "6000 × 4000 pixels were reduced to 1024 × 683 before they were sent."
    panel.press({"kind": "image", "name": "mine.png", "note": note}, [memoryview(stream.getvalue())])
    assert panel.view.state.source.name == "mine.png" and panel.view.state.caption == CAPTION
    assert panel.message == f"mine.png: {note}" and panel.data["message"]["kind"] == "note"
    panel.press({"kind": "image", "name": "x.png"}, [memoryview(b"no")])
    assert "x.png is not a picture" in panel.message and panel.view.state.source.name == "mine.png"
    panel.press({"kind": "image", "name": "again.png"}, [memoryview(stream.getvalue())])  # the next one is heard
    assert panel.view.state.source.name == "again.png" and panel.message == ""


def test_a_photograph_gets_a_note_from_a_model_that_saw_drawings_only(knowing, picture):
    panel = Explorer(picture, "a dog", knowing)
    assert "never seen a photograph" in panel.data["message"]["text"] and panel.data["message"]["kind"] == "note"
    panel.open_image(picture, note="6000 × 4000 pixels were reduced.")  # as those of a telephone are
    told = panel.data["message"]["text"]
    assert told.startswith("6000 × 4000 pixels were reduced. This is not one") and "never seen a photograph" in told
    panel.open_image(arrange(["dog"]))
    assert panel.data["message"]["text"] == ""


def test_what_is_kept_is_what_is_shown_and_never_overwrites(panel, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    panel.change(phrase=(1, 2), spatial="softmax")
    for what in ("explanation", "explanation", "image"):
        panel.press({"kind": "save", "what": what, "name": "explanation"})
        assert panel.message.startswith(f"Saved as {tmp_path / 'explanation'}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["explanation", "explanation-2", "explanation.png"]
    kept = Explanation.load(tmp_path / "explanation-2")
    np.testing.assert_allclose(kept.image_maps[0], panel.view.panels[0].map)
    assert kept.provenance["shown"] == "“red car” in “a red car and a blue ball”"
    assert load_file(tmp_path / "explanation" / "explanation.safetensors")["image_maps"].shape == (1, 4, 4)
    panel.save("image", "explanation.png/below")
    assert "cannot be written" in panel.message


def test_smaller_panels_have_fewer_controls_and_the_same_view(tiny, picture):
    small = layer_slider(picture, CAPTION, tiny)
    assert [spec["name"] for spec in small.data["controls"]] == ["layers", "spatial"] and "scenes" not in small.data
    turn(small, layers=3)
    full = explore(picture, CAPTION, tiny)
    full.change(layers=3)
    np.testing.assert_allclose(small.view.panels[0].map, full.view.panels[0].map, atol=1e-7)
    with pytest.raises(ValueError, match="each of controls must be one of .*, got 'volume'"):
        Explorer(picture, CAPTION, tiny, controls=("volume",))


def test_a_panel_that_cannot_start_says_why(tiny, picture):
    with pytest.raises(ValueError, match="The caption is empty"):
        explore(picture, "", tiny)
    with pytest.raises(FileNotFoundError, match="There is no image file"):
        explore("/nowhere.png", "a dog", tiny)


# ---------------------------------------------------------------------------------------------------------- long work


def test_long_work_is_told_of_and_stopped_by_the_next(capsys):
    work, seen = Work(), []

    def long(before_a_pass):
        for i in range(10_000):
            before_a_pass(i)
            time.sleep(0.002)
        return "late"

    async def session():
        work.start(long, seen.append, seen.append, lambda passes: seen.append(("told", passes)), quick=False)
        await asyncio.sleep(0.6)
        assert work.running and threading.active_count() > before
        work.start(lambda tell: "quick", seen.append, seen.append, None, quick=True)
        await asyncio.sleep(0.2)

    before = threading.active_count()
    asyncio.run(session())
    told = [entry for entry in seen if entry[0] == "told"]
    assert len(told) >= 2 and told[-1][1] > 0
    assert seen[-1] == "quick" and "late" not in seen and not work.running
    assert threading.active_count() == before


def test_an_answer_that_was_overtaken_is_never_shown():
    work, seen = Work(), []

    def overtaken(tell):
        work.start(lambda tell: "newer", seen.append, seen.append, None, quick=True)
        return "older"

    work.start(overtaken, seen.append, seen.append, None, quick=True)
    assert seen == ["newer"]


def test_long_work_hands_over_its_result_or_what_the_user_did_wrong():
    async def session(job):
        done = asyncio.get_running_loop().create_future()
        Work().start(job, done.set_result, done.set_exception, lambda passes: None, quick=False)
        return await asyncio.wait_for(done, 20)

    def wrong(before_a_pass):
        raise GradeclipError("this caption is empty")

    assert asyncio.run(session(lambda before_a_pass: 7)) == 7
    with pytest.raises(ValueError, match="this caption is empty"):
        asyncio.run(session(wrong))


def test_a_fault_of_ours_is_raised_and_not_told_as_a_mistake_of_the_user(panel, monkeypatch):
    def broken(*arguments):
        raise TypeError("unsupported operand")

    view = panel.view
    monkeypatch.setattr(panel.session, "view", broken)
    with pytest.raises(TypeError, match="unsupported operand"):
        panel.change(caption="a dog")
    assert panel.message.count("TypeError: unsupported operand") == 1 and panel.view is view
    work, seen = Work(), []
    for quick in (True, False):  # where no loop runs, long work is done at once too
        with pytest.raises(TypeError):
            work.start(broken, seen.append, seen.append, lambda passes: None, quick=quick)
    assert [type(error) for error in seen] == [TypeError, TypeError]


@pytest.mark.parametrize("method", ["rise", "integrated-gradients", "m2ib"])
def test_a_slow_method_is_interrupted_by_another_choice(tiny, picture, method):
    panel = Explorer(picture, CAPTION, tiny)

    async def session():
        turn(panel, method=method)
        assert METHODS[method].title in panel.busy["text"] and panel.view.state.method == "grad-eclip"
        turn(panel, opacity=0.3)  # which is no reason to begin again
        assert panel.view.state.opacity == 0.3 and panel.work.running and panel.busy
        turn(panel, method="grad-eclip")
        assert panel.busy == {} and panel.message == "" and panel.view.state.caption == CAPTION
        await asyncio.sleep(0.3)
        assert panel.view.state.method == "grad-eclip" and panel.view.state.opacity == 0.3 and not panel.work.running
        turn(panel, method=method)
        panel.press({"kind": "stop"})
        assert panel.busy == {} and panel.wanted == panel.view.state and not panel.work.running

    asyncio.run(session())


def test_whether_a_map_depends_on_the_caption_takes_long_and_a_newer_change_ends_it(panel):
    async def session():
        turn(panel, dependence=True)
        assert "16 other prompts" in panel.busy["text"] and panel.data["dependence"] == ""
        turn(panel, caption="a dog")
        assert panel.busy == {} and panel.view.state.caption == "a dog"
        turn(panel, dependence=True)
        while panel.work.running:
            await asyncio.sleep(0.05)
        assert "the map of “a dog” differs" in panel.data["dependence"] and panel.busy == {}

    asyncio.run(asyncio.wait_for(session(), 120))
