"""Warnings about explanations that are valid all the same."""

import warnings
from dataclasses import replace

import pytest

from gradeclip_utils import Explainer, ExplanationWarning
from gradeclip_utils.errors import heard_by
from gradeclip_utils.scenes import arrange


@pytest.fixture
def scene():
    return arrange(["dog"]).image()


def notes_of(explainer, image, prompts):
    notes = []
    with heard_by(notes.append):
        explainer.explain(image, prompts)
    return notes


def test_a_model_of_drawn_scenes_warns_of_a_photograph(bundled, picture):
    with pytest.warns(ExplanationWarning, match="drawn scenes alone"):
        Explainer(bundled).explain(picture, "a dog")


def test_a_scene_is_known_as_one_after_it_was_changed_by_pillow(bundled, scene):
    small = scene.resize((40, 40))
    part_in_grey = scene.crop((3, 3, 90, 90)).convert("L")
    for image in (scene, small, part_in_grey):
        assert notes_of(Explainer(bundled), image, "a dog") == []


@pytest.mark.parametrize(
    ("prompts", "unknown"),
    [
        (["a RED skateboarding dog!", "a cat, a Skateboarding cat"], "skateboarding, cat"),
        ("a dog don't, A Dog?!", None),
        ("🍕", "🍕"),
        ("a $ dog", "$"),
    ],
)
def test_words_that_the_model_never_saw_are_named_once(knowing, scene, prompts, unknown):
    notes = notes_of(Explainer(knowing), scene, prompts)
    notes = [note for note in notes if "words" in note]
    if unknown is None:
        assert notes == []
    else:
        (note,) = notes
        assert note.endswith(f": {unknown}")


def test_a_result_says_what_its_model_does_not_know(knowing, scene, picture):
    explainer = Explainer(replace(knowing, trained_on_drawn_scenes=True))
    drawn = explainer.explain(scene, ["a RED skateboarding dog", "a dog"], against="a cat")
    assert drawn.provenance.unknown_words == ("skateboarding", "cat")
    assert drawn.notes == ("the model does not know: skateboarding, cat",)
    unknown = [word.text for word in drawn.words[0] if drawn.is_unknown(word)]
    assert unknown == ["skateboarding"]
    assert drawn["a dog"].provenance.unknown_words == ("cat",)

    photograph = explainer.explain(picture, "a dog")
    assert photograph.provenance.unknown_words == ()
    assert photograph.notes == ("trained on drawn scenes alone: a guess",)
    assert explainer.interactions(picture, "a dog").notes == photograph.notes
    assert explainer.interactions(scene, "a Cat").provenance.unknown_words == ("cat",)


def test_a_word_of_another_prompt_is_not_unknown_because_it_holds_one_that_is(knowing, scene):
    explanation = Explainer(knowing).explain(scene, ["a do", "a dog"])
    assert explanation["a do"].notes == ("the model does not know: do",)
    assert explanation["a dog"].notes == ()


def test_a_listener_hears_every_warning_of_its_block_and_no_one_else_does(bundled, picture):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ExplanationWarning)
        for _ in range(2):
            assert len(notes_of(Explainer(bundled), picture, "a dog")) == 1
