"""The built site in a real browser, from disk: it fits a telephone, axe finds nothing, search and dark theme work."""

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser import BROWSER, browser_context_args, browser_type_launch_args  # noqa: F401

SITE = Path(__file__).parent.parent / "build" / "site"
pytestmark = [
    *BROWSER,
    pytest.mark.skipif(not (SITE / "index.html").is_file(), reason="the site is not built here (make site)"),
]
PAGES = [
    "index.html", "methods.html", "gallery.html", "glossary.html", "docs/start.html", "docs/method.html",
    "docs/architectures.html", "notebooks/README.html", "notebooks/01_start_here.html", "api/explain.html",
]  # fmt: skip
LEVELS = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}}


def open_page(page, name, width, theme="light"):
    """Open a page from disk; what it asks for outside the site's folder is collected."""
    outside = []
    page.on(
        "request", lambda asked: outside.append(asked.url) if not asked.url.startswith(("file:", "data:")) else None
    )
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    page.goto(f"{SITE.as_uri()}/{name}", wait_until="load", timeout=120_000)
    return outside


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_its_width_and_fetches_nothing(page, name, width):
    outside = open_page(page, name, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert outside == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_no_violation_of_level_a_or_aa(page, name, theme):
    open_page(page, name, 390 if theme == "dark" else 1280, theme)
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    found = Axe().run(page, options=LEVELS)
    assert found.violations_count == 0, found.generate_report()


def test_search_works_from_disk(page):
    open_page(page, "search.html?q=insertion", 1280)
    page.wait_for_selector("#search-results li a", timeout=60_000)
    titles = page.locator("#search-results li a").all_inner_texts()
    assert any("Evaluate" in title or "Methods" in title for title in titles), titles


def test_formulas_are_set_by_the_site_itself(page):
    open_page(page, "docs/method.html", 1280)
    page.wait_for_selector("mjx-container", state="attached", timeout=60_000)
    assert page.locator("mjx-container").count() > 5
