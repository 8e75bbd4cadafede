"""Run a lesson on a model of your own: `python -m studies 05 --model ViT-B-16 --pretrained openai`.

papermill executes a copy of the notebook with other parameters. The executed notebook, its page and
its table of claims lie in `results/MODEL/`; the notebooks of the course stay as they are.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from pathlib import Path

from gradeclip_utils.checks import whole
from gradeclip_utils.errors import GradeclipError

from .lesson import RESULTS, file_name

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


def notebook_of(lesson: str) -> Path:
    """The notebook of a lesson, given by its number or by the beginning of its name."""
    found = sorted(NOTEBOOKS.glob(f"{lesson}*.ipynb")) if re.fullmatch(r"\w+", lesson) else []
    if len(found) != 1:
        known = ", ".join(path.stem for path in sorted(NOTEBOOKS.glob("*.ipynb")))
        raise GradeclipError(f"there is no lesson {lesson!r}: choose from {known}")
    return found[0]


def run_lesson(lesson: str, model: str, pretrained: str | None, data: str, n: int | None) -> Path:
    """Execute a lesson on a model, and return the executed notebook, beside which its page lies."""
    import nbformat
    import papermill
    from nbconvert import HTMLExporter

    notebook, folder = notebook_of(lesson), RESULTS / file_name(model)
    takes = _parameters(nbformat.read(notebook, as_version=4))
    n = None if n is None else whole("n", n, 20, 10**6)
    given = {"MODEL": model, "PRETRAINED": pretrained, "DATA": data, "N": n}
    given = {
        name: value for name, value in given.items() if value or (name in takes and name != "N")
    }
    if unknown := [name for name in given if name not in takes]:
        raise GradeclipError(
            f"lesson {notebook.stem} takes no {unknown[0]}; its parameters are {', '.join(takes) or 'none'}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / notebook.name
    try:
        shown = {
            "progress_bar": sys.stderr.isatty(),
            "stderr_file": sys.stderr,
        }  # with the bars of long cells
        papermill.execute_notebook(
            str(notebook), str(out), parameters=given, cwd=str(NOTEBOOKS), **shown
        )
    except papermill.PapermillExecutionError as error:
        out.unlink()  # a lesson that ends in an error; what it measured of photographs is kept
        if not any(folder.iterdir()):
            folder.rmdir()
        raise GradeclipError(
            f"a cell of {notebook.stem} failed on {model}: {error.ename}: {error.evalue}"
        ) from error
    page, _ = HTMLExporter().from_notebook_node(nbformat.read(out, as_version=4))
    out.with_suffix(".html").write_text(page, encoding="utf-8")
    return out


def _parameters(notebook) -> list[str]:
    """Return the names that the cell of parameters assigns; papermill itself sees no `MODEL, PRETRAINED = ...`."""
    cells = (
        cell.source for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())
    )
    nodes = (
        node
        for source in cells
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Name)
    )
    return [node.id for node in nodes if isinstance(node.ctx, ast.Store)]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m studies", description="Run a lesson on a model of your own."
    )
    parser.add_argument("lesson", help="a number such as 05")
    parser.add_argument(
        "--model", default="emoji", help="a name that load_clip takes; default: %(default)s"
    )
    parser.add_argument("--pretrained", help="a tag of open_clip, or a file of weights")
    parser.add_argument(
        "--data", default="", help="photographs for lessons 04 to 06, such as coco:FOLDER"
    )
    parser.add_argument(
        "--n", type=int, help="how many scenes, or in lesson 06 images; default: the lesson's own"
    )
    options = parser.parse_args(arguments)
    try:
        out = run_lesson(options.lesson, options.model, options.pretrained, options.data, options.n)
    except GradeclipError as error:
        print(f"gradeclip: {error}", file=sys.stderr)
        return 2
    print(f"{out.with_suffix('.html')}\n{out.parent / out.name[:2]}.csv")
    return 0


if __name__ == "__main__":
    sys.exit(main())
