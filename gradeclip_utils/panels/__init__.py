"""Panels: what moves in JupyterLab.

    Explainer -> session -> explorer_view -> explorer;        draw(**values) -> lesson

| file | holds |
| --- | --- |
| `explorer` | `explore`: any image, any caption, every control |
| `explorer_view` | a view's numbers as image, HTML, Python and figure |
| `controls` | the controls that ipywidgets lacks (`front/` has their JavaScript) |
| `lesson` | `panel`: a pure function turned with sliders, menus and text fields |
| `gallery` | the map of one prompt by every method |
| `state` | what is asked for (`State`), and what was found (`View`) |
| `session` | what is computed once for an image, and kept |
| `jobs` | long work beside the kernel, until a newer request comes |
"""
