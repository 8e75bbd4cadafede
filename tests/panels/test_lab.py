"""A stranger opens the first notebook in a real JupyterLab, in a real browser, and runs it."""

import pytest

from tests.browser import BROWSER, ROOT

pytestmark = BROWSER


@pytest.mark.parametrize("name", [path.name for path in sorted((ROOT / "notebooks").glob("01_*.ipynb"))])
def test_the_first_notebook_runs_in_jupyterlab_without_an_error(opened, name, tmp_path):
    page = opened(name).page
    pictures = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-OutputArea img.gradeclip-figure")
    sizes = pictures.evaluate_all("images => images.map(image => [image.naturalWidth, image.clientWidth])")
    assert len(sizes) >= 3 and all(natural > 100 and 0 < shown <= 1280 for natural, shown in sizes)
    told = pictures.evaluate_all("images => images.map(image => image.alt)")
    assert all(told) and page.locator(".jp-RenderedImage").count() == 0  # which JupyterLab gives no alternative text
    page.screenshot(path=tmp_path / "lab.png")
