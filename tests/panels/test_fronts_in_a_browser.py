"""The explorer and a figure in JupyterLab and in Notebook 7, as they are and zoomed to 150 %."""

import pytest
from playwright.sync_api import expect

from tests.browser import BROWSER
from tests.panels.browsing import SHOTS, frame_widths, overflow

pytestmark = BROWSER
TREES = {"jupyterlab": "lab/tree", "notebook": "notebooks"}
CELLS = [
    "from gradeclip_utils.panels.explorer import explore\n\nexplore()",
    "from gradeclip_utils import Explainer, load_clip\nfrom gradeclip_utils.scenes import arrange\n\n"
    'scene = arrange(["red car", "dog"])\nscene',
    'Explainer(load_clip()).explain(scene.image(), "a dog").plot()',
]


@pytest.mark.parametrize("lab", TREES, indirect=True)
@pytest.mark.parametrize(("width", "zoom"), [(1280, 1.0), (800, 1.0), (1280, 1.5)])
def test_it_is_whole_readable_and_silent(opened, lab, request, width, zoom):
    front = request.node.callspec.params["lab"]
    page, _, said = opened("fronts.ipynb", CELLS, width, 800, zoom, TREES[front])
    panel, images = page.locator(".gradeclip-explorer"), page.locator(".jp-RenderedHTMLCommon > img")
    expect(panel.locator(".gradeclip-side-1 canvas")).to_be_visible(timeout=120_000)
    panel.evaluate("box => box.scrollIntoView()")
    panel.screenshot(path=SHOTS / f"40_{front}_{width}_{int(100 * zoom)}.png")
    left, right = frame_widths(panel)
    assert overflow(panel) <= 1 and left == pytest.approx(right, abs=1) and left > 150
    expect(images).to_have_count(2, timeout=120_000)
    told = images.evaluate_all("images => images.map(image => image.alt)")
    assert told[0].startswith("a scene: ") and ": image, heat map and shaded words for a dog" in told[1]
    page.close()
    assert said == []
