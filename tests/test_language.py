"""Words, parts of speech and phrases of prompts."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradeclip_utils.language import phrases, tagged_words, with_other_nouns
from gradeclip_utils.scenes import concepts, draw_scene


def texts(prompt):
    return [phrase.text for phrase in phrases(prompt)]


def test_a_phrase_is_adjectives_numbers_and_nouns_without_the_article():
    prompt = "A photo of a red car, two small dogs and her toy train."
    assert texts(prompt) == ["photo", "red car", "two small dogs", "toy train"]
    assert [phrase.head for phrase in phrases(prompt)] == ["photo", "car", "dogs", "train"]


@settings(deadline=None)  # the taggers take longer the first time, and a busy machine longer still
@given(st.text(max_size=60))
def test_words_and_phrases_stand_where_they_say(prompt):
    words = tagged_words(prompt)
    for part in [*words, *phrases(prompt)]:
        assert prompt[part.start : part.end] == part.text
    starts = [word.start for word in words]
    assert starts == sorted(starts)


PHRASES = {
    "a dove tagged peace and something tagged fruit": ["dove", "peace", "fruit"],
    "a car to the left of a dog on top of a box": ["car", "dog", "box"],
    "a cat to the right of a car": ["cat", "car"],
    "a parked car": ["parked car"],
    "a man riding horses": ["man", "horses"],
}


@pytest.mark.parametrize("prompt", PHRASES)
def test_tags_are_phrases_and_prepositions_and_verbs_are_none(prompt):
    assert texts(prompt) == PHRASES[prompt]


def test_every_noun_of_the_world_heads_its_phrase():
    table = concepts()[["noun", "plural"]]
    for noun, plural in table.itertuples(index=False):
        assert texts(f"a red {noun} and a ball") == [f"red {noun}", "ball"]
        assert texts(f"a {noun}, a ball") == [noun, "ball"]
        if plural:
            assert texts(f"two small {plural}") == [f"two small {plural}"]


def test_parts_of_speech_of_little_words():
    words = tagged_words("here is something that isn't a dog, she said.")
    parts = {word.text: word.part for word in words}
    for word in ("is", "something", "that", "a", "she"):
        assert parts[word] == "function"
    assert parts[","] == parts["."] == "mark"
    assert parts["dog"] == "noun"


def test_the_head_of_a_group_of_scenes_is_a_noun_of_the_scene():
    for seed in range(20):
        scene = draw_scene([95, seed], split="development", plain=True)
        heads = [phrase.head for phrase in phrases(scene.caption)]
        assert heads == [noun for noun, _ in scene.words_of("noun")]


def test_other_nouns_take_the_places_of_a_prompts_nouns_and_nothing_else_changes():
    for prompt in with_other_nouns("a photo of an owl and two small dogs", 20):
        *start, first, conjunction, count, size, second = prompt.split()
        assert start == ["a", "photo", "of", "an"]
        assert first[0] in "aeiou"
        assert first != "owl"
        assert (conjunction, count, size) == ("and", "two", "small")
        assert second.endswith("s")
        assert second != "dogs"

    prompts = with_other_nouns("a red car", 20, seed=1)
    assert len(set(prompts)) > 5
    assert with_other_nouns("a red car", 20, seed=1) == prompts


def test_other_nouns_are_those_that_the_model_knows_if_it_knows_any():
    vocabulary = frozenset({"a", "red", "car", "ball", "goat"})
    prompts = with_other_nouns("a red car", 20, known=vocabulary)
    assert set(prompts) == {"a red ball", "a red goat"}
    prompts = with_other_nouns("a red car", 20, known=vocabulary - {"ball", "goat"})
    assert len(set(prompts)) > 5
    assert all(with_other_nouns("", 2))


def test_every_other_noun_has_a_plural_in_s():
    plurals = {prompt.split()[1] for prompt in with_other_nouns("two dogs", 400)}
    world = dict(concepts()[["noun", "plural"]].itertuples(index=False))
    assert len(plurals) > 30
    assert not plurals & {"fishs", "mouses", "sheeps"}
    for plural in plurals:
        assert world.get(plural[:-1], plural) in (None, plural)
