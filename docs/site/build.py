"""Build the site from notebooks, the pages of this folder and docstrings; nothing is executed.

    python docs/site/build.py build/site                              # `make site`
    python docs/site/build.py build build/executed/*.ipynb            # `make run`

The first takes notebooks as they are committed, the second as they were executed here.

Pages that say what the code says (methods, API) are written here from the code; the others are
files of this folder, which land at the root of the site, and of `docs/`, `notebooks/`, `data/` and
the project's root, which keep their places. Links hold in the repository; those between the two
kinds are rewritten for the site.
"""

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from pkgutil import resolve_name

import nbformat
from bs4 import BeautifulSoup, Tag

from gradeclip_utils.methods import METHODS

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BIBLIOGRAPHY = HERE / "references.bib"
COPIED = (
    "notebooks/*.ipynb",
    "notebooks/README.md",
    "data/*.md",
    "data/photos/README.md",
    "data/*.png",
    "docs/*.md",
    "docs/*.png",
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "LICENSE",
    "CITATION.cff",
)

# the README shows them by HTML, of which Sphinx takes no notice
FIGURES_PATTERN = "explained*.png"

LONGEST_UNWRAPPED = 22  # letters of a cell
# the end of the note below a panel
PANEL_END = "or the live page.</small>"

METHODS_HEAD = """\
# Methods

`Explainer(method=...)` takes those with "yes" under image for its maps, `Explainer(words=...)`
those with "yes" under words for its word scores (`gradeclip_utils.methods.METHODS`). Only what
explains *the model's own similarity* says why the model gave its number. Cost counts forward passes
beyond the trace.

| `method=`, `words=` | name | explains | cost | image | words | paper |
| --- | --- | --- | --- | --- | --- | --- |
"""


# -------------------------------------------------------------------------------- pages of the site


def gather(pages: Path, executed: Sequence[Path] = ()) -> None:
    """Put everything that Sphinx reads into one folder.

    Notebooks that were executed here replace the committed ones of their names.
    """
    copy_sources(pages, executed)
    for source in (ROOT / "README.md", *HERE.rglob("*.md")):
        text = with_links_of_the_site(source)
        (pages / place_of(source)).write_text(text, encoding="utf-8")

    fill_marks(pages)
    list_lessons(pages)
    for notebook in pages.glob("notebooks/*.ipynb"):
        complete(notebook)

    (pages / "methods.md").write_text(methods_page(), encoding="utf-8")
    write_api(pages / "api")


def copy_sources(pages: Path, executed: Sequence[Path]) -> None:
    """Copy pages and notebooks to where they lie on the site."""
    shutil.copytree(HERE, pages, ignore=shutil.ignore_patterns("build.py", "__pycache__"))
    for pattern in COPIED:
        for file in ROOT.glob(pattern):
            target = pages / file.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    for notebook in executed:
        shutil.copy(notebook, pages / "notebooks")

    extra = pages / "extra" / "docs"
    extra.mkdir(parents=True)
    for figure in (ROOT / "docs").glob(FIGURES_PATTERN):
        shutil.copy(figure, extra)


def place_of(file: Path) -> Path:
    """Where a file of the repository lies on the site."""
    if file.is_relative_to(HERE):
        return file.relative_to(HERE)
    return file.relative_to(ROOT)


def with_links_of_the_site(page: Path) -> str:
    """The text of a page, with its links from where it lies on the site."""

    def moved(link: re.Match) -> str:
        target = place_of((page.parent / link[1]).resolve())
        return f"]({Path(os.path.relpath(target, place_of(page).parent)).as_posix()}"

    return re.sub(r"\]\((?!\w+:)([^)#\s]+)", moved, page.read_text(encoding="utf-8"))


def fill_marks(pages: Path) -> None:
    """Write what a page has on the site alone."""
    readme = (pages / "README.md").read_text(encoding="utf-8")
    readme = readme.replace("gradeclip_utils/methods/grad_eclip.py", "api/method.md")
    figure = re.search(r"<picture>.*?</picture>", readme, re.S)[0]
    readme = readme.replace(figure, for_both_themes(figure))
    (pages / "README.md").write_text(readme, encoding="utf-8")

    lines = re.search(r"```python\n.*?```", readme, re.S)[0]
    fill(pages / "index.md", "<!-- the lines of the README -->", lines)
    fill(pages / "index.md", "<!-- the figure of the README -->", for_both_themes(figure))

    if (ROOT / "build" / "live").is_dir():  # `make site` puts it beside the pages
        fill(
            pages / "index.md",
            ":link: live\n:link-type: doc",
            ":link: live/index.html\n:link-type: url",
        )

    link = 'Here it is: <a href="live/index.html"><b>open it</b></a>.'
    fill(pages / "live.md", "<!-- the link to the live page, on the site -->", link)


def for_both_themes(picture: str) -> str:
    """A picture for light pages and one for dark ones: on the site a reader can choose."""
    lines = picture.splitlines()
    light = "\n".join(line for line in lines if "-dark.png" not in line)
    light = light.replace("<img ", '<img class="only-light" ')
    dark = light.replace("only-light", "only-dark").replace(".png", "-dark.png")
    return f"{light}\n{dark}"


def fill(page: Path, mark: str, text: str) -> None:
    """Write `text` where a page has `mark`, once."""
    before, after = page.read_text(encoding="utf-8").split(mark)
    page.write_text(before + text + after, encoding="utf-8")


def list_lessons(pages: Path) -> None:
    """Add the navigation of the lessons to the course page: in its order, then all others."""
    course = pages / "notebooks" / "README.md"
    mark = "## For teachers"
    entries = {}
    row = r"^\| \[([^]]+)\]\((\w+)\.ipynb\) \|"
    for title, name in re.findall(row, course.read_text("utf-8"), re.M):
        entries[name] = f"{title} <{name}>"  # with the number of the lesson
    for notebook in sorted(pages.glob("notebooks/*.ipynb")):
        entries.setdefault(notebook.stem, notebook.stem)
    fill(course, mark, f"{toctree(list(entries.values()))}\n\n{mark}")


def toctree(names: list[str]) -> str:
    """The pages below a page, shown in the navigation only."""
    return "\n".join(["```{toctree}", ":hidden:", "", *names, "```"])


def complete(notebook: Path) -> None:
    """Give a notebook what a page has and a notebook cannot have.

    An image says what it shows, to those who cannot see it: an output has the text, and myst-nb
    asks the cell for it. A link to a paper of the bibliography cites it as well; in JupyterLab a
    citation would be a key in braces.
    """
    content = nbformat.read(notebook, as_version=4)
    content.cells = [
        cell for cell in content.cells if cell.id != "open"
    ]  # badges; a page has buttons
    has_live = (ROOT / "build" / "live").is_dir()
    for cell in content.cells:
        if cell.cell_type == "markdown":
            cell.source = with_citations(cell.source)
        for output in cell.get("outputs", ()):
            alt = output.get("metadata", {}).get("image/png", {}).get("alt")
            page = output.get("data", {}).get("text/html", "")
            if '<table border="1" class="dataframe">' in page:
                output["data"]["text/html"] = align(page)
            if has_live and page.endswith(PANEL_END):
                link = 'or <a href="../live/index.html">the live page</a>.</small>'
                output["data"]["text/html"] = page.removesuffix(PANEL_END) + link
            if alt:
                cell.metadata.setdefault("mystnb", {})["image"] = {"alt": " ".join(alt.split())}
    nbformat.write(content, notebook)


def align(page: str) -> str:
    """A table of pandas with classes for columns of text, and for cells that are not to wrap."""
    table = BeautifulSoup(page, "html.parser")
    columns_of_text = {
        column
        for row in table.select("tbody tr")
        for column, cell in enumerate(cells_from_the_right(row))
        if re.search(r"[^\W\d_]{2}", cell.text) and cell.text != "NaN"
    }
    for row in table.find_all("tr"):
        for column, cell in enumerate(cells_from_the_right(row)):
            names = ["of-text"] if column in columns_of_text else []
            if len(cell.text) <= LONGEST_UNWRAPPED:
                names.append("in-one-line")
            cell["class"] = " ".join(names)
    return str(table)


def cells_from_the_right(row: Tag) -> list[Tag]:
    """The cells of a row, the last first: on the left pandas leaves out what repeats."""
    return row.find_all(["th", "td"])[::-1]


# --------------------------------------------------------------------------- bibliography, methods


def with_citations(text: str) -> str:
    """The text with a citation behind every link to a paper of the bibliography."""
    keys = papers()

    def cited(link: re.Match) -> str:
        if link[1] in keys:
            return f"{link[0]} {{cite}}`{keys[link[1]]}`"
        return link[0]

    return re.sub(r"\]\((https?://[^)\s]+)\)", cited, text)


def entries() -> dict[str, str]:
    """Title -> key of everything in the bibliography, without the braces that hold capitals."""
    text = BIBLIOGRAPHY.read_text(encoding="utf-8")
    pairs = re.findall(r"^@\w+\{(\w+),.*?^  title = \{(.*?)\},?$", text, re.M | re.S)
    return {re.sub(r"[{}]", "", title): key for key, title in pairs}


def papers() -> dict[str, str]:
    """Address -> key of everything in the bibliography that has one, as lessons link to it."""
    prefixes = {"eprint": "https://arxiv.org/abs/", "url": ""}
    text = BIBLIOGRAPHY.read_text(encoding="utf-8")
    keys = {}
    for key, entry in re.findall(r"^@\w+\{(\w+),((?:\n  .*)*)", text, re.M):
        for kind, place in re.findall(r"(eprint|url) = \{(.*?)\}", entry):
            keys[prefixes[kind] + place] = key
    return keys


def methods_page() -> str:
    """The table of `METHODS`: what each explains and costs, and its paper in the bibliography."""
    keys_of_titles = entries()
    rows = []
    for name, method in METHODS.items():
        keys = [key for title, key in keys_of_titles.items() if title in method.paper]
        if not keys:
            msg = f"{BIBLIOGRAPHY.name} has no entry with the title of {name!r}: {method.paper}"
            raise LookupError(msg)
        cells = [
            f"`{name}`",
            method.title,
            method.explains,
            method.cost,
            "yes" if method.image else "–",
            "yes" if method.text else "–",
            f"{method.paper} {{cite}}`{','.join(keys)}`",
        ]
        rows.append(f"| {' | '.join(cells)} |\n")
    return METHODS_HEAD + "".join(rows)


# --------------------------------------------------------------------------------------- reference


API = {  # page -> its title and what it documents, in the order in which a newcomer meets them
    "method": (
        "The method in one piece",
        ["methods.grad_eclip.grad_eclip_plain", "methods.grad_eclip.grad_eclip"],
    ),
    "explain": (
        "Explain",
        [
            "explainer.Explainer",
            "explanation.Explanation",
            "explanation.Interactions",
            "explanation.Regions",
            "explanation.Provenance",
            "words.Word",
            "errors.GradeclipError",
            "errors.ExplanationWarning",
        ],
    ),
    "models": (
        "Models",
        [
            "models.load_clip",
            "models.Clip",
            "towers.UnsupportedModel",
            "images.read_image",
        ],
    ),
    "extend": (
        "Add your own",
        [
            "methods.Method",
            "methods.register_method",
            "towers.Tower",
            "towers.Trace",
            "towers.Layer",
            "towers.register_tower",
            "datasets.Example",
            "datasets.register_dataset",
        ],
    ),
    "plots": (
        "Figures",
        [
            "plots.plot_maps",
            "plots.plot_intervals",
            "plots.paint",
        ],
    ),
    "panels": (
        "Panels",
        ["panels.explorer.explore", "panels.explorer.Explorer", "panels.lesson.panel"],
    ),
    "scenes": (
        "Scenes",
        [
            "scenes.arrange",
            "scenes.draw_scene",
            "scenes.Scene",
            "scenes.Object",
            "scenes.concepts",
            "scenes.vocabulary",
            "scenes.without",
            "scenes.recoloured",
        ],
    ),
    "datasets": (
        "Data sets",
        [
            "datasets.load",
            "datasets.photographs",
            "datasets.captioned_images",
            "datasets.from_huggingface",
            "datasets.coco",
        ],
    ),
    "measures": (
        "Measures",
        [
            "measures.localisation_scores",
            "measures.reference_baselines",
            "measures.image_curves",
            "measures.curve_auc",
            "measures.randomised",
            "measures.rank_correlation",
            "measures.time_methods",
            "measures.mean_interval",
            "measures.interpret_interval",
            "measures.group_means",
            "measures.paired_differences",
            "measures.evaluate",
            "measures.summary",
            "measures.report_best",
            "measures.report",
        ],
    ),
}


# what the package's own modules take from a class, and no page shows
INTERNAL = {
    "methods.Method": ("goes_through",),
    "towers.Tower": (
        "embed_alone",
        "image_entry",
        "in_precision",
        "reads",
        "run_block",
        "small",
        "trace_again",
        "with_one_head",
    ),
    "panels.explorer.Explorer": ("back", "open_image"),
}


def write_api(folder: Path) -> None:
    """Write one page per subject, and an index."""
    folder.mkdir()
    index = ["# API reference", "", "| page | names |", "| --- | --- |"]
    for page, (title, names) in API.items():
        blocks = [f"# {title}"]
        for name in names:
            blocks.append(f"```{{eval-rst}}\n{directive(f'gradeclip_utils.{name}')}\n```")
        (folder / f"{page}.md").write_text("\n\n".join(blocks) + "\n", encoding="utf-8")

        last_parts = ", ".join(f"`{name.rpartition('.')[2]}`" for name in names)
        index.append(f"| [{title}]({page}.md) | {last_parts} |")
    index += ["", toctree(list(API)), ""]
    (folder / "index.md").write_text("\n".join(index), encoding="utf-8")


def directive(name: str) -> str:
    """The Sphinx directive that documents one name, with its public members if it is a class."""
    documented = resolve_name(name)
    if not isinstance(documented, type):
        return f".. autofunction:: {name}"
    foreign = []
    for kind in documented.__mro__:
        if not kind.__module__.startswith("gradeclip_utils"):
            foreign.append(kind.__name__)
    options = ["   :members:", f"   :inherited-members: {', '.join(foreign)}"]
    internal = INTERNAL.get(name.removeprefix("gradeclip_utils."))
    if internal:
        options.append(f"   :exclude-members: {', '.join(internal)}")
    return "\n".join([f".. autoclass:: {name}", *options])


def main(out: Path, executed: Sequence[Path]) -> int:
    """Gather the pages, let Sphinx read them, and put the site into a folder."""
    from sphinx.cmd.build import main as sphinx  # pages can be gathered, and tested, without it

    # notebooks of other people may be as they like
    strict = [] if executed else ["-W", "--keep-going"]
    with tempfile.TemporaryDirectory() as work:
        sources = Path(work) / "sources"
        site = Path(work) / "site"
        gather(sources, executed)
        options = ["-b", "html", "-q", "-d", f"{work}/doctrees", *strict]
        failed = sphinx([*options, str(sources), str(site)])
        if not failed:
            shutil.copytree(site, out, dirs_exist_ok=True)
    return failed


if __name__ == "__main__":
    place, *notebooks = map(Path, sys.argv[1:])
    sys.exit(main(place, notebooks))
