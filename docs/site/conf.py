"""Sphinx's settings for the site; `build.py` gathers the pages and calls Sphinx with them."""

import re
from pathlib import Path

import yaml

from gradeclip_utils import __version__

project = "gradeclip"
author = copyright = "the gradeclip contributors"
release = __version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_design",
    "sphinx_copybutton",
    "sphinxcontrib.bibtex",
    "sphinx-mathjax-offline",  # which carries MathJax, so that nothing is fetched
]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
myst_enable_extensions = ["colon_fence", "dollarmath", "deflist"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header", "myst-nb.glue"]  # sections of lessons may skip a level
nb_execution_mode = "off"  # the committed notebooks are executed already
# a figure stands beside each widget
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
bibtex_bibfiles = ["references.bib"]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
default_role = "code"  # docstrings have one markup, single backticks

html_theme = "pydata_sphinx_theme"
html_title = "gradeclip"
html_static_path = ["_static"]
html_favicon = "_static/icon.svg"
html_extra_path = ["extra"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_sourcelink_suffix = ""  # a notebook is downloaded under its own name
html_theme_options = {
    "navbar_align": "left",
    "show_toc_level": 2,
    "article_header_end": ["notebook"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "header_links_before_dropdown": 6,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
no_pages_below = ("index", "docs/start", "methods", "docs/architectures", "gallery")
html_sidebars = {page: [] for page in no_pages_below}
templates_path = ["_templates"]
# copied here by build.py: where the project is published, and which release; before, no page links
_citation = yaml.safe_load((Path(__file__).parent / "CITATION.cff").read_text("utf-8"))
html_context = {
    "default_mode": "auto",  # light or dark, as the reader's system
    "repository": _citation.get("repository-code", "").removeprefix("https://github.com/"),
    "revision": f"v{_citation['version']}",
}


def as_restructured_text(app, what, name, documented, options, lines):
    """Write what docstrings borrow from Markdown as Sphinx reads it.

    That is code which is indented, tables, and stars before arguments.
    """
    indented = r"(^\S.*\n\n)((?:^ {4}.*(?:\n|\Z)|^\n)+)"
    # prose, the line before code, code, prose, ...
    pieces = re.split(indented, "\n".join(lines), flags=re.M)
    text = ""
    for start in range(0, len(pieces), 3):
        prose, *line_and_code = pieces[start : start + 3]
        if line_and_code:
            line, code = line_and_code
            text += f"{_markup(prose + line)}::\n\n{code}"
        else:
            text += _markup(prose)
    lines[:] = text.split("\n")


def _markup(text: str) -> str:
    """Prose of a docstring, with what Sphinx would read otherwise."""
    text = re.sub(r"(?<![`*\w])(\*\*?)(?=\w+[,:\s)])", lambda stars: "\\*" * len(stars[1]), text)
    text = re.sub(r"(?<!`)(`[^`\n]+`)(?=\w)", r"\1\\ ", text)  # `Pair`s
    table = r"(?:^[ ]*\|.*\|[ ]*(?:\n|\Z))+"
    text = re.sub(table, lambda match: f"\n{_list_table(match[0])}\n", text, flags=re.M)
    return text.replace("|", "\\|")  # |S| is the size of S


def _list_table(table: str) -> str:
    """A Markdown table as a `list-table`."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in table.strip().splitlines():
        cells = [cell.strip() for cell in row.strip().strip("|").split("|")]
        if all(set(cell) <= set("-: ") for cell in cells):
            continue  # the rule below the header
        first, *rest = cells
        lines.append(f"   * - {first}")
        lines += [f"     - {cell}" for cell in rest]
    return "\n".join([*lines, ""])


def without_aliases(app, what, name, documented, skip, options):
    """Leave out what a named tuple says of its own fields: the class has told more."""
    if str(getattr(documented, "__doc__", "")).startswith("Alias for field number"):
        return True
    return None


def valid_lists(app, page, template, context, doctree):
    """Mend lists that a screen reader cannot read.

    viewcode nests them wrongly, and entries of docutils are no items.
    """
    nested = r"</li>\n<ul>(.*?)</ul>"
    body = re.sub(nested, r"\n<ul>\1</ul></li>\n", context.get("body", ""), flags=re.S)
    context["body"] = body.replace('role="doc-biblioentry"', 'role="listitem"')


def scrollable_images(app, page, template, context, doctree):
    """Put an image that stands for itself into what scrolls, as the theme does with tables.

    It leads to its file: on a telephone, where a figure is small, one press shows it large.
    """
    image = r"((?:<a [^>]*image-reference[^>]*>)?<img [^>]*_images/[^>]*>(?:\s*</a>)?)"
    alone = rf"^(?:<p>{image}</p>|{image})$"

    def scrolls(match):
        shown = match[1] or match[2]
        if not shown.startswith("<a "):
            source = re.search(r'src="([^"]+)"', shown)
            shown = f'<a class="image-reference" href="{source[1]}">{shown}</a>'
        return f'<div class="pst-scrollable-table-container">{shown}</div>'

    context["body"] = re.sub(alone, scrolls, context.get("body", ""), flags=re.M)


def setup(app):
    """Tell Sphinx of the above, before napoleon reads the sections."""
    app.connect("html-page-context", valid_lists)
    app.connect("html-page-context", scrollable_images)
    app.connect("autodoc-process-docstring", as_restructured_text, priority=400)
    app.connect("autodoc-skip-member", without_aliases)
