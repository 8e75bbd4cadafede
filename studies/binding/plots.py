"""Figures of the study of binding: pairs and explanations in, a matplotlib figure out. No model is asked."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.explanation import Explanation
from gradeclip_utils.plots import InlineFigure, axes_at, draw_heatmap, show_image
from gradeclip_utils.plots.axes import FULL_WIDTH, NOTE, PALETTE, SMALLEST, drawable, entitle, headed

from ..pairs import Pair


def plot_pair(pair: Pair, similarity: np.ndarray) -> InlineFigure:
    """Both images of a pair, each with its similarities to the two captions."""
    right = sum(row[side] > row[1 - side] for side, row in enumerate(similarity))
    title = f"{right} of 2 images are nearer to their own caption"
    told = "; ".join(f"an image of {scene.caption}" for scene in pair.scenes)
    figure = InlineFigure(FULL_WIDTH, 2.3, f"{title}: {told}")
    head, captions = headed(figure, title), [scene.caption for scene in pair.scenes]
    for side, scene in enumerate(pair.scenes):
        show_image(axes_at(figure, 0.1 + 4.05 * side, head + 0.3, 1.8, 1.8), scene.image(), f"image {side + 1}")
        axes = axes_at(figure, 2.05 + 4.05 * side, head + 0.45, 1.85, 1.5)
        draw_bars(axes, captions, similarity[side], side)
    return figure


def draw_bars(axes: Axes, captions: Sequence[str], values: Sequence[float], right: int | None = None) -> None:
    """One bar a caption, its text above it."""
    low, high = min(0.0, *values), max(*values, 1e-6)
    inches = axes.get_position().width * axes.get_figure().get_figwidth()
    letters = int(inches * 16)
    for row, (caption, value) in enumerate(zip(captions, values, strict=True)):
        best = value == max(values)
        axes.barh(row, value, height=0.32, color=PALETTE[0] if best else "0.75")
        mark = " (true)" if row == right else ""
        text = folded(caption + mark, letters)
        axes.text(low, row - 0.24, text, va="bottom", fontsize=SMALLEST, parse_math=False)
        axes.text(max(value, 0), row, drawable(f" {value:.3f}"), va="center", fontsize=SMALLEST)
    axes.axvline(0, color="0.6", linewidth=0.6)
    most = low + (high - low) * inches / (inches - 0.45)  # which leaves room for the number
    axes.set(xlim=(low, most), ylim=(len(captions) - 0.6, -0.75), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def plot_map_grid(image: Image.Image, rows: Mapping[str, Mapping[str, np.ndarray]], title: str = "") -> InlineFigure:
    """Signed maps of one image, one row a model or caption, each map on a scale of its own."""
    columns = 1 + max(map(len, rows.values()))
    across = min((FULL_WIDTH - 0.1) / columns, 2.0)
    side, down = across - 0.12, across + 0.3
    alt = f"{title or 'Maps of an image'}: " + "; ".join(f"{name}, {', '.join(maps)}" for name, maps in rows.items())
    figure = InlineFigure(0.1 + across * columns, down * len(rows) + 0.4, alt)
    head = headed(figure, title)
    for i, (name, maps) in enumerate(rows.items()):
        top = head + 0.37 + down * i
        show_image(axes_at(figure, 0.1, top, side, side), image, drawable(name))
        for j, (said, map_) in enumerate(maps.items(), start=1):
            axes = axes_at(figure, 0.1 + across * j, top, side, side)
            draw_heatmap(axes, image, map_, signed=True, colour_bar=False)
            entitle(axes, folded(said if np.any(map_) else f"{said}: zero everywhere", int(13 * side)))
    sentence = "orange speaks for it, purple against; each map on a scale of its own"
    figure.text(0.1 / figure.get_figwidth(), 0.08 / figure.get_figheight(), sentence, **NOTE)
    return figure


def plot_contrasts(cases: Sequence[tuple[str, Explanation]], *, columns: int = 3) -> InlineFigure:
    """Images above their signed contrastive maps, each on a scale of its own: the strongest magnitude is the darkest."""
    if not cases or any(one.against is None for _, one in cases):
        msg = "contrasts need one contrastive explanation or more: explain(image, right, against=wrong)"
        raise GradeclipError(msg)
    columns = min(columns, len(cases))
    rows = -(-len(cases) // columns)
    ahead = sum(float(one.image_maps[0].sum()) > 0 for _, one in cases)
    over = f"in {ahead} of {len(cases)} maps more of the relevance speaks for the right caption than for the wrong one"
    figure = InlineFigure(0.2 + 2.6 * columns, 0.4 + 4.3 * rows, f"{over}: " + "; ".join(title for title, _ in cases))
    head = headed(figure, over)
    for i, (title, one) in enumerate(cases):
        x, top = 0.1 + 2.6 * (i % columns), head + 0.7 + 4.3 * (i // columns)
        show_image(axes_at(figure, x, top, 1.7, 1.7), one.image, folded(title, 30, lines=4))
        heat = one.heatmap(0, signed=True)
        draw_heatmap(axes_at(figure, x, top + 1.8, 1.7, 1.7), one.image, heat, signed=True, note="")
    sentence = "orange speaks for the right caption, purple for the wrong one; each map on a scale of its own"
    figure.text(0.1 / figure.get_figwidth(), 0.1 / figure.get_figheight(), sentence, **NOTE)
    return figure


def folded(text: str, width: int, lines: int = 2) -> str:
    """The text in a few lines of so many letters, with an ellipsis where it had to be cut."""
    return "\n".join(textwrap.wrap(drawable(text), width, max_lines=lines, placeholder="…", break_on_hyphens=False))
