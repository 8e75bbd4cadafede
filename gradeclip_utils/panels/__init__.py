"""Panels: what moves in JupyterLab.

    Explainer -> session -> explorer_view -> explorer;        draw(**values) -> lesson

| file | holds |
| --- | --- |
| `explorer` | `explore`: any image, any caption, every control; `desk.js` is its half in the browser |
| `explorer_view` | `View`: what was found, for the browser (`plots/front/view.js`), as Python and as a figure |
| `verdict` | what a map did, where the ground truth is known; which scenes can be chosen, what can be done to them |
| `lesson` | `panel`: a pure function turned with sliders, menus and text fields; `opening`: what a lesson opens with |
| `state` | `State`: what is asked for |
| `session` | what is computed once for an image, and kept |
| `jobs` | long work beside the kernel, until a newer request comes |
"""
