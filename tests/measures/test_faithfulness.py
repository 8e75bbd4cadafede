"""Faithfulness: on models whose answer can be worked out by hand, curves and areas are what they must be."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from gradeclip_utils import Explainer
from gradeclip_utils.measures.faithfulness import (
    PROTOCOLS,
    Protocol,
    colours_of,
    curve_auc,
    image_curves,
    word_curves,
)
from gradeclip_utils.words import Word

FULL = PROTOCOLS["full"]
PLAIN = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)  # colours that are not normalised: black is zero
BLACK = Protocol(span=1.0, points=8 * 12 + 1, fill="black")  # of `additive`, each pixel


@pytest.fixture(scope="module")
def additive():
    """A toy CLIP whose score is linear in the pixels, an image, and what each of its pixels gives, (8, 12)."""
    generator = torch.Generator().manual_seed(0)
    weights, pixels = torch.randn(2, 3, 8, 12, generator=generator)
    return (
        (lambda images: (images * weights).sum(dim=(1, 2, 3))),
        pixels,
        (weights * pixels).sum(0).numpy(),
    )


def curve(curves: pd.DataFrame, method: str, game: str) -> np.ndarray:
    return curves[(curves["method"] == method) & (curves["game"] == game)]["score"].to_numpy()


def scored(*given, **options):
    """The images that a score gets, one batch after the other."""
    seen = []
    image_curves(lambda images: (seen.append(images), images.sum((1, 2, 3)))[1], *given, **options)
    return seen


def test_curves_of_an_additive_model_are_the_sums_that_can_be_worked_out_by_hand(additive):
    score, pixels, gives = additive
    curves = image_curves(score, pixels, {"true": gives}, BLACK, colours=PLAIN)
    taken = np.concatenate([[0], np.cumsum(np.sort(gives.ravel())[::-1])])
    np.testing.assert_allclose(curve(curves, "true", "insertion"), taken, atol=1e-4)
    np.testing.assert_allclose(curve(curves, "true", "deletion"), gives.sum() - taken, atol=1e-4)
    found = curve_auc(curves).set_index("game")["auc"]
    expected = (taken[1:] + taken[:-1]).mean() / 2
    assert found["insertion"] == pytest.approx(expected, abs=1e-4)
    assert found["deletion"] == pytest.approx(gives.sum() - expected, abs=1e-4)


def test_the_published_protocol_removes_half_and_reads_every_twentieth():
    pixels, maps = torch.ones(3, 20, 20), {"m": np.eye(20)}
    curves = image_curves(lambda images: images.mean((1, 2, 3)), pixels, maps, colours=PLAIN)
    assert curves["fraction"].unique().tolist() == pytest.approx(np.arange(11) / 20)
    assert PROTOCOLS["published"] == Protocol() and (Protocol().fill, Protocol().canvas) == (
        "random",
        "black",
    )


def test_an_image_half_deleted_holds_the_fill_on_exactly_the_higher_half_of_the_map(additive):
    _, pixels, gives = additive
    seen = scored(pixels, {"m": gives}, Protocol(points=2, fill="mean", canvas="mean"))
    _, deleted, _, inserted = torch.cat(seen)
    higher = torch.from_numpy(gives > np.median(gives))
    mean = pixels.mean((1, 2), keepdim=True).expand_as(pixels)
    torch.testing.assert_close(deleted, torch.where(higher, mean, pixels))
    torch.testing.assert_close(inserted, torch.where(higher, pixels, mean))


def test_random_fill_is_seeded_uniform_in_colour_and_the_same_for_every_map(additive):
    _, pixels, gives = additive
    colours, maps = ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)), {"a": gives, "b": -gives}

    def filled(seed):
        protocol = Protocol(span=1.0, points=2, seed=seed)
        return torch.cat(scored(pixels, maps, protocol, colours=colours, games=["deletion"]))

    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, again, other = filled(0), filled(0), filled(1)
    assert len(first) == 2 and torch.equal(
        first[0], pixels
    )  # all of it and none of it, once for both maps
    assert torch.equal(first, again) and not torch.equal(first, other)
    mean, deviation = (torch.tensor(part)[:, None, None] for part in colours)
    colour = first[1] * deviation + mean
    assert colour.min() >= -1e-6 and colour.max() <= 1 + 1e-6 and 0.4 < colour.mean() < 0.6
    assert torch.equal(torch.get_rng_state(), before)


def test_black_is_black_in_the_models_own_colours(tiny, pixels):
    colours = colours_of(tiny.preprocess)
    canvas = scored(
        pixels[0], {"m": np.eye(32)}, Protocol(points=2), colours=colours, games=["insertion"]
    )[0][0]
    mean, deviation = (torch.tensor(part)[:, None, None] for part in colours)
    torch.testing.assert_close(
        canvas * deviation + mean, torch.zeros_like(canvas), atol=1e-6, rtol=0
    )


def test_a_map_on_the_token_grid_is_resized_as_heat_maps_are(tiny, pixels):
    explanation = Explainer(tiny).explain(np.zeros((32, 32, 3), np.uint8), "a dog")
    map_ = np.random.default_rng(0).normal(size=explanation.image_maps.shape[1:])
    explanation = replace(explanation, image_maps=map_[None].astype(np.float32))
    weights = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(0))
    maps = {"grid": map_, "pixels": explanation.heatmap(0, signed=True)}
    curves = image_curves(
        lambda images: (images * weights).sum((1, 2, 3)),
        pixels[0],
        maps,
        replace(FULL, fill="mean"),
        colours=PLAIN,
    )
    for game in ("deletion", "insertion"):
        np.testing.assert_allclose(
            curve(curves, "grid", game), curve(curves, "pixels", game), rtol=1e-5
        )


def test_batches_make_no_difference_and_ask_once_for_images_that_are_the_same_for_all_maps(
    additive,
):
    score, pixels, gives = additive
    sizes, maps = [], {"a": gives, "b": -gives}

    def counted(images):
        sizes.append(len(images))
        return score(images)

    whole = [image_curves(score, pixels, {name: one}, colours=PLAIN) for name, one in maps.items()]
    found = image_curves(counted, pixels, maps, colours=PLAIN, batch=7)
    pd.testing.assert_frame_equal(found, pd.concat(whole, ignore_index=True))
    shared = 2  # where a game begins
    assert max(sizes) == 7 and sum(sizes) + shared == len(found) == 44


def test_words_are_deleted_by_score_and_the_rest_keeps_its_order():
    asked = []

    def score(captions):
        asked.extend(captions)
        return torch.zeros(len(captions))

    words = [
        Word("a", 0.1, 0, 1),
        Word("dog", 0.9, 2, 5),
        Word("on", -0.5, 6, 8),
        Word("grass", 0.3, 9, 14),
    ]
    word_curves(score, "a dog on grass", {"m": words})
    assert asked[:5] == ["a dog on grass", "a on grass", "a on", "on", ""]
    assert asked[5:] == ["", "dog", "dog grass", "a dog grass", "a dog on grass"]


def test_words_of_an_explanation_can_be_deleted_down_to_the_empty_caption(tiny, picture):
    explainer, caption = Explainer(tiny), "a red car, and a dog"
    explanation, image = explainer.explain(picture, caption), explainer.embed_images(picture)[0]
    curves = word_curves(
        lambda texts: explainer.embed_texts(texts) @ image, caption, {"m": explanation.words[0]}
    )
    with torch.no_grad():
        empty = F.normalize(tiny.model.encode_text(tiny.tokenizer([""])), dim=-1)[0]
    for game, ends in (("deletion", (0, -1)), ("insertion", (-1, 0))):
        whole, nothing = curve(curves, "m", game)[list(ends)]
        assert whole == pytest.approx(float(explanation.similarity[0]), abs=1e-5)
        assert nothing == pytest.approx(float(empty @ image), abs=1e-5)
