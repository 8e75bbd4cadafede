"""Panels: what moves in JupyterLab.

    Explainer -> session -> explorer_view -> explorer;        draw(**values) -> lesson

| file | holds |
| --- | --- |
| `explorer` | `explore`: any picture, any caption, every control |
| `explorer_view` | a view's numbers as picture, HTML, Python and figure |
| `controls` | the controls that ipywidgets lacks (`front/` has their JavaScript) |
| `lesson` | `panel`: a pure function turned with sliders, menus and text fields |
| `gallery` | the map of one prompt by every method |
| `session` | what is computed once for a picture, and kept |
| `jobs` | long work beside the kernel, until a newer request comes |
"""
