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
GITHUB = "https://github.com/"
UNPUBLISHED = "**[Build the live page](docs/site/live.md)**: `make live`, half a minute"
BADGES_ID = "open"
SETUP_ID = "setup"
SETUP = """\
try:
    import studies
except ModuleNotFoundError:  # this file is alone, as on Colab: fetch its project
    assert (address := "{address}"), "not published yet: open this in a checkout"
    !git clone -q --depth 1 -b {tag} {{address}} gradeclip
    %pip install -q ./gradeclip[lessons]
    %cd -q gradeclip"""


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
    citation = re.sub(r"^(version: .*\n)", rf"\1{line}", citation, flags=re.M)
    file.write_text(citation, encoding="utf-8")


# --------------------------------------------------------------------------------------- notebooks


def places(address: str, tag: str, notebook: str) -> dict[str, tuple[str, str]]:
    """Where a notebook opens: name -> its badge and its address. Only GitHub's are known there."""
    if not address.startswith(GITHUB):
        return {}
    file = f"{address.removeprefix(GITHUB)}/blob/{tag}/notebooks/{notebook}"
    return {
        "Colab": (
            "https://colab.research.google.com/assets/colab-badge.svg",
            f"https://colab.research.google.com/github/{file}",
        ),
        "Kaggle": (
            "https://kaggle.com/static/images/open-in-kaggle.svg",
            f"https://kaggle.com/kernels/welcome?src={GITHUB}{file}",
        ),
    }


def with_setup(cells: list[dict], address: str, tag: str) -> list[dict]:
    """The cells with the one that sets up: before the parameters, or as the first of code."""
    source = SETUP.format(address=address, tag=tag).splitlines(keepends=True)
    for cell in cells:
        if cell["id"] == SETUP_ID:
            cell["source"] = source
            return cells

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
    return [*cells[:place], setup, *cells[place:]]


def with_badges(cells: list[dict], address: str, tag: str, notebook: str) -> list[dict]:
    """The cells with badges as the first one, or without them if there is no address."""
    cells = [cell for cell in cells if cell["id"] != BADGES_ID]
    badges = []
    for name, (badge, place) in places(address, tag, notebook).items():
        badges.append(f"[![Open in {name}]({badge})]({place})")
    if not badges:
        return cells
    first = {
        "cell_type": "markdown",
        "id": BADGES_ID,
        "metadata": {"tags": ["remove-cell"]},
        "source": [" ".join(badges)],
    }
    return [first, *cells]


def write_notebooks(root: Path, address: str, tag: str) -> None:
    """Write into each notebook the cell that sets it up, and its badges."""
    for file in sorted((root / "notebooks").glob("*.ipynb")):
        notebook = json.loads(file.read_text(encoding="utf-8"))
        cells = with_setup(notebook["cells"], address, tag)
        notebook["cells"] = with_badges(cells, address, tag, file.name)
        text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True)
        file.write_text(f"{text}\n", encoding="utf-8")


# ------------------------------------------------------------------------------------------- pages


def site_of(address: str) -> str:
    """Where GitHub shows the site of a repository, or ""."""
    if not address.startswith(GITHUB):
        return ""
    owner, name = address.removeprefix(GITHUB).split("/")
    return f"https://{owner.lower()}.github.io/{name}"


def write_readme(root: Path, address: str, tag: str) -> None:
    """Write the first link, the address to clone, and the column "open" of the table of lessons."""
    file = root / "README.md"
    text = file.read_text(encoding="utf-8")
    link = UNPUBLISHED
    if site_of(address):
        link = f"**[Try it in your browser]({site_of(address)}/live/)**"
    text = re.sub(r"^\*\*\[(Try it in|Build the live).*?(?= · )", link, text, flags=re.M)

    clone = rf"\g<1>{address or 'ADDRESS'}\2"
    text = re.sub(r"^(git clone --depth 1 )\S+( gradeclip)", clone, text, flags=re.M)

    head, row = (
        "| lesson | the question |",
        r"^(\| \[[^]]+\]\(notebooks/(\w+\.ipynb)\) \| [^|]+ \|)",
    )
    text = re.sub(rf"^{re.escape(head)}.*\n.*$", f"{head}\n| --- | --- |", text, flags=re.M)
    text = re.sub(rf"{row}.*$", r"\1", text, flags=re.M)
    if places(address, tag, ""):

        def with_places(match: re.Match) -> str:
            links = [f"[{name}]({to})" for name, (_, to) in places(address, tag, match[2]).items()]
            return f"{match[1]} {' '.join(links)} |"

        text = text.replace(f"{head}\n| --- | --- |", f"{head} open |\n| --- | --- | --- |")
        text = re.sub(rf"{row}$", with_places, text, flags=re.M)
    file.write_text(text, encoding="utf-8")


def main(root: Path, address: str | None = None) -> None:
    """Write all of it into a checkout."""
    if address:
        say_address(root, address.removesuffix(".git").rstrip("/"))
    write_notebooks(root, *published(root))
    write_readme(root, *published(root))


if __name__ == "__main__":
    main(ROOT, *sys.argv[1:])
