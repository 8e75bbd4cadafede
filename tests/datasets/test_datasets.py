"""Data sets: every loader reads a tiny data set that is written here in the published schema."""

import json
import pickle
import re
import sys

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from gradeclip_utils.datasets import (
    Example,
    captioned_images,
    coco,
    coco_captions,
    from_huggingface,
    load,
    read_captions,
    register_dataset,
    registry,
)
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.files import data_path
from gradeclip_utils.measures import evaluate
from gradeclip_utils.scenes import draw_scene
from tests.studies.folders import NAMES, SAID, SHOWN, SIDE, write_coco

NOISE = np.random.default_rng(0)
PHOTOGRAPHS = data_path("photos")


def picture(height, width):
    return NOISE.integers(0, 256, (height, width, 3), dtype=np.uint8)


def box(height, width, top, left, bottom, right):
    mask = np.zeros((height, width), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def test_scenes_ask_for_something_that_is_there_and_know_exactly_where():
    examples = load("scenes:development:12")
    assert len({example.key for example in examples}) == 12
    for i, example in enumerate(examples):
        scene = draw_scene([50, 0, i], split="development")
        nouns = [thing.noun for thing in scene.objects]
        members = [k for k, noun in enumerate(nouns) if noun == example.concept]
        assert example.caption == scene.caption
        assert set(example.present) == set(nouns)
        mask = example.mask()
        expected = scene.masks()[members].any(axis=0)
        assert np.array_equal(mask, expected)
        assert mask.shape == example.image().size[::-1]

        first_word, *_ = example.prompt.split()
        is_plural = first_word in ("two", "three", "four")
        assert is_plural == (len(members) > 1)
        colour = scene.objects[members[0]].colour
        assert colour is None or colour in example.prompt


def test_scenes_of_another_split_differ_and_examples_can_be_pickled():
    (example,) = load("scenes:development:1")
    copy = pickle.loads(pickle.dumps(example))
    assert copy.key == example.key
    assert np.array_equal(copy.mask(), example.mask())
    (of_training,) = load("scenes:train:1")
    assert of_training.caption != example.caption


def test_a_limit_spreads_over_the_whole_data_set():
    keys = [example.key for example in load("scenes:development:20", limit=3)]
    assert keys == ["development/0", "development/10", "development/19"]
    assert len(load("scenes:development:5", limit=50)) == 5


# -------------------------------------------------------------------------------------- COCO


@pytest.fixture
def coco_folder(tmp_path):
    """Two things an image, a second banana in two parts, and a second caption of image 1."""
    folder = write_coco(tmp_path)
    for kind, annotation in (("instances", SECOND_BANANA), ("captions", EARLIER_CAPTION)):
        file = folder / f"annotations/{kind}_val2017.json"
        record = json.loads(file.read_text())
        record["annotations"].append(annotation)
        file.write_text(json.dumps(record))
    return folder


SECOND_BANANA = {
    "id": 1,
    "image_id": 2,
    "category_id": 1 + NAMES.index("banana"),
    "segmentation": [[20, 3, 28, 3, 28, 9], [15, 12, 18, 12, 18, 18]],
    "iscrowd": 0,
    "area": 1.0,
    "bbox": [0, 0, 1, 1],
}
EARLIER_CAPTION = {"id": 0, "image_id": 1, "caption": "Two dogs. "}


def test_coco_asks_for_every_category_and_joins_its_instances_as_pycocotools_does(coco_folder):
    reference = COCO(coco_folder / "annotations/instances_val2017.json")
    examples = load(f"coco:{coco_folder}")
    keys = []
    for number, pair in enumerate(SHOWN, start=1):
        keys += [f"{number}/{name}" for name in sorted(pair)]
    assert [example.key for example in examples] == keys
    first, *_ = examples
    assert first.prompt == "a photo of a dog."
    assert first.present == ("dog", "umbrella")
    assert first.caption == "Two dogs."  # the first of its image
    for example in examples:
        number, _, name = example.key.partition("/")
        category = reference.getCatIds(catNms=[name])
        ids = reference.getAnnIds(imgIds=[int(number)], catIds=category)
        annotations = reference.loadAnns(ids)
        masks = [reference.annToMask(annotation) for annotation in annotations]
        assert np.array_equal(example.mask(), np.any(masks, axis=0))
        assert example.image().size == (SIDE, SIDE)


def test_coco_captions_need_neither_masks_nor_images(coco_folder):
    for file in (coco_folder / "val2017").iterdir():
        file.unlink()
    (coco_folder / "annotations/instances_val2017.json").unlink()
    examples = coco_captions(coco_folder)
    captions = [example.caption for example in examples]
    assert captions == ["Two dogs.", *(text.strip() for text in SAID)]
    assert [example.concept for example in examples] == ["1", "1", "2", "3", "4", "5"]
    assert not any(example.has_mask for example in examples)


def test_annotations_that_are_missing_or_cut_short_say_where_to_get_them(coco_folder):
    message = "instances_train2017.json is missing.*cocodataset.org"
    with pytest.raises(GradeclipError, match=message):
        load(f"coco:{coco_folder}@train2017")
    file = coco_folder / "annotations/instances_val2017.json"
    file.write_text(file.read_text()[:200])
    with pytest.raises(GradeclipError, match="is not JSON, or is cut short.*cocodataset.org"):
        coco(coco_folder)


def test_a_missing_library_is_named_with_the_way_to_get_it(coco_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(GradeclipError, match=r"needs pycocotools: pip install 'gradeclip\[data\]'"):
        coco(coco_folder)


# ------------------------------------------------------------------------------- own folders


@pytest.fixture
def image_folder(tmp_path):
    """A folder of two images, with a table of three questions and two masks."""
    save(tmp_path / "images/cat.jpg", picture(20, 30))
    save(tmp_path / "images/street.png", picture(10, 10))
    cat = box(20, 30, 1, 2, 8, 9).astype(np.uint8)
    car = box(10, 10, 0, 0, 3, 3).astype(np.uint8)
    save(tmp_path / "masks/a-cat.png", 255 * cat)
    save(tmp_path / "masks/car.png", car)
    table = (
        "image,caption,mask,concept\n"
        "cat.jpg,a cat,a-cat.png,\n"
        'street.png,"a red car, parked",car.png,car\n'
        "street.png,a tree,,tree\n"
    )
    (tmp_path / "captions.csv").write_text(table)
    return tmp_path


def test_a_folder_of_images_has_a_table_with_captions_concepts_and_masks(image_folder):
    cat, car, tree = load(f"folder:{image_folder}")
    assert [cat.key, car.key] == ["cat.jpg (row 1)", "street.png (row 2)"]
    expected = box(20, 30, 1, 2, 8, 9)
    assert np.array_equal(cat.mask(), expected)
    assert tree.mask() is None
    assert cat.image().size == (30, 20)
    assert (car.prompt, car.concept) == ("a red car, parked", "car")
    assert cat.concept == "a cat"
    assert car.present == tree.present == ("car", "tree")

    table = image_folder / "captions.csv"
    table.write_text("image,caption\ncat.jpg,a cat\n")  # other columns are optional
    (cat,) = load(f"folder:{image_folder}")
    assert (cat.concept, cat.has_mask) == ("a cat", False)


@pytest.mark.parametrize("kind", ["16 bits", "colours", "indices", "bool"])
def test_a_mask_is_an_image_that_is_not_black_on_the_object(image_folder, kind):
    mask = box(20, 30, 1, 2, 8, 9)
    image = Image.fromarray(mask)
    if kind == "16 bits":
        numbers = mask.astype(np.uint16)  # of objects
        image = Image.fromarray(numbers)
    elif kind == "colours":
        image = Image.new("RGB", (30, 20))
        image.paste((0, 0, 9), mask=Image.fromarray(mask))
    elif kind == "indices":
        indices = mask.astype(np.uint8)
        image = Image.fromarray(indices, "P")
    image.save(image_folder / "masks/a-cat.png")
    cat, *_ = load(f"folder:{image_folder}")
    assert np.array_equal(cat.mask(), mask)


@pytest.mark.parametrize(
    "text", ['\ufeffimage,caption\r\n0.png,"a dog, running"\r\n', ",image,caption\n0,0.png,a dog\n"]
)
def test_a_table_that_a_spreadsheet_or_pandas_wrote_is_read(tmp_path, text):
    (tmp_path / "captions.csv").write_bytes(text.encode())
    table = read_captions(tmp_path / "captions.csv")
    (row,) = table.to_dict("records")
    assert row["image"] == "0.png"
    assert row["caption"].startswith("a dog")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (b"", "captions.csv cannot be read as CSV"),
        ("image,caption\n0.png,Hündchen\n".encode("latin-1"), "cannot be read as CSV in UTF-8"),
        (b"image,caption\n0.png,a dog, running\n", "a caption with a comma needs quotes"),
        (b"file,text\na,b\n", "has no column 'caption', it has 'file', 'text'"),
        (b"image,caption,mask\na.png,a dog,a.png\n", "say which folder holds the masks"),
    ],
)
def test_a_table_that_would_be_misread_is_refused(tmp_path, table, message):
    (tmp_path / "captions.csv").write_bytes(table)
    with pytest.raises(GradeclipError, match=message):
        captioned_images(tmp_path, tmp_path / "captions.csv")


# --------------------------------------------------------------------- Hugging Face, one's own


def test_a_data_set_of_hugging_face_is_read_in_three_lines(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="the extra 'data' is missing")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    lines = []
    folder = tmp_path / "birds"
    for name, width in (("owl", 8), ("dog", 9)):
        save(folder / f"{name}.png", picture(6, width))
        line = {"file_name": f"{name}.png", "text": f"a {name}"}
        lines.append(json.dumps(line))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    birds = datasets.load_dataset("imagefolder", data_dir=str(folder))

    examples = from_huggingface(birds["train"], caption="text")
    sizes = {example.prompt: example.image().size for example in examples}
    assert sizes == {"a owl": (8, 6), "a dog": (9, 6)}
    first, *_ = examples
    copy = pickle.loads(pickle.dumps(first))
    assert copy.image() == first.image()
    assert first.mask() is None
    for dataset in (birds, birds["train"]):
        with pytest.raises(GradeclipError, match="has no column .*: say image= and caption="):
            from_huggingface(dataset)


def test_an_image_of_hugging_face_may_have_several_captions_or_none(tmp_path):
    datasets = pytest.importorskip("datasets", reason="the extra 'data' is missing")
    captions = [["a cat", "an animal"], [], ["a dog"]]
    table = {"image": [picture(6, 8)] * 3, "caption": captions}
    examples = from_huggingface(datasets.Dataset.from_dict(table))
    assert [example.key for example in examples] == ["0/0", "0/1", "2/0"]
    assert [example.prompt for example in examples] == ["a cat", "an animal", "a dog"]


def test_a_project_outside_adds_a_data_set_that_load_and_evaluate_find(tiny, monkeypatch):
    monkeypatch.setattr(registry, "DATASETS", dict(registry.DATASETS))
    image = Image.fromarray(picture(36, 40))
    mask = box(36, 40, 5, 5, 20, 20)

    def birds(place):
        examples = []
        for i, name in enumerate(("owl", "duck", "owl")):
            example = Example(
                f"{place}/{i}",
                prompt=f"a {name}",
                concept=name,
                caption="",
                present=(name,),
                image=lambda: image,
                load_mask=lambda: mask,
            )
            examples.append(example)
        return examples

    with pytest.raises(GradeclipError, match="'birds:pond' names no data set"):
        load("birds:pond")
    register_dataset("birds", birds, "POND")
    examples = load("birds:pond", limit=2)
    assert [example.key for example in examples] == ["pond/0", "pond/2"]
    rows = evaluate(tiny, "birds:lake", references=False)
    assert list(rows["concept"]) == ["owl", "duck", "owl"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("scnes:x", "such as scenes:development:200, .*: did you mean scenes"),
        ("scenes:development", "say how many scenes"),
        (load("scenes:development:1") * 2, "2 have the key 'development/0'"),
        ([], "has no examples"),
    ],
)
def test_data_that_are_unknown_or_ambiguous_are_refused(data, message):
    with pytest.raises(GradeclipError, match=message):
        load(data)


# ------------------------------------------------------------------------------- photographs


def test_every_photograph_has_its_caption():
    examples = load("photographs:all")
    names = sorted(file.name for file in PHOTOGRAPHS.glob("*.jpg"))
    assert [example.key for example in examples] == names
    assert len(names) == 5
    for example in examples:
        assert max(example.image().size) == 384
        assert example.prompt.startswith("a photo of a")
        assert example.mask() is None


def test_every_photograph_is_small_and_has_an_author_and_a_free_licence():
    pattern = r"^\| `(\w+\.jpg)` \| .+ \| (.+) \| (.+) \| `\w+\.(?:png|jpg)` \|$"
    rows = re.findall(pattern, (PHOTOGRAPHS / "README.md").read_text(), re.M)
    files = sorted(PHOTOGRAPHS.glob("*.jpg"))
    assert sorted(name for name, _, _ in rows) == [file.name for file in files]
    for _, author, licence in rows:
        assert author
        assert "CC0" in licence or "public domain" in licence
    assert max(file.stat().st_size for file in files) <= 60_000
