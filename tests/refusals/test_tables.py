"""Tables of captions: what a spreadsheet writes, and what would be read as something else."""

import pytest
from PIL import Image

from gradeclip_utils.datasets import load, load_choices
from gradeclip_utils.datasets.own import read_captions
from gradeclip_utils.errors import GradeclipError
from tests.refusals.cases import named

TABLES = [
    ("a caption with a comma in every row", "0.png,a dog, running\n1.png,a cat, too\n", "2 columns: .*needs quotes"),
    ("a caption with a comma in one row", "0.png,a dog\n1.png,a cat, too\n", "cannot be read as a table: .*line 3"),
    ("a comma behind every row", "0.png,a dog,\n", "more fields than its 2 columns"),
    ("a quote that is never closed", '0.png,"a dog\n', "cannot be read as a table"),
    ("another encoding", "0.png,ein Hündchen\n".encode("latin-1"), "cannot be read as a table"),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "message"), named(TABLES))
@pytest.mark.parametrize("kind", ["folder", "csv"])
def test_a_table_that_would_be_read_as_another_is_refused(tmp_path, kind, rows, message):
    for name in ("0.png", "1.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    header = b"image,caption\n" if kind == "folder" else b"filepath,title\n"
    table = tmp_path / "captions.csv"
    table.write_bytes(header + (rows if isinstance(rows, bytes) else rows.encode()))
    with pytest.raises(GradeclipError, match=message) as refused:
        load(f"folder:{tmp_path}" if kind == "folder" else f"csv:{table}")
    assert "captions.csv" in str(refused.value) and "\n" not in str(refused.value)


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
        with pytest.raises(GradeclipError, match="data must be a text, got"):
            read(what)
