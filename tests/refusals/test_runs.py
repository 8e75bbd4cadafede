"""Examples and fine-tuning: what makes no sense is refused before it begins, and no state of another run is used."""

import io
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from gradeclip_utils import load_clip
from gradeclip_utils.datasets import Example, load
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.files import locked
from gradeclip_utils.finetune.pairs import Pair
from gradeclip_utils.finetune.run import _STATE, Tuned, Tuning, fine_tune
from tests.refusals.cases import named
from tests.studies.folders import write_noise

PAIR_IMAGE = Image.effect_noise((32, 32), 60).convert("RGB")


def test_a_cut_out_is_a_mask_of_what_is_not_transparent(tmp_path):
    folder = write_noise(tmp_path, ["a dog"])
    mask = load(f"folder:{folder}")[0].mask()
    pixels = np.dstack([np.full((32, 32, 3), 200, np.uint8), mask.astype(np.uint8) * 255])
    Image.fromarray(pixels, "RGBA").save(folder / "masks/0.png")
    assert np.array_equal(load(f"folder:{folder}")[0].mask(), mask) and 0 < mask.sum() < mask.size


EXAMPLE = {
    "key": "k",
    "prompt": "a dog",
    "concept": "dog",
    "caption": "",
    "present": ("dog",),
    "image": len,
}
EXAMPLES = [
    ("a key that is a number", {"key": 5}, "key of an example must be a text, got 5"),
    (
        "a key of half a character",
        {"key": "a\ud83d"},
        "key of an example holds half of a character",
    ),
    ("no prompt", {"prompt": None}, "prompt of an example must be a text, got None"),
    (
        "an image in place of a function",
        {"image": PAIR_IMAGE},
        "image of an example must be a function",
    ),
    (
        "a mask that is True",
        {"load_mask": True},
        "load_mask of an example must be a function that reads it, got True",
    ),
    ("present is a number", {"present": 5}, "present of an example must be a list, got 5"),
]


@pytest.mark.parametrize(("changed", "message"), named(EXAMPLES))
def test_an_example_that_is_none_is_refused_when_it_is_made(changed, message):
    with pytest.raises(GradeclipError, match=message):
        Example(**{**EXAMPLE, **changed})


def test_a_text_where_a_list_is_meant_is_one_entry():
    assert Example(**{**EXAMPLE, "present": "dog"}).present == ("dog",)


PAIRS = [
    Pair(Image.effect_noise((32, 32), 60).convert("RGB"), caption)
    for caption in ("a dog", "a red car", "a cat", "")
]
SHORT = Tuning(steps=2, batch=2, learning_rate=1e-3, warmup=1, precision="fp32")
TUNED = [
    ("a seed below zero", {"tuning": {"seed": -1}}, "seed must be at least 0"),
    ("workers below zero", {"workers": -1}, "workers must be at least 0"),
    ("saved never", {"save_every": 0}, "save_every must be at least 1"),
    ("no batch", {"tuning": {"batch": 0}}, "batch must be at least 2"),
    (
        "a rate without bounds",
        {"tuning": {"learning_rate": 1e38}},
        "learning_rate must be from 0 to 10",
    ),
    ("workers without end", {"workers": 10**6}, "workers must be at most 256, got 1000000"),
    (
        "phrases without end",
        {"tuning": {"phrases": 10**9}},
        "phrases must be at most 100, got 1000000000",
    ),
    (
        "a batch of the same pair twice",
        {"tuning": {"batch": 4}},
        "batch must be at most the number of pairs, 3, got 4",
    ),
    ("no model", {"clip": None}, r"clip must be a Clip\(model, preprocess, tokenizer\), got None"),
    (
        "a table",
        {"pairs": pd.DataFrame({"image": ["a"]})},
        r"pairs must be a list, got a table: list\(zip\(table",
    ),
    ("an array", {"pairs": np.array([["a.png", "a dog"]])}, "a pair is an image .* got array"),
    ("an empty caption", {"pairs": PAIRS}, "the caption of a pair"),
    (
        "no file",
        {"pairs": [Pair(Path("gone.png").open, "a dog")] * 2},
        "'a dog' cannot be read: .*'gone.png'",
    ),
    ("no pairs", {"pairs": []}, "there are none"),
    ("pairs of numbers", {"pairs": [1, 2]}, "a pair is an image"),
    (
        "a path too long",
        {"pairs": [Pair("x" * 5000, "a dog")] * 2},
        "the image of a pair .*: File name too long",
    ),
    ("a text", {"pairs": "dogs"}, "pairs must be a list"),
    (
        "half precision",
        {"tuning": {"precision": "fp16"}},
        "precision must be 'fp32' or 'bf16', got 'fp16'",
    ),
    (
        "unknown maps",
        {"tuning": {"maps": "gradcam"}},
        "one of grad-eclip, .*, word x region, .*got 'gradcam'",
    ),
    ("the folder is a file", {"folder": __file__}, "must be a folder, and .* is a file"),
]


@pytest.mark.parametrize(("options", "message"), named(TUNED))
def test_a_tuning_that_makes_no_sense_is_refused_before_it_begins(tiny, options, message):
    given = {"clip": tiny, "pairs": PAIRS[:3], "progress": False, **options}
    with pytest.raises(GradeclipError, match=message):
        tuning = replace(SHORT, **given.pop("tuning", {}))
        fine_tune(given.pop("clip"), given.pop("pairs"), tuning, **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"path": "tuned.pt"}, "the tuned model must end in .safetensors; got 'tuned.pt'"),
        ({"metadata": ["seed"]}, r"metadata must be a dictionary, got \['seed'\]"),
        ({"words": "dog"}, "words must be a list, got 'dog'"),
    ],
)
def test_a_tuned_model_is_saved_as_it_can_be_loaded_or_not_at_all(
    bundled, tmp_path, monkeypatch, given, message
):
    monkeypatch.chdir(tmp_path)
    tuned = Tuned(bundled, pd.DataFrame())
    with pytest.raises(GradeclipError, match=message):
        tuned.save(**{"path": "tuned.safetensors", **given})
    assert not list(tmp_path.iterdir())
    tuned.save("tuned.safetensors", words=["dinghy"])
    assert load_clip("emoji", "tuned.safetensors").vocabulary == bundled.vocabulary | {"dinghy"}


STATES = [
    ("cut off", lambda content: content[: len(content) // 2]),
    ("empty", lambda content: b""),
    ("text", lambda content: b"dear diary"),
    ("a list", lambda content: saved([1, 2])),
    ("of nothing", lambda content: saved({"recipe": {}})),
    ("pickled objects", lambda content: pickle.dumps({"recipe": Path("x")})),
]


def saved(what):
    stream = io.BytesIO()
    torch.save(what, stream)
    return stream.getvalue()


@pytest.mark.parametrize(("damage",), named(STATES))
def test_a_state_that_was_damaged_is_named_and_left_as_it_is(tiny, tmp_path, damage):
    state = tmp_path / _STATE
    state.write_bytes(damage(saved({"step": 1})))
    before = state.read_bytes()
    with pytest.raises(
        GradeclipError,
        match="state.pt (is damaged, or holds no state|holds a run with a different)",
    ):
        fine_tune(tiny, PAIRS[:3], SHORT, folder=tmp_path, progress=False)
    assert state.read_bytes() == before


def test_a_state_of_pairs_of_which_one_pixel_was_changed_is_refused(tiny, tmp_path):
    def pairs(first):
        first.save(tmp_path / "first.bmp")
        return [replace(PAIRS[0], image=tmp_path / "first.bmp"), *PAIRS[1:3]]

    fine_tune(tiny, pairs(PAIRS[0].image), SHORT, folder=tmp_path, progress=False)
    changed = PAIRS[0].image.copy()
    changed.putpixel((0, 0), (1, 2, 3))
    with pytest.raises(GradeclipError, match="a different recipe .images and captions is"):
        fine_tune(tiny, pairs(changed), SHORT, folder=tmp_path, progress=False)


def test_two_tunings_in_one_folder_are_told_apart(tiny, tmp_path):
    with (
        locked(tmp_path, "state.running"),
        pytest.raises(GradeclipError, match="another process is at work on"),
    ):
        fine_tune(tiny, PAIRS[:3], SHORT, folder=tmp_path, progress=False)
