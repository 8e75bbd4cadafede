"""Replacing words: which words stand in for a word, and what the similarity then loses."""

import re

import numpy as np
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
    replaced = replaced_prompts(prompt, spans_of(prompt), **options)[index]
    return [other.split()[index] for other in replaced]


@pytest.mark.parametrize(
    ("prompt", "index", "others"),
    [
        (PROMPT, 0, {"the"}),
        (PROMPT, 3, {"or"}),
        ("the dog", 0, {"a"}),
        ("a photo of two dogs", 2, set()),
        ("a photo of two dogs", 3, set("three four five six seven eight nine ten".split())),
        ("a dog to the left of a cat", 4, set("right top bottom front back".split())),
    ],
)
def test_a_word_of_a_small_class_is_replaced_within_it_or_not_at_all(prompt, index, others):
    assert set(words_at(prompt, index)) == others


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
    known = frozenset({"cat", "horse", "green"})
    assert words_at(PROMPT, 2, vocabulary=known) == ["cat", "horse"]
    first = words_at(PROMPT, 2, count=5)
    again = words_at(PROMPT, 2, count=5)
    other = words_at(PROMPT, 2, count=5, seed=1)
    assert len(first) == 5
    assert first == again
    assert first != other


def test_the_score_is_the_mean_fall_of_the_similarity(tiny, picture):
    explainer = Explainer(tiny, method="replace", seed=3)
    words = explainer.explain(picture, PROMPT).words[0]
    prompts_of_words = replaced_prompts(PROMPT, spans_of(PROMPT), seed=3)
    for word, prompts in zip(words, prompts_of_words, strict=True):
        whole, *replaced = plain.similarities(tiny, picture, [PROMPT, *prompts])
        falls = [whole - similarity for similarity in replaced]
        np.testing.assert_allclose(word.score, np.mean(falls), atol=1e-6)


def test_a_word_without_others_has_the_score_zero(tiny, picture):
    explainer = Explainer(tiny, method="replace")
    words = explainer.explain(picture, "a photo of two dogs!").words[0]
    without_others = [word.text for word in words if word.score == 0]
    assert without_others == ["of", "!"]


def test_all_falls_of_a_word_are_at_hand(tiny):
    options = prompt_options(tiny, [PROMPT, "a dog"])
    tower = open_text_tower(tiny.model)
    with torch.no_grad():
        trace = tower.trace(tiny.tokenizer([PROMPT, "a dog"]))
        falls_of_prompts = replacement_falls(tower, trace, directions(2, 3), options)
    counts = []
    for falls_of_words in falls_of_prompts:
        counts.append([falls.shape[1] for falls in falls_of_words])
    assert counts == [[1, 8, 16, 1, 1, 8, 16], [1, 16]]
    for falls in falls_of_prompts[0]:
        assert len(falls) == 3
