"""Slides of a lesson need no network and show what `docs/slides/build.py` says."""

import re
import runpy

import nbformat
import pytest
from bs4 import BeautifulSoup

from tests.browser import WAIT, in_a_browser
from tests.conftest import ROOT

SLIDES = runpy.run_path(str(ROOT / "docs" / "slides" / "build.py"))
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAA"
    "AABJRU5ErkJggg=="
)

SOURCE = f"data:image/png;base64,{PIXEL}"
FIGURE = f'<img class="gradeclip-figure" alt="a pixel" src="{SOURCE}">'
PANEL = {
    "application/vnd.jupyter.widget-view+json": {},
    "text/html": f"<div>controls{FIGURE}</div>",
}


def code(source, *outputs, tags=()):
    """A cell of code with outputs: ("stdout", text) or (media type, data)."""
    nodes = []
    for kind, data in outputs:
        if kind == "stdout":
            nodes.append(nbformat.v4.new_output("stream", name="stdout", text=data))
        else:
            alt = {kind: {"alt": "a pixel"}}
            nodes.append(nbformat.v4.new_output("display_data", data={kind: data}, metadata=alt))
    return nbformat.v4.new_code_cell(source, outputs=nodes, metadata={"tags": list(tags)})


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """The text of every slide of a small lesson, images as <img>."""
    folder = tmp_path_factory.mktemp("slides")
    markdown = nbformat.v4.new_markdown_cell
    cells = [
        markdown(
            "# A lesson\n\nYes. We found it in every scene that we drew. Long " + "prose " * 40
        ),
        code("first", ("image/png", PIXEL), ("stdout", "a line that nobody needs\n")),
        nbformat.v4.new_code_cell("panel", outputs=[nbformat.v4.new_output("display_data", PANEL)]),
        markdown("<details><summary>What we found</summary>\n\n1. One.\n\n</details>"),
        markdown("The first is done.\n\nHere is the second."),
        code("second", ("image/png", PIXEL)),
        markdown("* " + "prose " * 50 + "\n\nMore than a class can read.\n\nThis prints:"),
        code("print(1)", ("stdout", "1\n")),
        markdown(
            "## Next\n\n**Predict.** How many?\n\n"
            "<details><summary>Answer</summary>\n\nSeven.\n\n</details>"
        ),
        code("print('kept')", ("stdout", "kept\n"), tags=["slide"]),
        markdown("## All prose\n\nEvery word."),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "short.ipynb")
    SLIDES["write_page"](folder / "short.ipynb", folder)
    page = BeautifulSoup((folder / "short.slides.html").read_text(), "html.parser")
    sections = page.find_all("section")
    return page, [section for section in sections if not section.find("section")]


def test_a_heading_opens_a_slide_and_so_does_every_further_figure_with_its_paragraph(slides):
    texts = [slide.get_text() for slide in slides[1]]
    images = [len(slide.find_all("img")) for slide in slides[1]]
    assert images == [1, 1, 0, 1, 0, 0, 0]
    parts = (
        "A lesson",
        "",  # of a panel the figure
        "What we found",
        "Here is the second.",
        "More than",
        "Next",
        "All prose",
    )
    for text, part in zip(texts, parts, strict=True):
        assert part in text
    assert "controls" not in texts[1]  # of a panel the figure
    assert "is done" not in texts[3]


def test_prints_and_code_are_left_out_unless_tagged_and_long_prose_is_a_note(slides):
    page, sections = slides
    text = "".join(section.get_text() for section in sections)
    notes = "".join(note.extract().get_text() for note in page.find_all("aside"))
    assert "nobody needs" not in text
    assert "panel" not in text
    assert "kept" in text
    assert "prose prose" in notes
    assert "This prints:" in notes
    assert "Yes. We found it in every scene that we drew." in sections[0].get_text()
    answer = page.find(class_="fragment")  # after one more step
    assert "Seven." in answer.get_text()


def test_nothing_is_fetched_from_another_host_and_figures_have_alternative_texts(
    slides,
):
    page, _ = slides
    for tag in page.find_all(["script", "link", "img"]):
        address = tag.get("src") or tag.get("href") or ""
        assert not re.match(r"(https?:)?//", address)
    assert all(image.get("alt") == "a pixel" for image in page.find_all("img"))


@in_a_browser
@pytest.mark.skipif(
    not (ROOT / "build/slides/reveal.js").exists(),
    reason="the slides are not built here (make slides)",
)
def test_the_first_slide_of_lesson_01_shows_its_figure_and_nothing_is_cut_off(page):
    page.set_default_timeout(WAIT)
    page.set_viewport_size({"width": 1280, "height": 720})
    page.goto((ROOT / "build/slides/01_start_here.slides.html").as_uri())
    slide = page.wait_for_selector(".reveal section.present")
    assert slide.evaluate("node => node.scrollWidth <= node.clientWidth + 1")
