"""Run a lesson on a model of your own: its own results first, then the lesson.

A copy of the notebook is executed with other parameters. The executed notebook, its page and its
table of claims lie in `results/MODEL-WEIGHTS/`. A run that fails changes none of these files. The
notebooks of the course stay as they are.

The text of a lesson describes the bundled model. The copy therefore begins with the claims of your
model beside those of the bundled one, and folds the paragraphs that state numbers.
"""

import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat

from gradeclip_utils import load_clip
from gradeclip_utils.errors import GradeclipError

from .execute import NOTEBOOKS, parameters_of, set_parameters
from .lesson import COMMITTED, Claims, claim_cells, read_claims, results_folder, results_name
from .photographs import add_claims, read_photographs

DESCRIBED = "emoji"  # the model that the text of the lessons describes
SIGN_OF_LIFE = 2  # seconds between the dots of a section


def notebook_of(lesson: str) -> Path:
    """The notebook of a lesson, given by its number or by the beginning of its name."""
    notebooks = []
    if re.fullmatch(r"\w+", lesson):
        notebooks = sorted(NOTEBOOKS.glob(f"{lesson}*.ipynb"))
    if len(notebooks) != 1:
        lessons = ", ".join(path.stem for path in sorted(NOTEBOOKS.glob("*.ipynb")))
        raise GradeclipError(f"there is no lesson {lesson!r}: choose from {lessons}")
    return notebooks[0]


def run_lesson(lesson: str, model: str, pretrained: str | None, data: str, n: int | None) -> Path:
    """Execute a lesson on a model, and return the executed notebook, beside which its page lies.

    Raises:
        GradeclipError: an unknown lesson or parameter, results of other weights of the same name,
            or an error in a cell.
    """
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    file = notebook_of(lesson)
    notebook = nbformat.read(file, as_version=4)
    parameters = {"MODEL": model}
    for name, value in (("PRETRAINED", pretrained), ("DATA", data), ("N", n)):
        if value is not None and value != "":
            parameters[name] = value
    set_parameters(notebook, parameters)
    folder = results_folder(model, pretrained)

    _execute(notebook, file.stem, results_name(model, pretrained))
    if results_name(model, pretrained) != DESCRIBED:
        _put_claims_first(notebook, folder / f"{file.name[:2]}.csv")

    without_setup = Config(
        TagRemovePreprocessor={
            "enabled": True,
            "remove_cell_tags": {"remove-cell"},
            "remove_input_tags": {"remove-input"},
        }
    )
    page, _ = HTMLExporter(config=without_setup).from_notebook_node(notebook)
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / file.name
    nbformat.write(notebook, out)
    out.with_suffix(".html").write_text(page, encoding="utf-8")
    return out


def takes(lesson: str, parameter: str) -> bool:
    """Whether a lesson has a parameter, such as "DATA"."""
    return parameter in parameters_of(nbformat.read(notebook_of(lesson), as_version=4))


def measure_photographs(lesson: str, model: str, pretrained: str | None, data: str) -> Path:
    """Measure the photographs of lesson 05 or 06 alone; the claims are printed and in a table."""
    if lesson not in ("05", "06") or not data:
        raise GradeclipError("N=0 measures the photographs of lesson 05 or 06 alone: give DATA")
    photographs = read_photographs(lesson, data)
    claims = Claims(lesson, model, pretrained)
    add_claims(claims, load_clip(model, pretrained), photographs)

    name = f"{lesson}-photographs"
    print(claims.write(name).to_string(index=False))
    return claims.folder / f"{name}.csv"


# --------------------------------------------------------------------------------------- execution


def _execute(notebook, title: str, model: str) -> None:
    """Execute a notebook in place; a line on stderr says where it is, and dots that it lives."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    class Client(NotebookClient):
        """Shows the progress bars of long cells."""

        def output(self, outs, msg, display_id, cell_index):
            if msg["content"].get("name") == "stderr":
                print(msg["content"]["text"], end="", file=sys.stderr, flush=True)
            return super().output(outs, msg, display_id, cell_index)

    headings = {}
    for number, cell in enumerate(notebook.cells):
        heading = re.search(r"^##? (.+)$", cell.source, re.M)
        if cell.cell_type == "markdown" and heading:
            headings[number] = heading[1]

    with _signs_of_life(f"{title} on {model}: a kernel starts") as say:

        def say_section(cell, cell_index):
            if cell_index in headings:
                say(f"{title}: {headings[cell_index]}")

        client = Client(
            notebook,
            timeout=None,
            kernel_name="python3",
            resources={"metadata": {"path": str(NOTEBOOKS)}},
            record_timing=False,
            extra_arguments=["--log-level=ERROR"],  # nothing about encryption on one machine
            on_cell_start=say_section,
        )
        try:
            client.execute()
        except CellExecutionError as error:
            raise GradeclipError(
                f"a cell of {title} failed on {model}: {error.ename}: {error.evalue}"
            ) from error
        except DeadKernelError as error:
            raise GradeclipError(f"the kernel of {title} died on {model}: {error}") from error


@contextmanager
def _signs_of_life(first_line: str) -> Iterator:
    """Say what happens, line by line, with a dot every two seconds: `say(line)`."""
    start = time.monotonic()
    ended = threading.Event()

    def say(line: str) -> None:
        print(f"\n{time.monotonic() - start:5.0f} s  {line} ", end="", file=sys.stderr, flush=True)

    def show_dots() -> None:
        while not ended.wait(SIGN_OF_LIFE):
            print(".", end="", file=sys.stderr, flush=True)

    say(first_line)
    thread = threading.Thread(target=show_dots, daemon=True)
    thread.start()
    try:
        yield say
    finally:
        ended.set()
        thread.join()
        print(file=sys.stderr)


# ---------------------------------------------------------------------------- results of one's own


def _put_claims_first(notebook, table: Path) -> None:
    """Begin with the claims of this model beside the bundled one's, and fold its paragraphs."""
    earlier = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = _with_folds(cell.source, reads_result=earlier == "code")
        earlier = cell.cell_type

    head = f"**The text of this lesson describes `{DESCRIBED}`.** Its numbers are folded below."
    if table.exists():
        head = f"{head} Your model:\n\n{_claims_beside(table)}"
    notebook.cells.insert(0, nbformat.v4.new_markdown_cell(head))


def _claims_beside(table: Path) -> str:
    """A model's table of claims of a lesson, beside that of the bundled one, as Markdown."""
    model = table.parent.name
    described = claim_cells(read_claims(COMMITTED / DESCRIBED / table.name))
    lines = [f"| claim | {model} | {DESCRIBED} |", "| --- | --- | --- |"]
    for (claim, measured), cell in claim_cells(read_claims(table)).items():
        name = claim.replace("|", "/")
        counterpart = DESCRIBED
        if measured != model:  # the lesson's second model
            name = f"{name} ({measured})"
            counterpart = measured
        beside = described.get((claim, counterpart), "")
        lines.append(f"| {name} | {cell} | {beside} |")
    return "\n".join(lines)


def _with_folds(source: str, reads_result: bool) -> str:
    """A text whose paragraphs with numbers of the bundled model are folded.

    If it reads the result of a cell, the first paragraph is folded, too. Headings, questions, code
    and what is folded already stay.
    """
    parts = re.split(r"(<details>.*?</details>|^```.*?^```)", source, flags=re.M | re.S)
    texts: list[str] = []
    for place, part in enumerate(parts):
        is_whole = place % 2 == 1
        if is_whole:
            texts.append(part.replace("<summary>Answer</summary>", _summary("Answer")))
            continue
        for paragraph in re.split(r"\n\s*\n", part.strip()):
            is_prose = not re.search(r"^#|^\*\*Pre|[?:]$", paragraph)
            is_reading = reads_result and not texts and is_prose
            if is_reading or _states_numbers(paragraph):
                paragraph = f"<details>{_summary('Text')}\n\n{paragraph}\n\n</details>"
            texts.append(paragraph)
    return "\n\n".join(text for text in texts if text)


def _summary(name: str) -> str:
    return f"<summary>{name} about <code>{DESCRIBED}</code></summary>"


def _states_numbers(paragraph: str) -> bool:
    """Whether a paragraph has a number that was measured, or names a bundled model."""
    if paragraph.startswith("#"):
        return False
    prose = re.sub(r"\]\([^)]*\)|\$[^$]*\$|arXiv[: ]\d+\.\d+|https?://\S+", " ", paragraph)
    without_code = re.sub(r"`[^`]*`", " ", prose)
    has_number = re.search(r"(?<![\w.])\d*\.\d+|\d ?%", without_code)
    return bool(has_number or f"`{DESCRIBED}" in prose)
