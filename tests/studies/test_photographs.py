"""The studies on photographs, on small folders in exactly the published formats."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import studies.lesson
from gradeclip_utils import load_clip
from gradeclip_utils.datasets import load
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.scenes import arrange, draw_scene
from studies.choices import load_choices
from studies.concreteness import GRAD_ECLIP, LEFT_OUT, read_examples, word_rows
from studies.lesson import Claims
from studies.photographs import (
    choice_rows,
    colour_rows,
    group_scores,
    matching_rows,
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


def test_every_word_of_a_caption_is_scored_by_both_methods(clip, coco):
    rows = word_rows(clip, read_examples(coco, 5, [clip]))
    assert " ".join(rows.loc[rows["caption"] == 1, "word"]) == "the black clock and a yellow banana"
    assert rows["caption"].nunique() == 5 and np.isfinite(rows[[LEFT_OUT, GRAD_ECLIP]]).all(
        axis=None
    )
    assert (rows.groupby("caption")[GRAD_ECLIP].std() > 0).sum() == 5


def test_matching_says_where_each_map_lies_and_whether_maps_and_embeddings_add(
    clip, coco, tmp_path
):
    rows = matching_rows(clip, load(coco), tmp_path / "rows")
    assert list(zip(rows["x"], rows["y"], strict=True)) == SHOWN
    fractions = rows.filter(regex="^[xy]_")
    assert (
        fractions.shape[1] == 8
        and fractions.ge(0).all(axis=None)
        and fractions.le(1).all(axis=None)
    )
    assert rows[["embeddings", "embeddings_other", "maps"]].abs().le(1.0001).sum().tolist() == [
        5,
        5,
        5,
    ]
    assert rows.equals(matching_rows(clip, load(coco), tmp_path / "rows"))


def test_a_colour_word_is_measured_on_the_mask_of_its_noun_beside_an_absent_colour(clip, coco):
    rows = colour_rows(clip, load(coco))
    found = list(zip(rows["key"], rows["colour"], strict=True))
    assert found == [
        ("1/dog", "red"),
        ("2/banana", "yellow"),
        ("2/clock", "black"),
        ("3/dog", "red"),
        ("5/banana", "green"),
    ]
    assert (
        rows[["own", "absent", "area"]].ge(0).all(axis=None)
        and (rows["own"] != rows["absent"]).any()
    )


def test_pixels_of_both_things_belong_to_the_smaller_one(bundled, coco, monkeypatch):
    examples = load(coco)[:2]
    whole = examples[0].mask() | True
    object.__setattr__(examples[0], "load_mask", lambda: whole)
    (row,) = matching_rows(bundled, examples).to_dict("records")
    assert (
        row["x_area"] + row["y_area"] == pytest.approx(1)
        and row["y_area"] == examples[1].mask().mean()
    )
    object.__setattr__(examples[1], "load_mask", lambda: whole)
    assert matching_rows(bundled, examples).empty


def test_a_table_of_ones_own_does_as_well(bundled, tmp_path):
    lines = ["image,caption,concept,mask"]
    for kind in ("images", "masks"):
        (tmp_path / kind / "a").mkdir(parents=True)
    for number, pair in enumerate(SHOWN[:2]):
        scene, said = arrange(list(pair), seed=number), "A {} with a blue {}.".format(*pair)
        scene.image(SIDE).save(tmp_path / f"images/a/{number}.png")
        for name, mask in zip(pair, scene.masks(SIDE), strict=True):
            Image.fromarray(mask).save(tmp_path / f"masks/{number}-{name}.png")
            lines.append(f"a/{number}.png,{said},{name},{number}-{name}.png")
    (tmp_path / "captions.csv").write_text("\n".join(lines))
    examples = load(f"folder:{tmp_path}")
    rows = matching_rows(bundled, examples)
    assert list(zip(rows["x"], rows["y"], strict=True)) == SHOWN[:2]
    assert colour_rows(bundled, examples)["key"].tolist() == [
        "a/0.png (line 3)",
        "a/1.png (line 5)",
    ]
    words = word_rows(bundled, examples)
    assert words.groupby("image")["caption"].nunique().tolist() == [2, 2]


def test_data_without_pairs_or_colours_is_refused_in_a_sentence(bundled):
    with pytest.raises(GradeclipError, match="no image has masks of two concepts"):
        matching_rows(bundled, load("photographs:all"))
    with pytest.raises(GradeclipError, match="gives a colour to a concept"):
        colour_rows(bundled, load("photographs:all"))
    with pytest.raises(GradeclipError, match="no choices"):
        choice_rows(bundled, [])


@pytest.fixture(scope="module")
def choices(tmp_path_factory):
    """Scenes with swapped colours as ColorSwap has its images, and with a false caption as SugarCrepe has its."""
    folder = tmp_path_factory.mktemp("choices")
    (folder / "images").mkdir()
    crepe, swaps = {}, []
    for i in range(4):
        scenes = [draw_scene([5, i, k], n_objects=2, tint=1, plain=True) for k in (0, 1)]
        files = [f"images/{i}{k}.jpg" for k in (0, 1)]
        for scene, file in zip(scenes, files, strict=True):
            scene.image(96).convert("RGB").save(folder / file)
        captions = [scene.caption for scene in scenes]
        crepe[str(i)] = {
            "filename": f"{i}0.jpg",
            "caption": captions[0],
            "negative_caption": "a photo of nothing",
        }
        told = {
            "id": i,
            "image_1": files[0],
            "image_2": files[1],
            "caption_1": captions[0],
            "caption_2": captions[1],
        }
        swaps.append({**told, "caption_source": "human"})
    (folder / "swap_att.json").write_text(json.dumps(crepe))
    (folder / "test.json").write_text(json.dumps(swaps))
    return f"sugar-crepe:{folder / 'swap_att.json'}@{folder / 'images'},colorswap:{folder}"


def test_choices_are_asked_beside_the_captions_alone(clip, choices):
    rows = choice_rows(clip, load_choices(choices.split(",")[0]))
    assert (
        len(rows) == 4
        and set(rows["kind"]) == {"swap_att"}
        and rows["right"].isin([0, 0.5, 1]).all()
    )
    if clip.name == "emoji":  # which knows the true captions of drawn scenes
        assert rows["right"].mean() >= 0.75


def test_the_group_score_asks_both_images_and_both_captions():
    keys = [f"{example}/{image}" for example in "ab" for image in (1, 2)]
    rows = pd.DataFrame(
        {"key": keys, "similarity": [0.3, 0.4, 0.3, 0.4], "wrong": [0.2, 0.1, 0.2, 0.35]}
    )
    assert group_scores(rows).tolist() == [
        1,
        0,
    ]  # in b, the first caption is nearer to the second image


def test_a_lesson_without_photographs_says_what_they_would_show_and_how(bundled, capsys):
    for lesson in ("04", "05"):
        assert show_photographs(Claims(lesson), bundled, "") is None
        assert f"make lesson NOTEBOOK={lesson}" in capsys.readouterr().out


def test_a_lesson_adds_claims_about_photographs_and_keeps_their_rows(
    bundled, coco, choices, tmp_path, monkeypatch
):
    monkeypatch.setattr(studies.lesson, "RESULTS", tmp_path)
    matching, binding = Claims("04"), Claims("05")
    figures = [
        show_photographs(matching, bundled, coco),
        show_photographs(binding, bundled, f"{coco},{choices}"),
    ]
    assert len(matching.table) == 5 and len(binding.table) == 2 + 2 + 3
    assert all(
        claim.startswith("photographs: ")
        for claims in (matching, binding)
        for claim in claims.table["claim"]
    )
    assert all("In photographs" in figure.alt for figure in figures)
    assert len(list(tmp_path.glob("emoji/0[45]/*/rows.jsonl"))) == 4
