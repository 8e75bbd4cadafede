"""Slides of a lesson need no network, fit a projector, and show and hide what `docs/slides/build.py` says."""

import re
import runpy
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest

from tests.browser import CHROMIUM, WAIT, browser_type_launch_args  # noqa: F401

ROOT = Path(__file__).parent.parent
SLIDES = runpy.run_path(str(ROOT / "docs" / "slides" / "build.py"))
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
LONG = "This is why it is so, " + "and so on " * 20
SHORT_LESSON = [
    f"# A lesson\n\n**Claim.** It can be seen.\n\n**What you'll learn**\n\n- to see\n\n{LONG}\n\n## First\n\n"
    "Look at [the next](02_next.ipynb) and [a card](../data/README.md).",
    "**Predict.** What comes?\n\n<details><summary>Open</summary>\n\nThe surprise.\n\n## No heading\n\n</details>",
    ("secret = 1", [("image/png", PIXEL)], []),
    "### Below\n\n```python\n# no heading either\n```",
    ("print(1)", [("stdout", "seen\n")], []),
    ("print(2)", [("stdout", "endless\n" * 30)], []),
    ("def to_write(): ...", [], ["exercise"]),
    "**1. Write it.** And then?\n\n**2. Write more.**",
    "**Check yourself.** Is it so? Press the answer that you believe.\n\n<details><summary>Never.</summary>\n\n"
    "No. It is rare.\n\n</details>\n<details><summary>Now and then.</summary>\n\nYes. It is rare.\n\n</details>",
    "## Last\n\n**Predict.** How many?",
    ("verdicts", [("text/markdown", "60 claims\n\n" + "\n".join(f"- claim {i}" for i in range(60)))], []),
    "## Sentences",
    ("one by one", [("text/markdown", f"Sentence {i} is **so**.") for i in range(40)], []),
    ("more of them", [("text/markdown", f"Another {i}.") for i in range(4)], []),
    "## Groups",
    ("groups", [("text/markdown", "**No**\n\n" + "- one\n" * 4 + "\n**Yes**\n\n" + "- two\n" * 20)], []),
]


def lesson():
    cells = []
    for content in SHORT_LESSON:
        if isinstance(content, str):
            cells.append(nbformat.v4.new_markdown_cell(content))
            continue
        source, outputs, tags = content
        made = [
            nbformat.v4.new_output("stream", name=kind, text=data)
            if kind == "stdout"
            else nbformat.v4.new_output("display_data", data={kind: data}, metadata={kind: {"alt": "a pixel & more"}})
            for kind, data in outputs
        ]
        cells.append(nbformat.v4.new_code_cell(source, outputs=made, metadata={"tags": tags}))
    return nbformat.v4.new_notebook(cells=cells)


class Page(HTMLParser):
    """Slides as lists of what is on them: a section without sections inside is a slide, `<aside>` its notes."""

    def __init__(self):
        super().__init__()
        self.slides, self.notes, self.headings, self.loaded, self.links, self.alts = [], "", [], [], [], []
        self.inside, self.scripts = [], ""

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        if tag not in ("meta", "link", "img", "br", "hr", "input"):
            self.inside.append(tag)
        if tag == "section":
            self.slides.append("")
        if re.fullmatch(r"h[1-6]", tag) and "aside" not in self.inside:
            self.headings.append(len(self.slides) - 1)
        if tag == "a":
            self.links.append(named.get("href", ""))
        elif found := named.get("src") or named.get("href"):
            self.loaded.append(found)
        if tag == "img":
            self.slides[-1] += "<img>"
            self.alts.append(named.get("alt"))

    def handle_endtag(self, tag):
        if tag in self.inside:
            while self.inside.pop() != tag:
                pass

    def handle_data(self, data):
        if {"script", "style"} & set(self.inside):
            self.scripts += data
        elif "aside" in self.inside:
            self.notes += data
        elif self.slides:
            self.slides[-1] += data


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    nbformat.write(lesson(), folder / "short.ipynb")
    SLIDES["write_page"](folder / "short.ipynb", folder)
    parsed = Page()
    parsed.feed((folder / "short.slides.html").read_text())
    return parsed


def slide_with(page, text):
    (found,) = [slide for slide in page.slides if text in slide]
    return found


def test_nothing_is_fetched_from_another_host_and_all_else_is_carried_along(page):
    local = [one for one in page.loaded if not one.startswith("data:")]
    assert {one.split("/")[0] for one in local} == {folder for _, _, folder in SLIDES["CARRIED"].values()}
    assert not re.search(r"(import\b[^;]*['\"]|url\(['\"]?)(https?:)?//", page.scripts)
    assert "require(" not in page.scripts


def test_every_heading_opens_a_slide_of_its_own_and_nothing_else_is_one(page):
    assert len(set(page.headings)) == len(page.headings) == 6
    titles = [page.slides[i].strip().splitlines()[0].rstrip("¶") for i in page.headings]
    assert titles == ["A lesson", "First", "Below", "Last", "Sentences", "Groups"]


def test_an_answer_is_on_another_slide_than_its_prediction_and_in_the_notes(page):
    assert "<img>" not in slide_with(page, "What comes?") and "First" not in slide_with(page, "What comes?")
    assert "The surprise." in page.notes and not any("The surprise." in slide for slide in page.slides)


def test_code_long_prose_and_long_prints_are_not_shown_and_what_is_to_be_written_is(page):
    shown = "\n".join(page.slides)
    assert "secret" not in shown and "endless" not in shown and LONG.strip() not in shown
    assert LONG.strip() in page.notes
    assert "seen" in slide_with(page, "Below") and "to_write" in shown and "It can be seen." in shown


def test_a_prediction_may_stand_below_its_heading_and_its_answer_stays_on_the_next_slide(page):
    assert "How many?" in slide_with(page, "Last") and "60 claims" not in slide_with(page, "Last")


def test_of_a_long_list_the_first_lines_are_shown_and_the_others_are_counted(page):
    verdicts = slide_with(page, "60 claims")
    shown = re.findall(r"claim \d+", verdicts)
    assert shown == [f"claim {i}" for i in range(len(shown))] and 0 < len(shown) < 10
    assert f"and {60 - len(shown)} more" in verdicts


def test_of_many_sentences_that_a_cell_says_one_by_one_the_first_are_shown_and_the_others_are_counted(page):
    slide = slide_with(page, "Sentence 0")
    assert 0 < slide.count("Sentence ") < 10 and f"and {40 - slide.count('Sentence ')} more" in slide
    assert "Another" not in slide and slide_with(page, "Another 0").count("Another") == 4  # there was no room


def test_no_heading_within_a_list_is_shown_without_what_stands_below_it(page):
    slide = slide_with(page, "Groups")
    assert "No" in slide and "Yes" not in slide and "and 20 more" in slide


def test_the_goals_of_a_lesson_have_a_slide_of_their_own(page):
    assert "A lesson" not in slide_with(page, "to see") and "It can be seen." in slide_with(page, "A lesson")


def test_a_question_stands_with_its_answers_to_choose_from_and_without_their_reasons(page):
    quiz = slide_with(page, "Is it so?")
    assert "Never." in quiz and "Now and then." in quiz
    assert "Press" not in quiz and "rare" not in quiz and "Write more." not in quiz and "It is rare." in page.notes


def test_every_exercise_has_a_slide(page):
    assert "Write more." not in slide_with(page, "Write it.")


def test_figures_have_alternative_texts_and_links_lead_to_slides_or_nowhere(page):
    assert page.alts == ["a pixel & more"]
    assert [link for link in page.links if not link.startswith("#")] == ["02_next.slides.html"]


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_every_heading_of_a_lesson_becomes_one_slide(path):
    notebook = nbformat.read(path, as_version=4)
    prose = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    unfolded = re.sub(r"<details>.*?</details>|^```.*?^```", "", prose, flags=re.S | re.M)
    headings = re.findall(r"^#{1,6} .*", unfolded, re.M)
    cells = SLIDES["as_slides"](notebook).cells
    opened = [cell.source for cell in cells if cell.cell_type == "markdown" and cell.source.startswith("#")]
    assert [re.sub(r"[][]|\([^)]*\)", "", one) for one in opened] == [
        re.sub(r"[][]|\([^)]*\)", "", one) for one in headings
    ]


def test_without_npm_one_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="npm is missing, which fetches reveal.js"):
        SLIDES["carry"](tmp_path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with reveal.js, into which lessons are written."""
    out = tmp_path_factory.mktemp("shown")
    try:
        SLIDES["carry"](out)
    except (FileNotFoundError, ConnectionError) as refusal:
        pytest.skip(str(refusal))
    return out


CUT_OFF = """async () => {
  const cut = [];
  for (let i = 0; i < Reveal.getTotalSlides(); i++, Reveal.next()) {
    const slide = Reveal.getCurrentSlide(), wide = [slide, ...slide.querySelectorAll(".jp-RenderedHTMLCommon, pre")];
    await new Promise(requestAnimationFrame);
    if (slide.scrollHeight > slide.clientHeight) cut.push(`${i + 1} is too tall`);
    if (wide.some((one) => one.scrollWidth > one.clientWidth)) cut.push(`${i + 1} is too wide`);
  }
  return [cut, Reveal.isLastSlide()];
}"""


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here (Debian: apt-get install chromium)")
@pytest.mark.parametrize(
    "name", ["01_start_here", "02_inside_grad_eclip", "03_methods_compared", "05_attribute_binding"]
)
def test_nothing_on_a_slide_is_cut_off(browser, folder, name):
    SLIDES["write_page"](ROOT / "notebooks" / f"{name}.ipynb", folder)
    shown = browser.new_page(viewport={"width": 1280, "height": 720})
    shown.set_default_timeout(WAIT)
    shown.goto((folder / f"{name}.slides.html").as_uri())
    shown.wait_for_function("window.Reveal && Reveal.isReady()")
    assert shown.evaluate(CUT_OFF) == [[], True]
    shown.close()
