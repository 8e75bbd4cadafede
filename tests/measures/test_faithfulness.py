"""Faithfulness: on models whose answer can be worked out by hand, curves and areas are exact."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from gradeclip_utils import Explainer
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.measures.faithfulness import (
    PROTOCOLS,
    Protocol,
    colours_of,
    curve_auc,
    image_curves,
    word_curves,
)
from gradeclip_utils.words import Word

PLAIN = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)  # colours that are not normalised: black is zero
EVERY_PIXEL = Protocol(span=1.0, points=8 * 12 + 1, fill="black")  # of `additive`


@pytest.fixture(scope="module")
def additive():
    """A score that is linear in the pixels, an image, and the part of each pixel, (8, 12)."""
    generator = torch.Generator().manual_seed(0)
    weights, pixels = torch.randn(2, 3, 8, 12, generator=generator)

    def score(images):
        return (images * weights).sum(dim=(1, 2, 3))

    return score, pixels, (weights * pixels).sum(0).numpy()


def curve(curves: pd.DataFrame, method: str, game: str) -> np.ndarray:
    return curves[(curves["method"] == method) & (curves["game"] == game)]["score"].to_numpy()


def scored_images(*arguments, **options) -> torch.Tensor:
    """The images that a score gets."""
    batches = []

    def score(images):
        batches.append(images)
        return images.sum((1, 2, 3))

    image_curves(score, *arguments, **options)
    return torch.cat(batches)


def test_curves_of_an_additive_model_are_the_sums_that_can_be_worked_out_by_hand(additive):
    score, pixels, parts = additive
    curves = image_curves(score, pixels, {"true": parts}, EVERY_PIXEL, colours=PLAIN)
    sums = np.concatenate([[0], np.cumsum(np.sort(parts.ravel())[::-1])])
    np.testing.assert_allclose(curve(curves, "true", "insertion"), sums, atol=1e-4)
    np.testing.assert_allclose(curve(curves, "true", "deletion"), parts.sum() - sums, atol=1e-4)

    areas = curve_auc(curves).set_index("game")["auc"]
    expected = (sums[1:] + sums[:-1]).mean() / 2
    assert areas["insertion"] == pytest.approx(expected, abs=1e-4)
    assert areas["deletion"] == pytest.approx(parts.sum() - expected, abs=1e-4)


def test_the_published_protocol_removes_half_and_reads_every_twentieth():
    pixels, maps = torch.ones(3, 20, 20), {"m": np.eye(20)}
    curves = image_curves(lambda images: images.mean((1, 2, 3)), pixels, maps, colours=PLAIN)
    assert curves["fraction"].unique().tolist() == pytest.approx(np.arange(11) / 20)
    published = PROTOCOLS["published"]
    assert published == Protocol()
    assert (published.fill, published.canvas) == ("random", "black")


def test_an_image_half_deleted_holds_the_fill_on_exactly_the_higher_half_of_the_map(additive):
    _, pixels, parts = additive
    protocol = Protocol(points=2, fill="mean", canvas="mean")
    _, deleted, _, inserted = scored_images(pixels, {"m": parts}, protocol)
    is_higher = torch.from_numpy(parts > np.median(parts))
    mean = pixels.mean((1, 2), keepdim=True).expand_as(pixels)
    torch.testing.assert_close(deleted, torch.where(is_higher, mean, pixels))
    torch.testing.assert_close(inserted, torch.where(is_higher, pixels, mean))


def test_random_fill_is_seeded_uniform_in_colour_and_the_same_for_every_map(additive):
    _, pixels, parts = additive
    colours, maps = ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)), {"a": parts, "b": -parts}

    def filled(seed):
        protocol = Protocol(span=1.0, points=2, seed=seed)
        return scored_images(pixels, maps, protocol, colours=colours, games=["deletion"])

    state = torch.get_rng_state()
    first, again, other = filled(0), filled(0), filled(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(first) == 2  # all of it and none of it, once for both maps
    assert torch.equal(first[0], pixels)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    mean, deviation = (torch.tensor(values)[:, None, None] for values in colours)
    colour = first[1] * deviation + mean
    assert colour.min() >= -1e-6
    assert colour.max() <= 1 + 1e-6
    assert 0.4 < colour.mean() < 0.6


def test_black_is_black_in_the_models_own_colours(tiny, pixels):
    colours = colours_of(tiny.preprocess)
    maps, protocol = {"m": np.eye(32)}, Protocol(points=2)
    images = scored_images(pixels[0], maps, protocol, colours=colours, games=["insertion"])
    mean, deviation = (torch.tensor(values)[:, None, None] for values in colours)
    black = images[0] * deviation + mean
    torch.testing.assert_close(black, torch.zeros_like(black), atol=1e-6, rtol=0)


def test_a_map_on_the_token_grid_is_resized_as_heat_maps_are(tiny, pixels):
    explanation = Explainer(tiny).explain(np.zeros((32, 32, 3), np.uint8), "a dog")
    map_ = np.random.default_rng(0).normal(size=explanation.image_maps.shape[1:])
    explanation = replace(explanation, image_maps=map_[None].astype(np.float32))
    maps = {"grid": map_, "pixels": explanation.heatmap(0, signed=True)}
    weights = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(0))
    curves = image_curves(
        lambda images: (images * weights).sum((1, 2, 3)),
        pixels[0],
        maps,
        Protocol(span=1.0, points=21, fill="mean", canvas="mean"),
    )
    for game in ("deletion", "insertion"):
        grid, in_pixels = curve(curves, "grid", game), curve(curves, "pixels", game)
        np.testing.assert_allclose(grid, in_pixels, rtol=1e-5)


def test_batches_make_no_difference_and_images_that_all_maps_share_are_scored_once(additive):
    score, pixels, parts = additive
    sizes, maps = [], {"a": parts, "b": -parts}

    def counted(images):
        sizes.append(len(images))
        return score(images)

    apart = [image_curves(score, pixels, {name: maps[name]}, colours=PLAIN) for name in maps]
    together = image_curves(counted, pixels, maps, colours=PLAIN, batch=7)
    pd.testing.assert_frame_equal(together, pd.concat(apart, ignore_index=True))
    shared = 2  # where each of the two games begins
    assert max(sizes) == 7
    assert sum(sizes) + shared == len(together) == 44


def test_words_are_deleted_by_score_and_the_rest_keeps_its_order():
    scored = []

    def score(captions):
        scored.extend(captions)
        return torch.zeros(len(captions))

    words = [
        Word("a", 0.1, 0, 1),
        Word("dog", 0.9, 2, 5),
        Word("on", -0.5, 6, 8),
        Word("grass", 0.3, 9, 14),
    ]
    word_curves(score, "a dog on grass", {"m": words})
    assert scored[:5] == ["a dog on grass", "a on grass", "a on", "on", ""]
    assert scored[5:] == ["", "dog", "dog grass", "a dog grass", "a dog on grass"]
    with pytest.raises(GradeclipError, match="'m' needs the words of 'a cat'"):
        word_curves(score, "a cat", {"m": words})


def test_words_of_an_explanation_can_be_deleted_down_to_the_empty_caption(tiny, picture):
    explainer, caption = Explainer(tiny), "a red car, and a dog"
    explanation = explainer.explain(picture, caption)
    image = explainer.embed_images(picture)[0]

    def score(texts):
        return explainer.embed_texts(texts) @ image

    curves = word_curves(score, caption, {"m": explanation.words[0]})
    with torch.no_grad():
        empty = F.normalize(tiny.model.encode_text(tiny.tokenizer([""])), dim=-1)[0]
    ends = [float(explanation.similarity[0]), float(empty @ image)]
    np.testing.assert_allclose(curve(curves, "m", "deletion")[[0, -1]], ends, atol=1e-5)
    np.testing.assert_allclose(curve(curves, "m", "insertion")[[-1, 0]], ends, atol=1e-5)


@pytest.mark.parametrize(
    ("maps", "protocol", "message"),
    [
        ({"m": np.ones((9, 8))}, "mean-colour", r"map of 'm' has shape \(9, 8\): it must be on"),
        ({"m": np.eye(8)}, "published", "'random' pixels need colours"),
        ({"m": np.eye(8)}, "publisht", "there is no protocol 'publisht': did you mean published"),
    ],
)
def test_curves_that_cannot_be_drawn_are_refused(maps, protocol, message):
    with pytest.raises(GradeclipError, match=message):
        image_curves(lambda images: images.sum((1, 2, 3)), torch.zeros(3, 8, 8), maps, protocol)
