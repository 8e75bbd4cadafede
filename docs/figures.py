"""Draw the README's figure, wide and narrow, for light and dark pages, and the schematic.

make figures
"""

import os
from functools import partial
from pathlib import Path

from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from schematic import plot_method  # beside this file

from gradeclip_utils import Explainer, load_clip
from gradeclip_utils.files import write_whole
from gradeclip_utils.scenes import arrange

DOCS = Path(__file__).resolve().parent


def main() -> None:
    """Write the figures."""
    for name in ("GRADECLIP_MODEL", "GRADECLIP_PRETRAINED"):
        os.environ.pop(name, None)  # the figure is of the bundled model
    scene = arrange(["dog", "umbrella"], seed=3)
    explanation = Explainer(load_clip()).explain(scene.image(), ["a dog", "a piano"])
    for name, width in (("explained", 8.7), ("explained-narrow", 3.9)):
        figure = explanation.plot(width=width)
        write_whole({DOCS / f"{name}.png": partial(figure.savefig, format="png", dpi=150)})
        turn_dark(figure)
        save_dark = partial(figure.savefig, format="png", dpi=150, transparent=True)
        write_whole({DOCS / f"{name}-dark.png": save_dark})
    write_whole({DOCS / "schematic.png": partial(plot_method().savefig, format="png", dpi=150)})


def turn_dark(figure: Figure) -> None:
    """Exchange dark and light in all greys; maps and words keep their colours."""
    for text in figure.findobj(Text):
        if text.get_bbox_patch() is None:  # else it stands on its shade
            text.set_color(for_dark_page(text.get_color()))
    for line in figure.findobj(Line2D):
        line.set_color(for_dark_page(line.get_color()))
    for axes in figure.axes:
        for bar in axes.findobj(Rectangle):
            if bar is not axes.patch:
                bar.set_facecolor(for_dark_page(bar.get_facecolor()))


def for_dark_page(colour) -> tuple[float, ...]:
    """A light grey for a dark one, and the reverse; other colours as they are.

    White becomes .15, which a dark page still shows.
    """
    *rgb, alpha = to_rgba(colour)
    is_grey = max(rgb) - min(rgb) < 0.01
    if is_grey:
        rgb = [1 - 0.85 * value for value in rgb]
    return (*rgb, alpha)


if __name__ == "__main__":
    main()
