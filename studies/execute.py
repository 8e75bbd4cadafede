"""Execute notebooks, top to bottom, each in a fresh kernel.

    python -m studies.execute notebooks/*.ipynb --out build/executed     # as `make run`
    python -m studies.execute notebooks/04*.ipynb                        # in place

Figures of seaborn and matplotlib have the alternative text of their cell's metadata, "alt".
"""

from __future__ import annotations

import argparse
import ast
import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode

from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.files import write_whole

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


def execute(notebook: NotebookNode, parameters: Mapping[str, object] | None = None) -> None:
    """Execute a notebook in place, with other values of its parameters.

    Raises:
        CellExecutionError: of the first cell that fails; what was executed until then is kept.
        GradeclipError: the notebook has no such parameter.
    """
    set_parameters(notebook, parameters or {})
    NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        resources={"metadata": {"path": str(NOTEBOOKS)}},
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
        extra_arguments=["--log-level=ERROR"],  # nothing about encryption on one machine
    ).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _is_finished_bar(output)]
            for output in cell.outputs:
                if "alt" in cell.metadata and "image/png" in output.get("data", ()):
                    of_image = output.metadata.setdefault("image/png", {})
                    of_image.setdefault("alt", cell.metadata["alt"])


def parameters_of(notebook: NotebookNode) -> list[str]:
    """The names that the cell of parameters assigns, also by `MODEL, PRETRAINED = ...`."""
    names = []
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", ()):
            for node in ast.walk(ast.parse(cell.source)):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    names.append(node.id)
    return names


def set_parameters(notebook: NotebookNode, parameters: Mapping[str, object]) -> None:
    """Put a cell with these parameters behind the notebook's own, or refuse them."""
    names = parameters_of(notebook)
    for name in parameters:
        if name not in names:
            known = ", ".join(names) or "none"
            raise GradeclipError(f"the notebook takes no {name}: its parameters are {known}")
    lines = [f"{name} = {value!r}" for name, value in parameters.items()]
    cell = nbformat.v4.new_code_cell("\n".join(lines), metadata={"tags": ["injected-parameters"]})
    for place, earlier in enumerate(notebook.cells):
        if lines and "parameters" in earlier.metadata.get("tags", ()):
            notebook.cells.insert(place + 1, cell)
            return


def _is_finished_bar(output: NotebookNode) -> bool:
    """Whether this is a progress bar that has cleared itself."""
    return output.get("name") == "stderr" and not output.text.strip()


def title(file: Path) -> str:
    """A notebook as a reader calls it: "04 Word importance"."""
    number, _, name = file.stem.partition("_")
    words = name.replace("_", " ")
    return f"{number} {words[:1].upper()}{words[1:]}".strip()


def main(argv: Sequence[str] | None = None) -> int:
    """Execute the notebooks that a command names, as many at once as there are cores."""
    parser = argparse.ArgumentParser(prog="python -m studies.execute")
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, help="a folder for the executed notebooks")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="kernels at once")
    args = parser.parse_args(argv)

    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a core a kernel
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # a debugger's note, per kernel

    def run(number: int, file: Path) -> bool:
        """Execute one file and write it; what happens is said in a line."""
        name = f"{number} of {len(args.notebooks)} · {title(file)}"
        print(f"{name} …", flush=True)
        start = time.monotonic()
        notebook = nbformat.read(file, as_version=4)
        try:
            execute(notebook)
        except (CellExecutionError, DeadKernelError) as error:
            print(f"{name} · failed\n{error}", flush=True)
            return False
        target = (args.out or file.parent) / file.name
        write_whole({target: f"{nbformat.writes(notebook)}\n".encode()})
        print(f"{name} · {time.monotonic() - start:.0f} s", flush=True)
        return True

    with ThreadPoolExecutor(args.jobs) as pool:
        numbers = range(1, len(args.notebooks) + 1)
        succeeded = list(pool.map(run, numbers, args.notebooks))
    return 0 if all(succeeded) else 1


if __name__ == "__main__":
    sys.exit(main())
