"""The model card: its questions are fair, and the figures that are published are the bundled models' own."""

import numpy as np
import pandas as pd
import pytest

from gradeclip_utils.files import data_path
from gradeclip_utils.measures.statistics import interval
from gradeclip_utils.scenes import (
    TRAINED_ARTISTS,
    UNSEEN_ARTIST,
    artists_of,
    concepts,
    draw_scene,
    is_withheld_colour,
    phrase,
)
from gradeclip_utils.scenes.emoji import NOT_MIRRORED
from studies.pointing_game import games, play_true_masks
from training import card

FEW = ["dog", "car", "book"]


def published(model="emoji") -> pd.DataFrame:
    return pd.read_csv(data_path(card.TABLE)).query("model == @model").set_index("figure")


def test_every_drawing_of_a_concept_is_asked_about_once(tiny):
    rows = card.classification(tiny, "development", only=FEW)
    assert sorted(zip(rows["noun"], rows["artist"], strict=True)) == sorted(
        (noun, artist) for noun in FEW for artist in artists_of(noun)
    )
    assert rows["colour"].isna().all() and rows["right"].equals(rows["right_said"])
    assert UNSEEN_ARTIST not in set(card.recognised(tiny, 3)["artist"])


def test_tinted_things_have_colours_that_training_showed_on_them(tiny):
    rows = card.classification(tiny, "development", 4, tinted=True, artists=TRAINED_ARTISTS, only=FEW)
    assert rows.groupby("noun").size().to_dict() == dict.fromkeys(FEW, 4)
    assert not any(map(is_withheld_colour, rows["noun"], rows["colour"])) and set(rows["artist"]) <= {*TRAINED_ARTISTS}


def test_an_answer_is_the_noun_whose_prompt_is_closest(tiny, monkeypatch):
    """Images that are the embeddings of prompts are answered by these prompts, if they are told apart at all."""
    nouns = list(concepts().index)

    def seen(explainer, scenes):
        return explainer.embed_texts([phrase(scene.objects[0].noun) for scene in scenes])

    monkeypatch.setattr(card, "embed_scenes", seen)
    assert card.classification(tiny, "development", only=nouns[:5])["right"].all()
    monkeypatch.setattr(
        card, "embed_scenes", lambda explainer, scenes: explainer.embed_texts([phrase(nouns[7])] * len(scenes))
    )
    assert not card.classification(tiny, "development", only=nouns[:5])["right"].any()


def test_a_single_thing_is_drawn_as_a_random_scene_draws_its_one_thing():
    for i in range(30):
        noun = "book" if i % 2 else "dog"
        own, like = (
            card.single(noun, "twemoji", [i], "test").objects[0],
            draw_scene([i], split="test", n_objects=1, tint=0).objects[0],
        )
        assert (own.x, own.y, own.size, own.tilt) == (like.x, like.y, like.size, like.tilt)
        assert own.mirrored == (like.mirrored and noun not in NOT_MIRRORED)


def test_a_figure_says_what_it_is_how_sure_it_is_and_what_guessing_scores(tiny, monkeypatch):
    for few, n in (("GAMES", 3), ("CAPTIONS", 6), ("PAIRS", 3)):
        monkeypatch.setattr(card, few, n)
    rows = card.figures(tiny, "development", ("maps", "words", "attributes"))
    assert rows["figure"].is_unique and (rows["low"] <= rows["value"]).all() and (rows["value"] <= rows["high"]).all()
    for k in (1, 2, 3):
        parts = rows[rows["figure"].str.startswith(f'"a X", {k} thing') & rows["figure"].str.contains("relevance")]
        assert (
            len(parts) == 3 and parts["value"].sum() == pytest.approx(1) and parts["chance"].sum() == pytest.approx(1)
        )
    assert set(rows[rows["figure"].str.contains("above zero")]["n"]) <= set(range(7))


def test_whoever_guesses_among_256_captions_is_hardly_ever_right(tiny):
    right = card.caption_among_256(tiny, "development", 2)
    assert len(right) == 512 and np.mean(right) < 0.05


def test_figures_of_one_model_stand_beside_those_of_another_on_the_same_split(tmp_path):
    (tmp_path / "README.md").write_text(f"before\n{card.START}\nold\n{card.END}\nafter\n")
    low, high = interval([True, False])
    row = {"figure": "one", "value": 0.5, "low": low, "high": high, "n": 2, "chance": np.nan}
    for model, split in (("emoji-bag", "test"), ("emoji", "test"), ("emoji-fine", "development")):
        card.write(pd.DataFrame([{**row, "model": model, "split": split}]), tmp_path)
        if model == "emoji":
            written = (tmp_path / "README.md").read_text()
    assert "| figure | `emoji` | `emoji-bag` | aim | n | chance |" in written and written.endswith("after\n")
    assert f"| one | 0.500 [{low:.3f}, {high:.3f}] | 0.500 [{low:.3f}, {high:.3f}] |  | 2 |  |" in written
    assert list(pd.read_csv(tmp_path / card.TABLE)["model"]) == ["emoji-fine"], "another split begins anew"


def test_the_gallery_shows_every_scene_with_a_map_for_each_thing_that_is_named(tiny, monkeypatch):
    monkeypatch.setattr("training.gallery.SCENES", 4)
    figure = card.gallery(tiny)
    scenes = [draw_scene([90, i], split="test", n_objects=2 + i % 2) for i in range(4)]
    shown = sum(1 + len({s.objects[i].noun for i in range(len(s.objects)) if i not in s.unnamed}) for s in scenes)
    assert len(figure.axes) == shown and figure.get_figwidth() * 100 <= 900
    assert all(scene.caption in figure.alt for scene in scenes)


def test_hardly_an_empty_patch_of_the_gallery_has_half_of_what_the_thing_has_and_with_random_weights_many_have(bundled):
    row = card.figures(bundled, "test", ("gallery",)).iloc[0]
    assert row["value"] >= 0.9 and row["n"] == published().loc[row["figure"], "n"]
    assert row["chance"] < row["low"]
    assert row["value"] == pytest.approx(published().loc[row["figure"], "value"], abs=1.5 / row["n"])


def test_a_true_mask_lies_on_its_thing_as_far_as_patches_can(bundled):
    (one,) = games(1, counts=(1,))
    fine, coarse = (play_true_masks([one], (side, side)).loc[0] for side in (96, 12))
    assert fine["on_thing"] > 0.95 > coarse["on_thing"] > coarse["area"]
    found = pd.DataFrame(card.mask_rows("test")).set_index("figure")
    assert published(card.TRUE_MASK)["value"].to_dict() == pytest.approx(found["value"].to_dict())


def test_the_published_figures_are_the_bundled_models_own(bundled):
    right = card.caption_among_256(bundled, "test", 2)
    assert np.mean(right) == pytest.approx(published().loc["right caption among 256, 2 things", "value"], abs=0.005)


def test_the_card_shows_the_published_figures():
    table = pd.read_csv(data_path(card.TABLE))
    assert set(table["split"]) == {"test"} and {"emoji", "emoji-bag"} <= set(table["model"])
    assert card.as_markdown(table) in data_path("README.md").read_text()
    assert set(card.AIMS) <= set(table["figure"]), "an aim without a figure"


def test_one_model_binds_and_the_other_does_not():
    binds, bag = published(), published("emoji-bag")
    name = "swapped colours told apart, withheld compositions"
    assert bag.loc[name, "high"] < binds.loc[name, "low"]
