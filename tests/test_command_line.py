"""`python -m gradeclip_utils`: the commands, their help, and what a user of real CLIP runs first: `explain`."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import open_clip
import pandas as pd
import pytest
import torch
from PIL import Image

import gradeclip_utils
from gradeclip_utils import Explainer, load_clip
from gradeclip_utils.__main__ import COMMANDS, main, parser_of
from gradeclip_utils.models import checkpoints, save_compact
from studies import STUDIES

CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 3},
}
PREPROCESS = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic", "resize_mode": "shortest", "size": 32}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The arguments that load a small model of random weights."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    config = {**CONFIG, "preprocess": PREPROCESS}
    save_compact(open_clip.CLIP(**CONFIG), path, words=["a", "red", "car"], metadata={}, config=config)
    return ["--model", "emoji", "--pretrained", str(path)]


@pytest.fixture(autouse=True)
def nowhere_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkpoints.hub, "HF_HUB_OFFLINE", True)


def test_a_user_gets_a_description_a_parity_check_and_a_picture(model, tmp_path):
    Image.effect_noise((90, 60), 60).save(tmp_path / "photo.jpg")
    command = [
        sys.executable,
        "-m",
        "gradeclip_utils",
        "explain",
        *model,
        "--image",
        "photo.jpg",
        "--caption",
        "a red car",
    ]
    here = str(Path(gradeclip_utils.__file__).parent.parent)
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": here})
    about = "and this image is not marked as one: at a photograph it can only guess"
    note = f"note: the model 'emoji' was trained on drawn scenes alone, {about} [W-image-not-drawn]\n"
    assert (result.returncode, result.stderr) == (0, note)
    assert "map of 4 x 4 patches" in result.stdout
    assert "explained word by word (up to 75 pieces of 77 tokens)" in result.stdout
    difference = float(result.stdout.split("plain forward pass by ")[1].split()[0])
    assert difference < 1e-5
    assert "of photo.jpg and 'a red car'" in result.stdout
    assert Image.open(tmp_path / "explanation.png").size[0] > 800


def test_without_a_picture_a_scene_is_explained(model, tmp_path, capsys):
    assert main(["explain", *model, "--out", str(tmp_path / "scene.png")]) == 0
    out = capsys.readouterr().out
    assert "of a drawn scene and" in out
    assert re.search(r"differs from those of 16 other prompts by \d\.\d\d \[\d\.\d\d, \d\.\d\d\]", out)
    assert (tmp_path / "scene.png").is_file()


def test_each_of_several_pictures_has_a_figure_of_all_captions_that_is_named_after_it(model, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    pictures = [str(tmp_path / f"photos/{name}.png") for name in ("a dog", "été")]
    for picture in pictures:
        Image.effect_noise((90, 60), 60).save(picture)
    captions = ["--caption", "a red car", "a car"]
    for ending, first in ((".pdf", b"%PDF"), (".SVG", b"<?xml"), (".png", b"\x89PNG")):
        assert main(["explain", *model, "--image", *pictures, *captions, "--out", f"my maps/of{ending}"]) == 0
        for name in ("a dog", "été"):
            assert (tmp_path / f"my maps/of-{name}{ending}").read_bytes().startswith(first)
    assert b"/Type3" not in (tmp_path / "my maps/of-été.pdf").read_bytes()  # journals refuse letters as Type 3
    assert len(list((tmp_path / "my maps").iterdir())) == 6
    said = re.findall(r"similarity (\S+) of (.+) and '(.+)'", capsys.readouterr().out)[-4:]
    assert [one[1:] for one in said] == [(picture, caption) for picture in pictures for caption in captions[1:]]
    clip = load_clip("emoji", model[-1])
    for value, picture, caption in said:
        assert float(value) == pytest.approx(Explainer(clip).explain(picture, caption).similarity[0], abs=1e-4)


def test_a_word_that_the_model_never_saw_is_said_in_a_note(model, capsys):
    assert main(["explain", *model, "--caption", "a red zeppelin"]) == 0
    captured = capsys.readouterr()
    assert "note: " in captured.err
    assert "zeppelin" in captured.err
    assert ".py" not in captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "ViT-B-17"], "Nearest: ViT-B-16"),
        (["--model", "ViT-B-16"], "ViT-B-16 needs weights"),
        (["--model", "ViT-B-16", "--pretrained", "openai"], "hf download timm/vit_base_patch16_clip_224.openai"),
        (["--model", "ViT-B-16", "--pretrained", "nothing.safetensors"], "neither a file nor a tag"),
        (["--model", "emoji", "--pretrained", "nothing.safetensors"], "no file of weights nothing.safetensors"),
        (["--device", "toaster"], "'toaster'"),
        (["--precision", "int8"], "'int8'"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_one_message_and_exit_code_2(arguments, message, capsys):
    assert main(["explain", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("gradeclip: ")
    assert message in captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image", "nothing.png", "--caption", "a car"], "no picture file nothing.png"),
        (["--image", "notes.txt", "--caption", "a car"], "not a picture"),
        (["--caption", ""], "at least one word"),
    ],
)
def test_a_picture_or_caption_that_cannot_be_used_is_one_sentence_and_exit_code_2(
    model, arguments, message, capsys, tmp_path
):
    (tmp_path / "notes.txt").write_text("a car")
    assert main(["explain", *model, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image", "photo.png"], "--image needs a --caption"),
        (["--out", "picture.tiff"], "must end in .png or .svg or .pdf"),
        (["--image", "a.png", "b/a.png", "--caption", "a car"], "two images would be written to explanation-a.png"),
        (["--out", "/proc/picture.png"], "--out cannot be written to /proc/picture.png"),
        (["--out", ""], "--out must be a path, and an empty one was given [E-path-empty]"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_before_a_model_is_loaded(arguments, message, capsys):
    assert main(["explain", "--model", "never looked for", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["explian"], ["explain", "--modle", "x"], ["study"], ["study", "cooking"]])
def test_a_command_or_argument_that_does_not_exist_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "error: " in capsys.readouterr().err


def commands():
    """The words that lead to every command, groups left out."""
    for name, command in COMMANDS.items():
        yield from ([name, inner] for inner in command.inside)
        if not command.inside:
            yield [name]


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_the_help_of_a_command_ends_with_an_example_that_its_parser_takes(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main([*words, "--help"])
    assert caught.value.code == 0
    examples = re.findall(r"^  python -m gradeclip_utils (.+)$", capsys.readouterr().out.split("example:\n")[1], re.M)
    assert examples
    for example in examples:
        given = shlex.split(example)
        assert given[: len(words)] == words
        assert callable(parser_of(given).parse_args(given).run)


def test_help_comes_at_once_because_only_the_chosen_command_is_imported():
    heavy = "torch", "pandas", "matplotlib", "PIL", "numpy"
    for arguments in (["--help"], ["explain", "--help"], ["study", "--help"]):
        code = (
            "import sys, gradeclip_utils.__main__ as command\n"
            f"try: command.main({arguments})\nexcept SystemExit: pass\n"
            f"print([name for name in {heavy} if name in sys.modules], file=sys.stderr)"
        )
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert result.stderr.strip() == "[]"


def test_a_mistake_in_the_code_is_not_shown_as_one_of_the_user(monkeypatch, model):
    def broken(*given, **named):
        raise TypeError("unsupported operand")

    monkeypatch.setattr("gradeclip_utils.models.load_clip", broken)
    with pytest.raises(TypeError, match="unsupported operand"):
        main(["explain", *model])


def test_a_command_that_is_stopped_says_so_without_a_traceback(monkeypatch, model, capsys):
    def stopped(*given, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr("gradeclip_utils.models.load_clip", stopped)
    assert main(["explain", *model]) == 130
    assert capsys.readouterr().err.startswith("gradeclip: stopped")


def test_figures_of_any_model_are_printed_or_added_to_a_table_with_where_they_come_from(
    monkeypatch, model, capsys, tmp_path
):
    figures = {"study": "binding", "figure": ["colour", "size"], "value": [0.5, 0.1], "low": 0.0, "high": 1.0, "n": 7}
    monkeypatch.setitem(STUDIES, "binding", lambda clip: pd.DataFrame(figures))
    monkeypatch.setitem(STUDIES, "matching", lambda clip: pd.DataFrame({**figures, "study": "matching"}))
    assert main(["study", "binding", *model]) == 0
    assert "colour" in capsys.readouterr().out
    table = tmp_path / "table.csv"
    table.write_text("study,figure,value,low,high,n,model,weights,version,commit,command\n")  # columns alone
    for study in ("matching", "binding", "binding"):
        assert main(["study", study, *model, "--out", str(table)]) == 0
    found = pd.read_csv(table)
    assert list(found["study"]) == ["matching"] * 2 + ["binding"] * 2  # what was measured twice is there once
    assert list(found["value"]) == [0.5, 0.1] * 2 and set(found["model"]) == {"emoji"}
    assert found["weights"].str.fullmatch("[0-9a-f]{16}").all() and found["commit"].notna().all()
    asked = shlex.split(found["command"].iloc[-1])[3:]
    assert callable(parser_of(asked).parse_args(asked).run) and asked[:2] == ["study", "binding"]


def test_a_table_of_something_else_is_left_as_it_is(model, capsys, tmp_path):
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    assert main(["study", "binding", "--model", "never looked for", "--out", str(tmp_path / "table.csv")]) == 2
    assert "is a table of something else: it lacks study, figure, model, weights" in capsys.readouterr().err
    assert (tmp_path / "table.csv").read_text() == "a,b\n1,2\n"
