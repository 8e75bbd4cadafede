"""Fuzz: whatever comes, the outcome is an answer or a `GradeclipError`, and the model is bit for bit what it was.

A few examples of each here; `make fuzz` tries thousands (`GRADECLIP_FUZZ` says how many).
"""

import io
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from gradeclip_utils import Explainer, Explanation, read_image
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.notices import heard_by
from gradeclip_utils.panels.jobs import UserError
from gradeclip_utils.panels.state import State, as_source, changed

FUZZED = settings(
    max_examples=int(os.environ.get("GRADECLIP_FUZZ", "15")),
    deadline=None,
    derandomize="GRADECLIP_FUZZ" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
MODES = st.sampled_from(
    ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "LA", "La", "RGBa", "I;16"]
)
ARRAYS = arrays(
    st.sampled_from([np.uint8, np.float32, np.int64, np.bool_]),
    array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9),
)


@st.composite
def pil_images(draw):
    size = draw(st.tuples(st.integers(0, 40), st.integers(0, 40)))
    image = Image.new(draw(MODES), size)
    return image.rotate(draw(st.integers(0, 360)), expand=True) if 0 not in size and image.mode == "RGB" else image


@st.composite
def files(draw):
    """A picture's file, whole, cut short, or with some bytes changed."""
    stream = io.BytesIO()
    form = draw(st.sampled_from(["png", "jpeg", "gif", "webp", "bmp", "tiff"]))
    shape = draw(st.integers(1, 30)), draw(st.integers(1, 30)), 3
    Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)).save(stream, form)
    content = bytearray(stream.getvalue())
    for place, value in draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=8)):
        content[place] = value
    return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content)


IMAGES = pil_images() | ARRAYS | ANYTHING
WORDS = st.sampled_from(
    ["a", "dog", "red", "cat", "don't", "&amp;", "🍕", "日本", "...", "\u200d", "\0", "é", "e\u0301"]
)
TEXTS = st.text(max_size=60) | st.lists(WORDS, max_size=40).map(" ".join)
EMBEDDINGS = arrays(
    st.sampled_from([np.float16, np.float32, np.float64]),
    st.sampled_from([(48,), (1, 48), (2, 48), (2, 47), (0, 48)]),
    elements=st.floats(width=16) | st.sampled_from([1e-5, 6e4, 0.0]),
)
PROMPTS = TEXTS | st.lists(TEXTS, min_size=1, max_size=3) | EMBEDDINGS | ANYTHING


@pytest.fixture(scope="module")
def explainer(tiny):
    return Explainer(tiny)


@pytest.fixture(scope="module")
def before(tiny):
    return {name: value.clone() for name, value in tiny.model.state_dict().items()}


def refused_or(answer):
    """What was answered; None where it was refused. Anything else is raised."""
    try:
        with heard_by(lambda warning: None):
            return answer()
    except GradeclipError as refusal:
        assert str(refusal) and refusal.code.startswith("E-")
        return None
    except ValueError as refusal:
        assert "needs at least one word" in str(refusal) or "in another order than its own" in str(refusal), repr(
            refusal
        )
        return None  # `words` says so


@FUZZED
@given(IMAGES)
def test_an_image_is_read_or_refused(image):
    found = refused_or(lambda: read_image(image))
    assert found is None or (found.mode == "RGB" and 0 not in found.size)


@FUZZED
@given(files())
def test_a_file_is_read_or_refused(content):
    with TemporaryDirectory() as folder:
        file = Path(folder) / "x"
        file.write_bytes(content)
        found = refused_or(lambda: read_image(file))
        assert found is None or found.mode == "RGB"


@FUZZED
@given(pil_images(), PROMPTS, st.none() | PROMPTS)
def test_an_explanation_is_whole_or_refused_and_the_model_stays_as_it_was(
    explainer, tiny, before, image, prompts, other
):
    rng, threads, training = torch.get_rng_state(), torch.get_num_threads(), tiny.model.training
    found = refused_or(lambda: explainer.explain(image, prompts, other))
    if found is not None:
        assert np.isfinite(found.image_maps).all() and np.isfinite(found.similarity).all()
        assert (np.abs(found.similarity) <= 1 + 1e-5).all() and len(found.words) == len(found.prompts)
    assert torch.equal(rng, torch.get_rng_state())
    assert (threads, training) == (torch.get_num_threads(), tiny.model.training)
    assert all(torch.equal(value, before[name]) for name, value in tiny.model.state_dict().items())
    assert all(weight.grad is None for weight in tiny.model.parameters())


@FUZZED
@given(st.dictionaries(st.sampled_from([*State.__dataclass_fields__]), ANYTHING, min_size=1, max_size=3))
def test_a_state_changes_as_a_whole_or_not_at_all(picture, values):
    state = State(as_source(picture), "a dog")
    with suppress(UserError):
        found = changed(state, values, 3)
        assert changed(found, {}, 3) == found
    assert state == replace(state)


@FUZZED
@given(st.data())
def test_a_stored_folder_is_read_as_it_was_saved_or_refused(explainer, picture, data):
    with TemporaryDirectory() as folder:
        found = explainer.explain(picture, ["a dog", "a cat"])
        found.save(folder)
        file = data.draw(st.sampled_from(sorted(Path(folder).iterdir())))
        content = bytearray(file.read_bytes())
        for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=3)):
            content[place] ^= data.draw(st.integers(1, 255))
        file.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
        again = refused_or(lambda: Explanation.load(folder))
        if again is not None:
            assert np.array_equal(again.image_maps, found.image_maps)
            assert again.image.tobytes() == found.image.tobytes()
