"""The studies on photographs, on small folders in exactly the published formats."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import studies.photographs
from gradeclip_utils import Explainer, load_clip
from gradeclip_utils.datasets import Example, load
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.scenes import arrange, draw_scene
from studies.__main__ import main as run_lessons
from studies.choices import Choice, load_choices
from studies.lesson import Claims
from studies.photographs import (
    add_claims,
    choice_rows,
    colour_rows,
    group_scores,
    matching_rows,
    read_photographs,
    show_photographs,
)

from .folders import SHOWN, SIDE, write_coco, write_open_clip, write_transformers


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    return f"coco:{write_coco(tmp_path_factory.mktemp('coco'))}"


@pytest.fixture(scope="module", params=[None, write_open_clip, write_transformers])
def clip(request, tmp_path_factory):
    """The bundled model, and small ones of random weights with CLIP's own vocabulary."""
    return load_clip(request.param and str(request.param(tmp_path_factory.mktemp("model"))))


def test_matching_says_where_each_map_lies_and_whether_maps_and_embeddings_add(
    clip, coco, tmp_path
):
    rows = matching_rows(clip, load(coco), tmp_path / "rows")
    assert list(zip(rows["x"], rows["y"], strict=True)) == SHOWN
    fractions = rows.filter(regex="^[xy]_")
    assert fractions.shape == (5, 8)
    assert fractions.ge(0).all(axis=None)
    assert fractions.le(1).all(axis=None)

    correlations = rows[["embeddings", "embeddings_other", "maps"]]
    assert correlations.abs().le(1.0001).all(axis=None)
    assert rows.equals(matching_rows(clip, load(coco), tmp_path / "rows"))


def test_a_colour_word_is_measured_on_the_mask_of_its_noun_beside_an_absent_colour(clip, coco):
    rows = colour_rows(clip, load(coco))
    assert rows.set_index("key")["colour"].to_dict() == {
        "1/dog": "red",
        "2/banana": "yellow",
        "2/clock": "black",
        "3/dog": "red",
        "5/banana": "green",
    }
    assert rows[["own", "absent", "chance"]].ge(0).all(axis=None)
    assert (rows["own"] != rows["absent"]).any()


def test_pixels_of_both_things_belong_to_the_smaller_one(bundled, coco):
    first, second, *_ = load(coco)
    small = second.mask()
    everything = np.ones_like(small)
    first = replace(first, load_mask=lambda: everything)
    (row,) = matching_rows(bundled, [first, second]).itertuples()
    assert row.x_chance + row.y_chance == pytest.approx(1)
    assert row.y_chance == pytest.approx(small.mean())

    second = replace(second, load_mask=lambda: everything)
    assert matching_rows(bundled, [first, second]).empty


# ------------------------------------------------------------------------------------------- chance

WIDE = (192, 96)  # of which a model that crops sees the middle
CAPTION = "a red dog and a blue cat"


def wide_examples(count, outside=False):
    """Wide images with two things in the middle, as photographs have them, or out of sight."""
    rng = np.random.default_rng(0)
    width, height = WIDE
    examples = []
    for number in range(count):
        noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        image = Image.fromarray(noise)
        for noun, top, left in (("dog", 5, 60), ("cat", 50, 100)):
            left = 0 if outside else left + rng.integers(10)
            mask = np.zeros((height, width), bool)
            mask[top : top + 30, left : left + 25] = True
            example = Example(
                key=f"{number}/{noun}",
                prompt=noun,
                concept=noun,
                caption=CAPTION,
                present=("dog", "cat"),
                image=image.copy,
                load_mask=mask.copy,
            )
            examples.append(example)
    return examples


def test_a_constant_map_is_about_equal_to_chance_in_both_lessons(bundled, monkeypatch):
    def constant(_, images, directions):
        return torch.full((1, len(directions), 12, 12), 0.3)

    monkeypatch.setattr(Explainer, "maps", constant)
    for lesson in ("05", "06"):
        claims = Claims(lesson)
        add_claims(claims, bundled, {"folder:mine": wide_examples(8)})
        row = claims.table.iloc[0]
        assert row["claim"].endswith("beyond chance")
        assert row["answer"] == "about equal"
        assert row["estimate"] == pytest.approx(0, abs=1e-6)
        assert row["n"] >= 8


def test_chance_is_the_masks_part_of_what_the_model_saw(bundled):
    examples = wide_examples(3)
    rows = matching_rows(bundled, examples)
    for row, example in zip(rows.itertuples(), examples[::2], strict=True):
        seen = example.mask()[:, 48:144]  # the square in the middle
        assert row.x_chance == pytest.approx(seen.mean(), abs=0.01)


def test_things_that_the_model_did_not_see_are_left_out(bundled):
    examples = wide_examples(2, outside=True)
    assert matching_rows(bundled, examples).empty
    assert colour_rows(bundled, examples).empty


# ---------------------------------------------------------------------------------------- own data


def test_a_table_of_ones_own_does_as_well(bundled, tmp_path):
    lines = ["image,caption,concept,mask"]
    for kind in ("images", "masks"):
        (tmp_path / kind / "a").mkdir(parents=True)
    for number, (first, second) in enumerate(SHOWN[:2]):
        scene = arrange([first, second], seed=number)
        caption = f"A {first} with a blue {second}."
        file = f"a/{number}.png"
        scene.image(SIDE).save(tmp_path / "images" / file)
        for name, mask in zip((first, second), scene.masks(SIDE), strict=True):
            mask_file = f"{number}-{name}.png"
            image = Image.fromarray(mask)
            image.save(tmp_path / "masks" / mask_file)
            lines.append(f"{file},{caption},{name},{mask_file}")
    (tmp_path / "captions.csv").write_text("\n".join(lines))

    examples = load(f"folder:{tmp_path}")
    rows = matching_rows(bundled, examples)
    assert list(zip(rows["x"], rows["y"], strict=True)) == SHOWN[:2]
    rows = colour_rows(bundled, examples)
    assert rows["key"].tolist() == ["a/0.png (row 2)", "a/1.png (row 4)"]


def test_data_without_a_case_are_refused_before_anything_is_measured():
    with pytest.raises(GradeclipError, match="no image has masks of two concepts"):
        read_photographs("05", "photographs:all")
    with pytest.raises(GradeclipError, match="gives a colour to a concept"):
        read_photographs("06", "photographs:all")


def test_a_missing_folder_of_images_is_refused_before_anything_is_measured(choices, tmp_path):
    crepe = choices.partition("@")[0]
    with pytest.raises(GradeclipError, match="01.jpg"):
        read_photographs("06", f"{crepe}@{tmp_path}")


# ------------------------------------------------------------------------------------------ choices


@pytest.fixture(scope="module")
def choices(tmp_path_factory):
    """Scenes with swapped colours, as in ColorSwap, and with a false caption, as in SugarCrepe."""
    folder = tmp_path_factory.mktemp("choices")
    (folder / "images").mkdir()
    crepe = {}
    swaps = []
    for i in range(4):
        swap = {"id": i, "caption_source": "human"}
        for side in (1, 2):
            scene = draw_scene([5, i, side - 1], n_objects=2, tint=1, plain=True)
            swap[f"image_{side}"] = file = f"images/{i}{side}.jpg"
            swap[f"caption_{side}"] = scene.caption
            scene.image(96).convert("RGB").save(folder / file)
        swaps.append(swap)
        crepe[i] = {
            "filename": f"{i}1.jpg",
            "caption": swap["caption_1"],
            "negative_caption": "a photo of nothing",
        }
    (folder / "swap_att.json").write_text(json.dumps(crepe))
    (folder / "test.json").write_text(json.dumps(swaps))
    return f"sugar-crepe:{folder / 'swap_att.json'}@{folder / 'images'},colorswap:{folder}"


def test_choices_are_asked_beside_the_captions_alone(clip, choices):
    rows = choice_rows(clip, load_choices(choices.split(",")[0]))
    assert len(rows) == 4
    assert set(rows["kind"]) == {"swap_att"}
    assert rows["right"].isin([0, 0.5, 1]).all()
    if clip.name == "emoji":  # which knows the true captions of drawn scenes
        assert rows["right"].mean() >= 0.75


def test_an_image_is_embedded_once_however_many_choices_show_it(bundled, choices, monkeypatch):
    first, second, *_ = load_choices(choices.split(",")[0])
    alone = choice_rows(bundled, [first, second])

    embedded = []
    embed_images = Explainer.embed_images

    def counted(explainer, images):
        embedded.append(images)
        return embed_images(explainer, images)

    monkeypatch.setattr(Explainer, "embed_images", counted)
    again = replace(second, key="again")
    rows = choice_rows(bundled, [first, second, again])
    assert len(embedded) == 1 + 2  # the mean of some images, and each image
    of_first, of_second = alone["similarity"]
    assert rows["similarity"].tolist() == [of_first, of_second, of_second]


def test_the_group_score_asks_both_images_and_both_captions():
    rows = pd.DataFrame(
        {
            "key": ["a/1", "a/2", "b/1", "b/2"],
            "similarity": [0.3, 0.4, 0.3, 0.4],
            "wrong": [0.2, 0.1, 0.2, 0.35],
        }
    )
    # in b, the first caption is nearer to the second image
    assert group_scores(rows).tolist() == [1, 0]


def aro_choices(kinds):
    """A choice for each kind of ARO, of images of grey."""
    image = Image.new("RGB", (32, 32), "grey")
    return [
        Choice(
            f"{number}",
            kind,
            "a dog",
            "a cat",
            image.copy,
            f"{number}.jpg",
        )
        for number, kind in enumerate(kinds)
    ]


@pytest.mark.parametrize(
    ("right", "score"),
    [
        ({"relation: behind": [1, 1, 1, 0], "relation: on": [0]}, 0.375),
        ({"relation: behind": [1, 0], "relation: next to": [0] * 9}, 0.5),  # a symmetric relation
        ({"attribution: red_big": [1] * 20 + [0] * 5, "attribution: a_b": [0] * 24}, 0.8),
        ({"attribution: red_big": [1] * 24}, None),
    ],
)
def test_aro_is_scored_as_published_relation_by_relation(right, score, bundled, monkeypatch):
    answers = pd.Series(right).explode()
    kinds = list(answers.index)
    choices = aro_choices(kinds)
    rows = pd.DataFrame(
        {
            "kind": kinds,
            "image": [choice.image_key for choice in choices],
            "right": answers.to_numpy(float),
            "text_only": answers.to_numpy(float),
        }
    )
    monkeypatch.setattr(studies.photographs, "choice_rows", lambda *_: rows)

    claims = Claims("06")
    add_claims(claims, bundled, {"aro:folder": choices})
    row = claims.table.iloc[0]
    test, *_ = kinds[0].split(":")
    assert row["claim"] == f"photographs: aro, {test}: finds its caption"
    if score is None:
        assert np.isnan(row["estimate"])
        assert row["answer"] == "undecided"
    else:
        assert row["estimate"] == pytest.approx(score)
        assert 0 <= row["low"] <= score <= row["high"] <= 1


# ------------------------------------------------------------------------------------------ lessons


def test_a_lesson_without_photographs_says_what_they_would_show_and_how(bundled, capsys):
    for lesson in ("05", "06"):
        data = read_photographs(lesson, "")
        assert show_photographs(Claims(lesson), bundled, data) is None
        assert f"make lesson NOTEBOOK={lesson}" in capsys.readouterr().out


def test_a_lesson_adds_claims_about_photographs_and_keeps_their_rows(
    bundled, coco, choices, results
):
    cases = [
        ("05", coco, 5),
        ("06", f"{coco},{choices}", 2 + 2 + 3),
    ]
    for lesson, source, count in cases:
        claims = Claims(lesson)
        data = read_photographs(lesson, source)
        figure = show_photographs(claims, bundled, data)
        assert "In photographs" in figure.alt
        assert len(claims.table) == count
        assert claims.table["claim"].str.startswith("photographs: ").all()
    assert len(list(results.glob("emoji/0[56]/*/rows.jsonl"))) == 4


def test_few_images_give_undecided_claims(bundled, coco, results):
    claims = Claims("06")
    one_image = [example for example in load(coco) if example.key == "1/dog"]
    figure = show_photographs(claims, bundled, {"coco:one": one_image})
    assert set(claims.table["answer"]) == {"undecided"}
    assert "In photographs" in figure.alt


def test_photographs_are_measured_alone_into_a_table_of_their_own(coco, results, capsys):
    assert run_lessons(["06", "--data", coco, "--n", "0"]) == 0
    table = pd.read_csv(results / "emoji" / "06-photographs.csv", dtype={"lesson": str})
    assert table["lesson"].tolist() == ["06", "06"]
    assert table["claim"].str.startswith("photographs: ").all()
    assert not list(results.rglob("*.ipynb"))
