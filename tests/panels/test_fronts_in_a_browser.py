"""The explorer and a figure in JupyterLab and in Notebook 7, as they are and zoomed to 150 %."""

import pytest
from playwright.sync_api import expect

from tests.browser import (
    BROWSER,
    ROOT,
    browser_context_args,
    browser_type_launch_args,
    lab,
    open_notebook,
    run_all,
    write_notebook,
)

__all__ = ["browser_context_args", "browser_type_launch_args", "lab"]  # fixtures
pytestmark = BROWSER
SHOTS = ROOT / "build" / "screenshots"
TREES = {"jupyterlab": "lab/tree", "notebook": "notebooks"}
CELLS = [
    "from gradeclip_utils.panels.explorer import explore\n\nexplore()",
    "from gradeclip_utils import Explainer, load_clip\nfrom gradeclip_utils.scenes import arrange\n\n"
    'scene = arrange(["red car", "dog"])\nscene',
    'Explainer(load_clip()).explain(scene.image(), "a dog").plot()',
]


@pytest.mark.parametrize("lab", TREES, indirect=True)
@pytest.mark.parametrize(("width", "zoom"), [(1280, 1.0), (800, 1.0), (1280, 1.5)])
def test_it_is_whole_readable_and_silent(lab, browser, request, width, zoom):
    """A browser's zoom leaves a page fewer and larger pixels."""
    front = request.node.callspec.params["lab"]
    SHOTS.mkdir(parents=True, exist_ok=True)
    write_notebook(lab, "fronts.ipynb", CELLS)
    size = {"width": int(width / zoom), "height": int(800 / zoom)}
    context = browser.new_context(viewport=size, device_scale_factor=zoom)
    page, said = context.new_page(), []
    open_notebook(page, lab, "fronts.ipynb", TREES[front])
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("console", lambda one: said.append(one.text) if one.type in ("error", "warning") else None)
    run_all(page)
    panel, images = page.locator(".gradeclip-explorer"), page.locator(".jp-RenderedHTMLCommon > img")
    expect(panel.locator(".gradeclip-side-1 canvas")).to_be_visible(timeout=120_000)
    panel.evaluate("box => box.scrollIntoView()")
    panel.screenshot(path=SHOTS / f"40_{front}_{width}_{int(100 * zoom)}.png")
    assert panel.evaluate("box => box.scrollWidth - box.clientWidth") <= 1
    left, right = (panel.locator(f".gradeclip-side-{i} .gradeclip-frame").bounding_box() for i in (0, 1))
    assert left["width"] == pytest.approx(right["width"], abs=1) and left["width"] > 150
    expect(images).to_have_count(2, timeout=120_000)
    told = images.evaluate_all("images => images.map(image => image.alt)")
    assert told[0].startswith("a scene: ") and told[1].startswith("Image, heat map and shaded words for a dog")
    context.close()
    assert said == []
