"""The explorer in a real JupyterLab and a real browser: what a person can do with it, one thing a test.

JupyterLab is as it comes: cells off the screen are not in the page. All tests share one page, on which the notebook was
run once, and each sets what it needs. What is asserted is what a person would see in the end. An image of every state
is left in build/screenshots, to be looked at.
"""

import io
import re

import numpy as np
import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import expect

from gradeclip_utils.scenes import concepts
from tests.browser import BROWSER, ROOT, show_cell
from tests.panels.browsing import SHOTS, THEMES, blank, change_theme, contrasts, frame_widths, overflow

pytestmark = BROWSER
WINDOWING = None  # JupyterLab's default
expect.set_options(timeout=120_000)
LEFT = (
    "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.reduce((a, b) => a + b, 0)"
)


@pytest.fixture(scope="module")
def explorer(opened):
    """The page with the explorer's notebook, run."""
    return opened("explorer.ipynb", height=800)


class Panel:
    """The first panel of the notebook, as a person finds its parts."""

    def __init__(self, page):
        self.page, self.box = (
            page,
            page.locator(".gradeclip-explorer").filter(has=page.locator(".gradeclip-scenes")).first,
        )
        self.title = self.box.locator(".gradeclip-side-1 .gradeclip-title")
        self.origin = self.box.locator(".gradeclip-side-1 .gradeclip-origin")
        self.canvas = self.box.locator(".gradeclip-side-1 canvas")
        self.message = self.box.locator(".gradeclip-message")
        self.verdict = self.box.locator(".gradeclip-verdict")
        self.words = self.box.locator("button.gradeclip-word")

    def write(self, field, text):
        place = self.box.locator(f".gradeclip-control.gradeclip-{field} input")
        place.fill(text)
        place.press("Enter")

    def choose(self, field, name):  # not by what is read, which says how long it took the last time
        self.box.locator(f".gradeclip-control.gradeclip-{field} select").select_option(value=name)

    def ask(self, question):
        self.box.locator(".gradeclip-asks").get_by_text(question).click()

    def unfold(self, name, open_=True):  # by its summary: "drawing" is a known word as well
        summary = self.page.locator("summary", has_text=re.compile(rf"^\W*{name}$"))
        self.box.locator("details", has=summary).first.evaluate(f"node => {{ node.open = {str(open_).lower()}; }}")

    def press(self, name):
        self.box.get_by_role("button", name=name).click()

    def shoot(self, name):
        self.box.evaluate("box => box.scrollIntoView()")
        self.box.screenshot(path=SHOTS / f"{name}.png")

    def painted(self):
        """The sum of what lies over the image, when it has stopped fading."""
        before = None
        while before != (now := self.canvas.evaluate(LEFT)):
            before = now
            self.page.wait_for_timeout(250)
        return now


@pytest.fixture
def panel(explorer):
    """The panel in its plainest state, whatever the test before did."""
    page = explorer.page
    show_cell(page, "explorer-03")
    found = Panel(page)
    found.ask("where?")
    for scene in (3, 2):  # two, so that what is waited for is not there from the test before
        button = found.box.locator(".gradeclip-scenes button").nth(scene - 1)
        button.click()
        expect(button).to_have_attribute("aria-pressed", "true")
    page.mouse.move(0, 0)
    yield found
    assert page.evaluate("() => window.wrong") == []


def test_it_stands_in_one_screen_with_its_map_and_verdict(panel):
    panel.box.evaluate("box => box.scrollIntoView()")
    expect(panel.verdict).to_contain_text(re.compile("puts|speaks|has no relevance"))
    top = panel.box.bounding_box()["y"]
    for part in ("scenes", "caption", "asks", "side-0", "side-1", "words", "verdict", "foot", "folds"):
        box = panel.box.locator(f".gradeclip-{part}").first.bounding_box()
        assert box["height"] > 0 and box["y"] + box["height"] - top < 680, part  # what JupyterLab leaves of 800 pixels
    left, right = frame_widths(panel.box)
    assert left == pytest.approx(right, abs=1) and left > 180
    panel.shoot("1_panel")
    panel.page.screenshot(path=SHOTS / "1_screen.png")


def cut(box):
    """What does not fit where it stands: texts that end in an ellipsis, or below an edge."""
    return box.evaluate_all(
        "nodes => nodes.filter(node => node.checkVisibility() && (node.scrollWidth > node.clientWidth + 1"
        " || node.scrollHeight > node.clientHeight + 3)).map(node => node.textContent)"
    )


def test_nothing_that_explains_what_is_seen_is_cut_off(panel):
    """Of which method and model a map is, what the dashes are, which end is for whom, and what was changed."""
    explains = panel.box.locator(".gradeclip-origin, .gradeclip-ends span, .gradeclip-match span")
    expect(panel.origin).to_contain_text("Grad-ECLIP")
    assert cut(explains) == []
    panel.box.locator(".gradeclip-surprises").get_by_text("take the").click()
    expect(panel.box.locator(".gradeclip-match")).to_contain_text("is gone")
    panel.ask("why not another caption?")
    expect(panel.box.locator(".gradeclip-ends")).to_contain_text("for the other caption")
    assert cut(explains) == []
    panel.ask("where?")
    upload(panel, "wide.png", png())
    expect(panel.box.locator(".gradeclip-side-0 .gradeclip-origin")).to_contain_text("inside the dashes")
    assert cut(explains) == []


def test_the_image_stays_where_it_is_when_a_scene_is_changed(panel):
    image = panel.box.locator(".gradeclip-side-0 .gradeclip-frame")
    before = image.bounding_box()
    panel.box.locator(".gradeclip-surprises").get_by_text("take the").click()
    expect(panel.box.locator(".gradeclip-match")).to_contain_text("is gone")
    assert image.bounding_box() == before


def test_every_panel_of_the_notebook_has_its_image_and_its_map_wherever_its_cell_was(panel):
    for cell in ("explorer-17", "explorer-03", "explorer-17"):
        show_cell(panel.page, cell)
        shown = panel.page.locator(".jp-Cell.jp-mod-active .gradeclip-explorer")
        expect(shown.locator(".gradeclip-side-1 img")).to_be_visible()
        natural = shown.locator(".gradeclip-side-1 img").evaluate(
            "image => image.decode().then(() => image.naturalWidth)"
        )
        assert natural > 100 and shown.locator(".gradeclip-side-1 canvas").evaluate(LEFT) > 0


def test_no_tooltip_says_null_and_every_control_has_one(panel):
    assert panel.box.locator("[title='null'], [aria-label='null']").count() == 0
    controls = panel.box.locator(".gradeclip-control")
    assert all(len(text or "") > 20 for text in controls.evaluate_all("nodes => nodes.map(node => node.title)"))


def test_pointing_at_a_word_costs_no_round_trip(panel):
    before = panel.painted()
    panel.page.evaluate(
        "() => { window.sent = 0; const { kernel } = window.jupyterapp.shell.currentWidget.sessionContext.session;"
        " kernel.anyMessage.connect((_, message) => { if (message.direction === 'send') window.sent += 1; }); }"
    )
    panel.words.nth(1).hover()
    expect(panel.title).to_contain_text("map of “")
    assert panel.painted() != before
    assert panel.page.evaluate("() => window.sent") == 0
    panel.shoot("2_word")


DONE = """([node, type, at]) => {
    const { left, top, width, height } = node.getBoundingClientRect(), box = node.closest(".gradeclip-explorer");
    const place = { clientX: left + at * width, clientY: top + at * height, bubbles: true };
    const begun = performance.now();
    node.dispatchEvent(new PointerEvent(type, place));
    box.getBoundingClientRect(); // laid out
    const title = box.querySelector(".gradeclip-words > .gradeclip-title").innerText;
    return [performance.now() - begun, node.ariaPressed, title];
}"""  # all of it before the kernel can have said a word


def test_a_click_and_a_patch_are_seen_within_fifty_milliseconds(panel):
    did = [panel.page.evaluate(DONE, [panel.words.nth(i).element_handle(), "click", 0.5]) for i in range(5)]
    assert [pressed for _, pressed, _ in did] == ["true"] * 5
    assert min(took for took, *_ in did) < 50  # of five, for the machine may be busy
    frame = panel.box.locator(".gradeclip-side-1 .gradeclip-frame").element_handle()
    did = [panel.page.evaluate(DONE, [frame, "pointermove", 0.1 + 0.2 * i]) for i in range(5)]
    rows = [int(12 * (0.1 + 0.2 * i)) + 1 for i in range(5)]
    assert [head for *_, head in did] == [f"words at the patch in row {row}, column {row}" for row in rows]
    assert min(took for took, *_ in did) < 50


def test_a_caption_that_nobody_wrote_before_gets_its_map_and_words(panel):
    nouns = [noun for noun in concepts()["noun"] if " " not in noun][7::41]
    caption = f"here is a {nouns[1]} below a {nouns[3]} and a {nouns[5]}"
    assert not any(caption in path.read_text(errors="ignore") for path in ROOT.glob("*/*.[pmi]*"))
    before = panel.painted()
    panel.write("caption", caption)
    expect(panel.title).to_have_text(f"map: “{caption}”")
    expect(panel.words).to_have_count(len(caption.split()))
    assert panel.words.locator(".gradeclip-name").all_inner_texts() == caption.split()
    assert panel.painted() != before
    panel.shoot("3_caption")


def test_a_known_word_that_is_pressed_is_added_to_the_caption(panel):
    panel.write("caption", "a dog")
    panel.unfold("known words")
    panel.box.get_by_role("button", name="trumpet", exact=True).click()
    expect(panel.title).to_have_text("map: “a dog trumpet”")
    panel.unfold("known words", False)


AFTER_AN_ANSWER = """button => {
    const title = button.closest(".gradeclip-explorer").querySelector(".gradeclip-side-1 .gradeclip-title");
    const first = new MutationObserver(() => (first.disconnect(), button.click()));
    first.observe(title, { subtree: true, characterData: true });
    button.focus(), button.click(), button.click();
}"""  # to the first of two clicks, a third one


def test_known_words_that_are_pressed_faster_than_the_kernel_answers_are_all_added(panel):
    panel.write("caption", "a dog")
    expect(panel.title).to_have_text("map: “a dog”")
    panel.unfold("known words")
    panel.box.get_by_role("button", name="trumpet", exact=True).evaluate(AFTER_AN_ANSWER)
    expect(panel.title).to_have_text("map: “a dog trumpet trumpet trumpet”", timeout=20_000)
    panel.unfold("known words", False)


def test_a_kept_word_and_a_phrase_reach_the_kernel(panel):
    panel.write("caption", "a truck and a dog")
    expect(panel.words).to_have_count(5)
    panel.words.nth(1).click()
    panel.page.mouse.move(0, 0)
    expect(panel.title).to_have_text("map of “truck”")
    panel.words.nth(4).press("Shift+Enter")
    panel.unfold("Save, Python, numbers")
    expect(panel.box.locator(".gradeclip-fold pre")).to_contain_text("[1:5].sum(0)")
    panel.shoot("4_phrase")
    panel.unfold("Save, Python, numbers", False)


def test_the_bare_image_shows_while_a_key_or_its_button_is_held(panel):
    button, keys, mouse = panel.box.get_by_role("button", name="hold: image"), panel.page.keyboard, panel.page.mouse
    panel.words.nth(1).focus()
    expect(panel.canvas).to_be_visible()
    held = [(lambda: keys.down("i"), lambda: keys.up("i"))]
    held += [(lambda: (button.hover(), mouse.down()), mouse.up)]
    held += [(lambda: (button.focus(), keys.down("Space")), lambda: keys.up("Space"))]
    for hold, let_go in held:
        hold()
        expect(panel.canvas).to_be_hidden()
        let_go()
        expect(panel.canvas).to_be_visible()


def test_the_keyboard_leaves_the_button_that_is_held(panel):
    panel.box.get_by_role("button", name="hold: image").focus()
    panel.page.keyboard.press("Tab")
    expect(panel.box.locator("summary", has_text="Method and layers")).to_be_focused()


def test_a_patch_is_kept_with_the_keyboard_and_let_go(panel):
    head = panel.box.locator(".gradeclip-words > .gradeclip-title")
    panel.box.locator(".gradeclip-side-1 .gradeclip-frame").focus()
    for key in ("ArrowDown", "ArrowRight", "Enter"):
        panel.page.keyboard.press(key)
    expect(head).to_contain_text("words at the patch in row")
    panel.shoot("5_patch")
    panel.page.keyboard.press("Escape")
    panel.page.keyboard.press("Tab")
    expect(head).to_contain_text("relevance of each word")


def test_why_not_another_caption_and_comparing_methods(panel):
    panel.ask("why not another caption?")
    expect(panel.box.locator(".gradeclip-ends")).to_contain_text("for the other caption")
    expect(panel.box.locator(".gradeclip-words > small")).to_have_text("words of the other caption")
    panel.shoot("6_against")
    panel.ask("compare methods")
    expect(panel.box.locator(".gradeclip-side-2 .gradeclip-title")).to_contain_text("Attention rollout")
    expect(panel.box.locator(".gradeclip-side-2 .gradeclip-frame")).to_be_visible()
    sizes = frame_widths(panel.box, 3)
    assert min(sizes) > 100 and max(sizes) - min(sizes) < 1
    asks, second = (panel.box.locator(f".gradeclip-{part}").bounding_box() for part in ("asks", "beside"))
    assert abs(second["y"] - asks["y"]) < 15 and second["height"] < 30
    assert panel.box.bounding_box()["height"] < 680  # all of it in one screen
    panel.shoot("7_compare")
    panel.words.nth(1).hover()
    expect(panel.title).to_have_text(re.compile("map: Grad-ECLIP, “.*”"))
    frames = [panel.box.locator(f".gradeclip-side-{i} .gradeclip-frame") for i in range(3)]
    for pointed in frames[1:]:  # a patch of either map is seen on both, and on the image
        pointed.hover(position={"x": 0.3 * sizes[0], "y": 0.6 * sizes[0]})
        cursors = [frame.locator(".gradeclip-cursor:not(.gradeclip-marker)").bounding_box() for frame in frames]
        at = [cursor["x"] - frame.bounding_box()["x"] for cursor, frame in zip(cursors, frames, strict=True)]
        assert max(at) - min(at) < 2 and at[0] == pytest.approx(int(12 * 0.3) / 12 * sizes[0], abs=2)
        assert len({round(cursor["y"]) for cursor in cursors}) == 1
        panel.page.mouse.move(0, 0)
    panel.words.nth(1).click()  # a word that is kept is that of both
    word = panel.words.nth(1).locator(".gradeclip-name").inner_text()
    expect(panel.box.locator(".gradeclip-side-2 .gradeclip-title")).to_have_text(
        f"map: Attention rollout, “{word}” read alone"
    )
    expect(panel.title).to_have_text(f"map: Grad-ECLIP, “{word}”")
    assert panel.box.locator(".gradeclip-ends").inner_text().split() == ["◄", "against", "for", "►"]


def test_a_surprise_is_told_and_put_back(panel):
    panel.box.locator(".gradeclip-surprises").get_by_text("take the").click()
    expect(panel.box.locator(".gradeclip-match")).to_contain_text("is gone")
    panel.shoot("8_surprise")
    panel.press("put it back")
    expect(panel.box.locator(".gradeclip-match")).not_to_contain_text("is gone")
    image = panel.box.locator(".gradeclip-side-0 img")
    before = image.get_attribute("src")
    panel.press("swap the colours")
    expect(panel.box.locator(".gradeclip-match")).to_contain_text("the colours are swapped")
    assert image.get_attribute("src") != before
    panel.press("put it back")
    expect(image).to_have_attribute("src", before)
    panel.box.locator(".gradeclip-surprises").get_by_text("ask for a").click()
    expect(panel.verdict).to_contain_text("There is no")


@pytest.mark.parametrize(
    ("slider", "key"), [("opacity", "ArrowLeft"), ("threshold", "ArrowRight"), ("layers", "ArrowLeft")]
)
def test_each_slider_changes_what_is_seen(panel, slider, key):
    for name in ("Method and layers", "Drawing"):
        panel.unfold(name)
    before = panel.painted()
    place = panel.box.locator(f".gradeclip-control.gradeclip-{slider} input")
    value = place.input_value()
    for _ in range({"opacity": 5, "threshold": 40, "layers": 1}[slider]):
        place.press(key)
    if slider == "layers":
        expect(panel.origin).to_contain_text(re.compile(r"last 3 layers"))
    assert panel.painted() != before
    panel.shoot(f"9_{slider}")
    place.evaluate(
        "(node, value) => { node.value = value;"
        " for (const name of ['input', 'change']) node.dispatchEvent(new Event(name)); }",
        value,
    )


def test_every_key_on_a_slider_counts_though_the_older_values_are_answered_meanwhile(panel):
    slider = panel.box.locator(".gradeclip-control.gradeclip-opacity input")
    script = panel.box.locator(".gradeclip-fold pre")  # of what the kernel knows
    for key, value in (("ArrowLeft", "0.35"), ("ArrowRight", "0.85")):
        for _ in range(10):
            slider.press(key)
        expect(script).to_contain_text(f"opacity={value}")
        expect(slider).to_have_value(value)
        expect(panel.box.locator(".gradeclip-side-1 .gradeclip-frame")).to_have_css("--opacity", value)


@pytest.mark.parametrize("slider", ["opacity", "threshold", "layers"])
def test_a_slider_that_is_dragged_is_not_moved_by_what_the_kernel_answers_meanwhile(panel, slider):
    for name in ("Method and layers", "Drawing"):
        panel.unfold(name)
    place, mouse = panel.box.locator(f".gradeclip-control.gradeclip-{slider} input"), panel.page.mouse
    place.scroll_into_view_if_needed()
    box, value = place.bounding_box(), place.input_value()
    y = box["y"] + box["height"] / 2
    mouse.move(box["x"] + box["width"] * {"opacity": 0.85, "threshold": 0.03, "layers": 0.95}[slider], y)
    mouse.down()
    mouse.move(box["x"] + box["width"] * 0.4, y)
    dragged = place.input_value()
    panel.words.nth(1).evaluate("word => word.click()")  # which leaves the mouse where it is
    expect(panel.box.locator(".gradeclip-fold pre")).to_contain_text("[1:2].sum(0)")  # answered
    assert place.input_value() == dragged != value
    mouse.up()
    assert place.input_value() == dragged
    place.fill(value)


def test_the_line_at_half_of_the_largest_value_can_be_left_out(panel):
    panel.unfold("Drawing")
    line, before = panel.box.get_by_label("contour"), panel.painted()
    line.click()
    assert panel.painted() != before
    line.click()
    assert panel.painted() == before
    panel.unfold("Drawing", False)


def test_another_model_keeps_the_selection(panel):
    panel.words.nth(1).click()
    panel.page.mouse.move(0, 0)
    title = panel.title.inner_text()
    options = panel.box.locator(".gradeclip-control.gradeclip-model option").all_inner_texts()
    assert "emoji" in options and len(options) > 1
    panel.choose("model", "emoji-fine")
    expect(panel.origin).to_contain_text("emoji-fine")
    assert panel.title.inner_text() == title
    panel.shoot("10_model")
    panel.choose("model", "emoji")
    expect(panel.origin).to_contain_text("emoji (bundled)")


def test_the_verdict_is_of_the_phrase_that_a_method_read_alone(panel):
    panel.words.nth(1).click()
    panel.page.mouse.move(0, 0)
    word = panel.words.nth(1).locator(".gradeclip-name").inner_text()
    panel.choose("method", "maskclip")
    expect(panel.title).to_contain_text(f"“{word}” read alone")
    expect(panel.verdict).to_contain_text(re.compile(f"^“{word}”|the map of “{word}”"))
    panel.choose("method", "grad-eclip")
    expect(panel.title).to_have_text(f"map of “{word}”")


def test_without_one_scale_the_legend_names_no_number(panel):
    shared, legend = panel.box.locator(".gradeclip-shared input"), panel.box.locator(".gradeclip-legend")
    panel.unfold("Drawing")
    shared.click()
    panel.words.nth(1).hover()
    expect(legend).to_have_text("hidden: relevance 0, clear: the largest of each map; purple: against")
    shared.click()
    panel.words.nth(1).hover()
    expect(legend).to_have_text(re.compile("purple: against, −0"))
    panel.unfold("Drawing", False)


def test_long_work_says_so_and_the_next_change_stops_it(panel):
    panel.unfold("Save, Python, numbers")
    panel.press("save explanation")
    expect(panel.message).to_contain_text("Saved as /")
    panel.unfold("Save, Python, numbers", False)
    panel.unfold("Method and layers")
    panel.choose("method", "rise")
    expect(panel.message).to_contain_text("RISE")
    expect(panel.message).to_contain_text("Saved as /")
    expect(panel.message.locator("progress")).to_be_visible()
    panel.shoot("11_working")
    panel.choose("method", "grad-eclip")
    expect(panel.message).to_be_empty()
    expect(panel.origin).to_contain_text("Grad-ECLIP")


@pytest.mark.parametrize(
    ("caption", "sentence"),
    [
        ("", "is empty"),
        ("a volcanoe", "never shown the word “volcanoe” (near: volcano"),
        ("ein Hund", "never shown the words “ein”, “hund”. What"),  # to which nothing is near
        ("dog " * 100, "too long"),
        ("<img src=x onerror='window.hacked=1'>", "never shown"),
    ],
)
def test_a_wrong_caption_gets_a_sentence_and_the_last_view_stays(panel, caption, sentence):
    title, before = panel.title.inner_text(), panel.painted()
    panel.write("caption", caption)
    expect(panel.message).to_contain_text(sentence)
    assert panel.title.inner_text() == title and panel.painted() == before
    assert panel.page.evaluate("() => window.hacked") is None
    assert panel.box.locator(".gradeclip-control.gradeclip-caption input").input_value() == caption
    assert not re.search(r"shown:|\d ms\b", panel.box.inner_text())  # what is for developers only
    panel.shoot("12_wrong")


def test_a_sentence_about_a_wrong_path_goes_with_the_next_caption_and_with_the_emptied_field(panel):
    panel.unfold("Drawing")
    path = panel.box.get_by_label("path of an image file")
    mends = {"one": lambda: panel.write("caption", "a dog"), "two": lambda: (path.fill(""), path.press("Enter"))}
    for name, mend in mends.items():
        path.fill(f"/nowhere/at/{name}.png")
        path.press("Enter")
        expect(panel.message).to_contain_text(f"There is no image file /nowhere/at/{name}.png")
        mend()
        expect(panel.message).to_be_empty()
    panel.unfold("Drawing", False)


def test_enter_asks_again_for_the_same_path_where_by_now_there_may_be_a_file(panel, tmp_path):
    panel.unfold("Drawing")
    path, file = panel.box.get_by_label("path of an image file"), tmp_path / "late.png"
    path.fill(str(file))
    path.press("Enter")
    expect(panel.message).to_contain_text("There is no image file")
    file.write_bytes(png())
    path.fill(f'"{file}"')  # as a file manager copies it
    path.press("Enter")
    expect(panel.origin).to_contain_text("image: late.png")
    panel.unfold("Drawing", False)


def png(size=(300, 200), noise=False):
    if noise:
        image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
    else:
        image = Image.new("RGB", size, "teal")
    ImageDraw.Draw(image).ellipse((40, 40, 140, 140), fill="orange")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def upload(panel, name, content):
    file = {"name": name, "mimeType": "image/png", "buffer": content}
    panel.box.locator("input[type=file]").set_input_files(file)


def test_a_photograph_of_many_megabytes_is_made_smaller_and_the_next_one_is_heard(panel):
    large = png((2400, 1900), noise=True)
    assert len(large) > 13e6
    upload(panel, "large <b>.png", large)
    expect(panel.message).to_contain_text("large <b>.png: 2400 × 1900 pixels were reduced to 1024 × 811")
    expect(panel.origin).to_contain_text("image: large <b>.png")
    upload(panel, "hair.png", png((3000, 1)))  # of which a third of a pixel would be left
    expect(panel.message).to_contain_text("hair.png: 3000 × 1 pixels were reduced to 1024 × 1")
    upload(panel, "large.heic", b"\0\0\0\x18ftypheic" * 500_000)
    expect(panel.message).to_contain_text("large.heic is no image that this browser can open: save it as JPEG or PNG")
    upload(panel, "small.png", png())
    expect(panel.origin).to_contain_text("image: small.png")
    expect(panel.message).to_contain_text("has never seen a photograph")
    expect(panel.message.locator(".gradeclip-note")).to_be_visible()
    panel.shoot("13_upload")
    upload(panel, "notes.png", b"no picture at all")
    expect(panel.message).to_contain_text("notes.png is not a picture")
    expect(panel.origin).to_contain_text("image: small.png")


def test_a_view_can_be_saved_and_shown_as_python_and_as_tables(panel):
    panel.unfold("Save, Python, numbers")
    panel.press("save image (PNG)")
    expect(panel.message).to_contain_text(re.compile(r"Saved as /.*/explanation(-\d+)?\.png"))
    expect(panel.box.locator(".gradeclip-fold pre")).to_contain_text("load_clip('emoji')")
    expect(panel.box.locator(".gradeclip-tables td").first).to_be_visible()
    panel.press("does the map depend on the caption?")
    expect(panel.box.locator(".gradeclip-row > output")).to_contain_text("of 16 other prompts by")
    panel.shoot("14_kept")
    panel.page.set_viewport_size({"width": 800, "height": 800})  # where the script's lines are wider than the panel
    assert overflow(panel.box) <= 1
    panel.page.set_viewport_size({"width": 1280, "height": 800})
    panel.unfold("Save, Python, numbers", False)


def test_the_copied_python_runs_in_a_new_cell_and_shows_an_image(panel):
    page = panel.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    panel.words.nth(1).click()
    panel.unfold("Save, Python, numbers")
    expect(panel.box.locator(".gradeclip-fold pre")).to_contain_text("[1:2].sum(0)")
    panel.press("copy as Python")
    expect(panel.box.get_by_role("button", name="copied")).to_be_visible()
    panel.unfold("Save, Python, numbers", False)
    run = "async (name) => window.jupyterapp.commands.execute(name)"
    page.evaluate(run, "notebook:insert-cell-below")
    page.evaluate(run, "notebook:enter-edit-mode")
    page.keyboard.press("Control+V")
    new = page.locator(".jp-Cell.jp-mod-active")
    expect(new.locator(".cm-content")).to_contain_text("painting = paint(")
    assert page.evaluate(run, "notebook:run-cell")
    expect(new.locator(".jp-OutputArea-output img")).to_be_visible()
    width = "image => image.decode().then(() => image.naturalWidth)"
    assert new.locator(".jp-OutputArea-output img").evaluate(width) > 100
    assert page.evaluate("() => window.wrong") == [] and new.locator(".jp-RenderedText").count() == 0
    new.screenshot(path=SHOTS / "16_copied.png")
    page.evaluate(run, "notebook:delete-cell")


@THEMES
@pytest.mark.parametrize("width", [1920, 1280, 800])
def test_it_fits_and_can_be_read_at_every_width_and_in_both_themes(panel, width, theme):
    change_theme(panel.page, theme)
    panel.page.set_viewport_size({"width": width, "height": 800 if width < 1900 else 1080})
    show_cell(panel.page, "explorer-03")
    panel.unfold("Method and layers")
    panel.page.wait_for_timeout(500)
    panel.shoot(f"15_{width}_{theme.split()[1].lower()}")
    assert overflow(panel.box) <= 1
    assert frame_widths(panel.box)[1] > 0.6 * panel.box.locator(".gradeclip-side-1").bounding_box()["width"]
    left, right = (
        panel.box.locator(f".gradeclip-control.gradeclip-{name}").bounding_box() for name in ("layers", "spatial")
    )
    assert right["y"] > left["y"] or right["x"] - left["x"] - left["width"] >= 10  # its number touches no other name
    light = panel.title.evaluate(
        "node => { const sum = colour => colour.match(/[\\d.]+/g).slice(0, 3).reduce((a, b) => a + +b, 0);"
        " return [sum(getComputedStyle(node).color), sum(getComputedStyle(document.body).backgroundColor)]; }"
    )
    assert abs(light[0] - light[1]) > 300
    order = [
        panel.box.locator(part).bounding_box()
        for part in (".gradeclip-side-0", ".gradeclip-side-1", ".gradeclip-words")
    ]
    stacked = [box["y"] for box in order] if width == 800 else [box["x"] for box in order]
    assert stacked == sorted(stacked)
    panel.unfold("Method and layers", False)
    for question in ("why not another caption?", "compare methods", "where?"):
        panel.ask(question)
        expect(panel.box.get_by_label(question)).to_be_checked()
        expect(panel.box.locator(".gradeclip-side-2")).to_be_visible(visible=question == "compare methods")
        assert width < 1900 or blank(panel.box) < 0.4, question
        assert min(contrasts(panel.box).values()) >= 4.5
    panel.page.set_viewport_size({"width": 1280, "height": 800})


def test_nothing_was_asked_of_another_machine_and_the_console_was_silent(explorer):
    strange = [url for url in explorer.asked if not re.match(r"(http://127\.0\.0\.1:|blob:|data:)", url)]
    late = "did not appear within"  # JupyterLab's own words for a cell that a busy machine does not draw in time
    read = "getImageData"  # Chromium's, of these tests, which read what is drawn
    assert explorer.asked and strange == []
    assert [one for one in explorer.said if late not in one and read not in one] == []
