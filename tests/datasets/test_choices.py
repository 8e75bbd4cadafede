"""Choices: readers of published sets of two captions, on tiny files in the published form."""

import json

import numpy as np
import pytest
from PIL import Image

from gradeclip_utils.datasets import colorswap, load, load_choices
from gradeclip_utils.errors import GradeclipError


def image(i):
    return Image.fromarray(np.random.default_rng(i).integers(0, 256, (9, 12, 3), dtype=np.uint8))


def test_winoground_asks_each_of_its_two_images(tmp_path):
    entry = {"id": 5, "image_0": "ex_5_img_0", "image_1": "ex_5_img_1", "caption_0": "some plants surrounding a bulb",
             "caption_1": "a bulb surrounding some plants", "tag": "Scope", "collapsed_tag": "Relation"}  # fmt: skip
    (tmp_path / "examples.jsonl").write_text(json.dumps(entry) + "\n")
    (tmp_path / "images").mkdir()
    for i in (0, 1):
        image(i).save(tmp_path / "images" / f"ex_5_img_{i}.png")
    first, second = load_choices(f"winoground:{tmp_path}")
    assert (first.key, first.kind, first.caption) == ("5/0", "Relation", entry["caption_0"])
    assert (second.caption, second.negative) == (first.negative, first.caption)
    assert (first.image_key, second.image_key) == ("ex_5_img_0.png", "ex_5_img_1.png")
    assert (np.asarray(second.image()) == np.asarray(image(1))).all()
    examples = load(f"winoground:{tmp_path}")
    assert [(one.prompt, one.mask()) for one in examples] == [(entry["caption_0"], None), (entry["caption_1"], None)]
    for line, message in (("{", "is not JSON, or is cut short"), ("{}", "entry 1 of .* must have image_0")):
        (tmp_path / "examples.jsonl").write_text(f"{json.dumps(entry)}\n{line}\n")
        with pytest.raises(GradeclipError, match=message):
            load_choices(f"winoground:{tmp_path}")


def test_colorswap_asks_each_of_its_two_images(tmp_path):
    entry = {"id": 0, "caption_1": "a yellow umbrella and a white dress", "image_1": "images/0_1.png",
             "caption_2": "a white umbrella and a yellow dress", "image_2": "images/0_2.png",
             "image_source": "midjourney", "caption_source": "human"}  # fmt: skip
    (tmp_path / "images").mkdir()
    for i in (1, 2):
        image(i).save(tmp_path / f"images/0_{i}.png")
    for split, number in (("test", 0), ("train", 7)):
        (tmp_path / f"{split}.json").write_text(json.dumps([{**entry, "id": number}]))
    first, second = load_choices(f"colorswap:{tmp_path}")
    assert (first.key, first.kind, first.caption) == ("0/1", "human", entry["caption_1"])
    assert (second.caption, second.negative) == (first.negative, first.caption)
    assert (np.asarray(second.image()) == np.asarray(image(2))).all() and second.image_key == "images/0_2.png"
    assert [one.key for one in colorswap(tmp_path, "train")] == ["7/1", "7/2"]
    for record, message in (
        (5, "must hold a list of entries, got 5"),
        ([{"id": 1}], "entry 0 of .* must have image_1, .*, got"),
        ([], "holds no examples"),
    ):
        (tmp_path / "test.json").write_text(json.dumps(record))
        with pytest.raises(GradeclipError, match=f"{message}.*github.com/Top34051/colorswap"):
            load_choices(f"colorswap:{tmp_path}")
    with pytest.raises(GradeclipError, match="val.json is missing: get it from .*colorswap"):
        load_choices(f"colorswap:{tmp_path}@val")


def test_aro_asks_about_the_part_of_an_image_that_its_captions_speak_of(tmp_path):
    entry = {"image_path": "0.png", "bbox_x": 2, "bbox_y": 1, "bbox_w": 6, "bbox_h": 5, "relation_name": "behind",
             "true_caption": "the dog is behind the car", "false_caption": "the car is behind the dog"}  # fmt: skip
    (tmp_path / "visual_genome_relation.json").write_text(json.dumps([entry]))
    (tmp_path / "images").mkdir()
    image(0).save(tmp_path / "images" / "0.png")
    (choice,) = load_choices(f"aro:{tmp_path}")
    assert (choice.kind, choice.negative) == ("relation: behind", "the car is behind the dog")
    assert choice.image_key == "0.png"  # the whole image's, whichever part is asked about
    assert (np.asarray(choice.image()) == np.asarray(image(0))[1:6, 2:8]).all()
    (tmp_path / "visual_genome_relation.json").write_text(json.dumps([{**entry, "bbox_w": None}]))
    with pytest.raises(GradeclipError, match="entry 0 of .*relation.json must have image_path, .*bbox_h, got"):
        load_choices(f"aro:{tmp_path}")
