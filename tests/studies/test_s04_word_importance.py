"""Word importance: captions with one false word, and the scores of words."""

from itertools import islice

import numpy as np
import pytest

from gradeclip_utils import Explainer
from studies.drawn import two_coloured
from studies.matching import word_kinds
from studies.s04_word_importance import false_captions, tagged_scenes, word_scores


def test_a_false_caption_differs_in_one_word_that_is_not_in_the_scene():
    captions = false_captions(9)
    assert list(captions["kind"]) == ["noun", "colour"] * 9
    for false in captions.itertuples():
        true_words = np.array(false.scene.caption.split())
        false_words = np.array(false.caption.split())
        (changed,) = np.nonzero(true_words != false_words)
        assert false.place in changed
        true_word = true_words[false.place]
        assert set(true_words[changed]) <= {true_word, "a", "an"}

        assert word_kinds(false.scene)[false.place] == false.kind
        false_word = false_words[false.place]
        for thing in false.scene.objects:
            assert false_word not in (thing.noun, thing.colour)


def test_scores_by_a_method_are_those_of_an_explanation(bundled):
    scenes = two_coloured(2)
    table = word_scores(bundled, scenes, ["game", "leave-one-out"])
    explainer = Explainer(bundled, words="game")
    embeddings = explainer.embed_images([scene.image(96) for scene in scenes])
    words = explainer.score_words([scene.caption for scene in scenes], embeddings)
    for number, expected in enumerate(words):
        of_caption = table[table["caption"] == number]
        assert list(of_caption["word"]) == [word.text for word in expected]
        assert list(of_caption["kind"]) == word_kinds(scenes[number])
        assert list(of_caption["game"]) == pytest.approx([w.score for w in expected], abs=1e-6)


def test_scores_of_a_caption_beside_another_image_differ_from_those_beside_its_own(bundled):
    scenes = two_coloured(2)
    own = word_scores(bundled, scenes, ["leave-one-out"])
    other = word_scores(bundled, scenes, ["leave-one-out"], beside=scenes[::-1])
    assert list(own["word"]) == list(other["word"])
    assert (own["leave-one-out"] - other["leave-one-out"]).abs().max() > 0.05


def test_a_tagged_scene_shows_its_thing_alone():
    for thing, hint, scene in islice(tagged_scenes(), 5):
        (only,) = scene.objects
        assert thing.split()[-1] == only.noun.split()[-1]
        assert hint
