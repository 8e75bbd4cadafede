"""Text in figures is legible: nine points or more on the page, and no text upon another."""

from itertools import combinations

import matplotlib.pyplot as plt
import pytest
from matplotlib.text import Text

WIDEST, DOTS = 900, 96  # pixels of a figure as a page shows it, and of an inch of that page


def too_small(figure, width=None):
    """Which texts of a figure have fewer than nine points where a page shows it; of a width in inches, or its own."""
    dots = figure.dpi  # a PNG has a pixel for each of ours
    shrunk = min(1, WIDEST / dots / max(width or figure.get_figwidth(), 1e-9))
    texts = [text for text in figure.findobj(Text) if text.get_text().strip()]
    sizes = {text.get_text(): text.get_fontsize() * dots * shrunk / DOTS for text in texts}
    return [f"{text!r} has {size:.1f} points" for text, size in sizes.items() if size < 9]


def seen(figure):
    """Texts of a figure that are seen once it is drawn, and where: of the ticks only those within the axes."""
    renderer = figure.canvas.get_renderer()
    figure.draw(renderer)
    axes = [(axis, one.axison) for one in figure.axes for axis in (one.xaxis, one.yaxis)]
    hidden = {text for axis, _ in axes for text in axis.findobj(Text)}
    hidden -= {
        text
        for axis, on in axes
        if on
        for tick in axis._update_ticks()
        for text in tick.findobj(Text)
    }
    hidden -= {text for axis, on in axes if on for text in (axis.label, axis.offsetText)}
    texts = [
        text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()
    ]
    return [
        (text.get_text(), text.get_window_extent(renderer)) for text in texts if text not in hidden
    ]


def unreadable(figure):
    """What is wrong with the texts of a figure, in words; an empty list where nothing is."""
    texts, faults = (
        seen(figure),
        too_small(figure, figure.get_tightbbox(figure.canvas.get_renderer()).width),
    )
    for (one, a), (other, b) in combinations(texts, 2):
        across, down = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        if across > 2 and down > 2:  # pixels, of which a letter's own box has one or two to spare
            faults.append(f"{one!r} lies upon {other!r}")
    return faults


@pytest.fixture(autouse=True)
def legible():
    """Text in the figures that a test makes can be read; pyplot knows them all."""
    yield
    figures = [plt.figure(number) for number in plt.get_fignums()]
    faults = [fault for figure in figures for fault in unreadable(figure)]
    plt.close("all")
    assert faults == []
