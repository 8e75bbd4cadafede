"""Words, parts of speech and phrases of captions."""

import nltk
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradeclip_utils import language
from gradeclip_utils.language import phrases, tagged_words, with_other_nouns
from gradeclip_utils.scenes import concepts, draw_scene
from tests.refusals.cases import refused


def texts(caption):
    return [phrase.text for phrase in phrases(caption)]


@pytest.fixture
def without_nltk_data(monkeypatch):
    """As on a machine where nltk's tagger was never downloaded."""
    monkeypatch.setattr(language, "_has_nltk_tagger", lambda: False)


def test_a_phrase_is_adjectives_numbers_and_nouns_without_the_article():
    caption = "A photo of a red car, two small dogs and her toy train."
    assert texts(caption) == ["photo", "red car", "two small dogs", "toy train"]
    assert [phrase.head for phrase in phrases(caption)] == ["photo", "car", "dogs", "train"]


@settings(deadline=None)  # the taggers take longer the first time, and a busy machine longer still
@given(st.text(max_size=60))
def test_words_and_phrases_stand_where_they_say(caption):
    for part in [*tagged_words(caption), *phrases(caption)]:
        assert caption[part.start : part.end] == part.text
    starts = [word.start for word in tagged_words(caption)]
    assert starts == sorted(starts)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a dove tagged peace and something tagged fruit", ["dove", "peace", "fruit"]),
        (
            "a car to the left of a dog to the right of a cat on top of a box",
            ["car", "dog", "cat", "box"],
        ),
        ("a parked car", ["parked car"]),
        ("a man riding horses", ["man", "horses"]),
    ],
)
def test_tags_are_phrases_and_prepositions_and_verbs_are_none(caption, expected):
    assert texts(caption) == expected


def test_every_noun_of_the_world_heads_its_phrase(without_nltk_data):
    missed = [
        (noun, plural)
        for noun, plural in concepts()[["noun", "plural"]].itertuples(index=False)
        if texts(f"a red {noun} and a ball") != [f"red {noun}", "ball"]
        or texts(f"a {noun}, a ball") != [noun, "ball"]
        or (plural and texts(f"two small {plural}") != [f"two small {plural}"])
    ]
    assert not missed


def test_parts_of_speech_of_little_words():
    parts = {
        word.text: word.part
        for word in tagged_words("here is something that isn't a dog, she said.")
    }
    assert (
        parts["is"]
        == parts["something"]
        == parts["that"]
        == parts["a"]
        == parts["she"]
        == "function"
    )
    assert parts[","] == parts["."] == "mark" and parts["dog"] == "noun"


def test_the_head_of_a_group_of_scenes_is_a_noun_of_the_scene(without_nltk_data):
    for seed in range(20):
        scene = draw_scene([95, seed], split="development", plain=True)
        heads = [phrase.head for phrase in phrases(scene.caption)]
        assert heads == [noun for noun, _ in scene.words_of("noun")]


def test_the_tagger_is_nltks_where_its_data_is_and_textblobs_elsewhere(monkeypatch):
    monkeypatch.setattr(nltk, "pos_tag", lambda words: [(word, "NN") for word in words])
    for there, tag in ((True, "NN"), (False, "RB")):
        monkeypatch.setattr(language, "_has_nltk_tagger", lambda there=there: there)
        assert tagged_words("quite unheard-of words")[0].tag == tag


def test_other_nouns_take_the_places_of_a_captions_own_and_nothing_else_changes():
    for other in with_other_nouns("a photo of an owl and two small dogs", 20):
        before, noun, after = other[: len("a photo of an ")], other.split()[4], other.split()[5:]
        assert before == "a photo of an " and noun[0] in "aeiou" and noun != "owl"
        assert (
            after[:3] == ["and", "two", "small"] and after[3].endswith("s") and after[3] != "dogs"
        )
    assert len(set(with_other_nouns("a red car", 20))) > 5
    assert with_other_nouns("a red car", 3, seed=1) == with_other_nouns("a red car", 3, seed=1)


def test_other_nouns_are_those_that_the_model_knows_if_it_knows_any():
    known = frozenset({"a", "red", "car", "ball", "goat"})
    assert set(with_other_nouns("a red car", 20, known=known)) == {"a red ball", "a red goat"}
    assert len(set(with_other_nouns("a red car", 20, known=frozenset({"a", "red", "car"})))) > 5
    assert len(with_other_nouns("", 2)) == 2 and all(with_other_nouns("", 2))


def test_every_other_noun_has_a_plural_in_s():
    plurals = {other.split()[1] for other in with_other_nouns("two dogs", 400)}
    true = dict(concepts()[["noun", "plural"]].itertuples(index=False))
    assert len(plurals) > 30 and not plurals & {"fishs", "mouses", "sheeps"}
    assert all(true.get(plural[:-1]) in (None, plural) for plural in plurals)


ASKED = [
    ("phrases of nothing", lambda: phrases(None), "caption must be a text, got None"),
    ("phrases of a list", lambda: phrases(["a dog"]), r"caption must be a text, got \['a dog'\]"),
    ("words of a number", lambda: tagged_words(5), "caption must be a text, got 5"),
    (
        "prompts by a text",
        lambda: with_other_nouns("a dog", "x"),
        "count must be a whole number, got 'x'",
    ),
    (
        "prompts without end",
        lambda: with_other_nouns("a dog", 10**9),
        "count must be at most 10000, got 1000000000",
    ),
]

test_what_is_no_text_is_refused = refused(ASKED)
