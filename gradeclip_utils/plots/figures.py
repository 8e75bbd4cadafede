"""Figures: a drawing by matplotlib, and plots of intervals. Nothing here computes relevance.

    Drawing, table -> here -> a matplotlib figure

Figures belong to no pyplot state: they show themselves once in a notebook, and `savefig` writes them.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from scipy.spatial import cKDTree

from .. import checks
from ..errors import GradeclipError
from ..images import read_image
from .axes import (
    FULL_WIDTH,
    LARGEST,
    MARGIN,
    MARKERS,
    NOTE,
    PALETTE,
    SMALLEST,
    axes_at,
    draw_cells,
    draw_heatmap,
    drawable,
    ems,
    fitting,
    flow,
    name_rows,
    shortened,
    show_image,
)
from .colours import coloured
from .drawing import Drawing, Panel, of_explanation, of_interactions, of_maps, scaled

_GAP = 0.22  # inches between panels
_TALLEST = 3.3  # inches of a panel
_LINE = 0.16  # inches of a line of the smallest type


class InlineFigure(Figure):
    """A matplotlib figure that a notebook displays by itself, and only once, because pyplot does not hold it.

    Attributes:
        alt: what the figure shows, in words.
        points: (axes, x, y, text) of points that show a text under the mouse where the figure is in a lesson's panel.
    """

    def __init__(self, width: float, height: float, alt: str = "", vector: bool = False, **options: Any):
        super().__init__(figsize=(width, height), dpi=110, **options)
        FigureCanvasAgg(self)
        self.alt, self.vector = alt, vector
        self.points: list = []

    def savefig(self, fname, **options: Any) -> None:
        """Write the whole figure; options as in matplotlib, whose `bbox_inches` is "tight" here."""
        super().savefig(fname, **{"bbox_inches": "tight", "pad_inches": 0.05, **options})

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        alt = alternative(self)
        if self.vector:
            buffer = io.BytesIO()
            with rc_context({"svg.hashsalt": "gradeclip"}):  # the same figure is the same file
                self.savefig(buffer, format="svg", metadata={"Date": None})
            return {"image/svg+xml": buffer.getvalue().decode(), "text/plain": alt}, {"image/svg+xml": {"alt": alt}}
        return _bundle(small_png(self), alt)

    def _repr_png_(self) -> bytes:
        return small_png(self)


def bundle(image: Image.Image, alt: str) -> tuple[dict, dict]:
    """Return an image as a notebook keeps it, with what it shows in words: data and metadata, by media type."""
    buffer = io.BytesIO()
    few_colours(image.convert("RGB")).save(buffer, "png", optimize=True)
    return _bundle(buffer.getvalue(), alt)


def _bundle(png: bytes, alt: str) -> tuple[dict, dict]:
    return {"image/png": base64.b64encode(png).decode("ascii"), "text/plain": alt}, {"image/png": {"alt": alt}}


def small_png(figure: Figure) -> bytes:
    """Return a figure as a PNG file of 256 colours, which a notebook can afford to keep."""
    buffer, small = io.BytesIO(), io.BytesIO()
    figure.savefig(buffer, format="png", dpi=figure.dpi, bbox_inches="tight", pad_inches=0.05)
    few_colours(Image.open(buffer).convert("RGB")).save(small, "png", optimize=True)
    return small.getvalue()


def few_colours(image: Image.Image) -> Image.Image:
    """Return an RGB image with a palette of 256 colours, refined by k-means so that rare colours are not lost."""
    packed = np.asarray(image).reshape(-1, 3) @ np.array([65536, 256, 1])
    packed, place, count = np.unique(packed, return_inverse=True, return_counts=True)
    colours = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=1).astype(float)  # (C, 3)
    centres, near, weight = colours, np.arange(len(colours)), count**0.6
    if len(colours) > 256:
        sample = np.repeat(colours, np.ceil(weight).astype(int), axis=0).astype(np.uint8)[None]
        first = Image.fromarray(sample).quantize(256, Image.Quantize.MEDIANCUT).getpalette() or []
        centres = np.array(first, float).reshape(-1, 3)
        for _ in range(4):
            near = cKDTree(centres).query(colours)[1]
            total = np.bincount(near, weight, len(centres))
            sums = [np.bincount(near, weight * channel, len(centres)) for channel in colours.T]
            centres = np.where(total[:, None] > 0, np.transpose(sums) / np.maximum(total, 1e-9)[:, None], centres)
        near = cKDTree(centres).query(colours)[1]
    drawn = Image.fromarray(near[place].reshape(image.height, image.width).astype(np.uint8))
    drawn.putpalette(np.rint(centres).astype(np.uint8).tobytes())
    return drawn


def alternative(figure) -> str:
    """Return what a figure shows: its own `alt`, or its titles and the names of its axes."""
    if getattr(figure, "alt", ""):
        return figure.alt
    parts = [figure.get_suptitle()]
    for axes in figure.axes:
        title = " ".join(axes.get_title(place) for place in ("left", "center", "right")).strip()
        across, up = axes.get_xlabel(), axes.get_ylabel()
        parts += [title, f"{up} over {across}" if across and up else across or up]
    return "; ".join(dict.fromkeys(" ".join(part.split()) for part in parts if part)) or "a figure without a title"


# ------------------------------------------------------------------------------------------------------------- drawings


def plot_explanation(
    explanation, *, shared_scale: bool = True, width: float = FULL_WIDTH, most: int = 9
) -> InlineFigure:
    """Draw an explanation: the image in colour, then a panel a prompt with its shaded words, map and similarity.

    Args:
        explanation: an `Explanation`.
        shared_scale: one colour scale for all prompts, so that they can be compared; else one for each.
        width: inches, 3 or more. Below 6 there is one prompt a row, beside the image.
        most: how many prompts are drawn; of more than that the most similar ones, or those that lead by most.

    Raises:
        GradeclipError: a smaller width, or no prompts.
    """
    width, most = checks.number("width", width, 3), checks.whole("most", most, 1)
    return draw([of_explanation(explanation, shared=shared_scale, most=most)], width=width)


def plot_interactions(
    interactions, *, words: str = "content", columns: int = 4, width: float = FULL_WIDTH
) -> InlineFigure:
    """Draw word x region: a signed map a word, all on one scale.

    Args:
        interactions: an `Interactions`.
        words: "content" draws nouns and adjectives, "all" function words too.
        columns: maps in a row, beside the image.
        width: inches, 3 or more.
    """
    checks.chosen("words", words, ("content", "all"))
    width, columns = checks.number("width", width, 3), checks.whole("columns", columns, 1)
    return draw([of_interactions(interactions, words)], width=width, columns=columns)


def plot_maps(
    image,
    maps,
    *,
    signed: bool = False,
    shared_scale: bool = True,
    columns: int = 3,
    upsample: str = "bilinear",
    label: str = "relevance",
    title: str = "",
    width: float = FULL_WIDTH,
) -> InlineFigure:
    """Draw maps of one image beside it, or several images, a row each, with their maps.

        plot_maps(image, {"a dog": e.heatmap(0), "a red car": e.heatmap(1)})
        plot_maps([one, other], [{"rollout": a, "Grad-ECLIP": b}, {"rollout": c, "Grad-ECLIP": d}])

    Args:
        image: the image that was explained, or a list of images.
        maps: title -> map, (H, W) or (h, w), or pairs of both; for a list of images a list of these, one an image.
        signed: draw relevance against as well.
        shared_scale: one scale for all maps; else each has its own, and the legend says so.
        columns: maps in a row, beside the image.
        upsample: "bilinear" or "nearest", for maps on the token grid.
        label: what the values are.
        title: one line over the figure.
        width: inches, 3 or more.

    Raises:
        GradeclipError: what is no image or no map, or lists of different lengths.
    """
    width, columns = checks.number("width", width, 3), checks.whole("columns", columns, 1)
    checks.chosen("upsample", upsample, ("bilinear", "nearest"))
    several = isinstance(image, (list, tuple))
    images, each = (list(image), checks.listed("maps", maps)) if several else ([image], [maps])
    if len(images) != len(each) or not images:
        raise GradeclipError(
            f"plot_maps needs maps for each image, got {len(images)} images and {len(each)} sets of maps"
        )
    drawings = []
    for one, its in zip(images, each, strict=True):
        pairs = [(name, checks.as_map(heat)) for name, heat in checks.titled("maps", its)]
        drawings.append(
            of_maps(read_image(one), pairs, signed=signed, shared=shared_scale, label=label, upsample=upsample)
        )
    return draw(scaled(drawings), width=width, columns=columns, title=title, compact=several)


def plot_gallery(
    explanations: Sequence, *, shared_scale: bool = False, title: str = "", width: float = FULL_WIDTH
) -> InlineFigure:
    """Draw several explanations, a row each: the image, then a panel a prompt with its similarity beside its title.

    Args:
        explanations: `Explanation`s of different images.
        shared_scale: one scale for all rows; else the prompts of an image share one.
        title: one line over the figure.
        width: inches, 3 or more.
    """
    drawings = [of_explanation(one) for one in checks.listed("explanations", explanations)]
    if not drawings:
        raise GradeclipError("plot_gallery needs explanations, got none")
    drawings = scaled(drawings) if shared_scale else drawings
    columns = min(4, max(len(one.panels) for one in drawings))
    return draw(drawings, width=checks.number("width", width, 3), columns=columns, title=title, compact=True)


def draw(
    drawings: Sequence[Drawing], *, width: float = FULL_WIDTH, columns: int = 3, title: str = "", compact: bool = False
) -> InlineFigure:
    """Draw drawings, each from a new row. `compact` writes the similarity beside the title instead of a bar below."""
    most = max(len(one.panels) for one in drawings)
    columns = min(1 if width < 6 and not compact else columns, max(most, 1))
    side = min((width - 2 * MARGIN - columns * _GAP) / (columns + 1), 2.5 if compact else _TALLEST)
    if not most:
        side = min(width - 2 * MARGIN, _TALLEST)
    room = side - (0.4 if compact else 0)
    size = _type_size([panel for one in drawings for panel in one.panels], room)
    rows = []  # drawing, panels, inches of the titles, of the maps, below
    for one in drawings:
        chunks = [one.panels[i : i + columns] for i in range(0, len(one.panels), columns)] or [()]
        factor = min(side / one.image.width, (2.2 if compact else _TALLEST) / one.image.height)
        panel = one.image.width * factor, one.image.height * factor
        bar = 0.0 if compact else 0.36 * any(panel.value is not None for panel in one.panels)
        for chunk in chunks:
            above = max((flow(p.cells, room * 72, size)[1] / 72 for p in chunk), default=0.0)
            rows.append((one, chunk, above + 0.07 * bool(above), panel, bar + 0.16))
    legend = _legend_lines(drawings, side if not compact else width - 2 * MARGIN)
    foot = fitting_origin(drawings)
    tall = 0.28 * any(panel.map is not None for one in drawings for panel in one.panels) + _LINE * len(legend)
    last_of_first = max((i for i, row in enumerate(rows) if row[0] is drawings[0]), default=0)
    spare = sum(sum((above, panel[1], below)) for _, _, above, panel, below in rows[: last_of_first + 1])
    spare -= rows[0][2] + rows[0][3][1]
    extra = max(0.0, tall + 0.05 - spare) if not compact else 0.0
    head = 0.3 * bool(title)
    height = (
        head
        + 0.1
        + sum(a + p[1] + b for _, _, a, p, b in rows)
        + extra
        + (tall + 0.1 if compact else 0)
        + 0.2 * bool(foot)
    )
    wide = 2 * MARGIN + (columns + 1) * side + columns * _GAP if most else 2 * MARGIN + side
    figure = InlineFigure(wide, height, (f"{title}. " if title else "") + " | ".join(one.alt for one in drawings))
    _write_title(figure, title)
    top, before = head + 0.06, None
    for one, chunk, above, panel, below in rows:
        if one is not before:
            show_image(axes_at(figure, MARGIN, top + above, *panel), one.image, box=one.box)
            if before is None and not compact:
                _draw_legend(figure, one, legend, MARGIN, top + above + panel[1] + 0.1, side)
            before = one
        for i, each in enumerate(chunk):
            x = MARGIN + (i + 1) * (side + _GAP)
            title_height = flow(each.cells, room * 72, size)[1] / 72
            draw_cells(
                axes_at(figure, x, top + above - 0.07 - title_height, room, title_height),
                each.cells,
                one.word_scale,
                size,
            )
            _draw_map(axes_at(figure, x, top + above, *panel), one, each)
            if compact and each.value is not None:
                figure.text(
                    (x + panel[0]) / wide,
                    1 - (top + above - 0.1) / height,
                    each.told[-1],
                    ha="right",
                    va="bottom",
                    **NOTE,
                )
            elif each.value is not None:
                _draw_bar(axes_at(figure, x, top + above + panel[1] + 0.07, side, 0.16), one, each)
        top += above + panel[1] + below
    if compact:
        _draw_legend(figure, drawings[0], legend, MARGIN, top + 0.02, wide)
    if foot:
        foot = shortened(foot, wide - 2 * MARGIN, SMALLEST)
        figure.text(MARGIN / wide, 0.05 / height, foot, va="bottom", parse_math=False, fontsize=SMALLEST, color="0.55")
    return figure


def _write_title(figure: Figure, title: str) -> None:
    """Write one line over a figure."""
    across, down = figure.get_size_inches()
    line = shortened(title, across - 2 * MARGIN, 10.5)
    figure.text(MARGIN / across, 1 - 0.06 / down, line, va="top", fontsize=10.5, parse_math=False)


def fitting_origin(drawings: Sequence[Drawing]) -> str:
    """Return which model made the drawings, where all of them have the same."""
    origins = {one.origin for one in drawings}
    return origins.pop() if len(origins) == 1 else ""


def _type_size(panels: Sequence[Panel], room: float) -> float:
    """Return the largest type in which every title takes at most two lines, or the smallest."""
    for size in np.arange(LARGEST, SMALLEST, -0.5):
        words = [word for panel in panels for cell in panel.cells for word in cell if word]
        fits = all(ems(drawable(word.text)) * size < room * 72 for word in words)
        if fits and all(flow(panel.cells, room * 72, size)[2] <= 2 for panel in panels):
            return float(size)
    return float(SMALLEST)


def _draw_map(axes, one: Drawing, panel: Panel) -> None:
    heat = np.zeros((1, 1), np.float32) if panel.map is None else panel.map
    draw_heatmap(axes, one.image, heat, box=one.box, signed=one.signed, vmax=panel.scale, upsample=one.upsample)
    if panel.map is None:
        axes.text(0.5, 0.5, "no map: words alone", ha="center", va="center", transform=axes.transAxes, fontsize=10)


def _draw_bar(axes, one: Drawing, panel: Panel) -> None:
    """Draw the similarity or the lead as a bar, the tick, and what the bar is."""
    low, high = one.bars
    axes.set(xlim=(low, high), ylim=(0, 1))
    axes.set_axis_off()
    axes.add_patch(Rectangle((low, 0.36), high - low, 0.28, color="0.92", linewidth=0))
    axes.add_patch(Rectangle((0, 0.1), panel.value, 0.8, color="0.25" if panel.best else "0.65", linewidth=0))
    for place in [0.0] * (low < 0) + [one.median] * (one.median is not None):
        axes.plot([place, place], [-0.3, 1.3], color="black", linewidth=1.4, clip_on=False, solid_capstyle="butt")
    inches = axes.get_position().width * axes.get_figure().get_figwidth()
    axes.text(
        0, -0.35, drawable(fitting(panel.told, inches)), va="top", transform=axes.transAxes, parse_math=False, **NOTE
    )


def _legend_lines(drawings: Sequence[Drawing], room: float) -> list[str]:
    """Return the lines of the legend, folded to a width."""
    import textwrap

    lines = list(dict.fromkeys(line for one in drawings for line in one.legend))
    if len({line for line in lines if "darkest" in line}) > 1:  # each row has a scale of its own
        label = drawings[0].label
        lines = [
            f"{label} and words: darkest in each row at its largest",
            *(line for line in lines if "darkest" not in line),
        ]
    return [part for line in lines for part in textwrap.wrap(line, int(room * 72 / SMALLEST / 0.53))]


def _draw_legend(figure: Figure, one: Drawing, lines: Sequence[str], x: float, top: float, room: float) -> None:
    """Draw the strip of colours, with its ends named, and the lines below it."""
    across, down = figure.get_size_inches()
    if not any(panel.map is not None or one.word_scale for panel in one.panels):
        return
    both = one.both
    left, strip = x, min(1.3, room - 1.2)
    y = 1 - (top + 0.06) / down
    for text in ["against"] * both + ["strip", "for"]:
        if text == "strip":
            axes = axes_at(figure, left, top, strip, 0.12)
            axes.imshow(coloured(np.linspace(-1 if both else 0, 1, 256))[None], aspect="auto")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(color="0.8", linewidth=0.5)
            left += strip + 0.08
        else:
            figure.text(left / across, y, text, va="center", **NOTE)
            left += ems(text) * SMALLEST / 72 + 0.08
    for i, line in enumerate(lines):
        figure.text(x / across, 1 - (top + 0.2 + _LINE * i) / down, drawable(line), va="top", parse_math=False, **NOTE)


# ------------------------------------------------------------------------------------------------------------ intervals


def plot_intervals(
    table,
    *,
    names: Sequence[str] | None = None,
    group: str | None = None,
    control: str | Sequence[str] = (),
    chance: float | None = None,
    chance_label: str = "chance",
    label: str = "",
    title: str = "",
    sort: bool = True,
    limits: tuple[float, float] | None = None,
    width: float = FULL_WIDTH,
) -> InlineFigure:
    """Draw estimates with their intervals, one row each, the highest on top.

        plot_intervals(summarise(rows, by="method", value="pointing_game", cluster="image"), chance=0.25)

    Args:
        table: a DataFrame with the columns mean (or estimate), low and high, as `statistics.summarise` gives it.
        names: what to call the rows; by default the column "label", or else the other columns, or the index.
        group: a column whose values get a colour and a marker each; rows of one name share a line.
        control: rows that are no candidates (names of rows, or a column of booleans); they are grey, below a rule.
        chance: the value of a guess; a dashed line.
        chance_label: what to call that line.
        label: what the values are, under the axis.
        title: what is measured, in one line.
        sort: highest first; False keeps the order of the table.
        limits: ends of the axis; by default what the intervals need.
        width: inches.

    Raises:
        GradeclipError: the table lacks a column, or has no row.
    """
    given = table.rename(columns={"estimate": "mean"}) if "estimate" in getattr(table, "columns", ()) else table
    rows = checks.numbers(given, ("mean", "low", "high"))
    if not len(rows):
        raise GradeclipError("plot_intervals needs a table with rows, got one without")
    wanted = [group] * bool(group) + [control] * (isinstance(control, str) and bool(control))
    checks.columns(given, wanted)
    if names is None and "label" in given.columns:
        names = given["label"]
    elif names is None:
        others = [n for n in given.columns if n not in ("mean", "low", "high", "n", *wanted)]
        names = [" ".join(map(str, row)) for row in given[others].to_numpy()] if others else given.index
    names = [str(name) for name in names]
    if len(names) != len(rows):
        raise GradeclipError(f"plot_intervals needs a name for each of {len(rows)} rows, got {len(names)}")
    grey = set(np.array(names)[given[control].to_numpy(bool)]) if isinstance(control, str) and control else set(control)
    means = {name: max(m for n, m in zip(names, rows["mean"], strict=True) if n == name) for name in names}
    lines = list(means)
    if sort:
        lines.sort(key=lambda name: -means[name])
    lines.sort(key=lambda name: name in grey)
    kinds = list(dict.fromkeys(given[group].astype(str))) if group else [""]
    if len(kinds) > len(PALETTE):
        raise GradeclipError(
            f"plot_intervals draws at most {len(PALETTE)} groups, got {len(kinds)}: {', '.join(kinds)}"
        )
    left = min(0.25 + max(ems(drawable(name)) for name in lines) * 9 / 72, width * 0.45)
    row, below = 0.27 + 0.13 * (len(kinds) - 1), 0.3 + 0.2 * bool(label)
    above = 0.12 + 0.26 * bool(title) + 0.22 * (chance is not None) + 0.24 * bool(group)
    height = above + row * len(lines) + below
    kind_of = list(given[group].astype(str)) if group else [""] * len(rows)
    alt = f"{title or label}: " + "; ".join(
        f"{name} {kind} {one.mean:.2f}, {one.low:.2f} to {one.high:.2f}".replace("  ", " ")
        for name, kind, one in zip(names, kind_of, rows.itertuples(), strict=True)
    )
    figure = InlineFigure(width, height, alt)
    axes = axes_at(figure, left + 0.1, above, width - left - 0.75, row * len(lines))
    name_rows(axes, [shortened(name, left - 0.1, 9) for name in lines], label)
    for i, (name, one) in enumerate(zip(names, rows.itertuples(), strict=True)):
        kind = kinds.index(str(given[group].iloc[i])) if group else 0
        y = lines.index(name) + 0.42 * (kind - (len(kinds) - 1) / 2) / max(len(kinds) - 1, 1) * (len(kinds) > 1)
        colour = "0.6" if name in grey else PALETTE[kind]
        axes.plot([one.low, one.high], [y, y], color=colour, linewidth=2, solid_capstyle="butt")
        axes.plot(one.mean, y, color=colour, marker=MARKERS[kind], markersize=5.5)
        axes.text(1.02, y, drawable(f"{one.mean:.2f}"), va="center", fontsize=SMALLEST, color=colour,
                  transform=axes.get_yaxis_transform())  # fmt: skip
    if limits:
        axes.set_xlim(limits)
    for label_of_row, name in zip(axes.get_yticklabels(), lines, strict=True):
        label_of_row.set_color("0.5" if name in grey else "black")
    candidates = sum(name not in grey for name in lines)
    if 0 < candidates < len(lines):
        axes.axhline(candidates - 0.5, color="0.8", linewidth=0.8)
    if chance is not None:
        axes.axvline(chance, color="0.4", linestyle="--", linewidth=1, zorder=0)
        axes.annotate(chance_label, (chance, 1), xycoords=axes.get_xaxis_transform(), xytext=(0, 2),
                      textcoords="offset points", ha="center", va="bottom", **NOTE)  # fmt: skip
    _write_title(figure, title)
    x = (left + 0.1) / width
    for kind, colour, marker in zip(kinds, PALETTE, MARKERS, strict=False):
        if kind:
            y = 1 - (0.18 + 0.26 * bool(title)) / height
            axes.plot([], [])
            figure.text(
                x,
                y,
                {"o": "●", "s": "■", "D": "◆", "^": "▲"}[marker] + f" {drawable(kind)}",
                color=colour,
                va="center",
                fontsize=9,
            )
            x += (ems(kind) * 9 / 72 + 0.35) / width
    return figure
