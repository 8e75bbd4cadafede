"""The explorer in a real JupyterLab and a real browser: what a person can do with it, one thing a test.

All tests share one page, on which the notebook was run once, and each sets what it needs. What is asserted is what a
person would see in the end. A picture of every state is left in build/screenshots, to be looked at.
"""

import io
import re

import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import expect

from gradeclip_utils.scenes import concepts
from tests.browser import BROWSER, ROOT, browser_context_args, browser_type_launch_args, lab, open_notebook, run_all

__all__ = ["browser_context_args", "browser_type_launch_args", "lab"]  # fixtures
pytestmark = BROWSER
SHOTS = ROOT / "build" / "screenshots"
expect.set_options(timeout=120_000)


@pytest.fixture(scope="module")
def opened(lab, browser):
    """The page with the explorer's notebook, run; and every address that it asked for."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    context = browser.new_context(viewport={"width": 1280, "height": 1500})
    page = context.new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    open_notebook(page, lab, "explorer.ipynb")
    run_all(page)
    page.set_default_timeout(120_000)
    yield page, asked
    context.close()


class Panel:
    """The first panel of the notebook, as a person finds its parts."""

    def __init__(self, page):
        self.page, self.box = page, page.locator(".gradeclip-explorer").first
        self.title = self.box.locator(".gradeclip-title b").first
        self.subtitle = self.box.locator(".gradeclip-title small").first
        self.picture = self.box.locator(".gradeclip-frame img").first
        self.message = self.box.locator(".gradeclip-message")
        self.words = self.box.locator(".gradeclip-strip button")

    def write(self, field, text):
        place = self.box.locator(f".gradeclip-{field} input")
        place.fill(text)
        place.press("Enter")

    def choose(self, field, label):
        self.box.locator(f".gradeclip-{field} select").select_option(label=label)

    def turn(self, slider, key, times):
        """Press a key on a slider, a few times; the next time when the readout has followed."""
        place = self.box.locator(f".gradeclip-{slider}")
        place.locator(".noUi-handle").focus()
        for _ in range(times):
            before = place.locator(".widget-readout").inner_text()
            self.page.keyboard.press(key)
            expect(place.locator(".widget-readout")).not_to_have_text(before)

    def shoot(self, name):
        self.box.evaluate("box => box.scrollIntoView()")  # the box, because a redraw may replace the title meanwhile
        self.box.screenshot(path=SHOTS / f"{name}.png")

    def settle(self):
        """Wait until no other picture comes: it is decoded before it takes the place of the one before."""
        before = None
        while before != (now := self.shown()):
            before = now
            self.page.wait_for_timeout(250)

    def shown(self):
        return self.picture.get_attribute("src")


@pytest.fixture
def panel(opened):
    """The panel in its plainest state, whatever the test before did."""
    page, _ = opened
    found = Panel(page)
    found.choose("method", "Grad-ECLIP")
    found.choose("beside", "nothing")
    found.write("against", "")
    for scene in (3, 2):  # two, so that what is waited for is not there from the test before
        found.box.locator(".gradeclip-gallery button").nth(scene - 1).click()
        expect(found.subtitle).to_contain_text(f"scene {scene} of the gallery")
    expect(found.title).not_to_contain_text(" in “")
    found.settle()
    yield found
    assert page.evaluate("() => window.wrong") == []


def caption_of_no_file():
    """A caption that the model can read and that stands nowhere in the repository, put together here."""
    nouns = [noun for noun in concepts()["noun"] if " " not in noun][7::41]
    return f"here is a {nouns[1]} below a {nouns[3]} and a {nouns[5]}"


def test_the_panel_is_there_and_shows_a_picture_of_its_size(panel):
    expect(panel.words.first).to_be_visible()
    natural, drawn = panel.picture.evaluate("image => [image.naturalWidth, image.clientWidth]")
    assert natural >= 320 and 200 < drawn <= 640
    panel.shoot("1_panel")


def test_a_caption_that_nobody_wrote_before_gets_its_map_and_words(panel):
    caption, before = caption_of_no_file(), panel.shown()
    assert not any(caption in path.read_text(errors="ignore") for path in ROOT.glob("*/*.[pmi]*"))
    panel.write("caption", caption)
    expect(panel.title).to_have_text(f"“{caption}”")
    expect(panel.words).to_have_count(len(caption.split()))
    assert panel.words.locator("span").all_inner_texts() == caption.split()
    expect(panel.picture).not_to_have_attribute("src", before)
    panel.shoot("2_caption")


def test_a_pressed_word_shows_its_region_and_shift_makes_a_phrase(panel):
    panel.write("caption", "a truck and a dog")
    expect(panel.words).to_have_count(5)
    panel.words.nth(1).click()
    expect(panel.title).to_have_text("“truck” in “a truck and a dog”")
    expect(panel.subtitle).to_contain_text("less what the nouns share")
    expect(panel.words.nth(1)).to_have_attribute("aria-pressed", "true")
    expect(panel.words.nth(1)).to_have_attribute("aria-label", re.compile(r"truck: .*\d.*relevance"))
    panel.shoot("3_word")
    panel.words.nth(4).focus()
    panel.page.keyboard.press("Shift+Enter")
    expect(panel.title).to_have_text("“truck and a dog” in “a truck and a dog”")
    panel.shoot("4_phrase")


def test_what_the_nouns_share_can_be_left_in(panel):
    panel.write("caption", "a truck and a dog")
    panel.words.nth(4).click()
    expect(panel.subtitle).to_contain_text("less what the nouns share")
    before = panel.shown()
    panel.choose("centred", "left in")
    expect(panel.subtitle).not_to_contain_text("less what the nouns share")
    expect(panel.picture).not_to_have_attribute("src", before)
    panel.choose("centred", "taken away")


def test_a_pressed_patch_lights_the_words_with_mouse_and_with_keys(panel):
    panel.picture.click(position={"x": 60, "y": 40})
    note = panel.box.locator(".gradeclip-words > small")
    expect(note).to_contain_text("interaction with the patch in row")
    expect(panel.box.locator(".gradeclip-marker:not(.gradeclip-cursor)").first).to_be_visible()
    panel.shoot("5_patch")
    said = note.inner_text()
    panel.box.locator(".gradeclip-frame").first.focus()
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "Enter"):
        panel.page.keyboard.press(key)
    expect(note).not_to_have_text(said)
    expect(note).to_contain_text("interaction with the patch in row")
    panel.page.keyboard.press("Escape")
    expect(note).to_contain_text("relevance of each word")


@pytest.mark.parametrize(
    ("slider", "key", "said"),
    [
        ("layers", "ArrowRight", r"last 2 layers"),
        ("threshold", "ArrowRight", r"no colour below"),
        ("opacity", "ArrowLeft", ""),
    ],
)
def test_each_slider_redraws_the_map(panel, slider, key, said):
    before, times = panel.shown(), 1 if slider == "layers" else 5
    panel.turn(slider, key, times)
    expect(panel.picture).not_to_have_attribute("src", before)
    if said:
        expect(panel.box).to_contain_text(re.compile(said))
    panel.shoot(f"6_{slider}")
    back = {"ArrowRight": "ArrowLeft", "ArrowLeft": "ArrowRight"}[key]
    panel.turn(slider, back, times)
    if said:
        expect(panel.box).not_to_contain_text(re.compile(said))


def test_another_spatial_weight_is_said_in_the_title(panel):
    before = panel.shown()
    panel.choose("spatial", "softmax")
    expect(panel.picture).not_to_have_attribute("src", before)
    expect(panel.subtitle).to_contain_text("spatial weight softmax")
    panel.choose("spatial", "loosened")
    expect(panel.subtitle).not_to_contain_text("spatial weight")


def test_two_methods_stand_side_by_side_and_a_contrast_is_signed(panel):
    panel.choose("method", "MaskCLIP")
    expect(panel.subtitle).to_contain_text("MaskCLIP")
    panel.choose("beside", "Attention rollout")
    expect(panel.box.locator(".gradeclip-title small").nth(1)).to_contain_text("Attention rollout")
    panel.shoot("7_beside")
    panel.choose("beside", "nothing")
    panel.choose("method", "Grad-ECLIP")
    panel.write("against", "a dog")
    expect(panel.title).to_contain_text("rather than “a dog”")
    expect(panel.box.locator(".gradeclip-legend small").first).to_contain_text("purple")
    panel.shoot("8_against")


def test_long_work_says_so_and_the_next_change_stops_it(panel):
    panel.choose("method", "RISE")
    expect(panel.message.first).to_contain_text("RISE")
    panel.shoot("9_working")
    panel.choose("method", "Grad-ECLIP")
    expect(panel.message).to_have_count(0)
    expect(panel.subtitle).to_contain_text("Grad-ECLIP")


@pytest.mark.parametrize(
    ("caption", "sentence"),
    [
        ("", "is empty"),
        ("a flurgle", "never shown the word “flurgle”"),
        ("dog " * 100, "too long"),
        ("<img src=x onerror='window.hacked=1'>", "never shown"),
    ],
)
def test_a_wrong_caption_gets_a_sentence_and_the_last_view_stays(panel, caption, sentence):
    title, before = panel.title.inner_text(), panel.shown()
    panel.write("caption", caption)
    expect(panel.message.first).to_contain_text(sentence)
    assert panel.title.inner_text() == title and panel.shown() == before
    assert panel.page.evaluate("() => window.hacked") is None
    panel.shoot("10_wrong")


def png(size=(300, 200)):
    picture = Image.new("RGB", size, "teal")
    ImageDraw.Draw(picture).ellipse((40, 40, 140, 140), fill="orange")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def upload(panel, name, content):
    with panel.page.expect_file_chooser() as chooser:
        panel.box.get_by_role("button", name="upload an image").click()
    chooser.value.set_files({"name": name, "mimeType": "image/png", "buffer": content})


def test_an_uploaded_picture_is_shown_with_a_warning_and_no_picture_is_refused(panel):
    upload(panel, "disc <b>.png", png())
    expect(panel.subtitle).to_contain_text("image: disc <b>.png")
    expect(panel.message.first).to_contain_text("has never seen a photograph")
    panel.shoot("11_upload")
    upload(panel, "notes.png", b"no picture at all")
    expect(panel.message.first).to_contain_text("notes.png is not a picture")
    expect(panel.subtitle).to_contain_text("image: disc <b>.png")
    panel.box.locator(".gradeclip-image input[type=text]").fill("/nowhere/to/be/found.png")
    panel.box.locator(".gradeclip-image input[type=text]").press("Enter")
    expect(panel.message.first).to_contain_text("There is no picture file")


def test_a_view_can_be_saved_and_shown_as_python_and_as_tables(panel):
    for button, file in (("save image (PNG)", "explanation.png"), ("save explanation", "explanation")):
        panel.box.get_by_role("button", name=button).click()
        expect(panel.message.first).to_contain_text(f"Saved as {file}")
    panel.box.get_by_role("button", name="copy as Python").click()
    expect(panel.box.locator(".gradeclip-script pre")).to_contain_text("Explainer(")
    panel.box.get_by_role("button", name="numbers as tables").click()
    expect(panel.box.locator(".gradeclip-tables td").first).to_be_visible()
    panel.shoot("12_kept")
    panel.box.get_by_role("button", name="copy as Python").click()
    panel.box.get_by_role("button", name="numbers as tables").click()


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
@pytest.mark.parametrize("width", [1280, 800])
def test_it_fits_and_can_be_read_in_a_narrow_window_and_in_both_themes(panel, width, theme):
    panel.page.evaluate(f"() => window.jupyterapp.commands.execute('apputils:change-theme', {{theme: '{theme}'}})")
    panel.page.wait_for_function(f"() => document.body.dataset.jpThemeName === '{theme}'")
    panel.page.set_viewport_size({"width": width, "height": 1500})
    panel.choose("beside", "Raw attention")
    expect(panel.box.locator(".gradeclip-title small").nth(1)).to_contain_text("Raw attention")
    panel.page.wait_for_timeout(500)
    panel.shoot(f"13_{width}_{theme.split()[1].lower()}")
    over = "boxes => boxes.map(box => box.scrollWidth - box.clientWidth)"
    assert max(panel.page.locator(".gradeclip-explorer").first.locator(".widget-box").evaluate_all(over)) <= 1
    assert panel.box.evaluate("box => box.scrollWidth - box.clientWidth") <= 1
    light = panel.title.evaluate(
        "node => { const sum = colour => colour.match(/[\\d.]+/g).slice(0, 3).reduce((a, b) => a + +b, 0);"
        " return [sum(getComputedStyle(node).color), sum(getComputedStyle(document.body).backgroundColor)]; }"
    )
    assert abs(light[0] - light[1]) > 300
    panel.page.set_viewport_size({"width": 1280, "height": 1500})


def test_nothing_was_asked_of_another_machine(opened):
    _, asked = opened
    assert asked
    assert not [url for url in asked if not re.match(r"(http://127\.0\.0\.1:|blob:|data:)", url)]
