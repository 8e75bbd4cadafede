"""Panels: what moves in JupyterLab.

    Explainer -> session -> explorer;        draw(**values) -> lesson

| file | holds |
| --- | --- |
| `explorer` | `explore`: any image, any caption, every control; `desk.js` is its half in the browser |
| `session` | `State`, what is asked for; `View`, what was found, as a drawing, for the browser, as Python |
| `lesson` | `panel`: a function that draws a figure, turned with sliders, menus and text fields |
"""

from .explorer import explore
from .lesson import panel

__all__ = ["explore", "panel"]
