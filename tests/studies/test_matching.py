"""Matching: scenes whose truth is known, and measures that equal what they are defined as."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from gradeclip_utils import Explainer
from gradeclip_utils.scenes import arrange, phrase, showable
from studies import matching
from studies.relevance import fraction_on_first, object_coverage


@pytest.fixture(scope="module")
def explainer(bundled):
    return Explainer(bundled)


@pytest.fixture(scope="module")
def scene():
    return matching.two_coloured(1)[0]


# -------------------------------------------------------------------------------------------- words


def test_scenes_have_two_things_in_two_colours_and_the_caption_says_both():
    scenes = matching.two_coloured(6)
    for scene in scenes:
        first, second = scene.objects
        assert first.noun != second.noun
        assert first.colour != second.colour
        colours = dict(scene.words_of("colour"))
        assert set(colours) == {first.colour, second.colour}
    many = matching.two_coloured(30)
    assert many[:6] == scenes
    assert showable(matching.shown_scene(many))


def test_words_have_the_kind_that_the_grammar_gave_them():
    scene = arrange(["red car", "blue owl"], prefix="a photo of")
    assert scene.caption == "a photo of a red car and a blue owl"
    expected = "opening opening opening function colour noun function function colour noun"
    assert matching.word_kinds(scene) == expected.split()


def test_exchanged_colours_and_exchanged_nouns_say_the_same(scene):
    first, second = scene.objects
    by_colour = matching.exchanged(scene, "colour").split()
    by_noun = matching.exchanged(scene, "noun").split()
    assert sorted(by_colour) == sorted(by_noun)
    pairs = {(second.colour, first.noun), (first.colour, second.noun)}
    for words in (by_colour, by_noun):
        assert set(pairwise(words)) >= pairs


@pytest.mark.parametrize("kind", ["colour", "noun"])
def test_exchanged_scores_are_changes_of_the_explainers_scores(explainer, scene, kind):
    table = matching.exchanged_scores(explainer, [scene], kind)
    image = explainer.embed_images(scene.image(96))
    captions = [scene.caption, matching.exchanged(scene, kind)]
    scored = explainer.score_words(captions, image.expand(2, -1))
    expected = []
    for true_word, exchanged_word in zip(*scored, strict=True):
        change = true_word.score - exchanged_word.score
        expected.append(abs(change))
    np.testing.assert_allclose(table["change"], expected, atol=1e-5)


def test_a_phrase_loses_what_the_caption_has_beyond_the_other_phrase(explainer):
    scene = arrange(["red car", "blue owl"], seed=1)
    (row,) = matching.phrase_losses(explainer, [scene]).to_dict("records")
    prompts = [
        "a red car and a blue owl",
        "a car and a blue owl",
        "a red and a blue owl",
        "a blue owl",
    ]
    assert scene.caption == prompts[0]
    explanation = explainer.explain(scene.image(96), prompts)
    whole, *parts = explanation.similarity
    for name, part in zip(("colour", "noun", "phrase"), parts, strict=True):
        loss = whole - part
        assert row[name] == pytest.approx(loss, abs=1e-5)


# --------------------------------------------------------------------------------------- adjectives


def test_things_of_a_colour_pair_differ_in_colour_and_place_alone():
    for pair in matching.colour_pairs(3):
        first, second = pair.scene.objects
        assert first != second
        for name in ("noun", "size", "artist"):
            assert getattr(first, name) == getattr(second, name)

        first_plain, second_plain = pair.plain.objects
        assert first.colour == first_plain.colour == pair.colour
        assert second.colour == pair.other
        assert second_plain.colour is None
        assert len({pair.colour, pair.other, pair.absent}) == 3
        prompts = matching.colour_prompts(pair)
        assert prompts["its colour"] == phrase(pair.noun, colour=pair.colour)


def test_what_a_colour_moves_is_read_from_the_explainers_maps(explainer):
    pairs = matching.colour_pairs(2)
    pair = pairs[1]
    table = matching.adjective_shift(explainer, pairs)
    table = table[table["noun"] == pair.noun]

    prompts = matching.colour_prompts(pair)
    explanation = explainer.explain(pair.scene.image(96), list(prompts.values()))
    maps = explanation.image_maps
    coverage = object_coverage(explainer, pair.scene, maps.shape[1:])
    fractions = np.array([fraction_on_first(map_, coverage) for map_ in maps])
    moved = fractions - fractions[0]
    np.testing.assert_allclose(table["fraction"], fractions, atol=1e-4)
    np.testing.assert_allclose(table["moved"], moved, atol=1e-4)


# --------------------------------------------------------------------------------- sums and regions


class Sums:
    """An encoder whose sentences are sums of words."""

    def __init__(self, nouns):
        generator = torch.Generator().manual_seed(0)
        self.vectors = {noun: torch.randn(200, generator=generator) for noun in nouns}

    def embed_texts(self, texts):
        embeddings = []
        for text in texts:
            nouns = self.vectors.keys() & text.split()
            embeddings.append(sum(self.vectors[noun] for noun in sorted(nouns)))
        return torch.stack(embeddings)


def test_a_sum_lies_in_the_plane_of_its_parts_and_a_foreign_plane_holds_little_of_it():
    pairs = [(a, b) for a, b in matching.noun_pairs(20) if " " not in a + b]
    nouns = np.concatenate(pairs)
    table = matching.span_fractions(Sums(nouns), pairs)
    assert table["own"].min() > 0.9
    assert table["foreign"].mean() < 0.1
    np.testing.assert_allclose(table[["first", "second"]], 1, atol=0.2)


def test_words_x_things_are_means_of_the_words_maps(explainer, scene):
    table = matching.region_table(explainer, scene)
    names = [phrase(thing.noun, colour=thing.colour) for thing in scene.objects]
    assert list(table.columns) == names

    interactions = explainer.interactions(scene.image(96), scene.caption)
    maps = interactions.image_maps  # (words, h, w)
    coverage = object_coverage(explainer, scene, maps.shape[1:])  # (things, h, w)
    sums = np.einsum("whv,rhv->wr", maps, coverage)
    expected = sums / coverage.sum(axis=(1, 2))
    tolerance = 1e-4 * np.abs(expected).max()
    np.testing.assert_allclose(table, expected, atol=tolerance)

    hits = matching.region_hits(explainer, [scene])
    assert sorted(hits["kind"]) == ["colour", "colour", "noun", "noun"]
    assert hits["hit"].isin([0, 0.5, 1]).all()


def test_coverage_holds_as_much_as_the_masks(tiny):
    scene = arrange(["red car", "blue car"])
    coverage = object_coverage(Explainer(tiny), scene, (4, 4))
    assert coverage.shape == (2, 4, 4)
    masks = scene.masks(96)
    areas = masks.mean(axis=(1, 2))
    mean_coverage = coverage.mean(axis=(1, 2))
    np.testing.assert_allclose(mean_coverage, areas, atol=1e-6)


def test_fractions_of_two_things_add_up_and_ignore_what_speaks_against():
    rng = np.random.default_rng(1)
    map_ = rng.normal(size=(4, 4))
    coverage = rng.random((2, 4, 4))
    first = fraction_on_first(map_, coverage)
    second = fraction_on_first(map_, coverage[::-1])
    assert first + second == pytest.approx(1)

    map_[map_ < 0] -= 9
    assert fraction_on_first(map_, coverage) == pytest.approx(first)
    nothing_for = -np.ones((4, 4))
    assert fraction_on_first(nothing_for, coverage) == 0.5
