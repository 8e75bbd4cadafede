"""The explorer without a browser: what a state gives, what is refused, and what is shown of it."""

import json
import re
import signal
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from gradeclip_utils import Explainer, GradeclipError
from gradeclip_utils.panels import explore
from gradeclip_utils.panels.sentences import sentence
from gradeclip_utils.panels.session import Session, State
from gradeclip_utils.scenes import arrange

CAPTION = "a red car and a blue ball"
KNOWN = frozenset("a an and the dog cat car red ball umbrella piano".split())
RED = Image.new("RGB", (60, 40), "red")


@pytest.fixture
def view_of(tiny, picture):
    """Gives the view of the picture and the caption, with other fields on request."""
    session = Session(tiny)
    state = State(picture, CAPTION)
    return lambda **fields: session.view(replace(state, **fields))


@pytest.fixture
def panel(tiny, picture):
    return explore(picture, CAPTION, tiny)


@pytest.fixture
def drawn(tiny):
    """A panel whose model knows few words, on a scene."""
    clip = replace(tiny, vocabulary=KNOWN, trained_on_drawn_scenes=True)
    return explore(arrange(["dog", "umbrella"], seed=3), "a dog", clip)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clip": "ViT-B-32"}, "as load_clip gives one, got 'ViT-B-32'"),
        ({"prompt": ["a dog", "a cat"]}, "takes one prompt, got 2"),
        ({"prompt": 3}, "prompts must be strings, got 3"),
    ],
)
def test_an_argument_of_another_kind_is_refused(tiny, picture, arguments, message):
    with pytest.raises(GradeclipError, match=message):
        explore(picture, **{"prompt": CAPTION, "clip": tiny} | arguments)


def titles(panel):
    return [view["name"] for view in panel.data["panels"]]


def ends_of_titles(panel):
    """The last word above each of the first two maps."""
    last_cells = [view["cells"][-1] for view in panel.data["panels"][:2]]
    return [upper["text"] for upper, *_ in last_cells]


def typed_caption(panel):
    """What stands in the field of the caption."""
    (value,) = (spec["value"] for spec in panel.data["controls"] if spec["name"] == "prompt")
    return value


def near_of_struck(panel):
    """The words that are offered for each word that is struck out."""
    return {word["text"]: word["near"] for word in panel.data["struck"]}


def leads(lead):
    return "leads" if lead >= 0 else "is behind"


def run_script(panel):
    """What the script of a panel computes, by name."""
    names = {"image": panel.view.state.source.image, "clip": panel.models["tiny"]}
    code = re.sub(r"^(image|clip) = .*$", "", panel.python(), flags=re.MULTILINE)
    exec(code, names)
    return names


# -------------------------------------------------------------------------------------------- views


@pytest.mark.parametrize("options", [{}, {"layers": 3}, {"resolution": "native"}])
def test_a_phrase_is_the_sum_of_its_words_and_a_patch_is_a_column(view_of, tiny, picture, options):
    phrase = view_of(prompt="a red car", phrase=(1, 2), **options)
    layers = phrase.state.layers
    explainer = Explainer(tiny, image_layers=layers, resolution=phrase.state.resolution)
    maps = explainer.interactions(picture, "a red car").image_maps
    np.testing.assert_allclose(phrase.map, maps[1] + maps[2], atol=1e-6)

    patch = view_of(prompt="a red car", patch=(3, 1), **options)
    drawing = patch.drawing()
    (panel,) = drawing.panels
    scores = [word.score for word in panel.words]
    np.testing.assert_allclose(scores, maps[:, 3, 1], atol=1e-6)
    assert drawing.word_scale == np.abs(scores).max()


def test_things_are_told_apart_by_what_they_share(view_of, tiny, picture):
    interactions = Explainer(tiny).interactions(picture, CAPTION)
    expected = interactions.centred([2, 6]).image_maps[2]
    view = view_of(phrase=(2, 2))
    np.testing.assert_allclose(view.map, expected, atol=1e-6)


def test_an_image_is_traced_once_for_all_captions(view_of, tiny):
    runs = []
    with tiny.model.visual.conv1.register_forward_hook(lambda *_: runs.append(1)):
        view_of()
        runs_of_first = len(runs)
        view_of(phrase=(1, 2))
        view_of(prompt="a dog")
    assert len(runs) == runs_of_first


def test_sentences_tell_where_relevance_lies_on_a_scene():
    scene = arrange(["dog", "umbrella"], seed=3)
    mask, *_ = scene.masks(96)
    dog = mask.reshape(12, 8, 12, 8).mean(axis=(1, 3))  # (12, 12)
    assert sentence(scene, dog, "a dog") == (
        "78 % of the relevance of “a dog” lies on the dog, which covers 7 % of the image."
    )
    assert sentence(scene, dog, "an umbrella").endswith("The maximum lies on the dog.")
    assert sentence(scene, dog, "a piano").startswith("There is no piano in this image.")
    assert sentence(None, dog, "a dog") == ""
    assert "no relevance" in sentence(scene, 0 * dog, "a dog")
    assert "gives it no weight" in sentence(scene, 0 * dog, "a red dog", start=2, end=5)


def test_a_pressed_word_shows_what_is_for_it_and_on_request_what_is_against_it(view_of):
    view = view_of(phrase=(2, 2))
    (panel,) = view.drawing().panels
    np.testing.assert_allclose(panel.map, view.map.clip(min=0))
    assert view.map.min() < 0

    drawing = view_of(phrase=(2, 2), signed=True).drawing()
    (panel,) = drawing.panels
    np.testing.assert_allclose(panel.map, view.map)
    assert drawing.signed


@pytest.mark.parametrize(
    ("first_struck", "shorter"), [(6, "a red car and a blue"), (3, "a red car")]
)
def test_without_a_pressed_word_the_bar_falls(view_of, tiny, picture, first_struck, shorter):
    view = view_of(phrase=(first_struck, 6))
    expected = Explainer(tiny).explain(picture, shorter).similarity[0]
    assert view.without == pytest.approx(expected, abs=1e-5)
    (panel,) = view.drawing().panels
    assert panel.value == view.without
    struck = [i for i, word in enumerate(panel.words) if word.struck]
    assert struck == list(range(first_struck, 7))


def test_a_contrast_says_by_how_much_the_caption_leads_and_where_what_favours_it_lies(drawn):
    drawn.change(prompt="a dog and an umbrella", against="a dog and a piano")
    explanation = drawn.view.explanation
    (lead,) = explanation.similarity - explanation.against_similarity
    expected = f"“a dog and an umbrella” {leads(lead)} “a dog and a piano” by {abs(lead):.2f}."
    assert drawn.data["sentences"]["all"].startswith(expected)

    everywhere = replace(explanation, image_maps=np.ones((1, 4, 4)))
    text = replace(drawn.view, explanation=everywhere).sentences["all"]
    assert text.startswith(f"{expected} ")
    assert " % of what favours it lies on the umbrella, which covers " in text


def test_a_lead_over_other_captions_is_the_bar_and_the_sentence(drawn):
    drawn.change(prompt="a dog", compared="others")
    explanation = drawn.view.explanation
    lead = explanation.similarity[0] - explanation.null_mean
    (panel,) = drawn.data["panels"]
    assert panel["labels"][0].startswith("lead ")
    assert panel["value"] - panel["start"] == pytest.approx(lead)
    expected = f"“a dog” {leads(lead)} the mean of {explanation.null_count} other captions by "
    assert drawn.data["sentences"]["all"].startswith(expected)


def test_beside_a_pinned_map_a_sentence_says_which_one_it_is_about(drawn):
    assert not drawn.data["sentences"]["all"].startswith("First map: ")
    drawn.pin()
    drawn.change(compared="others")
    sentences = drawn.data["sentences"]
    for text in (sentences["all"], sentences["words"][1]):
        assert text.startswith("First map: ")
    assert ends_of_titles(drawn) == ["· lead over others", "· similarity"]


def test_of_its_own_caption_a_scene_knows_what_each_word_is_about():
    scene = arrange(["bee"], tag=["honey"], named=[False])
    assert " lies on the bee, " in sentence(scene, np.ones((12, 12)), scene.caption)


# ------------------------------------------------------------------------------------------ changes


def test_unknown_words_are_struck_out_and_the_rest_is_explained(drawn):
    drawn.change(prompt="the happy dog and the umbrela")
    assert drawn.view.state.prompt == "the dog and the"
    assert near_of_struck(drawn) == {"happy": [], "umbrela": ["umbrella"]}

    drawn.change(layers=2)  # the caption as it was typed stays in the field
    assert typed_caption(drawn) == "the happy dog and the umbrela"
    assert drawn.view.state.prompt == "the dog and the"


def test_a_caption_of_unknown_words_alone_is_answered_with_near_ones(drawn):
    drawn.change(prompt=" ".join(f"umbrel{letter}" for letter in "bcdefghijk"))
    assert "does not know “umbrelb”, " in drawn.message
    assert "umbrella" in drawn.data["struck"][0]["near"]
    assert len(drawn.data["struck"]) == 10


@pytest.mark.parametrize(
    "fields",
    [
        {"method": "none"},
        {"colour": "red"},
        {"model": "none"},
        {"phrase": (1, 9)},
        {"patch": (9, 0)},
        {"layers": 99},
    ],
)
def test_a_wrong_value_is_answered_and_the_last_view_stays(panel, fields):
    before = panel.view
    panel.change(**fields)
    assert panel.view is before
    assert "still shows the last view" in panel.message
    panel.change(prompt="a dog")
    assert panel.message == ""
    assert panel.view.state.prompt == "a dog"


def test_a_new_image_is_shown_alone_with_an_empty_caption_and_becomes_a_thumbnail(panel):
    panel.open_image(RED, "red.png")
    assert panel.view.explanation is None
    assert panel.data["panels"] == []
    assert panel.data["empty"]
    assert len(panel.shelf) == len(panel.thumbnails) == 2

    panel.change(prompt="a dog")
    assert panel.view.explanation.prompts == ("a dog",)
    assert "image = read_image('red.png')  #" in panel.python()
    panel.press({"kind": "scene", "index": 0})
    assert panel.view.state.prompt == CAPTION  # the start is the first thumbnail


def test_a_file_that_is_no_image_is_answered_by_its_name(panel):
    panel.press({"kind": "image", "name": "notes.txt"}, [b"no image"])
    assert panel.message.startswith("notes.txt")
    assert len(panel.shelf) == 1


def test_a_model_of_drawn_scenes_warns_of_other_images(panel, drawn):
    assert panel.data["message"]["text"] == ""
    drawn.open_image(RED, "red.png")
    drawn.change(prompt="a dog")
    assert "trained on drawn scenes alone" in drawn.data["message"]["text"]


def test_scenes_stand_beside_the_start_which_can_be_changed_and_put_back(drawn):
    counts = [len(source.scene.objects) for source in drawn.shelf]
    assert counts == [2, 1, 2, 3, 4]
    for _ in range(2):  # the second press comes too late
        drawn.press({"kind": "scene", "name": "take the dog away"})
        assert drawn.message == ""
        assert drawn.busy == {}
    assert len(drawn.view.state.source.scene.objects) == 1
    assert drawn.view.state.prompt == "a dog"
    drawn.press({"kind": "scene", "name": "put it back"})
    assert len(drawn.view.state.source.scene.objects) == 2
    drawn.press({"kind": "scene", "name": "ask for a piano"})
    assert drawn.view.state.prompt == "a piano"
    assert "ask for a piano" not in drawn.data["changes"]


def test_a_caption_is_compared_with_nothing_with_others_or_with_a_caption(drawn):
    def visible_controls():
        return [spec["name"] for spec in drawn.data["controls"] if not spec["hidden"]]

    drawn.change(compared="others")
    assert "against" not in visible_controls()
    assert drawn.view.explanation.against_others
    assert "against='others'" in drawn.python()
    drawn.change(compared="own")
    assert "against" in visible_controls()
    assert not drawn.view.explanation.against_others

    drawn.change(against="a cat")
    assert drawn.view.explanation.against == ("a cat",)
    drawn.change(compared="caption")
    assert "There is no compared='caption'" in drawn.message
    assert drawn.view.explanation.against == ("a cat",)
    drawn.change(compared="others")
    assert drawn.view.explanation.against is None
    assert drawn.view.state.against == ""


def test_the_parts_of_all_layers_and_heads_sum_to_the_map_of_the_explained_layers(panel):
    assert panel.data["heads"] is None
    panel.press({"kind": "heads", "shown": True})
    panel.change(layers=2, compared="others")
    heads = panel.data["heads"]
    assert heads["explained"] == 2
    maps = np.array(heads["maps"])  # (layers, heads, patches)
    sums = np.array(heads["sums"])  # (layers, patches)
    np.testing.assert_allclose(maps.sum(axis=1), sums, atol=1e-4)
    explained = sums[-2:].sum(axis=0)
    np.testing.assert_allclose(explained, panel.view.map.ravel(), atol=1e-4)
    abs_max, *_ = heads["scales"]
    assert abs_max == pytest.approx(np.abs(maps).max(), rel=1e-3)

    panel.change(method="rollout")
    assert panel.data["heads"] == {"note": "Maps of Attention rollout are no sum over heads."}
    panel.press({"kind": "heads", "shown": False})
    assert panel.data["heads"] is None


def test_changes_are_undone_one_by_one(drawn):
    assert not drawn.data["undoable"]
    start = drawn.view.state
    drawn.change(prompt="a happy dog")
    drawn.change(phrase=(1, 1))
    drawn.change(method="none")  # refused: nothing to undo
    drawn.press({"kind": "back"})
    assert drawn.view.state == replace(start, prompt="a dog")
    assert typed_caption(drawn) == "a happy dog"
    for _ in range(2):  # the second press comes too late
        drawn.press({"kind": "back"})
        assert drawn.busy == {}
    assert drawn.view.state == start
    assert not drawn.data["undoable"]


def test_a_computation_that_is_stopped_leaves_the_last_view(panel, monkeypatch):
    before = panel.view
    in_a_kernel = signal.signal(signal.SIGINT, signal.SIG_IGN)  # of one that runs no cell
    monkeypatch.setattr(Explainer, "explain", lambda *_, **__: signal.raise_signal(signal.SIGINT))
    panel.press({"kind": "change", "fields": {"prompt": "a dog"}})
    assert signal.signal(signal.SIGINT, in_a_kernel) == signal.SIG_IGN
    assert panel.view is before
    assert panel.message.startswith("Stopped")
    assert panel.busy == {}


# ------------------------------------------------------------------------------------ a pinned view


def test_a_pinned_map_stands_beside_the_next_one_with_their_difference(panel):
    panel.pin()
    panel.change(prompt="a dog")
    assert titles(panel)[:2] == ["a dog", CAPTION]
    dog = panel.view.explanation.image_maps[0].clip(min=0)
    pinned = panel.beside.explanation.image_maps[0].clip(min=0)
    maps = [dog, pinned, dog - pinned]
    abs_max = np.abs(maps).max()
    for drawing, expected in zip(panel.data["panels"], maps, strict=True):
        np.testing.assert_allclose(drawing["map"], expected.ravel(), atol=1e-4 * abs_max)
        assert drawing["scale"] == pytest.approx(abs_max)  # the same units
    panel.press({"kind": "unpin"})
    assert titles(panel) == ["a dog"]


def test_two_models_are_named_in_the_titles(panel):
    panel.pin()
    panel.models["twin"] = replace(panel.models["tiny"], name="twin")
    panel.change(model="twin")
    assert ends_of_titles(panel) == ["· twin", "· tiny"]


def test_a_pinned_caption_is_explained_on_a_new_image(panel):
    panel.pin()
    panel.open_image(RED, "red.png")
    assert titles(panel) == []  # no caption yet, and nothing to compare
    panel.change(prompt="a dog")
    assert len(titles(panel)) == 3
    assert "The pinned caption is explained on the new image, too." in panel.message


def test_a_pinned_phrase_keeps_its_name(panel):
    panel.change(phrase=(0, 1))
    panel.pin()
    first, second, difference = panel.data["panels"]
    assert first["map"] == second["map"]
    assert not any(difference["map"])
    assert ends_of_titles(panel)[1] == "· “a red”"


def test_the_reset_shows_the_start(panel):
    start = panel.view.state
    panel.pin()
    panel.change(layers=2, resolution="native", prompt="a dog")
    panel.reset()
    assert panel.view.state == start
    assert panel.pinned is None


# ----------------------------------------------------------------------------- Python, PNG and page


@pytest.mark.parametrize(
    "fields", [{}, {"phrase": (1, 2)}, {"against": "a dog"}, {"method": "rollout"}, {"layers": 2}]
)
def test_the_script_computes_what_is_shown(panel, fields):
    panel.change(**fields)
    assert panel.data["signed"] == ("against" in fields)
    np.testing.assert_allclose(run_script(panel)["map_"], panel.view.map, atol=1e-5)


def test_beside_a_pinned_map_the_script_computes_both(panel):
    panel.pin()
    panel.change(prompt="a dog", method="rollout")
    names = run_script(panel)
    np.testing.assert_allclose(names["map_"], panel.view.map, atol=1e-5)
    np.testing.assert_allclose(names["pinned_map"], panel.beside.map, atol=1e-5)


def test_a_figure_has_a_sentence_above_model_and_method(drawn):
    sentence_below = drawn.data["sentences"]["all"]
    foot = drawn.figure(sentence_below).get_supxlabel()
    text = " ".join(foot.split())
    assert text.startswith(sentence_below)
    assert text.endswith(drawn.view.explanation.origin)


def test_save_writes_the_whole_figure_and_overwrites_nothing(panel, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("dog", "dog.png"):
        panel.press({"kind": "save", "name": name})
    assert {path.name for path in tmp_path.iterdir()} == {"dog.png", "dog-2.png"}
    assert "dog-2.png" in panel.message
    assert Image.open(tmp_path / "dog.png").height > 100
    panel.save("a/b")
    assert "Saved" not in panel.message


def test_a_page_without_a_kernel_shows_the_same_view(drawn):
    text = drawn._repr_mimebundle_()[0]["text/html"]
    data = re.search(r'<script type="application/json">(.*?)</script>', text, re.S)[1]
    panels = json.loads(data)["data"]["panels"]
    expected = json.dumps(drawn.data["panels"])
    assert panels == json.loads(expected)
    assert "<img" in text
