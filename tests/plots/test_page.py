"""Page: the browser draws the same description as matplotlib, in one file that needs no network."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.plots import paint
from gradeclip_utils.plots.colours import to_rgb
from gradeclip_utils.plots.drawing import of_explanation
from gradeclip_utils.plots.page import payload
from tests.browser import BROWSER, browser_context_args, browser_type_launch_args

from .cases import explanation, interactions

__all__ = ["browser_context_args", "browser_type_launch_args"]
EVIL = "a red </script><script>alert(1)</script> car"
MORE = {"percentile": np.array([98.0, 33.0]), "null_median": 0.34, "null_count": 243}


def inside(path):
    """The view that the script of a page is given."""
    given = re.search(
        r'<script type="application/json">(.*?)</script>', path.read_text(), re.DOTALL
    )[1]
    return json.loads(given)["data"]


def test_one_file_holds_everything_and_text_stays_text(tmp_path):
    path = explanation(EVIL, "a dog").to_html(tmp_path / "page.html")
    page = path.read_text()
    assert "alert(1)</script>" not in page and 'src="http' not in page and "import(" not in page
    view = inside(path)
    assert [panel["name"] for panel in view["panels"]] == [EVIL, "a dog"]
    with pytest.raises(GradeclipError, match=r"must end in .html"):
        explanation("a dog").to_html(tmp_path / "page.png")


def test_word_x_region_has_the_map_of_every_word(tmp_path):
    found = interactions()
    view = inside(found.to_html(tmp_path / "page.html"))
    np.testing.assert_allclose(view["panels"][0]["regions"], found.maps.reshape(6, -1), atol=1e-3)


def test_a_box_is_in_fractions_of_the_image_and_numbers_have_four_digits():
    view = payload(of_explanation(explanation("a dog", box=(15, 0, 105, 90))))
    assert view["box"] == pytest.approx([0.125, 0, 0.75, 1]) and view["framed"]
    given = np.array(view["panels"][0]["map"])
    assert (given == np.round(given, 7)).all() and given.any()  # the largest is about 0.01


@pytest.mark.parametrize("_", [pytest.param(0, marks=BROWSER)])
def test_both_backends_agree_on_the_colours_of_maps_and_words(page, tmp_path, _):
    found = explanation("a red car", "a dog", size=(288, 216), against="a blue dog")
    page.goto(f"file://{found.to_html(tmp_path / 'page.html')}")
    url = page.locator("canvas").first.evaluate("canvas => canvas.toDataURL('image/png')")
    over = (
        np.asarray(
            Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGBA"), dtype=float
        )
        / 255
    )
    top = np.abs(found.image_maps).max()
    white = Image.new("RGB", (576, 432), "white")
    painted = paint(white, found.image_maps[0], signed=True, vmax=top).resize(
        (288, 216), Image.Resampling.BOX
    )
    composed = over[..., :3] * over[..., 3:] + 1 - over[..., 3:]
    assert np.abs(composed - np.asarray(painted) / 255).mean() < 0.01
    drawing = of_explanation(found)
    word = next(cell[0] for cell in drawing.panels[0].cells if cell[0].text == "car")
    car = page.locator(".gradeclip-word", has_text="car").first
    shown = car.evaluate("node => getComputedStyle(node).backgroundColor")
    expected = to_rgb(word.score / drawing.word_scale) * 255
    np.testing.assert_allclose(
        [float(part) for part in re.findall(r"[\d.]+", shown)][:3], expected, atol=3
    )


@pytest.mark.parametrize("width", [pytest.param(width, marks=BROWSER) for width in (390, 860)])
def test_a_page_shows_title_map_similarity_and_legend_without_a_scroll_bar(page, tmp_path, width):
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(f"file://{explanation('a dog', 'a piano', **MORE).to_html(tmp_path / 'page.html')}")
    expect(page.locator("canvas")).to_have_count(2)
    expect(page.get_by_text("similarity 0.30, above 33 % of captions")).to_be_visible()
    expect(page.get_by_text("tick: half of 243 other captions")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    left = page.locator("canvas").evaluate_all(
        "nodes => nodes.map(node => node.getBoundingClientRect().left)"
    )
    assert (left[0] == left[1]) == (width == 390)  # a telephone has one prompt a row
    assert said == [] and len(asked) == 1


@pytest.mark.parametrize("_", [pytest.param(0, marks=BROWSER)])
def test_a_word_that_is_pointed_at_shows_its_map_and_its_number(page, tmp_path, _):
    page.goto(f"file://{interactions().to_html(tmp_path / 'page.html')}")
    canvas, word = page.locator("canvas"), page.locator("button.gradeclip-word", has_text="ball")
    before = canvas.evaluate("canvas => canvas.toDataURL()")
    word.click()
    expect(word).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_text("“ball”: relevance +0.020")).to_be_visible()
    page.wait_for_timeout(600)
    assert canvas.evaluate("canvas => canvas.toDataURL()") != before
    page.keyboard.press("Escape")
    expect(word).to_have_attribute("aria-pressed", "false")
