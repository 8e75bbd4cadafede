"""Text in figures is legible: nine points or more on the page, and no text upon another."""

from itertools import combinations

import matplotlib.pyplot as plt
import pytest
from matplotlib.text import Text

WIDEST = 900  # pixels of a figure as a page shows it
PAGE_DPI = 96


def too_small(figure, width):
    """The texts of a figure with fewer than nine points on a page, which shrinks wide figures."""
    shrunk = min(1, WIDEST / figure.dpi / width)
    faults = []
    for text in visible_texts(figure):
        size = text.get_fontsize() * figure.dpi * shrunk / PAGE_DPI
        if size < 9:
            faults.append(f"{text.get_text()!r} has {size:.1f} points")
    return faults


def visible_texts(figure):
    """Texts of a figure that are drawn: of the ticks only those within the axes."""
    hidden = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            hidden |= set(axis.findobj(Text))
            if axes.axison:
                ticks = axis._update_ticks()
                hidden -= {text for tick in ticks for text in tick.findobj(Text)}
                hidden -= {axis.label, axis.offsetText}
    texts = [text for text in figure.findobj(Text) if text not in hidden]
    return [text for text in texts if text.get_visible() and text.get_text().strip()]


def unreadable(figure):
    """The faults of the texts of a figure, in words."""
    renderer = figure.canvas.get_renderer()
    figure.draw(renderer)
    faults = too_small(figure, figure.get_tightbbox(renderer).width)
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in visible_texts(figure)]
    for (first, a), (second, b) in combinations(boxes, 2):
        across = min(a.x1, b.x1) - max(a.x0, b.x0)
        down = min(a.y1, b.y1) - max(a.y0, b.y0)
        # A letter's box has one or two pixels to spare.
        if across > 2 and down > 2:
            faults.append(f"{first!r} lies upon {second!r}")
    return faults


@pytest.fixture(autouse=True)
def legible():
    """Text in the figures that a test makes can be read; pyplot knows them all."""
    yield
    figures = [plt.figure(number) for number in plt.get_fignums()]
    faults = [fault for figure in figures for fault in unreadable(figure)]
    plt.close("all")
    assert faults == []
