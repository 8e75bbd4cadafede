"""Tables of captions: what a spreadsheet writes, and what would be read as something else."""

import os

import pytest
from PIL import Image

from gradeclip_utils.datasets import captioned_images, load, read_captions
from gradeclip_utils.errors import GradeclipError
from studies.choices import load_choices
from tests.refusals.cases import named

TABLES = [
    (
        "a comma in every row",
        "0.png,a dog, running\n",
        "line 2 has 3 fields and the header 2; .*quotes",
    ),
    (
        "a comma in one row",
        "0.png,a dog\n1.png,a cat, too\n",
        "line 3 has 3 fields and the header 2",
    ),
    ("a comma behind every row", "0.png,a dog,\n", "line 2 has 3 fields"),
    ("a quote that is never closed", '0.png,"a dog\n', "cannot be read as a table"),
    (
        "another encoding",
        "0.png,ein Hündchen\n".encode("latin-1"),
        "another encoding; save it as CSV UTF-8",
    ),
    (
        "no caption after blank lines",
        '0.png,"a dog\n in two lines"\n\n\n1.png,\n',
        "line 6 lacks one of them",
    ),
    (
        "a file that is not there",
        '0.png,"a dog\n in two lines"\n\n2.png,a cat\n',
        "line 5: there is no file .*2.png",
    ),
    ("no rows", "\n\n", "has no rows"),
]


@pytest.mark.parametrize(("rows", "message"), named(TABLES))
def test_a_table_that_would_be_read_as_another_is_refused_with_its_line(tmp_path, rows, message):
    (tmp_path / "images").mkdir()
    for name in ("0.png", "1.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / name)
    table = tmp_path / "captions.csv"
    table.write_bytes(b"image,caption\n" + (rows if isinstance(rows, bytes) else rows.encode()))
    for read in (
        lambda: load(f"folder:{tmp_path}"),
        lambda: captioned_images(tmp_path / "images", table),
    ):
        with pytest.raises(GradeclipError, match=message) as refused:
            read()
        assert "captions.csv" in str(refused.value) and "\n" not in str(refused.value)


def test_a_column_that_is_there_twice_is_refused(tmp_path):
    (tmp_path / "captions.csv").write_text("image,caption,caption\n0.png,a dog,a cat\n")
    with pytest.raises(GradeclipError, match="has 2 columns 'caption'"):
        read_captions(tmp_path / "captions.csv")


def test_masks_that_are_not_where_they_are_said_to_be_are_refused(tmp_path):
    with pytest.raises(GradeclipError, match="there is no folder of masks .*nowhere"):
        captioned_images(tmp_path, tmp_path / "captions.csv", tmp_path / "nowhere")


@pytest.mark.parametrize("what", ["folder", "pipe", "nothing"])
def test_a_table_that_is_no_file_is_named_as_what_it_is(tmp_path, what):
    path = tmp_path / "x"
    path.mkdir() if what == "folder" else os.mkfifo(path) if what == "pipe" else None
    said = {
        "folder": "is a folder",
        "pipe": "is a pipe or a device",
        "nothing": "There is no table of captions",
    }
    with pytest.raises(GradeclipError, match=said[what]):
        read_captions(path)


@pytest.mark.parametrize(
    "text", ['\ufeffimage,caption\r\n0.png,"a dog, running"\r\n', ",image,caption\n0,0.png,a dog\n"]
)
def test_what_a_spreadsheet_or_pandas_writes_is_read(tmp_path, text):
    (tmp_path / "captions.csv").write_bytes(text.encode())
    (row,) = read_captions(tmp_path / "captions.csv").to_dict("records")
    assert (row["image"], row["caption"][:5]) == ("0.png", "a dog")


@pytest.mark.parametrize("what", [None, 5, b"scenes:development:2", ["scenes:development:2"]])
def test_a_data_set_is_named_by_a_text(what):
    for read in (load, load_choices):
        with pytest.raises(GradeclipError, match="data must be a"):
            read(what)
