"""Images: every form that people have is read as RGB, and the argument is left alone."""

import numpy as np
import pytest
from PIL import Image

from gradeclip_utils.images import read_image

RED, WHITE = (200, 30, 40), (255, 255, 255)


def stripes(mode="RGB", size=(40, 20)):
    """Left half red, right half white."""
    image = Image.new("RGB", size, WHITE)
    image.paste(RED, (0, 0, size[0] // 2, size[1]))
    return image.quantize(4) if mode == "P" else image.convert(mode)


def left_and_right(image):
    middle = image.height // 2
    return image.getpixel((image.width // 4, middle)), image.getpixel(
        (3 * image.width // 4, middle)
    )


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "tiff", "bmp"])
def test_ordinary_files_come_as_they_are(tmp_path, monkeypatch, suffix):
    stripes().save(tmp_path / f"image.{suffix}")
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in (tmp_path / f"image.{suffix}", f"~/image.{suffix}"):
        image = read_image(path)
        assert (image.mode, image.size) == ("RGB", (40, 20))
        assert np.allclose(left_and_right(image), (RED, WHITE), atol=6)
    array = np.asarray(stripes())[:, ::-1]
    assert np.array_equal(np.asarray(read_image(array)), array)


@pytest.mark.parametrize("mode", ["P", "CMYK", "RGBA", "YCbCr", "LA", "1"])
def test_other_colour_modes_are_converted(mode, tmp_path):
    given = stripes(mode)
    before = given.tobytes()
    image = read_image(given)
    left, right = left_and_right(image)
    assert image.mode == "RGB" and np.allclose(right, WHITE, atol=6)
    assert len(set(left)) == 1 if mode in ("LA", "1") else np.allclose(left, RED, atol=6)
    assert (given.mode, given.tobytes()) == (mode, before)


def test_transparent_pixels_are_laid_over_white(tmp_path):
    stripes("P").save(tmp_path / "image.png", transparency=stripes("P").getpixel((5, 5)))
    assert left_and_right(read_image(tmp_path / "image.png")) == (WHITE, WHITE)
    Image.fromarray(np.array([[1000, 30000]] * 2, np.uint16)).save(
        tmp_path / "image.png", transparency=1000
    )
    assert left_and_right(read_image(tmp_path / "image.png")) == (WHITE, (117,) * 3)
    image = stripes("RGBA")
    image.putalpha(128)
    left, right = left_and_right(read_image(image))
    assert np.allclose(left, (np.array(RED) + 255) / 2, atol=2) and right == WHITE


def test_16_bits_are_scaled_and_not_clipped(tmp_path):
    ramp = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(1, -1).repeat(4, 0)
    Image.fromarray(ramp).save(tmp_path / "image.png")
    for image in (
        read_image(tmp_path / "image.png"),
        read_image(Image.fromarray(ramp.astype(np.int32))),
    ):
        assert np.array_equal(np.asarray(image)[0, :, 0], np.arange(256))


@pytest.mark.parametrize(("orientation", "size"), [(3, (40, 20)), (6, (20, 40)), (8, (20, 40))])
def test_an_image_is_turned_as_its_exif_data_say(tmp_path, orientation, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stripes().save(tmp_path / "image.jpg", exif=exif, quality=95)
    image = read_image(tmp_path / "image.jpg")
    first = {3: (35, 10), 6: (10, 5), 8: (10, 35)}[orientation]  # where the red half has gone
    assert image.size == size and np.allclose(image.getpixel(first), RED, atol=8)


def test_the_first_frame_of_an_animation_is_taken(tmp_path):
    stripes().save(
        tmp_path / "image.gif", save_all=True, append_images=[Image.new("RGB", (40, 20))]
    )
    assert np.allclose(left_and_right(read_image(tmp_path / "image.gif")), (RED, WHITE), atol=6)


def test_the_smallest_and_a_20_megapixel_image_are_read():
    for size in ((1, 1), (5000, 4000)):
        assert read_image(Image.new("L", size, 7)).size == size
