"""Lesson 07: captions, two scores of every word, and ratings of words."""

from collections import Counter
from itertools import permutations

import numpy as np
import pytest

from gradeclip_utils import Explainer
from gradeclip_utils.scenes import concepts, draw_scene
from studies import s07_word_concreteness as study
from tests.studies.folders import write_coco_captions

SAID = ["A man riding a wave.", "a red bus, parked", "An idea of freedom"]


@pytest.fixture(scope="module")
def examples(tiny, tmp_path_factory):
    """Three images with two captions each, in the form of COCO."""
    folder = tmp_path_factory.mktemp("coco")
    captions = [[text, text] for text in SAID]
    return study.read_examples(f"coco:{write_coco_captions(folder, captions)}", 3, tiny)


@pytest.fixture(scope="module")
def rows(tiny, examples):
    return study.word_rows(tiny, examples)


def test_shapley_values_are_means_over_all_orders_of_adding_words():
    values = dict(enumerate(np.random.default_rng(0).normal(size=8)))
    gains = np.zeros((6, 3))
    for number, order in enumerate(permutations(range(3))):
        part = 0
        for word in order:
            gains[number, word] = values[part + 2**word] - values[part]
            part += 2**word
    assert study._shapley(values, 3) == pytest.approx(gains.mean(axis=0))


def test_scores_of_leaving_out_are_those_of_the_explainer(tiny, examples, rows):
    explainer = Explainer(tiny, method="leave-one-out")
    example = examples[4]  # a caption without marks
    expected = [word.score for word in explainer.explain(example.image(), example.caption).words[0]]
    first = rows[rows["caption"] == 4]
    assert first["left_out"].tolist() == pytest.approx(expected, abs=1e-4)


def test_shapley_values_of_a_caption_add_up_to_its_similarity_less_that_of_nothing(
    tiny, examples, rows
):
    explainer = Explainer(tiny)
    (image,) = explainer.embed_images([examples[4].image()])
    whole, nothing = (explainer.embed_texts([examples[4].caption, ""]) @ image).tolist()
    total = rows[rows["caption"] == 4]["shapley"].sum()
    assert total == pytest.approx(whole - nothing, abs=1e-4)


def test_captions_of_an_image_share_its_number_and_marks_are_no_words(rows):
    assert rows.groupby("caption")["image"].first().tolist() == [0, 0, 1, 1, 2, 2]
    assert rows[rows["caption"] == 2]["word"].tolist() == ["a", "red", "bus", "parked"]


def test_groups_of_photographs_captions_are_parts_of_speech(rows):
    facts = study.word_facts("coco:x", rows)
    assert facts.loc["bus", "group"] == "noun"
    assert "of" not in facts.index


def test_norms_are_the_published_ratings_of_the_word_as_it_is_written():
    table = study.norms(["apple", "idea", "apples", "xyzzy"])
    assert list(table.index) == ["apple", "idea", "apples", "xyzzy"]
    assert table.loc["apple", "concreteness"] == 5.0
    assert table.loc["idea", "concreteness"] < 2
    unknown = table.loc["xyzzy"]
    assert np.isnan(unknown["concreteness"])
    assert unknown["frequency"] == 0
    assert table["frequency"]["apple"] > table["frequency"]["apples"]


def test_drawn_captions_are_true_and_say_hints_of_a_thing_equally_often():
    keywords = concepts()["keywords"]
    examples = study.captioned_scenes(60, captions_per_image=3)
    uses = Counter()
    for example in examples:
        possible = set().union(*keywords[list(example.present)])
        words = example.caption.replace(",", "")
        _, *tags = words.split("tagged ")
        for tag in tags:
            hint, *_ = tag.split()
            assert hint in possible
            uses[hint] += 1
    assert max(uses.values()) < 12

    image_numbers = study.image_numbers(examples)
    assert (len(image_numbers), len(set(image_numbers))) == (180, 60)
    again = study.captioned_scenes(60, captions_per_image=3)
    assert [example.caption for example in again] == [example.caption for example in examples]


def test_words_of_the_drawn_world_name_or_hint():
    table = study.drawn_words()
    assert table.index.is_unique
    dove = table.loc["dove"]
    peace = table.loc["peace"]
    assert dove["role"] == study.NAME
    assert peace["role"] == study.HINT
    assert dove["exposure"] > peace["exposure"]
    things_of_peace = sum("peace" in hints for hints in concepts()["keywords"])
    assert dove["drawings"] == 0
    assert peace["drawings"] == pytest.approx(np.log(things_of_peace))


@pytest.mark.slow
def test_exposure_is_how_often_captions_of_training_say_a_word():
    table = study.drawn_words()
    exposures = table.loc[table["role"] == study.HINT, "exposure"]
    uses = 0
    for i in range(300):
        scene = draw_scene([9, i], n_objects=1)
        uses += sum(word in exposures for word, _ in scene.words_of("keyword"))
    expected = 300 * np.exp(exposures).sum()
    assert uses == pytest.approx(expected, rel=0.25)
