"""The blind spot: hidden tokens have no say in the embedding, and some maps light them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gradeclip_utils import Explainer
from studies.blind_spot import (
    TEXT_METHODS,
    VISIBLE_ONLY,
    blind_images,
    blind_words,
    half,
    hide,
)
from studies.lesson import prompts_of, shown_scenes

METHODS = {
    "loosened": ("grad-eclip", 2),
    VISIBLE_ONLY: ("grad-eclip", 2),
    "softmax x gradient": ("grad-eclip-softmax", 1),
    "CLIP Surgery": ("clip-surgery", None),
    "rollout": ("rollout", None),
}


@pytest.fixture(scope="module")
def scenes():
    return shown_scenes(2)


def embedding_of(clip, images, hidden_side, layers):
    """Embeddings of images of which a half is hidden."""
    tower = Explainer(clip, image_layers=layers).image_tower
    deepest = Explainer(clip, image_layers=tower.depth).image_tower
    whole = deepest.trace(torch.stack([clip.preprocess(image) for image in images]))
    hidden = torch.zeros_like(whole.valid_mask)
    if hidden_side:
        patches = torch.from_numpy(half(whole.grid, hidden_side)).flatten()
        hidden[:, -len(patches) :] = patches
    return hide(tower, whole, hidden).embedding


@pytest.mark.parametrize("layers", [1, 3])
def test_the_embedding_does_not_depend_on_hidden_pixels_and_does_on_seen_ones(
    bundled, scenes, layers
):
    image = scenes[0].image(96)
    changed = image.copy()
    changed.paste((200, 30, 90), (48, 0, 96, 96))  # its right half

    hidden = embedding_of(bundled, [image, changed], "right", layers)
    assert torch.allclose(hidden[0], hidden[1], atol=1e-6)
    seen = embedding_of(bundled, [image, changed], "left", layers)
    assert not torch.allclose(seen[0], seen[1], atol=1e-3)


def test_with_nothing_hidden_the_embedding_is_the_models_own(bundled, scenes):
    images = [scene.image(96) for scene in scenes]
    expected = Explainer(bundled).embed_images(images)
    assert torch.allclose(embedding_of(bundled, images, None, 2), expected, atol=1e-5)


def test_a_half_is_half_of_the_patches_and_its_opposite_the_others():
    assert half((4, 6), "left").sum() == 12
    assert (half((4, 6), "left") == ~half((4, 6), "right")).all()
    assert half((4, 6), "upper")[:2].all()


def test_attention_as_a_factor_leaves_nothing_in_the_hidden_half(bundled, scenes):
    images = [scene.image(96) for scene in scenes]
    prompts = [text for scene in scenes for text in prompts_of(scene)]
    texts = Explainer(bundled).embed_texts(prompts).unflatten(0, (-1, 2))
    rows = blind_images(bundled, images, texts, ("right", "upper"), METHODS)
    assert len(rows) == len(METHODS) * 2 * 2

    shares = rows.groupby("method")["share"].mean()
    assert shares[["softmax x gradient", "rollout", VISIBLE_ONLY]].max() == 0
    assert 0 < shares["loosened"] < 1


def test_a_hidden_word_has_nothing_by_attention_and_something_by_the_loosened_weight(bundled):
    captions = ["a dog and a cat", "a red car"]
    image = Explainer(bundled).embed_images([scene.image(96) for scene in shown_scenes(2)])
    rows = blind_words(bundled, captions, image)
    assert rows["even"].unique() == pytest.approx([1 / 5, 1 / 3])

    shares = rows.groupby("method")["share"].max()
    blind = ["softmax x gradient", "rollout", "raw attention", "input x gradient", VISIBLE_ONLY]
    assert np.nanmax(shares[blind]) == 0
    assert set(shares.index) == set(TEXT_METHODS)


def test_a_hidden_word_can_be_exchanged_without_a_change_of_the_embedding(bundled):
    tower = Explainer(bundled, text_layers=1).text_tower
    deepest = Explainer(bundled, text_layers=tower.depth).text_tower
    ids = bundled.tokenizer(["a dog and a cat", "a dog and a drum"])
    whole = deepest.trace(ids)
    hidden = torch.zeros_like(whole.valid_mask)
    hidden[:, 5] = True  # SOT, a, dog, and, a, cat
    embedding = hide(tower, whole, hidden).embedding
    assert torch.allclose(embedding[0], embedding[1], atol=1e-6)
    shown = hide(tower, replace(whole), torch.zeros_like(hidden)).embedding
    assert not torch.allclose(shown[0], shown[1], atol=1e-3)
