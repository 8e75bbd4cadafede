"""The model card: its questions are fair, and published figures are the bundled models' own."""

import numpy as np
import pandas as pd
import pytest

from gradeclip_utils import Explainer
from gradeclip_utils.files import data_path
from gradeclip_utils.scenes import UNSEEN_ARTIST, artists_of, concepts, phrase
from studies.pointing_game import games, play_true_masks, question_maps
from training import card, layers, recognition

FEW = ["dog", "car", "book"]


# ------------------------------------------------------------------------------- recognition


def test_every_drawing_of_a_concept_is_asked_about_once(tiny):
    rows = recognition.classification(tiny, "development", only=FEW)
    artists = rows.groupby("noun")["artist"].agg(sorted)
    assert artists.to_dict() == {noun: sorted(artists_of(noun)) for noun in FEW}
    assert rows["colour"].isna().all()
    assert rows["right"].equals(rows["right_said"])
    sample = recognition.recognition_sample(tiny, 3)
    assert UNSEEN_ARTIST not in set(sample["artist"])


def test_an_answer_is_the_noun_whose_prompt_is_closest(tiny, monkeypatch):
    """Images that are the embeddings of prompts are answered by these prompts."""
    *nouns, absent = concepts().index[:6]

    def embed_true(explainer, scenes):
        texts = [phrase(scene.objects[0].noun) for scene in scenes]
        return explainer.embed_texts(texts)

    def embed_false(explainer, scenes):
        return explainer.embed_texts([phrase(absent)] * len(scenes))

    for embed, is_right in ((embed_true, True), (embed_false, False)):
        monkeypatch.setattr(recognition, "embed_scenes", embed)
        rows = recognition.classification(tiny, "development", only=nouns)
        assert set(rows["right"]) == {is_right}


# ----------------------------------------------------------------------------------- figures


@pytest.fixture(scope="module")
def figures(bundled):
    """All figures but those that take long, of few scenes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(card, "GAMES", 3)
        patch.setattr(card, "CAPTIONS", 6)
        patch.setattr(card, "PAIRS", 3)
        parts = ("maps", "targets", "words", "attributes", "layers")
        return card.figures(bundled, "development", parts)


def test_a_figure_says_how_sure_it_is_and_every_aim_has_one(figures):
    assert figures["figure"].is_unique
    assert figures["value"].between(figures["low"], figures["high"]).all()
    assert set(card.AIMS) <= set(figures["figure"])


def test_relevance_is_on_the_thing_on_others_or_on_nothing_and_so_is_chance(figures):
    for n in (1, 2, 3):
        is_part = figures["figure"].str.match(rf'"a X", {n} things?: relevance')
        parts = figures.loc[is_part, ["value", "chance"]]
        assert len(parts) == 3
        assert parts.sum().tolist() == pytest.approx([1, 1])


def average_precision(heat, mask):
    """The mean, over the pixels of a thing, of the precision where its pixel is reached."""
    order = np.argsort(-heat.ravel(), kind="stable")
    hits = mask.ravel()[order]
    selected = np.arange(1, hits.size + 1)
    precision = hits.cumsum() / selected
    return precision[hits].mean()


def test_the_lead_has_the_map_of_the_prompt_less_that_of_the_mean_null_caption(
    bundled, monkeypatch
):
    monkeypatch.setattr(card, "GAMES", 2)
    explainer = Explainer(bundled)
    nulls = explainer.embed_texts(explainer.null_captions)
    null_mean = nulls.mean(0)
    expected = []
    for game in games(2, split="development", counts=(2,)):
        scene = game.scene
        texts = [phrase(thing.noun) for thing in scene.objects]
        leads = explainer.embed_texts(texts) - null_mean
        heats = question_maps(explainer, [scene], {"lead": leads[None]})
        for heat, mask in zip(heats["lead"][0], scene.masks(96), strict=True):
            expected.append(average_precision(heat, mask))

    rows = pd.DataFrame(card.target_rows(bundled, "development"))
    values = rows.set_index("figure")["value"]
    precision = values['"a X", 2 things: average precision of the lead over other captions']
    assert precision == pytest.approx(np.mean(expected), abs=0.01)


def test_a_true_mask_lies_on_its_thing_as_far_as_patches_can():
    scenes = games(1, counts=(1,))
    fine = play_true_masks(scenes, (96, 96)).loc[0]
    coarse = play_true_masks(scenes, (12, 12)).loc[0]
    assert fine["on_thing"] > 0.95 > coarse["on_thing"] > coarse["area"]


def test_by_chance_a_map_lies_on_nothing_as_much_as_no_thing_covers():
    answers = pd.DataFrame(
        {
            "image": [*"aabba"],
            "objects": [2, 2, 2, 2, 1],
            "area": [0.1, 0.2, 0.3, 0.4, 0.1],
            "question": "prompt",
            "on_thing": 0.5,
            "on_others": 0.2,
            "on_nothing": 0.3,
            "hit": 1.0,
        }
    )
    table = layers.located_means(answers)
    chance = table.pivot(index="objects", columns="measure", values="chance")
    parts = chance[["relevance on X", "relevance on other things", "relevance on nothing"]]
    assert parts.loc[2].tolist() == pytest.approx([0.25, 0.25, 0.5])
    assert parts.loc[1].tolist() == pytest.approx([0.1, 0, 0.9])


@pytest.mark.parametrize(
    ("relevance", "maximum", "expected"),
    [
        ((0.61, 0.81, 0.75), (0.71, 0.91, 0.92), 2),
        ((0.45, 0.55, 0.55), (0.51, 0.68, 0.78), 4),
        ((0.80, 0.81, 0.75), (0.91, 0.90, 0.92), 1),
    ],
)
def test_the_fewest_layers_come_within_the_margin_in_both_measures(relevance, maximum, expected):
    rows = []
    for measure, means in (("relevance on X", relevance), ("maximum on X", maximum)):
        for n, mean in zip((1, 2, 4), means, strict=True):
            rows.append({"layers": n, "measure": measure, "mean": mean})
    table = pd.DataFrame(rows)
    assert layers.fewest(table) == expected


# ---------------------------------------------------------------------------------- the card


def test_figures_of_models_stand_side_by_side_few_in_sight_and_the_others_folded(tmp_path):
    begin = "<!-- figures: written by python -m training card -->"
    card_file = tmp_path / "README.md"
    card_file.write_text(f"before\n{begin}\nold\n<!-- end of figures -->\nafter\n")
    figure = card.SHOWN[0]
    rows = pd.DataFrame({"figure": [figure, "another"], "value": 0.5, "low": 0.25, "high": 0.75})
    rows = rows.assign(n=2, chance=np.nan, split="test")

    for model in ("emoji-bag", "emoji"):
        card.write(rows.assign(model=model), tmp_path)
    in_sight, _, folded = card_file.read_text().partition("<details>")
    assert "| figure | `emoji` | `emoji-bag` | n | chance | aim |" in in_sight
    cell = "0.50 [0.25, 0.75]"
    assert f"| {figure} | {cell} | {cell} | 2 |  |  |" in in_sight
    cell = "0.500 [0.250, 0.750]"
    assert f"| another | {cell} | {cell} | 2 |  |  |" in folded
    assert folded.endswith("after\n")

    card.write(rows.assign(model="emoji-aided", split="development"), tmp_path)
    table = pd.read_csv(tmp_path / card.TABLE)
    assert set(table["model"]) == {"emoji-aided"}, "another split begins anew"


def test_the_card_shows_the_published_figures():
    table = pd.read_csv(data_path(card.TABLE))
    assert set(table["split"]) == {"test"}
    assert {"emoji", "emoji-bag"} <= set(table["model"])
    assert card.as_markdown(table) in data_path("README.md").read_text()
