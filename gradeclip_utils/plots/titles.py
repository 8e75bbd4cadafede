"""Titles: words as boxes, shaded by their scores and packed into lines by matplotlib.

Panel -> here -> a box above a map
"""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.offsetbox import AnnotationBbox, HPacker, OffsetBox, PaddedBox, TextArea, VPacker
from matplotlib.textpath import text_to_path

from .colours import ink_on, to_rgb
from .drawing import Cell, Panel, Shade, is_boxed
from .figures import SMALLEST_TYPE

_TYPE_SIZES = (13, 12, 11, 10, 9, SMALLEST_TYPE)  # points
_CHARACTER = 0.53  # width of an average character, in units of the size of its type


def characters(inches: float, fontsize: float = SMALLEST_TYPE) -> int:
    """How many characters of a type fit into a width, on average."""
    return max(1, int(inches * 72 / fontsize / _CHARACTER))


def width_of(text: str) -> float:
    """The width of a text of the smallest type in inches."""
    font = FontProperties(size=SMALLEST_TYPE)
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return width / 72


def shortened(text: str, length: int) -> str:
    """A text cut with an ellipsis where it has more characters."""
    return text if len(text) <= length else f"{text[: length - 1].rstrip()}…"


def type_size(panels: Sequence[Panel], inches: float, figure: Figure) -> float:
    """The largest type in which all titles take at most two lines, or the smallest type."""
    longest = max((len(word.text) for panel in panels for word in panel.words), default=0)
    for fontsize in _TYPE_SIZES:
        titles = [_lines(panel.cells, 0.0, inches, fontsize, figure) for panel in panels]
        if longest < characters(inches, fontsize) and all(len(lines) <= 2 for lines in titles):
            return fontsize
    return SMALLEST_TYPE


def draw_title(
    axes: Axes,
    cells: Sequence[Cell],
    word_scale: float,
    inches: float,
    fontsize: float,
) -> None:
    """Put the words of a title above axes, in lines of a width in inches."""
    lines = _lines(cells, word_scale, inches, fontsize, axes.get_figure(root=True))
    if not lines:
        return
    is_stacked = any(lower is not None for _, lower in cells)
    align = "center" if is_stacked else "baseline"
    gap = _gap(cells, fontsize)
    rows = [HPacker(children=line, sep=gap, pad=0, align=align) for line in lines]
    pad = 0.25 * fontsize  # room for the shades
    title = VPacker(children=rows, sep=0.4 * fontsize, pad=pad, align="left")
    axes.add_artist(
        AnnotationBbox(
            title,
            (0, 1),
            xybox=(0, 0.25 * fontsize),
            xycoords="axes fraction",
            boxcoords="offset points",
            box_alignment=(0, 0),
            frameon=False,
            pad=0,
        )
    )


def _lines(
    cells: Sequence[Cell],
    word_scale: float,
    inches: float,
    fontsize: float,
    figure: Figure,
) -> list[list[OffsetBox]]:
    """The boxes of a title's cells, wrapped to a width in inches."""
    renderer = RendererAgg(1, 1, figure.dpi)
    room = inches * figure.dpi
    gap = _gap(cells, fontsize) * figure.dpi / 72  # pixels
    lines: list[list[OffsetBox]] = []
    filled = room  # of the present line
    for cell in cells:
        box = _cell_box(cell, word_scale, inches, fontsize)
        box.set_figure(figure)
        width = box.get_bbox(renderer).width + gap
        if filled + width > room:
            lines.append([])
            filled = 0.0
        lines[-1].append(box)
        filled += width
    return lines


def _gap(cells: Sequence[Cell], fontsize: float) -> float:
    """Points between words: those with a score need room for their shades."""
    has_scores = any(upper.score is not None for upper, _ in cells)
    return (0.56 if has_scores else 0.32) * fontsize


def _cell_box(cell: Cell, word_scale: float, inches: float, fontsize: float) -> OffsetBox:
    """A word, or two words that stand for each other in the captions of a contrast."""
    upper, lower = cell
    if lower is None:
        return _word_box(upper, word_scale, inches, fontsize)
    words = [_word_box(word, word_scale, inches, fontsize) for word in (upper, lower)]
    pair = VPacker(children=words, sep=0.45 * fontsize, pad=0, align="center")
    if not is_boxed(cell):
        return pair
    outline = {"facecolor": "none", "edgecolor": "0.4", "linewidth": 0.8}
    return PaddedBox(pair, pad=0.35 * fontsize, draw_frame=True, patch_attrs=outline)


class _StruckText(TextArea):
    """A word that is struck out."""

    def draw(self, renderer) -> None:
        """Draw the word, and a line through it."""
        super().draw(renderer)
        box = self._text.get_window_extent(renderer)
        middle = box.y0 + 0.45 * box.height
        line = Line2D([box.x0 - 2, box.x1 + 2], [middle, middle], color="black", linewidth=1.4)
        line.draw(renderer)


def _word_box(word: Shade, word_scale: float, inches: float, fontsize: float) -> TextArea:
    """A word on its shade."""
    size = max(0.82 * fontsize, SMALLEST_TYPE) if word.small else fontsize
    text = shortened(word.text, characters(inches, size))
    look: dict[str, Any] = {"fontsize": size, "parse_math": False}
    if word.shade and word_scale:
        shade = to_rgb(word.shade / word_scale)
        look["color"] = ink_on(shade)
        if shade.min() < 0.995:
            pad = 0.2 * fontsize / size
            look["bbox"] = {
                "boxstyle": f"square,pad={pad:.3f}",
                "facecolor": shade,
                "linewidth": 0,
            }
    return _StruckText(text, textprops=look) if word.struck else TextArea(text, textprops=look)
