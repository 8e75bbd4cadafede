"""Plots: from an explanation to an image for people. Nothing here computes relevance.

    architecture -> trace -> method -> Explanation -> Drawing -> figures (matplotlib), page (HTML)

| file | holds |
| --- | --- |
| `colours` | the law of colour, and `paint`: a map on its image |
| `drawing` | the description of what is drawn, of which there are two backends: |
| `figures` | matplotlib: `plot_explanation`, `plot_maps`, `plot_interactions`, `plot_intervals`, parts for your own |
| `page` | HTML, whose script (`front/`) is the explorer's as well |
"""

from .colours import paint
from .figures import (
    InlineFigure,
    axes_at,
    new_figure,
    plot_explanation,
    plot_interactions,
    plot_intervals,
    plot_maps,
    show_image,
)

__all__ = [
    "InlineFigure",
    "axes_at",
    "new_figure",
    "paint",
    "plot_explanation",
    "plot_interactions",
    "plot_intervals",
    "plot_maps",
    "show_image",
]
