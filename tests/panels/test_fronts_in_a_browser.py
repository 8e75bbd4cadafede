"""The explorer and a figure in JupyterLab and in Notebook 7, as they are and zoomed to 150 %, light and dark."""

from base64 import b64decode
from functools import cache

import pytest
from playwright.sync_api import expect

from tests.browser import BROWSER
from tests.panels.browsing import SHOTS, THEMES, change_theme, contrasts, frame_widths, overflow

pytestmark = BROWSER
TREES = {"jupyterlab": "lab/tree", "notebook": "notebooks"}
CELLS = [
    "from gradeclip_utils.panels.explorer import explore\n\nexplore()",
    "from gradeclip_utils import Explainer, load_clip\nfrom gradeclip_utils.scenes import arrange\n\n"
    'scene = arrange(["red car", "dog"])\nscene',
    'Explainer(load_clip()).explain(scene.image(), "a dog").plot()',
]


@pytest.fixture(scope="module")
def shown(opened):
    """Opens a front end and runs the cells in it, once."""
    return cache(lambda front: opened("fronts.ipynb", CELLS, height=800, tree=TREES[front]))


@pytest.mark.parametrize("lab", TREES, indirect=True)
@pytest.mark.parametrize(("width", "zoom"), [(1280, 1.0), (800, 1.0), (1280, 1.5), (800, 1.5)])
@THEMES
def test_it_is_whole_readable_and_silent(shown, lab, request, width, zoom, theme):
    """A browser's zoom leaves a page fewer and larger pixels; a screenshot of Playwright's would take it back."""
    front = request.node.callspec.params["lab"]
    page, _, said = shown(front)
    change_theme(page, theme)
    browser, size = page.context.new_cdp_session(page), {"width": int(width / zoom), "height": int(800 / zoom)}
    browser.send("Emulation.setDeviceMetricsOverride", {**size, "deviceScaleFactor": zoom, "mobile": False})
    page.wait_for_function("([w, z]) => innerWidth === w && devicePixelRatio === z", arg=[size["width"], zoom])
    page.wait_for_timeout(500)
    panel, images = page.locator(".gradeclip-explorer"), page.locator(".jp-RenderedHTMLCommon > img")
    expect(panel.locator(".gradeclip-side-1 canvas")).to_be_visible(timeout=120_000)
    panel.evaluate("box => box.scrollIntoView()")
    SHOTS.mkdir(parents=True, exist_ok=True)
    shot = b64decode(browser.send("Page.captureScreenshot")["data"])
    (SHOTS / f"40_{front}_{theme.split()[1].lower()}_{width}_{int(100 * zoom)}.png").write_bytes(shot)
    left, right = frame_widths(panel)
    assert overflow(panel) <= 1 and left == pytest.approx(right, abs=1)
    assert left > min(150, 0.9 * panel.bounding_box()["width"])  # JupyterLab's own side bar leaves it what it leaves
    assert min(contrasts(panel).values()) >= 4.5
    expect(images).to_have_count(2, timeout=120_000)
    told = images.evaluate_all("images => images.map(image => image.alt)")
    assert told[0].startswith("a scene: ") and ": image, heat map and shaded words for a dog" in told[1]
    assert page.evaluate("[innerWidth, devicePixelRatio]") == [size["width"], zoom] and said == []
