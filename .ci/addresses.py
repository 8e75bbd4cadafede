"""Write where the project is published into its pages and notebooks, before a release.

    python .ci/addresses.py                                     # writes what CITATION.cff says
    python .ci/addresses.py https://github.com/OWNER/NAME       # says it there first

The address is said once, as `repository-code` in CITATION.cff, and the release's tag is its
`version`. Without an address nothing leads anywhere: there are no badges and no links to a site.
A second run changes nothing.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SETUP_ID = "setup"
SETUP = """\
# Fetches the project where this file is alone, as on Colab; does nothing in a checkout.
try:
    import studies
except ModuleNotFoundError:
    import subprocess
    import sys
    from pathlib import Path

    address, tag = "{address}", "{tag}"
    assert address, "not published yet: open this notebook in a checkout of its project"
    if not Path("gradeclip").exists():
        clone = ["git", "clone", "--quiet", "--depth=1", f"--branch={{tag}}", address]
        subprocess.run([*clone, "gradeclip"], check=True)
    %pip install --quiet ./gradeclip[lessons]
    sys.path.insert(0, "gradeclip")"""


def published(root: Path) -> tuple[str, str]:
    """The address of the repository, or "", and the tag of its release."""
    citation = (root / "CITATION.cff").read_text(encoding="utf-8")
    address = re.search(r"^repository-code: (\S+)$", citation, re.M)
    version = re.search(r"^version: (\S+)$", citation, re.M)
    assert version, "CITATION.cff has no version"
    return (address[1] if address else ""), f"v{version[1]}"


def say_address(root: Path, address: str) -> None:
    """Write the address into CITATION.cff, below the version."""
    file = root / "CITATION.cff"
    citation = re.sub(r"^repository-code: .*\n", "", file.read_text(encoding="utf-8"), flags=re.M)
    line = f"repository-code: {address}\n"
    file.write_text(re.sub(r"^(version: .*\n)", rf"\1{line}", citation, flags=re.M), "utf-8")


def with_setup(notebook: dict, address: str, tag: str) -> dict:
    """The notebook with the cell that sets it up: before the parameters, or as the first cell."""
    source = SETUP.format(address=address, tag=tag).splitlines(keepends=True)
    cells = notebook["cells"]
    for cell in cells:
        if cell["id"] == SETUP_ID:
            cell["source"] = source
            return notebook

    setup = {
        "cell_type": "code",
        "execution_count": None,
        "id": SETUP_ID,
        "metadata": {"jupyter": {"source_hidden": True}, "tags": ["remove-cell"]},
        "outputs": [],
        "source": source,
    }
    place = 0
    for number, cell in enumerate(cells):
        if "parameters" in cell["metadata"].get("tags", ()):
            place = number
    return {**notebook, "cells": [*cells[:place], setup, *cells[place:]]}


def write_notebooks(root: Path, address: str, tag: str) -> None:
    """Write the cell that sets a notebook up into each notebook."""
    for file in sorted((root / "notebooks").glob("*.ipynb")):
        notebook = with_setup(json.loads(file.read_text(encoding="utf-8")), address, tag)
        text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True)
        file.write_text(f"{text}\n", encoding="utf-8")


def main(root: Path, address: str | None = None) -> None:
    """Write all of it into a checkout."""
    if address:
        say_address(root, address.removesuffix(".git").rstrip("/"))
    write_notebooks(root, *published(root))


if __name__ == "__main__":
    main(ROOT, *sys.argv[1:])
