"""Panels: what moves in JupyterLab.

    Explainer -> session -> explorer;        draw(**values) -> lesson

| file | holds |
| --- | --- |
| `explorer` | `explore`: any image, any caption, every control; `desk.js` is its half in the browser |
| `session` | `State`, what is asked for; `View`, what was found, as a drawing, for the browser, as Python |
| `lesson` | `panel`: a function that draws a figure, turned with sliders, menus and text fields |
"""

from importlib import import_module

_HOMES = {"explore": "explorer", "panel": "lesson"}
__all__ = list(_HOMES)


def __getattr__(name: str):
    """Load `explore` or `panel` when it is first asked for: a session does without widgets."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
