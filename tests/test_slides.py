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

PANEL = {
    "application/vnd.jupyter.widget-view+json": {},
    "text/html": f'<div>controls<img class="gradeclip-figure" alt="a pixel" src="data:image/png;base64,{PIXEL}"></div>',
}


def code(source, *outputs, tags=()):
    made = [
        nbformat.v4.new_output("stream", name="stdout", text=data)
        if kind == "stdout"
        else nbformat.v4.new_output(
            "display_data", data={kind: data}, metadata={kind: {"alt": "a pixel"}}
        )
        for kind, data in outputs
    ]
    return nbformat.v4.new_code_cell(source, outputs=made, metadata={"tags": list(tags)})


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """The text of every slide of a small lesson, images as <img>."""
    folder = tmp_path_factory.mktemp("slides")
    markdown = nbformat.v4.new_markdown_cell
    cells = [
        markdown(
            "# A lesson\n\n**What we find**\n\n1. One.\n\nYes. We found it in every scene that we drew. Long "
            + "prose " * 40
        ),
        code("first", ("image/png", PIXEL), ("stdout", "a line that nobody needs\n")),
        nbformat.v4.new_code_cell("panel", outputs=[nbformat.v4.new_output("display_data", PANEL)]),
        markdown("The first is done.\n\nHere is the second."),
        code("second", ("image/png", PIXEL)),
        markdown("* " + "prose " * 50 + "\n\nMore than a class can read.\n\nThis prints:"),
        code("print(1)", ("stdout", "1\n")),
        markdown(
            "## Next\n\n**Predict.** How many?\n\n<details><summary>Answer</summary>\n\nSeven.\n\n</details>"
        ),
        code("print('kept')", ("stdout", "kept\n"), tags=["slide"]),
        markdown("## All prose\n\nEvery word."),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "short.ipynb")
    SLIDES["write_page"](folder / "short.ipynb", folder)
    page = BeautifulSoup((folder / "short.slides.html").read_text(), "html.parser")
    return page, [one for one in page.find_all("section") if not one.find("section")]


def test_a_heading_opens_a_slide_and_so_does_every_further_figure_with_the_paragraph_that_leads_to_it(
    slides,
):
    texts = [slide.get_text() for slide in slides[1]]
    assert [len(slide.find_all("img")) for slide in slides[1]] == [1, 1, 1, 0, 0, 0, 0]
    parts = (
        "A lesson",
        "The first is done.",
        "Here is the second.",
        "More than",
        "What we find",
        "Next",
        "All prose",
    )
    assert all(part in text for text, part in zip(texts, parts, strict=True))
    assert "controls" not in texts[1] and "is done" not in texts[2]  # of a panel the figure


def test_prints_and_code_are_left_out_unless_tagged_and_of_long_prose_all_but_the_first_sentence_is_a_note(
    slides,
):
    text = "".join(slide.get_text() for slide in slides[1])
    notes = "".join(note.extract().get_text() for note in slides[0].find_all("aside"))
    assert "nobody needs" not in text and "kept" in text and "panel" not in text
    assert "prose prose" in notes and "This prints:" in notes
    assert "Yes. We found it in every scene that we drew." in slides[1][0].get_text()
    assert (
        "Seven." in slides[0].find(class_="fragment").get_text()
    )  # the answer, after one more step


def test_nothing_is_fetched_from_another_host_and_figures_have_alternative_texts(slides):
    page, _ = slides
    loaded = [tag.get("src") or tag.get("href") for tag in page.find_all(["script", "link", "img"])]
    assert not [one for one in loaded if one and re.match(r"(https?:)?//", one)]
    assert all(image.get("alt") == "a pixel" for image in page.find_all("img"))


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")
@pytest.mark.skipif(
    not (ROOT / "build/slides/reveal.js").exists(),
    reason="the slides are not built here (make slides)",
)
def test_the_first_slide_of_lesson_01_shows_its_figure_and_nothing_is_cut_off(page):
    page.set_default_timeout(WAIT)
    page.set_viewport_size({"width": 1280, "height": 720})
    page.goto((ROOT / "build/slides/01_start_here.slides.html").as_uri())
    slide = page.wait_for_selector(".reveal section.present")
    assert slide.evaluate("one => one.scrollWidth <= one.clientWidth + 1")
