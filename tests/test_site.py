"""The site's sources are whole; what `make site` made of them, where it did, has no link that leads nowhere."""

import importlib.util
import json
import re
import runpy
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from bs4 import BeautifulSoup
from jinja2 import Environment, FileSystemLoader

import gradeclip_utils
from gradeclip_utils.methods import METHODS, Method, register_method

ROOT = Path(__file__).parent.parent
BUILT = ROOT / "build" / "site"
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def build():
    place = importlib.util.spec_from_file_location("build_site", ROOT / "docs" / "site" / "build.py")
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(build, tmp_path_factory):
    """Everything that Sphinx reads."""
    folder = tmp_path_factory.mktemp("site") / "sources"
    build.gather(folder)
    return folder


def entries_of(page):
    """The pages that stand below a page, by the toctrees in it."""
    text = page.read_text()
    lines = "\n".join(re.findall(r"^```\{toctree\}\n(.*?)^```", text, re.M | re.S)).splitlines()
    names = [re.sub(r".*<(.*)>", r"\1", line) for line in lines if line and not line.startswith(":")]
    return [(page.parent / name).resolve() for name in names]


def test_every_page_can_be_reached_from_the_landing_page(pages):
    waiting, reached = [pages / "index"], set()
    while waiting:
        if (page := waiting.pop()) in reached:
            continue
        reached.add(page)
        (file,) = [
            page.with_name(page.name + end) for end in (".md", ".ipynb") if page.with_name(page.name + end).is_file()
        ]
        waiting += entries_of(file) if file.suffix == ".md" else []
    every = {file.with_suffix("") for end in ("*.md", "*.ipynb") for file in pages.rglob(end)}
    assert reached == every


def test_links_and_figures_of_the_pages_lead_to_files(pages):
    for page in pages.rglob("*.md"):
        if page.parent.name == "api":
            continue
        prose = re.sub(r"^```python\n.*?^```", "", page.read_text(), flags=re.M | re.S)
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)\s]*)?\)", prose):
            assert (page.parent / target).exists(), (page.name, target)


def test_what_a_page_takes_from_another_is_there(pages):
    found = 0
    for page in pages.rglob("*.md"):
        for file, options in re.findall(r"^```\{include\} (\S+)\n(.*?)^```", page.read_text(), re.M | re.S):
            text = (page.parent / file).read_text()
            for mark in re.findall(r"^:(?:start-after|end-before): \"(.*)\"$", options, re.M):
                assert len(re.findall(rf"^{re.escape(mark)}$", text, re.M)) == 1, (page.name, mark)
                found += 1
    assert found >= 7


def test_a_lesson_that_was_executed_here_stands_for_the_committed_one_and_a_notebook_of_ones_own_beside_it(
    build, pages, tmp_path
):
    (tmp_path / "executed").mkdir()
    for name in ("01_start_here.ipynb", "our_own.ipynb"):
        nbformat.write(nbformat.v4.new_notebook(), tmp_path / "executed" / name)
    build.gather(tmp_path / "pages", sorted((tmp_path / "executed").iterdir()))
    lessons = tmp_path / "pages" / "notebooks"
    assert nbformat.read(lessons / "01_start_here.ipynb", as_version=4).cells == []
    for path in LESSONS[1:]:
        assert (lessons / path.name).read_bytes() == (pages / "notebooks" / path.name).read_bytes()
    order = [path.name for path in entries_of(pages / "notebooks" / "README.md")]
    assert [path.name for path in entries_of(lessons / "README.md")] == [*order, "our_own"]


def test_the_landing_page_has_the_figure_and_the_lines_of_the_readme(pages):
    lines = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[1]
    assert lines in (pages / "index.md").read_text()
    assert (pages / "docs" / "explained.png").read_bytes() == (ROOT / "docs" / "explained.png").read_bytes()


def test_lessons_stand_in_the_order_of_the_course(build, pages):
    order = [path.name for path in entries_of(pages / "notebooks" / "README.md")]
    assert sorted(order) == [path.stem for path in LESSONS]
    assert order[:3] == ["01_start_here", "explorer", "02_inside_grad_eclip"]


def test_every_method_has_its_row_with_paper_cost_and_what_it_explains(build):
    page = build.methods_page()
    for name, method in METHODS.items():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        assert all(part in row for part in (method.title, method.paper, method.explains, method.cost)), name
        assert re.search(r"\{cite\}`[\w,]+`", row), name


def test_a_method_whose_paper_is_not_in_the_bibliography_is_named(build):
    register_method(
        Method("novel", "Novel", "A. Author, A Title of 2099", "nothing", "nothing", image=lambda *given: None)
    )
    try:
        with pytest.raises(LookupError, match="'novel': A. Author, A Title of 2099"):
            build.methods_page()
    finally:
        del METHODS["novel"]


def test_every_room_has_its_page_of_reference(pages):
    package = Path(gradeclip_utils.__file__).parent
    public = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert {page.stem for page in (pages / "api").glob("*.md")} == {name for name in public if name[0] != "_"} | {
        "index"
    }


def test_an_example_in_a_docstring_is_code_as_it_stands_and_its_sections_are_none():
    conf = runpy.run_path(str(ROOT / "docs" / "site" / "conf.py"))
    code, sections = '    f("a", *rest) | g\n\n    h()\n', "\nArgs:\n    x: one.\n    y: two."
    lines = f"Mixes |S| of `Pair`s:\n\n{code}{sections}".split("\n")
    conf["as_restructured_text"](None, "function", "mix", None, {}, lines)
    assert "\n".join(lines) == f"Mixes \\|S\\| of `Pair`\\ s:\n\n::\n\n{code}{sections}"


def test_what_is_cited_is_in_the_bibliography(build, pages):
    keys = set(build.entries().values())
    read = [page.read_text() for kind in ("*.md", "*.ipynb") for page in pages.rglob(kind)]
    cited = {key for text in read for keys in re.findall(r"\{cite\}`([^`]+)`", text) for key in keys.split(",")}
    assert cited and cited <= keys


def test_the_bibliography_has_every_preprint_that_the_lessons_and_the_package_name():
    known = set(re.findall(r"eprint = \{(.*)\}", (ROOT / "docs" / "site" / "references.bib").read_text()))
    for path in [*LESSONS, *Path(gradeclip_utils.__file__).parent.rglob("*.py")]:
        text = path.read_text()
        if path.suffix == ".ipynb":
            text = "\n".join(cell.source for cell in nbformat.reads(text, as_version=4).cells)
        missing = set(re.findall(r"arxiv(?:\.org/abs/|[ :])(\d{4}\.\d{4,5})", text, re.I)) - known
        assert not missing, f"{path.name} names arXiv {sorted(missing)}: add to docs/site/references.bib"


def test_a_lesson_cites_the_papers_that_it_links_to(build, pages, tmp_path):
    link = "see [arXiv 2502.18816](https://arxiv.org/abs/2502.18816)"
    cells = [
        nbformat.v4.new_markdown_cell(f"{link}, and [another](https://example.org/1)."),
        nbformat.v4.new_code_cell(f'print("{link}")'),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "one.ipynb")
    build.complete(tmp_path / "one.ipynb")
    first, second = nbformat.read(tmp_path / "one.ipynb", as_version=4).cells
    assert first.source == f"{link} {{cite}}`zhao2025gradeclip`, and [another](https://example.org/1)."
    assert second.source == cells[1].source
    for lesson in LESSONS:  # none links to a preprint that it does not cite on the site
        text = (pages / "notebooks" / lesson.name).read_text()
        assert text.count("](https://arxiv.org/abs/") == len(re.findall(r"arxiv\.org/abs/[\d.]+\) \{cite\}", text)) > 0


def test_what_a_figure_shows_is_told_to_those_who_cannot_see_it(build, tmp_path):
    image = nbformat.v4.new_output(
        "display_data", {"image/png": "aGVsbG8="}, metadata={"image/png": {"alt": "a map\nof a dog"}}
    )
    cells = [nbformat.v4.new_code_cell("1", outputs=[image]), nbformat.v4.new_code_cell("2")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "one.ipynb")
    build.complete(tmp_path / "one.ipynb")
    first, second = nbformat.read(tmp_path / "one.ipynb", as_version=4).cells
    assert first.metadata["mystnb"] == {"image": {"alt": "a map of a dog"}}
    assert "mystnb" not in second.metadata


@pytest.mark.parametrize("repository", ["", "somebody/gradeclip"])
def test_a_lesson_offers_its_file_and_a_running_copy_where_there_is_a_public_repository(repository):
    template = Environment(loader=FileSystemLoader(ROOT / "docs" / "site" / "_templates")).get_template("notebook.html")
    name = "notebooks/01_start_here"
    page = template.render(
        pagename=name,
        sourcename=f"{name}.ipynb",
        repository=repository,
        revision="main",
        pathto=lambda path, _: f"../{path}",
    )
    links = [link["href"] for link in BeautifulSoup(page, "html.parser").find_all("a")]
    assert links[0] == "../_sources/notebooks/01_start_here.ipynb"
    assert links[1:] == [
        "https://mybinder.org/v2/gh/somebody/gradeclip/main?urlpath=lab/tree/notebooks/01_start_here.ipynb",
        "https://colab.research.google.com/github/somebody/gradeclip/blob/main/notebooks/01_start_here.ipynb",
    ] * bool(repository)
    assert not template.render(pagename="docs/start", sourcename="docs/start.md", repository=repository).strip()


# --- built ------------------------------------------------------------------------------------------------------

built = pytest.mark.skipif(not (BUILT / "index.html").is_file(), reason="the site is not built here (make site)")


class Tags(HTMLParser):
    """Every tag of a page, with its attributes."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, {name: value or "" for name, value in attrs}))


@pytest.fixture(scope="module")
def html():
    """The tags of every page of the built site, by its path."""
    return {path: Tags(path.read_text(encoding="utf-8")).found for path in BUILT.rglob("*.html")}


@built
def test_every_internal_link_of_the_built_site_leads_to_a_place(html):
    places = {path: {tag["id"] for _, tag in tags if "id" in tag} for path, tags in html.items()}
    lost = set()
    for path, tags in html.items():
        for link in (tag["href"] for name, tag in tags if name == "a" and "href" in tag):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            fragment = unquote(parts.fragment)
            if not target.exists() or (fragment and target in places and fragment not in places[target]):
                lost.add((str(path.relative_to(BUILT)), link))
    assert not lost


@built
def test_every_image_of_the_built_site_says_what_it_shows(html):
    for path, tags in html.items():
        for image in (tag for name, tag in tags if name == "img"):
            assert "alt" in image and not image["alt"].endswith(".png"), (path.name, image.get("src", "")[:80])


@built
def test_the_built_site_fetches_nothing_from_elsewhere(html):
    for path, tags in html.items():
        loaded = [tag.get("src", "") for name, tag in tags if name in ("script", "img", "iframe")]
        loaded += [tag.get("href", "") for name, tag in tags if name == "link" and tag.get("rel") != "canonical"]
        assert not [one for one in loaded if re.match(r"(https?:)?//", one)], path.name


@built
def test_a_lesson_is_downloaded_as_a_notebook_that_jupyter_reads(html):
    for lesson in LESSONS:
        page = BUILT / "notebooks" / f"{lesson.stem}.html"
        (link,) = [tag["href"] for name, tag in html[page] if name == "a" and "download" in tag]
        nbformat.validate(json.loads((page.parent / link).read_text(encoding="utf-8")))
