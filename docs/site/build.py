"""Build the site from the committed notebooks, the README's parts and the docstrings; nothing is executed or fetched.

    python docs/site/build.py build/site        # `make site`

Pages that say what the code says (methods, API) are written here from the code; the others are files of this folder,
of `notebooks/`, `data/` and the project's root, which keep their places, so that their links hold.
"""

import re
import shutil
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from sphinx.cmd.build import main as sphinx

import gradeclip_utils
from gradeclip_utils.methods import METHODS

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
COPIED = (
    "notebooks/*.ipynb", "notebooks/README.md", "data/*.md", "data/*.png", "docs/*.png", "README.md", "CONTRIBUTING.md",
    "CHANGELOG.md", "LICENSE", "CITATION.cff",
)  # fmt: skip
PART = re.compile(r"<!-- (architectures)[^>]*-->(.*?)<!-- /\1 -->", re.S)


def gather(pages: Path) -> None:
    """Put everything that Sphinx reads into one folder."""
    shutil.rmtree(pages, ignore_errors=True)
    shutil.copytree(HERE, pages, ignore=shutil.ignore_patterns("build.py", "__pycache__"))
    for pattern in COPIED:
        for file in ROOT.glob(pattern):
            target = pages / file.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    index = (pages / "index.md").read_text(encoding="utf-8")
    lines = re.search(r"```python\n.*?```", readme, re.S)[0]
    (pages / "index.md").write_text(index.replace("<!-- the ten lines of the README -->", lines), encoding="utf-8")
    course = pages / "notebooks" / "README.md"
    lessons = "\n".join(sorted(file.stem for file in course.parent.glob("*.ipynb")))
    toc = f"\n```{{toctree}}\n:hidden:\n\n{lessons}\n```\n"
    course.write_text(course.read_text(encoding="utf-8") + toc, encoding="utf-8")
    table = PART.search(readme)[2].strip()
    (pages / "architectures.md").write_text(f"# Architectures\n\n{table}\n", encoding="utf-8")
    (pages / "methods.md").write_text(methods_page(), encoding="utf-8")
    write_api(pages / "api")


def methods_page() -> str:
    """The table of `METHODS`, with what each explains and costs."""
    head = (
        "# Methods\n\nEvery method that `Explainer(method=...)` takes, as the package has it in "
        "`gradeclip_utils.methods.METHODS`. Only what explains *the model's own similarity* may be read as a reason "
        "for the number that the model gave. Cost is in forward passes beyond the trace.\n"
    )
    rows = ["| `method=` | name | paper | explains | cost | image | words |", "| --- " * 7 + "|"]
    for name, method in METHODS.items():
        has = ["yes" if part else "–" for part in (method.image, method.text)]
        row = (f"`{name}`", method.title, method.paper, method.explains, method.cost, *has)
        rows.append(f"| {' | '.join(row)} |")
    return head + "\n" + "\n".join(rows) + "\n"


def write_api(folder: Path) -> None:
    """One page a room, with every public name of its modules; an index in the order of the alphabet."""
    folder.mkdir()
    rooms = {}
    for module in iter_modules(gradeclip_utils.__path__):
        if module.name.startswith("_") or module.name == "data":
            continue
        name = f"gradeclip_utils.{module.name}"
        inside = _modules_of(name) if module.ispkg else [name]
        rooms[module.name] = (import_module(name).__doc__ or "").strip().split("\n")[0]
        blocks = [_block(one) for one in inside]
        (folder / f"{module.name}.md").write_text(f"# {module.name}\n\n" + "\n\n".join(blocks) + "\n", encoding="utf-8")
    rows = "\n".join(f"| [{room}]({room}.md) | {about} |" for room, about in rooms.items())
    toc = "\n".join(rooms)
    (folder / "index.md").write_text(
        "# API reference\n\nBy room; `CONTRIBUTING` says which may use which. `import gradeclip_utils` gives "
        f"`{'`, `'.join(gradeclip_utils.__all__)}`.\n\n| room | what is in it |\n| --- | --- |\n{rows}\n\n"
        f"```{{toctree}}\n:hidden:\n\n{toc}\n```\n",
        encoding="utf-8",
    )


def _modules_of(package: str) -> list[str]:
    found = [package]
    for module in iter_modules(import_module(package).__path__, f"{package}."):
        if not module.name.rpartition(".")[2].startswith("_"):
            found += _modules_of(module.name) if module.ispkg else [module.name]
    return found


def _block(module: str) -> str:
    """A module's section: its docstring, and the names that it defines."""
    return (
        f"## {module.removeprefix('gradeclip_utils.')}\n\n"
        f"```{{eval-rst}}\n.. automodule:: {module}\n   :members:\n   :ignore-module-all:\n"
        "   :exclude-members: set\n```"  # `set` of figures is matplotlib's
    )


if __name__ == "__main__":
    out = Path(sys.argv[1]).resolve()
    sources = out.with_name(f"{out.name}-sources")
    gather(sources)
    sys.exit(sphinx(["-b", "html", "-W", "--keep-going", "-q", str(sources), str(out), *sys.argv[2:]]))
