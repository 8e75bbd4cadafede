"""Slides of a lesson need no network and show what `docs/slides/build.py` says."""

import re
import runpy
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup

from tests.browser import CHROMIUM, WAIT, browser_type_launch_args  # noqa: F401

ROOT = Path(__file__).parent.parent
SLIDES = runpy.run_path(str(ROOT / "docs" / "slides" / "build.py"))
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def code(source, *outputs, tags=()):
    made = [
        nbformat.v4.new_output("stream", name="stdout", text=data)
        if kind == "stdout"
        else nbformat.v4.new_output("display_data", data={kind: data}, metadata={kind: {"alt": "a pixel"}})
        for kind, data in outputs
    ]
    return nbformat.v4.new_code_cell(source, outputs=made, metadata={"tags": list(tags)})


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """The text of every slide of a small lesson, images as <img>."""
    folder = tmp_path_factory.mktemp("slides")
    markdown = nbformat.v4.new_markdown_cell
    cells = [
        markdown("# A lesson\n\n**What we find**\n\n1. One.\n\nLong " + "prose " * 40),
        code("first", ("image/png", PIXEL), ("stdout", "a line that nobody needs\n")),
        code("second", ("image/png", PIXEL)),
        markdown("## Next\n\n**Predict.** How many?\n\n<details><summary>Answer</summary>\n\nSeven.\n\n</details>"),
        code("print('kept')", ("stdout", "kept\n"), tags=["slide"]),
        markdown("## All prose\n\nEvery " + "word " * 40),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "short.ipynb")
    SLIDES["write_page"](folder / "short.ipynb", folder)
    page = BeautifulSoup((folder / "short.slides.html").read_text(), "html.parser")
    return page, [one for one in page.find_all("section") if not one.find("section")]


def test_a_heading_opens_a_slide_and_every_further_figure_does(slides):
    texts = [slide.get_text() for slide in slides[1]]
    assert "A lesson" in texts[0] and [len(slide.find_all("img")) for slide in slides[1][:2]] == [1, 1]
    assert [text for text in texts if "Next" in text and "A lesson" not in text]


def test_prints_and_code_are_left_out_unless_tagged_and_answers_are_notes(slides):
    text = "".join(slide.get_text() for slide in slides[1])
    notes = "".join(note.get_text() for note in slides[0].find_all("aside"))
    assert "nobody needs" not in text and "kept" in text and "first" not in text
    assert "Seven" in notes and "prose prose" in notes


def test_a_heading_whose_text_is_all_prose_shows_it(slides):
    (shown,) = [slide.get_text() for slide in slides[1] if "All prose" in slide.get_text()]
    assert "Every word" in shown


def test_nothing_is_fetched_from_another_host_and_figures_have_alternative_texts(slides):
    page, _ = slides
    loaded = [tag.get("src") or tag.get("href") for tag in page.find_all(["script", "link", "img"])]
    assert not [one for one in loaded if one and re.match(r"(https?:)?//", one)]
    assert all(image.get("alt") == "a pixel" for image in page.find_all("img"))


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")
@pytest.mark.skipif(
    not (ROOT / "build/slides/reveal.js").exists(), reason="the slides are not built here (make slides)"
)
def test_the_first_slide_of_lesson_01_shows_its_figure_and_nothing_is_cut_off(page):
    page.set_default_timeout(WAIT)
    page.set_viewport_size({"width": 1280, "height": 720})
    page.goto((ROOT / "build/slides/01_start_here.slides.html").as_uri())
    slide = page.wait_for_selector(".reveal section.present")
    assert slide.evaluate("one => one.scrollWidth <= one.clientWidth + 1")
