"""Replacing words: which words stand in for a word, and what the similarity then loses."""

import re

import pytest
import torch

from gradeclip_utils import Explainer
from gradeclip_utils.methods.replacement import replaced_prompts, replacement_falls
from gradeclip_utils.towers import open_text_tower
from tests import plain
from tests.methods.helpers import directions, prompt_options

PROMPT = "a red car and a blue ball"


def spans_of(prompt):
    return [match.span() for match in re.finditer(r"\w+", prompt)]


def words_at(prompt, index, **options):
    """The words that replace word number ``index`` of a prompt."""
    prompts = replaced_prompts(prompt, spans_of(prompt), **options)[index]
    return [replaced.split()[index] for replaced in prompts]


@pytest.mark.parametrize(
    ("prompt", "index", "substitutes"),
    [
        (PROMPT, 0, {"the"}),
        (PROMPT, 3, {"or"}),
        ("the dog", 0, {"a"}),
        ("a photo of two dogs", 2, set()),
        ("a photo of two dogs", 3, set("three four five six seven eight nine ten".split())),
        ("a dog to the left of a cat", 4, set("right top bottom front back".split())),
    ],
)
def test_a_word_of_a_small_class_is_replaced_within_it_or_not_at_all(prompt, index, substitutes):
    assert set(words_at(prompt, index)) == substitutes


def test_content_words_are_replaced_by_words_of_their_kind_that_are_not_in_the_prompt():
    colours = words_at(PROMPT, 1)
    assert {"green", "black"} <= set(colours)
    assert not {"red", "blue", "big"} & set(colours)
    nouns = words_at(PROMPT, 2)
    assert len(nouns) == 16
    assert not {"car", "ball", "red"} & set(nouns)
    for word in words_at("two dogs", 1):
        assert word.endswith("s")
    for word in words_at("a man riding a horse", 2):
        assert word.endswith("ing")


def test_an_article_before_a_word_stays_right():
    for word in words_at("an umbrella", 1):
        assert word.startswith(tuple("aeiou"))
    for word in words_at("a dog", 1):
        assert not word.startswith(tuple("aeiou"))


def test_words_are_among_those_that_the_model_knows_and_drawn_by_the_seed():
    vocabulary = frozenset({"cat", "horse", "green"})
    assert words_at(PROMPT, 2, vocabulary=vocabulary) == ["cat", "horse"]
    nouns = words_at(PROMPT, 2, count=5)
    assert len(nouns) == 5
    assert words_at(PROMPT, 2, count=5) == nouns
    assert words_at(PROMPT, 2, count=5, seed=1) != nouns


def test_the_score_is_the_mean_fall_of_the_similarity(tiny, picture):
    explainer = Explainer(tiny, method="replace", seed=3)
    words = explainer.explain(picture, PROMPT).words[0]
    prompts_of_words = replaced_prompts(PROMPT, spans_of(PROMPT), seed=3)
    for word, prompts in zip(words, prompts_of_words, strict=True):
        similarities = plain.similarities(tiny, picture, [PROMPT, *prompts])
        expected = similarities[0] - similarities[1:].mean()
        assert word.score == pytest.approx(float(expected), abs=1e-6)


def test_a_word_without_substitutes_has_the_score_zero(tiny, picture):
    explainer = Explainer(tiny, method="replace")
    words = explainer.explain(picture, "a photo of two dogs!").words[0]
    texts = [word.text for word in words if word.score == 0]
    assert texts == ["of", "!"]


def test_all_falls_of_a_word_are_at_hand(tiny):
    prompts = [PROMPT, "a dog"]
    tower = open_text_tower(tiny.model)
    with torch.no_grad():
        trace = tower.trace(tiny.tokenizer(prompts))
        of_long, of_short = replacement_falls(
            tower,
            trace,
            directions(2, 3),
            prompt_options(tiny, prompts),
        )
    shapes = [tuple(falls.shape) for falls in of_long]
    assert shapes == [(3, 1), (3, 8), (3, 16), (3, 1), (3, 1), (3, 8), (3, 16)]
    assert [falls.shape[1] for falls in of_short] == [1, 16]
