"""Wording: kinds of words, fractions of relevance, templates, and the word x region matrix."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from gradeclip_utils import Explainer
from gradeclip_utils.notices import ExplanationWarning, warn
from gradeclip_utils.scenes import arrange, draw_scene
from studies.matching.wording import (
    ELSEWHERE,
    KINDS,
    TEMPLATES,
    caption_word_kinds,
    filled,
    leave_one_out_agreement,
    leave_one_out_captions,
    own_region_hits,
    scene_regions,
    template_effect,
    word_fractions,
    word_regions,
)
from tests.conftest import build, wrap

SCENES = [arrange(["red car", "blue ball"]), arrange(["owl", "green cat"]), arrange(["dog"], prefix="i see")]


@pytest.fixture(scope="module")
def explainer():
    return Explainer(wrap(build(text={"context_length": 77})))


def test_kinds_are_those_that_the_scene_knows():
    scene = arrange(["red car", "owl", "cat"], prefix="a photo of")
    told = [(text, kind, own) for text, _, kind, own in caption_word_kinds(scene)]
    assert told[:6] == [
        ("a", "opening", ()), ("photo", "opening", ()), ("of", "opening", ()),
        ("a", "function", ()), ("red", "colour", (0,)), ("car", "noun", (0,)),
    ]  # fmt: skip
    assert (",", "punctuation", ()) in told and told[-1] == ("cat", "noun", (2,))
    relation = arrange(["cat", "dog"], relation="to the left of")
    assert [kind for _, _, kind, _ in caption_word_kinds(relation)].count("relation") == 4


def test_every_word_of_many_captions_has_a_kind():
    found = [one for i in range(60) for one in caption_word_kinds(draw_scene(i, split="development"))]
    assert {kind for _, _, kind, _ in found} == set(KINDS)


def test_fractions_of_a_caption_are_one_on_average(explainer):
    table = word_fractions(explainer, SCENES)
    assert np.allclose(table.groupby(["image", "shown"])["fraction"].mean(), 1)
    scores = [word.score for word in explainer.explain(SCENES[0].image(), SCENES[0].caption).words[0]]
    mine = table[(table["image"] == 0) & (table["shown"] == "own image")]
    assert np.allclose(mine["score"], scores, atol=1e-6) and list(mine["word"]) == SCENES[0].caption.split()
    assert not np.allclose(mine["score"], table[(table["image"] == 0) & (table["shown"] != "own image")]["score"])


def test_a_leave_one_out_effect_is_what_the_model_says_of_the_shorter_caption(explainer):
    table = word_fractions(explainer, SCENES)
    picture, caption = SCENES[0].image(), SCENES[0].caption
    red = table[(table["image"] == 0) & (table["shown"] == "own image") & (table["word"] == "red")].iloc[0]
    full, without = explainer.explain(picture, [caption, "a car and a blue ball"]).similarity
    assert caption == "a red car and a blue ball" and red["leave_one_out"] == pytest.approx(full - without, abs=1e-5)
    other = table[(table["image"] == 0) & (table["shown"] == "another image") & (table["word"] == "red")].iloc[0]
    full, without = explainer.explain(SCENES[1].image(), [caption, "a car and a blue ball"]).similarity
    assert other["leave_one_out"] == pytest.approx(full - without, abs=1e-5)


def test_words_are_left_out_with_their_space():
    assert leave_one_out_captions("a cat, a dog") == ["cat, a dog", "a, a dog", "a cat a dog", "a cat, dog", "a cat, a"]


def test_scores_that_order_words_as_leaving_them_out_does_correlate_by_one():
    rows = pd.DataFrame(
        {"image": [0] * 4 + [1] * 3, "score": range(7), "leave_one_out": np.arange(7) ** 3, "shown": "own image"}
    )
    assert leave_one_out_agreement(rows).to_dict() == {0: pytest.approx(1)}
    assert leave_one_out_agreement(rows.assign(leave_one_out=-rows["leave_one_out"])).to_dict() == {
        0: pytest.approx(-1)
    }
    assert not len(leave_one_out_agreement(rows.assign(score=1.0)))


def test_a_template_holds_the_noun_with_its_article():
    assert filled(TEMPLATES["a photo of a cat"], "owl") == "a photo of an owl"
    assert filled(TEMPLATES["cat"], "owl") == "owl" and filled(TEMPLATES["a cat"], "owl") == "an owl"


def test_a_template_is_compared_with_the_plain_one(explainer):
    table = template_effect(explainer, ["cat", "dog", "owl"])
    plain = table[table["template"] == "a cat"]
    assert np.allclose(plain["gain"], 0) and np.allclose(plain[["map", "alike"]], 1)
    assert len(table) == 3 * (len(TEMPLATES) + 1) and table["right"].isin([0, 1]).all()
    wrong = table[(table["template"] == "another noun") & (table["image"] == "owl")].iloc[0]
    seen = explainer.explain(arrange(["owl"], seed=2).image(), ["a dog", "an owl"])
    assert wrong["gain"] == pytest.approx(seen.similarity[0] - seen.similarity[1], abs=1e-5)
    one = table[(table["template"] == "cat") & (table["image"] == "owl")].iloc[0]
    seen = explainer.explain(arrange(["owl"], seed=2).image(), ["owl", "an owl"])
    assert one["gain"] == pytest.approx(seen.similarity[0] - seen.similarity[1], abs=1e-5)


def test_the_matrix_averages_interactions_over_regions(explainer):
    picture = SCENES[0].image()
    left = np.arange(384) < 192
    masks = {"left": np.tile(left, (384, 1)), "right": np.tile(~left, (384, 1))}
    found = explainer.interactions(picture, SCENES[0].caption)
    expected = np.stack([found.maps[:, :, :2].mean((1, 2)), found.maps[:, :, 2:].mean((1, 2))], axis=1)
    matrix = word_regions(explainer, picture, SCENES[0].caption, masks)
    assert matrix.regions == ("left", "right")
    assert np.allclose(matrix.values, expected - expected.mean(0), atol=1e-6)


def test_what_no_thing_covers_is_elsewhere(explainer):
    matrix = scene_regions(explainer, SCENES[0])
    assert matrix.regions == ("a red car", "a blue ball", ELSEWHERE) and (sum(matrix.masks) == 1).all()
    assert scene_regions(explainer, arrange(["cat", "cat"])).regions[:2] == ("a cat", "a cat (2)")


def test_masks_must_fit_the_picture(explainer):
    picture = SCENES[0].image()
    with pytest.raises(ValueError, match="there are none"):
        word_regions(explainer, picture, "a cat", {})
    for mask in (np.zeros((384, 384), bool), np.ones((96, 96), bool)):
        with pytest.raises(ValueError, match="not so: \\['thing'\\]"):
            word_regions(explainer, picture, "a cat", {"thing": mask})


def test_a_word_hits_where_its_matrix_is_largest(explainer):
    table = own_region_hits(explainer, SCENES[:2])
    assert set(zip(table["word"], table["kind"], strict=True)) == {
        ("red", "colour"), ("car", "noun"), ("blue", "colour"), ("ball", "noun"),
        ("owl", "noun"), ("green", "colour"), ("cat", "noun"),
    }  # fmt: skip
    matrix = scene_regions(explainer, SCENES[0])
    strongest = dict(zip(matrix.words, matrix.values[:, :2].argmax(1), strict=True))
    hits = table[(table["image"] == 0) & table["centred"]].set_index("word")["hit"]
    assert all(hits[word] == (strongest[word] == own) for word, own in (("red", 0), ("car", 0), ("ball", 1)))


def test_a_word_whose_map_is_empty_counts_as_chance_and_nobody_is_warned(explainer, monkeypatch, recwarn):
    whole = Explainer.interactions

    def without_red(self, image, caption):
        found = whole(self, image, caption)
        warn("1 of 7 word maps are zero everywhere")
        return replace(found, maps=found.maps * [[[word.text != "red"]] for word in found.words])

    monkeypatch.setattr(Explainer, "interactions", without_red)
    hits = own_region_hits(explainer, SCENES[:1]).set_index(["word", "centred"])["hit"]
    assert (hits["red"] == 0.5).all()
    assert not [one for one in recwarn if issubclass(one.category, ExplanationWarning)]
