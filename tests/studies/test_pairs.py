"""Pairs are fair, and the answers to them are the model's own."""

import re
from itertools import combinations

import numpy as np
import pytest

from gradeclip_utils import Explainer
from gradeclip_utils.scenes import TRAINED_ARTISTS, describe
from gradeclip_utils.scenes.scene import BIG, SMALL
from studies import pairs as study
from tests.scenes import is_trained

FEW = 16  # concepts: what these tests draw


def drawn(kind, n=3, **options):
    return study.draw_pairs(kind, n, nouns=FEW, **options)


def scenes_of(kind, n=3, **options):
    return [scene for pair in drawn(kind, n, **options) for scene in pair.scenes]


@pytest.mark.parametrize("kind", study.KINDS)
def test_a_pair_differs_in_nothing_but_what_is_asked(kind):
    for pair in drawn(kind):
        first, second = pair.scenes
        assert first.caption != second.caption
        assert first.background == second.background
        first_words, first_context = words_and_context(pair, 0)
        second_words, second_context = words_and_context(pair, 1)
        assert len(first_words) == len(second_words) == len(pair.asked) > 0
        assert first_context == second_context, "the captions differ elsewhere too"
        if kind in study.SWAPPED:
            assert sorted(first_words) == sorted(second_words)
            assert first_words != second_words

        if kind != "count":
            objects = zip(first.objects, second.objects, strict=True)
            changed = {i for i, (a, b) in enumerate(objects) if a != b}
            asked_objects = {0, 1} if "/" in kind else set(pair.asked)
            assert changed == asked_objects


def words_and_context(pair, side):
    """The words of caption `side` that are asked, and the caption with a gap for each of them.

    Articles and plurals count as the word's.
    """
    words = []
    context = pair.scenes[side].caption
    for span in reversed(pair.words(side)):
        words.append(context[span.start : span.end])
        before = re.sub(r"\ban? $", "", context[: span.start])
        context = before + "?" + context[span.end :]
    return words, context


def without_articles(caption):
    return re.sub(r"\ban? ", "", caption)


def assert_relation(relation, first, second):
    """What the grammar of captions says of two things."""
    right = first.x - second.x
    down = first.y - second.y
    if relation in ("to the left of", "to the right of"):
        assert abs(right) > 2 * abs(down)
        assert (right > 0) == (relation == "to the right of")
    elif relation in ("above", "below"):
        assert abs(down) > 2 * abs(right)
        assert (down > 0) == (relation == "below")
    elif relation == "bigger than":
        assert first.size > 1.3 * second.size
    else:
        assert relation == "smaller than"
        assert second.size > 1.3 * first.size


@pytest.mark.parametrize("kind", study.KINDS)
def test_every_caption_says_what_its_own_image_shows_and_not_what_the_other_one_does(kind):
    """Re-derived from the objects.

    Colours, sizes, numbers and places, by the grammar of captions.
    """
    for scene in scenes_of(kind):
        relation = next((words for words, _ in scene.words_of("relation")), "")
        if relation:
            assert_relation(relation, *scene.objects[:2])
        for word, members in scene.words_of("size"):
            sizes = [scene.objects[i].size for i in members]
            if word == "big":
                assert min(sizes) >= BIG
            else:
                assert max(sizes) <= SMALL
        for word, members in scene.words_of("colour"):
            assert {scene.objects[i].colour for i in members} == {word}
        for word, members in scene.words_of("count"):
            assert len(members) == {"two": 2, "three": 3}[word]

        plain, _ = describe(scene.objects, relation)
        caption = re.sub(r"\b(small|big) ", "", scene.caption)
        assert without_articles(plain) == without_articles(caption)


@pytest.mark.parametrize("kind", study.KINDS)
def test_seen_compositions_were_trained_and_withheld_ones_were_in_neither_image(kind):
    for scene in scenes_of(kind, composition="seen"):
        assert is_trained(scene.objects)
    for scene in scenes_of(kind, composition="withheld"):
        assert not is_trained(scene.objects)
        assert {thing.artist for thing in scene.objects} <= set(TRAINED_ARTISTS)


def test_nothing_hides_another_thing_and_the_border_cuts_little_wherever_things_stand():
    scenes = []
    for kind in study.KINDS:
        scenes += scenes_of(kind, 6)
    places = []
    for scene in scenes:
        for thing in scene.objects:
            margin = 0.29 * thing.size
            assert margin <= min(thing.x, thing.y)
            assert max(thing.x, thing.y) <= 96 - margin
            places.append((thing.x, thing.y))

        for a, b in combinations(scene.objects, 2):
            distances = np.array([abs(a.x - b.x), abs(a.y - b.y)])
            reach = (a.size + b.size) / 2
            small = min(a.size, b.size)
            overlap = np.clip(reach - distances, 0, small)
            assert overlap.prod() <= 0.021 * small**2

    x, y = np.transpose(places)
    cells, *_ = np.histogram2d(x, y, bins=3, range=[[0, 96], [0, 96]])
    fractions = cells / len(places)
    assert (fractions > 0.03).all(), "every ninth of the image has its things"


def test_what_is_asked_stands_in_no_place_of_its_own():
    """Where the things stand does not tell which relation holds, nor which thing is big."""
    for kind in ("left / right", "above / below", "bigger / smaller"):
        for pair in drawn(kind):
            first, second = pair.scenes
            places = {(thing.x, thing.y) for thing in first.objects}
            assert {(thing.x, thing.y) for thing in second.objects} == places


def test_pairs_are_the_same_again_and_others_of_another_split():
    scenes = scenes_of("colour")
    assert scenes_of("colour") == scenes
    assert scenes_of("colour", split="test") != scenes


@pytest.fixture(scope="module")
def pairs_of_all_kinds():
    return [pair for kind in study.KINDS for pair in drawn(kind, 2)]


@pytest.fixture(scope="module")
def answers(bundled, pairs_of_all_kinds):
    return study.judge(bundled, pairs_of_all_kinds)


def test_whoever_sees_no_image_is_right_on_exactly_one_side_of_every_pair(answers):
    assert (answers.groupby("pair")["text_only"].sum() == 1).all()


def test_answers_are_the_models_own_similarities(bundled, pairs_of_all_kinds, answers):
    explainer = Explainer(bundled)
    by_name = {pair.name: pair for pair in pairs_of_all_kinds}
    for row in answers.iloc[::5].itertuples():
        scenes = by_name[row.pair].scenes
        scene = scenes[row.side]
        contrast = scenes[1 - row.side]
        (image,) = study.images_of(bundled, [scene])
        explanation = explainer.explain(image, [scene.caption, contrast.caption])
        expected = [row.similarity, row.other_similarity]
        assert explanation.similarity == pytest.approx(expected, abs=1e-5)
        assert row.right == (row.margin > 0)


def test_captions_are_asked_which_image_is_theirs_and_a_pair_is_right_if_all_four_answers_are(
    answers,
):
    expected = {}
    for pair, rows in answers.groupby("pair"):
        first, second = rows.itertuples()
        assert first.right_image == (first.similarity > second.other_similarity)
        questions = rows[["right", "right_image"]]
        expected[pair] = float((questions == 1).all(axis=None))
    assert study.all_right(answers).to_dict() == expected
