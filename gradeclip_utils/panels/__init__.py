"""Panels: what moves in JupyterLab.

    Explainer -> session -> explorer_view -> explorer;        draw(**values) -> lesson

| file | holds |
| --- | --- |
| `explorer` | `explore`: any image, any caption, every control; `desk.js` is its half in the browser |
| `explorer_view` | `View`: what was found, as a drawing, for the browser (`plots/front/view.js`), as Python |
| `verdict` | what a map did, where the ground truth is known; which scenes can be chosen, what can be changed |
| `lesson` | `panel`: a pure function turned with sliders, menus and text fields |
| `state` | `State`: what is asked for |
| `session` | what is computed for an image, and kept |
| `jobs` | work beside the kernel, until a newer request comes |
"""

from importlib import import_module

_HOMES = {"explore": "explorer", "panel": "lesson"}
__all__ = list(_HOMES)


def __getattr__(name: str):
    """Load `explore` or `panel` when it is first asked for: a session does without widgets."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
