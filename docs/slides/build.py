"""Build slides of the committed notebooks: one page a lesson, and reveal.js beside them, so that nothing is fetched.

    python docs/slides/build.py build/slides        # `make slides`; takes npm

What becomes a slide is decided by a rule, so that notebooks need no metadata for it:

- A heading opens a slide; one of the third level opens a slide below the last one.
- A prediction, an exercise, and a figure after another or after a prediction, open a slide below: nobody sees an answer
  too early. So do the goals of a lesson, and a question with answers to choose from, which are shown without their
  reasons. A prediction may stand below a heading that has nothing else.
- So do sentences of a cell for which the slide has no room left.
- Shown are figures, tables, the first of many verdicts, a few printed lines, lists, sentences and what begins in bold.
- Longer prose, and what a reader unfolds, are notes of the speaker (key S).
- Code is shown in cells that are tagged `exercise` or `slide`.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import nbformat
from nbconvert import SlidesExporter
from nbformat import NotebookNode

HERE = Path(__file__).resolve().parent
LESSONS = HERE.parent.parent / "notebooks"
CARRIED = {  # package: (checksum, prefix of the files to take, folder that they come to)
    "reveal.js@5.2.1": (
        "359b575dd51bbda32f89b2fd4c7dc46ad7389a805572158916c29252f7a27333",
        ("dist/", "plugin/notes/", "LICENSE"),
        "reveal.js",
    ),
    "mathjax@3.2.2": (
        "1b9c0a1c44df864e915690558e72adb9cc5203360daefd385084ced3b6c64c09",
        ("es5/tex-svg.js", "LICENSE"),
        "mathjax",
    ),
}
QUIZ = "**Check yourself"
SENTENCE, PRINTED = 25, 8  # words of prose, and printed lines, that are shown
COLUMNS, ROOM = 90, 16  # characters in a line of a slide, and lines that code may say on one
SHOWN = re.compile(r"(\*\*|[-*] |\d+\. |\||!\[|\$\$|>)")  # how a block begins that is shown however long it is
FIGURES = {"image/png", "text/html"}


def carry(out: Path) -> None:
    """Put the packages that the pages load beside them, fetched by npm and checked.

    Raises:
        FileNotFoundError: there is no npm.
        ConnectionError: npm cannot fetch a package.
        ValueError: a package is another than the one that was checked.
    """
    if shutil.which("npm") is None:
        raise FileNotFoundError("npm is missing, which fetches reveal.js (Debian: apt-get install npm)")
    for package, (expected, taken, folder) in CARRIED.items():
        with tempfile.TemporaryDirectory() as temporary:
            packed = subprocess.run(
                ["npm", "pack", package], cwd=temporary, capture_output=True, text=True, check=False
            )
            if packed.returncode:
                raise ConnectionError(f"npm cannot fetch {package}: {packed.stderr.strip()[-300:]}")
            archive = Path(temporary) / packed.stdout.strip().splitlines()[-1]
            if (digest := hashlib.sha256(archive.read_bytes()).hexdigest()) != expected:
                raise ValueError(f"{package} is another than before: sha256 {digest}, not {expected}")
            with tarfile.open(archive) as tar:
                for member in tar.getmembers():
                    member.name = member.name.removeprefix("package/")
                    if member.name.startswith(taken):
                        name = member.name.removeprefix("es5/")
                        target = out / folder / name
                        target.parent.mkdir(parents=True, exist_ok=True)
                        target.write_bytes(tar.extractfile(member).read())


def blocks(source: str) -> list[str]:
    """The paragraphs, lists, headings, folds and fences of a markdown cell; no heading is inside of the last two."""
    whole = r"<details>.*?</details>|^```.*?^```|^#{1,6} [^\n]*|(?:(?!^#{1,6} |^```|<details>)[^\n]+(?:\n|\Z))+"
    return [found.strip() for found in re.findall(whole, source, re.M | re.S)]


def is_shown(block: str) -> bool:
    """Whether a block of prose is on the slide, rather than a note of the speaker."""
    return not block.startswith("<details>") and (bool(SHOWN.match(block)) or len(block.split()) <= SENTENCE)


def linked(text: str) -> str:
    """Text whose links to lessons lead to their slides; links to other files of the project lose their target."""
    text = re.sub(r"\]\((\w+)\.ipynb\)", r"](\1.slides.html)", text)
    return re.sub(r"(?<!!)\[([^]]+)\]\((?!https?:|\w+\.slides\.html)[^)]*\)", r"\1", text)


def slide_cells(cell: NotebookNode) -> list[NotebookNode]:
    """The cells that a markdown cell becomes: each of one slide type."""
    cells, is_quiz = [], False
    for block in blocks(cell.source):
        is_quiz = block.startswith(QUIZ) or (is_quiz and block.startswith("<details>"))
        if is_quiz and (answer := re.match(r"<details><summary>(.*?)</summary>", block)):
            cells.append(nbformat.v4.new_markdown_cell(f"- {answer[1]}", metadata={"slideshow": {"slide_type": "-"}}))
        if heading := re.match(r"#+", block):
            kind = "slide" if len(heading[0]) < 3 else "subslide"
        elif not is_shown(block):
            kind, block = "notes", re.sub(r"</?(?:details|summary)>", "", block)
        else:
            kind = "subslide" if re.match(r"\*\*(Predict|Check yourself|\d+\.|What you'll learn)", block) else "-"
            block = block.removesuffix(" Press the answer that you believe.")
        cells.append(nbformat.v4.new_markdown_cell(linked(block), metadata={"slideshow": {"slide_type": kind}}))
    return cells


def shown_outputs(cell: NotebookNode) -> list[NotebookNode]:
    """The outputs of a code cell that a slide shows: no widget, warning or long print, and of many sentences some."""
    kept, left, more, last = [], PRINTED, 0, None
    for output in cell.outputs:
        if lines := output.get("data", {}).get("text/markdown", "").splitlines():
            head = lines[:left]
            while head and len(head) < len(lines) and re.fullmatch(r"(\*\*.*\*\*)?", head[-1]):  # a heading of nothing
                head.pop()
            rest, left = lines[len(head) :], max(0, left - len(lines))
            more += sum(line.startswith("- ") for line in rest) or bool(rest)
            if head:
                last = NotebookNode(output, data=NotebookNode({"text/markdown": "\n".join(head)}))
                kept.append(last)
        elif output.output_type == "stream":
            short = output.name == "stdout" and len(output.text.splitlines()) <= PRINTED
            kept += [output] if short else []
        elif "data" in output and "application/vnd.jupyter.widget-view+json" not in output.data:
            kept.append(output)
    if last is not None and more:
        last.data["text/markdown"] += f"\n- … and {more} more, in the notebook"
    return kept


def lines_said(output: NotebookNode) -> int:
    """How many lines of a slide the sentences of an output take; a paragraph has one below it."""
    text, said = output.get("text", ""), output.get("data", {}).get("text/markdown", "")
    return sum(-(-len(line) // COLUMNS) for line in (text + said).splitlines()) + bool(said)


def as_slides(notebook: NotebookNode) -> NotebookNode:
    """The notebook as nbconvert's exporter of slides wants it, by the rule of this module."""
    cells = []
    is_answered, is_bare = False, False  # the current slide has a figure or a prediction; it has only its heading
    filled = 0  # lines that code has said on the current slide
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for part in slide_cells(cell):
                is_heading, slideshow = part.source.startswith("#"), part.metadata.slideshow
                if is_bare and not is_heading and slideshow.slide_type == "subslide":
                    slideshow.slide_type = "-"
                if slideshow.slide_type != "notes":
                    is_bare = is_heading
                    opens = slideshow.slide_type != "-"
                    filled = 0 if opens else filled
                    is_answered = part.source.startswith("**Predict") or (is_answered and not opens)
                cells.append(part)
            continue
        has_code = bool({"exercise", "slide"} & set(cell.metadata.get("tags", ())))
        outputs = shown_outputs(cell)
        if not has_code and not outputs:
            continue
        is_bare = False
        is_figure = any(FIGURES & set(output.get("data", ())) for output in outputs)
        said = sum(map(lines_said, outputs))
        is_full = said and filled and filled + said > ROOM
        kind = "subslide" if is_full or (is_answered and outputs) else "-"
        filled = said if kind == "subslide" else filled + said
        is_answered = is_figure if kind == "subslide" else is_answered or is_figure
        metadata = {"slideshow": {"slide_type": kind}, "transient": {"remove_source": not has_code}}
        cells.append(NotebookNode(cell, outputs=outputs, metadata=nbformat.from_dict(metadata)))
    return NotebookNode(notebook, cells=cells)


def write_page(notebook: Path, out: Path) -> None:
    """Write the slides of a notebook, as it stands, into a folder that has reveal.js."""
    exporter = SlidesExporter(
        template_name="slides",
        extra_template_basedirs=[str(HERE.parent)],
        reveal_url_prefix="reveal.js",
        reveal_theme="white",
    )
    page, _ = exporter.from_notebook_node(
        as_slides(nbformat.read(notebook, as_version=4)), {"metadata": {"name": notebook.stem}}
    )
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
