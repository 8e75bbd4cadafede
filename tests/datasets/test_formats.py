"""Data as people keep it: every reader gets a tiny data set in the format that others write, whole and damaged."""

import io
import json
import pickle
import tarfile

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from gradeclip_utils.datasets import Choice, load, load_choices, register_choices, registry
from gradeclip_utils.errors import GradeclipError

CAPTIONS = ["a red car", "a dog", "two cats, asleep"]


def image(i, size=(12, 9)):
    return Image.fromarray(np.random.default_rng(i).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


def png(i):
    stream = io.BytesIO()
    image(i).save(stream, "PNG")
    return stream.getvalue()


def check(examples, captions=CAPTIONS):
    """The examples are these captions with images 0, 1, 2, ..., also in another process."""
    assert [example.prompt for example in examples] == captions
    assert len({example.key for example in examples}) == len(captions)
    for i, example in enumerate(examples):
        assert (np.asarray(pickle.loads(pickle.dumps(example)).image()) == np.asarray(image(i))).all()
        assert example.caption == example.prompt and not example.has_mask


# --------------------------------------------------------------------------------------------------------- webdataset


def write_tar(path, files):
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def shard(path, numbers=(0, 1, 2), json_too=False):
    files = {}
    for i in numbers:
        files[f"{i:06d}.png"] = png(i)
        if json_too:
            files[f"{i:06d}.json"] = json.dumps({"caption": CAPTIONS[i], "status": "success"}).encode()
        else:
            files[f"{i:06d}.txt"] = f"{CAPTIONS[i]}\n".encode()
    return write_tar(path, files)


@pytest.mark.parametrize("json_too", [False, True])
def test_a_webdataset_is_read_from_its_tars(tmp_path, json_too):
    shard(tmp_path / "pairs-0000.tar", [0, 1], json_too)
    shard(tmp_path / "pairs-0001.tar", [2], json_too)
    for where in (tmp_path, tmp_path / "pairs-{0000..0001}.tar"):
        check(load(f"webdataset:{where}"))
    assert [example.prompt for example in load(f"webdataset:{tmp_path / 'pairs-0001.tar'}")] == CAPTIONS[2:]


def test_what_img2dataset_writes_beside_an_image_is_no_other_caption(tmp_path):
    files = {"0.txt": b"a dog", "0.png": png(0), "0.json": b'{"caption": "a cat"}', "cls/1.png": png(1)}
    path = write_tar(tmp_path / "x.tar", {**files, "cls/1.json": b'{"caption": "a cow"}', "cls/1.cls": b"3"})
    check(load(f"webdataset:{path}"), ["a dog", "a cow"])


@pytest.mark.parametrize("kept", [0.3, 0.7, "its last member", "compressed"])
def test_a_tar_that_is_cut_short_is_one_sentence(tmp_path, kept):
    path = shard(tmp_path / "pairs.tar")
    content = path.read_bytes()
    if kept == "compressed":
        with tarfile.open(path, "w:gz") as tar:
            tar.add(__file__, "x.txt")
    elif kept == "its last member":  # whole files, and nothing behind them
        with tarfile.open(path) as tar:
            last = tar.getmembers()[-1]
        path.write_bytes(content[: last.offset_data + 512])
    else:
        path.write_bytes(content[: int(len(content.rstrip(b"\0")) * kept)])
    with pytest.raises(GradeclipError, match=r"pairs\.tar is cut short, compressed, or no tar \(.+\)\. Get it from"):
        load(f"webdataset:{path}")


def test_a_pair_without_its_caption_and_a_tar_that_is_not_there_are_named(tmp_path):
    path = write_tar(tmp_path / "x.tar", {"7.png": png(0), "7.json": b'{"text": "a dog"}'})
    with pytest.raises(GradeclipError, match="x.tar has no caption for '7': a pair needs a .txt, or a .json"):
        load(f"webdataset:{path}")
    with pytest.raises(FileNotFoundError, match=r"x-03\.tar is missing"):
        load(f"webdataset:{tmp_path}/x-{{03..04}}.tar")
    (example,) = load(f"webdataset:{write_tar(tmp_path / 'y.tar', {'7.png': png(0)[:90], '7.txt': b'a dog'})}")
    with pytest.raises(GradeclipError, match="'7' of .*y.tar is damaged or ends too early"):
        example.image()


# -------------------------------------------------------------------------------------------------------- open_clip's


@pytest.mark.parametrize("separator", ["\t", ","])
def test_open_clips_table_is_read_whatever_separates_its_columns(tmp_path, separator, monkeypatch):
    rows = [("filepath", "title"), *zip(["0.png", f"{tmp_path}/1.png", "elsewhere/2.png"], CAPTIONS, strict=True)]
    quoted = [[f'"{cell}"' if separator in cell else cell for cell in row] for row in rows]
    (tmp_path / "pairs.csv").write_text("\n".join(separator.join(row) for row in quoted))
    (tmp_path / "here" / "elsewhere").mkdir(parents=True)
    for i, place in enumerate(["0.png", "1.png", "here/elsewhere/2.png"]):
        image(i).save(tmp_path / place)
    monkeypatch.chdir(tmp_path / "here")  # from which open_clip looks for what is not absolute
    check(load(f"csv:{tmp_path / 'pairs.csv'}"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "filepath\tcaption\nx.png\ta dog",
            "must have the columns filepath and title, and lacks title: it has filepath, c",
        ),
        ("filepath,title\nx.png,a dog", "line 2: there is no file x.png"),
        ("filepath,title\n,a dog", "line 2: a row needs a filepath and a title"),
        ("filepath,title", "has no rows"),
        ("", "cannot be read as a table"),
    ],
)
def test_a_table_with_something_missing_says_what(tmp_path, text, message):
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(GradeclipError, match=message):
        load(f"csv:{tmp_path / 'pairs.csv'}")


# ------------------------------------------------------------------------------------------- Hugging Face `datasets`


def rows(numbers, **columns):
    """A table as `datasets` makes it of the features Image and Value("string")."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": png(i), "path": None} for i in numbers], kind)
    return pa.table({"image": images, "label": list(numbers), **columns})


def save_to_disk(folder, *tables):
    """As `Dataset.save_to_disk` lays it out: streams of Arrow, and state.json that lists them."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"data-{i:05d}-of-{len(tables):05d}.arrow" for i in range(len(tables))]
    for name, table in zip(names, tables, strict=True):
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))


def test_a_data_set_that_was_saved_to_disk_is_read_without_its_library(tmp_path):
    two, one = rows([0, 1], text=CAPTIONS[:2]), rows([2], text=CAPTIONS[2:])
    save_to_disk(tmp_path / "whole", two, one)
    check(load(f"dataset:{tmp_path / 'whole'}"))
    save_to_disk(tmp_path / "split" / "test", two, one)
    (tmp_path / "split" / "dataset_dict.json").write_text('{"splits": ["test"]}')
    check(load(f"dataset:{tmp_path / 'split'}@test"))
    with pytest.raises(GradeclipError, match=r"has the splits test: say which, as in .*split@test"):
        load(f"dataset:{tmp_path / 'split'}")


def test_parquet_files_are_read_a_group_of_rows_at_a_time(tmp_path):
    (tmp_path / "data").mkdir()
    parquet.write_table(rows([0, 1, 2], caption=CAPTIONS), tmp_path / "data" / "test-0.parquet", row_group_size=2)
    parquet.write_table(rows([0], caption=["a bus"]), tmp_path / "data" / "train-0.parquet")
    check(load(f"dataset:{tmp_path}@test"))


def test_each_of_several_captions_is_asked_and_paths_are_followed(tmp_path):
    image(0).save(tmp_path / "0.png")
    images = pa.array([{"bytes": None, "path": "0.png"}], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    save_to_disk(tmp_path, pa.table({"image": images, "captions": [["a dog", "an animal"]]}))
    first, second = load(f"dataset:{tmp_path}")
    assert (first.prompt, second.prompt) == ("a dog", "an animal") and first.concept == second.concept
    assert (np.asarray(second.image()) == np.asarray(image(0))).all()


def test_a_data_set_that_cannot_be_read_says_why(tmp_path):
    with pytest.raises(GradeclipError, match="holds no state.json and no .parquet files"):
        (tmp_path / "empty").mkdir()
        load(f"dataset:{tmp_path / 'empty'}")
    save_to_disk(tmp_path / "other", rows([0], words=["a dog"]))
    with pytest.raises(GradeclipError, match="no column of captions: it has image, label, words"):
        load(f"dataset:{tmp_path / 'other'}")
    save_to_disk(tmp_path / "cut", rows([0, 1], text=CAPTIONS[:2]))
    file = tmp_path / "cut" / "data-00000-of-00001.arrow"
    content = file.read_bytes()
    for kept in (len(content) // 2, len(content) - 8):  # in the middle of a row, and without its end
        file.write_bytes(content[:kept])
        with pytest.raises(GradeclipError, match=r"arrow is cut short, or is another file \("):
            load(f"dataset:{tmp_path / 'cut'}")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 something")
    with pytest.raises(GradeclipError, match="x.parquet is cut short"):
        load(f"dataset:{tmp_path}@x")


# ------------------------------------------------------------------------------------------------------------ choices


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
    check(load(f"winoground:{tmp_path}"), [entry["caption_0"], entry["caption_1"]])  # as examples, too
    for line, message in (("{", "line 2 is not JSON"), ("{}", "lacks one of image_0, .* in line 2")):
        (tmp_path / "examples.jsonl").write_text(f"{json.dumps(entry)}\n{line}\n")
        with pytest.raises(GradeclipError, match=message):
            load_choices(f"winoground:{tmp_path}")


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


def test_sugar_crepe_is_found_by_its_name_and_says_where_its_images_are_wanted(tmp_path):
    record = {"0": {"filename": "0.png", "caption": "a dog", "negative_caption": "a cat"}}
    (tmp_path / "swap_att.json").write_text(json.dumps(record))
    image(0).save(tmp_path / "0.png")
    (choice,) = load_choices(f"sugar-crepe:{tmp_path / 'swap_att.json'}@{tmp_path}")
    assert (choice.kind, choice.image().size, choice.image_key) == ("swap_att", (12, 9), "0.png")
    with pytest.raises(GradeclipError, match="say where the images are: sugar-crepe:FILE_OR_FOLDER@IMAGES"):
        load_choices(f"sugar-crepe:{tmp_path}")
    with pytest.raises(GradeclipError, match="'coco:x' names no data set of choices: say sugar-crepe:"):
        load_choices("coco:x")


def test_choices_of_ones_own_are_found_as_choices_and_as_examples(monkeypatch):
    for known in ("DATASETS", "CHOICES"):
        monkeypatch.setattr(registry, known, dict(getattr(registry, known)))
    register_choices("mine", lambda rest: [Choice(f"{rest}/0", "swap", "a dog", "a cat", lambda: image(0))])
    assert load_choices("mine:x")[0].negative == "a cat" and load("mine:x")[0].prompt == "a dog"
    with pytest.raises(GradeclipError, match="there are data sets of the kind 'mine' already"):
        register_choices("mine", list)


def test_the_photographs_are_a_data_set_by_their_name():
    assert len(load("photographs:all")) == 5
    with pytest.raises(GradeclipError, match="photographs are had as photographs:all"):
        load("photographs:some")
