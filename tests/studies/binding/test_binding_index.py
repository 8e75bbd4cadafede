"""Binding: the index means what it says."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from gradeclip_utils import Explainer
from gradeclip_utils.measures.localisation import pool
from gradeclip_utils.scenes import COLOURS, describe
from studies.binding.binding_index import (
    METHODS,
    answers_by_map,
    binding_index,
    gap_relevance,
    index_of_map,
)
from studies.binding.cached_explainer import CachedExplainer
from studies.pairs import SWAPPED, draw_pairs, images_of

FEW = 16  # concepts: what these tests draw


def drawn(kind, n=3, **options):
    return draw_pairs(kind, n, nouns=FEW, **options)


def test_the_index_is_re_derived_from_explanations_that_everybody_can_make(bundled_shape):
    """From `Explainer.explain` and `Explainer.interactions`, masks and a loop over patches."""
    (pair,) = drawn("colour", 1, objects=3)
    index = binding_index(bundled_shape, [pair]).set_index(["side", "role", "method"])["index"]
    explainer, scene, other = Explainer(bundled_shape), *pair.scenes
    picture, (span,) = images_of(bundled_shape, [scene])[0], pair.words(0)
    word = next(i for i, s in enumerate(explainer.interactions(picture, scene.caption).words) if s.start == span.start)
    maps = explainer.interactions(picture, scene.caption).maps
    expected = {
        "caption": explainer.explain(picture, scene.caption).image_maps[0],
        "word x region": maps[word],
        "word x region, centred": maps[word] - maps.mean(0),
        "contrast": explainer.explain(picture, scene.caption, against=other.caption).image_maps[0],
    }
    cover = np.stack([pool(mask, maps.shape[1:]) for mask in scene.masks(96)])
    for method, map_ in expected.items():
        density = [sum(max(m, 0) * c for m, c in zip(map_.flat, part.flat, strict=True)) / part.sum() for part in cover]
        theirs = [k for k in range(3) if k not in pair.asked]
        spread = sum(density[k] * cover[k].sum() for k in theirs) / sum(cover[k].sum() for k in theirs)
        mine = density[pair.asked[0]]
        wanted = mine / (mine + spread) if mine + spread else 0.5
        assert index[0, "right", method] == pytest.approx(wanted, abs=1e-4), method


def test_the_index_knows_a_map_that_lies_on_its_object_on_the_other_and_on_neither():
    own, others = np.eye(2)[:1].repeat(2, 0), np.eye(2)[1:].repeat(2, 0)
    assert index_of_map(own, own, others)["index"] == 1
    assert index_of_map(own, others, own)["index"] == 0
    assert index_of_map(np.ones((2, 2)), own, others)["index"] == 0.5
    nothing = index_of_map(-np.ones((2, 2)), own, others)
    assert nothing["index"] == 0.5 and nothing["silent"]


def test_the_index_is_per_area_so_that_an_even_map_prefers_no_object():
    own, others = np.zeros((4, 4)), np.zeros((4, 4))
    own[0, 0], others[1:] = 1, 1
    assert index_of_map(np.ones((4, 4)), own, others)["index"] == 0.5


@pytest.mark.parametrize("kind", SWAPPED)
def test_one_map_for_both_swapped_words_can_only_be_at_one_half_on_average(bundled_shape, kind):
    index = binding_index(bundled_shape, drawn(kind, 2), absent=False)
    own = index[index["method"] == "caption"]
    assert own.groupby(["pair", "side", "role"])["index"].mean().to_numpy() == pytest.approx(0.5)


def test_the_contrast_of_a_wrong_caption_is_the_contrast_of_the_right_one_with_its_sign_turned(bundled_shape):
    """Where it speaks for its object by the one caption, it speaks against it by the other: never for it by both."""
    (pair,) = drawn("colour", 1)
    explainer, (right, wrong) = Explainer(bundled_shape), (scene.caption for scene in pair.scenes)
    index = binding_index(bundled_shape, [pair]).query("method == 'contrast' and side == 0").set_index("role")
    (image,), (span,) = images_of(bundled_shape, pair.scenes[:1]), pair.words(0)
    map_ = explainer.explain(image, right, against=wrong).image_maps[0]
    cover = np.stack([pool(mask, map_.shape) for mask in pair.scenes[0].masks(image.width)])
    own = cover[span.objects[0]]
    for role, sign in (("right", 1), ("wrong", -1)):
        expected = index_of_map(sign * map_, own, cover.sum(0) - own)["index"]
        assert index["index"][role] == pytest.approx(expected, abs=1e-4)


def test_an_absent_colour_is_asked_only_where_it_is_absent(bundled_shape):
    pairs = drawn("swapped colours", 2)
    index = binding_index(bundled_shape, pairs)
    for pair in pairs:
        shown = {thing.colour for thing in pair.scenes[0].objects}
        mine = index[(index["pair"] == pair.name) & (index["role"] == "absent")]
        assert len(mine) == 2 * 2 * len(METHODS) and not shown & set(mine["word"])


def test_some_methods_alone_have_the_same_indices_as_among_all(bundled_shape):
    pairs = drawn("swapped sizes", 1, objects=3)
    whole, asked = binding_index(bundled_shape, pairs), ["contrast", "word x region"]
    some = binding_index(bundled_shape, pairs, methods=asked)
    keys = ["side", "role", "word", "method"]
    expected = whole[whole["method"].isin(asked)].set_index(keys)["index"].sort_index()
    assert some.set_index(keys)["index"].sort_index().to_numpy() == pytest.approx(expected.to_numpy(), abs=1e-5)
    assert set(some["method"]) == set(asked) and len(some) == len(whole) / 2


def test_a_cached_explainer_gives_the_same_index_as_a_model_and_reads_captions_once(bundled_shape):
    pairs, cached = drawn("colour", 1), CachedExplainer(bundled_shape)
    once = binding_index(cached, pairs)
    words = cached.words(pairs[0].scenes[0].caption)
    pd.testing.assert_frame_equal(once, binding_index(bundled_shape, pairs))
    assert cached.words(pairs[0].scenes[0].caption) is words


def test_the_map_answers_for_the_caption_whose_words_have_the_higher_index():
    about = {"kind": "colour", "objects": 2, "method": "word x region"}
    told = [("a", "right", 0.9), ("a", "right", 0.5), ("a", "wrong", 0.6), ("b", "right", 0.2), ("b", "wrong", 0.3),
            ("c", "right", 0.5), ("c", "wrong", 0.5), ("c", "absent", 0.9),
            ("d", "right", 0.5000003), ("d", "wrong", 0.5)]  # fmt: skip
    index = pd.DataFrame(
        [{**about, "pair": pair, "side": 0, "role": role, "index": value} for pair, role, value in told]
    )
    assert list(answers_by_map(index)["right"]) == [1, 0, 0.5, 0.5], "what differs by rounding is a tie"
    assert answers_by_map(index[:0]).empty


def test_gap_relevance_puts_all_relevance_into_the_parts(bundled_shape):
    (pair,) = drawn("swapped colours", 1, objects=4)
    rows = gap_relevance(bundled_shape, [pair])
    explanation = Explainer(bundled_shape).explain(
        images_of(bundled_shape, pair.scenes[:1])[0], pair.scenes[0].caption, against=pair.scenes[1].caption
    )
    map_ = explanation.image_maps[0]
    cover = np.stack([pool(mask, map_.shape) for mask in pair.scenes[0].masks(96)])
    asked = list(pair.asked)
    area = {"asked": cover[asked].sum(), "background": (1 - cover.sum(0)).sum()}
    area["others"] = map_.size - sum(area.values())
    mine = rows[rows["side"] == 0].set_index("part")
    for sign, column in ((1, "for_right"), (-1, "for_wrong")):
        total = sum(mine.loc[part, column] * size for part, size in area.items()) * np.abs(map_).mean()
        assert total == pytest.approx(np.maximum(sign * map_, 0).sum(), rel=1e-3)


def test_absent_colours_are_asked_in_captions_whose_articles_agree(bundled_shape, monkeypatch):
    asked, embedding = [], CachedExplainer.embedding
    monkeypatch.setattr(
        CachedExplainer, "embedding", lambda self, caption: asked.append(caption) or embedding(self, caption)
    )
    pairs = drawn("swapped colours", 8)
    binding_index(bundled_shape, pairs)
    possible = {
        describe([replace(t, colour=colour) if k == i else t for k, t in enumerate(scene.objects)])[0]
        for pair in pairs for scene in pair.scenes for i in range(2) for colour in COLOURS
    }  # fmt: skip
    assert set(asked) <= possible and any(" an orange " in f" {caption} " for caption in asked)
