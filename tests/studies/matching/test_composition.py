"""Composition: in a world where sentences are sums the measurements find the sum, and elsewhere they do not."""

import numpy as np
import pytest
import torch

from gradeclip_utils import Explainer
from gradeclip_utils.scenes import Object, concept, is_withheld_pair
from studies.matching.composition import (
    CASES,
    CHANGES,
    caption_changes,
    changed_captions,
    in_span,
    noun_pairs,
    phrase,
    seen_whole,
    span_fractions,
    two_colour_scenes,
)

PAIRS = noun_pairs(12)
ALIKE = [pair for pair in PAIRS if all(phrase(noun)[:2] == "a " for noun in pair)]  # "an" would be another word


def vector(word: str) -> np.ndarray:
    return np.random.default_rng(list(word.encode())).normal(size=60)


def bag(texts, signs=None):
    """An embedding that is the sum of its words, with the noun behind "no" taken away where ``signs`` say so."""
    found = []
    for text in texts:
        words = text.split()
        weights = [-1 if signs and before == "no" else 1 for before in ["", *words[:-1]]]
        found.append(sum(weight * vector(word) for weight, word in zip(weights, words, strict=True)))
    return torch.from_numpy(np.stack(found))


def mean(table, value, **where):
    for column, wanted in where.items():
        table = table[table[column] == wanted]
    assert len(table)
    return table[value].mean()


def test_a_phrase_is_what_a_caption_would_say():
    assert phrase("owl") == "an owl" and phrase("car", colour="red") == "a red car"
    assert phrase("cat", "dog") == "a cat and a dog" and phrase("cat", "cat") == "two cats"
    assert phrase("cat", "dog", relation="above") == "a cat above a dog"


def test_no_noun_is_in_two_pairs_and_no_pair_is_withheld():
    pairs = noun_pairs(100)
    nouns = [noun for pair in pairs for noun in pair]
    assert len(set(nouns)) == 200 and all(concept(noun)["plural"] for noun in nouns)
    assert not any(is_withheld_pair(*pair) for pair in pairs) and pairs[:12] == PAIRS


@pytest.mark.parametrize("n", [0, 1000])
def test_as_many_pairs_as_there_are(n):
    with pytest.raises(ValueError, match=f"got {n}"):
        noun_pairs(n)


def test_the_span_is_least_squares():
    rng = np.random.default_rng(0)
    targets, parts = rng.normal(size=(5, 9)), rng.normal(size=(5, 2, 9))
    fraction, weights = in_span(targets, parts)
    for i in range(5):
        expected, (rest,), *_ = np.linalg.lstsq(parts[i].T, targets[i], rcond=None)
        assert np.allclose(weights[i], expected) and fraction[i] == pytest.approx(1 - rest / (targets[i] ** 2).sum())


def test_what_is_a_sum_lies_in_the_span_and_what_is_at_right_angles_does_not():
    parts = np.eye(4)[None, :2]
    fraction, weights = in_span(np.array([[3.0, -2, 0, 0]]), parts)
    assert fraction[0] == pytest.approx(1) and np.allclose(weights, [[3, -2]])
    assert in_span(np.array([[0.0, 0, 5, 1]]), parts)[0][0] == pytest.approx(0)


def test_where_sentences_are_sums_they_are_found_to_be_sums(tiny, monkeypatch):
    monkeypatch.setattr(Explainer, "embed_texts", lambda explainer, texts: bag(texts))
    table = span_fractions(Explainer(tiny), ALIKE)
    own = {"case": "and", "mean_prompt": "removed"}
    assert mean(table, "fraction", **own, parts="own") > 0.9 > 0.3 > mean(table, "fraction", **own, parts="foreign")
    assert 0.3 < mean(table, "fraction", **own, parts="one foreign") < 0.7
    assert mean(table, "first", **own, parts="own") == pytest.approx(1, abs=0.05)
    assert mean(table, "second", case="and no", mean_prompt="removed", parts="own") == pytest.approx(1, abs=0.05)
    assert mean(table, "fraction", case="and", mean_prompt="kept", parts="foreign") > 0.2  # the words that all share


def test_where_no_takes_away_the_weight_is_negative(tiny, monkeypatch):
    monkeypatch.setattr(Explainer, "embed_texts", lambda explainer, texts: bag(texts, signs=True))
    table = span_fractions(Explainer(tiny), ALIKE, ["and", "and no"])
    assert mean(table, "second", case="and no", mean_prompt="removed", parts="own") < -0.9
    assert mean(table, "second", case="and", mean_prompt="removed", parts="own") > 0.9


def test_every_pair_is_asked_once_a_case_mean_and_parts(tiny):
    table = span_fractions(Explainer(tiny), PAIRS[:3])
    assert len(table) == 3 * len(CASES) * 2 * 3 and table["fraction"].between(0, 1 + 1e-9).all()
    assert not table.duplicated(["pair", "case", "mean_prompt", "parts"]).any()


def test_two_pairs_have_no_strangers_enough(tiny):
    with pytest.raises(ValueError, match="three pairs or more, got 2"):
        span_fractions(Explainer(tiny), PAIRS[:2])


def test_two_colours_are_shown_and_said_and_nothing_else_is_shown():
    for scene in two_colour_scenes(4):
        assert len({thing.noun for thing in scene.objects}) == len({thing.colour for thing in scene.objects}) == 2
        assert not scene.unnamed and len(scene.words_of("colour")) == 2


def test_what_is_hidden_or_reaches_the_border_is_not_seen_whole():
    behind, apart = Object("apple", x=30, y=30, size=30), Object("ball", x=70, y=70, size=30)
    assert seen_whole([behind, apart])
    assert not seen_whole([behind, Object("ball", x=40, y=40, size=30)])
    assert not seen_whole([Object("apple", x=10, y=48, size=30)])


def words(text):
    return sorted("a" if word == "an" else word for word in text.split())


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_does_what_its_name_says(change):
    for scene in two_colour_scenes(6):
        before, after = changed_captions(scene, change, np.random.default_rng(0))
        assert before != after
        kept = words(before) == words(after)
        assert kept == (change not in ("a noun replaced", "relation turned round")) or "above" in before + after
        if change == "colours swapped":
            (one, two), nouns = [thing.colour for thing in scene.objects], [thing.noun for thing in scene.objects]
            assert f"{two} {nouns[0]}" in after and f"{one} {nouns[1]}" in after


def test_an_unknown_change_is_refused():
    with pytest.raises(ValueError, match="got 'upside down'"):
        changed_captions(two_colour_scenes(1)[0], "upside down", np.random.default_rng(0))


def test_a_bag_of_words_cannot_tell_what_keeps_its_words(tiny, monkeypatch):
    scenes = [scene for scene in two_colour_scenes(12) if " an " not in f" {scene.caption}"][:4]
    swapped = [changed_captions(scene, "colours swapped", np.random.default_rng(0))[1] for scene in scenes]
    scenes = [scene for scene, text in zip(scenes, swapped, strict=True) if " an " not in f" {text}"]
    monkeypatch.setattr(Explainer, "embed_texts", lambda explainer, texts: bag(texts).round(decimals=6))
    monkeypatch.setattr(Explainer, "embed_images", lambda explainer, images: torch.ones(len(images), 60))
    table = caption_changes(Explainer(tiny), scenes)
    same = table[table["change"].isin(["things in another order", "colours swapped"])]
    assert np.allclose(same["drop"], 0, atol=1e-4) and np.allclose(same["alike"], 1)
    assert not np.allclose(table[table["change"] == "a noun replaced"]["drop"], 0)


def test_who_prefers_the_own_caption_wins(tiny):
    table = caption_changes(Explainer(tiny), two_colour_scenes(3))
    assert len(table) == 3 * len(CHANGES) and (table["wins"] == (table["drop"] > 0)).all()
    assert caption_changes(Explainer(tiny), two_colour_scenes(3)).equals(table)
