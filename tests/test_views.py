"""Views: a heat map lies on what the model saw."""

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from torchvision import transforms
from torchvision.transforms import v2

from gradeclip_utils.errors import ExplanationWarning
from gradeclip_utils.images import model_view, native_view, onto_image


def ramps(width, height):
    """An image whose red says how far right a pixel is, and whose green says how far down, in 0 to 255."""
    red, green = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([red, green, 0 * red], axis=-1).round().astype(np.uint8))


def transform(size, resize_mode, fill=0):
    if resize_mode == "cropped before":
        return transforms.Compose(
            [transforms.CenterCrop(30), transforms.Resize(size), transforms.ToTensor()]
        )
    return open_clip.image_transform(
        size,
        is_train=False,
        resize_mode=resize_mode,
        fill_color=fill,
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
    )


@pytest.mark.parametrize("resize_mode", ["shortest", "squash", "longest", "cropped before"])
@pytest.mark.parametrize("size", [32, (32, 48)])
@pytest.mark.parametrize(("width", "height"), [(80, 50), (50, 80), (1000, 90), (31, 31)])
def test_the_box_says_where_the_models_pixels_come_from(width, height, size, resize_mode):
    """Read the place off the pixels themselves: the ramps tell where each came from."""
    view = model_view(transform(size, resize_mode), ramps(width, height))
    left, top, right, bottom = view.box
    rows, columns = view.pixels.shape[1:]
    x = left + (np.arange(columns) + 0.5) / columns * (right - left)
    y = top + (np.arange(rows) + 0.5) / rows * (bottom - top)
    inside_x, inside_y = (x > 1) & (x < width - 1), (y > 1) & (y < height - 1)
    assert inside_x.any() and inside_y.any()
    middle_row, middle_column = (
        np.flatnonzero(inside)[inside.sum() // 2] for inside in (inside_y, inside_x)
    )
    seen_x = view.pixels[0, middle_row].numpy()[inside_x] * (width - 1) + 0.5
    seen_y = view.pixels[1, :, middle_column].numpy()[inside_y] * (height - 1) + 0.5
    one_pixel = (right - left) / columns
    assert np.abs(seen_x - x[inside_x]).max() < 0.75 * max(1, one_pixel) + width / 255
    assert np.abs(seen_y - y[inside_y]).max() < 0.75 * max(1, one_pixel) + height / 255


@pytest.mark.parametrize("size", [(80, 50), (50, 80)])
def test_steps_of_torchvisions_second_version_and_of_timm_are_followed(size):
    tensor = [
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([0.0] * 3, [1.0] * 3),
    ]
    second = v2.Compose([v2.Resize(32, v2.InterpolationMode.BICUBIC), v2.CenterCrop(32), *tensor])
    border = create_transform(32, mean=(0.0,) * 3, std=(1.0,) * 3, crop_mode="border", crop_pct=1.0)
    for mode, other in (("shortest", second), ("longest", border)):
        expected = model_view(transform(32, mode), ramps(*size))
        found = model_view(other, ramps(*size))
        assert found.box == expected.box
        torch.testing.assert_close(
            found.pixels.mean((1, 2)), expected.pixels.mean((1, 2)), atol=2e-2, rtol=0
        )
    assert native_view(second, ramps(*size), (8, 8)).box == (0, 0, *size)


def test_an_unknown_step_is_taken_to_show_the_whole_image_and_said():
    custom = transforms.Compose(
        [transforms.RandomRotation(10), transforms.Resize((32, 32)), transforms.ToTensor()]
    )
    with pytest.warns(ExplanationWarning, match="'RandomRotation' is not known"):
        view = model_view(custom, ramps(80, 50))
    assert view.box == (0, 0, 80, 50) and view.pixels.shape == (3, 32, 32)
    with pytest.warns(ExplanationWarning, match="'<lambda>' is not known"):
        model_view(lambda image: torch.zeros(3, 32, 32), ramps(80, 50))


@pytest.mark.parametrize(("width", "height"), [(80, 50), (50, 80), (1, 1), (5000, 4000), (3, 900)])
def test_native_sides_are_whole_patches_near_the_images_own(width, height):
    view = native_view(transform(32, "shortest"), Image.new("RGB", (width, height)), (8, 8))
    rows, columns = view.pixels.shape[1] // 8, view.pixels.shape[2] // 8
    assert view.pixels.shape == (3, rows * 8, columns * 8)
    assert view.box == (0, 0, width, height) and rows * columns <= 2048
    if width * height < 2048 * 64:
        assert abs(rows * 8 - max(height, 8)) <= 4 and abs(columns * 8 - max(width, 8)) <= 4
    else:
        assert columns / rows == pytest.approx(width / height, rel=0.05)


def test_native_resolution_normalises_colours_as_the_model_does():
    image = ramps(32, 32)
    own = open_clip.image_transform(32, is_train=False)
    torch.testing.assert_close(native_view(own, image, (8, 8)).pixels, own(image))
    with pytest.raises(ValueError, match="needs a preprocessing with a Normalize step"):
        native_view(transforms.Compose([transforms.ToTensor()]), image, (8, 8))


def test_a_heat_map_is_zero_outside_the_box_and_within_it_the_map_resized_bilinearly():
    heat = onto_image(np.ones((4, 4), np.float32), (15, 0, 65, 50), (80, 50))
    assert heat.shape == (50, 80) and heat.dtype == np.float32
    assert (heat[:, 15:65] == 1).all() and heat.sum() == 50 * 50
    padded = onto_image(np.ones((4, 4), np.float32), (0, -20, 80, 60), (80, 40))
    assert (padded == 1).all()
    map_ = np.random.default_rng(0).random((3, 5)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.tensor(map_)[None, None], (60, 100), mode="bilinear"
    )[0, 0]
    np.testing.assert_allclose(onto_image(map_, (0, 0, 100, 60), (100, 60)), expected, atol=1e-6)
