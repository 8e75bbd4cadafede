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


def frame_widths(box: Locator, count: int = 2) -> list[float]:
    """How wide the image of a panel and its maps are."""
    return [box.locator(f".gradeclip-side-{i} .gradeclip-frame").bounding_box()["width"] for i in range(count)]
