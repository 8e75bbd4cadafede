"""The studies on photographs, on small folders in exactly the published formats."""

import json

import numpy as np
import open_clip
import pytest
import torch

from gradeclip_utils import load_clip
from gradeclip_utils.datasets import load, load_choices
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.scenes import draw_scene
from studies.photographs import choice_rows, colour_rows, matching_rows

SIDE = 96


def polygon(box):
    x0, y0, x1, y1 = box
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def run_lengths(box):
    """A crowd's mask as COCO keeps it: run lengths of the columns, from zeros."""
    mask = np.zeros((SIDE, SIDE), bool)
    x0, y0, x1, y1 = map(int, box)
    mask[y0:y1, x0:x1] = True
    flat = mask.T.ravel()
    changes = np.flatnonzero(np.diff(np.concatenate([[0], flat.astype(int), [0]])))
    counts = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return {"counts": counts, "size": [SIDE, SIDE]}


@pytest.fixture(scope="module")
def coco_folder(tmp_path_factory):
    """COCO's own layout: annotations/instances_val2017.json, captions_val2017.json and val2017/."""
    folder = tmp_path_factory.mktemp("coco")
    (folder / "annotations").mkdir()
    (folder / "val2017").mkdir()
    images, annotations, captions, names = [], [], [], ["dog", "umbrella"]
    for number in range(1, 5):
        scene = draw_scene([3, number], n_objects=2)
        file = f"{number:012d}.jpg"
        scene.image().convert("RGB").resize((SIDE, SIDE)).save(folder / "val2017" / file)
        images.append({"id": number, "file_name": file, "width": SIDE, "height": SIDE})
        for k, box in enumerate([(5, 5, 40, 40), (50, 50, 90, 90)]):
            crowd = int(k == 1)
            annotations.append(
                {"id": 10 * number + k, "image_id": number, "category_id": k + 1, "iscrowd": crowd, "bbox": [*box],
                 "area": 1000.0, "segmentation": run_lengths(box) if crowd else polygon(box)}
            )  # fmt: skip
        captions.append({"id": number, "image_id": number, "caption": "A red dog and an umbrella. "})
    categories = [{"id": i + 1, "name": name, "supercategory": "thing"} for i, name in enumerate(names)]
    record = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations/instances_val2017.json").write_text(json.dumps(record))
    (folder / "annotations/captions_val2017.json").write_text(json.dumps({"images": images, "annotations": captions}))
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The bundled model, and ViT-B/32 of random weights from files of open_clip and of transformers."""
    folder = tmp_path_factory.mktemp("models")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.create_model("ViT-B-32", pretrained=None).eval()
    torch.save(model.state_dict(), folder / "open_clip.pt")
    return {"bundled": load_clip(), "open_clip": load_clip("ViT-B-32-gelu", pretrained=str(folder / "open_clip.pt"))}


@pytest.mark.parametrize("name", ["bundled", "open_clip"])
def test_matching_says_where_each_map_lies_and_whether_maps_and_embeddings_add(models, coco_folder, name, tmp_path):
    examples = load(f"coco:{coco_folder}")
    rows = matching_rows(models[name], examples, folder=tmp_path / "rows", progress=False)
    assert len(rows) == 4 and set(rows["x"]) | set(rows["y"]) == {"dog", "umbrella"}
    fractions = rows.filter(regex="_(own|other|joint|area|hit)$")
    assert fractions.ge(0).all(axis=None) and fractions.le(1).all(axis=None)
    assert (rows["embeddings"] > rows["embeddings_other"] - 2).all() and rows["maps"].between(-1, 1).all()
    again = matching_rows(models[name], examples, folder=tmp_path / "rows", progress=False)
    assert rows.equals(again)


@pytest.mark.parametrize("name", ["bundled", "open_clip"])
def test_a_colour_word_is_measured_on_the_mask_of_its_noun_beside_an_absent_colour(models, coco_folder, name):
    rows = colour_rows(models[name], load(f"coco:{coco_folder}"), progress=False)
    assert list(rows["concept"]) == ["dog"] * 4 and set(rows["colour"]) == {"red"}
    assert rows[["own", "absent", "area"]].ge(0).all(axis=None) and (rows["own"] != rows["absent"]).any()


def test_data_without_pairs_or_colours_is_refused_in_a_sentence(models):
    with pytest.raises(GradeclipError, match="no image has masks of two concepts"):
        matching_rows(models["bundled"], load("photographs:all"), progress=False)
    with pytest.raises(GradeclipError, match="gives a colour to a concept"):
        colour_rows(models["bundled"], load("photographs:all"), progress=False)


def test_choices_of_sugar_crepe_are_asked_beside_the_captions_alone(models, tmp_path):
    (tmp_path / "images").mkdir()
    entries = {}
    for i in range(4):
        scene = draw_scene([5, i], n_objects=2)
        scene.image().convert("RGB").save(tmp_path / "images" / f"{i}.jpg")
        entries[str(i)] = {"filename": f"{i}.jpg", "caption": scene.caption, "negative_caption": "a photo of nothing"}
    (tmp_path / "swap_att.json").write_text(json.dumps(entries))
    rows = choice_rows(models["bundled"], load_choices(f"sugar-crepe:{tmp_path}@{tmp_path / 'images'}"), progress=False)
    assert len(rows) == 4 and set(rows["kind"]) == {"swap_att"} and rows["right"].isin([0, 0.5, 1]).all()
    assert rows["right"].mean() >= 0.75  # true captions of drawn scenes, which this model knows
