"""Pictures as people have them: whatever can be read is converted, the rest is refused in one sentence."""

import numpy as np
import pytest
import torch
from PIL import Image

from gradeclip_utils.files import data_path
from gradeclip_utils.images import read_image

RED, WHITE = (200, 30, 40), (255, 255, 255)


def stripes(mode="RGB", size=(40, 20)):
    """Left half red, right half white."""
    picture = Image.new("RGB", size, WHITE)
    picture.paste(RED, (0, 0, size[0] // 2, size[1]))
    return picture.quantize(4) if mode == "P" else picture.convert(mode)


def left_and_right(picture):
    middle = picture.height // 2
    return picture.getpixel((picture.width // 4, middle)), picture.getpixel((3 * picture.width // 4, middle))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "tiff", "bmp"])
def test_ordinary_files_come_as_they_are(tmp_path, suffix):
    stripes().save(tmp_path / f"picture.{suffix}")
    picture = read_image(tmp_path / f"picture.{suffix}")
    assert (picture.mode, picture.size) == ("RGB", (40, 20))
    assert np.allclose(left_and_right(picture), (RED, WHITE), atol=6)


def test_a_path_may_be_a_string_and_the_home_folder_a_tilde(tmp_path, monkeypatch):
    stripes().save(tmp_path / "picture.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_image("~/picture.png").size == (40, 20)


def test_an_array_and_an_image_of_the_same_pixels_are_the_same_picture():
    array = np.asarray(stripes())
    assert np.array_equal(np.asarray(read_image(array)), array)
    assert np.array_equal(np.asarray(read_image(array[:, ::-1])), array[:, ::-1])
    assert np.array_equal(np.asarray(read_image(stripes())), array)


@pytest.mark.parametrize("mode", ["P", "CMYK", "RGBA", "YCbCr", "HSV"])
def test_other_colour_modes_are_converted(mode):
    picture = read_image(stripes(mode))
    assert picture.mode == "RGB"
    assert np.allclose(left_and_right(picture), (RED, WHITE), atol=6)


@pytest.mark.parametrize("mode", ["L", "LA", "1"])
def test_greyscale_becomes_grey(mode):
    left, right = left_and_right(read_image(stripes(mode)))
    assert len(set(left)) == 1
    assert right == WHITE


def test_a_palette_with_a_transparent_entry_is_laid_over_white(tmp_path):
    stripes("P").save(tmp_path / "picture.png", transparency=stripes("P").getpixel((5, 5)))
    assert left_and_right(read_image(tmp_path / "picture.png")) == (WHITE, WHITE)


def test_what_is_half_transparent_is_half_white():
    picture = stripes("RGBA")
    picture.putalpha(128)
    left, right = left_and_right(read_image(picture))
    assert np.allclose(left, (np.array(RED) + 255) / 2, atol=2)
    assert right == WHITE


def test_16_bits_are_scaled_and_not_clipped(tmp_path):
    ramp = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(1, -1).repeat(4, 0)
    Image.fromarray(ramp).save(tmp_path / "picture.png")
    for picture in (read_image(tmp_path / "picture.png"), read_image(Image.fromarray(ramp.astype(np.int32)))):
        assert np.array_equal(np.asarray(picture)[0, :, 0], np.arange(256))


def test_a_cmyk_jpeg_keeps_its_colours(tmp_path):
    stripes("CMYK").save(tmp_path / "picture.jpg", quality=95)
    assert np.allclose(left_and_right(read_image(tmp_path / "picture.jpg")), (RED, WHITE), atol=8)


@pytest.mark.parametrize(("orientation", "size"), [(1, (40, 20)), (3, (40, 20)), (6, (20, 40)), (8, (20, 40))])
def test_a_picture_is_turned_as_its_exif_data_say(tmp_path, orientation, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stripes().save(tmp_path / "picture.jpg", exif=exif, quality=95)
    picture = read_image(tmp_path / "picture.jpg")
    assert picture.size == size
    first = {1: (5, 10), 3: (35, 10), 6: (10, 5), 8: (10, 35)}[orientation]  # where the red half has gone
    assert np.allclose(picture.getpixel(first), RED, atol=8)


def test_the_first_frame_of_an_animation_is_taken(tmp_path):
    stripes().save(tmp_path / "picture.gif", save_all=True, append_images=[Image.new("RGB", (40, 20))])
    assert np.allclose(left_and_right(read_image(tmp_path / "picture.gif")), (RED, WHITE), atol=6)


@pytest.mark.parametrize("size", [(1, 1), (5000, 4000)])
def test_the_smallest_and_a_20_megapixel_picture_are_read(size):
    assert read_image(Image.new("L", size, 7)).size == size


def test_the_picture_that_was_passed_in_is_left_alone():
    picture = stripes("RGBA")
    before = picture.tobytes()
    read_image(picture)
    assert (picture.mode, picture.tobytes()) == ("RGBA", before)


def test_a_file_that_is_no_picture_is_refused(tmp_path):
    (tmp_path / "notes.png").write_text("a red car")
    with pytest.raises(ValueError, match=r"notes.png is not a picture that Pillow can read"):
        read_image(tmp_path / "notes.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff"])
def test_a_file_that_ends_too_early_is_refused(tmp_path, suffix):
    Image.effect_noise((200, 200), 80).convert("RGB").save(tmp_path / f"whole.{suffix}")
    whole = (tmp_path / f"whole.{suffix}").read_bytes()
    (tmp_path / f"cut.{suffix}").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut.* (damaged or ends too early|not a picture)"):
        read_image(tmp_path / f"cut.{suffix}")


def test_a_png_with_a_broken_chunk_is_refused(tmp_path):
    stripes().save(tmp_path / "picture.png")
    broken = bytearray((tmp_path / "picture.png").read_bytes())
    broken[45:60] = bytes(15)
    (tmp_path / "picture.png").write_bytes(broken)
    with pytest.raises(ValueError, match="damaged or ends too early"):
        read_image(tmp_path / "picture.png")


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match="no picture file .*nothing.png"):
        read_image(tmp_path / "nothing.png")
    with pytest.raises(ValueError, match="is a folder"):
        read_image(tmp_path)


@pytest.mark.parametrize(
    ("array", "rule"),
    [
        (np.zeros((4, 4, 3), np.float32), r"must be uint8 .*float32 .*\(array \* 255\)"),
        (np.zeros((4, 4), np.uint8), r"shape \(H, W, 3\).*\(4, 4\)"),
        (np.zeros((3, 4, 4), np.uint8), r"\(3, 4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), r"\(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), r"\(0, 4, 3\)"),
        (Image.new("F", (4, 4)), "holds floats"),
        (Image.new("RGB", (0, 4)), "has no pixels: 0 x 4"),
    ],
)
def test_pixels_without_an_agreed_meaning_are_refused_with_the_rule(array, rule):
    with pytest.raises(ValueError, match=rule):
        read_image(array)


def test_a_tensor_is_refused_with_the_way_to_convert_it():
    with pytest.raises(TypeError, match=r"this is torch.Tensor.*permute\(1, 2, 0\)"):
        read_image(torch.zeros(3, 4, 4))


def test_the_projects_own_data_are_found():
    assert data_path("concepts.csv").is_file()
