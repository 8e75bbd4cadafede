"""Figures of the study of words, each a pure function of what was measured.

WordStudy, correlations -> figure
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes

from gradeclip_utils.checks import chosen, nearest
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.explain import Explainer
from gradeclip_utils.explanation import Interactions
from gradeclip_utils.language import NORMS
from gradeclip_utils.methods import METHODS
from gradeclip_utils.notices import heard_by
from gradeclip_utils.plots import InlineFigure, axes_at, draw_heatmap, draw_words, show_image
from gradeclip_utils.plots.axes import (
    FULL_WIDTH,
    MARGIN,
    NOTE,
    PALETTE,
    SMALLEST,
    drawable,
    headed,
    name_rows,
    style,
    words_height,
)
from gradeclip_utils.plots.schematic import plot_graph
from gradeclip_utils.words import Word

from ..plots import plot_groups
from .correlations import FEWEST, Permutation, Question, correlate
from .saliency import EVEN
from .word_study import WordStudy

ROLES = dict(zip(("noun", "association", "other"), PALETTE, strict=False))
_LEGEND = ("nouns", "associations", "other words")
_SHOWN = 3  # captions of a word
_ABSENT = "{!r} is not in this plot: no value for it, or left out"
_WHERE = "where {!r} matches, and what each word gets by {}"
_SCATTER, _ROW = 3.4, 1.0  # inches: heights in a figure
_FRACTIONS = "fraction of the caption's importance: pale 0 to dark 1"
_MAPS = f"""Words: {_FRACTIONS}.
Maps: word x region by Grad-ECLIP, orange for and purple against, each on a scale of its own."""


def plot_words(
    study: WordStudy, norm: str = "concreteness", part: str = "all", method: str = "leave-one-out", word: str = "", *,
    draws: int = 200, report: Callable[[float], None] | None = None,
) -> InlineFigure:  # fmt: skip
    """What is known of words against how salient they are: a point a word. And one word, with its captions and maps."""
    table, word, headline = _chosen(study, norm, part, method, word, draws)
    rows = study.rows.loc[study.rows["word"] == word, "caption"].nunique() if word else 0
    height = _SCATTER + 0.9 + (0.5 + _ROW * min(rows, _SHOWN) if word else 0.25)
    told = f"{headline}: {method} over {norm}, {part} words{f'; {word}' if word else ''}"
    figure = InlineFigure(FULL_WIDTH, height, told)
    head = headed(figure, headline)
    axes = axes_at(figure, 0.75, head + 0.05, FULL_WIDTH - 0.9, _SCATTER)
    shown = table[table["shown"]]
    roles = _roles(shown)
    palette = {name: colour for name, colour in zip(_LEGEND, ROLES.values(), strict=True) if name in set(roles)}
    seaborn.scatterplot(x=shown["across"], y=shown["saliency"], hue=roles, hue_order=list(palette), palette=palette,
                        s=18, alpha=0.6, linewidth=0, ax=axes)  # fmt: skip
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.set_ylim(np.log(EVEN) - 0.15, max(1.6, shown["saliency"].max() + 0.2))  # from the lowest that there can be
    axes.legend(loc="upper left", ncols=3, fontsize=SMALLEST, frameon=False, columnspacing=1)
    label = f"{NORMS.get(norm, norm.replace('_', ' '))}; words by rank"
    style(axes, label, f"saliency by {_title(method)}\n0: an average word")
    some = shown.sort_values("across").iloc[np.linspace(0, len(shown) - 1, 6).astype(int)].drop_duplicates("across")
    axes.set_xticks(some["across"], [f"{one:.3g}" for one in some[norm]])
    columns = (shown[name] for name in ("across", "saliency", norm))
    figure.points = [
        (axes, x, y, f"{name}: {value:.3g} across, {y:.3g} up; {role}")
        for name, x, y, value, role in zip(shown.index, *columns, roles, strict=True)
    ]
    model = f"{study.clip.name} ({study.clip.pretrained or 'own weights'})"
    figure.text(0.99, 0.01, drawable(model), ha="right", va="bottom", color="0.55", fontsize=SMALLEST)
    if word:
        _mark(axes, word, table)
        _show_captions(figure, head + _SCATTER + 0.85, study, word, method, report)
    else:
        figure.text(0.01, 0.03, "Name a word to see its captions and their maps.", **NOTE)
    return figure


def _chosen(study: WordStudy, norm: str, part: str, method: str, word: str, draws: int):
    """The table with saliency and what is shown, the word as it stands there, the correlation in words; all checked."""
    floats = [name for name in study.table if study.table[name].dtype.kind == "f"]
    parts = ["all", *sorted(study.table["part"].unique())]
    for what, given, known in (("norm", norm, floats), ("part", part, parts), ("method", method, list(study.values))):
        chosen(what, given, known)
    saliency, word = study.values[method].groupby(study.rows["word"]), word.strip().lower()
    table = study.table.assign(saliency=saliency.mean())
    wanted = (table["part"].eq(part) | (part == "all")) & (saliency.count() >= FEWEST)
    table["shown"] = wanted & table["saliency"].notna() & table[norm].notna()
    table["across"] = table[norm].where(table["shown"]).rank()
    if word and word not in study.table.index:
        near = ", ".join(nearest(word, study.table.index, most=4, cutoff=0))
        raise GradeclipError(f"no caption of the study holds {word!r}; words like it are {near}")
    found = correlate(
        [Question("shown", norm, method, "shown")], study.rows, study.values[[method]], table, draws=draws
    ).iloc[0]
    sure, name = found.low > 0 or found.high < 0, NORMS.get(norm, norm.replace("_", " ")).split(",")[0]
    said = f"saliency {'grows' if found.value > 0 else 'falls'} with" if sure else "cannot tell if saliency goes with"
    numbers = f"Spearman {found.value:+.2f} [{found.low:+.2f}, {found.high:+.2f}], {found.n} words"
    return table, word, f"{said} {name}: {numbers}"


def _roles(table: pd.DataFrame) -> pd.Series:
    """What each word is called in the legend."""
    roles = table["role"] if "role" in table else pd.Series("other", index=table.index)
    return roles.map(dict(zip(ROLES, _LEGEND, strict=True)))


def _mark(axes: Axes, word: str, table: pd.DataFrame) -> None:
    """A ring around one word, or a line that says why it has none."""
    row = table.loc[word]
    if not row["shown"]:
        axes.text(0.02, 0.9, _ABSENT.format(word), va="top", transform=axes.transAxes, **NOTE)  # below the legend
        return
    axes.plot(row["across"], row["saliency"], "o", markersize=11, markerfacecolor="none", markeredgecolor="black")
    left = row["across"] > np.mean(axes.get_xlim())
    axes.annotate(word, (row["across"], row["saliency"]), (-8 if left else 8, 8), textcoords="offset points",
                  ha="right" if left else "left", fontsize=11, fontweight="bold")  # fmt: skip


def _show_captions(figure: InlineFigure, head: float, study: WordStudy, word: str, method: str, report) -> None:
    """Up to three captions of a word, from so many inches below the upper edge: its region, and what each word gets."""
    figure.text(0.01, 1 - head / figure.get_figheight(), _WHERE.format(word, _title(method)), fontsize=9)
    figure.text(0.01, 0.01, _MAPS, va="bottom", **NOTE)
    for i, (caption, found, own) in enumerate(_captions(study, word, report)):
        top, side = head + 0.08 + _ROW * i, _ROW - 0.1
        show_image(axes_at(figure, 0.1, top, side, side), found.image, "")
        axes = axes_at(figure, 0.1 + _ROW, top, side, side)
        draw_heatmap(axes, found.image, found.heatmap(own, signed=True), signed=True, colour_bar=False)
        axes = axes_at(figure, 2 * _ROW + 0.2, top, FULL_WIDTH - 2 * _ROW - 0.3, _ROW + 0.25)  # no sentence below
        draw_words(axes, importance_fractions(study, caption, method), vmax=1.0, sentence="")


def _captions(
    study: WordStudy, word: str, report: Callable[[float], None] | None = None
) -> Iterator[tuple[int, Interactions, int]]:
    """Up to three captions that hold the word: number, regions of its words, and which of these words it is."""
    rows = study.rows[study.rows["word"] == word].drop_duplicates("caption").iloc[:_SHOWN]
    for i, (caption, start) in enumerate(zip(rows["caption"], rows["start"], strict=True)):
        if report is not None:
            report(i / len(rows))
        found = _regions(study, caption)
        yield caption, found, next(k for k, one in enumerate(found.words) if one.start == start)


@lru_cache(maxsize=4)
def _explainer(study: WordStudy) -> Explainer:
    """One for all captions of a study."""
    return Explainer(study.clip)


@lru_cache(maxsize=64)  # another norm, part or method changes nothing about a caption and its image
def _regions(study: WordStudy, caption: int) -> Interactions:
    """Where each word of one caption matches."""
    scene = study.scenes[caption]
    with heard_by(lambda warning: None):  # it is about words whose maps are not shown here
        return _explainer(study).interactions(scene.image(), scene.caption)


def importance_fractions(study: WordStudy, caption: int, method: str) -> list[Word]:
    """The words of one caption, each with its fraction of the caption's importance for a score."""
    mine = study.rows[study.rows["caption"] == caption]
    ratio = (np.exp(study.values[method][mine.index]) - EVEN) / (1 - EVEN)
    text = study.scenes[caption].caption
    own = zip(mine["start"], mine["word"], (ratio / len(mine)).fillna(0.0), strict=True)
    return [Word(text[a : a + len(word)], float(fraction), a, a + len(word)) for a, word, fraction in own]


def plot_correlations(table: pd.DataFrame, title: str = "") -> InlineFigure:
    """Correlations with their intervals, one row a question; the dashed line is zero."""
    named = table["figure"] + " (" + table["n"].astype(str) + ")"
    label = "Spearman's rank correlation (number of words in brackets)"
    table = table.rename(columns={"value": "mean"}).assign(figure=named)
    return plot_groups(table, "figure", label=label, reference=0, title=title)


def plot_permutations(found: Mapping[str, Permutation]) -> InlineFigure:
    """Where the correlation of permuted ratings lies, and where that of the true ones: one row a named test."""
    alike = "; ".join(name for name, one in found.items() if one.p >= 0.05) or "none of these"
    title = f"permuted ratings do as well as the true ones within: {alike}"
    figure = InlineFigure(FULL_WIDTH, 0.9 + 0.75 * len(found), f"{title}. " + "; ".join(
        f"{name}: found {one.observed:+.2f}, permuted {one.expected:+.2f}, p {one.p:.4f}" for name, one in found.items()
    ))  # fmt: skip
    left = 0.35 + 0.078 * max(map(len, found))
    axes = axes_at(figure, left, headed(figure, title) + 0.2, FULL_WIDTH - left - 0.3, 0.1 + 0.75 * len(found))
    null = pd.DataFrame({name: one.null for name, one in found.items()})
    seaborn.pointplot(null, orient="h", errorbar=("pi", 95), linestyle="none", marker="", color="0.6",
                      err_kws={"linewidth": 6}, ax=axes)  # fmt: skip
    for row, one in enumerate(found.values()):
        axes.plot(one.observed, row, "D", color=PALETTE[0], markersize=7)
        chance = "p < 0.001" if one.p < 0.001 else f"p = {one.p:.3f}"
        axes.text(one.observed, row - 0.22, chance, ha="center", va="bottom", fontsize=SMALLEST)
    axes.axvline(0, color="0.4", linestyle="--", linewidth=1)
    label = "Spearman's correlation: true ratings (diamond), 95 % of the permuted ones (grey)"
    name_rows(axes, list(found), label)
    axes.set_ylim(len(found) - 0.5, -0.6)
    return figure


def plot_importance(study: WordStudy, caption: int, methods: Sequence[str]) -> InlineFigure:
    """One caption by several methods, one row each; every word is shaded by its fraction of the importance."""
    words, left = [importance_fractions(study, caption, method) for method in methods], 0.2 * FULL_WIDTH
    room = FULL_WIDTH - left - 0.1
    height = max(words_height(one, room, vmax=1.0, size=9) for one in words)
    row = height - 0.2  # the sentence that `height` has room for stands below the last one alone
    most = {
        _title(method): max(one, key=lambda word: word.score).text for method, one in zip(methods, words, strict=True)
    }
    over = "most important: " + ", ".join(f"“{word}” by {name}" for name, word in most.items())
    figure = InlineFigure(FULL_WIDTH, row * len(methods) + 0.33, f"{over}: {study.scenes[caption].caption}")
    head = headed(figure, over) + 0.1
    for i, (method, one) in enumerate(zip(methods, words, strict=True)):
        axes = axes_at(figure, left, head + row * i, room, height)
        draw_words(axes, one, vmax=1.0, sentence=_FRACTIONS if i == len(methods) - 1 else "")
        axes.patch.set_visible(False)
        name = textwrap.fill(_title(method), 24)
        figure.text(MARGIN / FULL_WIDTH, 1 - (head + row * i) / figure.get_figheight(), name, fontsize=9, va="top")
    return figure


_CAUSES = {  # where each box of the causal graph stands, in inches
    "what the word means": (0.95, 1.75), "how common it is": (0.95, 0.75), "concreteness": (2.8, 1.75),
    "role: names a thing, or hints at it": (4.0, 2.7), "said in training (exposure)": (4.0, 0.75),
    "place in the caption, tokens": (6.6, 0.75), "tells about the image\n(informativeness)": (6.7, 2.7),
    "saliency": (6.7, 1.75),
}  # fmt: skip
_ARROWS = (
    (0, 1), (0, 2), (2, 3), (1, 4), (3, 4), (3, 5), (3, 6), (1, 5), (3, 7), (4, 7), (5, 7), (6, 7), (2, 7),
)  # fmt: skip


def plot_causes() -> InlineFigure:
    """The causal graph that the study of words assumes: an arrow from each cause to what it may change."""
    places, names = list(_CAUSES), [name.replace("\n", " ") for name in _CAUSES]
    told = "; ".join(f"{names[one]} to {names[other]}" for one, other in _ARROWS)
    arrows: dict[tuple[str, str], dict] = {(places[one], places[other]): {} for one, other in _ARROWS}
    arrows["concreteness", "saliency"] = {"color": PALETTE[1], "linewidth": 2.2}
    around = {"connectionstyle": "arc3,rad=0.22"}  # the box between them
    arrows["how common it is", "place in the caption, tokens"] = around
    boxes = {name: (x, y, name) for name, (x, y) in _CAUSES.items()}
    around_it = _paths("concreteness", arrows) - 1
    title = f"concreteness may change saliency by itself (orange), and by {around_it} paths through the word's role"
    alt = f"A causal graph with arrows from {told}"
    return plot_graph(boxes, arrows, width=FULL_WIDTH - 0.3, height=3.05, alt=alt, title=title)


def _paths(cause: str, arrows: Iterable[tuple[str, str]]) -> int:
    """How many paths lead from a cause to saliency."""
    return 1 if cause == "saliency" else sum(_paths(end, arrows) for start, end in arrows if start == cause)


def _title(method: str) -> str:
    """The method as people call it; what was added to its name stays."""
    name, comma, rest = method.partition(", ")
    return METHODS[name].title + comma + rest if name in METHODS else method
