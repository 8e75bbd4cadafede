"""Plots: from what an explanation holds to an image for people. Nothing here computes relevance.

    architecture -> trace -> method -> Explanation -> plots

| file | holds |
| --- | --- |
| `colours` | what a value looks like: colour maps, scales in words, `paint` |
| `axes` | one map, prompt, image or set of intervals on matplotlib axes, and the theme |
| `page` | a view for HTML, whose script (`front/`) is the explorer's as well |
| `figures` | whole figures: `plot_maps`, `plot_explanation`, `plot_intervals`, ... |
| `finding` | what an explanation comes to, in the sentence above its figure |
| `schematic` | boxes and arrows: the method on paper |
"""

from .axes import axes_at, draw_heatmap, draw_intervals, draw_words, headed, name_rows, show_image, style
from .colours import paint
from .figures import InlineFigure, plot_explanation, plot_interactions, plot_intervals, plot_maps
from .schematic import plot_method

__all__ = [
    "InlineFigure", "axes_at", "draw_heatmap", "draw_intervals", "draw_words", "headed", "name_rows", "paint",
    "plot_explanation", "plot_interactions", "plot_intervals", "plot_maps", "plot_method", "show_image", "style",
]  # fmt: skip
