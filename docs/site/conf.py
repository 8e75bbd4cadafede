"""Sphinx's settings for the site; `build.py` beside it gathers the pages and calls Sphinx with them."""

import os
import re

from gradeclip_utils import __version__

project, author, release = "gradeclip", "the gradeclip contributors", __version__
copyright = author
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
nb_mime_priority_overrides = [
    ("html", "application/vnd.jupyter.widget-view+json", None)
]  # a figure stands beside it
bibtex_bibfiles = ["references.bib"]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring, napoleon_numpy_docstring, napoleon_use_rtype = True, False, False
default_role = "code"  # docstrings have one markup, single backticks

html_theme = "pydata_sphinx_theme"
html_title = "gradeclip"
html_static_path, html_extra_path = ["_static"], ["extra"]
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
# GitHub's workflows say where the public repository is; a site that is built at home has no links
# to it.
html_context = {
    "repository": os.environ.get("GITHUB_REPOSITORY", ""),
    "revision": os.environ.get("GITHUB_REF_NAME", "main"),
}


def as_restructured_text(app, what, name, found, options, lines):
    """Write what docstrings borrow from Markdown as Sphinx reads it: indented code, tables, stars before arguments."""
    pieces = re.split(r"(^\S.*\n\n)((?:^ {4}.*(?:\n|\Z)|^\n)+)", "\n".join(lines), flags=re.M)
    pieces += ["", ""]  # pieces: prose, the line before code, code, prose, ...
    threes = zip(pieces[::3], pieces[1::3], pieces[2::3], strict=True)
    text = "".join(
        _markup(prose + line) + (f"::\n\n{code}" if code else "") for prose, line, code in threes
    )
    lines[:] = text.split("\n")


def _markup(text: str) -> str:
    """Prose of a docstring, with what Sphinx would read otherwise."""
    text = re.sub(r"(?<![`*\w])(\*\*?)(?=\w+[,:\s)])", lambda stars: "\\*" * len(stars[1]), text)
    text = re.sub(r"(?<!`)(`[^`\n]+`)(?=\w)", r"\1\\ ", text)  # `Pair`s
    rows = r"(?:^[ ]*\|.*\|[ ]*(?:\n|\Z))+"
    text = re.sub(rows, lambda table: "\n" + _list_table(table[0]) + "\n", text, flags=re.M)
    return text.replace("|", "\\|")  # |S| is the size of S


def _list_table(table: str) -> str:
    """A Markdown table as a `list-table`."""
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in table.strip().splitlines()
    ]
    rows = [row for row in rows if not all(set(cell) <= set("-: ") for cell in row)]
    written = [
        f"   {'* -' if i == 0 else '  -'} {cell}" for row in rows for i, cell in enumerate(row)
    ]
    return "\n".join([".. list-table::", "   :header-rows: 1", "", *written, ""])


def without_aliases(app, what, name, found, skip, options):
    """Leave out what a named tuple says of its own fields: the class has told more."""
    return True if str(getattr(found, "__doc__", "")).startswith("Alias for field number") else None


def valid_lists(app, page, template, context, doctree):
    """Mend lists that a screen reader cannot read: viewcode nests them wrongly, docutils' entries are no items."""
    body = re.sub(
        r"</li>\n<ul>(.*?)</ul>", r"\n<ul>\1</ul></li>\n", context.get("body", ""), flags=re.S
    )
    context["body"] = body.replace('role="doc-biblioentry"', 'role="listitem"')


def scrollable_images(app, page, template, context, doctree):
    """Put an image that stands for itself into what scrolls, as the theme does with tables."""
    image = r"((?:<a [^>]*image-reference[^>]*>)?<img [^>]*_images/[^>]*>(?:\s*</a>)?)"
    scrolls = r'<div class="pst-scrollable-table-container">\1\2</div>'
    context["body"] = re.sub(
        rf"^(?:<p>{image}</p>|{image})$", scrolls, context.get("body", ""), flags=re.M
    )


def setup(app):
    """Tell Sphinx of the above, before napoleon reads the sections."""
    app.connect("html-page-context", valid_lists)
    app.connect("html-page-context", scrollable_images)
    app.connect("autodoc-process-docstring", as_restructured_text, priority=400)
    app.connect("autodoc-skip-member", without_aliases)
