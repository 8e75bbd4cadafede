"""Build the site from notebooks, the pages of this folder and docstrings; nothing is executed or fetched.

    python docs/site/build.py build/site                        # `make site`: notebooks as they are
    committed python docs/site/build.py build build/executed/*.ipynb      # `make run`: these as
    they were executed here

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

FIGURES = {
    "explained.png",
    "explained-narrow.png",
}  # which the README shows by HTML, of which Sphinx takes no notice


def gather(pages: Path, executed: Sequence[Path] = ()) -> None:
    """Put everything that Sphinx reads into one folder; notebooks executed here replace those of their names."""
    shutil.copytree(HERE, pages, ignore=shutil.ignore_patterns("build.py", "__pycache__"))
    for pattern in COPIED:
        for file in ROOT.glob(pattern):
            target = pages / file.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    for lesson in executed:
        shutil.copy(lesson, pages / "notebooks")
    for source in (ROOT / "README.md", *HERE.rglob("*.md")):
        page = pages / place_of(source)
        page.write_text(with_links_of_the_site(source), encoding="utf-8")
    readme = (pages / "README.md").read_text(encoding="utf-8")
    readme = readme.replace("gradeclip_utils/methods/grad_eclip.py", "api/method.md")
    (pages / "README.md").write_text(readme, encoding="utf-8")
    there = 'Here it is: <a href="live/index.html"><b>open it</b></a>.'
    fill(pages / "live.md", "<!-- the link to the live page, on the site -->", there)
    lessons = sorted(pages.glob("notebooks/*.ipynb"))
    for lesson in lessons:
        complete(lesson)
    for what, pattern in (("lines", r"```python\n.*?```"), ("figure", r"<picture>.*?</picture>")):
        fill(
            pages / "index.md",
            f"<!-- the {what} of the README -->",
            re.search(pattern, readme, re.S)[0],
        )
    shutil.copytree(
        ROOT / "docs", pages / "extra" / "docs", ignore=lambda _, names: {*names} - FIGURES
    )
    course, mark = pages / "notebooks" / "README.md", "## For teachers"
    named = re.findall(
        r"^\| \[[^]]+\]\((\w+)\.ipynb\) \|", course.read_text(encoding="utf-8"), re.M
    )  # in its order
    own = [
        lesson.stem for lesson in lessons if lesson.stem not in named
    ]  # of somebody who has put them beside ours
    fill(course, mark, f"{toctree([*dict.fromkeys(named), *own])}\n\n{mark}")
    (pages / "methods.md").write_text(methods_page(), encoding="utf-8")
    write_api(pages / "api")


def place_of(file: Path) -> Path:
    """Where a file of the repository lies on the site."""
    return file.relative_to(HERE if file.is_relative_to(HERE) else ROOT)


def with_links_of_the_site(page: Path) -> str:
    """The text of a page, with its links from where it lies on the site."""

    def moved(link: re.Match) -> str:
        target = place_of((page.parent / link[1]).resolve())
        return f"]({Path(os.path.relpath(target, place_of(page).parent)).as_posix()}"

    return re.sub(r"\]\((?!\w+:)([^)#\s]+)", moved, page.read_text(encoding="utf-8"))


def fill(page: Path, mark: str, text: str) -> None:
    """Write `text` where a page has `mark`, once."""
    before, after = page.read_text(encoding="utf-8").split(mark)
    page.write_text(before + text + after, encoding="utf-8")


def toctree(names: list[str]) -> str:
    """The pages below a page, shown in the navigation only."""
    return "\n".join(["```{toctree}", ":hidden:", "", *names, "```"])


def complete(notebook: Path) -> None:
    """Give a notebook what a page has and a notebook cannot have.

    An image says what it shows, to those who cannot see it: an output has the text, and myst-nb
    asks the cell for it. A link to a paper of the bibliography cites it as well; in JupyterLab a
    citation would be a key in braces.
    """
    content, known = nbformat.read(notebook, as_version=4), papers()
    for cell in content.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(
                r"\]\((https?://[^)\s]+)\)",
                lambda link: (
                    f"{link[0]} {{cite}}`{known[link[1]]}`" if link[1] in known else link[0]
                ),
                cell.source,
            )
        for output in cell.get("outputs", ()):
            if alt := output.get("metadata", {}).get("image/png", {}).get("alt"):
                cell.metadata.setdefault("mystnb", {})["image"] = {"alt": " ".join(alt.split())}
    nbformat.write(content, notebook)


def entries() -> dict[str, str]:
    """Title -> key of everything in the bibliography, titles without the braces that hold capitals."""
    text = BIBLIOGRAPHY.read_text(encoding="utf-8")
    found = re.findall(r"^@\w+\{(\w+),.*?^  title = \{(.*?)\},?$", text, re.M | re.S)
    return {re.sub(r"[{}]", "", title): key for key, title in found}


def papers() -> dict[str, str]:
    """Address -> key of everything in the bibliography that has one, as lessons link to it."""
    text = BIBLIOGRAPHY.read_text(encoding="utf-8")
    before = {"eprint": "https://arxiv.org/abs/", "url": ""}
    return {
        before[kind] + place: key
        for key, entry in re.findall(r"^@\w+\{(\w+),((?:\n  .*)*)", text, re.M)
        for kind, place in re.findall(r"(eprint|url) = \{(.*?)\}", entry)
    }


def methods_page() -> str:
    """The table of `METHODS`, with what each explains and costs, and its paper in the bibliography."""
    head = (
        "# Methods\n\n`Explainer(method=...)` takes each of these methods (`gradeclip_utils.methods.METHODS`). Only "
        "maps that explain *the model's own similarity* say why the model gave its number. Cost counts forward passes "
        "beyond the trace.\n"
    )
    known, rows = (
        entries(),
        ["| `method=` | name | explains | cost | image | words | paper |", "| --- " * 7 + "|"],
    )
    for name, method in METHODS.items():
        if not (keys := [key for title, key in known.items() if title in method.paper]):
            raise LookupError(
                f"{BIBLIOGRAPHY.name} has no entry with the title of {name!r}: {method.paper}"
            )
        has = ["yes" if part else "–" for part in (method.image, method.text)]
        paper = f"{method.paper} {{cite}}`{','.join(keys)}`"
        rows.append(
            f"| {' | '.join((f'`{name}`', method.title, method.explains, method.cost, *has, paper))} |"
        )
    return head + "\n" + "\n".join(rows) + "\n"


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
            "plots.plot_explanation",
            "plots.plot_interactions",
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
            "datasets.coco_captions",
        ],
    ),
    "measures": (
        "Measures",
        [
            "measures.localisation_scores",
            "measures.reference_baselines",
            "measures.image_curves",
            "measures.word_curves",
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


def write_api(folder: Path) -> None:
    """Write one page per subject, and an index."""
    folder.mkdir()
    rows = ["# API reference", "", "| page | names |", "| --- | --- |"]
    for page, (title, names) in API.items():
        blocks = [
            f"```{{eval-rst}}\n{_directive(f'gradeclip_utils.{name}')}\n```" for name in names
        ]
        (folder / f"{page}.md").write_text(
            f"# {title}\n\n" + "\n\n".join(blocks) + "\n", encoding="utf-8"
        )
        short = ", ".join(f"`{name.rpartition('.')[2]}`" for name in names)
        rows.append(f"| [{title}]({page}.md) | {short} |")
    rows += ["", toctree(list(API)), ""]
    (folder / "index.md").write_text("\n".join(rows), encoding="utf-8")


def _directive(name: str) -> str:
    """The Sphinx directive that documents one name, with its public members if it is a class."""
    thing = resolve_name(name)
    if not isinstance(thing, type):
        return f".. autofunction:: {name}"
    others = [
        one.__name__ for one in thing.__mro__ if not one.__module__.startswith("gradeclip_utils")
    ]
    return f".. autoclass:: {name}\n   :members:\n   :inherited-members: {', '.join(others)}"


if __name__ == "__main__":
    from sphinx.cmd.build import main as sphinx  # pages can be gathered, and tested, without it

    out, *executed = map(Path, sys.argv[1:])
    with tempfile.TemporaryDirectory() as work:
        sources, read, pages = (f"{work}/{name}" for name in ("sources", "read", "pages"))
        gather(Path(sources), executed)
        strict = (
            [] if executed else ["-W", "--keep-going"]
        )  # notebooks of others may be as they like
        if failed := sphinx(["-b", "html", "-q", "-d", read, *strict, sources, pages]):
            sys.exit(failed)
        shutil.copytree(pages, out, dirs_exist_ok=True)
