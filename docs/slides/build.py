"""Build slides of the committed notebooks: one page per lesson, with reveal.js beside them.

    python docs/slides/build.py build/slides        # `make slides`; takes npm

A heading opens a slide, and so does every figure or table after the first one on a slide, and what
follows when a slide with a figure has as many words as a class can read from afar. A lesson's
folded findings have a slide of their own. Lists, short paragraphs, figures and tables are shown, of
longer prose the first sentence; the answer to a question to predict comes after one more step. What
is left of the prose is a note of the speaker (key S). A panel is shown by its figure. Code and
printed lines are left out, except in cells that are tagged `slide`.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import nbformat
from nbconvert import SlidesExporter
from nbformat import NotebookNode

from training.npm import fetched

HERE = Path(__file__).resolve().parent
LESSONS = HERE.parent.parent / "notebooks"
CARRIED = {  # package: checksum, and beginnings of the paths of the files to take
    "reveal.js@5.2.1": (
        "359b575dd51bbda32f89b2fd4c7dc46ad7389a805572158916c29252f7a27333",
        ("dist/", "plugin/notes/", "LICENSE"),
    ),
    "mathjax@3.2.2": (
        "1b9c0a1c44df864e915690558e72adb9cc5203360daefd385084ced3b6c64c09",
        ("es5/tex-svg.js", "LICENSE"),
    ),
}
SHORT = 30  # words of a paragraph that a slide shows
FINDINGS = "<details><summary>What we found</summary>"
FULL = 50  # words after which nothing more comes to a slide with a figure


def carry(out: Path) -> None:
    """Put the packages that the pages load beside them, fetched by npm and checked."""
    for package, (sha256, taken) in CARRIED.items():
        for path, content in fetched(package, sha256, taken).items():
            target = out / package.partition("@")[0] / path.removeprefix("es5/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)


def divided(text: str) -> tuple[str, str]:
    """What a slide shows of a paragraph, and what its speaker says.

    Of long prose the slide shows the first sentence. Remarks in brackets are for the speaker.
    """
    if re.match(r"\(|[\w-]+ minutes\.", text):
        return "", text
    is_structured = re.match(r"[-*] |\d+\. |\||!\[|\$\$|>|\*\*|#", text)
    if is_structured or len(text.split()) <= SHORT:
        return text, ""
    sentences = re.match(r"(.{40,}?[.?!])\s+(?=[A-Z`*\"(])(.+)", text, re.S)
    if sentences is None:
        return text, ""
    first, rest = sentences.groups()
    return first, rest


def shown_outputs(cell: NotebookNode, tagged: bool) -> list[NotebookNode]:
    """The figures and tables of a cell, of a panel its figure; all outputs of a tagged cell."""
    outputs = []
    for output in cell.outputs:
        data = output.get("data", {})
        if "application/vnd.jupyter.widget-view+json" in data:
            figure = re.search(r'<img class="gradeclip-figure".*?>', data.get("text/html", ""))
            if figure:
                html = {"text/html": figure[0]}
                outputs.append(nbformat.v4.new_output("display_data", html))
        elif tagged or "image/png" in data or "text/html" in data:
            outputs.append(output)
    return outputs


def paragraphs(source: str) -> list[str]:
    """The headings, paragraphs and folded answers of a cell of text."""
    parts = r"<details>.*?</details>|^#[^\n]*|(?:(?!^#|<details>)[^\n]+\n?)+"
    return re.findall(parts, source, re.MULTILINE | re.DOTALL)


def with_links_to_slides(text: str) -> str:
    """A text whose links to lessons lead to their slides; other links are plain text."""
    text = re.sub(r"\]\((\w+)\.ipynb\)", r"](\1.slides.html)", text)
    other = r"(?<!!)\[([^]]+)\]\((?!https?:|\w+\.slides\.html)[^)]*\)"
    return re.sub(other, r"\1", text)


class Deck:
    """The cells of a lesson as slides, filled from the first to the last.

    Attributes:
        cells: those of the slides.
        words: of the present slide.
        has_figure: whether the present slide has a figure or a table.
        is_question: whether a question to predict waits for its figure.
        lead: the place of the paragraph that leads to the next figure, or None.
    """

    def __init__(self) -> None:
        self.cells: list[NotebookNode] = []
        self.words = 0
        self.has_figure = False
        self.is_question = False
        self.lead: int | None = None

    def add(self, cell: NotebookNode, kind: str, **metadata) -> None:
        """Append a cell: on a new "slide" or "subslide", as "fragment" or "notes", or "-"."""
        if kind.endswith("slide"):
            self.words = 0
        if cell.cell_type == "markdown" and kind != "notes":
            self.words += len(cell.source.split())
        cell.metadata = nbformat.from_dict({"slideshow": {"slide_type": kind}, **metadata})
        self.cells.append(cell)

    def add_text(self, source: str) -> None:
        """Append a cell of text, paragraph by paragraph."""
        self.lead = None
        follows_paragraph = False
        for text in paragraphs(source):
            kind = self._kind_of(text)
            if text.startswith(FINDINGS):
                text = text.replace(FINDINGS, "**What we found**", 1)
                shown = text.removesuffix("</details>").strip()
                self.add(nbformat.v4.new_markdown_cell(shown), kind)
                self.has_figure = True  # the slide is full
                continue
            if text.startswith("<details>"):
                text = re.sub(r"</?details>|<summary>.*?</summary>", "", text).strip()
            shown, spoken = divided(with_links_to_slides(text))
            if shown:
                self.lead = len(self.cells) if follows_paragraph and kind == "-" else None
                follows_paragraph = kind == "-"
                self.add(nbformat.v4.new_markdown_cell(shown), kind)
            if spoken:
                self.add(nbformat.v4.new_markdown_cell(spoken), "notes")

    def _kind_of(self, text: str) -> str:
        """Where a paragraph goes: on a new slide, or on the present one."""
        is_full = self.words > FULL
        is_table = text.startswith("|")
        kind = "-"
        if text.startswith("#"):
            kind = "slide" if re.match(r"#{1,2} ", text) else "subslide"
            self.is_question = False
        elif text.startswith(FINDINGS):
            kind = "subslide"
        elif text.startswith("<details>"):
            kind = "fragment"
        elif text.startswith("**Predict"):
            kind = "subslide" if self.has_figure or is_full else "-"
            self.is_question = True
        elif self.has_figure and (is_table or is_full):
            kind = "subslide"
        if kind.endswith("slide"):
            self.has_figure = False
        if is_table:
            self.has_figure = True
        return kind

    def add_code(self, cell: NotebookNode) -> None:
        """Append the figures and tables of a cell of code, on a new slide if this one is full."""
        tagged = "slide" in cell.metadata.get("tags", ())
        outputs = shown_outputs(cell, tagged)
        if not outputs and not tagged:
            self._silence_last()
            return

        has_code = any(earlier.cell_type == "code" for earlier in self.cells)
        is_full = self.has_figure or (self.words > FULL and has_code)
        kind = "fragment" if self.is_question else "-"
        if is_full and self.lead is not None:
            # The paragraph that leads to the figure comes with it.
            leading = self.cells[self.lead]
            leading.metadata.slideshow.slide_type = "subslide"
            self.words = len(leading.source.split())
            kind = "-"
        elif is_full:
            kind = "subslide"
        hidden = {"remove_source": not tagged}
        self.add(NotebookNode(cell, outputs=outputs), kind, transient=hidden)
        self.has_figure = True
        self.is_question = False
        self.lead = None

    def _silence_last(self) -> None:
        """Leave a paragraph to the speaker that leads to lines that no slide shows."""
        if self.cells and self.cells[-1].source.endswith(":"):
            slideshow = self.cells[-1].metadata.slideshow
            if slideshow.slide_type == "-":
                slideshow.slide_type = "notes"


def as_slides(notebook: NotebookNode) -> NotebookNode:
    """The notebook as nbconvert's exporter of slides wants it."""
    deck = Deck()
    for cell in notebook.cells:
        if "remove-cell" in cell.metadata.get("tags", ()):
            continue
        if cell.cell_type == "markdown":
            deck.add_text(cell.source)
        else:
            deck.add_code(cell)
    return NotebookNode(notebook, cells=deck.cells)


def write_page(notebook: Path, out: Path) -> None:
    """Write the slides of a notebook, as it stands, into a folder that has reveal.js."""
    look = {"template_name": "slides", "extra_template_basedirs": [str(HERE.parent)]}
    exporter = SlidesExporter(**look, reveal_url_prefix="reveal.js", reveal_theme="white")
    slides = as_slides(nbformat.read(notebook, as_version=4))
    page, _ = exporter.from_notebook_node(slides, {"metadata": {"name": notebook.stem}})
    (out / f"{notebook.stem}.slides.html").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="the folder")
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    try:
        carry(folder)
    except (FileNotFoundError, ConnectionError) as refusal:
        sys.exit(str(refusal))
    for lesson in sorted(LESSONS.glob("*.ipynb")):
        write_page(lesson, folder)
    print(f"slides of every lesson: open {folder}/01_start_here.slides.html")
