"""What a notebook shows where no kernel runs: the explorer's own script, with all maps inside the page."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from gradeclip_utils import Explainer
from gradeclip_utils.plots.colours import CONTRARY
from tests.browser import BROWSER
from tests.panels.browsing import SHOTS, frame_widths

pytestmark = BROWSER
expect.set_options(timeout=60_000)
CAPTION = "a red car and a blue <b>"
OVERLAY = "canvas => canvas.toDataURL('image/png').split(',')[1]"


def html(found):
    return found._repr_mimebundle_()[0]["text/html"]


@pytest.fixture(scope="module")
def found(tiny, picture):
    return Explainer(tiny).interactions(picture, CAPTION)


@pytest.fixture
def shown(page, found):
    """The page, and what went wrong on it."""
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.set_content(f"<!doctype html><html><body>{html(found)}</body></html>")
    yield page
    assert said == [] and [url for url in asked if not url.startswith("data:")] == []


def overlay(page, side=1):
    """The pixels over the image (H, W, 4), when they have stopped fading."""
    before, png = None, ""
    while before != png:
        page.wait_for_timeout(400)
        before, png = png, page.locator(f".gradeclip-side-{side} canvas").evaluate(OVERLAY)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGBA"))


def opaque(values, top):
    """How opaque the layer over a patch is, by the arithmetic of `paint` at opacity .85."""
    strength = np.minimum(np.abs(values) / top, 1)
    veil, purple = 0.85 * np.where(values < 0, 1, 1 - strength), CONTRARY * np.where(values < 0, strength, 0)
    return 255 * (1 - (1 - veil) * (1 - purple))


def at_patches(pixels, box, shape):
    """The pixels in the middle of each patch that is in the image."""
    left, top, width, height = box
    rows = ((top + height * (np.arange(shape[0]) + 0.5) / shape[0]) * pixels.shape[0]).astype(int)
    columns = ((left + width * (np.arange(shape[1]) + 0.5) / shape[1]) * pixels.shape[1]).astype(int)
    return pixels[np.ix_(rows, columns)][..., 3].astype(float)


def test_pointing_at_a_word_fades_its_map_in(shown, found):
    word, title = shown.locator(".gradeclip-word").nth(2), shown.locator(".gradeclip-side-1 .gradeclip-title")
    expect(title).to_have_text("map: all words together")
    word.hover()
    expect(title).to_have_text("map of “car”")
    left, top, right, bottom = found.box
    box = left / 80, top / 50, (right - left) / 80, (bottom - top) / 50
    expected = opaque(found.maps[2], np.abs(found.maps).max())
    differences = np.abs(at_patches(overlay(shown), box, (4, 4)) - expected)
    assert np.median(differences) < 3 and np.mean(differences < 12) > 0.7  # a line of the contour may cross a middle
    shown.screenshot(path=SHOTS / "30_page_word.png")
    shown.mouse.move(0, 0)
    expect(title).to_have_text("map: all words together")


def test_it_is_there_within_fifty_milliseconds(shown):
    measure = (
        "word => { const begun = performance.now(); word.dispatchEvent(new PointerEvent('pointerenter'));"
        " return performance.now() - begun; }"
    )
    words = shown.locator(".gradeclip-word")
    assert min(words.nth(i).evaluate(measure) for i in (1, 2, 3, 4, 5)) < 50  # of five, for the machine may be busy


def test_words_are_bars_on_either_side_of_zero_with_four_decimals(shown, found):
    words = shown.locator(".gradeclip-word")
    expect(words).to_have_count(len(found.words))
    for i, word in enumerate(found.words):
        side = "against" if word.score < 0 else "for"
        expect(words.nth(i).locator("i")).to_have_class(f"gradeclip-{side}")
        said = f"{word.text}: {word.score:+.4f}, {side}".replace("-", "\N{MINUS SIGN}")
        expect(words.nth(i)).to_have_attribute("title", said)
    axis, bar = (words.nth(1).locator(name).bounding_box() for name in (".gradeclip-axis", "i"))
    middle = axis["x"] + axis["width"] / 2
    edge = bar["x"] + bar["width"] if found.words[1].score < 0 else bar["x"]
    assert abs(edge - middle) < 1.5
    expect(words.nth(0)).to_have_class(re.compile("gradeclip-muted"))


def test_pointing_at_a_patch_moves_the_bars_by_mouse_and_by_keys(shown, found):
    frame, word = shown.locator(".gradeclip-side-1 .gradeclip-frame"), shown.locator(".gradeclip-word").nth(2)
    head = shown.locator(".gradeclip-words > .gradeclip-title")
    size = frame.bounding_box()
    frame.hover(position={"x": 0.52 * size["width"], "y": 0.55 * size["height"]})
    expect(head).to_have_text("words at the patch in row 3, column 3")
    told = float(word.locator("output").text_content().replace("\N{MINUS SIGN}", "-"))
    assert told == pytest.approx(found.maps[2, 2, 2], abs=1e-3 * float(np.abs(found.maps).max()) + 1e-4)
    shown.mouse.move(0, 0)
    expect(head).to_have_text("relevance of each word")
    frame.focus()
    shown.keyboard.press("ArrowUp")
    expect(head).to_have_text("words at the patch in row 2, column 3")
    shown.keyboard.press("Enter")
    shown.locator(".gradeclip-word").first.focus()
    expect(shown.locator(".gradeclip-side-1 .gradeclip-marker")).to_be_visible()


def test_words_can_be_kept_and_made_a_phrase_by_keys(shown):
    words, title = shown.locator(".gradeclip-word"), shown.locator(".gradeclip-side-1 .gradeclip-title")
    words.nth(1).press("Enter")
    expect(words.nth(1)).to_have_attribute("aria-pressed", "true")
    words.nth(2).press("Shift+Enter")
    shown.locator("body").click(position={"x": 1, "y": 1})
    expect(title).to_have_text("map of “red car”")
    words.nth(2).press("Escape")
    expect(words.nth(1)).to_have_attribute("aria-pressed", "false")


def test_what_the_model_does_not_see_is_outside_of_a_frame(shown):
    expect(shown.locator(".gradeclip-side-0 .gradeclip-crop")).to_be_visible()
    expect(shown.locator(".gradeclip-side-0 .gradeclip-origin")).to_contain_text(
        "the model sees what is inside the dashes"
    )
    left, right = frame_widths(shown)
    assert abs(left - right) < 1  # and so are their heights, by one aspect ratio


@pytest.mark.parametrize("width", [1920, 1280, 800, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_in_both_themes(shown, width, dark):
    shown.set_viewport_size({"width": width, "height": 1080 if width > 1900 else 800})
    if dark:
        shown.add_style_tag(content="body { background: #111; color: #eee; }")
    shown.screenshot(path=SHOTS / f"31_page_{width}_{'dark' if dark else 'light'}.png")
    assert shown.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0
    assert frame_widths(shown)[1] > 0.6 * shown.locator(".gradeclip-side-1").bounding_box()["width"]


def test_an_explanation_has_a_view_for_each_prompt_and_an_image_where_no_script_runs(page, tiny, picture, browser):
    found = Explainer(tiny).explain(picture, ["a red car", "a dog"], against=["a ball", "a cat"])
    page.set_content(html(found))
    expect(page.locator(".gradeclip-explorer")).to_have_count(2)
    expect(page.locator(".gradeclip-ends").first).to_contain_text("for “a ball”")
    zeros = page.locator(".gradeclip-words").first.locator(".gradeclip-axis")
    assert len(set(zeros.evaluate_all("axes => axes.map((axis) => axis.getBoundingClientRect().left)"))) == 1
    expect(page.locator(".gradeclip-match").first).to_contain_text(f"{found.similarity[0]:.3f}")
    context = browser.new_context(java_script_enabled=False)
    still = context.new_page()
    still.set_content(html(found))
    expect(still.get_by_alt_text(re.compile("a red car"))).to_be_visible()
    context.close()
