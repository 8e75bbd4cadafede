"""Page: the browser draws the same description as matplotlib, in one file without a network."""

import base64
import hashlib
import io
import json
import re

import numpy as np
import pytest
from PIL import Image, ImageChops
from playwright.sync_api import expect

from gradeclip_utils.plots import paint
from gradeclip_utils.plots.colours import to_rgb
from gradeclip_utils.plots.drawing import of_explanation
from gradeclip_utils.plots.page import FRONT, payload
from tests.browser import BROWSER, in_a_browser

from .cases import NULLS, OVER_OTHERS, by_leave_one_out, explanation, interactions

EVIL = "a red </script><script>alert(1)</script> car"


@pytest.fixture
def show(page, tmp_path):
    """Opens the page of a result in the browser."""

    def show(result):
        path = result.to_html(tmp_path / "page.html")
        page.goto(f"file://{path}")

    return show


def data_in(path):
    """The data that the script of a page is given."""
    text = path.read_text()
    data = re.search(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)[1]
    return json.loads(data)["data"]


def test_one_file_holds_everything_and_text_stays_text(tmp_path):
    path = explanation(EVIL, "a dog").to_html(tmp_path / "page.html")
    page = path.read_text()
    assert "alert(1)</script>" not in page
    assert 'src="http' not in page
    assert not re.search(r"^import |import\(", page, re.MULTILINE)
    assert [panel["name"] for panel in data_in(path)["panels"]] == [EVIL, "a dog"]


def test_word_x_region_has_the_map_of_every_word(tmp_path):
    result = interactions()
    path = result.to_html(tmp_path / "page.html")
    (panel,) = data_in(path)["panels"]
    expected = result.image_maps.reshape(6, -1)
    np.testing.assert_allclose(panel["regions"], expected, atol=1e-3)


def test_a_box_is_in_fractions_of_the_image_and_numbers_have_four_digits():
    result = explanation("a dog", box=(15, 0, 105, 90))
    view = payload(of_explanation(result))
    assert view["box"] == pytest.approx([0.125, 0, 0.75, 1])
    assert view["framed"]
    (panel,) = view["panels"]
    values = np.array(panel["map"])  # the largest is about 0.01
    assert values.any()
    assert (values == np.round(values, 7)).all()


def test_the_library_of_components_is_the_one_of_npm_with_its_licence():
    """`htm/preact/standalone.module.js` of htm 3.1.1."""
    content = (FRONT / "htm-preact.js").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    assert digest == "72284e8e9079c87817145df1110f74e8a2aa040b2fc384922e18dfcb46fc1fd7"
    assert "Apache License" in (FRONT / "htm-preact.LICENSE").read_text()


@in_a_browser
def test_both_backends_agree_on_the_colours_of_maps_and_words(page, show):
    result = explanation("a red car", "a dog", size=(288, 216), against="a blue dog")
    show(result)
    canvas = page.locator("canvas").first
    url = canvas.evaluate("canvas => canvas.toDataURL('image/png')")
    _, png = url.split(",")
    content = base64.b64decode(png)
    image = Image.open(io.BytesIO(content)).convert("RGBA")
    on_white = Image.new("RGBA", image.size, "white")
    on_white.alpha_composite(image)

    white = Image.new("RGB", (576, 432), "white")
    abs_max = np.abs(result.image_maps).max()
    painted = paint(white, result.image_maps[0], signed=True, vmax=abs_max)
    painted = painted.resize((288, 216), Image.Resampling.BOX)
    difference = ImageChops.difference(on_white.convert("RGB"), painted)
    assert np.mean(difference) < 0.01 * 255

    drawing = of_explanation(result)
    words = {word.text: word for word in drawing.panels[0].words}
    node = page.locator(".gradeclip-word", has_text="car").first
    style = node.evaluate("node => getComputedStyle(node).backgroundColor")
    red_green_blue = re.findall(r"[\d.]+", style)[:3]
    expected = 255 * to_rgb(words["car"].score / drawing.word_scale)
    np.testing.assert_allclose([float(part) for part in red_green_blue], expected, atol=3)


@pytest.mark.parametrize("width", [pytest.param(width, marks=BROWSER) for width in (390, 860)])
def test_a_page_shows_title_map_similarity_and_legend_without_a_scroll_bar(page, show, width):
    complaints = []
    requests = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.set_viewport_size({"width": width, "height": 800})
    show(explanation("a dog", "a piano", **NULLS))

    expect(page.locator("canvas")).to_have_count(2)
    expect(page.get_by_text("similarity 0.30, above 33 % of captions")).to_be_visible()
    expect(page.get_by_text("tick: half of 243 other captions")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    places = "nodes => nodes.map(node => node.getBoundingClientRect().left)"
    first, second = page.locator("canvas").evaluate_all(places)
    assert (first == second) == (width == 390)  # a telephone has one prompt a row
    assert complaints == []
    assert len(requests) == 1


@in_a_browser
def test_a_word_that_is_pressed_shows_its_map_and_its_number(page, show):
    show(interactions())
    canvas = page.locator("canvas")
    word = page.locator("button.gradeclip-word", has_text="ball")
    before = canvas.evaluate("canvas => canvas.toDataURL()")
    word.click()
    expect(word).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_text("map: “ball”")).to_be_visible()
    assert canvas.evaluate("canvas => canvas.toDataURL()") != before
    page.keyboard.press("Escape")
    expect(word).to_have_attribute("aria-pressed", "false")


@in_a_browser
def test_a_word_that_is_pressed_is_struck_out_and_its_own_bar_falls(page, show):
    show(by_leave_one_out("a red car", "a red dog"))
    bars = page.locator(".gradeclip-bar i")
    widths = "nodes => nodes.map(node => node.getBoundingClientRect().width)"
    first, second = bars.evaluate_all(widths)
    word = page.locator("button.gradeclip-word", has_text="car")
    word.click()
    expect(word).to_have_css("text-decoration-line", "line-through")
    expect(page.get_by_text("without “car”: 0.38, not 0.40")).to_be_visible()
    expected = [0.38 / 0.40 * first, second]
    assert bars.evaluate_all(widths) == pytest.approx(expected, rel=1e-3)


@in_a_browser
def test_a_lead_is_coloured_from_the_tick_on(page, show):
    show(explanation("a dog", "a piano", **OVER_OTHERS))
    expect(page.get_by_text("lead −0.05 over 243 other captions")).to_be_visible()
    script = """bars => bars.map(bar => [...bar.children].map(part => {
        const { left, right } = part.getBoundingClientRect();
        const start = bar.getBoundingClientRect().left;
        const width = bar.getBoundingClientRect().width;
        return [(left - start) / width, (right - start) / width];
    }))"""
    dog, piano = page.locator(".gradeclip-bar").evaluate_all(script)
    below, mean, above = np.array([0.3, 0.35, 0.4]) / (1.45 * 0.41)
    _, lead, tick = dog
    assert lead == pytest.approx([mean, above], abs=0.01)
    assert np.mean(tick) == pytest.approx(mean, abs=0.01)
    _, lead, _ = piano
    assert lead == pytest.approx([below, mean], abs=0.01)
