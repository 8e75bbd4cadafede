"""Several notebooks in one kernel: a kernel's start and its imports take longer than most of what they compute."""

import nbformat
from nbclient import NotebookClient


def execute_in_one_kernel(notebooks, folder=None, env=None):
    """Execute notebooks in place, one after another, each in an empty namespace; errors are among their outputs.

    Args:
        notebooks: as nbformat reads them.
        folder: where the kernel runs.
        env: the kernel's environment; that of the tests by default.
    """
    together = nbformat.v4.new_notebook()
    for one in notebooks:
        together.cells += [nbformat.v4.new_code_cell("%reset -f"), *one.cells]
    place = {"metadata": {"path": folder}} if folder else {}
    client = NotebookClient(
        together, timeout=1800, kernel_name="python3", allow_errors=True, resources=place
    )
    client.execute(**({"env": env} if env else {}))


def errors(notebook):
    """What went wrong in which cell: (source, message) of each."""
    return [
        (cell.source, output.evalue)
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "error"
    ]
