"""Matching: scenes whose truth is known, and measures that equal what they are defined as."""

import numpy as np
import pytest
import torch

from gradeclip_utils import Explainer
from gradeclip_utils.scenes import arrange, phrase, recoloured, showable
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
        assert first.noun != second.noun and first.colour != second.colour
        words = [word for word, _ in scene.words_of("colour")]
        assert sorted(words) == sorted([first.colour, second.colour])
    assert scenes == matching.two_coloured(9)[:6]
    assert showable(matching.shown_scene(matching.two_coloured(30)))


def test_words_have_the_kind_that_the_grammar_gave_them():
    scene = arrange(["red car", "blue owl"], prefix="a photo of")
    assert scene.caption == "a photo of a red car and a blue owl"
    expected = "opening opening opening function colour noun function function colour noun"
    assert matching.word_kinds(scene) == expected.split()


def test_leaving_out_takes_one_word_and_leaves_the_rest():
    assert matching.without_each_word("a red car") == ["red car", "a car", "a red"]


def test_word_scores_are_the_explainers_and_leaving_out_is_a_difference_of_similarities(
    explainer, scene
):
    table = matching.word_table(explainer, [scene])
    explanation = explainer.explain(scene.image(96), scene.caption, words="grad-eclip")
    positive = np.maximum([word.score for word in explanation.words[0]], 0)
    relevance = positive / positive.mean()
    assert table["relevance"].to_numpy() == pytest.approx(relevance, abs=1e-4)

    shorter = matching.without_each_word(scene.caption)
    without = explainer.explain(scene.image(96), shorter).similarity
    left_out = explanation.similarity[0] - without
    assert table["left_out"].to_numpy() == pytest.approx(left_out, abs=1e-5)


def test_exchanged_scores_are_those_of_the_true_caption_and_of_the_one_with_exchanged_colours(
    explainer, scene
):
    table = matching.exchanged_scores(explainer, [scene])
    first, second = scene.objects
    exchanged = recoloured(scene, [second.colour, first.colour])
    captions = [scene.caption, exchanged.caption]
    explanation = explainer.explain(scene.image(96), captions, words="grad-eclip")
    for column, words in zip(("true", "exchanged"), explanation.words, strict=True):
        scores = [word.score for word in words]
        assert table[column].to_numpy() == pytest.approx(scores, abs=1e-5)


# --------------------------------------------------------------------------------------- adjectives


def test_things_of_a_colour_pair_differ_in_colour_and_place_alone():
    for pair in matching.colour_pairs(3):
        first, second = pair.scene.objects
        assert first != second
        for name in ("noun", "size", "artist"):
            assert getattr(first, name) == getattr(second, name)
        assert [thing.colour for thing in pair.scene.objects] == [pair.colour, pair.other]
        assert [thing.colour for thing in pair.plain.objects] == [pair.colour, None]
        assert len({pair.colour, pair.other, pair.absent}) == 3
        prompts = matching.colour_prompts(pair)
        assert prompts["its colour"] == phrase(pair.noun, colour=pair.colour)


def test_what_a_colour_moves_is_read_from_the_explainers_maps(explainer):
    pairs = matching.colour_pairs(2)
    table = matching.adjective_shift(explainer, pairs)
    pair = pairs[1]
    table = table[table["noun"] == pair.noun]

    prompts = list(matching.colour_prompts(pair).values())
    maps = explainer.explain(pair.scene.image(96), prompts).image_maps
    coverage = object_coverage(explainer, pair.scene, maps.shape[1:])
    fractions = np.array([fraction_on_first(map_, coverage) for map_ in maps])
    assert table["fraction"].to_numpy() == pytest.approx(fractions, abs=1e-4)
    assert table["moved"].to_numpy() == pytest.approx(fractions - fractions[0], abs=1e-4)


# --------------------------------------------------------------------------------- sums and regions


class Sums:
    """An encoder whose sentences are sums of words."""

    def __init__(self, nouns):
        generator = torch.Generator().manual_seed(0)
        self.vectors = {noun: torch.randn(200, generator=generator) for noun in nouns}

    def embed_texts(self, texts):
        embeddings = []
        for text in texts:
            nouns = [noun for noun in self.vectors if noun in text.split()]
            embeddings.append(sum(self.vectors[noun] for noun in nouns))
        return torch.stack(embeddings)


def test_a_sum_lies_in_the_plane_of_its_parts_and_a_foreign_plane_holds_little_of_it():
    pairs = [pair for pair in matching.noun_pairs(20) if " " not in "".join(pair)]
    encoder = Sums([noun for pair in pairs for noun in pair])
    table = matching.span_fractions(encoder, pairs)
    assert table["own"].min() > 0.9
    assert table["foreign"].mean() < 0.1
    assert table[["first", "second"]].to_numpy() == pytest.approx(1, abs=0.2)


def test_words_x_things_are_means_of_the_words_maps(explainer, scene):
    table = matching.region_table(explainer, scene)
    names = [phrase(thing.noun, colour=thing.colour) for thing in scene.objects]
    assert list(table.columns) == names

    maps = explainer.interactions(scene.image(96), scene.caption).image_maps
    coverage = object_coverage(explainer, scene, maps.shape[1:])
    expected = np.einsum("whv,rhv->wr", maps, coverage) / coverage.sum((1, 2))
    tolerance = 1e-4 * np.abs(expected).max()
    assert table.to_numpy() == pytest.approx(expected, abs=tolerance)

    hits = matching.region_hits(explainer, [scene])
    assert sorted(hits["kind"]) == ["colour", "colour", "noun", "noun"]
    assert hits["hit"].isin([0, 0.5, 1]).all()


def test_coverage_holds_as_much_as_the_masks(tiny):
    scene = arrange(["red car", "blue car"])
    coverage = object_coverage(Explainer(tiny), scene, (4, 4))
    assert coverage.shape == (2, 4, 4)
    areas = scene.masks(96).mean((1, 2))
    assert np.allclose(coverage.mean((1, 2)), areas, atol=1e-6)


def test_fractions_of_two_things_add_up_and_ignore_what_speaks_against():
    map_ = np.random.default_rng(1).normal(size=(4, 4))
    coverage = np.random.default_rng(2).random((2, 4, 4))
    first = fraction_on_first(map_, coverage)
    second = fraction_on_first(map_, coverage[::-1])
    assert first + second == pytest.approx(1)

    with_more_against = np.where(map_ < 0, map_ - 9, map_)
    assert fraction_on_first(with_more_against, coverage) == pytest.approx(first)
    assert fraction_on_first(-np.ones((4, 4)), coverage) == 0.5
