"""Choices: readers of published sets of two captions, on tiny files in the published form."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image

from gradeclip_utils.datasets import load
from gradeclip_utils.errors import GradeclipError
from studies.choices import colorswap, load_choices, sugar_crepe


def image(i):
    rng = np.random.default_rng(i)
    return Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))


def test_winoground_asks_each_of_its_two_images(tmp_path):
    entry = {
        "id": 5,
        "image_0": "ex_5_img_0",
        "image_1": "ex_5_img_1",
        "caption_0": "some plants surrounding a bulb",
        "caption_1": "a bulb surrounding some plants",
        "tag": "Scope",
        "collapsed_tag": "Relation",
    }
    (tmp_path / "examples.jsonl").write_text(json.dumps(entry) + "\n")
    (tmp_path / "images").mkdir()
    for i in (0, 1):
        image(i).save(tmp_path / "images" / f"ex_5_img_{i}.png")
    first, second = load_choices(f"winoground:{tmp_path}")
    assert (first.key, first.kind, first.caption) == ("5/0", "Relation", entry["caption_0"])
    assert (second.caption, second.negative) == (first.negative, first.caption)
    assert second.image_key.endswith("ex_5_img_1.png")
    assert first.image_key != second.image_key
    assert second.image() == image(1)
    examples = load(f"winoground:{tmp_path}")
    assert [example.prompt for example in examples] == [first.caption, second.caption]
    assert not any(example.has_mask for example in examples)
    for line, message in (
        ("{", "is not JSON, or is cut short"),
        ("{}", "entry 1 of .* has no image_0"),
    ):
        (tmp_path / "examples.jsonl").write_text(f"{json.dumps(entry)}\n{line}\n")
        with pytest.raises(GradeclipError, match=message):
            load_choices(f"winoground:{tmp_path}")


def test_colorswap_asks_each_of_its_two_images(tmp_path):
    entry = {
        "id": 0,
        "caption_1": "a yellow umbrella and a white dress",
        "image_1": "images/0_1.png",
        "caption_2": "a white umbrella and a yellow dress",
        "image_2": "images/0_2.png",
        "image_source": "midjourney",
        "caption_source": "human",
    }
    (tmp_path / "images").mkdir()
    for i in (1, 2):
        image(i).save(tmp_path / f"images/0_{i}.png")
    for split, number in (("test", 0), ("train", 7)):
        entries = [{**entry, "id": number}]
        (tmp_path / f"{split}.json").write_text(json.dumps(entries))
    first, second = load_choices(f"colorswap:{tmp_path}")
    assert (first.key, first.kind, first.caption) == ("0/1", "human", entry["caption_1"])
    assert (second.caption, second.negative) == (first.negative, first.caption)
    assert second.image() == image(2)
    assert second.image_key.endswith("images/0_2.png")
    assert [choice.key for choice in colorswap(tmp_path, "train")] == ["7/1", "7/2"]
    for record, message in (
        ([{"id": 1}], "entry 0 of .* has no image_1"),
        ([], "holds no examples"),
    ):
        (tmp_path / "test.json").write_text(json.dumps(record))
        with pytest.raises(GradeclipError, match=f"{message}.*github.com/Top34051/colorswap"):
            load_choices(f"colorswap:{tmp_path}")
    with pytest.raises(GradeclipError, match="val.json is missing: get it from .*colorswap"):
        load_choices(f"colorswap:{tmp_path}@val")


def test_aro_asks_about_the_part_of_an_image_that_its_captions_speak_of(tmp_path):
    entry = {
        "image_path": "0.png",
        "bbox_x": 2,
        "bbox_y": 1,
        "bbox_w": 6,
        "bbox_h": 5,
        "relation_name": "behind",
        "true_caption": "the dog is behind the car",
        "false_caption": "the car is behind the dog",
    }
    (tmp_path / "visual_genome_relation.json").write_text(json.dumps([entry]))
    (tmp_path / "images").mkdir()
    image(0).save(tmp_path / "images" / "0.png")
    (choice,) = load_choices(f"aro:{tmp_path}")
    assert (choice.kind, choice.negative) == ("relation: behind", "the car is behind the dog")
    assert choice.image_key == "0.png"  # the whole image's, whichever part is asked about
    assert choice.image() == image(0).crop((2, 1, 8, 6))
    del entry["bbox_w"]
    (tmp_path / "visual_genome_relation.json").write_text(json.dumps([entry]))
    with pytest.raises(GradeclipError, match="entry 0 of .*relation.json has no bbox_w"):
        load_choices(f"aro:{tmp_path}")


@pytest.fixture
def crepes(tmp_path):
    """As the files in data/ of github.com/RAIVNLab/sugar-crepe are.

    One object, numbered entries, one an image.
    """
    swapped = {
        "0": {
            "filename": "000000544519.jpg",
            "caption": "A girl with a green shirt and a blue toothbrush.",
            "negative_caption": "A girl with a blue shirt and a green toothbrush.",
        },
        "1": {
            "filename": "000000072813.jpg",
            "caption": "a dog on a bed ",
            "negative_caption": "a bed on a dog",
        },
    }
    replaced = {
        "7": {
            "filename": "000000544519.jpg",
            "caption": "a girl",
            "negative_caption": "a boy",
        }
    }
    for name, record in (("swap_att", swapped), ("replace_obj", replaced)):
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    return tmp_path


def test_sugar_crepe_is_read_from_one_file_or_from_the_folder_of_all(crepes):
    images = crepes / "val2017"
    images.mkdir()
    Image.new("RGB", (30, 20)).save(images / "000000544519.jpg")
    first, second = sugar_crepe(crepes / "swap_att.json", images)
    assert first.caption.startswith("A girl with a green shirt")
    assert "blue shirt" in first.negative
    assert (first.key, first.kind, second.caption) == ("swap_att/0", "swap_att", "a dog on a bed")
    assert pickle.loads(pickle.dumps(first)).image().size == (30, 20)
    keys = [choice.key for choice in sugar_crepe(crepes, images)]
    assert keys == ["replace_obj/7", "swap_att/0", "swap_att/1"]
    (choice, _) = load_choices(f"sugar-crepe:{crepes / 'swap_att.json'}@{images}")
    assert (choice.kind, choice.image_key) == ("swap_att", "000000544519.jpg")
    message = "say where the images are: sugar-crepe:FILE_OR_FOLDER@IMAGES"
    with pytest.raises(GradeclipError, match=message):
        load_choices(f"sugar-crepe:{crepes}")
    message = "'coco:x' names no data set of choices: say sugar-crepe:"
    with pytest.raises(GradeclipError, match=message):
        load_choices("coco:x")
    with pytest.raises(GradeclipError, match=r"swap_rel.json is missing.*RAIVNLab/sugar-crepe"):
        sugar_crepe(crepes / "swap_rel.json", images)
