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
    coco,
    coco_captions,
    from_huggingface,
    load,
    register_dataset,
    registry,
)
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.files import data_path
from gradeclip_utils.measures import evaluate
from gradeclip_utils.scenes import draw_scene

NOISE = np.random.default_rng(0)


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
        members = [k for k, thing in enumerate(scene.objects) if thing.noun == example.concept]
        assert example.caption == scene.caption
        assert {thing.noun for thing in scene.objects} == set(example.present)
        assert (example.mask() == scene.masks()[members].any(0)).all()
        assert example.mask().shape == example.image().size[::-1]
        assert len(members) > 1 or example.prompt.split()[0] not in ("two", "three", "four")
        colour = scene.objects[members[0]].colour
        assert colour is None or colour in example.prompt
    copy = pickle.loads(pickle.dumps(examples[0]))
    assert copy.key == examples[0].key and (copy.mask() == examples[0].mask()).all()
    assert [example.caption for example in load("scenes:train:12")] != [
        example.caption for example in examples
    ]


@pytest.fixture
def coco_folder(tmp_path):
    """As cocodataset.org/#format-data describes it: polygons, and run lengths (columns first) for a crowd."""
    images = [{"id": n, "file_name": f"{n:012d}.jpg", "height": 20, "width": 30} for n in (9, 4)]
    for image in images:
        save(tmp_path / "val2017" / image["file_name"], picture(20, 30))
    crowd = {"size": [20, 30], "counts": [0, 60, 540]}  # the three leftmost columns
    shapes = [
        (4, 18, [[2, 2, 12, 2, 12, 10, 2, 10]], 0),
        (4, 18, [[20, 3, 28, 3, 28, 9], [15, 12, 18, 12, 18, 18]], 0),
        (4, 1, crowd, 1),
        (9, 1, [[1, 1, 29, 1, 29, 19, 1, 19]], 0),
    ]
    annotations = [
        {
            "id": i,
            "image_id": image,
            "category_id": category,
            "segmentation": shape,
            "iscrowd": many,
            "area": 1.0,
            "bbox": [0, 0, 1, 1],
        }
        for i, (image, category, shape, many) in enumerate(shapes)
    ]
    categories = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
    said = [(4, 100, "A dog beside people. "), (9, 101, "A man."), (4, 99, "Two dogs.")]
    record = {"images": images, "annotations": annotations, "categories": categories}
    captions = {
        "images": images,
        "annotations": [{"image_id": i, "id": n, "caption": c} for i, n, c in said],
    }
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/instances_val2017.json").write_text(json.dumps(record))
    (tmp_path / "annotations/captions_val2017.json").write_text(json.dumps(captions))
    return tmp_path


def test_coco_asks_for_every_category_and_joins_its_instances_as_pycocotools_does(coco_folder):
    theirs = COCO(coco_folder / "annotations/instances_val2017.json")
    examples = load(f"coco:{coco_folder}")
    assert [e.key for e in examples] == ["4/dog", "4/person", "9/person"]
    assert [e.prompt for e in examples][:2] == ["a photo of a dog.", "a photo of a person."]
    assert (
        examples[0].present == ("dog", "person") and examples[0].caption == "Two dogs."
    )  # the first of its image
    for example in examples:
        image, category = int(example.key.split("/")[0]), theirs.getCatIds(catNms=[example.concept])
        found = theirs.loadAnns(theirs.getAnnIds(imgIds=[image], catIds=category))
        expected = np.any([theirs.annToMask(annotation) for annotation in found], axis=0)
        assert (example.mask() == expected).all()
        assert example.image().size == (30, 20)
    assert examples[1].mask()[:, :3].all()
    assert not examples[1].mask()[:, 3:].any()


def test_coco_captions_need_neither_masks_nor_images(coco_folder):
    for file in (coco_folder / "val2017").iterdir():
        file.unlink()
    (coco_folder / "annotations/instances_val2017.json").unlink()
    captions = coco_captions(coco_folder)
    assert [example.caption for example in captions] == [
        "Two dogs.",
        "A dog beside people.",
        "A man.",
    ]
    assert [example.concept for example in captions] == ["4", "4", "9"]
    assert captions[0].mask() is None
    assert not captions[0].has_mask
    with pytest.raises(GradeclipError, match="no image file"):
        captions[0].image()


def test_files_of_coco_that_are_missing_or_malformed_say_where_to_get_them(coco_folder):
    path = coco_folder / "annotations/instances_val2017.json"
    with pytest.raises(
        GradeclipError, match=r"instances_train2017.json is missing.*cocodataset.org"
    ):
        load(f"coco:{coco_folder}@train2017")
    captions = (coco_folder / "annotations/captions_val2017.json").read_text()
    for content, message in (
        (path.read_text()[:200], "is not JSON, or is cut short.*cocodataset.org"),
        (captions, "is not a file of COCO annotations, .*it lacks 'categories'"),
        ("[1, 2]", "is not a file of COCO annotations"),
    ):
        path.write_text(content)
        with pytest.raises(GradeclipError, match=message):
            coco(coco_folder)


def test_a_library_that_is_not_installed_is_named_with_the_way_to_get_it(coco_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(
        GradeclipError, match=r"needs pycocotools: pip install pycocotools .*'.\[data\]'"
    ):
        coco(coco_folder)


@pytest.fixture
def mine(tmp_path):
    save(tmp_path / "images/cat.jpg", picture(20, 30))
    save(tmp_path / "images/street.png", picture(10, 10))
    save(tmp_path / "masks/cat.png", box(20, 30, 1, 2, 8, 9).astype(np.uint8) * 255)
    save(tmp_path / "masks/car.png", box(10, 10, 0, 0, 3, 3).astype(np.uint8))
    rows = "image,caption,mask,concept\ncat.jpg,a cat,,\nstreet.png,a red car,car.png,car\nstreet.png,a tree,,tree\n"
    (tmp_path / "captions.csv").write_text(rows)
    return tmp_path


def test_a_folder_of_images_needs_a_table_and_may_have_masks(mine):
    with pytest.warns(
        UserWarning, match="no mask for 1 of 3 examples .looked for .*masks/street.png"
    ):
        cat, car, tree = load(f"folder:{mine}")
    assert (cat.mask() == box(20, 30, 1, 2, 8, 9)).all()
    assert (car.mask() == box(10, 10, 0, 0, 3, 3)).all()
    assert tree.mask() is None
    save(mine / "masks/cat.png", box(20, 30, 1, 2, 8, 9).astype(np.uint16))  # number 1 of 16 bits
    assert (cat.mask() == box(20, 30, 1, 2, 8, 9)).all()
    assert [e.concept for e in (cat, car, tree)] == ["a cat", "car", "tree"]
    assert car.present == tree.present == ("car", "tree")
    assert len({e.key for e in (cat, car, tree)}) == 3
    assert cat.image().size == (30, 20)
    (mine / "captions.csv").write_text(
        "image,caption\ncat.jpg,a cat\n"
    )  # other columns are not needed
    (mine / "masks/cat.png").rename(mine / "masks/cat.PNG")
    (cat,) = load(f"folder:{mine}")
    assert (cat.concept, cat.has_mask) == ("a cat", True)


def test_a_table_or_mask_that_is_wrong_is_refused(mine):
    cat = load(f"folder:{mine}")[0]
    for mask, message in (
        (np.zeros((20, 30), np.uint8), "black all over"),
        (np.ones((30, 20), np.uint8), "is 20 x 30 pixels, its image 30 x 20"),
    ):
        save(mine / "masks/cat.png", mask)
        with pytest.raises(GradeclipError, match=message):
            cat.mask()
    for table, message in (
        (
            "",
            "must have the columns image and caption, in small letters and separated by commas, and has nothing",
        ),
        ("file,text\na,b\n", "must have the columns image and caption, .*, and has file, text"),
        ("Image;Caption\na;b\n", "in small letters and separated by commas, and has Image;Caption"),
        (
            "image,caption,mask\ncat.jpg,a cat,dog.png\n",
            "line 2: there is no file .*masks.*dog.png",
        ),
    ):
        (mine / "captions.csv").write_text(table)
        with pytest.raises(GradeclipError, match=message):
            load(f"folder:{mine}")
    (mine / "captions.csv").unlink()
    with pytest.raises(GradeclipError, match="There is no table of captions"):
        load(f"folder:{mine}")


def test_a_mask_belongs_to_one_image(mine):
    for name in ("a/1.png", "b/1.png", "b/1.jpg"):
        save(mine / "images" / name, picture(8, 8))
    save(mine / "masks/1.png", box(8, 8, 0, 0, 8, 8).astype(np.uint8))
    save(mine / "masks/a/1.png", box(8, 8, 0, 0, 2, 2).astype(np.uint8))
    save(mine / "masks/b/1.png", box(8, 8, 0, 0, 5, 5).astype(np.uint8))
    (mine / "captions.csv").write_text("image,caption\na/1.png,a cat\nb/1.png,a dog\n")
    assert [int(one.mask().sum()) for one in load(f"folder:{mine}")] == [4, 25]
    (mine / "captions.csv").write_text("image,caption\nb/1.png,a cat\nb/1.jpg,a dog\n")
    with pytest.raises(
        GradeclipError, match="masks/b/1.png could be the mask of b/1.png and b/1.jpg: add a column"
    ):
        load(f"folder:{mine}")


def test_a_data_set_of_hugging_face_is_read_in_three_lines(tiny, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="the extra 'data' is missing")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    for i, name in enumerate(("owl.png", "dog.png")):
        save(tmp_path / "birds" / name, np.full((6, 8 + i, 3), i, np.uint8))
    lines = [
        json.dumps({"file_name": f"{name}.png", "text": f"a {name}"}) for name in ("owl", "dog")
    ]
    (tmp_path / "birds" / "metadata.jsonl").write_text("\n".join(lines))
    birds = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "birds"), cache_dir=str(tmp_path / "cache")
    )
    examples = from_huggingface(birds["train"], caption="text")
    assert {one.prompt: one.image().size[0] for one in examples} == {"a owl": 8, "a dog": 9}
    again = pickle.loads(pickle.dumps(examples[0]))
    assert again.image().size == examples[0].image().size and examples[0].mask() is None
    with pytest.raises(
        GradeclipError, match="needs one split of a data set, such as .'train'., got a DatasetDict"
    ):
        from_huggingface(birds)
    with pytest.raises(
        GradeclipError, match="has no column 'caption'; it has 'image', 'text': say image= and capt"
    ):
        from_huggingface(birds["train"])


def test_records_in_hand_may_have_several_captions():
    shown = Image.fromarray(picture(6, 8))
    rows = [
        {"image": shown, "caption": ["a cat", " ", "an animal"]},
        {"image": shown, "caption": "a dog "},
    ]
    assert [(one.key, one.prompt) for one in from_huggingface(rows)] == [
        ("0/0", "a cat"),
        ("0/2", "an animal"),
        ("1", "a dog"),
    ]
    for captions, message in (
        ([5], "row 0 of 'caption' has 5"),
        ([[["a dog"]]], "row 0 of 'caption' has"),
        ([None], "row 0 of 'caption' has None"),
        ([" "], "column 'caption' holds no captions"),
    ):
        with pytest.raises(GradeclipError, match=message):
            from_huggingface([{"image": shown, "caption": one} for one in captions])
    for wrong in (5, {"a": 1}, None):
        with pytest.raises(GradeclipError, match="needs one split of a data set"):
            from_huggingface(wrong)


def test_a_project_outside_adds_a_data_set_that_load_and_evaluate_find(tiny, monkeypatch):
    monkeypatch.setattr(
        registry, "DATASETS", dict(registry.DATASETS)
    )  # what this test adds goes with it
    shown, mask = Image.fromarray(picture(36, 40)), box(36, 40, 5, 5, 20, 20)

    def birds(where):
        return [
            Example(f"{where}/{i}", f"a {name}", name, "", (name,), lambda: shown, lambda: mask)
            for i, name in enumerate(("owl", "duck", "owl"))
        ]

    with pytest.raises(GradeclipError, match="'birds:pond' names no data set"):
        load("birds:pond")
    register_dataset("birds", birds, "POND")
    assert [example.key for example in load("birds:pond", limit=2)] == ["pond/0", "pond/2"]
    assert list(evaluate(tiny, "birds:lake", references=False, progress=False)["concept"]) == [
        "owl",
        "duck",
        "owl",
    ]
    with pytest.raises(GradeclipError, match="say .*birds:POND"):
        load("birds")
    with pytest.raises(
        GradeclipError, match="there are data sets of the kind 'birds' already: birds:POND"
    ):
        register_dataset("birds", birds)
    for name in ("", "my:birds"):
        with pytest.raises(GradeclipError, match="a name without a colon"):
            register_dataset(name, birds)


def test_a_limit_spreads_over_the_whole_data_set():
    keys = [example.key for example in load("scenes:development:20", limit=3)]
    assert keys == ["development/0", "development/10", "development/19"]
    assert len(load("scenes:development:5", limit=50)) == 5


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("scnes:x", "did you mean scenes:...?"),
        ("scenes", "'scenes' names no data set: say scenes:development:200"),
        ("scenes:development", "say how many scenes"),
        ("scenes:dev:5", "split must be one of train, development, test, got 'dev'"),
        ("scenes:development:0", "number of scenes must be at least 1, got 0"),
    ],
)
def test_a_data_set_that_does_not_exist_is_refused_with_what_to_say(what, message):
    with pytest.raises(GradeclipError, match=message):
        load(what)
    with pytest.raises(GradeclipError, match="limit must be at least 1, got 0"):
        load("scenes:development:5", limit=0)


PHOTOGRAPHS = data_path("photos")


def test_every_photograph_is_found_with_its_caption():
    found, names = load("photographs:all"), sorted(file.name for file in PHOTOGRAPHS.glob("*.jpg"))
    assert [example.key for example in found] == names and len(found) == 5
    for example in found:
        with Image.open(PHOTOGRAPHS / example.key) as file:
            assert example.image().size == file.size and max(file.size) == 384
        assert example.prompt.startswith("a photo of a") and example.mask() is None
    with pytest.raises(GradeclipError, match="write photographs:all, got"):
        load("photographs:some")


def test_every_photograph_is_small_and_says_whose_it_is_under_a_licence_that_lets_everybody_use_it():
    rows = re.findall(
        r"^\| `(\w+\.jpg)` \| .+ \| (.+) \| (.+) \| `\w+\.(?:png|jpg)` \|$",
        (PHOTOGRAPHS / "README.md").read_text(),
        re.M,
    )
    names = sorted(file.name for file in PHOTOGRAPHS.glob("*.jpg"))
    assert sorted(name for name, _, _ in rows) == names
    assert all(
        author and ("CC0" in licence or "public domain" in licence) for _, author, licence in rows
    )
    assert max((PHOTOGRAPHS / name).stat().st_size for name in names) <= 60_000
