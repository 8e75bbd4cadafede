"""Figures: a drawing by matplotlib, and plots of intervals. Nothing here computes relevance.

    Drawing, table -> here -> a matplotlib figure

Figures belong to no pyplot state: they show themselves once in a notebook, and `savefig` writes them.
"""

from __future__ import annotations

import base64
import io
import textwrap
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
    small = io.BytesIO()
    few_colours(rendered(figure)).save(small, "png", optimize=True)
    return small.getvalue()


def rendered(figure: Figure) -> Image.Image:
    """Return all that is drawn of a figure as an RGB image."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=figure.dpi, bbox_inches="tight", pad_inches=0.05)
    return Image.open(buffer).convert("RGB")


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
        raise GradeclipError(f"each image needs its maps, got {len(images)} images and {len(each)} sets of maps")
    drawings, look = [], {"signed": signed, "shared": shared_scale, "label": label, "upsample": upsample}
    for one, its in zip(images, each, strict=True):
        pairs = [(name, checks.as_map(heat)) for name, heat in checks.titled("maps", its)]
        drawings.append(of_maps(read_image(one), pairs, **look))
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
    panels = [panel for one in drawings for panel in one.panels]
    columns = min(1 if width < 6 and not compact else columns, max(len(one.panels) for one in drawings))
    tallest = 2.4 if compact else _TALLEST
    side = min((width - 2 * MARGIN - columns * _GAP) / (columns + 1), tallest)
    beside = compact and any(panel.value is not None for panel in panels)  # the similarity takes room of the title
    wide, room = 2 * MARGIN + (columns + 1) * side + columns * _GAP, side - 0.4 * beside
    size, rows = _type_size(panels, room), []  # drawing, panels, inches above the maps, of the maps, below them
    for one in drawings:
        factor = min(side / one.image.width, tallest / one.image.height)
        below = 0.16 + 0.36 * (not compact and any(panel.value is not None for panel in one.panels))
        for start in range(0, max(len(one.panels), 1), columns or 1):
            some = one.panels[start : start + columns]
            above = max((flow(panel.cells, room * 72, size)[1] / 72 + 0.07 for panel in some), default=0.0)
            rows.append((one, some, above, (one.image.width * factor, one.image.height * factor), below))
    legend, origins = _legend_lines(drawings, wide - 2 * MARGIN if compact else side), {one.origin for one in drawings}
    origin = origins.pop() if len(origins) == 1 else ""  # of which model they are, where it is the same
    tall = (0.28 + _LINE * len(legend)) * any(panel.map is not None or panel.cells for panel in panels)
    needed = [above + panel[1] + below for _, _, above, panel, below in rows]
    spare = 0.0 if compact else sum(needed) - rows[0][2] - rows[0][3][1]  # below the image
    height = 0.1 + 0.3 * bool(title) + sum(needed) + max(0.0, tall + 0.05 - spare) + 0.2 * bool(origin)
    figure = InlineFigure(wide, height, ". ".join([title] * bool(title) + [one.alt for one in drawings]))
    _write_title(figure, title)
    top, before = 0.06 + 0.3 * bool(title), None
    for one, some, above, panel, below in rows:
        if one is not before:
            show_image(axes_at(figure, MARGIN, top + above, *panel), one.image, box=one.box)
            if not compact:
                _draw_legend(figure, one, legend, top + above + panel[1] + 0.1, side)
        for i, each in enumerate(some):
            x, deep = MARGIN + (i + 1) * (side + _GAP), flow(each.cells, room * 72, size)[1] / 72
            draw_cells(axes_at(figure, x, top + above - 0.07 - deep, room, deep), each.cells, one.word_scale, size)
            _draw_map(axes_at(figure, x, top + above, *panel), one, each)
            if compact and each.value is not None:
                place = (x + panel[0]) / wide, 1 - (top + above - 0.1) / height
                figure.text(*place, each.told[-1], ha="right", va="bottom", **NOTE)
            elif each.value is not None:
                _draw_bar(axes_at(figure, x, top + above + panel[1] + 0.07, side, 0.16), one, each)
        top, before = top + above + panel[1] + below, one
    if compact:
        _draw_legend(figure, drawings[0], legend, top + 0.02, wide)
    origin = shortened(origin, wide - 2 * MARGIN, SMALLEST)
    figure.text(MARGIN / wide, 0.05 / height, origin, va="bottom", parse_math=False, fontsize=SMALLEST, color="0.55")
    return figure


def _write_title(figure: Figure, title: str) -> None:
    """Write one line over a figure."""
    across, down = figure.get_size_inches()
    line = shortened(title, across - 2 * MARGIN, 10.5)
    figure.text(MARGIN / across, 1 - 0.06 / down, line, va="top", fontsize=10.5, parse_math=False)


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
    lines = list(dict.fromkeys(line for one in drawings for line in one.legend))
    if sum("darkest" in line for line in lines) > 1:
        own = f"{drawings[0].label} and words: darkest in each row at its largest"
        lines = [own, *(line for line in lines if "darkest" not in line)]
    return [part for line in lines for part in textwrap.wrap(line, int(room * 72 / SMALLEST / 0.53))]


def _draw_legend(figure: Figure, one: Drawing, lines: Sequence[str], top: float, room: float) -> None:
    """Draw the strip of colours, with its ends named, and the lines below it."""
    if not one.panels:
        return
    (across, down), strip = figure.get_size_inches(), min(1.3, room - 1.2)
    start = MARGIN + 0.65 * one.both
    axes = axes_at(figure, start, top, strip, 0.12)
    axes.imshow(coloured(np.linspace(-1 if one.both else 0, 1, 256))[None], aspect="auto")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color="0.8", linewidth=0.5)
    figure.text((start + strip + 0.08) / across, 1 - (top + 0.06) / down, "for", va="center", **NOTE)
    if one.both:
        figure.text(MARGIN / across, 1 - (top + 0.06) / down, "against", va="center", **NOTE)
    for i, line in enumerate(lines):
        place = MARGIN / across, 1 - (top + 0.2 + _LINE * i) / down
        figure.text(*place, drawable(line), va="top", parse_math=False, **NOTE)


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
    rows, flagged = checks.numbers(given, ("mean", "low", "high")), isinstance(control, str) and bool(control)
    wanted = [str(group)] * bool(group) + [str(control)] * flagged
    checks.columns(given, wanted)
    if names is None and "label" in given.columns:
        names = given["label"]
    elif names is None:
        others = [name for name in given.columns if name not in ("mean", "low", "high", "n", *wanted)]
        names = [" ".join(map(str, row)) for row in given[others].to_numpy()] if others else given.index
    if not len(rows) or len(names) != len(rows):
        raise GradeclipError(f"plot_intervals needs rows, and a name for each, got {len(rows)} and {len(names)} names")
    rows = rows.assign(name=[str(name) for name in names], kind=given[group].astype(str).to_numpy() if group else "")
    grey = set(rows["name"][given[control].to_numpy(bool)]) if flagged else set(control)
    highest = rows.groupby("name", sort=False)["mean"].max()
    lines = sorted(highest.index, key=lambda name: (name in grey, -highest[name] if sort else 0))
    kinds = list(dict.fromkeys(rows["kind"]))
    if len(kinds) > len(PALETTE):
        raise GradeclipError(f"plot_intervals draws at most {len(PALETTE)} groups, got {len(kinds)}: {kinds}")
    left = 0.35 + min(max(ems(drawable(name)) for name in lines) * 9 / 72, width * 0.45)
    above = 0.12 + 0.26 * bool(title) + 0.22 * (chance is not None) + 0.24 * bool(group)
    tall = (0.27 + 0.13 * (len(kinds) - 1)) * len(lines)
    told = (f"{name} {one.kind} {one.mean:.2f}, {one.low:.2f} to {one.high:.2f}" for name, one in _each(rows))
    alt = f"{title or label}: {'; '.join(told)}".replace("  ", " ")
    figure = InlineFigure(width, above + tall + 0.3 + 0.2 * bool(label), alt)
    axes = axes_at(figure, left, above, width - left - 0.65, tall)
    name_rows(axes, [shortened(name, left - 0.2, 9) for name in lines], label)
    for name, one in _each(rows):
        kind = kinds.index(one.kind)
        y = lines.index(name) + (0.42 * (kind / (len(kinds) - 1) - 0.5) if len(kinds) > 1 else 0)
        look = {"color": "0.6" if name in grey else PALETTE[kind]}
        axes.plot([one.low, one.high], [y, y], linewidth=2, solid_capstyle="butt", **look)
        axes.plot(one.mean, y, marker=MARKERS[kind], markersize=5.5, **look)
        value = drawable(f"{one.mean:.2f}")
        axes.text(1.02, y, value, va="center", fontsize=SMALLEST, transform=axes.get_yaxis_transform(), **look)
    axes.set_xlim(limits)
    for tick, name in zip(axes.get_yticklabels(), lines, strict=True):
        tick.set_color("0.5" if name in grey else "black")
    if 0 < (candidates := sum(name not in grey for name in lines)) < len(lines):
        axes.axhline(candidates - 0.5, color="0.8", linewidth=0.8)
    if chance is not None:
        axes.axvline(chance, color="0.4", linestyle="--", linewidth=1, zorder=0)
        over = {"xycoords": axes.get_xaxis_transform(), "xytext": (0, 2), "textcoords": "offset points"}
        axes.annotate(chance_label, (chance, 1), ha="center", va="bottom", **over, **NOTE)
    _write_title(figure, title)
    x, y = left / width, 1 - (0.18 + 0.26 * bool(title)) / figure.get_figheight()
    for kind, colour, sign in zip(kinds if group else (), PALETTE, "●■◆▲", strict=False):
        figure.text(x, y, f"{sign} {drawable(kind)}", color=colour, va="center", fontsize=9)
        x += (ems(kind) * 9 / 72 + 0.35) / width
    return figure


def _each(rows):
    return ((one.name, one) for one in rows.itertuples(index=False))
