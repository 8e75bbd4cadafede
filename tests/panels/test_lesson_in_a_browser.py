"""Panels of lessons in a real JupyterLab, turned with the keyboard; what a person sees in the end is asserted."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser import BROWSER
from tests.panels.browsing import SHOTS, THEMES, change_theme, overflow

pytestmark = BROWSER
CELL = """
from gradeclip_utils.plots import InlineFigure
from gradeclip_utils.panels.lesson import panel

def draw(power, colour, caption):
    if not caption:
        raise ValueError("The caption is empty. Type what to look for.")
    made = InlineFigure(4, 3, f"power {power} in {colour} for {caption}")
    axes = made.subplots()
    axes.plot([(x / 20) ** power for x in range(21)], color=colour)
    axes.set_title(caption)
    return made

panel(draw, power=(1, 9), colour=["red", "green"], caption="a dog")
"""
LONG = """
import time

from gradeclip_utils.plots import InlineFigure
from gradeclip_utils.panels.lesson import panel

def draw(level, report=None):
    for step in range(100 if level == 1 else 0):
        report(step / 100)
        time.sleep(0.2)
    return InlineFigure(3, 2, f"level {level}")

panel(draw, level=[0, 1, 2])
"""
LESSONS = [  # panels of figures, on less than the lessons measure
    """
from gradeclip_utils import Explainer, load_clip
from gradeclip_utils.panels.lesson import panel
from gradeclip_utils.scenes import arrange

explainer, image = Explainer(load_clip()), arrange(["cat", "guitar"]).image()
def draw(prompt, against):
    return explainer.explain(image, prompt, against=against or None).plot()

panel(draw, prompt="a cat", against="a guitar")
""",
]


NEW = """([number, before]) => {
    const panel = document.querySelectorAll(".gradeclip-panel")[number];
    return panel.querySelector("img.gradeclip-figure").src !== before;
}"""


@pytest.fixture(scope="module")
def page(opened):
    return opened("panels.ipynb", [CELL, LONG]).page


@pytest.fixture(scope="module")
def lessons(opened):
    return opened("lessons.ipynb", LESSONS).page


@pytest.fixture
def box(page):
    box = page.locator(".gradeclip-panel").first
    expect(picture(box)).to_be_visible(timeout=120_000)
    yield box
    assert page.evaluate("() => window.wrong") == []


def picture(box):
    return box.locator("img.gradeclip-figure")


def write(box, text):
    box.locator(".gradeclip-caption input").fill(text)
    box.locator(".gradeclip-caption input").press("Enter")


def test_the_slider_moves_by_keys_and_the_figure_follows(page, box):
    expect(picture(box)).to_have_attribute("alt", "power 5 in red for a dog")
    before = picture(box).get_attribute("src")
    box.locator(".gradeclip-power .noUi-handle").focus()
    page.keyboard.press("ArrowRight")
    expect(picture(box)).to_have_attribute("alt", "power 6 in red for a dog", timeout=60_000)
    assert picture(box).get_attribute("src") != before
    expect(box.locator(".gradeclip-shown")).to_have_text("shown: power 6, colour red, caption “a dog”")
    box.screenshot(path=SHOTS / "20_lesson_panel.png")


def test_every_control_is_reached_by_tab(page, box):
    box.locator(".gradeclip-power .noUi-handle").focus()
    page.keyboard.press("Tab")  # the number beside the slider can be typed as well
    for name in ("colour", "caption"):
        page.keyboard.press("Tab")
        assert page.evaluate("name => !!document.activeElement.closest('.gradeclip-' + name)", name), name


def test_a_bad_value_shows_its_sentence_and_the_last_good_figure_stays(box):
    alt, source = (picture(box).get_attribute(name) for name in ("alt", "src"))
    write(box, "")
    expect(box.locator(".gradeclip-message")).to_contain_text("The caption is empty.", timeout=60_000)
    expect(box.locator(".gradeclip-message")).to_have_attribute("role", "alert")
    assert (picture(box).get_attribute("alt"), picture(box).get_attribute("src")) == (alt, source)
    box.screenshot(path=SHOTS / "21_lesson_panel_wrong.png")
    write(box, "a <b>cat</b>")
    expect(picture(box)).to_have_attribute("alt", re.compile("for a <b>cat</b>"), timeout=60_000)
    expect(box.locator(".gradeclip-message")).to_have_count(0)


def test_the_newest_of_many_changes_wins(page, box):
    box.locator(".gradeclip-power .noUi-handle").focus()
    for key in ("Home", *["ArrowRight"] * 6, "End"):
        page.keyboard.press(key)
    expect(box.locator(".gradeclip-power .widget-readout")).to_have_text("9")
    expect(picture(box)).to_have_attribute("alt", re.compile("power 9 "), timeout=60_000)


@THEMES
@pytest.mark.parametrize("width", [1280, 800])
def test_it_fits_a_narrow_window_and_both_themes(page, box, width, theme):
    change_theme(page, theme)
    page.set_viewport_size({"width": width, "height": 900})
    page.wait_for_timeout(300)
    box.screenshot(path=SHOTS / f"22_lesson_panel_{width}_{theme.split()[1].lower()}.png")
    assert overflow(box) <= 1
    page.set_viewport_size({"width": 1280, "height": 900})


def test_a_long_drawing_shows_a_bar_and_ends_for_a_newer_change(page):
    box = page.locator(".gradeclip-panel").nth(1)
    expect(picture(box)).to_be_visible(timeout=120_000)
    level = box.locator(".gradeclip-level select")
    level.select_option("1")
    expect(box.locator("progress")).to_be_visible(timeout=10_000)
    expect(box.locator("progress")).to_have_attribute("value", re.compile("0.0[2-9]"), timeout=10_000)
    box.screenshot(path=SHOTS / "24_lesson_panel_bar.png")
    level.select_option("2")
    expect(picture(box)).to_have_attribute("alt", "level 2", timeout=10_000)  # the other would have taken 20 seconds
    expect(box.locator("progress")).to_have_count(0)
    assert page.evaluate("() => window.wrong") == []


@pytest.mark.parametrize(
    ("number", "control", "key", "shows"),
    [
        (0, ".gradeclip-against input", ("a cow", "a guitar"), ("rather than “a cow”", "rather than “a guitar”")),
    ],
    ids=["method gallery"],
)
def test_the_panel_of_a_lesson_redraws_in_the_browser(lessons, number, control, key, shows):
    box = lessons.locator(".gradeclip-panel").nth(number)
    shown = picture(box)
    for width, pressed, said in zip((1280, 800), key, shows, strict=True):
        lessons.set_viewport_size({"width": width, "height": 1500})  # so that a screenshot shows all of a panel
        expect(shown).to_be_visible(timeout=300_000)
        before = shown.get_attribute("src")
        assert said not in shown.get_attribute("alt")
        if control.endswith("input"):
            box.locator(control).fill(pressed)
            box.locator(control).press("Enter")
        elif control.endswith("select"):
            box.locator(control).select_option(index=pressed)
        else:
            box.locator(control).focus()
            lessons.keyboard.press(pressed)
        expect(box.locator(".gradeclip-shown")).to_contain_text("shown:", timeout=120_000)
        lessons.wait_for_function(NEW, arg=[number, before], timeout=60_000)
        assert said in shown.get_attribute("alt")
        expect(box.locator(".gradeclip-message")).to_have_count(0)
        box.screenshot(path=SHOTS / f"23_lesson_{number + 3:02}_{width}.png")
        assert overflow(box) <= 1
        assert shown.evaluate("image => image.getBoundingClientRect().width > 200")
    assert lessons.evaluate("() => window.wrong") == []


def test_a_point_of_a_figure_says_its_word_under_the_mouse(lessons):
    box = lessons.locator(".gradeclip-panel").nth(1)
    points = box.locator("svg.gradeclip-points circle")
    assert points.count() > 10
    assert re.fullmatch(r"\w[^:]*: .* across, .* up; .*", points.first.locator("title").text_content())
    points.first.scroll_into_view_if_needed()
    area, point = picture(box).bounding_box(), points.first.bounding_box()
    at = point["x"] + point["width"] / 2, point["y"] + point["height"] / 2
    assert area["x"] < at[0] < area["x"] + area["width"] / 2 and area["y"] < at[1] < area["y"] + area["height"]
    assert lessons.evaluate("([x, y]) => document.elementFromPoint(x, y).tagName", at) == "circle"
