"""Plots: from an explanation to an image for people. Nothing here computes relevance.

    architecture -> trace -> method -> Explanation -> Drawing -> maps (matplotlib), page (HTML)

| file | holds |
| --- | --- |
| `colours` | the law of colour, and `paint`: a map on its image |
| `drawing` | the description of what is drawn, of which there are two backends: |
| `maps` | matplotlib: `plot_explanation`, `plot_interactions`, `plot_maps` |
| `titles` | words above a map, for `maps` |
| `page` | HTML, whose script (`front/`) is the explorer's as well |
| `intervals` | `plot_intervals`: estimates with their intervals |
| `figures` | figures that a notebook shows once, with words for what they show |
"""

from .colours import paint
from .intervals import plot_intervals
from .maps import plot_explanation, plot_interactions, plot_maps

__all__ = [
    "paint",
    "plot_explanation",
    "plot_interactions",
    "plot_intervals",
    "plot_maps",
]
