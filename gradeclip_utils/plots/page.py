"""Page: a drawing for HTML, where words and patches answer when they are pointed at and no kernel is needed.

    Drawing --here--> plain numbers -> front/view.js -> a page; panels.explorer shows more around it

Resizing, fading and colouring happen in the browser, by the law of `colours`.
"""

from __future__ import annotations

import html
import json
import math
import secrets
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .colours import abs_max, colormap
from .drawing import Drawing, Panel, of_explanation, of_interactions
from .figures import image_url

FRONT = Path(__file__).parent / "front"
STYLE = (FRONT / "view.css").read_text(encoding="utf-8")
# the beginning of a longer script, which finds `front.render` and `front.open`
SCRIPT = (FRONT / "view.js").read_text(encoding="utf-8").replace("export default", "const front =")
_PAGE = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    "<title>{title}</title><style>body{{margin:16px;font-family:system-ui,sans-serif}}</style>{body}</html>\n"
)


def _numbers(values: np.ndarray) -> list:
    """An array as nested lists of numbers of four digits, which the eye cannot tell from all of them."""
    values = np.asarray(values, dtype=float)
    digits = 4 - math.floor(math.log10(abs_max(values) or 1))
    return np.round(values, digits).tolist()


def payload(drawing: Drawing, regions: np.ndarray | None = None, **more: Any) -> dict[str, Any]:
    """Everything that `front/view.js` shows of a drawing, as JSON has it; `regions` (W, h, w) are maps of its words."""
    panels = [_panel(panel) for panel in drawing.panels]
    if regions is not None:
        panels[0]["regions"] = _numbers(regions.reshape(len(regions), -1))
    left, top, right, bottom = drawing.box or (0, 0, *drawing.image.size)
    width, height = drawing.image.size
    names = ("signed", "word_scale", "legend", "both", "bars", "framed", "origin", "alt")
    return {
        **{name: getattr(drawing, name) for name in names},
        "panels": panels,
        "ratio": width / height,
        "box": [left / width, top / height, (right - left) / width, (bottom - top) / height],
        "colormap": np.round(colormap()[::4], 4).tolist(),
        "phrase": None,
        "patch": None,
        **more,
    }


def _panel(panel: Panel) -> dict[str, Any]:
    found = {
        name: getattr(panel, name)
        for name in ("name", "scale", "value", "median", "best", "labels")
    }
    cells = [[word and asdict(word) for word in cell] for cell in panel.cells]
    shape, map_ = (
        ((1, 1), None) if panel.map is None else (panel.map.shape, _numbers(panel.map.ravel()))
    )
    return {**found, "cells": cells, "shape": shape, "map": map_, "regions": None}


def embedded(view: dict, image: Image.Image, inside: str = "") -> str:
    """HTML that shows a `payload` of an image; `inside` stands there where no script runs."""
    name = f"gradeclip-{secrets.token_hex(8)}"
    given = json.dumps({"data": view, "image": image_url(image)}).replace("<", "\\u003c")
    script = f"{SCRIPT}\nfront.open(document.getElementById({name!r}));"
    return (
        f'<style>{STYLE}</style><div id="{name}">{inside}'
        f'<script type="application/json">{given}</script></div><script>(() => {{\n{script}\n}})();</script>'
    )


def page_of(found) -> str:
    """A whole HTML document that shows an `Explanation`, or an `Interactions` with each word's map under it."""
    regions = getattr(found, "maps", None)
    drawing = of_explanation(found) if regions is None else of_interactions(found, "together")
    title = html.escape("; ".join(panel.name for panel in drawing.panels))
    return _PAGE.format(title=title, body=embedded(payload(drawing, regions), found.image))
