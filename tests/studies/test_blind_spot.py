"""The blind spot: hidden tokens have no say in the embedding, and some maps light them."""

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
    pixels = torch.stack([clip.preprocess(image) for image in images])
    whole = deepest.trace(pixels)
    hidden = torch.zeros_like(whole.valid_mask)  # (B, tokens)
    if hidden_side:
        patches = half(whole.grid, hidden_side).flatten()
        hidden[:, -patches.size :] = torch.from_numpy(patches)
    return hide(tower, whole, hidden).embedding


@pytest.mark.parametrize("layers", [1, 3])
def test_the_embedding_does_not_depend_on_hidden_pixels_and_does_on_seen_ones(
    bundled, scenes, layers
):
    image = scenes[0].image(96)
    changed = image.copy()
    changed.paste((200, 30, 90), (48, 0, 96, 96))  # its right half

    intact, painted = embedding_of(bundled, [image, changed], "right", layers)
    assert torch.allclose(intact, painted, atol=1e-6)
    intact, painted = embedding_of(bundled, [image, changed], "left", layers)
    assert not torch.allclose(intact, painted, atol=1e-3)


def test_with_nothing_hidden_the_embedding_is_the_models_own(bundled, scenes):
    images = [scene.image(96) for scene in scenes]
    embeddings = embedding_of(bundled, images, None, 2)
    expected = Explainer(bundled).embed_images(images)
    assert torch.allclose(embeddings, expected, atol=1e-5)


def test_a_half_is_half_of_the_patches_and_its_opposite_the_others():
    assert half((4, 6), "left").sum() == 12
    assert (half((4, 6), "left") == ~half((4, 6), "right")).all()
    assert half((4, 6), "upper")[:2].all()


def test_attention_as_a_factor_leaves_nothing_in_the_hidden_half(bundled, scenes):
    images = [scene.image(96) for scene in scenes]
    explainer = Explainer(bundled)
    texts = [explainer.embed_texts(prompts_of(scene)) for scene in scenes]
    rows = blind_images(bundled, images, torch.stack(texts), ("right", "upper"), METHODS)
    assert len(rows) == len(METHODS) * 2 * 2

    shares = rows.groupby("method")["share"].mean()
    by_attention = shares[["softmax x gradient", "rollout", VISIBLE_ONLY]]
    assert by_attention.max() == 0
    assert 0 < shares["loosened"] < 1


def test_a_hidden_word_has_nothing_by_attention_and_something_by_the_loosened_weight(
    bundled, scenes
):
    captions = ["a dog and a cat", "a red car"]
    images = [scene.image(96) for scene in scenes]
    embeddings = Explainer(bundled).embed_images(images)
    rows = blind_words(bundled, captions, embeddings)
    assert rows["even"].unique() == pytest.approx([1 / 5, 1 / 3])

    shares = rows.groupby("method")["share"].max()
    assert set(shares.index) == set(TEXT_METHODS)
    blind = ["softmax x gradient", "rollout", "raw attention", "input x gradient", VISIBLE_ONLY]
    assert shares[blind].max() == 0


def test_a_hidden_word_can_be_exchanged_without_a_change_of_the_embedding(bundled):
    tower = Explainer(bundled, text_layers=1).text_tower
    deepest = Explainer(bundled, text_layers=tower.depth).text_tower
    ids = bundled.tokenizer(["a dog and a cat", "a dog and a drum"])
    whole = deepest.trace(ids)
    nothing = torch.zeros_like(whole.valid_mask)
    last_word = nothing.clone()
    last_word[:, 5] = True  # SOT, a, dog, and, a, cat
    with_cat, with_drum = hide(tower, whole, last_word).embedding
    assert torch.allclose(with_cat, with_drum, atol=1e-6)
    with_cat, with_drum = hide(tower, whole, nothing).embedding
    assert not torch.allclose(with_cat, with_drum, atol=1e-3)
