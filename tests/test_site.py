"""The site's sources are whole, and no link of what `make site` built leads nowhere."""

import re
from inspect import getmembers, isroutine
from pkgutil import resolve_name
from urllib.parse import unquote, urlsplit

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from gradeclip_utils import Explainer, Explanation, Interactions
from gradeclip_utils.datasets import Example
from gradeclip_utils.methods import METHODS
from gradeclip_utils.scenes import Scene
from gradeclip_utils.towers import Tower, Trace
from tests.conftest import ROOT, load_script

BUILT = ROOT / "build" / "site"


@pytest.fixture(scope="module")
def build():
    """The module that builds the site."""
    return load_script("docs/site/build.py")


@pytest.fixture(scope="module")
def pages(build, tmp_path_factory):
    """Everything that Sphinx reads."""
    folder = tmp_path_factory.mktemp("site") / "sources"
    build.gather(folder)
    return folder


def prose_of(page):
    """The text of a page without its code, in which brackets are no links."""
    code = r"^```(?:python|sh)\n.*?^```"
    return re.sub(code, "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def test_links_and_figures_of_the_pages_lead_to_files_on_the_site_and_in_the_repository(pages):
    sources = (ROOT / "docs" / "site").rglob("*.md")
    for page in (*pages.rglob("*.md"), *sources):
        targets = re.findall(r"\]\(([^)#:\s]+)(?:#[^)\s]*)?\)", prose_of(page))
        for target in targets:
            assert (page.parent / target).exists(), (page.name, target)


def test_a_notebook_that_was_executed_here_replaces_the_committed_one(build, tmp_path):
    executed = tmp_path / "executed" / "01_start_here.ipynb"
    executed.parent.mkdir()
    nbformat.write(nbformat.v4.new_notebook(), executed)

    build.gather(tmp_path / "pages", [executed])

    page = nbformat.read(tmp_path / "pages" / "notebooks" / executed.name, as_version=4)
    assert page.cells == []


def test_the_sidebar_has_the_numbers_of_the_lessons(pages):
    page = (pages / "notebooks/README.md").read_text()
    (block,) = re.findall(r"```\{toctree\}\n(.*?)```", page, re.S)
    for notebook in (ROOT / "notebooks").glob("[01]*.ipynb"):
        assert re.search(rf"^{notebook.stem[:2]} .+ <{notebook.stem}>$", block, re.M)


def test_the_first_page_has_its_figure_once_for_light_and_once_for_dark_pages(pages):
    page = BeautifulSoup((pages / "index.md").read_text(encoding="utf-8"), "html.parser")
    light, dark = page.find_all("picture")
    assert light.img["class"] == ["only-light"]
    assert dark.img["class"] == ["only-dark"]
    for picture, is_dark in ((light, False), (dark, True)):
        addresses = [picture.img["src"]]
        for source in picture.find_all("source"):
            assert "prefers-color-scheme" not in source["media"]
            addresses.append(source["srcset"])
        assert len(addresses) == 2
        assert all(address.endswith("-dark.png") == is_dark for address in addresses)


def test_numbers_of_a_table_stand_on_the_right_and_text_on_the_left(build):
    columns = {
        "model": ["emoji", "emoji", "emoji-bag"],
        "layer": [1, 2, 1],
        "right": [0.5, 0.25, None],
        "answer": ["higher", "lower", "higher"],
    }
    table = pd.DataFrame(columns).set_index(["model", "layer"])
    wide = pd.concat({"before": table, "after": table}, axis=1)
    for frame in (table, wide):
        html = build.align(frame.to_html())
        for cell in BeautifulSoup(html, "html.parser").select("td"):
            is_text = cell.text in columns["answer"]
            assert ("of-text" in cell["class"]) == is_text, cell


@pytest.fixture(scope="module")
def reference(build):
    """The names of the reference, and what each stands for."""
    names = [name for _, entries in build.API.values() for name in entries]
    assert len(names) == len(set(names))
    return {name: resolve_name(f"gradeclip_utils.{name}") for name in names}


def test_every_name_of_the_reference_has_a_docstring_and_stands_once(reference):
    for name, value in reference.items():
        assert value.__doc__, name


def test_every_function_of_the_reference_is_called_in_a_lesson_or_on_a_page(build, reference):
    results = (Explainer, Explanation, Interactions)
    members = []
    for kind in results:
        members += getmembers(kind, isroutine)
    for kind in (*results, Example, Scene, Tower, Trace):
        members += getmembers(kind, lambda value: isinstance(value, property))
    names = {name for name, _ in members if name[0] != "_"}
    for value in reference.values():
        if not isinstance(value, type):
            names.add(value.__name__)

    words = re.findall(r"\w+", code_for_readers())
    assert names.difference(words, *build.INTERNAL.values()) == set()


def code_for_readers():
    """The code of lessons and pages."""
    parts = []
    for file in (ROOT / "notebooks").glob("*.ipynb"):
        cells = nbformat.read(file, as_version=4).cells
        parts += [cell.source for cell in cells if cell.cell_type == "code"]

    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs" / "start.md"]
    howto = (ROOT / "docs" / "site" / "howto").glob("*.md")
    for page in (*pages, *howto):
        text = page.read_text(encoding="utf-8")
        parts += re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    return "\n".join(parts)


def test_every_method_has_its_row_with_paper_and_cost(build):
    lines = build.methods_page().splitlines()
    for name, method in METHODS.items():
        (row,) = [line for line in lines if line.startswith(f"| `{name}` |")]
        for part in (method.title, method.paper, method.explains, method.cost):
            assert part in row


def test_every_citation_is_in_the_bibliography(build, pages):
    cited = set()
    for page in (*pages.rglob("*.md"), *pages.rglob("*.ipynb")):
        text = page.read_text(encoding="utf-8")
        for keys in re.findall(r"\{cite\}`([^`]+)`", text):
            cited |= set(keys.split(","))
    assert cited
    assert cited <= set(build.entries().values())


# ---------------------------------------------------------------------------------- the built site

built = pytest.mark.skipif(
    not (BUILT / "index.html").is_file(), reason="the site is not built here (make site)"
)


@pytest.fixture(scope="module")
def html():
    """File -> its parsed page."""
    parsed = {}
    for file in BUILT.rglob("*.html"):
        parsed[file] = BeautifulSoup(file.read_text(encoding="utf-8"), "html.parser")
    return parsed


@built
def test_every_internal_link_of_the_built_site_leads_to_a_place(html):
    places = {}
    for file, page in html.items():
        places[file] = {tag["id"] for tag in page.find_all(id=True)}

    lost = set()
    for file, page in html.items():
        if "_modules" in file.parts:
            continue
        for tag in page.find_all("a", href=True):
            link = urlsplit(tag["href"])
            if link.scheme or link.netloc:
                continue
            target = (file.parent / unquote(link.path)).resolve() if link.path else file
            fragment = unquote(link.fragment)
            ids = places.get(target, {fragment})
            if not target.exists() or (fragment and fragment not in ids):
                lost.add((file.name, tag["href"]))
    assert lost == set()


@built
def test_the_built_site_fetches_nothing_from_elsewhere(html):
    for file, page in html.items():
        addresses = [tag.get("src", "") for tag in page.find_all(["script", "img", "iframe"])]
        for tag in page.find_all("link"):
            if "canonical" not in tag.get("rel", []):
                addresses.append(tag.get("href", ""))
        for address in addresses:
            assert not re.match(r"(https?:)?//", address), (file.name, address)


@built
def test_every_image_of_the_built_site_is_there_and_has_an_alternative_text(html):
    for file, page in html.items():
        for image in page.find_all("img"):
            assert image.get("alt") is not None, (file.name, image)
        for tag in page.find_all(["img", "source"]):
            address = tag.get("src") or tag["srcset"]
            if not address.startswith("data:"):
                assert (file.parent / unquote(address)).is_file(), (file.name, address)
