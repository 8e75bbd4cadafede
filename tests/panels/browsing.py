"""What the panels' browser tests share: a page on which a notebook ran, what it said, and how a panel stands on it."""

from typing import NamedTuple

import pytest
from playwright.sync_api import Locator, Page

from tests.browser import ROOT, open_notebook, run_all, write_notebook

SHOTS = ROOT / "build" / "screenshots"  # images of every state, to be looked at
THEMES = pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])


class Opened(NamedTuple):
    """A page on which a notebook ran, every address that it asked for, and what its console says since it is open."""

    page: Page
    asked: list[str]
    said: list[str]


@pytest.fixture(scope="module")
def opened(lab, browser):
    """Opens a notebook, of these cells or one of ours, and runs it; all pages are closed in the end."""
    contexts = []

    def run(name, cells=(), height=900, tree="lab/tree"):
        if cells:
            write_notebook(lab, name, cells)
        contexts.append(browser.new_context(viewport={"width": 1280, "height": height}))
        found = Opened(contexts[-1].new_page(), [], [])
        found.page.on("request", lambda request: found.asked.append(request.url))
        open_notebook(found.page, lab, name, tree)
        listen(found.page, found.said)
        run_all(found.page)
        found.page.set_default_timeout(120_000)
        return found

    yield run
    for context in contexts:
        context.close()


def listen(page: Page, said: list[str]) -> None:
    """Collect what scripts of the page do not catch, and errors and warnings of its console."""
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("console", lambda one: said.append(one.text) if one.type in ("error", "warning") else None)


def change_theme(page: Page, theme: str) -> None:
    """Change JupyterLab's theme, and wait for it."""
    page.evaluate(f"() => window.jupyterapp.commands.execute('apputils:change-theme', {{theme: '{theme}'}})")
    page.wait_for_function(f"() => document.body.dataset.jpThemeName === '{theme}'")


def overflow(box: Locator) -> int:
    """How many pixels of a box do not fit in its width."""
    return box.evaluate("box => box.scrollWidth - box.clientWidth")


def blank(box: Locator) -> float:
    """The fraction of a box's area that no image, control, bar or line of text covers."""
    return box.evaluate(
        """box => {
            const area = box.getBoundingClientRect(), [across, down] = [area.width, area.height].map(size => size >> 2);
            const covered = new Uint8Array(across * down), range = document.createRange();
            const cover = ({ left, top, right, bottom }) => {
                const [x, end] = [left, right].map(at => Math.min(Math.max((at - area.left) / 4, 0), across));
                for (let y = Math.max((top - area.top) / 4, 0) | 0; y < Math.min((bottom - area.top) / 4, down); y++)
                    covered.fill(1, y * across + Math.round(x), y * across + Math.round(end));
            };
            const things = "img, canvas, input, select, button, meter, progress, .gradeclip-axis";
            const walker = document.createTreeWalker(box);
            while (walker.nextNode()) {
                const node = walker.currentNode, text = node.nodeType === Node.TEXT_NODE && node.data.trim();
                if (!(text ? node.parentElement : node).checkVisibility?.({ visibilityProperty: true })) continue;
                if (text) range.selectNodeContents(node);
                if (text || node.matches(things)) [...(text ? range : node).getClientRects()].forEach(cover);
            }
            return 1 - covered.reduce((all, one) => all + one) / covered.length;
        }"""
    )


def contrasts(box: Locator) -> dict[str, float]:
    """The contrast of each text in a box to what it stands on, as WCAG has it."""
    return box.evaluate(
        """box => {
            const parts = text => text.match(/[\\d.]+/g).map(Number);
            const mix = (one, other, part) => one * part + other * (1 - part);
            const over = ([r, g, b, a = 1], below, by = 1) => [r, g, b].map((c, i) => mix(c, below[i], a * by));
            const linear = part => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
            const weights = [0.2126, 0.7152, 0.0722];
            const light = colour => colour.reduce((all, c, i) => all + weights[i] * linear(c / 255), 0.05);
            const walker = document.createTreeWalker(box, NodeFilter.SHOW_TEXT), found = {};
            while (walker.nextNode()) {
                const { data, parentElement: parent } = walker.currentNode, chain = [];
                if (!data.trim() || !parent.checkVisibility({ visibilityProperty: true })) continue;
                for (let one = parent; one; one = one.parentElement) chain.unshift(getComputedStyle(one));
                const below = chain.reduce((all, one) => over(parts(one.backgroundColor), all), [255, 255, 255]);
                const faded = chain.reduce((all, { opacity }) => all * opacity, 1);
                const shown = over(parts(chain.at(-1).color), below, faded);
                const [dark, bright] = [light(shown), light(below)].sort((a, b) => a - b);
                found[data.trim()] = Math.min(bright / dark, found[data.trim()] ?? 99);
            }
            return found;
        }"""
    )


def frame_widths(box: Locator, count: int = 2) -> list[float]:
    """How wide the image of a panel and its maps are."""
    return [box.locator(f".gradeclip-side-{i} .gradeclip-frame").bounding_box()["width"] for i in range(count)]
