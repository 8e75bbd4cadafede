"""Panels: what moves in JupyterLab.

    Explainer -> session -> explorer;        draw(**values) -> lesson

| file | holds |
| --- | --- |
| `explorer` | `explore`: any image, any caption, every control; `desk.js` is its half in the browser |
| `session` | `State`, what is asked for; `ExplorerView`, the answer to it |
| `lesson` | `panel`: a function that draws a figure, turned with sliders, menus and text fields |
"""

import sys

from IPython import get_ipython
from IPython.display import clear_output, display

_waits = (
    hasattr(get_ipython(), "kernel") and "torch" not in sys.modules
)  # which takes seconds to load
if _waits:
    display({"text/plain": "Working ..."}, raw=True)

from .explorer import Explorer, explore  # noqa: E402
from .lesson import Panel, panel  # noqa: E402

if _waits:
    clear_output()  # so that no notebook is saved with it

__all__ = ["Explorer", "Panel", "explore", "panel"]
