"""Figures: arrays in, a matplotlib figure out. Nothing here computes relevance.

    Explanation -> colours -> axes -> figures

Panels of one figure share one scale unless it says otherwise. Figures belong to no pyplot state: they show themselves
once in a notebook, and `savefig` writes them. `colours` says what the colours mean.
"""

import base64
import io
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from ..checks import as_map, number, numbers, titled, whole
from ..errors import GradeclipError
from ..images import read_image
from ..notices import image_bundle
from .axes import (
    FULL_WIDTH,
    LARGEST,
    MARGIN,
    NOTE,
    PALETTE,
    SMALLEST,
    axes_at,
    draw_colour_bar,
    draw_heatmap,
    draw_intervals,
    draw_words,
    drawable,
    entitle,
    headed,
    name_rows,
    show_image,
    words_height,
)
from .colours import largest, range_in_words, shown
from .finding import nearest, sharpest


class InlineFigure(Figure):
    """A matplotlib figure that a notebook displays by itself, and only once, because pyplot does not hold it.

    Attributes:
        points: (axes, x, y, text) of points that say a text under the mouse where the figure is in a lesson's panel.
    """

    def __init__(self, width: float, height: float, alt: str = "", vector: bool = False, **options):
        super().__init__(figsize=(width, height), dpi=110, **options)
        FigureCanvasAgg(self)
        self.alt, self.vector = alt, vector
        self.points: list[tuple[Axes, float, float, str]] = []

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        data, metadata = image_bundle(self._repr_png_(), alternative(self))
        if self.vector:
            with rc_context({"svg.hashsalt": "gradeclip"}):  # the same figure is the same file
                drawn = base64.b64encode(self._saved(format="svg", metadata={"Date": None})).decode("ascii")
            data["text/html"] = re.sub('src="[^"]*"', f'src="data:image/svg+xml;base64,{drawn}"', data["text/html"])
        return data, metadata

    def _repr_png_(self) -> bytes:
        return self._saved(format="png")

    def _saved(self, **options) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, bbox_inches="tight", **options)
        return buffer.getvalue()


def alternative(figure) -> str:
    """What is shown, to those who cannot see it: its own `alt`, or else a figure's titles and the names of its axes."""
    if getattr(figure, "alt", ""):
        return figure.alt
    parts = [figure.get_suptitle()]
    for axes in figure.axes:
        title = " ".join(axes.get_title(place) for place in ("left", "center", "right")).strip()
        across, up = axes.get_xlabel(), axes.get_ylabel()
        parts += [title, f"{up} over {across}" if across and up else across or up]
    return "; ".join(dict.fromkeys(" ".join(part.split()) for part in parts if part)) or "a figure without a title"


def plot_explanation(
    explanation, *, shared_scale: bool = True, width: float = FULL_WIDTH, most: int = 10
) -> InlineFigure:
    """Image, heat map and shaded words: one row a prompt, or two or three short prompts beside each other.

    Above stands what the numbers come to (`finding`). A contrastive explanation (`against`) is drawn signed, with the
    words of both prompts: orange speaks for the prompt and purple for the other one, wherever it stands.

    Args:
        explanation: an `Explanation`.
        shared_scale: one colour scale for all prompts, so that they can be compared; else one for each, and it is said.
        width: inches for prompts beside each other, 3.5 or more; below 6 they stand under the image, for a telephone.
        most: how many prompts are drawn; of more than that the most similar ones (or those that lead by most).

    Raises:
        ValueError: a smaller width, or no prompts.
    """
    explanation, over = nearest(explanation, whole("most", most, 1))
    narrow, signed = number("width", width, 3.5) < 6, explanation.against is not None
    count, image, words_alone = len(explanation.prompts), explanation.image, _explains_words_alone(explanation)
    heats = [explanation.heatmap(i, signed=signed) for i in range(count)]
    prompts = [_prompts(explanation, i) for i in range(count)]
    scores = [[shown(word.score, signed) for _, words in both for word in words] for both in prompts]
    alt = f"{over}: image, heat map and shaded words for {'; '.join(explanation.prompts)}"
    if shared_scale and not signed and not words_alone and (narrow or count > 1) and count < 4:
        across = 2 if narrow else count + 1
        room = (width - 2 * MARGIN - 0.7) / across - 0.2
        if _row(prompts, [largest(scores)] * count, room, SMALLEST) < 1.2:
            return _plot_beside(explanation, heats, prompts, across, room, over, alt)
    (width, height), large = _panel(image, 2.0, 2.0 if count <= 3 else 1.6), LARGEST if signed or count > 1 else 26
    right, own = MARGIN + 2 * width + 1.25, "a scale of its own" if count > 1 and not shared_scale else ""
    wanted = max(_one_line(prompts), 0.034 * len(range_in_words("words", signed, largest(scores[0]), own)))
    room = max(min(FULL_WIDTH - right - MARGIN, wanted), 1.8)  # no empty half beside a short prompt
    letters, darkest = int(room * 14.5), [largest(scores if shared_scale else [one]) for one in scores]
    row = max(height, 1.3, _row(prompts, darkest, room, SMALLEST), min(_row(prompts, darkest, room, LARGEST), 3.2))
    gap = 0.62 if signed or count not in (2, 3) or not shared_scale else 0.48
    wide, below = right + room + MARGIN, gap if count == 1 or not shared_scale else 0.15  # one scale is said once
    figure = InlineFigure(wide, count * (row + gap) - gap + below + _foot(explanation.origin, wide), alt)
    above = headed(figure, over) + 0.32
    _sign(figure, explanation.origin)
    show_image(axes_at(figure, MARGIN, above, width, height), image, "image")
    for i, top in enumerate(above + (row + gap) * np.arange(count)):
        note = "" if shared_scale and i else f"the largest in this {'figure' if shared_scale and count > 1 else 'map'}"
        axes = axes_at(figure, MARGIN + width + 0.3, top, width, height)
        if words_alone:
            show_image(axes, image, "no map: words alone")
        else:
            vmax, bar = largest(heats if shared_scale else [heats[i]]), i == 0 or not shared_scale
            draw_heatmap(axes, image, heats[i], signed=signed, vmax=vmax, note=note, colour_bar=bar)
        if i == 0 and not words_alone:
            title = "where it speaks for, and against" if signed else "where it answers"
            entitle(axes, _shortened(title, int(14 * (width + 0.9))))
        for headline, words in prompts[i]:
            tall = (row - 0.35 * (len(prompts[i]) - 1)) / len(prompts[i])
            axes = axes_at(figure, right, top, room, tall)
            sentence = textwrap.fill(range_in_words("words", signed, darkest[i], own), letters)
            draw_words(axes, words, signed=signed, vmax=darkest[i], sentence=sentence, most=large)
            entitle(axes, _shortened(headline, letters))
            top += tall + 0.35
    return figure


def _plot_beside(explanation, heats: list[np.ndarray], prompts: list, columns: int, room: float, over: str, alt: str):
    """The image and a map for each prompt, its words below, in `room` inches each; two columns are below the image."""
    image, (width, height) = explanation.image, _panel(explanation.image, min(room, 2.4), 2.4)
    most, darkest = largest(heats), largest([[max(word.score, 0) for word in words] for ((_, words),) in prompts])
    notes = [range_in_words(name, False, value) for name, value in (("maps", most), ("words", darkest))]
    below = columns == 2
    letters = int((room + 0.7 if below else room) * 14.5)
    note = "\n".join(textwrap.fill(one, letters) for one in [*notes, "each the largest in this figure"])
    tall = _row(prompts, [darkest] * len(prompts), room, LARGEST)
    # the words' axes have room for a sentence of their own; a note below the image may need more than they
    under = tall - 0.3 if below else max(tall - 0.3, 0.15 * (note.count("\n") + 1))
    wide = 2 * MARGIN + columns * (room + 0.2) + 0.5
    down, first = height + under + 0.5, 0.32 + (height + 0.4 if below else 0)
    rows = -(-len(prompts) // columns) if below else 1
    figure = InlineFigure(wide, first + rows * down - 0.08, alt)
    above = headed(figure, over)
    _sign(figure, explanation.origin)
    axes = axes_at(figure, MARGIN, above + 0.32, width, height)
    show_image(axes, image, "image")
    beside = ((room + 0.2) / width, 1) if below else (0, -0.12 / height)
    axes.text(*beside, note, va="top", transform=axes.transAxes, **NOTE)
    for i, ((headline, words),) in enumerate(prompts):
        row, column = divmod(i, columns) if below else (0, i + 1)
        left, top = MARGIN + column * (room + 0.2), above + first + row * down
        axes = axes_at(figure, left, top, width, height)
        draw_heatmap(axes, image, heats[i], vmax=most, colour_bar=False)
        entitle(axes, _shortened(headline, int((room + 0.1) * 14)))
        if i == min(columns, len(prompts)) - 1:
            draw_colour_bar(axes, image, False, most)
        draw_words(axes_at(figure, left, top + height + 0.12, room, tall), words, vmax=darkest, sentence="")
    return figure


def _explains_words_alone(explanation) -> bool:
    """Whether its method has no maps of images: then zeros stand for none."""
    if explanation.image_maps.any():
        return False
    from ..methods import METHODS  # with torch, which figures do without

    method = explanation.provenance.get("method")
    return any(one.title == method and one.image is None for one in METHODS.values())


def plot_maps(
    image: Image.Image,
    maps: Mapping[str, np.ndarray] | Iterable[tuple[str, np.ndarray]],
    *,
    signed: bool = False,
    shared_scale: bool = True,
    columns: int = 4,
    upsample: str = "bilinear",
    label: str = "relevance",
    origin: str = "",
    title: str = "",
) -> InlineFigure:
    """Several maps of one image side by side, after the image itself; or the image alone, where there are none yet.

        plot_maps(image, {"a dog": e.heatmap(0), "a red car": e.heatmap(1)})

    Args:
        image: the image that was explained.
        maps: title -> map, (H, W) or (h, w) as in `draw_heatmap`; pairs when titles repeat.
        signed: draw negative values too, centred on zero.
        shared_scale: one scale and one colour bar; else each panel has its own, and says so.
        columns: panels in a row.
        upsample: "bilinear" or "nearest", for maps on the token grid.
        label: what the values are.
        origin: which model made them, for the last line.
        title: what is seen, over all.
    """
    image, panels = read_image(image), [(name, as_map(heat)) for name, heat in titled("maps", maps)]
    said = shared_scale and bool(panels)  # below all of them; an image alone has no scale
    gap, bar = (0.2, 0.7 * said) if shared_scale else (0.9, 0.0)
    free, count = FULL_WIDTH - 2 * MARGIN - bar, len(panels) + 1
    columns = min(whole("columns", columns, 1), count, int(free / (1.2 + gap)))
    rows = -(-count // columns)
    spare = 0.7 if rows == 1 and not shared_scale else 0.0  # the image has no colour bar, nor has what is below it
    width, height = _panel(image, min(2.3 if panels else 2.8, (free + spare) / columns - gap), 2.6)
    across, down = (width + 0.2, height + 0.42) if shared_scale else (max(width, 1.2) + 0.9, height + 0.85)
    wide, below = 2 * MARGIN + columns * across + bar - spare, 0.17 * -(-len(origin) // 80)
    alt = f"{title or 'An image and its maps'}: {'; '.join(name for name, _ in panels) or 'the image'}"
    figure = InlineFigure(wide, rows * down + (0.4 if said else 0.2) + below, alt)
    above = headed(figure, title)
    _sign(figure, origin)
    lefts = [MARGIN + i * across - (spare if i else 0) for i in range(columns)]
    image_place, *places = [(lefts[i % columns], above + 0.3 + i // columns * down) for i in range(count)]
    show_image(axes_at(figure, *image_place, width, height), image, "image")
    top = largest([shown(heat, signed) for _, heat in panels])
    for place, (name, heat) in zip(places, panels, strict=True):
        axes = axes_at(figure, *place, width, height)
        draw_heatmap(axes, image, heat, signed=signed, vmax=top if shared_scale else None, upsample=upsample,
                     colour_bar=not shared_scale, label=label, note="a scale of its own")  # fmt: skip
        entitle(axes, _shortened(name, int(across * 14)))
        if shared_scale and place == places[columns - 2]:
            draw_colour_bar(axes, image, signed, top)
    if said:
        sentence = textwrap.fill(range_in_words(label, signed, top, "the largest in this figure"), int(wide * 13))
        figure.text(MARGIN / wide, (0.1 + below) / figure.get_figheight(), sentence, va="bottom", **NOTE)
    return figure


def plot_interactions(interactions, *, columns: int = 5) -> InlineFigure:
    """Which region each word of a caption answers to: a signed map a word, all on one scale.

    Args:
        interactions: an `Interactions`.
        columns: maps in a row.
    """
    maps = [(word.text, interactions.heatmap(i, signed=True)) for i, word in enumerate(interactions.words)]
    said = {"origin": interactions.origin, "title": sharpest([name for name, _ in maps], interactions.maps)}
    return plot_maps(interactions.image, maps, signed=True, columns=columns, label="interaction", **said)


def plot_intervals(
    table,
    *,
    chance: float | None = None,
    label: str = "mean",
    names: Sequence[str] | None = None,
    title: str = "",
    references: int = 0,
) -> InlineFigure:
    """Means with their intervals, one row each, best read from the top: what can be told apart, and what cannot.

        plot_intervals(summarise(rows, by="method", value="pointing_game", cluster="image"), chance=0.25)

    Args:
        table: a DataFrame with the columns mean, low and high, as `statistics.summarise` gives it.
        chance: where a guess would land; a dashed line.
        label: what the values are, under the axis.
        names: what to call the rows; by default the other columns (without n), or else the index.
        title: of the figure.
        references: how many of the last rows are reference baselines, no methods: they are grey, below a rule.

    Raises:
        ValueError: the table lacks one of the three columns, or has no row.
    """
    rows = numbers(table, ("mean", "low", "high")).assign(row=range(len(table)))
    if not len(rows):
        raise GradeclipError("the table has no rows: there is nothing to draw")
    if names is None:
        others = [name for name in table.columns if name not in ("mean", "low", "high", "n")]
        names = [" ".join(map(str, row)) for row in table[others].to_numpy()] if others else table.index
    names = [_shortened(str(name), 52) for name in names]
    left = 0.4 + 0.075 * max(map(len, names))
    height = 0.3 * len(names)
    wide = min(4.3, FULL_WIDTH - left - 0.9)
    figure = InlineFigure(left + wide + 0.9, height + 0.65, f"{title or label}: " + "; ".join(
        f"{name} {row.mean:.3f}, {row.low:.3f} to {row.high:.3f}"
        for name, row in zip(names, rows.itertuples(), strict=True)
    ))  # fmt: skip
    axes = axes_at(figure, left, headed(figure, title) + 0.1, wide, height)
    methods = len(rows) - whole("references", references, 0, len(rows))
    draw_intervals(axes, rows[:methods], "row", order=range(len(rows)))
    if references:
        draw_intervals(axes, rows[methods:], "row", order=range(len(rows)), colour=PALETTE[-1])
    for row, value in enumerate(rows["mean"]):
        written = drawable(f"{value:.3f}")
        axes.text(1.02, row, written, va="center", fontsize=SMALLEST, transform=axes.get_yaxis_transform())
    if chance is not None:
        axes.axvline(chance, color="0.4", linestyle="--", linewidth=1)
        below = {"xycoords": axes.get_xaxis_transform(), "xytext": (0, -4), "textcoords": "offset points"}
        axes.annotate("chance", (chance, 0), **below, ha="center", va="top", **NOTE)
    axes.tick_params(axis="x", pad=14 if chance is not None else 3)
    name_rows(axes, names, label)
    if references:
        axes.axhline(methods - 0.5, color=PALETTE[-1], linewidth=0.8)
        for name in axes.get_yticklabels()[methods:]:
            name.set_color(PALETTE[-1])
    return figure


def _foot(origin: str, width: float) -> float:
    """Inches for the last lines of a figure of this width, which say which model made it."""
    return 0.42 + 0.15 * textwrap.fill(drawable(origin), int(width * 14)).count("\n")


def _sign(figure: InlineFigure, origin: str) -> None:
    """Say which model made the figure, in the last lines, if that is known."""
    across, down = figure.get_size_inches()
    if not origin:
        return
    told = textwrap.fill(drawable(origin), int(across * 14))
    figure.text(1 - MARGIN / across, 0.02 / down, told, ha="right", va="bottom", color="0.55", fontsize=SMALLEST)


def _prompts(explanation, index: int) -> list[tuple[str, Sequence]]:
    """Headline and words of a prompt and, in a contrast, of the other one. An embedding has a name but no words."""
    sides = [("", explanation.prompts, explanation.similarity, explanation.words)]
    if explanation.against is not None:
        other = explanation.against, explanation.against_similarity, explanation.against_words
        sides.append(("rather than: ", *other))
    prompts = []
    for before, names, similarity, words in sides:
        name = "" if words[index] else f" of {names[index]}"
        headline = f"{before}similarity {similarity[index]:.3f}{name}".replace("-", "\N{MINUS SIGN}")
        prompts.append((_shortened(headline, 70), words[index]))
    return prompts


def _shortened(text: str, length: int) -> str:
    return drawable(text if len(text) <= length else text[: length - 1].rstrip() + "…")


def _panel(image: Image.Image, width: float, height: float) -> tuple[float, float]:
    """Inches of the largest panel of the image's shape within the given ones; never too thin for a title."""
    scale = min(width / image.width, height / image.height)
    return max(image.width * scale, 0.9), max(image.height * scale, 0.35)


def _one_line(prompts: Sequence) -> float:
    """Inches of the longest headline or prompt, were it written in one line."""
    lines = [max(len(headline) * 0.075, sum(0.3 + 0.11 * max(len(word.text), 5) for word in words))
             for both in prompts for headline, words in both]  # fmt: skip
    return max(lines)


def _row(prompts: Sequence, darkest: Sequence[float], width: float, size: float) -> float:
    """Inches that the words of any prompt need in this size of type, and in a contrast those of the other one."""
    return max(
        len(both) * (max(words_height(words, width, vmax=vmax, size=size) for _, words in both) + 0.35) - 0.35
        for both, vmax in zip(prompts, darkest, strict=True)
    )
