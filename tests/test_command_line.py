"""`python -m gradeclip_utils`, the first thing that a user of real CLIP runs."""

import os
import subprocess
import sys
from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image

import gradeclip_utils
from gradeclip_utils.__main__ import main
from gradeclip_utils.models import checkpoints, save_compact

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
    command = [sys.executable, "-m", "gradeclip_utils", *model, "--image", "photo.jpg", "--caption", "a red car"]
    here = str(Path(gradeclip_utils.__file__).parent.parent)
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": here})
    assert (result.returncode, result.stderr) == (0, "")
    assert "map of 4 x 4 patches" in result.stdout
    assert "explained word by word (up to 75 pieces of 77 tokens)" in result.stdout
    difference = float(result.stdout.split("plain forward pass by ")[1].split()[0])
    assert difference < 1e-5
    assert "of photo.jpg and 'a red car'" in result.stdout
    assert Image.open(tmp_path / "explanation.png").size[0] > 800


def test_without_a_picture_a_scene_is_explained(model, tmp_path, capsys):
    assert main([*model, "--out", str(tmp_path / "scene.png")]) == 0
    assert "of a drawn scene and" in capsys.readouterr().out
    assert (tmp_path / "scene.png").is_file()


def test_a_word_that_the_model_never_saw_is_said_in_a_note(model, capsys):
    assert main([*model, "--caption", "a red zeppelin"]) == 0
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
        (["--model", "emoji", "--pretrained", "nothing.safetensors"], "nothing.safetensors is missing"),
        (["--device", "toaster"], "'toaster'"),
        (["--precision", "int8"], "'int8'"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_one_message_and_exit_code_2(arguments, message, capsys):
    assert main(arguments) == 2
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
    assert main([*model, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [["--image", "photo.png"], ["--out", "picture.jpg"], ["--out", "no/folder/picture.png"], ["--modle", "x"]],
)
def test_arguments_that_make_no_sense_are_refused_before_a_model_is_loaded(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "error: " in capsys.readouterr().err
