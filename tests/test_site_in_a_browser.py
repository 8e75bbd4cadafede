"""The built site in a real browser, from disk: it fits a telephone, axe finds nothing, search and dark theme work."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.base import AXE_SCRIPT
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

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
# Contrast is a matter of a text's colour, size and weight, and of what is painted behind it. Of texts that look the
# same axe measures three, on whatever pages they are: a lesson has ten thousand spans of highlighted code in twenty
# looks, and axe takes half a minute for all of them. Further spans of code become plain text: they say nothing else.
# They do so in the first theme that a page is seen in, so a span of code looks alike only if its classes are the same,
# which decide how it looks in the other.
AXE = Axe(AXE_SCRIPT + ";axe.configure({rules: [{id: 'color-contrast', selector: ':not([data-alike])'}]})")
MARK_ALIKE = """(times) => {
    const painted = new Map(), spans = [];
    for (const one of document.querySelectorAll("*")) {
        const { backgroundColor, backgroundImage, opacity, color, fontSize, fontWeight } = getComputedStyle(one);
        const own = [backgroundColor, backgroundImage, opacity].join();
        const behind = (painted.get(one.parentElement) ?? "") + (own === "rgba(0, 0, 0, 0),none,1" ? "" : own);
        painted.set(one, behind);
        if (![...one.childNodes].some((part) => part.nodeType === Node.TEXT_NODE && part.data.trim())) continue;
        if (!one.checkVisibility({ visibilityProperty: true })) continue;
        const code = one.matches("pre span, .sig span");
        const classes = code ? [one.className, one.parentElement.className] : [];
        const look = [behind, color, fontSize, fontWeight, ...classes].join();
        times[look] = (times[look] ?? 0) + 1;
        one.toggleAttribute("data-alike", times[look] > 3);
        if (times[look] > 3 && code) spans.push(one);
    }
    for (const one of spans.reverse()) if (!one.childElementCount) one.replaceWith(...one.childNodes);
    document.body.normalize();
    return times;
}"""
# The theme gives what scrolls a tab stop, a moment after the width has changed.
REACHED = """() => [...document.querySelectorAll('[tabindex="-1"]')].every(
    one => one.scrollWidth <= one.clientWidth || getComputedStyle(one).overflowX === 'visible')"""


@pytest.fixture(scope="module")
def looks():
    """How often each look of a text was met on the pages so far."""
    return {}


def open_page(page, name, width, theme="light"):
    """Open a page from disk; what it asks for outside the site's folder is collected."""
    outside = []
    page.on(
        "request", lambda asked: outside.append(asked.url) if not asked.url.startswith(("file:", "data:")) else None
    )
    page.set_default_timeout(WAIT)
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    page.goto(f"{SITE.as_uri()}/{name}", wait_until="load")
    return outside


FIGURES = """() => [...document.querySelectorAll(".bd-article img:not(.toggler)")]
    .filter((image) => !image.closest(".gradeclip-explorer"))
    .map((image) => {
        const box = image.closest(".cell_output > .output, .pst-scrollable-table-container");
        return { natural: image.naturalWidth, shown: image.getBoundingClientRect().width, column: box.clientWidth,
            hidden: box.scrollWidth - box.clientWidth, reached: box.tabIndex === 0 };
    })"""


def turn(page, width, theme):
    """A page that fits when its window gets another width and its reader another theme."""
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    page.wait_for_function(f"innerWidth === {width} && document.documentElement.dataset.theme === '{theme}'")
    page.wait_for_function(REACHED)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def check_figures(page, width):
    """Type has nine points (tests/legible.py: it has them at 900 px, or at its own width)."""
    for figure in page.evaluate(FIGURES):
        assert figure["shown"] >= min(figure["natural"], 900) - 1, figure
        assert figure["hidden"] == pytest.approx(max(figure["shown"] - figure["column"], 0), abs=1), figure
        assert not figure["hidden"] or (width == 390 and figure["reached"]), figure


def check_access(page, looks):
    looks.update(page.evaluate(MARK_ALIKE, looks))
    found = AXE.run(page, options=LEVELS)
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("name", EVERY)
def test_a_page_fits_its_width_type_in_figures_has_nine_points_and_axe_finds_no_violation(page, name, looks):
    """On a telephone, and on a desk; it fetches nothing. Axe looks for violations of level A or AA."""
    outside, written = open_page(page, name, 390), not name.startswith(("api/", "_modules/"))
    if written:
        turn(page, 390, "light")
        check_figures(page, 390)
    turn(page, 390, "dark")
    check_access(page, looks)
    turn(page, 1280, "light")
    if written:
        check_figures(page, 1280)
    check_access(page, looks)
    assert outside == []


def edges(box):
    """How much the shadow changes the pixels at the left and at the right of what scrolls."""
    seen = []
    for shade in ("transparent, transparent", ""):
        box.evaluate("(one, shade) => one.style.setProperty('--shade', shade)", shade)
        seen.append(np.asarray(Image.open(BytesIO(box.screenshot())).convert("L"), float))
    changed = abs(seen[0] - seen[1]).mean(axis=0)
    return changed[:6].mean(), changed[-6:].mean()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name, what", [("05_attribute_binding", "img"), ("03_methods_compared", "table.dataframe")])
def test_keys_move_a_wide_figure_or_table_and_a_shadow_says_on_which_side_there_is_more(page, name, what, theme):
    open_page(page, f"notebooks/{name}.html", 390, theme)
    page.wait_for_function(REACHED)
    box = page.locator(f".cell_output > .output[tabindex='0']:has({what})").first
    left, right = edges(box)
    assert left < 1 and right > 10
    box.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("(one) => one.scrollLeft > 0", arg=box.element_handle())
    left, right = edges(box)
    assert left > 10 and right > 10
    box.evaluate("(one) => { one.scrollLeft = one.scrollWidth; }")
    left, right = edges(box)
    assert left > 10 and right < 1


def test_axe_finds_the_first_text_of_a_look_that_is_too_pale(page, looks):
    open_page(page, "api/explain.html", 1280)
    page.evaluate("document.querySelectorAll('pre span, .sig span').forEach((one) => { one.style.color = '#ddd'; })")
    page.evaluate(MARK_ALIKE, looks)
    (found,) = AXE.run(page, options=LEVELS).response["violations"]
    assert found["id"] == "color-contrast" and found["nodes"]


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
