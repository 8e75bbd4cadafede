"""Notices: what is explained all the same, and what is said of it."""

import pickle
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from gradeclip_utils import Explainer, Explanation, ExplanationWarning
from gradeclip_utils.__main__ import main
from gradeclip_utils.notices import heard_by, is_drawn, png_note
from gradeclip_utils.scenes import arrange
from tests.refusals.cases import said

README = Path(__file__).parents[2] / "README.md"


def test_a_photograph_shown_to_a_model_that_knows_drawn_scenes_alone_is_said(knowing, picture, tmp_path):
    with pytest.warns(ExplanationWarning, match="drawn scenes alone, and this image is not marked as one"):
        Explainer(knowing).explain(picture, "a dog")
    scene = arrange(["dog"]).image()
    for image in (scene, scene.resize((40, 40)), scene.crop((3, 3, 90, 90)).convert("L")):
        assert said(Explainer(knowing), image, "a dog") == []
    assert said(Explainer(replace(knowing, vocabulary=None)), picture, "a dog") == []


def test_the_readme_says_that_bundled_models_never_saw_a_photograph():
    (told,) = (part for part in README.read_text().split("\n- ") if part.startswith("**Photographs**"))
    assert "trained on drawn scenes and have never seen one" in " ".join(told.split())


def test_a_scene_is_known_as_one_when_it_is_read_back_from_a_png_that_says_so_and_from_a_saved_explanation(
    knowing, tmp_path
):
    scene = arrange(["dog"]).image().crop((10, 10, 200, 200))
    scene.save(tmp_path / "scene.png", pnginfo=png_note(scene))
    assert said(Explainer(knowing), tmp_path / "scene.png", "a dog") == []
    found = Explainer(knowing).explain(scene, "a dog")
    again = Explanation.load(found.save(tmp_path / "found"))
    assert is_drawn(again.image) and is_drawn(pickle.loads(pickle.dumps(scene)))


def test_a_montage_and_a_file_are_not_marked_and_the_sentence_claims_no_more(knowing, tmp_path):
    scene = arrange(["dog"]).image()
    scene.save(tmp_path / "scene.png")
    montage = Image.new("RGB", (800, 400))
    montage.paste(scene, (0, 0))
    for image in (tmp_path / "scene.png", montage):
        (note,) = said(Explainer(knowing), image, "a dog")
        assert "this image is not marked as one" in note


@pytest.mark.parametrize("ask", ["explain", "explain_batch", "interactions", "metagame"])
def test_whatever_explains_an_image_says_that_it_is_not_marked(knowing, picture, ask):
    notes, explainer = [], Explainer(knowing)
    with heard_by(notes.append):
        given = ([picture], ["a red dog"]) if ask == "explain_batch" else (picture, "a red dog")
        options = {"over": [[1], [2]]} if ask == "metagame" else {}
        getattr(explainer, ask)(*given, **options)
    assert sum("not marked" in note for note in notes) == 1


def test_a_warning_is_silenced_by_its_code_alone(knowing, picture):
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", r".*\[W-image-not-drawn\]")
        Explainer(knowing).explain(picture, "a zeppelin")
    assert [str(one.message).partition(" [")[2] for one in heard] == ["W-word-unknown]"]


def test_the_command_says_it_too(picture, tmp_path, capsys):
    picture.save(tmp_path / "photo.png")
    given = ["--image", str(tmp_path / "photo.png"), "--caption", "a dog", "--out", str(tmp_path / "x.png")]
    assert main(["explain", *given]) == 0
    said = capsys.readouterr().err
    assert "note: the model 'emoji' was trained on drawn scenes alone" in said and "Warning" not in said


@pytest.mark.parametrize(
    ("prompt", "shown"), [("一只狗", "一 只 狗"), ("a dog 🍕", "🍕"), ("ein Hündchen, собака", "")]
)
def test_a_script_that_figures_cannot_draw_is_said(tiny, picture, prompt, shown):
    notes = said(Explainer(tiny), picture, prompt)
    assert notes == ([f"the font of figures cannot draw {' '.join(sorted(shown.split()))}, and shows boxes: choose "
                      "another (matplotlib's font.family)"] if shown else [])  # fmt: skip


@pytest.mark.parametrize(
    ("prompt", "unknown"), [("🍕", "🍕"), ("...", "..."), ("a dog ...", ""), ("a dog?!", ""), ("a $ dog", "$")]
)
def test_a_prompt_of_signs_alone_is_said_to_be_none_that_the_model_was_shown(knowing, prompt, unknown):
    notes = [note for note in said(Explainer(knowing), arrange(["dog"]).image(), prompt) if "never shown" in note]
    assert notes == ([f"the model 'tiny' was never shown these words: {unknown}"] if unknown else [])
