"""Pages of results: one HTML file with tables that a click sorts, and thumbnails beside it."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

import pandas as pd
from matplotlib.colors import to_hex
from PIL import Image

from ..plots.colours import abs_max, ink_on, to_rgb

PAGE = "index.html"
TEMPLATE = Path(__file__).with_name("report.html")
THUMBNAIL_HEIGHT = 160  # pixels
THUMBNAIL_GAP = 4  # pixels between the panels of a thumbnail
CAPTION_LENGTH = 120  # letters of a caption that a page shows


def render_page(title: str, about: str, meanings: Mapping[str, str], tables: str) -> str:
    """An HTML page of `sortable` tables; `about` and `tables` are HTML, all else is text."""
    terms = []
    for name, meaning in meanings.items():
        terms.append(f"<dt>{html.escape(name)}</dt><dd>{html.escape(meaning)}</dd>")
    template = Template(TEMPLATE.read_text(encoding="utf-8"))
    return template.substitute(
        title=html.escape(title), about=about, meanings="".join(terms), tables=tables
    )


def sortable(cells: Mapping[str, Sequence]) -> str:
    """A table of HTML cells by the heads of its columns, which sort it."""
    heads = [f"<button>{html.escape(name.replace('_', ' '))}</button>" for name in cells]
    with pd.option_context("display.max_colwidth", None):
        table = pd.DataFrame(dict(cells)).set_axis(heads, axis=1)
        content = table.to_html(index=False, escape=False, na_rep="", border=0)
    return f'<div class="table">{content}</div>'


def fill_in(rows: pd.DataFrame, templates: Mapping[str, str]) -> dict[str, list[str]]:
    """The cells of `sortable`: each row's values, put into a template of HTML for each head."""
    records = rows.to_dict("records")
    cells = {}
    for head, template in templates.items():
        cells[head] = [template.format(**record) for record in records]
    return cells


def shorten(caption: str) -> str:
    """A caption as HTML, cut off if it is long."""
    if len(caption) > CAPTION_LENGTH:
        caption = f"{caption[:CAPTION_LENGTH]}..."
    return html.escape(caption)


def shaded_caption(caption: str, words: Sequence[Mapping]) -> str:
    """A caption as HTML, its words on shades of their scores; unknown words are struck out.

    Each word has `start`, `end`, `score`, a `sentence`, and whether it is `filled` and `unknown`.
    """
    visible = [word for word in words if word["end"] <= CAPTION_LENGTH]
    scale = abs_max([word["score"] for word in visible if word["filled"]])
    parts = []
    end = 0
    for word in visible:
        text = html.escape(caption[word["start"] : word["end"]])
        if word["unknown"]:
            text = f"<s>{text}</s>"
        look = ""
        if word["filled"] and scale > 0:
            shade = to_rgb(word["score"] / scale)
            look = f"background: {to_hex(shade)}; color: {ink_on(shade)}"
        title = html.escape(word["sentence"])
        parts.append(html.escape(caption[end : word["start"]]))
        parts.append(f'<span style="{look}" title="{title}">{text}</span>')
        end = word["end"]

    parts.append(html.escape(caption[end:CAPTION_LENGTH]))
    if len(caption) > CAPTION_LENGTH:
        parts.append("...")
    return "".join(parts)


def write_thumbnail(file: Path, panels: Sequence[Image.Image]) -> None:
    """Write an image and its maps side by side; all get the size of the first."""
    first = panels[0]
    width = round(first.width * THUMBNAIL_HEIGHT / first.height)
    width = min(4 * THUMBNAIL_HEIGHT, max(1, width))

    step = width + THUMBNAIL_GAP
    strip = Image.new("RGB", (len(panels) * step - THUMBNAIL_GAP, THUMBNAIL_HEIGHT), "white")
    for number, panel in enumerate(panels):
        resized = panel.resize((width, THUMBNAIL_HEIGHT), Image.Resampling.LANCZOS)
        strip.paste(resized, (number * step, 0))
    strip.save(file, quality=85)
