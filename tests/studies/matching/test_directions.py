"""Directions: prompts as vectors, maps of any vectors; the same as what Explainer says of single prompts."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gradeclip_utils import Explainer
from gradeclip_utils.scenes import arrange
from gradeclip_utils.studies.matching.directions import embed, look, maps_of, regions, share_on_first, words_of

PROMPTS = ["a red car", "a cat and a dog"]


@pytest.fixture(scope="module")
def explainer(tiny):
    return Explainer(tiny)


def test_embeddings_are_those_of_the_untouched_model(explainer, tiny, picture):
    with torch.no_grad():
        texts = F.normalize(tiny.model.encode_text(tiny.tokenizer(PROMPTS)), dim=-1)
        images = F.normalize(tiny.model.encode_image(tiny.preprocess(picture)[None]), dim=-1)
    assert np.allclose(embed(explainer, PROMPTS), texts, atol=1e-5)
    assert np.allclose(look(explainer, [picture]), images, atol=1e-5)


def test_many_prompts_are_embedded_as_one_by_one(explainer):
    texts = [f"{word} car" for word in "a red blue big".split()] * 20
    assert np.allclose(embed(explainer, texts), np.concatenate([embed(explainer, [text]) for text in texts]), atol=1e-6)


def test_maps_of_prompts_are_those_of_explain(explainer, picture):
    pictures = [picture, picture.rotate(180)]
    maps = maps_of(explainer, pictures, np.broadcast_to(embed(explainer, PROMPTS), (2, 2, 48)))
    for image, mine in zip(pictures, maps, strict=True):
        assert np.allclose(mine, explainer.explain(image, PROMPTS).image_maps, atol=1e-6)


def test_maps_are_linear_in_the_direction_whatever_it_is(explainer, picture):
    a, b = np.random.default_rng(0).normal(size=(2, 48))
    one, other, both = maps_of(explainer, [picture], np.stack([a, b, 3 * a - b])[None])[0]
    assert np.allclose(both, 3 * one - other, atol=1e-5 * np.abs(both).max())


def test_directions_of_words_give_the_scores_of_words(explainer, picture):
    scores = [word.score for word in explainer.explain(picture, PROMPTS[1]).words[0]]
    assert np.allclose(words_of(explainer, PROMPTS[1]) @ look(explainer, [picture])[0], scores, atol=1e-5)


def test_regions_hold_as_much_as_the_masks(explainer):
    scene = arrange(["red car", "blue car"])
    covered = regions(explainer, scene, (4, 4))
    assert covered.shape == (2, 4, 4) and np.allclose(covered.mean((1, 2)), scene.masks(96).mean((1, 2)), atol=1e-6)


def test_shares_of_two_things_add_up_and_ignore_what_speaks_against():
    map_, covered = np.random.default_rng(1).normal(size=(4, 4)), np.random.default_rng(2).random((2, 4, 4))
    assert share_on_first(map_, covered) + share_on_first(map_, covered[::-1]) == pytest.approx(1)
    assert share_on_first(map_ - 9 * (map_ < 0), covered) == pytest.approx(share_on_first(map_, covered))
    assert share_on_first(-np.ones((4, 4)), covered) == 0.5
