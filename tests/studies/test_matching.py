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


def test_scenes_have_two_things_in_two_colours_and_the_caption_says_both():
    scenes = matching.two_coloured(6)
    for scene in scenes:
        assert (
            len({one.noun for one in scene.objects})
            == len({one.colour for one in scene.objects})
            == 2
        )
        assert sorted(word for word, _ in scene.words_of("colour")) == sorted(
            one.colour for one in scene.objects
        )
    assert scenes == matching.two_coloured(9)[:6]
    assert showable(matching.shown_scene(matching.two_coloured(30)))


def test_words_have_the_kind_that_the_grammar_gave_them():
    scene = arrange(["red car", "blue owl"], prefix="a photo of")
    assert scene.caption == "a photo of a red car and a blue owl"
    expected = "opening opening opening function colour noun function function colour noun".split()
    assert matching.word_kinds(scene) == expected


def test_leaving_out_takes_one_word_and_leaves_the_rest():
    assert matching.without_each_word("a red car") == ["red car", "a car", "a red"]


def test_word_scores_are_the_explainers_and_leaving_out_is_a_difference_of_similarities(explainer):
    scene = matching.two_coloured(1)[0]
    table = matching.word_table(explainer, [scene])
    found = explainer.explain(scene.image(96), scene.caption)
    scores = np.maximum([word.score for word in found.words[0]], 0)
    assert table["relevance"].to_numpy() == pytest.approx(scores / scores.mean(), abs=1e-4)
    shorter = explainer.explain(
        scene.image(96), matching.without_each_word(scene.caption)
    ).similarity
    assert table["left_out"].to_numpy() == pytest.approx(found.similarity[0] - shorter, abs=1e-5)
    assert table["relevance"].mean() == pytest.approx(1)


def test_things_of_a_colour_pair_differ_in_colour_and_place_alone():
    for pair in matching.colour_pairs(3):
        first, second = pair.scene.objects
        assert (first.noun, first.size, first.artist) == (
            second.noun,
            second.size,
            second.artist,
        ) and first != second
        assert [one.colour for one in pair.scene.objects] == [pair.colour, pair.other]
        assert [one.colour for one in pair.plain.objects] == [pair.colour, None]
        assert len({pair.colour, pair.other, pair.absent}) == 3
        assert matching.colour_prompts(pair)["its colour"] == phrase(pair.noun, colour=pair.colour)


def test_what_a_colour_moves_is_read_from_the_explainers_maps(explainer):
    pairs = matching.colour_pairs(2)
    table = matching.adjective_shift(explainer, pairs)
    found = explainer.explain(
        pairs[1].scene.image(96), list(matching.colour_prompts(pairs[1]).values())
    )
    coverage = object_coverage(
        explainer,
        pairs[1].scene,
        found.image_maps.shape[1:],
    )
    fractions = [fraction_on_first(map_, coverage) for map_ in found.image_maps]
    mine = table[table["noun"] == pairs[1].noun]
    assert mine["fraction"].to_numpy() == pytest.approx(fractions, abs=1e-4)
    assert mine["moved"].to_numpy() == pytest.approx(np.subtract(fractions, fractions[0]), abs=1e-4)


def test_a_sum_lies_in_the_plane_of_its_parts_and_a_foreign_plane_holds_little_of_it():
    generator = torch.Generator().manual_seed(0)

    words = {
        noun: torch.randn(200, generator=generator)
        for pair in matching.noun_pairs(20)
        for noun in pair
    }

    class Sums:
        """An encoder whose sentences are sums of words."""

        def embed_texts(self, texts):
            return torch.stack(
                [sum(v for noun, v in words.items() if noun in text.split()) for text in texts]
            )

    single = [pair for pair in matching.noun_pairs(20) if all(" " not in noun for noun in pair)]
    table = matching.span_fractions(Sums(), single)
    assert table["own"].min() > 0.9 and table["foreign"].mean() < 0.1
    assert table[["first", "second"]].to_numpy() == pytest.approx(1, abs=0.2)


def test_words_x_things_are_means_of_the_words_maps(explainer):
    scene = matching.two_coloured(1)[0]
    table = matching.region_table(explainer, scene)
    assert list(table.columns) == [phrase(one.noun, colour=one.colour) for one in scene.objects]
    maps = explainer.interactions(scene.image(96), scene.caption).image_maps
    coverage = object_coverage(explainer, scene, maps.shape[1:])
    expected = np.einsum("whv,rhv->wr", maps, coverage) / coverage.sum((1, 2))
    assert table.to_numpy() == pytest.approx(expected, abs=1e-4 * np.abs(expected).max())
    hits = matching.region_hits(explainer, [scene])
    assert sorted(hits["kind"]) == ["colour", "colour", "noun", "noun"] and set(hits["hit"]) <= {
        0.0,
        0.5,
        1.0,
    }


def test_exchanged_scores_are_those_of_the_true_caption_and_of_the_one_with_exchanged_colours(
    explainer,
):
    scene = matching.two_coloured(1)[0]
    table = matching.exchanged_scores(explainer, [scene])
    other = recoloured(scene, [thing.colour for thing in scene.objects][::-1])
    found = explainer.explain(scene.image(96), [scene.caption, other.caption]).words
    for column, words in zip(("true", "exchanged"), found, strict=True):
        assert table[column].to_numpy() == pytest.approx([word.score for word in words], abs=1e-5)


def test_coverage_holds_as_much_as_the_masks(tiny):
    scene = arrange(["red car", "blue car"])
    coverage = object_coverage(Explainer(tiny), scene, (4, 4))
    assert coverage.shape == (2, 4, 4) and np.allclose(
        coverage.mean((1, 2)), scene.masks(96).mean((1, 2)), atol=1e-6
    )


def test_fractions_of_two_things_add_up_and_ignore_what_speaks_against():
    map_, coverage = (
        np.random.default_rng(1).normal(size=(4, 4)),
        np.random.default_rng(2).random((2, 4, 4)),
    )
    assert fraction_on_first(map_, coverage) + fraction_on_first(
        map_, coverage[::-1]
    ) == pytest.approx(1)
    assert fraction_on_first(map_ - 9 * (map_ < 0), coverage) == pytest.approx(
        fraction_on_first(map_, coverage)
    )
    assert fraction_on_first(-np.ones((4, 4)), coverage) == 0.5
