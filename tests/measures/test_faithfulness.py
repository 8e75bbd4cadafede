"""Faithfulness: on models whose answer can be worked out by hand, curves and areas are exact."""

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from torch.testing import assert_close

from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.images import onto_image
from gradeclip_utils.measures.faithfulness import (
    PROTOCOLS,
    Protocol,
    colours_of,
    curve_auc,
    image_curves,
)

# colours that are not normalised: black is zero
PLAIN = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
EVERY_PIXEL = Protocol(span=1.0, points=8 * 12 + 1, fill="black")  # of `additive`


@pytest.fixture(scope="module")
def additive():
    """A score that is linear in the pixels, an image, and the part of each pixel, (8, 12)."""
    generator = torch.Generator().manual_seed(0)
    weights, pixels = torch.randn(2, 3, 8, 12, generator=generator)

    def score(images):
        return (images * weights).sum(dim=(1, 2, 3))

    parts = (weights * pixels).sum(dim=0)
    return score, pixels, parts.numpy()


def total(images):
    return images.sum(dim=(1, 2, 3))


def denormalised(images, colours):
    """Images in colours from 0 to 1."""
    mean, deviation = (torch.tensor(values)[:, None, None] for values in colours)
    return images * deviation + mean


def curve(curves: pd.DataFrame, method: str, game: str) -> np.ndarray:
    rows = curves.query("method == @method and game == @game")
    return rows["score"].to_numpy()


def scored_images(*arguments, **options) -> torch.Tensor:
    """The images that a score gets."""
    batches = []

    def score(images):
        batches.append(images)
        return total(images)

    image_curves(score, *arguments, **options)
    return torch.cat(batches)


def test_curves_of_an_additive_model_are_the_sums_that_can_be_worked_out_by_hand(additive):
    score, pixels, parts = additive
    curves = image_curves(score, pixels, {"true": parts}, EVERY_PIXEL, colours=PLAIN)
    best_first = np.sort(parts.ravel())[::-1]
    inserted = np.concatenate([[0], best_first.cumsum()])
    deleted = inserted[-1] - inserted
    assert_allclose(curve(curves, "true", "insertion"), inserted, atol=1e-4)
    assert_allclose(curve(curves, "true", "deletion"), deleted, atol=1e-4)

    trapezoids = (inserted[1:] + inserted[:-1]) / 2
    area = trapezoids.mean()
    areas = curve_auc(curves).set_index("game")["auc"]
    assert areas["insertion"] == pytest.approx(area, abs=1e-4)
    assert areas["deletion"] == pytest.approx(inserted[-1] - area, abs=1e-4)


def test_the_published_protocol_removes_half_and_reads_every_twentieth():
    pixels = torch.ones(3, 20, 20)
    curves = image_curves(total, pixels, {"m": np.eye(20)}, colours=PLAIN)
    fractions = curves["fraction"].unique()
    assert_allclose(fractions, np.arange(11) / 20)
    published = PROTOCOLS["published"]
    assert published == Protocol()
    assert (published.fill, published.canvas) == ("random", "black")


def test_an_image_half_deleted_holds_the_fill_on_exactly_the_higher_half_of_the_map(additive):
    _, pixels, parts = additive
    protocol = Protocol(points=2, fill="mean", canvas="mean")
    _, deleted, _, inserted = scored_images(pixels, {"m": parts}, protocol)
    is_higher = torch.from_numpy(parts > np.median(parts))
    mean = pixels.mean((1, 2), keepdim=True).expand_as(pixels)
    assert_close(deleted, torch.where(is_higher, mean, pixels))
    assert_close(inserted, torch.where(is_higher, pixels, mean))


def test_random_fill_is_seeded_uniform_in_colour_and_the_same_for_every_map(additive):
    _, pixels, parts = additive
    colours = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    maps = {"a": parts, "b": -parts}

    def filled(seed):
        protocol = Protocol(span=1.0, points=2, seed=seed)
        return scored_images(pixels, maps, protocol, colours=colours)

    state = torch.get_rng_state()
    images = filled(0)
    assert len(images) == 8  # all of it and none of it, for two maps in two games
    assert torch.equal(images[0], pixels)
    assert torch.equal(images[1], images[5])  # both maps, deleted
    assert torch.equal(images, filled(0))
    assert not torch.equal(images, filled(1))
    assert torch.equal(torch.get_rng_state(), state)

    colour = denormalised(images[1], colours)
    assert colour.min() >= -1e-6
    assert colour.max() <= 1 + 1e-6
    assert 0.4 < colour.mean() < 0.6


def test_black_is_black_in_the_models_own_colours(tiny, pixels):
    colours = colours_of(tiny.preprocess)
    images = scored_images(
        pixels[0],
        {"m": np.eye(32)},
        Protocol(points=2),
        colours=colours,
    )
    black = denormalised(images[2], colours)  # where insertion begins
    assert_close(black, torch.zeros_like(black), atol=1e-6, rtol=0)


def test_a_map_on_the_token_grid_is_resized_as_heat_maps_are(pixels):
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(3, 32, 32, generator=generator)
    map_ = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    heat = onto_image(map_, (0, 0, 32, 32), (32, 32))
    curves = image_curves(
        lambda images: total(images * weights),
        pixels[0],
        {"grid": map_, "pixels": heat},
        Protocol(span=1.0, points=21, fill="mean", canvas="mean"),
    )
    for game in ("deletion", "insertion"):
        on_grid = curve(curves, "grid", game)
        in_pixels = curve(curves, "pixels", game)
        assert_allclose(on_grid, in_pixels, rtol=1e-5)


def test_curves_that_cannot_be_drawn_are_refused():
    pixels = torch.zeros(3, 8, 8)
    maps = {"m": np.eye(8)}
    with pytest.raises(GradeclipError, match=r"map of 'm' has shape \(9, 8\): it must be on"):
        image_curves(total, pixels, {"m": np.ones((9, 8))}, "mean-colour")
    with pytest.raises(GradeclipError, match="'random' pixels need colours"):
        image_curves(total, pixels, maps, "published")
    with pytest.raises(GradeclipError, match="there is no protocol 'publisht': did you mean"):
        image_curves(total, pixels, maps, "publisht")
