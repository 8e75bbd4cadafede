"""Images: every form that people have is read as RGB, and a heat map lies on what the model saw."""

import numpy as np
import open_clip
import pytest
import torch
from numpy.testing import assert_allclose
from PIL import Image
from timm.data import create_transform
from torch.testing import assert_close
from torchvision import transforms
from torchvision.transforms import v2

from gradeclip_utils.errors import ExplanationWarning, GradeclipError
from gradeclip_utils.images import model_view, native_view, onto_image, pool, read_image

RED = (200, 30, 40)
WHITE = (255, 255, 255)


def stripes(mode="RGB", size=(40, 20)):
    """Left half red, right half white."""
    image = Image.new("RGB", size, WHITE)
    image.paste(RED, (0, 0, size[0] // 2, size[1]))
    if mode == "P":
        return image.quantize(4)
    return image.convert(mode)


def left_and_right(image):
    """The colours in the middle of both halves."""
    quarter = image.width // 4
    middle = image.height // 2
    return image.getpixel((quarter, middle)), image.getpixel((3 * quarter, middle))


# ------------------------------------------------------------------------------------------ reading


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "tiff", "bmp"])
def test_ordinary_files_come_as_they_are(tmp_path, monkeypatch, suffix):
    name = f"image.{suffix}"
    stripes().save(tmp_path / name)
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in (tmp_path / name, f"~/{name}"):
        image = read_image(path)
        assert (image.mode, image.size) == ("RGB", (40, 20))
        assert np.allclose(left_and_right(image), (RED, WHITE), atol=6)


@pytest.mark.parametrize("mode", ["P", "CMYK", "RGBA", "YCbCr", "LA", "1"])
def test_other_colour_modes_are_converted_and_the_argument_stays(mode):
    original = stripes(mode)
    before = original.tobytes()

    image = read_image(original)

    red, white = left_and_right(image)
    assert image.mode == "RGB"
    assert np.allclose(white, WHITE, atol=6)
    if mode in ("LA", "1"):
        assert len(set(red)) == 1  # a grey
    else:
        assert np.allclose(red, RED, atol=6)
    assert (original.mode, original.tobytes()) == (mode, before)


def test_transparent_pixels_are_laid_over_white(tmp_path):
    palette = stripes("P")
    palette.save(tmp_path / "image.png", transparency=palette.getpixel((5, 5)))
    colours = left_and_right(read_image(tmp_path / "image.png"))
    assert colours == (WHITE, WHITE)

    half_transparent = stripes("RGBA")
    half_transparent.putalpha(128)
    red, white = left_and_right(read_image(half_transparent))
    red_on_white = (np.array(RED) + 255) / 2
    assert np.allclose(red, red_on_white, atol=2)
    assert white == WHITE


def test_16_bits_are_scaled_and_not_clipped(tmp_path):
    ramp = np.linspace(0, 65535, 256, dtype=np.uint16)
    row = ramp[None]
    Image.fromarray(row).save(tmp_path / "image.png")
    of_32_bits = Image.fromarray(row.astype(np.int32))
    for source in (tmp_path / "image.png", of_32_bits):
        red, _, _ = np.asarray(read_image(source)).T
        assert np.array_equal(red[:, 0], np.arange(256))


@pytest.mark.parametrize(
    ("orientation", "size", "in_the_red_half"),
    [
        (3, (40, 20), (35, 10)),
        (6, (20, 40), (10, 5)),
        (8, (20, 40), (10, 35)),
    ],
)
def test_an_image_is_turned_as_its_exif_data_say(tmp_path, orientation, size, in_the_red_half):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stripes().save(tmp_path / "image.jpg", exif=exif, quality=95)

    image = read_image(tmp_path / "image.jpg")

    assert image.size == size
    assert np.allclose(image.getpixel(in_the_red_half), RED, atol=8)


def test_the_first_frame_of_an_animation_is_taken(tmp_path):
    black = Image.new("RGB", (40, 20))
    stripes().save(tmp_path / "image.gif", save_all=True, append_images=[black])
    colours = left_and_right(read_image(tmp_path / "image.gif"))
    assert np.allclose(colours, (RED, WHITE), atol=6)


# ------------------------------------------------------------------------------ what the model sees


def ramps(width, height):
    """An image whose red says how far right a pixel is, and its green how far down, 0 to 255."""
    across = np.linspace(0, 255, width)
    down = np.linspace(0, 255, height)
    red, green = np.meshgrid(across, down)
    blue = np.zeros_like(red)
    pixels = np.stack([red, green, blue], axis=-1).round()
    return Image.fromarray(pixels.astype(np.uint8))


def transform(size, resize_mode):
    """A preprocessing that keeps colours as they are."""
    if resize_mode == "cropped before":
        steps = [
            transforms.CenterCrop(30),
            transforms.Resize(size),
            transforms.ToTensor(),
        ]
        return transforms.Compose(steps)
    return open_clip.image_transform(
        size,
        is_train=False,
        resize_mode=resize_mode,
        fill_color=0,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )


def largest_error(colours, start, end, length):
    """How far places in the image differ by the colours of a row and by the box, in its pixels."""
    pixel = (end - start) / len(colours)
    by_box = start + (np.arange(len(colours)) + 0.5) * pixel
    by_colours = colours * (length - 1) + 0.5
    errors = np.abs(by_box - by_colours)
    inside = (by_box > 1) & (by_box < length - 1)
    return errors[inside].max()


@pytest.mark.parametrize("resize_mode", ["shortest", "squash", "longest", "cropped before"])
@pytest.mark.parametrize("size", [32, (32, 48)])
@pytest.mark.parametrize(
    ("width", "height"),
    [
        (80, 50),
        (50, 80),
        (1000, 90),
        (31, 31),
    ],
)
def test_the_box_says_where_the_models_pixels_come_from(width, height, size, resize_mode):
    """Read the place off the pixels themselves: the ramps tell where each came from."""
    view = model_view(transform(size, resize_mode), ramps(width, height))
    left_side, top, right_side, bottom = view.box
    red, green, _ = view.pixels.numpy()
    rows, columns = red.shape
    middle_row = red[rows // 2]
    middle_column = green[:, columns // 2]

    error_x = largest_error(middle_row, left_side, right_side, width)
    error_y = largest_error(middle_column, top, bottom, height)

    # three quarters of a pixel of the model's, and the steps of 8 bits
    pixel = max(1, (right_side - left_side) / columns)
    allowed = 0.75 * pixel + width / 255
    assert error_x < allowed
    assert error_y < allowed


@pytest.mark.parametrize("size", [(80, 50), (50, 80)])
def test_steps_of_torchvisions_second_version_and_of_timm_are_followed(size):
    second = v2.Compose(
        [
            v2.Resize(32, v2.InterpolationMode.BICUBIC),
            v2.CenterCrop(32),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.0] * 3, [1.0] * 3),
        ]
    )
    border = create_transform(
        32,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        crop_mode="border",
        crop_pct=1.0,
    )
    image = ramps(*size)
    for mode, preprocess in (("shortest", second), ("longest", border)):
        expected = model_view(transform(32, mode), image)
        view = model_view(preprocess, image)
        assert view.box == expected.box
        colours = view.pixels.mean((1, 2))
        expected_colours = expected.pixels.mean((1, 2))
        assert_close(colours, expected_colours, atol=2e-2, rtol=0)
    assert native_view(second, image, (8, 8)).box == (0, 0, *size)


def test_an_unknown_step_is_taken_to_show_the_whole_image_with_a_warning():
    rotating = transforms.Compose(
        [transforms.RandomRotation(10), transforms.Resize((32, 32)), transforms.ToTensor()]
    )
    with pytest.warns(ExplanationWarning, match="'RandomRotation' is not known"):
        view = model_view(rotating, ramps(80, 50))
    assert view.box == (0, 0, 80, 50)
    assert view.pixels.shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("width", "height"),
    [
        (80, 50),
        (50, 80),
        (1, 1),
        (5000, 4000),
        (3, 900),
    ],
)
def test_native_sides_are_whole_patches_near_the_images_own(width, height):
    image = Image.new("RGB", (width, height))
    view = native_view(transform(32, "shortest"), image, (8, 8))
    channels, seen_height, seen_width = view.pixels.shape
    patches = seen_height * seen_width / 64

    assert view.box == (0, 0, width, height)
    assert channels == 3
    assert seen_height % 8 == seen_width % 8 == 0
    assert patches <= 2048
    if width * height < 2048 * 64:
        assert abs(seen_height - max(height, 8)) <= 4
        assert abs(seen_width - max(width, 8)) <= 4
    else:
        assert seen_width / seen_height == pytest.approx(width / height, rel=0.05)


def test_native_resolution_needs_a_step_that_normalises():
    with pytest.raises(GradeclipError, match="Normalize"):
        native_view(transforms.ToTensor(), ramps(32, 32), (8, 8))


# ------------------------------------------------------------------------------- maps and the image


def test_a_heat_map_is_zero_outside_the_box():
    ones = np.ones((4, 4), np.float32)
    heat = onto_image(ones, (15, 0, 65, 50), (80, 50))
    assert heat.shape == (50, 80)
    assert heat.dtype == np.float32
    assert (heat[:, 15:65] == 1).all()
    assert heat.sum() == 50 * 50

    padded = onto_image(ones, (0, -20, 80, 60), (80, 40))
    assert (padded == 1).all()


def test_a_heat_map_is_the_map_resized_bilinearly():
    map_ = np.random.default_rng(0).random((3, 5), dtype=np.float32)
    batch = torch.tensor(map_)[None, None]
    expected = torch.nn.functional.interpolate(batch, (60, 100), mode="bilinear")
    heat = onto_image(map_, (0, 0, 100, 60), (100, 60))
    assert_allclose(heat[None, None], expected, atol=1e-6)


def test_pooling_takes_means_of_cells_and_counts_what_lies_outside_as_zero():
    values = np.random.default_rng(0).random((6, 8))
    blocks = values.reshape(3, 2, 2, 4)
    means = pool(values, (3, 2))
    assert_allclose(means, blocks.mean(axis=(1, 3)))
    assert_allclose(pool(values, (6, 8)), values)

    ones = np.ones((4, 4))
    means = pool(ones, (1, 2), (-4, 0, 4, 4))  # of which the left half lies outside
    assert_allclose(means, [[0, 1]])


def test_pooling_counts_a_part_of_a_pixel_as_this_part():
    values = np.random.default_rng(0).random((6, 8))
    means = pool(values, (3, 3), (0.7, 0.2, 7.9, 5.3))

    # how much of each row and column the box covers
    rows = np.array([0.8, 1, 1, 1, 1, 0.3])
    columns = np.array([0.3, 1, 1, 1, 1, 1, 1, 0.9])
    total = rows @ values @ columns
    area = rows.sum() * columns.sum()
    assert means.mean() == pytest.approx(total / area)
