"""Pairs are fair, and the answers to them are the model's own."""

import re
from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from gradeclip_utils import Explainer
from gradeclip_utils.scenes import TRAINED_ARTISTS, describe, draw_scene
from gradeclip_utils.scenes.scene import BIG, SMALL, is_withheld_colour, is_withheld_pair
from studies import pairs as study

FEW = 16  # concepts: what these tests draw


def drawn(kind, n=3, **options):
    return study.draw_pairs(kind, n, nouns=FEW, **options)


NUMBERS = {
    kind: (2, 3, 4) if "/" not in kind and kind != "count" else (None,) for kind in study.KINDS
}
EVERY = [(kind, objects) for kind, numbers in NUMBERS.items() for objects in numbers]


@pytest.mark.parametrize(("kind", "objects"), EVERY)
def test_a_pair_differs_in_nothing_but_what_is_asked(kind, objects):
    for pair in drawn(kind, objects=objects):
        first, second = pair.scenes
        assert first.caption != second.caption
        assert first.background == second.background
        first_words = [first.caption[span.start : span.end] for span in pair.words(0)]
        second_words = [second.caption[span.start : span.end] for span in pair.words(1)]
        assert len(first_words) == len(second_words) == len(pair.asked) > 0
        assert without(pair, 0) == without(pair, 1), "the captions differ elsewhere too"
        if kind in study.SWAPPED:
            assert sorted(first_words) == sorted(second_words)
            assert first_words != second_words
            assert bag(first) == bag(second)
        if kind != "count":
            changed = [
                i
                for i, (a, b) in enumerate(zip(first.objects, second.objects, strict=True))
                if a != b
            ]
            assert set(changed) == (set(pair.asked) if "/" not in kind else {0, 1})


def without(pair, side):
    """Caption `side` with a gap for each word that is asked.

    Articles and plurals count as the word's.
    """
    caption = pair.scenes[side].caption
    for span in reversed(pair.words(side)):
        caption = (
            re.sub(
                r"\ban? $",
                "",
                caption[: span.start],
            )
            + "?"
            + caption[span.end :]
        )
    return caption


def bag(scene):
    return Counter(without_articles(scene.caption).split())


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
    for pair in drawn(kind):
        for scene in pair.scenes:
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
            plain = describe(scene.objects, relation)[0]
            assert without_articles(plain) == without_articles(
                re.sub(r"\b(small|big) ", "", scene.caption)
            )


@pytest.mark.parametrize(("kind", "objects"), EVERY)
def test_seen_compositions_were_trained_and_withheld_ones_were_in_neither_image(kind, objects):
    for composition in ("seen", "withheld"):
        for pair in drawn(kind, objects=objects, composition=composition):
            for scene in pair.scenes:
                things = scene.objects
                colours = any(is_withheld_colour(thing.noun, thing.colour) for thing in things)
                pairs = any(is_withheld_pair(a.noun, b.noun) for a, b in combinations(things, 2))
                assert (colours or pairs) == (composition == "withheld")
                assert {thing.artist for thing in scene.objects} <= set(TRAINED_ARTISTS)


def test_nothing_hides_another_thing_and_the_border_cuts_little_wherever_things_stand():
    places = []
    for kind in study.KINDS:
        for pair in drawn(kind, 6):
            for scene in pair.scenes:
                places += [(thing.x, thing.y) for thing in scene.objects]
                for thing in scene.objects:
                    margin = 0.29 * thing.size
                    assert margin <= thing.x <= 96 - margin
                    assert margin <= thing.y <= 96 - margin
                for a, b in combinations(scene.objects, 2):
                    reach = (a.size + b.size) / 2
                    small = min(a.size, b.size)
                    common_width = np.clip(reach - abs(a.x - b.x), 0, small)
                    common_height = np.clip(reach - abs(a.y - b.y), 0, small)
                    assert common_width * common_height <= 0.021 * small**2
    x, y = np.transpose(places)
    cells, *_ = np.histogram2d(x, y, bins=3, range=[[0, 96], [0, 96]])
    fractions = cells / len(places)
    assert (fractions > 0.03).all(), "every ninth of the image has its things"


def test_what_is_asked_stands_in_no_place_of_its_own():
    """Where the things stand does not tell which relation holds, nor which thing is big."""
    for kind in ("left / right", "above / below", "bigger / smaller"):
        for pair in drawn(kind):
            first, second = (
                {(thing.x, thing.y) for thing in scene.objects} for scene in pair.scenes
            )
            assert first == second


def test_pairs_are_the_same_again_and_others_of_another_split():
    names = [scene.caption for scene in drawn("colour")[0].scenes]
    assert names == [scene.caption for scene in drawn("colour")[0].scenes]
    assert names != [scene.caption for scene in drawn("colour", split="test")[0].scenes]


def test_training_scenes_never_meet_the_pairs():
    captions = {draw_scene([0, i]).caption for i in range(50)}
    assert not captions & {
        scene.caption for pair in drawn("swapped colours", 8) for scene in pair.scenes
    }


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
        (image,) = study.images_of(bundled, [scenes[row.side]])
        captions = [scenes[row.side].caption, scenes[1 - row.side].caption]
        similarity = explainer.explain(image, captions).similarity
        assert similarity == pytest.approx([row.similarity, row.other_similarity], abs=1e-5)
        assert row.right == (row.margin > 0)


def test_captions_are_asked_which_image_is_theirs_and_a_pair_is_right_if_all_four_answers_are(
    answers,
):
    for _, rows in answers.groupby("pair"):
        first, second = rows.to_dict("records")
        assert first["right_image"] == (first["similarity"] > second["other_similarity"])
    right = answers.groupby("pair")[["right", "right_image"]].sum().sum(axis=1)
    assert study.all_right(answers).to_dict() == (right == 4).astype(float).to_dict()
