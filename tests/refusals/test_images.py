"""Images: things that are no image, and images that are too large to be decoded."""

import io
import os

import numpy as np
import pytest
import torch
from PIL import Image

from gradeclip_utils import read_image
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.scenes import arrange
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


def broken_chunk(folder):
    Image.effect_noise((90, 90), 60).save(folder / "x.png")
    content = bytearray((folder / "x.png").read_bytes())
    content[45:60] = bytes(15)
    return holding("broken.png", content)(folder)


def pipe(folder):
    os.mkfifo(folder / "pipe.png")
    return folder / "pipe.png"


def holding(name, content):
    def make(folder):
        (folder / name).write_bytes(content)
        return folder / name

    return make


def zeros(*shape, dtype=np.uint8):
    return lambda _: np.zeros(shape, dtype)


def half_of(suffix):
    def make(folder):
        Image.effect_noise((200, 200), 80).convert("RGB").save(folder / f"whole.{suffix}")
        whole = (folder / f"whole.{suffix}").read_bytes()
        return holding(f"cut.{suffix}", whole[: len(whole) // 2])(folder)

    return make


HEIC, FILM = (b"\0\0\0\x18ftyp" + brand + b"\0" * 99 for brand in (b"heic", b"isom"))
IMAGES = [
    (
        "a photo of a telephone",
        holding("a.heic", HEIC),
        r"a\.heic is a HEIC or AVIF .*: save it as JPEG or PNG",
    ),
    (
        "a film",
        holding("a.png", FILM),
        r"is not an image that Pillow can read .*: save it as JPEG or PNG",
    ),
    ("an empty file", holding("a.png", b""), r"a\.png is empty"),
    ("a file that was closed", closed, "damaged"),
    ("a file that ends too early, opened lazily", truncated, "damaged"),
    ("a PNG with a broken chunk", broken_chunk, "damaged or ends too early"),
    *(
        (f"half of a {suffix}", half_of(suffix), r"cut.* (damaged or ends too early|not an image)")
        for suffix in ("png", "jpg", "webp", "tiff")
    ),
    ("200 megapixels", bomb, "has more than 80 megapixels: make it smaller first"),
    ("an array of 81 megapixels", zeros(9000, 9001, 3), "9001 x 9000 pixels, more than 80"),
    ("no pixels", lambda _: Image.new("RGB", (0, 4)), "has no pixels: 0 x 4"),
    ("a named pipe", pipe, "is a pipe or a device"),
    ("floats", lambda _: Image.new("F", (4, 4)), "holds floats"),
    (
        "integers beyond 16 bits",
        lambda _: Image.fromarray(np.full((2, 2), 70000, np.int32)),
        "beyond 16 bits",
    ),
    (
        "nothing",
        lambda _: None,
        r"an image must be a PIL image, a path, or a uint8 array .*, got None$",
    ),
    ("a list", lambda _: ["a.png"], r"got \['a.png'\]; explain_batch takes several"),
    ("a scene", lambda _: arrange(["dog"]), r"got .*; pass its \.image\(\)$"),
    ("a tensor", lambda _: torch.zeros(3, 4, 4), r"got tensor.*permute\(1, 2, 0\)"),
    (
        "an address",
        lambda _: "https://example.com/dog.jpg",
        "'https://example.com/dog.jpg' is an address, and nothing",
    ),
    ("a missing file", lambda folder: folder / "nothing.png", "no image file .*nothing.png"),
    ("NUL in the name", lambda _: "a\0.png", "an image file .* cannot be used"),
    ("a path of 5,000 letters", lambda _: "x" * 5000, "File name too long"),
    ("a folder", lambda folder: folder, "is a folder"),
    (
        "an array of floats",
        zeros(4, 4, 3, dtype=np.float32),
        r"uint8 .*float32 of shape .*\(array \* 255\)",
    ),
    ("an array of greys", zeros(4, 4), r"shape \(H, W, 3\).*\(4, 4\): of greys, np.stack"),
    (
        "four channels",
        zeros(4, 4, 4),
        r"\(4, 4, 4\): of four channels, Image\.fromarray\(array\) of Pillow",
    ),
    ("an open file", lambda _: io.BytesIO(HEIC), "Image.open of Pillow reads a file that is open"),
    ("channels first", zeros(3, 4, 4), r"\(3, 4, 4\): array.transpose\(1, 2, 0\)"),
    (
        "a masked array",
        lambda _: np.ma.masked_array(np.zeros((4, 4, 3), np.uint8), mask=True),
        "this one is masked",
    ),
]


@pytest.mark.parametrize(("make", "message"), named(IMAGES))
def test_things_that_are_no_image_are_refused(tmp_path, make, message):
    with pytest.raises(GradeclipError, match=message):
        read_image(make(tmp_path))
