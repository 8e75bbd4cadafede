"""Panels: what moves in JupyterLab.

    Explainer -> session -> explorer;        draw(**values) -> lesson

| file | holds |
| --- | --- |
| `explorer` | `explore`: any image, any prompt, every control; `desk.js` in the browser |
| `session` | `State`, what is wanted; `ExplorerView`, the answer to it; `sentences` below maps |
| `lesson` | `panel`: a function that draws a figure, turned with sliders, menus and text fields |
"""

try:
    from .explorer import Explorer, explore
    from .lesson import Panel, panel
except ModuleNotFoundError as error:
    if error.name in ("IPython", "anywidget", "ipywidgets", "traitlets"):
        msg = f"panels need {error.name}: pip install 'gradeclip[lessons]'"
        raise ModuleNotFoundError(msg, name=error.name) from None
    raise

__all__ = ["Explorer", "Panel", "explore", "panel"]
