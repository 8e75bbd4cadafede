"""Examples: what makes no sense is refused when it is made."""

import numpy as np
import pytest
from PIL import Image

from gradeclip_utils.datasets import Example, load
from gradeclip_utils.errors import GradeclipError
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
