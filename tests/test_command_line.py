"""`gradeclip`: the commands, their help, and the first command of a user of real CLIP: `explain`."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from PIL import Image

import gradeclip_utils
from gradeclip_utils import Explainer, load_clip
from gradeclip_utils.__main__ import _COMMANDS, _parser_of, main
from tests.studies.folders import write_compact


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_compact(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def nowhere_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_the_three_commands_are_a_console_script():
    assert list(_COMMANDS) == ["explain", "report", "evaluate"]
    project = tomllib.loads(
        (Path(gradeclip_utils.__file__).parent.parent / "pyproject.toml").read_text()
    )["project"]
    assert project["scripts"] == {"gradeclip": "gradeclip_utils.__main__:main"}


def test_a_user_gets_a_description_numbers_and_a_figure(model, tmp_path, capsys):
    Image.effect_noise((90, 60), 60).save(tmp_path / "photo.jpg")
    assert main(["explain", *model, "--image", "photo.jpg", "--caption", "a red car"]) == 0
    out, err = capsys.readouterr()
    loading, note = err.splitlines()
    assert loading == "gradeclip explain: loading"
    assert note.startswith("note: the model 'emoji' was trained on drawn scenes alone")
    assert "4 x 4 patches" in out
    named = out.index("photo.jpg, 'a red car':")
    assert all(out.index(number) > named for number in ("similarity  ", "dependence  ", "parity  "))
    assert float(re.search(r"parity +(\S+)", out)[1]) < 1e-5
    assert (
        "The model saw the centre crop (pixels 15 to 75 across and 0 to 60 down); the map ends there."
        in out
    )
    assert Image.open(tmp_path / "explanation.png").size[0] > 400


def test_each_of_several_images_has_a_figure_of_all_captions_that_is_named_after_it(
    model, tmp_path, capsys
):
    (tmp_path / "photos").mkdir()
    images = [str(tmp_path / f"photos/{name}.png") for name in ("a dog", "été")]
    for image in images:
        Image.effect_noise((90, 60), 60).save(image)
    captions = ["--caption", "a red car", "a car"]
    for ending, first in ((".pdf", b"%PDF"), (".SVG", b"<?xml")):
        assert (
            main(["explain", *model, "--image", *images, *captions, "--out", f"my maps/of{ending}"])
            == 0
        )
        for name in ("a dog", "été"):
            assert (tmp_path / f"my maps/of-{name}{ending}").read_bytes().startswith(first)
    assert (
        b"/Type3" not in (tmp_path / "my maps/of-été.pdf").read_bytes()
    )  # journals refuse letters as Type 3
    assert len(list((tmp_path / "my maps").iterdir())) == 4
    said = re.findall(r"^(.+), '(.+)':\n  similarity  (\S+)", capsys.readouterr().out, re.M)[-4:]
    assert [one[:2] for one in said] == [
        (image, caption) for image in images for caption in captions[1:]
    ]
    clip = load_clip("emoji", model[-1])
    for image, caption, value in said:
        assert float(value) == pytest.approx(
            Explainer(clip).explain(image, caption).similarity[0], abs=1e-4
        )


def test_without_an_image_a_scene_is_explained_and_a_word_that_the_model_never_saw_is_a_note(
    model, tmp_path, capsys
):
    assert main(["explain", *model, "--out", str(tmp_path / "scene.png")]) == 0
    printed = capsys.readouterr()
    assert "a drawn scene, " in printed.out and (tmp_path / "scene.png").is_file()
    than = r"percentile  \d+ \(the image is more similar to this caption than to \d+ % of \d+ other"
    assert re.search(than, printed.out)
    assert main(["explain", *model, "--caption", "a red zeppelin", "--out", "zeppelin.png"]) == 0
    notes = capsys.readouterr().err
    assert "note: " in notes and "zeppelin" in notes and ".py" not in notes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "ViT-B-17"], "ViT-B-16"),
        (["--model", "ViT-B-16"], "ViT-B-16"),
        (["--model", "ViT-B-16", "--pretrained", "nothing.safetensors"], "nothing.safetensors"),
        (["--model", "emoji", "--pretrained", "nothing.safetensors"], "nothing.safetensors"),
        (["--precision", "int8"], "'int8'"),
        (["--image", "notes.txt", "--caption", "a car"], "notes.txt"),
        (["--caption", ""], "at least one word"),
    ],
)
def test_a_model_image_or_caption_that_cannot_be_used_is_one_message_and_exit_code_2(
    arguments, message, capsys
):
    Path("notes.txt").write_text("a car")
    assert main(["explain", *arguments]) == 2
    _, error = capsys.readouterr().err.split("\n", 1)
    assert error.startswith("gradeclip: ") and message in error and "Traceback" not in error


@pytest.mark.parametrize(
    "arguments", [[], ["explian"], ["explain", "--modle", "x"], ["study"], ["words"], ["train"]]
)
def test_a_command_or_argument_that_does_not_exist_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize("name", list(_COMMANDS))
def test_the_help_of_a_command_ends_with_an_example_that_its_parser_takes(name, capsys):
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    assert caught.value.code == 0
    examples = re.findall(
        r"^  gradeclip (.+)$", capsys.readouterr().out.split("example:\n")[1], re.M
    )
    assert examples
    for example in examples:
        given = shlex.split(example)
        assert given[0] == name and callable(_parser_of(given).parse_args(given).run)
