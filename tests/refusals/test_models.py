"""`load_clip`: names, weights and devices that are none, and what the environment says."""

import json
import shutil

import open_clip
import pytest
import torch

from gradeclip_utils import load_clip
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.files import data_path
from gradeclip_utils.models import save_compact
from tests.refusals.cases import named

LOADED = [
    ("a number", [5], {}, "name of a model must be a string or a path, got 5"),
    ("bytes", [b"emoji"], {}, "name of a model must be a string or a path"),
    ("an empty name", [""], {}, "'' names no model"),
    ("a hub without a name", ["hf-hub:"], {}, "'hf-hub:' names no model"),
    ("transformers without a name", ["transformers:"], {}, "'transformers:' names no model"),
    ("a name of 5,000 letters", ["x" * 5000], {}, "no model and no folder has a name like 'xxx"),
    ("a name with a zero byte", ["hf-hub:a\0b"], {}, "no model and no folder has a name like"),
    ("a hub's name with a space", ["hf-hub:my model"], {}, "'hf-hub:my model' is no name that a repository can have"),
    ("a misspelt name", ["ViT-B-61", "openai"], {}, "has no model 'ViT-B-61'. Nearest: "),
    ("a number for weights", ["ViT-B-16", 5], {}, "pretrained must be a tag, a path or a state dict, got 5"),
    ("a list for weights", ["ViT-B-16", ["openai"]], {}, "pretrained must be a tag, a path or a state dict"),
    ("bytes for weights", ["ViT-B-16", b"openai"], {}, "is neither a file nor a tag|must be a tag"),
    ("no weights", ["ViT-B-16"], {}, "ViT-B-16 needs weights"),
    ("an unknown tag", ["ViT-B-16", "opnai"], {}, "neither a file nor a tag"),
    ("a state dict for a bundled model", ["emoji", {"a": torch.ones(1)}], {}, "not a state dict"),
    ("a state dict by numbers", ["ViT-B-32", {0: torch.ones(1)}], {}, "a state dict holds names and tensors.*got 0"),
    ("a tag for a bundled model", ["emoji", "openai"], {}, "There is no file of weights openai"),
    ("an unknown device", ["emoji"], {"device": "gpu"}, "device must be one that torch knows"),
    ("a device without values", ["emoji"], {"device": "meta"}, "on the device 'meta'"),
    ("a device that is not here", ["emoji"], {"device": "xla"}, "device must be one that torch knows"),
    ("a GPU that is not here", ["emoji"], {"device": "cuda:99"}, "device 'cuda:99' was asked for, and torch sees "),
    ("no GPU by number", ["emoji"], {"device": []}, "a device must be one that torch knows"),
    ("an unknown precision", ["emoji"], {"precision": "int8"}, "precision must be one of fp32, bf16"),
]


@pytest.mark.parametrize(("given", "options", "message"), named(LOADED))
def test_what_names_no_model_is_refused(given, options, message):
    with pytest.raises(GradeclipError, match=message):
        load_clip(*given, **options)


def test_a_gpu_of_apple_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(GradeclipError, match="device 'mps' was asked for, and torch sees no such GPU here"):
        load_clip("emoji", device="mps")


def test_a_file_of_weights_that_is_none_is_refused_for_a_bundled_model(tmp_path):
    for name, content in (("x.pt", b"dear"), ("x.safetensors", b"dear"), ("empty.safetensors", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(GradeclipError, match=f"{name}.* is damaged"):
            load_clip("emoji", tmp_path / name)


@pytest.mark.parametrize(("words", "message"), [(None, "words must be a list, got None"), ([5], "text, got 5")])
def test_words_that_are_none_are_not_saved_with_a_model(tiny, tmp_path, words, message):
    with pytest.raises(GradeclipError, match=message):
        save_compact(tiny.model, tmp_path / "x.safetensors", words=words, metadata={})
    assert not list(tmp_path.iterdir())


def test_half_a_folder_of_open_clip_is_refused(tmp_path):
    for content in ("{}", "[]", '{"model_cfg": {}}', "dear"):
        (tmp_path / "open_clip_config.json").write_text(content)
        with pytest.raises(GradeclipError, match="cannot be loaded"):
            load_clip(tmp_path)


def test_a_folder_of_open_clip_without_weights_or_with_damaged_ones_names_the_file(tmp_path):
    config = json.dumps({"model_cfg": open_clip.get_model_config("ViT-S-32-alt"), "preprocess_cfg": {}})
    (tmp_path / "open_clip_config.json").write_text(config)
    with pytest.raises(GradeclipError, match=r"a config and no weights: put open_clip_model\.safetensors beside it"):
        load_clip(tmp_path)
    (tmp_path / "epoch_3.bin").write_bytes(b"dear")
    with pytest.raises(GradeclipError, match=r"epoch_3\.bin \(4 bytes\) is damaged"):
        load_clip(tmp_path)


def test_a_file_of_another_bundled_model_is_that_model(tmp_path):
    clip = load_clip("emoji", data_path("emoji-fine.safetensors"))
    assert (clip.name, clip.pretrained) == ("emoji-fine", "bundled")
    shutil.copy(data_path("emoji-fine.safetensors"), tmp_path / "mine.safetensors")
    shutil.copy(data_path("emoji-fine.json"), tmp_path / "mine.json")
    clip = load_clip("emoji", tmp_path / "mine.safetensors")
    assert clip.pretrained == str(tmp_path / "mine.safetensors")


def test_a_refusal_says_what_the_environment_has(monkeypatch):
    monkeypatch.setenv("GRADECLIP_MODEL", "nonsense")
    with pytest.raises(GradeclipError, match=r"no model 'nonsense'.*The environment has GRADECLIP_MODEL='nonsense'"):
        load_clip()
    monkeypatch.delenv("GRADECLIP_MODEL")
    monkeypatch.setenv("GRADECLIP_PRETRAINED", "openai")
    with pytest.raises(GradeclipError, match=r"no file of weights openai.*has GRADECLIP_PRETRAINED='openai'"):
        load_clip()
