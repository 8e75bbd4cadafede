"""Images: what is none, and what is too large to be decoded."""

import os

import numpy as np
import pytest
from PIL import Image

from gradeclip_utils import read_image
from gradeclip_utils.errors import GradeclipError
from tests.refusals.cases import bomb, named


def closed(folder):
    Image.new("RGB", (4, 4)).save(folder / "x.png")
    with Image.open(folder / "x.png") as image:
        pass
    return image


def truncated(folder):
    Image.effect_noise((90, 90), 60).save(folder / "x.png")
    (folder / "cut.png").write_bytes((folder / "x.png").read_bytes()[:2000])
    return Image.open(folder / "cut.png")


def pipe(folder):
    os.mkfifo(folder / "pipe.png")
    return folder / "pipe.png"


def holding(name, content):
    def make(folder):
        (folder / name).write_bytes(content)
        return folder / name

    return make


HEIC, FILM = (b"\0\0\0\x18ftyp" + brand + b"\0" * 99 for brand in (b"heic", b"isom"))
IMAGES = [
    ("a photo of a telephone", holding("a.heic", HEIC), r"a\.heic is a HEIC or AVIF .*: save it as JPEG or PNG"),
    ("the same, named otherwise", holding("a.jpg", HEIC), r"a\.jpg is a HEIC or AVIF .*: save it as JPEG or PNG"),
    ("a film", holding("a.png", FILM), r"is not a picture that Pillow can read .*: save it as JPEG or PNG"),
    ("a text", holding("a.png", b"dear"), r"is not a picture that Pillow can read .*: save it as JPEG or PNG"),
    ("an empty file", holding("a.png", b""), r"a\.png is empty"),
    ("a file that was closed", closed, "damaged"),
    ("a file that ends too early, opened lazily", truncated, "damaged"),
    ("200 megapixels", bomb, "more than 80 megapixels"),
    ("an array of 81 megapixels", lambda _: np.zeros((9000, 9001, 3), np.uint8), "9001 x 9000 pixels, more than 80"),
    ("a named pipe", pipe, "is a pipe or a device"),
    ("integers beyond 16 bits", lambda _: Image.fromarray(np.full((2, 2), 70000, np.int32)), "beyond 16 bits"),
    ("nothing", lambda _: None, "this is builtins.NoneType"),
    ("NUL in the name", lambda _: "a\0.png", "cannot be used"),
    ("a path of 5,000 letters", lambda _: "x" * 5000, "File name too long"),
    ("a folder", lambda folder: folder, "is a folder"),
]


@pytest.mark.parametrize(("make", "message"), named(IMAGES))
def test_what_is_no_image_is_refused(tmp_path, make, message):
    with pytest.raises(GradeclipError, match=message):
        read_image(make(tmp_path))


@pytest.mark.parametrize("mode", ["La", "RGBa", "LAB", "YCbCr", "I;16", "RGBX"])
def test_an_image_of_a_rare_mode_is_read_or_refused(mode):
    try:
        assert read_image(Image.new(mode, (3, 3))).mode == "RGB"
    except GradeclipError as refusal:
        assert refusal.code == "E-image-damaged"
