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
    message = box.locator(".gradeclip-message")

    def write(text):
        caption.fill(text)
        caption.press("Enter")

    # the start: words in the title, a similarity with its place, thumbnails beside it
    expect(box.locator(".gradeclip-word").last).to_have_text("umbrella")
    expect(box.get_by_text(re.compile("above .* captions"))).to_be_visible()
    expect(box.locator(".gradeclip-scenes button")).to_have_count(5)
    box.screenshot(path=SHOTS / "explorer-start.png")

    # a word has a map
    before = box.locator("canvas").evaluate("canvas => canvas.toDataURL()")
    box.locator("button.gradeclip-word", has_text="umbrella").click()
    expect(box.locator(".gradeclip-verdict")).to_contain_text("of “umbrella” lies on the umbrella")
    assert box.locator("canvas").evaluate("canvas => canvas.toDataURL()") != before
    box.screenshot(path=SHOTS / "explorer-word.png")

    # an unknown word is struck out, and a known one is a press away
    write("the happy dog under the umbrela")
    expect(box.locator("s")).to_have_text(["happy", "under", "umbrela"])
    expect(box.locator(".gradeclip-title .gradeclip-word")).to_have_text(["the", "dog", "the"])
    assert box.locator("canvas").evaluate(PAINTED)  # the map of a word that is gone is forgotten
    box.get_by_role("button", name="umbrella", exact=True).click()
    expect(caption).to_have_value("the happy dog under the umbrella")
    box.screenshot(path=SHOTS / "explorer-unknown.png")

    # what is not there has a map; then the way back
    box.get_by_role("button", name="ask for a piano").click()
    expect(box.locator(".gradeclip-verdict")).to_contain_text("There is no piano in this image")
    box.get_by_role("button", name="reset").click()
    expect(caption).to_have_value("a dog and an umbrella")

    # a pinned map beside the next one, and their difference
    box.get_by_text("Compare", exact=True).click()
    box.get_by_role("button", name="pin this map").click()
    expect(box.get_by_role("button", name="unpin")).to_be_visible()
    write("a dog")
    expect(box.locator("canvas")).to_have_count(3)
    box.screenshot(path=SHOTS / "explorer-pinned.png")
    box.get_by_role("button", name="unpin").click()
    expect(box.locator("canvas")).to_have_count(1)

    # the parts of the map: a row for each layer with its heads and their sum
    fold = box.get_by_text("All layers and heads", exact=True)
    fold.click()
    expect(box.locator(".gradeclip-heads canvas")).to_have_count(6 * (3 + 1))
    box.screenshot(path=SHOTS / "explorer-heads.png")
    fold.click()
    expect(box.locator("canvas")).to_have_count(1)

    # what takes long is stopped by the button above the notebook
    box.get_by_text("Method and layers", exact=True).click()
    box.locator(".gradeclip-method select").select_option("rise")
    walk.wait_for_timeout(1000)
    walk.evaluate(
        "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.interrupt()"
    )
    expect(message).to_have_text("Stopped. The panel still shows the last view.")

    # an image of one's own empties the caption
    Image.new("RGB", (80, 60), "orange").save(tmp_path / "own.png")
    box.locator("input[type=file]").set_input_files(tmp_path / "own.png")
    expect(caption).to_have_value("")
    expect(box.locator("canvas")).to_have_count(0)
    expect(box.get_by_role("button", name="pin this map")).to_be_hidden()
    expect(box.locator(".gradeclip-scenes button")).to_have_count(6)

    write("a dog")
    expect(message).to_contain_text("trained on drawn scenes alone")

    # a refused value is answered, and the view stays; its caption is back with the next change
    write("zeppelin")
    expect(message).to_contain_text("does not know “zeppelin”")
    box.locator("button.gradeclip-word", has_text="dog").click()
    expect(caption).to_have_value("a dog")

    # narrow: nothing reaches beyond the panel
    walk.set_viewport_size({"width": 520, "height": 900})
    box.get_by_role("button", name="reset").click()
    expect(caption).to_have_value("a dog and an umbrella")
    assert box.evaluate("box => box.scrollWidth - box.clientWidth") <= 0
    box.screenshot(path=SHOTS / "explorer-narrow.png")
    walk.set_viewport_size({"width": 1280, "height": 900})

    # a kernel that was restarted while it worked
    assert errors == []
    write("a dog")
    walk.evaluate(
        "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()"
    )
    write("a piano")
    expect(message).to_contain_text("run this cell again", timeout=60_000)
    box.screenshot(path=SHOTS / "explorer-silent.png")
