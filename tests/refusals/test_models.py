"""A name, a file or a device that is no model is refused with what to write instead."""

import pytest
from safetensors.torch import save_file

from gradeclip_utils import load_clip
from gradeclip_utils.errors import GradeclipError
from tests.conftest import build

ARGUMENTS = [
    pytest.param(["ViT-B-61", "openai"], "ViT-B-16", id="a misspelt name"),
    pytest.param(["emojy"], "emoji", id="a misspelt bundled name"),
    pytest.param(["openai/clip-vit-base-patch32"], "transformers:openai", id="a repository"),
    pytest.param(["ViT-B-16"], "pretrained", id="no weights"),
    pytest.param(["ViT-B-16", "opnai"], "openai", id="an unknown tag"),
    pytest.param(["ViT-B-16-gelu", "/x/y.pt"], "/x/y.pt", id="a missing file"),
]


@pytest.mark.parametrize(("arguments", "message"), ARGUMENTS)
def test_what_names_no_model_is_refused(arguments, message):
    with pytest.raises(GradeclipError, match=message):
        load_clip(*arguments)


def test_an_unknown_precision_is_refused_with_the_known_ones():
    with pytest.raises(GradeclipError, match="fp32.*bf16"):
        load_clip("emoji", precision="int8")


def test_a_device_that_torch_does_not_have_is_refused():
    with pytest.raises(GradeclipError, match="device='gpu'"):
        load_clip("emoji", device="gpu")


def test_weights_of_another_width_are_refused(tmp_path):
    state = {name: value.contiguous() for name, value in build().state_dict().items()}
    save_file(state, tmp_path / "narrow.safetensors")
    with pytest.raises(GradeclipError, match="open_clip cannot load ViT-B-32-gelu"):
        load_clip("ViT-B-32-gelu", tmp_path / "narrow.safetensors")
