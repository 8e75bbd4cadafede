"""Figures of the study of binding: tables and pairs in, a matplotlib figure out. Only the playground asks a model.

pairs, rows, index -> tables -> figures; and state -> scene, captions, maps -> the playground
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..drawing import (
    NOTE,
    Picture,
    draw_heatmap,
    drawable,
    entitle,
    largest,
    number,
    shown,
)
from ..explain import undisturbed
from ..explanation import Explanation
from ..methods import grad_eclip
from ..plots import axes_at, name_rows, show_picture
from ..scenes import Scene, describe, relation_between, withheld_artist
from ..sprites import ARTISTS, COLOURS, Object, concepts
from ..views import onto_picture
from .attributes import Pair
from .binding import Reader

PLACES = {"upper left": (24, 24), "upper right": (72, 24), "lower left": (24, 72), "lower right": (72, 72)}
QUESTIONS = ("colours exchanged", "places exchanged")
NO_COLOUR = "no colour"
_SERIES = ("#5b3a86", "#d95f02", "0.45")  # told apart by their marks too
_MARKS = ("o", "s", "D")


def plot_by_kind(
    panels: Mapping[str, pd.DataFrame], *, lines: Mapping[str, float] | None = None, by: str = "kind",
    series: str | None = None, limits: tuple[float, float] | None = None, width: float = 2.6, title: str = "",
) -> Picture:  # fmt: skip
    """Means with intervals, one row a kind, one panel beside the other; rows are those of the first panel.

    Args:
        panels: title -> table with the columns `by`, mean, low and high, as `statistics.summarise` gives them.
        lines: title -> where a guess lands: a dashed line.
        series: a column whose (up to three) values are drawn in colours and marks of their own in every row.
        limits: of all panels' axes; each has its own by default.
        width: inches of one panel.

    Raises:
        ValueError: there are no panels, or a table lacks one of the columns.
    """
    wanted = [by, "mean", "low", "high", *([series] if series else [])]
    lacking = [(name, column) for name, table in panels.items() for column in wanted if column not in table]
    if not panels or lacking:
        raise ValueError(f"one table or more with the columns {', '.join(wanted)} are needed; lacking: {lacking}")
    rows = list(dict.fromkeys(next(iter(panels.values()))[by]))
    named = list(dict.fromkeys(v for table in panels.values() for v in table[series])) if series else [None]
    left, height = 0.3 + 0.075 * max(len(str(row)) for row in rows), 0.27 * len(rows) + 0.1
    figure = Picture(left + len(panels) * (width + 0.25), height + 1.05, f"{title or 'by kind'}: {', '.join(panels)}")
    for i, (name, table) in enumerate(panels.items()):
        axes = axes_at(figure, left + i * (width + 0.25), 0.55, width, height)
        _draw_rows(axes, table, rows, by, series, named)
        if limits:
            axes.set_xlim(limits)
        if lines and name in lines:
            axes.axvline(lines[name], color="0.4", linestyle="--", linewidth=1)
        name_rows(axes, rows if i == 0 else [""] * len(rows), "", name)
        if series and i == 0:
            below = (0, -0.3 / height)
            axes.legend(fontsize=8, frameon=False, ncols=len(named), loc="upper left", bbox_to_anchor=below)
    figure.text(0.1 / figure.get_figwidth(), 1 - 0.08 / figure.get_figheight(), title, va="top", fontsize=10)
    return figure


def _draw_rows(axes: Axes, table: pd.DataFrame, rows: Sequence, by: str, series: str | None, named: Sequence) -> None:
    offsets = np.linspace(-0.2, 0.2, len(named)) if len(named) > 1 else [0.0]
    for colour, mark, value, offset in zip(_SERIES, _MARKS, named, offsets, strict=False):
        part = table if series is None else table[table[series] == value]
        places = [rows.index(row) + offset for row in part[by]]
        axes.hlines(places, part["low"], part["high"], color=colour, linewidth=2)
        axes.plot(part["mean"], places, mark, color=colour, markersize=4.5, label=value)


def plot_pair(pair: Pair, similarity: np.ndarray) -> Picture:
    """Both pictures of a pair, each with its similarities (2 pictures, 2 captions) to the two captions."""
    figure = Picture(9.6, 2.75, "; ".join(f"a picture of {scene.caption}" for scene in pair.scenes))
    captions = [scene.caption for scene in pair.scenes]
    for side, scene in enumerate(pair.scenes):
        show_picture(axes_at(figure, 0.1 + 4.8 * side, 0.3, 2.2, 2.2), scene.image(), f"picture {side + 1}")
        axes = axes_at(figure, 2.45 + 4.8 * side, 0.62, 2.1, 1.5)
        _draw_bars(axes, captions, similarity[side], side)
    return figure


def _draw_bars(axes: Axes, captions: Sequence[str], values: Sequence[float], right: int | None = None) -> None:
    """One bar a caption, its text above it; the one that is true says so."""
    low, high = min(0.0, *values), max(*values, 1e-6)
    letters = int(axes.get_position().width * axes.get_figure().get_figwidth() * 16)
    for row, (caption, value) in enumerate(zip(captions, values, strict=True)):
        best = value == max(values)
        axes.barh(row, value, height=0.32, color=_SERIES[0] if best else "0.75")
        mark = " (true)" if row == right else ""
        text = _folded(caption + mark, letters)
        axes.text(low, row - 0.24, text, va="bottom", fontsize=8, parse_math=False)
        axes.text(max(value, 0), row, f" {value:.3f}".replace("-", "\N{MINUS SIGN}"), va="center", fontsize=8)
    axes.axvline(0, color="0.6", linewidth=0.6)
    axes.set(xlim=(low, low + 1.3 * (high - low)), ylim=(len(captions) - 0.6, -0.75), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def plot_gallery(cases: Sequence[tuple[str, Explanation]], *, columns: int = 4) -> Picture:
    """Pictures above their signed contrastive maps (`Explainer.explain(..., against=)`), each with a title of its own.

    Every map has its own scale: the strongest magnitude in it is the darkest ink.

    Raises ValueError if there are no cases, or one that is not a contrast.
    """
    if not cases or any(one.against is None for _, one in cases):
        raise ValueError("a gallery needs one contrastive explanation or more: explain(image, right, against=wrong)")
    columns = min(columns, len(cases))
    rows = -(-len(cases) // columns)
    figure = Picture(0.2 + 2.5 * columns, 0.4 + 4.3 * rows, "; ".join(title for title, _ in cases))
    for i, (title, one) in enumerate(cases):
        x, top = 0.1 + 2.5 * (i % columns), 0.7 + 4.3 * (i // columns)
        show_picture(axes_at(figure, x, top, 1.7, 1.7), one.image, _folded(title, 30, lines=4))
        heat = one.heatmap(0, signed=True)
        draw_heatmap(axes_at(figure, x, top + 1.8, 1.7, 1.7), one.image, heat, signed=True, note="")
    sentence = "orange speaks for the right caption, purple for the wrong one; each map on a scale of its own"
    figure.text(0.1 / figure.get_figwidth(), 0.1 / figure.get_figheight(), sentence, **NOTE)
    return figure


# ---------------------------------------------------------------------------------------------------------- playground


def playground(
    reader: Reader, first: str = "car", first_colour: str = "red", first_place: str = "upper left",
    second: str = "cat", second_colour: str = "blue", second_place: str = "lower right",
    question: str = "colours exchanged", background: int = 0,
) -> Figure:  # fmt: skip
    """Two things of your own, a true and a false caption: both similarities, and the maps that go with them.

    Shown are the maps of both captions, of the one rather than the other, and of the two words (or the one relation) on
    which they differ, inside the true caption. Nothing is kept between calls but what `reader` has read.

    Args:
        first, second: nouns of `sprites.concepts`; `first_colour`, `second_colour`: a colour or "no colour".
        first_place, second_place: names in `PLACES`.
        question: how the false caption is made, one of `QUESTIONS`.
        background: number of the background.

    Raises:
        ValueError: a noun, colour, place or question that does not exist; two things of one name or in one place; an
            exchange that changes nothing.
    """
    scene, false = playground_scene(
        first, first_colour, first_place, second, second_colour, second_place, question, background
    )
    picture, explainer = scene.image(), reader.explainer
    kind = "colour" if question == QUESTIONS[0] else "relation"
    spans = [span for span in scene.spans if span.kind == kind]
    with undisturbed(explainer.image_tower.device):
        right, wrong = reader.embedding(scene.caption), reader.embedding(false)
        own = [reader.words(scene.caption)[1][reader.members(scene.caption, s.start, s.end)].sum(0) for s in spans]
        view, trace = reader.seen(picture)
        directions = torch.stack([right, wrong, right - wrong, *own])
        maps = grad_eclip(explainer.image_tower, trace, directions[None])[0, :, -trace.grid[0] * trace.grid[1] :]
        similarity = [float(trace.embedding[0] @ text) for text in (right, wrong)]
    grid = maps.unflatten(-1, trace.grid).float().cpu().numpy()
    heats = [onto_picture(shown(map_, i == 2), view.box, picture.size) for i, map_ in enumerate(grid)]
    words = [f"the word{'s' if kind == 'relation' else ''} {scene.caption[s.start : s.end]!r}" for s in spans]
    names = ["the true caption", "the false caption", "true rather than false", *words]
    return _drawn_playground(picture, [scene.caption, false], similarity, dict(zip(names, heats, strict=True)))


def playground_scene(
    first: str, first_colour: str, first_place: str, second: str, second_colour: str, second_place: str,
    question: str, background: int = 0,
) -> tuple[Scene, str]:  # fmt: skip
    """The scene of the playground with its true caption, and the false caption; raises as `playground`."""
    things = [
        _thing(noun, colour, place)
        for noun, colour, place in ((first, first_colour, first_place), (second, second_colour, second_place))
    ]
    if question not in QUESTIONS:
        raise ValueError(f"the question must be one of {', '.join(QUESTIONS)}, got {question!r}")
    if first == second or first_place == second_place:
        same = f"both are a {first}" if first == second else f"both are {first_place}"
        raise ValueError(f"{same}: choose two different things in two different places")
    if question == QUESTIONS[0]:
        if first_colour == second_colour or NO_COLOUR in (first_colour, second_colour):
            raise ValueError(f"nothing to exchange between {first_colour!r} and {second_colour!r}: choose two colours")
        colours = [thing.colour for thing in things][::-1]
        false, _ = describe([replace(thing, colour=colour) for thing, colour in zip(things, colours, strict=True)])
        caption, spans = describe(things)
    else:
        moved = [replace(a, x=b.x, y=b.y) for a, b in (things, things[::-1])]
        false, _ = describe(things, relation_between(*moved))
        caption, spans = describe(things, relation_between(*things))
    return Scene(tuple(things), caption, spans, background), false


def _thing(noun: str, colour: str, place: str) -> Object:
    if noun not in concepts().index:
        raise ValueError(f"{noun!r} is no noun of the scenes: choose one of sprites.concepts(), such as 'car' or 'cat'")
    if colour not in (*COLOURS, NO_COLOUR) or place not in PLACES:
        known = f"colours are {', '.join(COLOURS)} and {NO_COLOUR}; places {', '.join(PLACES)}"
        raise ValueError(f"no {noun} can be {colour!r} and {place!r}: {known}")
    x, y = PLACES[place]
    return Object(noun, _artist(noun), None if colour == NO_COLOUR else colour, x, y, 38)


def _artist(noun: str) -> str:
    return next(artist for artist in ARTISTS if artist != withheld_artist(noun))


def _drawn_playground(picture, captions: Sequence[str], similarity: Sequence[float], heats: Mapping) -> Picture:
    right, wrong = similarity
    answer = "right" if right > wrong else "wrong"
    alt = f"{captions[0]}: similarity {right:.3f}; {captions[1]}: {wrong:.3f}; the model is {answer}"
    figure = Picture(0.2 + 2.5 * len(heats), 4.65, alt)
    show_picture(axes_at(figure, 0.1, 0.3, 1.7, 1.7), picture, "picture")
    _draw_bars(axes_at(figure, 2.6, 0.55, 4.4, 1.4), captions, similarity, right=0)
    margin = f"margin {right - wrong:+.3f}: the model is {answer}".replace("-", "\N{MINUS SIGN}")
    figure.text(2.6 / figure.get_figwidth(), 1 - 0.3 / 4.65, margin, fontsize=10, va="center")
    shared = largest(list(heats.values())[:2])
    for i, (name, heat) in enumerate(heats.items()):
        axes = axes_at(figure, 0.1 + 2.5 * i, 2.4, 1.7, 1.7)
        vmax = shared if i < 2 else largest([heat])
        draw_heatmap(axes, picture, heat, signed=i == 2, vmax=vmax, note="")
        entitle(axes, _folded(name, 30))
    sentence = (
        f"The captions' maps share one scale (darkest {number(shared, shared)}), the others have their own; in the "
        "middle one orange speaks for the true caption, purple for the false one."
    )
    figure.text(0.1 / figure.get_figwidth(), 0.12 / 4.65, sentence, **NOTE)
    return figure


def _folded(text: str, width: int, lines: int = 2) -> str:
    return "\n".join(textwrap.wrap(drawable(text), width, max_lines=lines, placeholder="…", break_on_hyphens=False))
