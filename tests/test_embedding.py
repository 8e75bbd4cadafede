"""Embedding and mapping from outside: `embed_images`, `embed_texts`, `maps`, `word_directions` of an `Explainer`."""

import numpy as np
import pytest
import torch

from gradeclip_utils import Explainer
from tests.conftest import build, wrap
from tests.test_explain import state_of

PROMPTS = ["a dog", "a red car and a blue ball.", "cat", "a very long caption of a small dog beside a red car"]


@pytest.fixture
def pictures(picture):
    return [picture, picture.rotate(90), picture.rotate(180), picture.crop((0, 0, 50, 50)), picture.rotate(270)]


def test_embeddings_are_those_of_the_unmodified_model_whatever_the_batches(tiny, pictures):
    explainer, pictures, prompts = Explainer(tiny), pictures * 4, PROMPTS * 20
    with torch.no_grad():
        images = tiny.model.encode_image(torch.stack([tiny.preprocess(one) for one in pictures]), normalize=True)
        texts = tiny.model.encode_text(tiny.tokenizer(prompts), normalize=True)
    torch.testing.assert_close(explainer.embed_images(pictures), images, atol=1e-5, rtol=0)
    torch.testing.assert_close(explainer.embed_texts(prompts), texts, atol=1e-5, rtol=0)
    for single in (pictures[0], np.asarray(pictures[0])):
        torch.testing.assert_close(explainer.embed_images(single), images[:1], atol=1e-5, rtol=0)
    assert explainer.embed_texts("a dog").shape == (1, 48)


def test_a_generator_is_asked_for_a_batch_at_a_time(tiny, pictures):
    explainer, drawn, batches = Explainer(tiny), [], []
    trace = explainer.image_tower.trace
    explainer.image_tower.trace = lambda pixels, graph: (batches.append((len(drawn), len(pixels))), trace(pixels))[1]
    found = explainer.embed_images(drawn.append(one) or one for one in pictures * 4)
    assert batches == [(16, 16), (20, 4)]
    assert torch.equal(found, explainer.embed_images(pictures * 4))
    with pytest.raises(ValueError, match="there are no images"):
        explainer.embed_images(one for one in pictures[:0])


def test_maps_are_those_that_explain_shows(tiny, pictures):
    for method in ("grad-eclip", "grad-eclip-single-head", "clip-surgery"):
        explainer = Explainer(tiny, method=method)
        maps = explainer.maps(pictures, explainer.embed_texts(PROMPTS))
        assert maps.shape == (5, 4, 4, 4)
        for one, found in zip(pictures, maps, strict=True):
            np.testing.assert_allclose(found, explainer.explain(one, PROMPTS).image_maps, atol=1e-6)


def test_every_image_may_have_directions_of_its_own(tiny, pictures):
    explainer = Explainer(tiny)
    directions = torch.randn(5, 3, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    maps = explainer.maps(pictures, directions.numpy())
    for i, one in enumerate(pictures):
        torch.testing.assert_close(maps[i], explainer.maps(one, directions[i])[0])
    torch.testing.assert_close(explainer.maps(pictures, 2 * directions), 2 * maps)  # they keep their length


@pytest.mark.parametrize("method", ["grad-eclip", "grad-eclip-single-head"])
def test_maps_of_word_directions_are_interactions_however_many_captions_are_read_together(method, tiny, picture):
    explainer = Explainer(tiny, method=method)
    for caption, (split, directions) in zip(PROMPTS, explainer.word_directions(PROMPTS), strict=True):
        expected = explainer.interactions(picture, caption)
        np.testing.assert_allclose(explainer.maps(picture, directions)[0], expected.maps, atol=1e-6)
        assert [caption[start:end] for start, end in split.spans] == [word.text for word in expected.words]
        scores = directions @ explainer.embed_images(picture)[0]
        np.testing.assert_allclose(scores, [word.score for word in expected.words], atol=1e-6)


def test_the_model_and_the_callers_torch_state_stay_as_they_were(tiny, pictures):
    explainer = Explainer(wrap(build().train()))
    before, expected = state_of(explainer.clip.model), Explainer(tiny).embed_images(pictures)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        images, texts = explainer.embed_images(pictures), explainer.embed_texts(PROMPTS)
    maps = explainer.maps(pictures, texts)
    torch.testing.assert_close(images, expected)
    assert not any(value.requires_grad or value.is_inference() for value in (images, texts, maps))
    assert state_of(explainer.clip.model) == before


def test_native_images_are_embedded_and_mapped_at_their_own_size(tiny, picture):
    explainer = Explainer(tiny, resolution="native")
    texts = explainer.embed_texts(PROMPTS)
    expected = explainer.explain(picture, PROMPTS)
    np.testing.assert_allclose(explainer.embed_images([picture]) @ texts.T, expected.similarity[None], atol=1e-6)
    np.testing.assert_allclose(explainer.maps([picture], texts)[0], expected.image_maps, atol=1e-6)
    with pytest.raises(ValueError, match="one at a time"):
        explainer.maps([picture, picture.crop((0, 0, 30, 50))], texts)
