"""Build slides of the committed notebooks: one page per lesson, and reveal.js beside them, so that nothing is fetched.

    python docs/slides/build.py build/slides        # `make slides`; takes npm

A heading opens a slide, and so does every figure or table after the first one on a slide, and what
follows when a slide with a figure has as many words as a class can read from afar. A lesson's
findings come after its first figure. Lists, short paragraphs, figures and tables are shown, of
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
FULL = 50  # words after which nothing more comes to a slide with a figure


def carry(out: Path) -> None:
    """Put the packages that the pages load beside them, fetched by npm and checked."""
    for package, (sha256, taken) in CARRIED.items():
        for path, content in fetched(package, sha256, taken).items():
            target = out / package.partition("@")[0] / path.removeprefix("es5/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)


def divided(text: str) -> tuple[str, str]:
    """What a slide shows of a paragraph, and what its speaker says: of long prose all but the first sentence."""
    short = re.match(r"[-*] |\d+\. |\||!\[|\$\$|>|\*\*|#", text) or len(text.split()) <= SHORT
    first = None if short else re.match(r"(.{40,}?[.?!])\s+(?=[A-Z`*\"(])(.+)", text, re.S)
    aside = re.match(r"\(|[\w-]+ minutes\.", text)
    return ("", text) if aside else first.groups() if first else (text, "")


def shown_outputs(cell: NotebookNode, tagged: bool) -> list[NotebookNode]:
    """The figures and tables of a cell, and of a panel its figure; all outputs of a cell that is tagged."""
    outputs = []
    for one in cell.outputs:
        data = one.get("data", {})
        if "application/vnd.jupyter.widget-view+json" in data:
            figure = re.search(r'<img class="gradeclip-figure".*?>', data.get("text/html", ""))
            outputs += (
                [nbformat.v4.new_output("display_data", {"text/html": figure[0]})] if figure else []
            )
        elif tagged or {"image/png", "text/html"} & set(data):
            outputs.append(one)
    return outputs


def as_slides(notebook: NotebookNode) -> NotebookNode:
    """The notebook as nbconvert's exporter of slides wants it."""
    cells, found, words, has_figure, asked, lead = [], [], 0, False, False, None

    def add(cell: NotebookNode, kind: str, **metadata) -> None:
        nonlocal words
        words *= not kind.endswith("slide")
        words += 0 if cell.cell_type == "code" or kind == "notes" else len(cell.source.split())
        cell.metadata = nbformat.from_dict({"slideshow": {"slide_type": kind}, **metadata})
        cells.append(cell)

    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            lead, seen = (
                None,
                False,
            )  # lead: the paragraph that leads to the next figure, after others of its cell
            source = re.sub(r"^(\*\*What we find.*)\n\n", r"\1\n", cell.source, flags=re.M)
            parts = r"<details>.*?</details>|^#[^\n]*|(?:(?!^#|<details>)[^\n]+\n?)+"
            for text in re.findall(parts, source, re.M | re.S):
                kind = (
                    ("slide" if re.match(r"#{1,2} ", text) else "subslide")
                    if text.startswith("#")
                    else "-"
                )
                table = text.startswith("|")
                if text.startswith("**What we find"):
                    found.append(text)
                    continue
                if text.startswith("<details>"):
                    kind, text = (
                        "fragment",
                        re.sub(r"</?details>|<summary>.*?</summary>", "", text).strip(),
                    )
                elif text.startswith("**Predict"):
                    kind, asked = ("subslide" if has_figure or words > FULL else "-"), True
                elif kind != "-":
                    asked = False
                elif has_figure and (table or words > FULL):
                    kind = "subslide"
                has_figure = table or (has_figure and kind not in ("slide", "subslide"))
                text = re.sub(r"\]\((\w+)\.ipynb\)", r"](\1.slides.html)", text)
                text = re.sub(
                    r"(?<!!)\[([^]]+)\]\((?!https?:|\w+\.slides\.html)[^)]*\)", r"\1", text
                )
                shown, said = divided(text)
                if shown:
                    lead, seen = (len(cells) if seen and kind == "-" else None), kind == "-"
                    add(nbformat.v4.new_markdown_cell(shown), kind)
                if said:
                    add(nbformat.v4.new_markdown_cell(said), "notes")
            continue
        tagged = "slide" in cell.metadata.get("tags", ())
        if (outputs := shown_outputs(cell, tagged)) or tagged:
            full = has_figure or (words > FULL and any(one.cell_type == "code" for one in cells))
            kind = "subslide" if full else "fragment" if asked else "-"
            if full and lead is not None:
                cells[lead].metadata.slideshow.slide_type, kind = "subslide", "-"
                words = len(cells[lead].source.split())
            add(NotebookNode(cell, outputs=outputs), kind, transient={"remove_source": not tagged})
            has_figure, asked, lead = True, False, None
        elif (
            cells
            and cells[-1].source.endswith(":")
            and cells[-1].metadata.slideshow.slide_type == "-"
        ):
            cells[
                -1
            ].metadata.slideshow.slide_type = "notes"  # it leads to lines that no slide shows
    second = next(
        (i for i, one in enumerate(cells) if i and one.metadata.slideshow.slide_type == "slide"),
        len(cells),
    )
    opened = nbformat.from_dict({"slideshow": {"slide_type": "subslide"}})
    cells[second:second] = [nbformat.v4.new_markdown_cell(text, metadata=opened) for text in found]
    return NotebookNode(notebook, cells=cells)


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
