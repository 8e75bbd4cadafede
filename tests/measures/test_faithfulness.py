"""Faithfulness: on models whose answer can be worked out by hand, curves and areas are what they must be."""

import copy
import doctest
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from gradeclip_utils import Explainer
from gradeclip_utils.measures import faithfulness
from gradeclip_utils.measures.faithfulness import (
    FULL,
    PUBLISHED,
    Protocol,
    areas,
    colours_of,
    image_curves,
    image_score,
    word_curves,
)

PLAIN = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)  # colours that are not normalised: black is zero
BLACK = Protocol(span=1.0, points=8 * 12 + 1, fill="black")  # of `additive`, each pixel


@pytest.fixture(scope="module")
def additive():
    """A toy CLIP whose score is linear in the pixels, a picture, and what each of its pixels gives, (8, 12)."""
    generator = torch.Generator().manual_seed(0)
    weights, pixels = torch.randn(2, 3, 8, 12, generator=generator)
    return (lambda pictures: (pictures * weights).sum(dim=(1, 2, 3))), pixels, (weights * pixels).sum(0).numpy()


def curve(curves: pd.DataFrame, method: str, game: str) -> np.ndarray:
    return curves[(curves["method"] == method) & (curves["game"] == game)]["score"].to_numpy()


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(faithfulness).failed == 0


def test_curves_of_an_additive_model_are_the_sums_that_can_be_worked_out_by_hand(additive):
    score, pixels, gives = additive
    curves = image_curves(score, pixels, {"true": gives}, BLACK, colours=PLAIN)
    taken = np.concatenate([[0], np.cumsum(np.sort(gives.ravel())[::-1])])
    np.testing.assert_allclose(curve(curves, "true", "insertion"), taken, atol=1e-4)
    np.testing.assert_allclose(curve(curves, "true", "deletion"), gives.sum() - taken, atol=1e-4)
    found = areas(curves).set_index("game")["auc"]
    expected = (taken[1:] + taken[:-1]).mean() / 2
    assert found["insertion"] == pytest.approx(expected, abs=1e-4)
    assert found["deletion"] == pytest.approx(gives.sum() - expected, abs=1e-4)


def test_of_an_additive_model_no_order_beats_the_true_one_and_the_reverse_is_the_worst(additive):
    score, pixels, gives = additive
    rng = np.random.default_rng(0)
    maps = {"true": gives, "reverse": -gives, **{f"random {i}": rng.random(gives.shape) for i in range(10)}}
    for protocol in (BLACK, replace(PUBLISHED, fill="black")):
        found = areas(image_curves(score, pixels, maps, protocol, colours=PLAIN)).pivot(
            index="method", columns="game", values="auc"
        )
        assert (found["deletion"].idxmin(), found["deletion"].idxmax()) == ("true", "reverse")
        assert (found["insertion"].idxmax(), found["insertion"].idxmin()) == ("true", "reverse")


def test_a_curve_begins_and_ends_where_it_must(additive):
    score, pixels, gives = additive
    protocol = replace(FULL, fill="mean", canvas="mean")
    curves = image_curves(score, pixels, {"true": gives}, protocol)
    plain, mean = score(pixels[None]).item(), score(pixels.mean((1, 2), keepdim=True).expand_as(pixels)[None]).item()
    deletion, insertion = curve(curves, "true", "deletion"), curve(curves, "true", "insertion")
    np.testing.assert_allclose([deletion[0], insertion[-1]], plain, rtol=1e-5)
    np.testing.assert_allclose([deletion[-1], insertion[0]], mean, rtol=1e-4, atol=1e-5)


def test_the_published_protocol_removes_half_and_reads_every_twentieth():
    pixels = torch.rand(3, 20, 20, generator=torch.Generator().manual_seed(0))
    curves = image_curves(lambda pictures: pictures.mean((1, 2, 3)), pixels, {"m": np.eye(20)}, colours=PLAIN)
    assert curves["fraction"].unique().tolist() == pytest.approx(np.arange(11) / 20)
    assert PUBLISHED.fill == "random" and PUBLISHED.canvas == "black"


def test_a_picture_half_deleted_holds_the_fill_on_exactly_the_higher_half_of_the_map(additive):
    _, pixels, gives = additive
    seen = []
    image_curves(lambda pictures: (seen.append(pictures), pictures.sum((1, 2, 3)))[1], pixels, {"m": gives},
                   Protocol(points=2, fill="mean", canvas="mean"), games=["deletion", "insertion"])  # fmt: skip
    _, deleted, _, inserted = torch.cat(seen)
    higher = torch.from_numpy(gives > np.median(gives))
    mean = pixels.mean((1, 2), keepdim=True).expand_as(pixels)
    torch.testing.assert_close(deleted, torch.where(higher, mean, pixels))
    torch.testing.assert_close(inserted, torch.where(higher, pixels, mean))


def test_random_fill_is_seeded_uniform_in_colour_and_the_same_for_every_map(additive):
    _, pixels, gives = additive
    colours = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)

    def filled(seed):
        seen = []
        image_curves(lambda pictures: (seen.append(pictures), pictures.sum((1, 2, 3)))[1], pixels,
                       {"a": gives, "b": -gives}, Protocol(span=1.0, points=2, seed=seed), colours=colours,
                       games=["deletion"])  # fmt: skip
        return torch.cat(seen)  # the image, and all of it gone: asked once, being the same for both maps

    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, again, other = filled(0), filled(0), filled(1)
    assert len(first) == 2 and torch.equal(first[0], pixels)
    assert torch.equal(first, again) and not torch.equal(first, other)
    mean, deviation = (torch.tensor(part)[:, None, None] for part in colours)
    colour = first[1] * deviation + mean
    assert colour.min() >= -1e-6 and colour.max() <= 1 + 1e-6 and 0.4 < colour.mean() < 0.6
    assert torch.equal(torch.get_rng_state(), before)


def test_black_is_black_in_the_models_own_colours(tiny, pixels):
    colours, seen = colours_of(tiny.preprocess), []
    image_curves(lambda pictures: (seen.append(pictures), pictures.sum((1, 2, 3)))[1], pixels[0],
                   {"m": np.eye(32)}, Protocol(points=2), colours=colours, games=["insertion"])  # fmt: skip
    canvas = torch.cat(seen)[0]
    mean, deviation = (torch.tensor(part)[:, None, None] for part in colours)
    torch.testing.assert_close(canvas * deviation + mean, torch.zeros_like(canvas), atol=1e-6, rtol=0)


def test_a_map_on_the_token_grid_is_resized_as_heat_maps_are(tiny, pixels):
    explanation = Explainer(tiny).explain(np.zeros((32, 32, 3), np.uint8), "a dog")
    map_ = np.random.default_rng(0).normal(size=explanation.image_maps.shape[1:])
    explanation = replace(explanation, image_maps=map_[None].astype(np.float32))
    weights = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(0))
    maps = {"grid": map_, "pixels": explanation.heatmap(0, signed=True)}
    curves = image_curves(lambda p: (p * weights).sum((1, 2, 3)), pixels[0], maps, replace(FULL, fill="mean"),
                            colours=PLAIN)  # fmt: skip
    for game in ("deletion", "insertion"):
        np.testing.assert_allclose(curve(curves, "grid", game), curve(curves, "pixels", game), rtol=1e-5)


def test_what_is_the_same_for_every_map_is_asked_once(additive):
    score, pixels, gives = additive
    seen = []

    def counted(images):
        seen.append(len(images))
        return score(images)

    protocol, maps = Protocol(span=1.0, points=3), {"a": gives, "b": -gives}
    both = image_curves(counted, pixels, maps, protocol, colours=PLAIN)
    assert sum(seen) == 2 * 2 + 2 * 2 and len(both) == 2 * 2 * 3  # in the middle each map; whole and blank once a game
    apart = [image_curves(score, pixels, {name: one}, protocol, colours=PLAIN) for name, one in maps.items()]
    pd.testing.assert_frame_equal(both, pd.concat(apart, ignore_index=True))


def test_batches_make_no_difference_and_are_no_larger_than_asked(additive):
    score, pixels, gives = additive
    sizes = []

    def counted(pictures):
        sizes.append(len(pictures))
        return score(pictures)

    whole = image_curves(score, pixels, {"a": gives, "b": -gives}, colours=PLAIN)
    apart = image_curves(counted, pixels, {"a": gives, "b": -gives}, colours=PLAIN, batch=7)
    pd.testing.assert_frame_equal(whole, apart)
    shared = 2  # where a game begins, which is the same for both maps
    assert max(sizes) == 7 and sum(sizes) + shared == len(whole) == 44


def test_scores_are_the_unmodified_models_similarity(tiny, pixels):
    explainer = Explainer(tiny)
    with torch.no_grad():
        image = F.normalize(tiny.model.encode_image(pixels[:1]), dim=-1)[0]
        text = F.normalize(tiny.model.encode_text(tiny.tokenizer(["a red car"])), dim=-1)[0]
    score = image_score(explainer.image_tower.forward, 7 * text)
    curves = image_curves(score, pixels[0], {"m": np.eye(32)}, replace(PUBLISHED, fill="mean", canvas="mean"))
    assert curve(curves, "m", "deletion")[0] == pytest.approx(float(text @ image), abs=1e-5)


def test_measuring_leaves_nothing_behind_on_a_model_in_training(tiny, pixels):
    clip = copy.deepcopy(tiny)
    clip.model.train()
    before = {name: weight.detach().clone() for name, weight in clip.model.named_parameters()}
    score = image_score(Explainer(clip).image_tower.forward, torch.ones(48))
    image_curves(score, pixels[0], {"m": np.eye(32)}, FULL, colours=colours_of(clip.preprocess))
    assert all(module.training for module in clip.model.modules())
    for name, weight in clip.model.named_parameters():
        assert torch.equal(weight, before[name]) and weight.grad is None and weight.requires_grad


def test_words_are_deleted_by_score_and_the_rest_keeps_its_order():
    asked = []
    scores = {"m": [0.1, 0.9, -0.5, 0.3]}
    spans = [(0, 1), (2, 5), (6, 8), (9, 14)]

    def score(captions):
        asked.extend(captions)
        return torch.zeros(len(captions))

    word_curves(score, "a dog on grass", scores, spans)
    assert asked[:5] == ["a dog on grass", "a on grass", "a on", "on", ""]
    assert asked[5:] == ["", "dog", "dog grass", "a dog grass", "a dog on grass"]


def test_words_of_an_explanation_can_be_deleted_down_to_the_empty_caption(tiny, picture):
    explainer, caption = Explainer(tiny), "a red car, and a dog"
    explanation = explainer.explain(picture, caption)
    image = explainer.image_tower.forward(tiny.preprocess(picture)[None])[0]
    words = explanation.words[0]
    curves = word_curves(
        image_score(lambda captions: explainer.text_tower.forward(tiny.tokenizer(captions)), image),
        caption,
        {"grad-eclip": [word.score for word in words]},
        [(word.start, word.end) for word in words],
    )
    with torch.no_grad():
        empty = F.normalize(tiny.model.encode_text(tiny.tokenizer([""])), dim=-1)[0]
    for game, ends in (("deletion", (0, -1)), ("insertion", (-1, 0))):
        whole, nothing = curve(curves, "grad-eclip", game)[list(ends)]
        assert whole == pytest.approx(float(explanation.similarity[0]), abs=1e-5)
        assert nothing == pytest.approx(float(empty @ image), abs=1e-5)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"maps": {"m": np.ones((9, 12))}}, r"map of 'm' has shape \(9, 12\).*\(8, 12\)"),
        ({"maps": {"m": np.ones(96)}}, r"map of 'm' has shape \(96,\)"),
        ({"maps": {"m": np.full((8, 12), np.nan)}}, "96 values of the map of 'm' are NaN"),
        ({"pixels": torch.ones(1, 3, 8, 12)}, r"tensor \(3, H, W\), got \(1, 3, 8, 12\)"),
        ({"colours": None}, "'random' pixels need the model's normalisation"),
        ({"games": ["removal"]}, "each of games must be 'deletion' or 'insertion', got 'removal'"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_sentence(additive, change, says):
    score, pixels, gives = additive
    asked = {"pixels": pixels, "maps": {"m": gives}, "colours": PLAIN, **change}
    with pytest.raises(ValueError, match=says):
        image_curves(score, **asked)


def test_a_protocol_or_caption_that_makes_no_sense_is_refused():
    for wrong, says in (
        ({"span": 0}, "span is the fraction"),
        ({"points": 1}, "points must be at least 2, got 1"),
        ({"fill": "blur"}, "fill must be one of mean, random, black, got 'blur'"),
        ({"canvas": "white"}, "canvas must be one of"),
    ):
        with pytest.raises(ValueError, match=says):
            Protocol(**wrong)
    with pytest.raises(ValueError, match="at least one word, got ' '"):
        word_curves(len, " ", {"m": []}, [])
    with pytest.raises(ValueError, match=r"'m' needs one finite score for each of 2 words \['a', 'dog'\]"):
        word_curves(len, "a dog", {"m": [1.0]}, [(0, 1), (2, 5)])
    with pytest.raises(ValueError, match="no Normalize step"):
        colours_of(lambda picture: picture)
