"""The built site in a real browser, from disk: it fits a telephone, axe finds nothing, search and dark theme work."""

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser import BROWSER, WAIT, browser_context_args, browser_type_launch_args  # noqa: F401

SITE = Path(__file__).parent.parent / "build" / "site"
pytestmark = [
    *BROWSER,
    pytest.mark.skipif(not (SITE / "index.html").is_file(), reason="the site is not built here (make site)"),
]
EVERY = sorted(
    page.relative_to(SITE).as_posix()
    for page in SITE.rglob("*.html")
    if "_static" not in page.parts and ("_modules" not in page.parts or page.name in ("index.html", "explain.html"))
)  # of pages of source, which differ in nothing else, one
LEVELS = {
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]},
    "resultTypes": ["violations"],
}
# The theme gives what scrolls a tab stop, a moment after the width has changed.
REACHED = """() => [...document.querySelectorAll('[tabindex="-1"]')].every(
    one => one.scrollWidth <= one.clientWidth || getComputedStyle(one).overflowX === 'visible')"""


def open_page(page, name, width):
    """Open a page from disk; what it asks for outside the site's folder is collected."""
    outside = []
    page.on(
        "request", lambda asked: outside.append(asked.url) if not asked.url.startswith(("file:", "data:")) else None
    )
    page.set_default_timeout(WAIT)
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme="light", reduced_motion="reduce")
    page.goto(f"{SITE.as_uri()}/{name}", wait_until="load")
    return outside


@pytest.mark.parametrize("name", EVERY)
def test_a_page_fits_its_width_fetches_nothing_and_axe_finds_no_violation_of_level_a_or_aa(page, name):
    outside = open_page(page, name, 1280)
    for width, theme in ((1280, "light"), (390, "dark")):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=theme)
        page.wait_for_function(f"document.documentElement.dataset.theme === '{theme}'")
        page.wait_for_function(REACHED)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        found = Axe().run(page, options=LEVELS)
        assert found.violations_count == 0, f"{width} px, {theme}: {found.generate_report()}"
    assert outside == []


def test_search_works_from_disk(page):
    open_page(page, "search.html?q=insertion", 1280)
    page.wait_for_selector("#search-results li a", timeout=60_000)
    titles = page.locator("#search-results li a").all_inner_texts()
    assert any("Evaluate" in title or "Methods" in title for title in titles), titles


def test_a_view_of_an_explanation_answers_on_the_page_of_a_lesson(page):
    open_page(page, "notebooks/01_start_here.html", 1280)
    view = page.locator(".gradeclip-explorer").first
    title, word = view.locator(".gradeclip-side-1 .gradeclip-title"), view.locator(".gradeclip-word").nth(1)
    before = title.inner_text()
    word.hover()
    page.wait_for_function("([one, text]) => one.innerText !== text", arg=[title.element_handle(), before])
    assert title.inner_text().startswith("map of “")


def test_formulas_are_set_by_the_site_itself(page):
    open_page(page, "docs/method.html", 1280)
    page.wait_for_selector("mjx-container", state="attached", timeout=60_000)
    assert page.locator("mjx-container").count() > 5
