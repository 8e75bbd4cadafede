"""The model card: its questions are fair, and the figures that are published are the bundled models' own."""

import numpy as np
import pandas as pd
import pytest

from gradeclip_utils.files import data_path
from gradeclip_utils.measures.statistics import mean_interval
from gradeclip_utils.scenes import UNSEEN_ARTIST, artists_of, concepts, phrase
from studies.pointing_game import games, play_true_masks
from training import card, layers, recognition

FEW = ["dog", "car", "book"]


def published(model="emoji") -> pd.DataFrame:
    return pd.read_csv(data_path(card.TABLE)).query("model == @model").set_index("figure")


def test_every_drawing_of_a_concept_is_asked_about_once(tiny):
    rows = recognition.classification(tiny, "development", only=FEW)
    asked = [(noun, artist) for noun in FEW for artist in artists_of(noun)]
    assert sorted(zip(rows["noun"], rows["artist"], strict=True)) == sorted(asked)
    assert rows["colour"].isna().all() and rows["right"].equals(rows["right_said"])
    assert UNSEEN_ARTIST not in set(recognition.recognised(tiny, 3)["artist"])


def test_an_answer_is_the_noun_whose_prompt_is_closest(tiny, monkeypatch):
    """Images that are the embeddings of prompts are answered by these prompts, if they are told apart at all."""
    nouns = list(concepts().index)

    def seen(explainer, scenes):
        return explainer.embed_texts([phrase(scene.objects[0].noun) for scene in scenes])

    monkeypatch.setattr(recognition, "embed_scenes", seen)
    assert recognition.classification(tiny, "development", only=nouns[:5])["right"].all()
    monkeypatch.setattr(
        recognition,
        "embed_scenes",
        lambda explainer, scenes: explainer.embed_texts([phrase(nouns[7])] * len(scenes)),
    )
    assert not recognition.classification(tiny, "development", only=nouns[:5])["right"].any()


def test_a_figure_says_what_it_is_how_sure_it_is_and_what_guessing_scores(tiny, monkeypatch):
    for few, n in (("GAMES", 3), ("CAPTIONS", 6), ("PAIRS", 3)):
        monkeypatch.setattr(card, few, n)
    rows = card.figures(tiny, "development", ("maps", "words", "attributes", "layers"))
    assert (
        rows["figure"].is_unique
        and (rows["low"] <= rows["value"]).all()
        and (rows["value"] <= rows["high"]).all()
    )
    for k in (1, 2, 3):
        own = rows["figure"].str.match(rf'"a X", {k} things?: relevance')
        parts = rows[own]
        assert len(parts) == 3 and parts[["value", "chance"]].sum().tolist() == pytest.approx(
            [1, 1]
        )
    assert set(rows[rows["figure"].str.contains("above zero")]["n"]) <= set(range(7))


def test_figures_of_one_model_stand_beside_those_of_another_on_the_same_split(tmp_path):
    (tmp_path / "README.md").write_text(
        "before\n<!-- figures: written by python -m training card -->\nold\n<!-- end of figures -->\nafter\n"
    )
    low, high = mean_interval([True, False])
    row = {"figure": "one", "value": 0.5, "low": low, "high": high, "n": 2, "chance": np.nan}
    for model, split in (("emoji-bag", "test"), ("emoji", "test"), ("emoji-plain", "development")):
        card.write(pd.DataFrame([{**row, "model": model, "split": split}]), tmp_path)
        if model == "emoji":
            written = (tmp_path / "README.md").read_text()
    assert "| figure | `emoji` | `emoji-bag` | aim | n | chance |" in written and written.endswith(
        "after\n"
    )
    assert (
        f"| one | 0.500 [{low:.3f}, {high:.3f}] | 0.500 [{low:.3f}, {high:.3f}] |  | 2 |  |"
        in written
    )
    assert list(pd.read_csv(tmp_path / card.TABLE)["model"]) == ["emoji-plain"], (
        "another split begins anew"
    )


def test_a_true_mask_lies_on_its_thing_as_far_as_patches_can(bundled):
    (one,) = games(1, counts=(1,))
    fine, coarse = (play_true_masks([one], (side, side)).loc[0] for side in (96, 12))
    assert fine["on_thing"] > 0.95 > coarse["on_thing"] > coarse["area"]
    found = pd.DataFrame(card.mask_rows("test")).set_index("figure")
    assert published(card.TRUE_MASK)["value"].to_dict() == pytest.approx(found["value"].to_dict())


def test_the_card_shows_the_published_figures():
    table = pd.read_csv(data_path(card.TABLE))
    assert set(table["split"]) == {"test"} and {"emoji", "emoji-bag"} <= set(table["model"])
    assert card.as_markdown(table) in data_path("README.md").read_text()
    assert set(card.AIMS) <= set(table["figure"]), "an aim without a figure"


def test_the_fewest_layers_are_chosen_that_come_within_the_margin_in_both_measures():
    def table(on_x, hits):
        rows = [
            (n, name, value)
            for n in (1, 2, 4)
            for name, value in (("relevance on X", on_x[n]), ("maximum on X", hits[n]))
        ]
        return pd.DataFrame(rows, columns=["layers", "measure", "mean"])

    assert layers.fewest(table({1: 0.61, 2: 0.81, 4: 0.75}, {1: 0.71, 2: 0.90, 4: 0.92})) == 2
    assert layers.fewest(table({1: 0.45, 2: 0.55, 4: 0.55}, {1: 0.51, 2: 0.68, 4: 0.78})) == 4
    assert layers.fewest(table({1: 0.80, 2: 0.81, 4: 0.75}, {1: 0.88, 2: 0.90, 4: 0.92})) == 1


def test_by_chance_a_map_lies_on_nothing_as_much_as_no_thing_covers():
    areas = pd.DataFrame(
        {"image": [*"aabba"], "objects": [2, 2, 2, 2, 1], "area": [0.1, 0.2, 0.3, 0.4, 0.1]}
    )
    found = areas.assign(question="prompt", on_thing=0.5, on_others=0.2, on_nothing=0.3, hit=1.0)
    chance = layers.located_means(found).set_index(["objects", "measure"])["chance"]
    assert chance[2, "relevance on nothing"] == pytest.approx((0.7 + 0.3) / 2)
    assert (
        chance[2, "relevance on other things"] == chance[2, "relevance on X"] == pytest.approx(0.25)
    )
    assert (
        chance[1, "relevance on nothing"] == pytest.approx(0.9)
        and chance[1, "relevance on other things"] == 0
    )
