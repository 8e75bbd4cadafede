"""The site's sources are whole, and what `make site` built has no link that leads nowhere."""

import importlib.util
import re
from pathlib import Path
from pkgutil import resolve_name
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from bs4 import BeautifulSoup

from gradeclip_utils.methods import METHODS

ROOT = Path(__file__).parent.parent
BUILT = ROOT / "build" / "site"
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def build():
    place = importlib.util.spec_from_file_location(
        "build_site", ROOT / "docs" / "site" / "build.py"
    )
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(build, tmp_path_factory):
    """Everything that Sphinx reads."""
    folder = tmp_path_factory.mktemp("site") / "sources"
    build.gather(folder)
    return folder


def test_links_and_figures_of_the_pages_lead_to_files(pages):
    for page in (
        *pages.rglob("*.md"),
        *(ROOT / "docs" / "site").rglob("*.md"),
    ):  # on the site, and on GitHub
        prose = re.sub(r"^```(?:python|sh)\n.*?^```", "", page.read_text(), flags=re.M | re.S)
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)\s]*)?\)", prose):
            assert (page.parent / target).exists(), (page.name, target)


def test_a_notebook_that_was_executed_here_stands_for_the_committed_one(build, tmp_path):
    (tmp_path / "executed").mkdir()
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "executed" / "01_start_here.ipynb")
    build.gather(tmp_path / "pages", sorted((tmp_path / "executed").iterdir()))
    assert nbformat.read(tmp_path / "pages/notebooks/01_start_here.ipynb", as_version=4).cells == []


def test_the_reference_has_at_most_eighty_entries_each_with_a_docstring_and_begins_with_the_method(
    build,
):
    names = [name for _, entries in build.API.values() for name in entries]
    assert len(names) == len(set(names)) <= 80
    assert names[0].endswith("grad_eclip_plain")
    assert not [
        name
        for name in names
        if not (resolve_name(f"gradeclip_utils.{name}").__doc__ or "").strip()
    ]


def test_every_method_has_its_row_with_paper_and_cost(build):
    page = build.methods_page()
    for name, method in METHODS.items():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        assert all(
            part in row for part in (method.title, method.paper, method.explains, method.cost)
        ), name


def test_every_citation_is_in_the_bibliography(build, pages):
    keys = set(build.entries().values())
    read = [page.read_text() for kind in ("*.md", "*.ipynb") for page in pages.rglob(kind)]
    cited = {
        key
        for text in read
        for keys in re.findall(r"\{cite\}`([^`]+)`", text)
        for key in keys.split(",")
    }
    assert cited and cited <= keys


built = pytest.mark.skipif(
    not (BUILT / "index.html").is_file(), reason="the site is not built here (make site)"
)


@pytest.fixture(scope="module")
def html():
    return {
        path: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for path in BUILT.rglob("*.html")
    }


@built
def test_every_internal_link_of_the_built_site_leads_to_a_place(html):
    places = {path: {tag["id"] for tag in page.find_all(id=True)} for path, page in html.items()}
    lost = set()
    for path, page in html.items():
        for link in (tag["href"] for tag in page.find_all("a", href=True)):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or "_modules" in path.parts:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            fragment = unquote(parts.fragment)
            if not target.exists() or (
                fragment and target in places and fragment not in places[target]
            ):
                lost.add((str(path.relative_to(BUILT)), link))
    assert not lost


@built
def test_the_built_site_fetches_nothing_from_elsewhere_and_every_image_has_an_alternative_text(
    html,
):
    for path, page in html.items():
        loaded = [tag.get("src", "") for tag in page.find_all(["script", "img", "iframe"])]
        loaded += [
            tag.get("href", "")
            for tag in page.find_all("link")
            if "canonical" not in tag.get("rel", [])
        ]
        assert not [one for one in loaded if re.match(r"(https?:)?//", one)], path.name
        assert all(image.get("alt") is not None for image in page.find_all("img")), path.name
        images = [one.get("src") or one["srcset"] for one in page.find_all(["img", "source"])]
        assert all(
            (path.parent / unquote(one)).is_file() for one in images if not one.startswith("data:")
        ), path.name
