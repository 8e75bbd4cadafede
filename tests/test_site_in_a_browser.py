"""The built site in a browser, from disk: pages fit a telephone, and axe finds no violation."""

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser import BROWSER, WAIT
from tests.conftest import ROOT

SITE = ROOT / "build" / "site"
pytestmark = [
    *BROWSER,
    pytest.mark.skipif(
        not (SITE / "index.html").is_file(), reason="the site is not built here (make site)"
    ),
]
PAGES = [
    "index.html",
    "methods.html",
    "api/explain.html",
    "data/README.html",
    "notebooks/06_attribute_binding.html",
]
LEVELS = {
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa"]},
    "resultTypes": ["violations"],
}


def open_page(page, name, width, theme="light"):
    """Open a page from disk; requests outside the site's folder are collected."""
    outside = []

    def collect(request):
        if not request.url.startswith(("file:", "data:")):
            outside.append(request.url)

    page.on("request", collect)
    page.set_default_timeout(WAIT)
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    page.goto(f"{SITE.as_uri()}/{name}", wait_until="load")
    return outside


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_a_telephone_and_fetches_nothing(page, name):
    outside = open_page(page, name, 390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert outside == []


def style_of(locator, name):
    return locator.evaluate(f"node => getComputedStyle(node).{name}")


def test_figures_lie_on_white_in_the_dark_and_maps_lie_on_their_images(page):
    open_page(page, "notebooks/03_methods_compared.html", 1280, "dark")
    sheets = page.locator(".pst-scrollable-table-container:has(> img, > a)").all()
    assert sheets
    for sheet in sheets:
        assert style_of(sheet, "backgroundColor") == "rgb(255, 255, 255)"

    # the theme pads images
    open_page(page, "notebooks/01_start_here.html", 1280, "dark")
    assert style_of(page.locator(".gradeclip-map img").first, "padding") == "0px"


@pytest.mark.parametrize("name", PAGES[:3])
def test_axe_finds_no_violation_of_level_a_or_aa(page, name):
    open_page(page, name, 1280)
    report = Axe().run(page, options=LEVELS)
    assert report.violations_count == 0, report.generate_report()


def test_formulas_are_set_by_the_site_itself(page):
    open_page(page, "docs/method.html", 1280)
    page.wait_for_selector("mjx-container", state="attached", timeout=60_000)
