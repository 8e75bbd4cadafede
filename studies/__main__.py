"""Run a lesson on a model of your own: `python -m studies 06 --model ViT-B-16 --pretrained openai`.

papermill executes a copy of the notebook with other parameters. The executed notebook, its page and
its table of claims lie in `results/MODEL-WEIGHTS/`. A run that fails changes none of these files.
The notebooks of the course stay as they are. With `--n 0`, the photographs of lesson 05 or 06 are
measured alone: their claims are printed and written to a table.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from gradeclip_utils import load_clip
from gradeclip_utils.errors import GradeclipError

from .lesson import Claims, is_model_folder, results_folder
from .photographs import add_claims, read_photographs, split_sources

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
FEWEST = 20  # scenes or images of a lesson


def notebook_of(lesson: str) -> Path:
    """The notebook of a lesson, given by its number or by the beginning of its name."""
    notebooks = []
    if re.fullmatch(r"\w+", lesson):
        notebooks = sorted(NOTEBOOKS.glob(f"{lesson}*.ipynb"))
    if len(notebooks) != 1:
        known = ", ".join(path.stem for path in sorted(NOTEBOOKS.glob("*.ipynb")))
        raise GradeclipError(f"there is no lesson {lesson!r}: choose from {known}")
    return notebooks[0]


def run_lesson(lesson: str, model: str, pretrained: str | None, data: str, n: int | None) -> Path:
    """Execute a lesson on a model, and return the executed notebook, beside which its page lies.

    Raises:
        GradeclipError: an unknown lesson or parameter, fewer than 20 scenes, results of other
            weights of the same name, or an error in a cell.
    """
    import nbformat
    import papermill
    from nbconvert import HTMLExporter

    notebook = notebook_of(lesson)
    known = _parameters(nbformat.read(notebook, as_version=4))
    parameters = {"MODEL": model}
    for name, value in (("PRETRAINED", pretrained), ("DATA", data), ("N", n)):
        if value is not None and value != "":
            parameters[name] = value

    unknown = [name for name in parameters if name not in known]
    if unknown:
        raise GradeclipError(
            f"lesson {notebook.stem} takes no {unknown[0]}; "
            f"its parameters are {', '.join(known) or 'none'}"
        )
    if n is not None and n < FEWEST:
        raise GradeclipError(f"N must be at least {FEWEST}, got {n}")
    folder = results_folder(model, pretrained)

    with TemporaryDirectory() as scratch:
        running = Path(scratch) / notebook.name
        try:
            papermill.execute_notebook(
                str(notebook),
                str(running),
                parameters=parameters,
                cwd=str(NOTEBOOKS),
                progress_bar=sys.stderr.isatty(),
                stderr_file=sys.stderr,  # the progress bars of long cells
            )
        except papermill.PapermillExecutionError as error:
            raise GradeclipError(
                f"a cell of {notebook.stem} failed on {model}: {error.ename}: {error.evalue}"
            ) from error
        executed = nbformat.read(running, as_version=4)

    page, _ = HTMLExporter().from_notebook_node(executed)
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / notebook.name
    nbformat.write(executed, out)
    out.with_suffix(".html").write_text(page, encoding="utf-8")
    return out


def _parameters(notebook) -> list[str]:
    """The names that the cell of parameters assigns, also by `MODEL, PRETRAINED = ...`."""
    names = []
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", ()):
            for node in ast.walk(ast.parse(cell.source)):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    names.append(node.id)
    return names


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


def _absolute(path: str) -> str:
    """A path that exists, in full: the kernel runs in another folder.

    Another text stays as it is.
    """
    if path and Path(path).exists():
        return str(Path(path).resolve())
    return path


def _absolute_data(data: str) -> str:
    """The same data sets, such as coco:FOLDER@SPLIT,colorswap:FOLDER, with paths in full."""
    sources = []
    for source in split_sources(data):
        kind, colon, places = source.partition(":")
        places = "@".join(map(_absolute, places.split("@")))
        sources.append(f"{kind}{colon}{places}")
    return ",".join(sources)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m studies", description="Run a lesson on a model of your own."
    )
    parser.add_argument("lesson", help="a number such as 06")
    parser.add_argument(
        "--model", default="emoji", help="a name that load_clip takes; default: %(default)s"
    )
    parser.add_argument("--pretrained", help="a tag of open_clip, or a file of weights")
    parser.add_argument(
        "--data", default="", help="photographs for lessons 05 to 07, such as coco:FOLDER"
    )
    parser.add_argument(
        "--n",
        type=int,
        help="how many scenes (in lesson 07, images), at least 20; default: the lesson's own. "
        "0 measures the photographs of lesson 05 or 06 alone",
    )
    options = parser.parse_args(arguments)

    model = options.model
    if is_model_folder(model):
        model = _absolute(model)
    pretrained = options.pretrained
    if pretrained:
        pretrained = _absolute(pretrained)
    data = _absolute_data(options.data)

    try:
        if options.n == 0:
            print(measure_photographs(options.lesson, model, pretrained, data))
            return 0
        out = run_lesson(options.lesson, model, pretrained, data, options.n)
    except GradeclipError as error:
        print(f"gradeclip: {error}", file=sys.stderr)
        return 2
    print(out.with_suffix(".html"))
    print(out.parent / f"{out.name[:2]}.csv")
    return 0


if __name__ == "__main__":
    sys.exit(main())
