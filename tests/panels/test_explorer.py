"""Panels without a browser: what a state gives, that nothing is computed twice or stale, and that scripts agree."""

import asyncio
import sys
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from gradeclip_utils import Explainer, Explanation
from gradeclip_utils.panels.explorer import Explorer, explore, gallery, layer_slider
from gradeclip_utils.panels.explorer_view import (
    canvas,
    figure,
    legend_html,
    other_words_html,
    painted,
    png,
    python_lines,
    subtitle,
    tables_html,
    title_html,
    word_marks,
)
from gradeclip_utils.panels.jobs import Interrupted, UserError, Work, one_thread
from gradeclip_utils.panels.session import Session
from gradeclip_utils.panels.state import State, as_source, with_spatial_weight
from gradeclip_utils.scenes import arrange
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
        assert seen[0] == 2 and seen[-1] == 1 and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_words_share_a_scale_and_methods_do_only_where_their_units_agree(session, state):
    several = [session.view(replace(state, phrase=(i, i))).panels[0].scale for i in range(3)]
    assert len(set(several)) == 1
    assert len({session.view(replace(state, phrase=(i, i), shared=False)).panels[0].scale for i in range(3)}) == 3
    one, other = session.view(replace(state, beside="grad-eclip-no-spatial")).panels
    assert one.scale == other.scale == max(np.maximum(panel.map, 0).max() for panel in (one, other))
    one, other = session.view(replace(state, beside="maskclip")).panels
    assert one.scale != other.scale and other.note == "the most in this map"


def test_regions_of_nouns_are_without_what_they_share_and_the_title_says_so(session, state, tiny):
    found = Explainer(tiny).interactions(state.source.image, CAPTION)
    (view,) = session.view(replace(state, phrase=(1, 2))).panels
    np.testing.assert_allclose(view.map, found.centred().maps[1:3].sum(0), atol=1e-6)
    assert np.abs(view.map - found.maps[1:3].sum(0)).max() > 1e-5
    assert "less what the nouns share" in subtitle(state, view)
    for changed in (
        {"phrase": (0, 1)},
        {"caption": "a red car", "phrase": (2, 2)},
        {"phrase": (1, 2), "centred": False},
    ):
        (plain,) = session.view(replace(state, **changed)).panels  # no noun; the only noun; left in
        assert "nouns share" not in subtitle(state, plain)


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


def test_threads_may_share_what_a_session_keeps(session):
    """One thread may not throw out what another has just been promised; each asks for more than is kept."""
    wrong, before = [], sys.getswitchinterval()

    def ask(first):
        try:
            for i in range(4000):
                key = (first + i * 7) % 30
                assert session.keep("explainers", key, lambda key=key: key) == key
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=ask, args=(first,)) for first in range(4)]
    try:
        sys.setswitchinterval(1e-6)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(before)
    assert not wrong


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
    exec(python_lines(view, "clip"), made)
    np.testing.assert_allclose(made["map_"], view.panels[0].map, atol=1e-6)
    difference = np.asarray(made["painting"]).astype(int) - np.asarray(painted(view.state, view.panels[0]))
    assert np.abs(difference).max() <= 1
    if "scores" in made:
        np.testing.assert_allclose(made["scores"], [word.score for word in view.panels[0].words], atol=1e-6)


@pytest.mark.parametrize(
    "source", [gallery()[3], as_source(arrange(["red car", "dog"], background=3))], ids=["drawn", "arranged"]
)
def test_the_script_draws_the_scene_again(session, source):
    view = session.view(State(source, "a dog"))
    made = {"clip": session.clip}
    exec(python_lines(view, "clip"), made)
    assert np.array_equal(np.asarray(made["image"]), np.asarray(source.image))


# ---------------------------------------------------------------------------------------------------------- what shows


def test_the_title_says_picture_caption_method_model_and_number(session, state):
    view = session.view(replace(state, layers=2, spatial="softmax", resolution="native"))
    said = title_html(view.state, view.panels[0])
    similarity = f"similarity {view.panels[0].explanation.similarity[0]:.3f}".replace("-", "\N{MINUS SIGN}")
    for part in (
        CAPTION,
        "image: noise",
        "tiny",
        "Grad-ECLIP",
        "last 2 layers",
        "spatial weight softmax",
        similarity,
        "own resolution",
    ):
        assert part in said, part


def test_html_in_a_caption_or_a_name_is_shown_and_not_run(session, picture):
    state = State(as_source(picture, "<script>alert(1)</script>"), "<b onclick=alert(1)> & dog", against="<i>")
    view = session.view(state)
    for page in (title_html(state, view.panels[0]), tables_html(view), legend_html(state, view.panels[0])):
        assert "<script" not in page and "<b onclick" not in page and "<i>" not in page


def test_values_are_never_told_by_colour_alone(session, state):
    view = session.view(state)
    (one,) = view.panels
    marks, pane = word_marks(state, one), canvas(state, one)
    assert all(mark["value"] and mark["value"] in mark["label"] for mark in marks)
    assert len(pane["values"]) == one.map.size and pane["values"][int(one.map.argmax())] in pane["alt"]
    table = tables_html(view)
    assert all(f"<td>{value}</td>" in table for value in pane["values"])


def test_a_contrast_shows_the_words_of_both_captions_on_one_scale(session, state):
    view = session.view(replace(state, against="a blue <i>"))
    (one,) = view.panels
    assert [word.text for word in one.others] == ["a", "blue", "<", "i", ">"]
    assert one.words_scale == max(abs(word.score) for word in (*one.words, *one.others))
    shown, table = other_words_html(one), tables_html(view)
    assert "blue" in shown and "<i>" not in shown and "<th>blue</th>" in table
    assert other_words_html(session.view(state).panels[0]) == ""


def test_a_figure_stands_for_the_view(session, state):
    view = session.view(replace(state, phrase=(1, 2), beside="attention"))
    made = figure(view)
    written = " ".join(text.get_text().replace("\n", " ") for text in made.texts)
    assert "“red car” in" in written and "Raw attention" in written
    assert made._repr_png_().startswith(b"\x89PNG")


def test_a_png_carries_what_it_shows(session, state, tmp_path):
    (one,) = session.view(state).panels
    (tmp_path / "one.png").write_bytes(png(painted(state, one), subtitle(state, one)))
    with Image.open(tmp_path / "one.png") as image:
        assert "Grad-ECLIP" in image.info["Description"]


# --------------------------------------------------------------------------------------------------------- the panel


def test_wrong_input_gets_a_sentence_and_the_last_view_stays(panel):
    view, title = panel.view, panel.sides[0].title.value
    panel.controls["caption"].value = ""
    assert "is empty" in panel.message.value
    panel.controls["threshold"].value = 0.5  # goes on with the last good caption, and the sentence stays
    assert panel.view.state == replace(view.state, threshold=0.5) and "is empty" in panel.message.value
    assert panel.sides[0].title.value == title and panel.controls["caption"].value == ""
    panel.controls["caption"].value = "a dog"
    assert panel.message.value == "" and "a dog" in panel.sides[0].title.value


def test_a_sentence_shows_html_and_does_not_run_it(knowing, picture):
    panel = Explorer(picture, "a dog", knowing)
    panel.controls["caption"].value = "<img src=x onerror=alert(1)>"
    assert "<img" not in panel.message.value and "&lt;" not in panel.sides[0].title.value and panel.message.value


@pytest.mark.parametrize(
    ("name", "value"),
    [("layers", 2), ("spatial", "softmax"), ("threshold", 0.6), ("opacity", 0.1), ("method", "attention"),
     ("beside", "maskclip"), ("attention", "single-head"), ("resolution", "native"), ("shared", False),
     ("colours", "cividis"), ("against", "a dog"), ("centred", False)],
)  # fmt: skip
def test_every_control_turns_its_field_and_follows_the_view(panel, name, value):
    before = panel.sides[0].canvas.images[0], panel.sides[1].canvas.images
    panel.controls[name].value = value
    assert getattr(panel.view.state, name) == value and panel.message.value == ""
    if name not in ("shared", "centred"):  # which matter with a word, or with two methods
        assert (panel.sides[0].canvas.images[0], panel.sides[1].canvas.images) != before
    panel.change(**{name: getattr(State(panel.view.state.source, CAPTION), name)})
    assert panel.controls[name].value == getattr(panel.view.state, name) != value


def test_pressing_words_patches_and_scenes(panel):
    panel.press({"kind": "word", "index": 2})
    assert panel.view.state.phrase == (2, 2)
    panel.press({"kind": "word", "index": 0, "extend": True})
    assert panel.view.state.phrase == (0, 2) and [mark["chosen"] for mark in panel.words.data["words"][:4]] == [
        True, True, True, False,
    ]  # fmt: skip
    panel.press({"kind": "patch", "row": 1, "column": 2})
    assert panel.view.state.patch == (1, 2) and panel.view.state.phrase is None
    panel.press({"kind": "no patch"})
    assert panel.view.state.patch is None
    panel.press({"kind": "word", "index": 5})
    panel.press({"kind": "scene", "index": 2})
    assert panel.view.state.phrase is None and panel.view.state.caption == gallery()[2].caption
    assert panel.gallery.data["chosen"] == 2


def test_a_model_whose_tokenizer_tells_no_words_apart_is_explored_by_its_maps(tiny, picture):
    def ids_only(prompts, tokenizer=tiny.tokenizer):
        return tokenizer(prompts)

    shown = Explorer(picture, "a dog", replace(tiny, tokenizer=ids_only))
    own = Explainer(tiny).explain(picture, "a dog").image_maps[0]
    np.testing.assert_array_equal(shown.view.panels[0].map, own)
    assert shown.words.data["words"] == [] and "does not tell words apart" in shown.words.data["note"]
    shown.change(patch=(0, 0))
    assert "word scores need" in shown.message.value and shown.view.state.patch is None
    shown.change(caption="a cat", against="a dog", method="maskclip")
    assert shown.view.state.caption == "a cat" and "Traceback" not in shown.message.value
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
    one = threading.Thread(target=lambda: [setattr(panel.controls["threshold"], "value", float(x)) for x in shares])
    other = threading.Thread(target=lambda: [setattr(panel.controls["opacity"], "value", float(x)) for x in shares])
    for thread in (one, other):
        thread.start()
    for thread in (one, other):
        thread.join(60)
        assert not thread.is_alive()
    assert panel.view.state == panel.wanted
    assert panel.view.state.threshold == panel.controls["threshold"].value == shares[-1]
    assert panel.view.state.opacity == panel.controls["opacity"].value == shares[-1]


def test_an_upload_is_shown_under_its_name_and_what_is_no_picture_is_not(panel, picture):
    good = {"name": "mine.png", "type": "image/png", "size": 1, "content": memoryview(png(picture))}
    good["last_modified"] = datetime.now(UTC)
    panel.upload.value = (good,)
    assert panel.view.state.source.name == "mine.png" and panel.view.state.caption == CAPTION
    panel.upload.value = (good | {"name": "x.png", "content": memoryview(b"no")},)
    assert "x.png is not a picture" in panel.message.value and panel.view.state.source.name == "mine.png"
    panel.open_image("/nowhere/at/all.png")
    assert "There is no picture file" in panel.message.value and panel.view.state.source.name == "mine.png"


def test_a_photograph_gets_a_warning_from_a_model_that_saw_drawings_only(knowing, picture):
    panel = Explorer(picture, "a dog", knowing)
    assert "never seen a photograph" in panel.notice.value
    panel.open_image(arrange(["dog"]))
    assert panel.notice.value == ""


def test_what_is_kept_is_what_is_shown_and_never_overwrites(panel, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    panel.change(phrase=(1, 2), spatial="softmax")
    for _ in range(2):
        panel.save_explanation.click()
    panel.save_image.click()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["explanation", "explanation-2", "explanation.png"]
    kept = Explanation.load(tmp_path / "explanation-2")
    np.testing.assert_allclose(kept.image_maps[0], panel.view.panels[0].map)
    assert kept.provenance["shown"] == "“red car” in “a red car and a blue ball”"
    assert load_file(tmp_path / "explanation" / "explanation.safetensors")["image_maps"].shape == (1, 4, 4)
    panel.name.value = "explanation.png/below"
    panel.save_image.click()
    assert "cannot be written" in panel.message.value


def test_smaller_panels_have_fewer_controls_and_the_same_view(tiny, picture):
    small = layer_slider(picture, CAPTION, tiny)
    small.controls["layers"].value = 3
    full = explore(picture, CAPTION, tiny)
    full.change(layers=3)
    np.testing.assert_allclose(small.view.panels[0].map, full.view.panels[0].map, atol=1e-7)
    with pytest.raises(ValueError, match="controls must be among .*, got volume"):
        Explorer(picture, CAPTION, tiny, controls=("volume",))


def test_a_panel_that_cannot_start_says_why(tiny, picture):
    with pytest.raises(ValueError, match="The caption is empty"):
        explore(picture, "", tiny)
    with pytest.raises(FileNotFoundError, match="There is no picture file"):
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
        raise UserError("this caption is empty")

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
    assert panel.message.value.count("TypeError: unsupported operand") == 1 and panel.view is view
    work, seen = Work(), []
    for quick in (True, False):  # where no loop runs, long work is done at once too
        with pytest.raises(TypeError):
            work.start(broken, seen.append, seen.append, lambda passes: None, quick=quick)
    assert [type(error) for error in seen] == [TypeError, TypeError]


def test_a_slow_method_is_interrupted_by_another_choice(tiny, picture):
    panel = Explorer(picture, CAPTION, tiny)

    async def session():
        panel.controls["method"].value = "rise"
        assert "RISE" in panel.message.value and panel.view.state.method == "grad-eclip"
        panel.controls["opacity"].value = 0.3  # which is no reason to begin again
        assert panel.view.state.opacity == 0.3 and panel.work.running
        panel.controls["method"].value = "grad-eclip"
        assert panel.message.value == "" and panel.view.state.caption == CAPTION
        await asyncio.sleep(0.3)
        assert panel.view.state.method == "grad-eclip" and panel.view.state.opacity == 0.3 and not panel.work.running

    asyncio.run(session())
