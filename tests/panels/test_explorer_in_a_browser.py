"""One walk of the explorer in JupyterLab and Chromium, from its first cell to a lost kernel."""

import re

import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.browser import BROWSER, open_notebook, write_notebook
from tests.conftest import ROOT

pytestmark = BROWSER
SHOTS = ROOT / "build" / "screenshots"  # to be looked at
PAINTED = """node => {
  const pixels = node.getContext("2d").getImageData(0, 0, node.width, node.height);
  return pixels.data.some((part) => part > 0);
}"""
KERNEL = "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel"
CELL = "from gradeclip_utils.panels import explore\nexplore()"
expect.set_options(timeout=120_000)


@pytest.fixture(scope="module")
def walk(lab, browser):
    """The page with the explorer's first cell, run."""
    write_notebook(lab, "walk.ipynb", [CELL])
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    open_notebook(page, lab, "walk.ipynb")
    page.evaluate("() => void window.jupyterapp.commands.execute('notebook:run-all-cells')")
    expect(page.locator(".gradeclip-map canvas")).to_be_visible()
    page.set_default_timeout(120_000)
    yield page
    context.close()


def test_a_walk_through_the_explorer(walk, tmp_path):
    box = walk.locator(".gradeclip-explorer").first
    errors = []
    walk.on("pageerror", lambda error: errors.append(str(error)))
    SHOTS.mkdir(parents=True, exist_ok=True)
    caption = box.locator(".gradeclip-prompt input")
    canvas = box.locator("canvas")
    message = box.locator(".gradeclip-message")
    verdict = box.locator(".gradeclip-verdict")
    scenes = box.locator(".gradeclip-scenes button")

    def write(text):
        caption.fill(text)
        caption.press("Enter")

    def button(name):
        return box.get_by_role("button", name=name)

    def word(text):
        return box.locator("button.gradeclip-word", has_text=text)

    def save_picture(name):
        box.screenshot(path=SHOTS / f"explorer-{name}.png")

    # the start: words in the title, a similarity with its place, thumbnails beside it
    expect(box.locator(".gradeclip-word").last).to_have_text("umbrella")
    expect(box.get_by_text(re.compile("above .* captions"))).to_be_visible()
    expect(scenes).to_have_count(5)
    save_picture("start")

    # a word has a map
    before = canvas.evaluate("canvas => canvas.toDataURL()")
    word("umbrella").click()
    expect(verdict).to_contain_text("of “umbrella” lies on the umbrella")
    assert canvas.evaluate("canvas => canvas.toDataURL()") != before
    save_picture("word")

    # an unknown word is struck out, and a known one is a press away
    write("the happy dog under the umbrela")
    expect(box.locator("s")).to_have_text(["happy", "under", "umbrela"])
    expect(box.locator(".gradeclip-title .gradeclip-word")).to_have_text(["the", "dog", "the"])
    assert canvas.evaluate(PAINTED)  # the map of a word that is gone is forgotten
    box.get_by_role("button", name="umbrella", exact=True).click()
    expect(caption).to_have_value("the happy dog under the umbrella")
    save_picture("unknown")

    # what is not there has a map; then the way back
    button("ask for a piano").click()
    expect(verdict).to_contain_text("There is no piano in this image")
    button("reset").click()
    expect(caption).to_have_value("a dog and an umbrella")

    # a pinned map beside the next one, and their difference
    box.get_by_text("Compare", exact=True).click()
    button("pin this map").click()
    expect(button("unpin")).to_be_visible()
    write("a dog")
    expect(canvas).to_have_count(3)
    save_picture("pinned")
    button("unpin").click()
    expect(canvas).to_have_count(1)

    # the parts of the map: a row for each layer with its heads and their sum
    fold = box.get_by_text("All layers and heads", exact=True)
    fold.click()
    expect(box.locator(".gradeclip-heads canvas")).to_have_count(6 * (3 + 1))
    save_picture("heads")
    fold.click()
    expect(canvas).to_have_count(1)

    # what takes long is stopped by the button above the notebook
    box.get_by_text("Method and layers", exact=True).click()
    box.locator(".gradeclip-method select").select_option("rise")
    walk.wait_for_timeout(1000)
    walk.evaluate(f"() => {KERNEL}.interrupt()")
    expect(message).to_have_text("Stopped. The panel still shows the last view.")

    # an image of one's own empties the caption
    Image.new("RGB", (80, 60), "orange").save(tmp_path / "own.png")
    box.locator("input[type=file]").set_input_files(tmp_path / "own.png")
    expect(caption).to_have_value("")
    expect(canvas).to_have_count(0)
    expect(button("pin this map")).to_be_hidden()
    expect(scenes).to_have_count(6)

    write("a dog")
    expect(message).to_contain_text("trained on drawn scenes alone")

    # a refused value is answered, and the view stays; its caption is back with the next change
    write("zeppelin")
    expect(message).to_contain_text("does not know “zeppelin”")
    word("dog").click()
    expect(caption).to_have_value("a dog")

    # narrow: nothing reaches beyond the panel
    walk.set_viewport_size({"width": 520, "height": 900})
    button("reset").click()
    expect(caption).to_have_value("a dog and an umbrella")
    assert box.evaluate("box => box.scrollWidth - box.clientWidth") <= 0
    save_picture("narrow")
    walk.set_viewport_size({"width": 1280, "height": 900})

    # a kernel that was restarted while it worked
    assert errors == []
    write("a dog")
    walk.evaluate(f"() => {KERNEL}.restart()")
    write("a piano")
    expect(message).to_contain_text("run this cell again", timeout=60_000)
    save_picture("silent")
