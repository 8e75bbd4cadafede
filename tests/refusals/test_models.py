"""`load_clip`: names, weights and devices that are none, and what the environment says."""

import pytest
import torch

from gradeclip_utils import load_clip
from gradeclip_utils.errors import GradeclipError
from tests.refusals.cases import named

LOADED = [
    ("a number", [5], {}, "name of a model must be a string or a path, got 5"),
    ("an empty name", [""], {}, "'' names no model"),
    ("a hub without a name", ["hf-hub:"], {}, "'hf-hub:' names no model"),
    (
        "a name of 5,000 letters",
        ["x" * 5000],
        {},
        "the name of a model 'xxx.* cannot be used: File name too long",
    ),
    (
        "a folder in the home of nobody",
        ["~nobody-here/clip"],
        {},
        "a model '~nobody-here/clip' cannot be used: ",
    ),
    (
        "a hub's name with a space",
        ["hf-hub:my model"],
        {},
        "'my model' is not the name of a repository",
    ),
    ("a misspelt name", ["ViT-B-61", "openai"], {}, "has no model 'ViT-B-61'. Nearest: "),
    ("a name in other letters", ["vit-b-32"], {}, "no model 'vit-b-32'. Nearest: .*ViT-B-32"),
    ("a bundled name, misspelt", ["emojy"], {}, "no model 'emojy'. Nearest: .*emoji"),
    (
        "a folder that is not there",
        ["/models/my-clip"],
        {},
        "no model in /models/my-clip: a folder with open_clip_c",
    ),
    (
        "a repository",
        ["openai/clip-vit-base-patch32"],
        {},
        "'transformers:openai/clip-vit-base-patch32'",
    ),
    (
        "a number for weights",
        ["ViT-B-16", 5],
        {},
        "pretrained must be a tag, a path or a state dict, got 5",
    ),
    ("no weights", ["ViT-B-16"], {}, "ViT-B-16 needs weights: pretrained='openai' or"),
    (
        "an unknown tag",
        ["ViT-B-16", "opnai"],
        {},
        "'opnai' is neither a file nor a tag of ViT-B-16.*openai, laion400m",
    ),
    (
        "a file that is not there",
        ["ViT-B-16", "/x/y.pt"],
        {},
        "There is no file of weights /x/y.pt",
    ),
    (
        "a state dict for a bundled model",
        ["emoji", {"a": torch.ones(1)}],
        {},
        "neither a state dict nor",
    ),
    ("an empty state dict", [None, {}], {}, "the state dict is empty"),
    (
        "a state dict by numbers",
        ["ViT-B-32", {0: torch.ones(1)}],
        {},
        "holds no state dict: .*got 0",
    ),
    (
        "a number for a state dict",
        ["ViT-B-32", {"state_dict": 5}],
        {},
        "holds no state dict: .*got 5",
    ),
    (
        "a tag for a bundled model",
        ["emoji", "openai"],
        {},
        "a bundled model .* nor a tag of open_clip: got 'openai'",
    ),
    ("an unknown device", ["emoji"], {"device": "gpu"}, "device must be one that torch knows"),
    ("a device without values", ["emoji"], {"device": "meta"}, "on the device 'meta'"),
    (
        "a GPU that is not here",
        ["emoji"],
        {"device": "cuda:99"},
        "device 'cuda:99' cannot be used: torch finds ",
    ),
    (
        "an unknown precision",
        ["emoji"],
        {"precision": "int8"},
        "precision must be one of fp32, bf16",
    ),
]


@pytest.mark.parametrize(("given", "options", "message"), named(LOADED))
def test_arguments_that_name_no_model_are_refused(given, options, message):
    with pytest.raises(GradeclipError, match=message):
        load_clip(*given, **options)


def test_a_file_of_weights_that_is_none_is_refused_for_a_bundled_model(tmp_path):
    for name, content in (
        ("x.pt", b"dear"),
        ("x.safetensors", b"dear"),
        ("empty.safetensors", b""),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(GradeclipError, match=f"{name}.* is damaged"):
            load_clip("emoji", tmp_path / name)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (
            "MODEL",
            "nonsense",
            "no model 'nonsense'.*The environment has GRADECLIP_MODEL='nonsense'",
        ),
        (
            "PRETRAINED",
            "openai",
            "got 'openai', which is no file.*has GRADECLIP_PRETRAINED='openai'",
        ),
        (
            "DEVICE",
            "toaster",
            r"must be one that torch knows \(cpu.*'toaster' .The environment has GRADECLIP_DEVICE",
        ),
        (
            "DEVICE",
            "cuda:99",
            "'cuda:99' cannot be used: torch finds .* such GPU here .The environment has",
        ),
    ],
)
def test_a_refusal_says_what_the_environment_has(monkeypatch, variable, value, message):
    monkeypatch.setenv(f"GRADECLIP_{variable}", value)
    with pytest.raises(GradeclipError, match=message):
        load_clip()
