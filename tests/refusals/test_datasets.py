"""Data sets: files of published formats that are missing, damaged or something else."""

import json

import pytest
from PIL import Image

from gradeclip_utils.datasets import coco, coco_captions, load, register_dataset
from gradeclip_utils.errors import GradeclipError
from studies.choices import aro, colorswap, sugar_crepe, winoground
from tests.refusals.cases import named, refused


@pytest.mark.parametrize("read", [coco, coco_captions, winoground, aro, colorswap])
def test_what_is_no_path_is_no_data_set(read):
    for what in (None, 5, ["x"], ""):
        with pytest.raises(GradeclipError, match="must be a path"):
            read(what)


@pytest.mark.parametrize("kind", ["coco", "winoground", "aro", "colorswap", "folder"])
def test_a_place_that_no_data_set_can_have_is_refused(tmp_path, kind):
    (tmp_path / "file").write_text("dear")
    (tmp_path / "folder").mkdir()
    for place in ("x" * 5000, "a\0b", tmp_path / "file", tmp_path / "folder", tmp_path / "nowhere"):
        with pytest.raises(GradeclipError):
            load(f"{kind}:{place}")


IMAGE = {"id": 1, "height": 4, "width": 4, "file_name": "1.jpg"}
DOG = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[0, 0, 2, 0, 2, 2]]}
CATEGORIES = [{"id": 1, "name": "dog"}]
COCO = {"images": [IMAGE], "annotations": [DOG], "categories": CATEGORIES}
SAID = {"images": [IMAGE], "annotations": [{"image_id": 1, "id": 1, "caption": "a dog"}]}
JSON = [
    ("an image without a number", coco, {**COCO, "images": [{}]}, "it lacks 'id'"),
    ("a mask of no image", coco, {**COCO, "annotations": [{}]}, "it lacks 'image_id'"),
    (
        "an unknown category",
        coco,
        {**COCO, "annotations": [{**DOG, "category_id": 9}]},
        "it lacks 9",
    ),
    ("images that are none", coco, {**COCO, "images": None}, "is not a file of COCO annotations"),
    ("images in words", coco, {**COCO, "images": ["x"]}, "is not a file of COCO annotations"),
    (
        "categories by name",
        coco,
        {**COCO, "categories": {"1": "dog"}},
        "is not a file of COCO annotations",
    ),
    ("no captions", coco_captions, {**SAID, "annotations": []}, "holds no examples"),
    ("a caption of no image", coco_captions, {**SAID, "images": []}, "it lacks 1"),
    (
        "a caption in numbers",
        coco_captions,
        {**SAID, "annotations": [{"image_id": 1, "id": 1, "caption": 5}]},
        "not a",
    ),
]


@pytest.mark.parametrize(("read", "record", "message"), named(JSON))
def test_annotations_of_another_form_are_named_with_what_is_wrong(tmp_path, read, record, message):
    name = f"{'captions' if read is coco_captions else 'instances'}_val2017.json"
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / name).write_text(json.dumps(record))
    with pytest.raises(GradeclipError, match=f"{name} .*{message}"):
        read(tmp_path)


@pytest.mark.parametrize(
    "content", [b"[" * 200_000, b"\xff\xfe{", b"", None], ids=["deep", "latin", "empty", "folder"]
)
def test_what_is_no_json_is_named(tmp_path, content):
    for read, name in (
        (coco, "annotations/instances_val2017.json"),
        (colorswap, "test.json"),
        (winoground, "examples.jsonl"),
        (sugar_crepe, "swap.json"),
    ):
        file = tmp_path / read.__name__ / name
        file.parent.mkdir(parents=True)
        file.mkdir() if content is None else file.write_bytes(content)
        with pytest.raises(GradeclipError, match=file.name):
            read(*(file.parents[name.count("/")], tmp_path)[: 1 + (read is sugar_crepe)])


@pytest.mark.parametrize("shape", [[], None, [[1]], ["x"], {"counts": 5, "size": [1]}], ids=repr)
def test_a_segmentation_that_is_none_is_named_by_its_image(tmp_path, shape):
    (tmp_path / "annotations").mkdir()
    record = {**COCO, "annotations": [{**DOG, "segmentation": shape}]}
    (tmp_path / "annotations" / "instances_val2017.json").write_text(json.dumps(record))
    (example,) = coco(tmp_path)
    with pytest.raises(
        GradeclipError, match="val2017.json has an invalid segmentation of dog in image 1"
    ):
        example.mask()


@pytest.mark.parametrize(
    "box", [(0, 0, 0, 5), (0, 0, -3, 5), (0, 0, 1e6, 1e6), (float("nan"), 0, 3, 3), (99, 0, 3, 3)]
)
def test_a_part_that_is_not_in_its_image_is_refused(tmp_path, box):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "images" / "a.png")
    entry = {"image_path": "a.png", "true_caption": "a dog", "false_caption": "a cat"}
    entry |= dict(zip(("bbox_x", "bbox_y", "bbox_w", "bbox_h"), box, strict=True))
    (tmp_path / "visual_genome_relation.json").write_text(json.dumps([entry]))
    (choice,) = aro(tmp_path)
    with pytest.raises(GradeclipError, match=r"a.png has 9 x 9 pixels, and no box .* in them"):
        choice.image()


def test_choices_without_a_caption_and_images_without_a_place_are_refused(tmp_path):
    entry = {"filename": "a.jpg", "caption": "a dog", "negative_caption": " "}
    (tmp_path / "swap.json").write_text(json.dumps({"0": entry}))
    with pytest.raises(GradeclipError, match="entry '0' of .*swap.json must have"):
        sugar_crepe(tmp_path, tmp_path)
    with pytest.raises(GradeclipError, match="images of SugarCrepe must be a path, got None"):
        sugar_crepe(tmp_path, None)
    with pytest.raises(GradeclipError, match="/dev/zero is a pipe or a device, not a file"):
        sugar_crepe("/dev/zero", tmp_path)  # it was read until the memory was full


ASKED = [
    ("a reader that is none", lambda: register_dataset("own", 5), "read must be a function, got 5"),
    (
        "a kind that is a number",
        lambda: register_dataset(5, load),
        "kind of a data set must be a text, got 5",
    ),
    ("no examples", lambda: load(None, 2), "data must be a list, got None"),
]

test_what_names_no_data_set_is_refused = refused(ASKED)
