"""Page: a view for HTML: image, maps and words, each word with its map, so that pointing at one needs no kernel.

    Explanation, Interactions -> numbers -> front/view.js -> a page; panels.explorer shows more around it

What is sent are plain numbers on the token grid. Resizing, fading and colouring happen in the browser, by the
arithmetic of `colours`. Where no script runs, the same HTML shows a static figure.
"""

from __future__ import annotations

import base64
import html
import io
import json
import math
import secrets
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from ..notices import image_tag
from .axes import reduced
from .before import AGAINST, COLOURS, CONTRARY, OWN, SIGNED, VEIL
from .colours import largest, shown
from .figures import InlineFigure, alternative

_MARGIN = 0.1  # inches around what is drawn, as matplotlib leaves
FRONT = Path(__file__).parent / "front"
MUTED = frozenset({"a", "an", "the"})  # words that nobody asks for, as every punctuation mark


@cache
def front(name: str) -> str:
    """The text of a file of `front/`."""
    return (FRONT / name).read_text(encoding="utf-8")


@cache
def view_script() -> str:
    """`front/view.js` as the beginning of a longer script, which finds `front.render` and `front.open`."""
    return front("view.js").replace("export default", "const front =")


@cache
def palettes() -> dict[str, Any]:
    """What `front/view.js` needs to colour as `paint` does."""
    steps = np.linspace(0, 1, 33)
    tables = {name: [to_hex(colours(step)) for step in steps] for name, colours in COLOURS.items()}
    own = {"veil": VEIL, "against": AGAINST, "contrary": CONTRARY}
    return {**tables, "signed": [to_hex(SIGNED(step)) for step in steps], "own": own}


def numbers(values: np.ndarray) -> list:
    """An array as nested lists of numbers of four digits, which the eye cannot tell from all of them."""
    digits = 3 - math.floor(math.log10(largest([values]) or 1))
    return np.round(np.asarray(values, dtype=float), digits).tolist()


def image_url(image: Image.Image, size: int | None = None) -> str:
    """An image as the address of itself: nothing has to be fetched, so that it is there as soon as the page is."""
    image, buffer = reduced(image), io.BytesIO()
    if size:
        image.thumbnail((size, size))
    image.save(buffer, "webp", quality=90, method=1)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def word_rows(words: Sequence) -> list[dict]:
    """Text and signed score of each word, and whether it is muted: a small word, or a sign."""
    return [
        {"text": word.text, "score": float(word.score),
         "muted": word.text.lower() in MUTED or not any(map(str.isalnum, word.text))}
        for word in words
    ]  # fmt: skip


def place(box: Sequence[float], image: Image.Image) -> list[float]:
    """Left, top, width and height of a box, as fractions of the image."""
    left, top, right, bottom = box
    return [left / image.width, top / image.height, (right - left) / image.width, (bottom - top) / image.height]


def side(map_: np.ndarray, title: str, signed: bool, **more: Any) -> dict[str, Any]:
    """One map as `front/view.js` takes it."""
    found: dict[str, Any] = {"title": title, "origin": "", "note": "", "signed": signed, "shape": list(map_.shape)}
    found |= {"map": numbers(map_.ravel()), "scale": largest([shown(map_, signed)])}
    found |= {"regions": None, "region_scale": 0.0, "columns": None}
    for name in ("regions", "columns"):
        if (maps := more.pop(name, None)) is not None:
            found[name] = numbers(maps.reshape(len(maps), -1))
    return {**found, **more}


def view(sides: Sequence[dict], words: Sequence, image: Image.Image, box: Sequence[float], **more: Any) -> dict:
    """Everything that one view shows."""
    words = word_rows(words)
    return {
        "sides": list(sides), "words": words, "others": [], "words_of": "relevance of each word",
        "axis": ["against", "for"], "box": place(box, image), "ratio": image.width / image.height, "match": [],
        "verdict": {"all": "", "words": []}, "phrase": None, "patch": None, "opacity": 0.85, "threshold": 0.0,
        "colours": OWN, "alt": "the image", "dependence": "", "controls": [], "palettes": palettes(), **more,
    }  # fmt: skip


def page(views: Sequence[dict], image: Image.Image, figure: InlineFigure) -> tuple[dict, dict]:
    """What a notebook keeps, data and metadata by media type: HTML of views of one image, the figure, and a text."""
    data, metadata = figure._repr_mimebundle_()
    fallback = f'<img alt="" src="data:image/png;base64,{data.pop("image/png")}">'
    name = f"gradeclip-{secrets.token_hex(8)}"
    given = json.dumps({"views": list(views), "image": image_url(image)}).replace("<", "\\u003c")
    script = f"{view_script()}\nfront.open(document.getElementById({name!r}));"
    text = (
        f'<style>{front("view.css")}</style><div id="{name}">{fallback}'
        f'<script type="application/json">{given}</script></div><script>(() => {{\n{script}\n}})();</script>'
    )
    return {**data, "text/html": text}, metadata


def figure_html(figure: Figure) -> str:
    """A figure as an image of a page; over it, unseen, what its points say under the mouse."""
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()  # only then everything has its place
    bounds, buffer = figure.get_tightbbox().padded(_MARGIN), io.BytesIO()
    figure.savefig(buffer, dpi=figure.dpi, bbox_inches=bounds, pil_kwargs={"compress_level": 0})
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close(figure)
    image, circles = Image.open(buffer), []
    for axes, x, y, said in getattr(figure, "points", ()):
        across, up = axes.transData.transform((x, y)) - np.multiply(bounds.p0, figure.dpi)
        place = f'cx="{across:.1f}" cy="{image.height - up:.1f}"'
        circles.append(f'<circle {place} r="5"><title>{html.escape(said)}</title></circle>')
    over = (
        f'<svg class="gradeclip-points" aria-hidden="true" viewBox="0 0 {image.width} {image.height}" '
        f'style="position:absolute;inset:0;width:100%;height:100%" fill="transparent">{"".join(circles)}</svg>'
    )
    tag = image_tag(image, alternative(figure), effort=0) + (over if circles else "")
    return f'<div style="position:relative;display:inline-block;max-width:100%">{tag}</div>'


def explanation_page(explanation) -> tuple[dict, dict]:
    """The `page` of an `Explanation`: for each prompt a view of its map and its words."""
    signed, views = explanation.against is not None, []
    for i, prompt in enumerate(explanation.prompts):
        match = [{"name": f"similarity to “{prompt}”", "value": float(explanation.similarity[i])}]
        more: dict[str, Any] = {}
        if signed:
            other = explanation.against[i]
            match.append({"name": f"to “{other}”", "value": float(explanation.against_similarity[i])})
            more = {"others": word_rows(explanation.against_words[i]), "axis": [f"for “{other}”", f"for “{prompt}”"]}
        one = side(explanation.image_maps[i], f"“{prompt}”", signed, origin=explanation.origin)
        views.append(view([one], explanation.words[i], explanation.image, explanation.box, match=match, **more))
    return page(views, explanation.image, explanation.plot())


def interactions_page(found) -> tuple[dict, dict]:
    """The `page` of an `Interactions`: the map of all its words together, and the map of each under its word."""
    match = [{"name": f"similarity to “{found.caption}”", "value": float(found.similarity)}]
    one = side(found.maps.sum(0), "all words together", True, origin=found.origin, regions=found.maps,
               columns=found.maps, region_scale=largest([found.maps]))  # fmt: skip
    return page([view([one], found.words, found.image, found.box, match=match)], found.image, found.plot())
