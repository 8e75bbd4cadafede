"""Data sets: every loader reads a tiny data set that is written here in the published schema."""

import json
import pickle
import sys

import h5py
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from timm.data import ImageNetInfo

from gradeclip_utils.datasets import (
    Example,
    coco,
    coco_captions,
    imagenet_name,
    imagenet_s,
    imagenet_segmentation,
    load,
    register_dataset,
    registry,
    sugar_crepe,
)
from gradeclip_utils.measures.evaluation import evaluate
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


# ------------------------------------------------------------------------------------------------------- emoji scenes


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
        colour = scene.objects[members[0]].colour
        assert colour is None or colour in example.prompt


def test_scenes_of_several_of_a_kind_ask_for_all_of_them():
    several = [e for e in load("scenes:development:80") if e.prompt.split()[0] in ("two", "three", "four")]
    assert several
    assert all(example.prompt.split()[0] != "a" for example in several)


def test_scenes_are_the_same_again_and_those_of_another_split_are_others():
    again = [example.caption for example in load("scenes:development:10")]
    assert again == [example.caption for example in load("scenes:development:10")]
    assert again != [example.caption for example in load("scenes:train:10")]


def test_an_example_goes_to_another_process_as_it_is():
    example = load("scenes:development:1")[0]
    copy = pickle.loads(pickle.dumps(example))
    assert copy.key == example.key
    assert (copy.mask() == example.mask()).all()


# ------------------------------------------------------------------------------------------------- ImageNet, two kinds


def write_matlab(path, pictures, masks, ids):
    """As gtsegs_ijcv.mat is laid out: a MATLAB 7.3 file, a struct of cell arrays, columns first.

    The layout is that which the published loaders read: value/img[i, 0] refers to (3, W, H); value/gt[i, 0] to a cell,
    and that to (W, H); value/target[i, 0] to the WordNet id as UTF-16 codes (github.com/hila-chefer/
    Transformer-Explainability, data/Imagenet.py, for pictures and masks).
    """
    with h5py.File(path, "w") as file:
        cells = {name: [] for name in ("img", "gt", "target")}
        for i, (image, mask, wnid) in enumerate(zip(pictures, masks, ids, strict=True)):
            image = file.create_dataset(f"#refs#/img{i}", data=image.transpose(2, 1, 0))
            ground_truth = file.create_dataset(f"#refs#/truth{i}", data=mask.T.astype(np.uint8))
            wrapped = file.create_dataset(f"#refs#/gt{i}", data=np.array([[ground_truth.ref]], dtype=h5py.ref_dtype))
            codes = np.array([[ord(letter)] for letter in wnid], dtype=np.uint16)
            target = file.create_dataset(f"#refs#/target{i}", data=codes)
            for name, dataset in (("img", image), ("gt", wrapped), ("target", target)):
                cells[name].append([dataset.ref])
        for name, references in cells.items():
            file.create_dataset(f"value/{name}", data=np.array(references, dtype=h5py.ref_dtype))


def test_imagenet_segmentation_is_read_from_its_matlab_file(tmp_path):
    pictures, masks = [picture(20, 30), picture(25, 15)], [box(20, 30, 2, 3, 9, 20), box(25, 15, 0, 0, 5, 15)]
    write_matlab(tmp_path / "gtsegs_ijcv.mat", pictures, masks, ["n02084071", "n01440764"])
    dog, tench = load(f"imagenet-segmentation:{tmp_path / 'gtsegs_ijcv.mat'}")
    assert (dog.prompt, dog.concept) == ("a photo of a dog.", "n02084071")
    assert tench.prompt == "a photo of a tench."
    for example, image, mask in zip((dog, tench), pictures, masks, strict=True):
        copy = pickle.loads(pickle.dumps(example))
        assert (np.asarray(copy.image()) == image).all()
        assert (copy.mask() == mask).all()


def test_a_matlab_file_that_is_missing_cut_short_or_another_is_refused_in_one_sentence(tmp_path):
    path = tmp_path / "gtsegs_ijcv.mat"
    with pytest.raises(FileNotFoundError, match=r"is missing.*Get it from http://calvin-vision"):
        imagenet_segmentation(path)
    write_matlab(path, [picture(4, 4)], [box(4, 4, 0, 0, 2, 2)], ["n02084071"])
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(ValueError, match="is cut short.*struct 'value'"):
        imagenet_segmentation(path)
    with h5py.File(path, "w") as file:
        file["something"] = 1
    with pytest.raises(ValueError, match="is not ImageNet-Segmentation"):
        imagenet_segmentation(path)
    write_matlab(path, [picture(4, 4)], [box(4, 4, 0, 0, 2, 2)], ["n99999999"])
    with pytest.raises(ValueError, match="'n99999999' is no WordNet id of ImageNet"):
        imagenet_segmentation(path)


def test_classes_of_imagenet_are_called_what_openai_called_them():
    assert imagenet_name("n03126707") == "construction crane"  # WordNet says crane, as it does of the bird
    assert imagenet_name("n02012849") == "crane bird"


def write_imagenet_s(folder, classes, size=(12, 16)):
    """As the README of github.com/LUSSeg/ImageNet-S has it: one folder a class, the class in red + 256 * green."""
    for number, wnid in enumerate(classes, start=1):
        for name in ("ILSVRC2012_val_00000001", "ILSVRC2012_val_00000002"):
            save(folder / "validation" / wnid / f"{name}.JPEG", picture(*size))
            codes = np.zeros((*size, 3), dtype=np.uint8)
            codes[:4, :5] = (number % 256, number // 256, 0)
            codes[-1] = (1000 % 256, 1000 // 256, 0)  # to be ignored
            save(folder / "validation-segmentation" / wnid / f"{name}.png", codes)


def test_imagenet_s_decodes_classes_from_red_and_green_beyond_256(tmp_path):
    wnids = sorted(ImageNetInfo("imagenet-1k").label_names())[:300]
    write_imagenet_s(tmp_path / "ImageNetS300", wnids, size=(6, 8))
    examples = load(f"imagenet-s:{tmp_path / 'ImageNetS300'}")
    assert len(examples) == 600
    assert [example.concept for example in examples[::2]] == wnids
    for example in (examples[0], examples[2 * 255], examples[-1]):
        assert (example.mask() == box(6, 8, 0, 0, 4, 5)).all()
        assert example.image().size == (8, 6)


def test_a_copy_of_imagenet_s_that_lacks_a_class_is_refused(tmp_path):
    write_imagenet_s(tmp_path / "ImageNetS50", ["n01440764", "n02084071"])
    with pytest.raises(ValueError, match=r"holds 2 classes, but ImageNetS50 has 50.*github.com/LUSSeg"):
        imagenet_s(tmp_path / "ImageNetS50")
    renamed = (tmp_path / "ImageNetS50").rename(tmp_path / "part")
    assert imagenet_s(renamed)[0].mask().any()
    for kind in ("validation", "validation-segmentation"):
        (renamed / kind / "n01440764").rename(renamed / kind / "n09999999")
    with pytest.raises(ValueError, match="is no WordNet id"):
        imagenet_s(renamed)
    for kind in ("validation", "validation-segmentation"):
        (renamed / kind / "n09999999").rename(renamed / kind / "n03126707")  # now sorted behind the other
    with pytest.raises(ValueError, match="should show class 1.* and holds 0, 2, 1000"):
        imagenet_s(renamed)[0].mask()
    with pytest.raises(FileNotFoundError, match="the masks of ImageNet-S"):
        imagenet_s(tmp_path / "nowhere")


def test_a_mask_of_another_size_than_its_picture_is_refused(tmp_path):
    write_imagenet_s(tmp_path / "part", ["n02084071"])
    save(tmp_path / "part/validation/n02084071/ILSVRC2012_val_00000001.JPEG", picture(13, 16))
    with pytest.raises(ValueError, match="is 16 x 12 pixels, its image 16 x 13"):
        imagenet_s(tmp_path / "part")[0].mask()


# --------------------------------------------------------------------------------------------------------------- COCO


@pytest.fixture
def coco_folder(tmp_path):
    """As cocodataset.org/#format-data describes it: polygons, and run lengths (columns first) for a crowd."""
    images = [{"id": n, "file_name": f"{n:012d}.jpg", "height": 20, "width": 30} for n in (9, 4)]
    for image in images:
        save(tmp_path / "val2017" / image["file_name"], picture(20, 30))
    crowd = {"size": [20, 30], "counts": [0, 60, 540]}  # the three leftmost columns
    shapes = [
        (4, 18, [[2, 2, 12, 2, 12, 10, 2, 10]], 0), (4, 18, [[20, 3, 28, 3, 28, 9], [15, 12, 18, 12, 18, 18]], 0),
        (4, 1, crowd, 1), (9, 1, [[1, 1, 29, 1, 29, 19, 1, 19]], 0),
    ]  # fmt: skip
    annotations = [
        {"id": i, "image_id": image, "category_id": category, "segmentation": shape, "iscrowd": many, "area": 1.0,
         "bbox": [0, 0, 1, 1]}
        for i, (image, category, shape, many) in enumerate(shapes)
    ]  # fmt: skip
    categories = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
    said = [(4, 100, "A dog beside people. "), (9, 101, "A man."), (4, 99, "Two dogs.")]
    record = {"images": images, "annotations": annotations, "categories": categories}
    captions = {"images": images, "annotations": [{"image_id": i, "id": n, "caption": c} for i, n, c in said]}
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/instances_val2017.json").write_text(json.dumps(record))
    (tmp_path / "annotations/captions_val2017.json").write_text(json.dumps(captions))
    return tmp_path


def test_coco_asks_for_every_category_and_joins_its_instances_as_pycocotools_does(coco_folder):
    theirs = COCO(coco_folder / "annotations/instances_val2017.json")
    examples = load(f"coco:{coco_folder}")
    assert [e.key for e in examples] == ["4/dog", "4/person", "9/person"]
    assert [e.prompt for e in examples][:2] == ["a photo of a dog.", "a photo of a person."]
    assert examples[0].present == ("dog", "person")
    for example in examples:
        image, category = int(example.key.split("/")[0]), theirs.getCatIds(catNms=[example.concept])
        found = theirs.loadAnns(theirs.getAnnIds(imgIds=[image], catIds=category))
        expected = np.any([theirs.annToMask(annotation) for annotation in found], axis=0)
        assert (example.mask() == expected).all()
        assert example.image().size == (30, 20)
    assert examples[1].mask()[:, :3].all()
    assert not examples[1].mask()[:, 3:].any()


def test_coco_captions_need_neither_masks_nor_pictures(coco_folder):
    for file in (coco_folder / "val2017").iterdir():
        file.unlink()
    (coco_folder / "annotations/instances_val2017.json").unlink()
    captions = coco_captions(coco_folder)
    assert [example.caption for example in captions] == ["Two dogs.", "A dog beside people.", "A man."]
    assert [example.concept for example in captions] == ["4", "4", "9"]
    assert captions[0].mask() is None
    assert not captions[0].has_mask
    with pytest.raises(FileNotFoundError, match="no picture file"):
        captions[0].image()


def test_the_first_caption_of_a_picture_comes_with_its_examples(coco_folder):
    assert coco(coco_folder)[0].caption == "Two dogs."
    (coco_folder / "annotations/captions_val2017.json").unlink()
    assert coco(coco_folder)[0].caption == ""


def test_files_of_coco_that_are_missing_or_malformed_say_where_to_get_them(coco_folder):
    path = coco_folder / "annotations/instances_val2017.json"
    with pytest.raises(FileNotFoundError, match=r"instances_train2017.json is missing.*cocodataset.org"):
        load(f"coco:{coco_folder}@train2017")
    whole = path.read_text()
    path.write_text(whole[:200])
    with pytest.raises(ValueError, match=r"is not JSON, or is cut short.*cocodataset.org"):
        coco(coco_folder)
    path.write_text((coco_folder / "annotations/captions_val2017.json").read_text())
    with pytest.raises(ValueError, match="it lacks categories"):
        coco(coco_folder)
    path.write_text("[1, 2]")
    with pytest.raises(ValueError, match="it lacks images, annotations, categories"):
        coco(coco_folder)


def test_a_library_that_is_not_installed_is_named_with_the_way_to_get_it(coco_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(ImportError, match=r"needs pycocotools: pip install pycocotools .*'.\[data\]'"):
        coco(coco_folder)


# ------------------------------------------------------------------------------------------------------- your pictures


@pytest.fixture
def mine(tmp_path):
    save(tmp_path / "images/cat.jpg", picture(20, 30))
    save(tmp_path / "images/street.png", picture(10, 10))
    save(tmp_path / "masks/cat.png", box(20, 30, 1, 2, 8, 9).astype(np.uint8) * 255)
    save(tmp_path / "masks/car.png", box(10, 10, 0, 0, 3, 3).astype(np.uint8))
    rows = "image,caption,mask,concept\ncat.jpg,a cat,,\nstreet.png,a red car,car.png,car\nstreet.png,a tree,,tree\n"
    (tmp_path / "captions.csv").write_text(rows)
    return tmp_path


def test_a_folder_of_pictures_needs_a_table_and_may_have_masks(mine):
    cat, car, tree = load(f"folder:{mine}")
    assert (cat.mask() == box(20, 30, 1, 2, 8, 9)).all()
    assert (car.mask() == box(10, 10, 0, 0, 3, 3)).all()
    assert tree.mask() is None
    assert [e.concept for e in (cat, car, tree)] == ["a cat", "car", "tree"]
    assert car.present == tree.present == ("car", "tree")
    assert len({e.key for e in (cat, car, tree)}) == 3
    assert cat.image().size == (30, 20)


def test_a_folder_without_columns_for_masks_and_concepts_will_do(mine):
    (mine / "captions.csv").write_text("image,caption\ncat.jpg,a cat\n")
    (cat,) = load(f"folder:{mine}")
    assert (cat.concept, cat.has_mask) == ("a cat", True)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", "cannot be read as a table"),
        ("file,text\na,b\n", "must have the columns image and caption, and has file, text"),
        ("image,caption\n", "it has no rows"),
        ("image,caption\ncat.jpg,\n", "line 2 lacks one of them"),
        ("image,caption\ncat.jpg,a cat\ndog.jpg,a dog\n", "line 3: there is no file .*dog.jpg"),
        ("image,caption,mask\ncat.jpg,a cat,dog.png\n", "line 2: there is no file .*masks.*dog.png"),
    ],
)
def test_a_table_that_is_wrong_is_refused_with_the_line(mine, table, message):
    (mine / "captions.csv").write_text(table)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load(f"folder:{mine}")


def test_masks_that_are_black_or_of_another_size_and_a_missing_table_are_refused(mine):
    cat = load(f"folder:{mine}")[0]
    save(mine / "masks/cat.png", np.zeros((20, 30), dtype=np.uint8))
    with pytest.raises(ValueError, match="black all over"):
        cat.mask()
    save(mine / "masks/cat.png", np.ones((30, 20), dtype=np.uint8))
    with pytest.raises(ValueError, match="is 20 x 30 pixels, its image 30 x 20"):
        cat.mask()
    (mine / "captions.csv").unlink()
    with pytest.raises(FileNotFoundError, match="write a table with the columns image and caption"):
        load(f"folder:{mine}")


# --------------------------------------------------------------------------------------------------------------- load


def test_a_project_outside_adds_a_data_set_that_load_and_evaluate_find(tiny, monkeypatch):
    monkeypatch.setattr(registry, "DATASETS", dict(registry.DATASETS))  # what this test adds goes with it
    shown, mask = Image.fromarray(picture(36, 40)), box(36, 40, 5, 5, 20, 20)

    def birds(where):
        return [
            Example(f"{where}/{i}", f"a {name}", name, "", (name,), lambda: shown, lambda: mask)
            for i, name in enumerate(("owl", "duck", "owl"))
        ]

    with pytest.raises(ValueError, match="'birds:pond' names no data set"):
        load("birds:pond")
    register_dataset("birds", birds, "POND")
    assert [example.key for example in load("birds:pond", limit=2)] == ["pond/0", "pond/2"]
    assert list(evaluate(tiny, "birds:lake", references=False, progress=False)["concept"]) == ["owl", "duck", "owl"]
    with pytest.raises(ValueError, match="say .*birds:POND"):
        load("birds")
    with pytest.raises(ValueError, match="there are data sets of the kind 'birds' already: birds:POND"):
        register_dataset("birds", birds)
    for name in ("", "my:birds"):
        with pytest.raises(ValueError, match="a name without a colon"):
            register_dataset(name, birds)


def test_a_limit_spreads_over_the_whole_data_set():
    keys = [example.key for example in load("scenes:development:20", limit=3)]
    assert keys == ["development/0", "development/10", "development/19"]
    assert len(load("scenes:development:5", limit=50)) == 5


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("imagenet_s:x", "did you mean imagenet-s:...?"),
        ("scenes", "'scenes' names no data set: say scenes:development:200"),
        ("scenes:development", "say how many scenes"),
        ("scenes:dev:5", "split must be one of train, development, test, got 'dev'"),
        ("scenes:development:0", "number of scenes must be at least 1, got 0"),
    ],
)
def test_a_data_set_that_does_not_exist_is_refused_with_what_to_say(what, message):
    with pytest.raises(ValueError, match=message):
        load(what)
    with pytest.raises(ValueError, match="limit must be at least 1, got 0"):
        load("scenes:development:5", limit=0)


# ---------------------------------------------------------------------------------------------------------- SugarCrepe


def write_sugar_crepe(folder):
    """As the files in data/ of github.com/RAIVNLab/sugar-crepe are: one object, numbered entries, one a picture."""
    swapped = {
        "0": {
            "filename": "000000544519.jpg",
            "caption": "A girl with a green shirt brushing her teeth with a blue toothbrush.",
            "negative_caption": "A girl with a blue shirt brushing her teeth with a green toothbrush.",
        },
        "1": {"filename": "000000072813.jpg", "caption": "a dog on a bed ", "negative_caption": "a bed on a dog"},
    }
    replaced = {"7": {"filename": "000000544519.jpg", "caption": "a girl", "negative_caption": "a boy"}}
    for name, record in (("swap_att", swapped), ("replace_obj", replaced)):
        (folder / f"{name}.json").write_text(json.dumps(record, indent=4), encoding="utf-8")


def test_sugar_crepe_is_read_from_one_file_or_from_the_folder_of_all(tmp_path):
    write_sugar_crepe(tmp_path)
    shown = picture(20, 30)
    save(tmp_path / "val2017" / "000000544519.png", shown)
    (tmp_path / "val2017" / "000000544519.png").rename(tmp_path / "val2017" / "000000544519.jpg")
    first, second = sugar_crepe(tmp_path / "swap_att.json", tmp_path / "val2017")
    assert first.caption.startswith("A girl with a green shirt") and "blue shirt" in first.negative
    assert (first.key, first.kind, second.caption) == ("swap_att/0", "swap_att", "a dog on a bed")
    assert (np.asarray(pickle.loads(pickle.dumps(first)).image()) == shown).all()
    everything = sugar_crepe(tmp_path, tmp_path / "val2017")
    assert [choice.key for choice in everything] == ["replace_obj/7", "swap_att/0", "swap_att/1"]


def test_sugar_crepe_names_what_is_missing_and_what_is_not_in_its_schema(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"swap_att.json is missing.*RAIVNLab/sugar-crepe"):
        sugar_crepe(tmp_path / "swap_att.json", tmp_path)
    with pytest.raises(ValueError, match="holds no captions"):
        sugar_crepe(tmp_path, tmp_path)
    write_sugar_crepe(tmp_path)
    with pytest.raises(FileNotFoundError, match="000000072813.jpg"):
        sugar_crepe(tmp_path / "swap_att.json", tmp_path)[1].image()
    path = tmp_path / "own.json"
    for content, message in (
        ("{", "is not JSON, or is cut short"),
        ("[]", "must hold one entry an image.*got a list"),
        ('{"3": {"filename": "a.jpg", "caption": "a dog"}}', "entry '3' of .*own.json must be .*negative_caption"),
    ):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            sugar_crepe(path, tmp_path)
