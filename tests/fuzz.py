"""Drawn inputs: any text, image, file, mask or seed gives a sound result or a refusal.

`make fuzz` runs this file, and so does CI once a week; `make test` does not. `GRADECLIP_FUZZ` says
how many inputs each test draws.
"""

import io
import os

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from gradeclip_utils import Explainer, read_image
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.images import onto_image, pool

settings.register_profile(
    "fuzz",
    max_examples=int(os.environ.get("GRADECLIP_FUZZ", "20")),
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("fuzz")

WORDS = st.sampled_from(["a", "dog", "red", "don't", "&amp;", "🍕", "日本", "...", "é", "e\u0301"])
SENTENCES = st.lists(WORDS, min_size=1, max_size=30).map(" ".join)
PROMPTS = st.text(min_size=1, max_size=60) | SENTENCES
MODES = st.sampled_from(["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "LA", "I;16"])
SIDES = st.integers(1, 60)
FORMATS = st.sampled_from(["png", "jpeg", "gif", "webp", "bmp", "tiff"])


@pytest.fixture(scope="module")
def explainer(tiny):
    return Explainer(tiny)


@pytest.fixture(scope="module", autouse=True)
def unchanged(tiny):
    """The model is as it was after all of it."""
    before = {name: value.clone() for name, value in tiny.model.state_dict().items()}
    yield
    for name, value in tiny.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    for module in tiny.model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module.training


@given(prompt=PROMPTS)
def test_any_text_is_explained_or_refused(explainer, picture, prompt):
    try:
        explanation = explainer.explain(picture, prompt)
    except GradeclipError:
        return
    assert np.isfinite(explanation.image_maps).all()
    assert -1.001 <= explanation.similarity[0] <= 1.001
    for word in explanation.words[0]:
        assert np.isfinite(word.score)
        assert word.text


@given(mode=MODES, width=SIDES, height=SIDES)
def test_any_image_is_explained_as_the_rgb_image_that_it_shows(explainer, mode, width, height):
    image = Image.new(mode, (width, height))
    explanation = explainer.explain(image, "a dog")
    assert explanation.image.size == (width, height)
    assert explanation.heatmap().shape == (height, width)
    assert np.isfinite(explanation.image_maps).all()


@given(
    form=FORMATS,
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8),
    part=st.floats(0.1, 1),
)
def test_a_damaged_file_is_read_or_refused(tmp_path, form, changes, part):
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, form)
    content = bytearray(stream.getvalue())
    for place, value in changes:
        content[int(place * (len(content) - 1))] = value
    (tmp_path / "image").write_bytes(content[: int(part * len(content))])

    try:
        image = read_image(tmp_path / "image")
    except GradeclipError:
        return
    assert image.mode == "RGB"


@given(values=arrays(np.float32, (4, 5), elements=st.floats(-1, 1, width=32)))
def test_a_map_on_the_image_stays_within_its_range_and_its_cells_have_its_means(values):
    heat = onto_image(values, (0, 0, 50, 40), (50, 40))
    assert heat.min() >= values.min() - 1e-5
    assert heat.max() <= values.max() + 1e-5

    nearest = values.repeat(10, axis=0).repeat(10, axis=1)
    np.testing.assert_allclose(pool(nearest, (4, 5)), values, atol=1e-6)
