"""Several notebooks in one kernel: its start and imports take longer than what most compute."""

import nbformat
from nbclient import NotebookClient


def execute_in_one_kernel(notebooks, folder=None, env=None):
    """Execute notebooks in place, one after another, each in an empty namespace.

    Errors are among their outputs.

    Args:
        notebooks: as nbformat reads them.
        folder: where the kernel runs.
        env: the kernel's environment; that of the tests by default.
    """
    joined = nbformat.v4.new_notebook()
    for notebook in notebooks:
        joined.cells += [nbformat.v4.new_code_cell("%reset -f"), *notebook.cells]

    client = NotebookClient(
        joined,
        timeout=1800,
        kernel_name="python3",
        allow_errors=True,
        resources={"metadata": {"path": folder}} if folder else {},
    )
    if env is None:
        client.execute()
    else:
        client.execute(env=env)


def errors(notebook):
    """The errors of a notebook, each with its cell: (source, message)."""
    pairs = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                pairs.append((cell.source, output.evalue))
    return pairs
