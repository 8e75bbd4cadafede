"""The model card: its questions are fair, and the figures that are published are the bundled model's own."""

import re

import pandas as pd
import pytest

from gradeclip_utils.files import data_path
from gradeclip_utils.scenes import concepts, is_trained, is_withheld_colour, is_withheld_pair, withheld_artist
from gradeclip_utils.training import card


def published() -> pd.DataFrame:
    return pd.read_csv(data_path("figures.csv")).set_index("figure")


def test_swapped_colours_differ_in_nothing_but_the_colours():
    for scene, right, wrong in card._swapped_colours("development", True, 20):
        first, second = scene.objects
        assert first.colour != second.colour and is_trained(scene)
        assert sorted(right.split()) == sorted(wrong.split()) or "an" in right.split() + wrong.split()
        assert right.replace(first.colour, "?").replace(second.colour, "?").replace("an ?", "a ?") == wrong.replace(
            first.colour, "?"
        ).replace(second.colour, "?").replace("an ?", "a ?")
        assert not any(is_withheld_colour(a.noun, b.colour) for a in scene.objects for b in scene.objects)


def test_withheld_compositions_were_never_trained_but_their_drawings_were():
    for scene, _, _ in card._swapped_colours("development", False, 10):
        assert any(is_withheld_colour(t.noun, t.colour) for t in scene.objects)
        assert not any(withheld_artist(t.noun) == t.artist for t in scene.objects)
        assert not is_withheld_pair(*(t.noun for t in scene.objects))


OPPOSITES = [("to the left of", "to the right of"), ("above", "below"), ("bigger than", "smaller than")]


@pytest.mark.parametrize("words", OPPOSITES)
def test_relations_are_asked_with_the_opposite_relation(words):
    triples = card._relation("development", words, 20)
    assert len(triples) == 20
    for _, right, wrong in triples:
        said = words[words[1] in right]
        assert wrong == right.replace(said, words[1 - words.index(said)])


def test_numbers_are_asked_with_the_other_number():
    for scene, right, wrong in card._counts("development", 6):
        assert len({t.noun for t in scene.objects}) == 1
        assert {right.split()[0], wrong.split()[0]} == {"two", "three"}
        assert right.split()[1:] == wrong.split()[1:]


def test_guessing_is_right_half_of_the_time(tiny):
    """A model with random weights prefers neither caption: the questions cannot be answered from the text alone."""
    right = card.chosen(tiny, card._swapped_colours("development", True, 60))
    assert 0.3 < sum(right) / 60 < 0.7


def test_the_published_figures_are_the_bundled_models_own(bundled):
    right = card.chosen(bundled, card._relation("test", ("bigger than", "smaller than"), 400))
    assert sum(right) / 400 == pytest.approx(published().loc["bigger / smaller", "fraction"], abs=0.005)


def test_the_card_shows_the_published_figures():
    table = pd.read_csv(data_path("figures.csv"))
    assert card.as_markdown(table) in data_path("README.md").read_text()


def test_the_bundled_model_recognises_what_the_lessons_show():
    share = published()["fraction"]
    assert share["top-1, one untinted object, trained drawings"] >= 0.93
    assert share["right caption among 256, objects: 2"] >= 0.95
    assert share["swapped colours told apart, trained compositions"] >= 0.93


def test_words_of_a_caption_point_at_their_own_objects_where_whole_captions_cannot():
    share = published()["fraction"]
    for objects, wanted in ((2, 0.95), (3, 0.85), (4, 0.8)):
        name = f"points at its own object, objects: {objects}, "
        assert share[name + "word x region, centred, two image layers"] >= wanted
        assert share[name + "caption"] <= 1 / objects + 1e-9 < share[name + "word x region"]


def test_pointing_is_reported_for_every_question_and_number_of_objects(bundled):
    table = card.pointing(bundled, "development", 2)
    assert list(table) == list(published().reset_index()) and table["figure"].is_unique
    assert set(table["figure"]) == {name for name in published().index if name.startswith("points")}
    assert (table["chance"] == 0.25).all() and (table["n"] == 2).all()


def test_what_is_removed_is_what_the_model_hardly_recognises(bundled):
    """The rule, on the concepts that are removed and as many others: measuring all of them takes a minute."""
    every, kept = concepts(removed=True), concepts()
    assert 0 < len(every) - len(kept) <= 0.05 * len(every)
    some = pd.concat([every.drop(kept.index), kept.iloc[::40]])
    right = card.classification(bundled, "development", 2, tints=(False,), removed=True, only=list(some.index))
    recall = right[~right["withheld_drawing"]].groupby("noun")["right"].mean()
    removed = recall[recall.index.isin(every.index.difference(kept.index))]
    assert removed.mean() <= card.WELL_ENOUGH < recall.drop(removed.index).mean()


def test_the_card_names_what_is_removed():
    every, kept = concepts(removed=True), concepts()
    said = re.search(r"\*\*(\d+) of (\d+)\*\*.*?, which are (.*?)\.", data_path("README.md").read_text(), re.DOTALL)
    assert (int(said[1]), int(said[2])) == (len(every) - len(kept), len(every))
    assert set(re.split(r",\s+|\s+and\s+", said[3])) == set(every.index.difference(kept.index))


def test_removing_marks_these_concepts_and_no_others(tmp_path):
    path = tmp_path / "concepts.csv"
    concepts(removed=True).assign(keywords="").to_csv(path, index=False)
    card.remove(["dog", "owl"], path)
    table = pd.read_csv(path, keep_default_na=False)
    assert set(table[table["removed"] != ""]["noun"]) == {"dog", "owl"} and len(table) == len(concepts(removed=True))
