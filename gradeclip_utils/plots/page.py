"""Page: a drawing for HTML, where words and patches answer to the mouse without a kernel.

    Drawing --here--> plain numbers -> front/view.js -> a page; panels.explorer adds its controls

Resizing, fading and colouring happen in the browser, by the law of `colours`. Components are
written with preact and htm: `front/htm-preact.js` is `htm/preact/standalone.module.js` of npm's
htm 3.1.1 (Apache-2.0, `front/htm-preact.LICENSE`), byte by byte.
"""

import html
import json
import math
import re
import secrets
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .colours import abs_max, colormap
from .drawing import Drawing, Panel, is_boxed, of_caption, of_explanation
from .figures import image_url

FRONT = Path(__file__).parent / "front"
STYLE = (FRONT / "view.css").read_text(encoding="utf-8")
# Parts of a Drawing that the browser takes as they are.
_LOOK = ("signed", "word_scale", "strikes", "legend", "both", "bars", "framed", "origin", "alt")
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --jp-ui-font-color1: CanvasText; }}
body {{ margin: 16px; font-family: system-ui, sans-serif }}
h1 {{ margin: 0 0 12px; font-size: 1.2rem }}
</style>
<main>
<h1>What did {model} look at?</h1>
{body}
</main>
</html>
"""


def script(*files: Path) -> str:
    """One module of the library, the view and further files, which import from each other."""
    # The library ends with `export{a as h,b as html};`: here its names are what a function returns.
    library = (FRONT / "htm-preact.js").read_text(encoding="utf-8").strip()
    body, exports = library.removesuffix("};").rsplit("export{", 1)
    pairs = [name.split(" as ") for name in exports.split(",")]
    names = ", ".join(public for _, public in pairs)
    values = ", ".join(f"{public}: {private}" for private, public in pairs)
    parts = [f"const {{ {names} }} = (() => {{\n{body}\nreturn {{ {values} }};\n}})();"]

    for file in (FRONT / "pixels.js", FRONT / "view.js", *files):
        text = file.read_text(encoding="utf-8")
        text = re.sub(r"^import [^;]*;\n", "", text, flags=re.MULTILINE)
        parts.append(re.sub(r"^export (?=const )", "", text, flags=re.MULTILINE))
    return "\n".join(parts)


def payload(
    drawing: Drawing,
    regions: np.ndarray | None = None,
    **more: Any,
) -> dict[str, Any]:
    """What `front/view.js` shows of a drawing, as JSON has it.

    `regions` (W, h, w) are the maps of its words.
    """
    panels = [_panel(panel) for panel in drawing.panels]
    if regions is not None:
        panels[0]["regions"] = as_numbers(regions.reshape(len(regions), -1))
    width, height = drawing.image.size
    left, top, right, bottom = drawing.box or (0, 0, width, height)
    return {
        **{name: getattr(drawing, name) for name in _LOOK},
        "panels": panels,
        "ratio": width / height,
        "box": [left / width, top / height, (right - left) / width, (bottom - top) / height],
        "colormap": np.round(colormap()[::4], 4).tolist(),
        "phrase": None,
        "patch": None,
        "with_against": False,
        "centred": False,
        **more,
    }


def _panel(panel: Panel) -> dict[str, Any]:
    """A panel as JSON has it."""
    names = ("name", "scale", "value", "tick", "start", "lead_over", "best", "labels")
    cells = []
    for cell in panel.cells:
        upper, lower = cell
        cells.append([asdict(upper), asdict(lower) if lower else None, is_boxed(cell)])
    return {
        **{name: getattr(panel, name) for name in names},
        "cells": cells,
        "shape": (1, 1) if panel.map is None else panel.map.shape,
        "map": None if panel.map is None else as_numbers(panel.map.ravel()),
        "regions": None,
    }


def as_numbers(values: np.ndarray) -> list:
    """An array as nested lists of numbers of four digits, which look like all digits."""
    values = np.asarray(values, dtype=float)
    digits = 4 - math.floor(math.log10(abs_max(values) or 1))
    return np.round(values, digits).tolist()


def embedded(view: dict, image: Image.Image, inside: str = "") -> str:
    """HTML that shows a `payload` of an image; `inside` stands there where no script runs."""
    name = f"gradeclip-{secrets.token_hex(8)}"
    data = json.dumps({"data": view, "image": image_url(image)}).replace("<", "\\u003c")
    return (
        f"<style>{STYLE}</style>"
        f'<div id="{name}">{inside}<script type="application/json">{data}</script></div>'
        f'<script type="module">\n{script()}\nopen(document.getElementById("{name}"));\n</script>'
    )


def page_of(result) -> str:
    """An HTML document that shows an `Explanation`, or an `Interactions` with its words' maps."""
    is_of_words = hasattr(result, "centred")  # an `Interactions`
    regions = result.image_maps if is_of_words else None
    drawing = of_caption(result) if is_of_words else of_explanation(result)
    title = html.escape("; ".join(panel.name for panel in drawing.panels))
    model = html.escape(result.provenance.model)
    return _PAGE.format(
        title=title, model=model, body=embedded(payload(drawing, regions), result.image)
    )
