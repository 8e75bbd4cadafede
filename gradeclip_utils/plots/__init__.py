"""Plots: from an explanation to an image for people. Nothing here computes relevance.

    architecture -> trace -> method -> Explanation -> Drawing -> figures (matplotlib), page (HTML)

| file | holds |
| --- | --- |
| `colours` | the law of colour, and `paint`: a map on its image |
| `drawing` | the description of what is drawn, of which there are two backends: |
| `figures` | matplotlib: `plot_explanation`, `plot_maps`, `plot_gallery`, `plot_interactions`, `plot_intervals` |
| `page` | HTML, whose script (`front/`) is the explorer's as well |
| `axes` | maps, shaded words and the theme on matplotlib axes, for figures of your own |
"""

from .axes import axes_at, draw_heatmap, draw_words, headed, name_rows, show_image, style
from .colours import paint
from .figures import InlineFigure, plot_explanation, plot_gallery, plot_interactions, plot_intervals, plot_maps

__all__ = [
    "InlineFigure", "axes_at", "draw_heatmap", "draw_words", "headed", "name_rows", "paint", "plot_explanation",
    "plot_gallery", "plot_interactions", "plot_intervals", "plot_maps", "show_image", "style",
]  # fmt: skip
