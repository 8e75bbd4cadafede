"""Notices: warnings about explanations that are valid all the same, and the exceptions of refusals."""

import pickle
from dataclasses import replace

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from gradeclip_utils import Explainer, Explanation, ExplanationWarning
from gradeclip_utils.errors import GradeclipError, UnsupportedModel, heard_by
from gradeclip_utils.images import DRAWN
from gradeclip_utils.scenes import arrange


@pytest.mark.parametrize("kind", [GradeclipError, UnsupportedModel])
def test_a_refusal_is_a_value_error_and_keeps_its_sentence_on_the_way_from_another_process(kind):
    found = pickle.loads(pickle.dumps(kind("this is none")))
    assert (type(found), str(found)) == (kind, "this is none") and isinstance(
        found, (ValueError, GradeclipError)
    )


def said(explainer, image, prompt):
    notes = []
    with heard_by(notes.append):
        explainer.explain(image, prompt)
    return notes


def test_a_photograph_shown_to_a_model_that_knows_drawn_scenes_alone_is_said(knowing, picture):
    with pytest.warns(
        ExplanationWarning, match="drawn scenes alone, and this image is not marked as one"
    ):
        Explainer(knowing).explain(picture, "a dog")
    scene = arrange(["dog"]).image()
    for image in (scene, scene.resize((40, 40)), scene.crop((3, 3, 90, 90)).convert("L")):
        assert said(Explainer(knowing), image, "a dog") == []
    assert said(Explainer(replace(knowing, vocabulary=None)), picture, "a dog") == []


def test_a_scene_is_known_as_one_when_it_is_read_back(knowing, tmp_path):
    scene = arrange(["dog"]).image().crop((10, 10, 200, 200))
    note = PngInfo()
    note.add_text(DRAWN, "yes")
    scene.save(tmp_path / "scene.png", pnginfo=note)
    assert said(Explainer(knowing), tmp_path / "scene.png", "a dog") == []
    found = Explainer(knowing).explain(scene, "a dog")
    again = Explanation.load(found.save(tmp_path / "found"))
    assert DRAWN in again.image.info and DRAWN in pickle.loads(pickle.dumps(scene)).info
    montage = Image.new("RGB", (800, 400))
    montage.paste(scene, (0, 0))
    assert "this image is not marked as one" in said(Explainer(knowing), montage, "a dog")[0]


@pytest.mark.parametrize("ask", ["explain", "explain_batch", "interactions"])
def test_whatever_explains_an_image_says_once_that_it_is_not_marked(knowing, picture, ask):
    notes, explainer = [], Explainer(knowing)
    with heard_by(notes.append):
        given = ([picture], ["a red dog"]) if ask == "explain_batch" else (picture, "a red dog")
        getattr(explainer, ask)(*given)
    assert sum("not marked" in note for note in notes) == 1


def test_a_script_that_figures_cannot_draw_is_said_when_it_is_drawn(tiny, picture):
    for prompt, boxes in (("一只狗", True), ("a dog 🍕", True), ("ein Hündchen, собака", False)):
        explanation, notes = Explainer(tiny).explain(picture, prompt), []
        with heard_by(notes.append):
            explanation.plot()
        assert any("the font of figures lacks" in note for note in notes) == boxes


@pytest.mark.parametrize(
    ("prompts", "unknown"),
    [
        (["a RED skateboarding dog!", "a cat, a Skateboarding cat"], "skateboarding, cat"),
        ("a dog don't, A Dog?!", ""),
        ("🍕", "🍕"),
        ("...", "..."),
        ("a $ dog", "$"),
    ],
)
def test_words_and_signs_that_the_model_never_saw_are_named_whole_and_once(
    knowing, prompts, unknown
):
    notes = [
        note
        for note in said(Explainer(knowing), arrange(["dog"]).image(), prompts)
        if "these words:" in note
    ]
    assert notes == ([f"the model 'tiny' does not know these words: {unknown}"] if unknown else [])
