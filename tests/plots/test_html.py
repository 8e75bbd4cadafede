"""HTML of panels: what can be read, what is escaped, where points lie. No browser."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from gradeclip_utils import Explainer
from gradeclip_utils.plots import paint
from gradeclip_utils.plots.colours import SIGNED, UNSIGNED, number
from gradeclip_utils.plots.html import (
    Page,
    bars_html,
    gradient,
    map_html,
    note_html,
    picture_html,
    print_html,
    row_html,
    scatter_html,
    webp,
    words_html,
)
from gradeclip_utils.words import Word

ODD = ["<script>alert(1)</script>", "a&b", '"><img src=x onerror=alert(1)>', "\N{GRINNING FACE}", "$x_1$"]


class Visible(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.found, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def words(*texts):
    return [Word(text, 0.01 * i, 0, len(text)) for i, text in enumerate(texts)]


def opened(attributes):
    return Image.open(io.BytesIO(base64.b64decode(attributes["src"].partition(",")[2]))).convert("RGB")


@pytest.mark.parametrize("text", ODD)
def test_text_is_shown_and_not_run(text):
    square = Image.new("RGB", (20, 20))
    for page, tags in (
        (words_html(words("a", text), values=True), {"div", "span", "br"}),
        (print_html(square, text, vmax=1.0, alt=text), {"div", "span", "img"}),
        (bars_html([(text, 0.5), ("other", -0.1)], text), {"div", "b"}),
        (note_html(text), {"div"}),
        (scatter_html({text: ("#000", {text: (0.0, 1.0), "b": (1.0, 2.0)})}, text, text, text, mark=text),
         {"svg", "text", "path", "g", "circle", "title"}),
    ):  # fmt: skip
        shown = Visible(page)
        assert set(shown.tags) == tags and text in shown.text


def test_a_line_of_words_reads_as_the_prompt_and_may_show_its_values():
    plain, valued = Visible(words_html(words("a", "dog"))), Visible(words_html(words("a", "dog"), values=True))
    assert plain.text == "a dog" and [span["title"] for span in plain.all("span")] == ["0", "0.0100"]
    assert valued.text == "a0 dog0.0100"


def test_the_image_of_a_print_is_the_painting_itself():
    picture = Image.effect_noise((96, 96), 60).convert("RGB")
    painting = paint(picture, np.arange(9.0).reshape(3, 3))
    (image,) = Visible(print_html(painting, "a dog", vmax=8.0)).all("img")
    assert np.array_equal(np.asarray(opened(image)), np.asarray(painting)) and image["alt"] == "a dog"
    (plain,) = Visible(picture_html(picture)).all("img")
    assert np.array_equal(np.asarray(opened(plain))[::4, ::4], np.asarray(picture))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(webp(picture)))), np.asarray(picture))


@pytest.mark.parametrize(("signed", "vmax", "marks"), [
    (False, 0.25, "0.2500"), (True, 0.25, "0.2500\N{MINUS SIGN}0.250"),
    (False, 0.0, "nowhere above zero"), (True, 0.0, "zero everywhere"),
])  # fmt: skip
def test_a_scale_says_its_ends(signed, vmax, marks):
    page = print_html(Image.new("RGB", (8, 8)), "", signed=signed, vmax=vmax)
    assert Visible(page).text == marks and ("gradient" in page) == bool(vmax)


@pytest.mark.parametrize("against", [None, "a cat"])
@pytest.mark.parametrize("own", [False, True])
def test_the_map_of_an_explanation_has_the_scale_of_its_figures(tiny, picture, against, own):
    one = Explainer(tiny).explain(picture, "a dog", against=against)
    signed = against is not None
    most = float(np.abs(one.heatmap(0, signed=signed)).max())
    page = Visible(map_html(one, "Grad-ECLIP", own=own))
    (image,) = page.all("img")
    painting = paint(one.image, one.image_maps[0], box=one.box, signed=signed, vmax=most)
    assert np.array_equal(np.asarray(opened(image)), np.asarray(painting))
    assert image["alt"] == "map of a dog: Grad-ECLIP"
    top = 1.0 if own else most
    assert page.text.startswith(f"Grad-ECLIP{number(top, top)}")


def test_a_map_that_is_zero_everywhere_says_so(tiny, picture):
    one = Explainer(tiny).explain(picture, "a dog")
    empty = replace(one, image_maps=np.zeros_like(one.image_maps))
    for beside in (False, True):
        assert Visible(map_html(empty, "", own=True, beside=beside)).text == "nowhere above zero"
    assert Visible(map_html(one, "name", beside=False)).text == "name"


@pytest.mark.parametrize(("signed", "inks"), [(False, UNSIGNED), (True, SIGNED)])
def test_the_gradient_goes_from_the_low_ink_to_the_high_one(signed, inks):
    stops = re.findall("#[0-9a-f]{6}", gradient(signed))
    for stop, end in ((stops[0], 0.0), (stops[-1], 1.0)):
        np.testing.assert_allclose(to_rgb(stop), inks(end)[:3], atol=1 / 255)


def test_bars_are_as_long_as_their_values_and_begin_at_zero():
    page = bars_html([("one", 0.4), ("two", -0.2)], width=300)
    left, long = (re.findall(rf"{name}:(\d+)px;", page) for name in ("margin-left", ";width"))
    assert left == ["100", "0"] and long == ["200", "100"]
    assert "0.400" in page and "\N{MINUS SIGN}0.200" in page


def test_points_lie_where_their_values_say_and_tell_them():
    places = {"t-shirt": (1.0, -1.0), "middle": (2.0, 0.0), "high": (3.0, 1.0)}
    page = Visible(scatter_html({"nouns": ("#123456", places)}, "across", "up", "a title", ylim=(-2, 2), mark="high"))
    points = [(float(c["cx"]), float(c["cy"])) for c in page.all("circle") if c["r"] == "3"]
    (x1, y1), (x2, y2), (x3, y3) = points
    assert x1 < x2 < x3 and y1 > y2 > y3
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.11) and y1 - y2 == pytest.approx(y2 - y3, abs=0.11)
    assert "t-shirt: 1 across, \N{MINUS SIGN}1 up; nouns" in page.text
    (ring,) = [c for c in page.all("circle") if c["r"] == "7"]
    assert (float(ring["cx"]), float(ring["cy"])) == points[2]
    (svg,) = page.all("svg")
    assert svg["aria-label"] == "a title: up against across" and svg["role"] == "img"
    width, height = (float(svg[side]) for side in ("width", "height"))
    assert all(0 < x < width and 0 < y < height for x, y in points)


def test_a_page_shows_its_html_and_says_what_it_is():
    page = Page(row_html("<p>a</p>", "<p>b</p>"), 'two "letters"')
    shown = Visible(page._repr_html_())
    assert shown.text == "ab" and repr(page) == 'two "letters"'
    assert shown.all("div")[0] == {"role": "group", "aria-label": 'two "letters"'}
