"""Figures: matplotlib figures that a notebook shows once, and images as PNG and HTML.

maps, intervals -> here -> notebook, file, page
"""

import base64
import html
import io
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from .colours import is_whole

DPI = 110
FULL_WIDTH = 8.1  # inches: as wide as the column of a notebook, 860 pixels
PALETTE = ("#1b7f79", "#4d4d4d", "#7cc5bd", "#a6a6a6")  # teal and grey: groups of rows or points
SMALLEST_TYPE = 8  # points: nine where it is shown, since a page has 96 dots an inch
_LARGEST_IMAGE = 720  # pixels of the longer side of an image in a panel


class InlineFigure(Figure):
    """A figure that a notebook shows once, as a small PNG with `alt`, which says what it shows."""

    alt = ""

    def savefig(self, fname, **options: Any) -> None:
        """Write the whole figure; options as in matplotlib, with `bbox_inches="tight"` here."""
        super().savefig(fname, **{"bbox_inches": "tight", "pad_inches": 0.05, **options})

    def _ipython_display_(self) -> None:
        """Show the small PNG; IPython's own formatter of figures would write one of all colours."""
        from IPython.display import display

        data, metadata = self._repr_mimebundle_()
        display(data, metadata=metadata, raw=True)

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        return bundle(_rendered(self), alternative(self))


def new_figure(width: float, height: float, alt: str = "", **options: Any) -> InlineFigure:
    """A figure of this size in inches that pyplot knows; `alt` says what it shows in words."""
    figure = plt.figure(FigureClass=InlineFigure, figsize=(width, height), dpi=DPI, **options)
    figure.alt = alt
    return figure


def fit_height(figure: Figure, rows: list[tuple[Axes, float]]) -> None:
    """Set a figure's height so that the axes of its rows have these heights in inches.

    The constrained layout tells how much room the text around the axes takes.
    """
    for _ in range(8):
        figure.draw_without_rendering()
        height = figure.get_figheight()
        missing = 0.0
        for axes, inches in rows:
            missing += inches - axes.get_position(original=True).height * height
        if abs(missing) < 0.01:
            return
        figure.set_figheight(height + missing)


def show_image(axes: Axes, image: Image.Image, box=None) -> None:
    """Draw an image from the upper left of axes, with a frame around what the model saw."""
    reduced = _reduced(image)
    interpolation = "nearest" if max(reduced.size) < 200 else "antialiased"
    axes.set_axis_off()
    axes.set_anchor("NW")
    axes.imshow(reduced, interpolation=interpolation)

    if not is_whole(box, image):
        x0, y0, x1, y1 = np.maximum(box, 0) * reduced.width / image.width
        frame = Rectangle((x0, y0), x1 - x0, y1 - y0)
        frame.set(fill=False, color="0.2", linewidth=1, linestyle="--")
        axes.add_patch(frame)


# --------------------------------------------------------------------------------- PNG and HTML


def bundle(image: Image.Image, alt: str) -> tuple[dict, dict]:
    """Data and metadata by media type, as a notebook keeps an image and what it shows in words."""
    png = base64.b64encode(_small_png(image)).decode("ascii")
    return {"image/png": png, "text/plain": alt}, {"image/png": {"alt": alt}}


def image_url(image: Image.Image, size: int = _LARGEST_IMAGE) -> str:
    """An image, reduced to `size` pixels if it is larger, as an address that needs no network."""
    buffer = io.BytesIO()
    _reduced(image, size).save(buffer, "webp", quality=90, method=1)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def figure_tag(figure: Figure) -> str:
    """A figure as HTML that holds every pixel."""
    alt = html.escape(alternative(figure))
    url = image_url(_rendered(figure), size=10_000)
    style = "display:block;max-width:100%;height:auto"
    return f'<img class="gradeclip-figure" alt="{alt}" style="{style}" src="{url}">'


def alternative(figure: Figure) -> str:
    """What a figure shows in words: its own `alt`, or its titles and the names of its axes."""
    if getattr(figure, "alt", ""):
        return figure.alt

    parts = [figure.get_suptitle()]
    for axes in figure.axes:
        parts += [axes.get_title(place) for place in ("left", "center", "right")]
        names = [name for name in (axes.get_ylabel(), axes.get_xlabel()) if name]
        parts.append(" over ".join(names))
    texts = dict.fromkeys(" ".join(part.split()) for part in parts if part)
    return "; ".join(texts) or "a figure without a title"


def _rendered(figure: Figure) -> Image.Image:
    """A figure as an RGB image. The image is shown in its place, so pyplot forgets the figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=figure.dpi, bbox_inches="tight", pad_inches=0.05)
    plt.close(figure)
    return Image.open(buffer).convert("RGB")


def _reduced(image: Image.Image, size: int = _LARGEST_IMAGE) -> Image.Image:
    """An RGB copy of an image with at most `size` pixels on its longer side."""
    copy = image.convert("RGB")
    copy.thumbnail((size, size))
    return copy


def _small_png(image: Image.Image) -> bytes:
    """A PNG file of 256 colours, small enough for a notebook."""
    rgb = image.convert("RGB")
    # MAXCOVERAGE keeps rare colours, such as blue.
    palette = rgb.quantize(255, Image.Quantize.MAXCOVERAGE, kmeans=1)
    entries = [*(palette.getpalette() or [])[: 3 * 255], 255, 255, 255]
    colours = np.reshape(entries, (-1, 3))
    # Pillow would take a neighbour of the page's white.
    colours[(colours > 247).all(axis=1)] = 255
    palette.putpalette(colours.ravel().tolist())

    buffer = io.BytesIO()
    rgb.quantize(palette=palette).save(buffer, "png", optimize=True)
    return buffer.getvalue()
