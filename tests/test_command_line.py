"""`gradeclip`: the commands, their help, their refusals, and `explain`."""

import os
import re
import shlex
import shutil
from itertools import product
from pathlib import Path

import pytest
from PIL import Image

from gradeclip_utils import Explainer, load_clip
from gradeclip_utils.__main__ import COMMANDS, build_parser, main
from gradeclip_utils.errors import GradeclipError
from tests.studies.folders import write_compact


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_compact(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def nowhere_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def write_photo(name):
    Image.effect_noise((90, 60), 60).convert("RGB").save(name)


def explainer_of(model):
    """What explains in a command with these arguments of a model."""
    return Explainer(load_clip("emoji", model[-1]))


def test_a_user_gets_a_description_numbers_and_a_figure(model, capsys):
    write_photo("photo.jpg")
    assert main(["explain", *model, "--image", "photo.jpg", "--prompt", "a red car"]) == 0
    output, notes = capsys.readouterr()
    assert "note: " in notes
    assert "drawn scenes" in notes
    assert "4 x 4 patches" in output
    _, numbers = output.split("photo.jpg, 'a red car':")
    for name in ("similarity  ", "percentile  ", "dependence  ", "parity  "):
        assert name in numbers
    assert float(re.search(r"parity +(\S+)", output)[1]) < 1e-5
    assert "centre crop (pixels 15 to 75 across and 0 to 60 down)" in output
    assert Image.open("explanation.png").size[0] > 400


@pytest.mark.parametrize(
    ("against", "over"), [("others", r"\d+ other captions"), ("a blue car", "“a blue car”")]
)
def test_a_lead_and_words_by_another_method_are_explained_on_request(model, capsys, against, over):
    write_photo("photo.jpg")
    arguments = ["--image", "photo.jpg", "--prompt", "a red car", "--words", "grad-eclip"]
    assert main(["explain", *model, *arguments, "--against", against]) == 0
    output = capsys.readouterr().out
    similarity = re.search(r"similarity +(\S+)", output)[1]
    lead = re.search(rf"lead +(\S+) over {over}, which the map explains", output)[1]
    explanation = explainer_of(model).explain("photo.jpg", "a red car", against=against)
    assert float(similarity) == pytest.approx(explanation.similarity[0], abs=1e-4)
    assert float(lead) == pytest.approx(explanation.lead[0], abs=1e-4)


def test_maps_are_by_another_method_on_request(model, capsys):
    write_photo("photo.jpg")
    arguments = ["--image", "photo.jpg", "--prompt", "a red car", "--words", "none"]
    figures = set()
    for method in ("grad-eclip", "maskclip"):
        out = f"{method}.png"
        assert main(["explain", *model, *arguments, "--method", method, "--out", out]) == 0
        figures.add(Image.open(out).tobytes())
    assert len(figures) == 2


@pytest.mark.parametrize(("ending", "start"), [(".pdf", b"%PDF"), (".SVG", b"<?xml")])
def test_each_of_several_images_has_a_figure_of_all_captions_with_its_name(
    model, capsys, ending, start
):
    images = ["a dog.png", "été.png"]
    captions = ["a red car", "a car"]
    for image in images:
        write_photo(image)
    out = f"my maps/of{ending}"
    arguments = ["--image", *images, "--prompt", *captions, "--out", out]
    assert main(["explain", *model, *arguments]) == 0
    for image in images:
        content = Path(f"my maps/of-{Path(image).stem}{ending}").read_bytes()
        assert content.startswith(start)
        assert b"/Type3" not in content  # journals refuse letters as Type 3

    pattern = r"^(.+), '(.+)':\n  similarity  (\S+)"
    numbers = re.findall(pattern, capsys.readouterr().out, re.M)
    printed = [(image, caption) for image, caption, _ in numbers]
    assert printed == list(product(images, captions))
    explainer = explainer_of(model)
    for image, caption, value in numbers:
        similarity = explainer.explain(image, caption).similarity[0]
        assert float(value) == pytest.approx(similarity, abs=1e-4)


def test_options_that_are_given_twice_add_up(model, capsys):
    for image in ("a.png", "b.png"):
        write_photo(image)
    images = ["--image", "a.png", "--image", "b.png"]
    prompts = ["--prompt", "a car", "--prompt", "a red car"]
    arguments = [*images, *prompts]
    assert main(["explain", *model, *arguments]) == 0
    printed = re.findall(r"^(.+), '(.+)':$", capsys.readouterr().out, re.M)
    assert printed == list(product(["a.png", "b.png"], ["a car", "a red car"]))


def test_without_an_image_a_scene_is_explained_and_an_unknown_word_is_a_note(model, capsys):
    assert main(["explain", *model, "--out", "scene.png"]) == 0
    assert "a drawn scene, " in capsys.readouterr().out
    assert Path("scene.png").is_file()
    assert main(["explain", *model, "--prompt", "a red zeppelin", "--out", "other.png"]) == 0
    notes = capsys.readouterr().err
    assert "note: " in notes
    assert "zeppelin" in notes
    assert ".py" not in notes


REFUSED = [
    (["explain", "--image", "notes.txt", "--prompt", "a car"], "notes.txt"),
    (["explain", "--image", "photo.png"], "--image needs a --prompt"),
    (["explain", "--out", "x.tiff"], "must end in .png or .svg or .pdf"),
    (["explain", "--image", "a/x.png", "b/x.png", "--prompt", "x"], "two images have one name"),
    (["evaluate", "--methods", "grad-eclip", "--out", "/proc/x"], "/proc/x"),
    (["report", "--data", "folder:nowhere", "--out", "x"], "nowhere/captions.csv"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_invalid_input_is_one_message_and_exit_code_2(arguments, message, capsys):
    Path("notes.txt").write_text("a car")
    write_photo("photo.png")
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("gradeclip: ")
    assert message in error
    assert "Traceback" not in error
    assert not Path("explanation.png").exists()


def test_debug_shows_the_traceback_of_an_error():
    with pytest.raises(GradeclipError):
        main(["--debug", "explain", "--out", "x.tiff"])


@pytest.mark.parametrize("arguments", [[], ["explian"]])
def test_a_command_that_does_not_exist_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize("out", ["photo.png", "x/../photo.png", "link.png", "hard.png"])
def test_no_command_writes_over_one_of_its_inputs(model, capsys, out):
    write_photo("photo.png")
    Path("x").mkdir()
    Path("link.png").symlink_to("photo.png")
    os.link("photo.png", "hard.png")
    before = Path("photo.png").read_bytes()
    arguments = ["explain", *model, "--prompt", "a dog", "--image", "photo.png", "--out", out]
    for overwrite in ([], ["--overwrite"]):
        assert main([*arguments, *overwrite]) == 2
        assert "is an input of this command" in capsys.readouterr().err
    assert Path("photo.png").read_bytes() == before


def test_a_figure_that_exists_is_replaced_on_request_alone(model, capsys):
    write_photo("photo.png")
    shutil.copy("photo.png", "explanation.png")
    before = Path("explanation.png").read_bytes()
    arguments = ["explain", *model, "--prompt", "a dog", "--image", "photo.png"]
    assert main(arguments) == 2
    assert "explanation.png exists: choose another file, or add --over" in capsys.readouterr().err
    assert Path("explanation.png").read_bytes() == before
    assert main([*arguments, "--overwrite"]) == 0
    assert Path("explanation.png").read_bytes() != before


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_ends_with_an_example_that_its_parser_takes(name, capsys):
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    assert caught.value.code == 0
    output = capsys.readouterr().out
    assert "unless you add --overwrite" in " ".join(output.split())
    examples = re.findall(r"^  gradeclip (.+)$", output.split("example:\n")[1], re.M)
    assert examples
    for example in examples:
        arguments = shlex.split(example)
        assert arguments[0] == name
        assert callable(build_parser(arguments).parse_args(arguments).run)
