"""Execute notebooks, top to bottom, each in a fresh kernel.

    python -m studies.execute notebooks/*.ipynb --out build/executed     # as `make run`
    python -m studies.execute notebooks/04*.ipynb                        # in place

Figures of seaborn and matplotlib have the alternative text of their cell's metadata, "alt".
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from gradeclip_utils.files import write_whole

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


def execute(notebook: NotebookNode, parameters: Mapping[str, object] | None = None) -> None:
    """Execute a notebook in place, with other values of its parameters.

    Raises:
        CellExecutionError: of the first cell that fails; what was executed until then is kept.
    """
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", ()):
            cell.source += "".join(
                f"\n{name} = {value!r}" for name, value in (parameters or {}).items()
            )
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
        for output in cell.get("outputs", ()):
            if "alt" in cell.metadata and "image/png" in output.get("data", ()):
                output.metadata.setdefault("image/png", {}).setdefault("alt", cell.metadata["alt"])


def execute_file(file: Path, out: Path) -> float:
    """Execute a notebook's file and write it; the seconds that it took."""
    start = time.monotonic()
    notebook = nbformat.read(file, as_version=4)
    execute(notebook)
    write_whole({out: nbformat.writes(notebook).encode()})
    return time.monotonic() - start


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
    count = len(args.notebooks)
    with ProcessPoolExecutor(min(args.jobs, count)) as pool:
        futures = []
        for file in args.notebooks:
            target = (args.out or file.parent) / file.name
            futures.append(pool.submit(execute_file, file, target))
        for number, (file, future) in enumerate(zip(args.notebooks, futures, strict=True), start=1):
            print(f"{number} of {count} · {title(file)}", end=" · ", flush=True)
            print(f"{future.result():.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
