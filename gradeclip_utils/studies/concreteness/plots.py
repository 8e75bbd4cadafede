"""Word plots: the figures of the study of words, each a pure function of what was measured.

measures, statistics --> figure, or page of a panel
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ...explain import Explainer
from ...explanation import Interactions
from ...language import NORMS
from ...methods import METHODS
from ...notices import heard_by
from ...plots import InlineFigure, draw_heatmap, draw_words, paint, plot_intervals
from ...plots.axes import NOTE, drawable
from ...plots.colours import largest, number
from ...plots.html import Page, image_html, note_html, row_html, scatter_html, webp, words_html
from ...words import Word
from .saliency import EVEN, Study
from .correlations import Permutation, Question, answer

ROLES = {"noun": "#5b3a86", "association": "#e08214", "other": "#8c8c8c"}  # the colours of all maps, and a grey
_SHOWN = 3  # captions of a word
_ABSENT = "{!r} is not in this plot: no value for it, or left out"
_WHERE = "where {!r} matches, and what each word gets by {}"
_MAPS = "Maps: word x region by Grad-ECLIP, orange for and purple against, each on a scale of its own."
_SHARES = "share of the caption's importance: pale 0 to dark 1"


def plot_words(
    study: Study,
    norm: str = "concreteness",
    part: str = "all",
    method: str = "leave-one-out",
    word: str = "",
    *,
    draws: int = 200,
) -> InlineFigure:
    """What is known of words against how salient they are: a point a word. And one word, with its captions and maps.

    On the right are up to three captions of the word, each with the share of the importance that its words get (all
    shares of a caption add up to 1), and the region of the picture that the word matches (Grad-ECLIP, word x region).

    Args:
        study: what was measured.
        norm: across; a column of numbers in ``study.table``, such as the names in ``language.NORMS``.
        part: "all", or a part of speech: only these words are shown and correlated.
        method: up; a column of ``study.values``.
        word: to be found in the plot; "" shows the captions of none.
        draws: bootstrap samples of the interval that stands above.

    Raises:
        ValueError: a norm, part or method that there is not, a word that no caption holds, or too few words.
    """
    table, word, headline = _asked(study, norm, part, method, word, draws)
    figure = InlineFigure(11.4, 4.7, _told(norm, part, method, word, headline))
    axes = figure.add_axes((0.06, 0.13, 0.42, 0.77))
    _scatter(axes, table[table["shown"]], norm, headline)
    axes.set_ylabel(_up(method), fontsize=9)
    figure.text(0.06, -0.03, drawable(_model(study)), va="bottom", color="0.55", fontsize=7)
    if word:
        _mark(axes, word, table, norm)
        _show_captions(figure, study, word, method)
    else:
        figure.text(0.53, 0.5, "Name a word to see its captions and their maps.", **NOTE)
    return figure


def words_page(
    study: Study,
    norm: str = "concreteness",
    part: str = "all",
    method: str = "leave-one-out",
    word: str = "",
    *,
    draws: int = 200,
    report: Callable[[float], None] | None = None,
) -> Page:
    """`plot_words` for a panel: every point says its word under the mouse. Arguments and errors as there.

    ``report`` is told, before each caption that has to be read, the share of them that is done.
    """
    table, word, headline = _asked(study, norm, part, method, word, draws)
    shown = table[table["shown"]]
    groups = {
        label: (colour, dict(zip(own.index, zip(own[norm], own["saliency"], strict=True), strict=True)))
        for label, colour, own in _groups(shown)
    }
    plot = scatter_html(groups, _across(norm), _up(method), headline, ylim=_heights(shown), mark=word)
    beside = [note_html("Name a word to see its captions and their maps.")]
    if word:
        beside = _captions_html(study, word, method, report)
        own = table.loc[word]
        said = f"{word}: {_across(norm)}: {own[norm]:.3g}; {_up(method)}: {number(own['saliency'], 1.0)}"
        beside.insert(0, note_html(said if own["shown"] else _ABSENT.format(word)))
    right = f'<div style="flex:1 1 420px;min-width:260px">{"".join(beside)}{note_html(_model(study))}</div>'
    return Page(row_html(plot, right, align="flex-start"), _told(norm, part, method, word, headline))


def _asked(study: Study, norm: str, part: str, method: str, word: str, draws: int) -> tuple[pd.DataFrame, str, str]:
    """The table with saliency, the word as it stands there, and the correlation in words; all checked."""
    table, word = _chosen(study, norm, part, method), word.strip().lower()
    if word and word not in study.table.index:
        near = ", ".join(sorted(study.table.index, key=lambda other: _unlike(word, other))[:4])
        raise ValueError(f"no caption of the study holds {word!r}; words like it are {near}")
    found = answer(
        [Question("shown", norm, method, "shown")], study.rows, study.values[[method]], table, draws=draws
    ).iloc[0]
    return table, word, f"Spearman {found.estimate:+.2f} [{found.low:+.2f}, {found.high:+.2f}], {found.n} words"


def _told(norm: str, part: str, method: str, word: str, headline: str) -> str:
    return f"{method} over {norm}, {part} words: {headline}{f'; {word}' if word else ''}"


def _across(norm: str) -> str:
    return NORMS.get(norm, norm.replace("_", " "))


def _up(method: str) -> str:
    return f"saliency by {_title(method)} (0: an average word)"


def _model(study: Study) -> str:
    return f"{study.clip.name} ({study.clip.pretrained or 'own weights'})"


def _heights(table: pd.DataFrame) -> tuple[float, float]:
    return np.log(EVEN) - 0.15, max(1.6, table["saliency"].max() + 0.2)


def _groups(table: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """Name, colour and words of each role that there is."""
    roles = table["role"] if "role" in table else pd.Series("other", index=table.index)
    names = {"noun": "nouns", "association": "associations", "other": "other words"}
    groups = [(names[role], colour, table[roles == role]) for role, colour in ROLES.items()]
    return [group for group in groups if len(group[2])]


def _chosen(study: Study, norm: str, part: str, method: str) -> pd.DataFrame:
    """The table with saliency, and which words are shown; checked."""
    numbers = [name for name in study.table if study.table[name].dtype.kind == "f"]
    parts = ["all", *sorted(study.table["part"].unique())]
    for what, given, known in (("norm", norm, numbers), ("part", part, parts), ("method", method, list(study.values))):
        if given not in known:
            raise ValueError(f"there is no {what} {given!r}; there are {', '.join(known)}")
    means = study.values[method].groupby(study.rows["word"]).mean()
    there = study.values[method].notna().groupby(study.rows["word"]).sum()
    table = study.table.assign(saliency=means)
    wanted = table["part"].eq(part) | (part == "all")
    return table.assign(shown=wanted & (there >= 3) & table["saliency"].notna() & table[norm].notna())


def _scatter(axes: Axes, table: pd.DataFrame, norm: str, headline: str) -> None:
    for label, colour, own in _groups(table):
        axes.plot(own[norm], own["saliency"], ".", color=colour, markersize=5, alpha=0.6, label=label)
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.set_ylim(_heights(table))
    axes.set_xlabel(_across(norm), fontsize=9)
    axes.set_title(headline, loc="left", fontsize=9)
    axes.legend(loc="upper left", ncols=3, fontsize=8, frameon=False, markerscale=1.6, columnspacing=1)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _mark(axes: Axes, word: str, table: pd.DataFrame, norm: str) -> None:
    row = table.loc[word]
    if not row["shown"]:
        axes.text(0.02, 0.98, _ABSENT.format(word), va="top", transform=axes.transAxes, **NOTE)
        return
    axes.plot(row[norm], row["saliency"], "o", markersize=11, markerfacecolor="none", markeredgecolor="black")
    left = row[norm] > np.mean(axes.get_xlim())
    axes.annotate(word, (row[norm], row["saliency"]), (-8 if left else 8, 8), textcoords="offset points",
                  ha="right" if left else "left", fontsize=11, fontweight="bold")  # fmt: skip


def _show_captions(figure: InlineFigure, study: Study, word: str, method: str) -> None:
    figure.text(0.53, 0.955, _WHERE.format(word, _title(method)), fontsize=9)
    figure.text(0.53, -0.03, _MAPS, va="bottom", **NOTE)
    for i, (caption, found, own) in enumerate(_captions(study, word)):
        top = 0.91 - 0.305 * i
        axes = figure.add_axes((0.53, top - 0.265, 0.11, 0.265))
        draw_heatmap(axes, found.image, found.heatmap(own, signed=True), signed=True, colour_bar=False)
        axes = figure.add_axes((0.655, top - 0.265, 0.335, 0.265))
        draw_words(axes, shares(study, caption, method), vmax=1.0, sentence=_SHARES)


def _captions_html(study: Study, word: str, method: str, report: Callable[[float], None] | None) -> list[str]:
    """Up to three captions of a word: its region, and what each word gets."""
    parts = [f"<b>{html.escape(_WHERE.format(word, _title(method)))}</b>"]
    for caption, found, own in _captions(study, word, report):
        vmax = largest([found.heatmap(own, signed=True)])
        image = paint(found.image, found.maps[own], box=found.box, signed=True, vmax=vmax)
        alt = f"where {word!r} matches in {study.scenes[caption].caption!r}"
        region = image_html(webp(image), alt, "flex:none;align-self:flex-start;width:112px;height:auto")
        words = words_html(shares(study, caption, method), vmax=1.0, values=True)
        parts.append(f'<div style="display:flex;gap:10px;margin-top:8px">{region}<div>{words}</div></div>')
    return [*parts, note_html(f"{_SHARES}. {_MAPS}")]


def _captions(
    study: Study, word: str, report: Callable[[float], None] | None = None
) -> Iterator[tuple[int, Interactions, int]]:
    """Up to three captions that hold the word: number, regions of its words, and which of these words it is."""
    rows = study.rows[study.rows["word"] == word].drop_duplicates("caption").iloc[:_SHOWN]
    for i, (caption, start) in enumerate(zip(rows["caption"], rows["start"], strict=True)):
        if report is not None:
            report(i / len(rows))
        found = _regions(study, caption)
        yield caption, found, next(k for k, one in enumerate(found.words) if one.start == start)


@lru_cache(maxsize=4)
def _explainer(study: Study) -> Explainer:
    return Explainer(study.clip)


@lru_cache(maxsize=64)  # another norm, part or method changes nothing about a caption and its picture
def _regions(study: Study, caption: int) -> Interactions:
    scene = study.scenes[caption]
    with heard_by(lambda warning: None):  # it is about words whose maps are not shown here
        return _explainer(study).interactions(scene.image(), scene.caption)


def shares(study: Study, caption: int, method: str) -> list[Word]:
    """The words of one caption of a study, each with its share of the caption's importance for a score."""
    mine = study.rows[study.rows["caption"] == caption]
    ratio = (np.exp(study.values[method][mine.index]) - EVEN) / (1 - EVEN)
    text = study.scenes[caption].caption
    own = zip(mine["start"], mine["word"], (ratio / len(mine)).fillna(0.0), strict=True)
    return [Word(text[a : a + len(word)], float(share), a, a + len(word)) for a, word, share in own]


def plot_answers(
    table: pd.DataFrame, title: str = "", label: str = "Spearman's rank correlation (number of words in brackets)"
) -> InlineFigure:
    """Answers of `statistics.answer` with their intervals, one row a question; the dashed line is zero."""
    shown = table.rename(columns={"estimate": "mean"})
    names = [f"{row.figure} ({row.n})" for row in table.itertuples()]
    figure = plot_intervals(shown, label=label, names=names, title=title)
    figure.axes[0].axvline(0, color="0.4", linestyle="--", linewidth=1)
    return figure


def plot_permutations(found: Mapping[str, Permutation]) -> InlineFigure:
    """Where the correlation of permuted ratings lies, and where that of the true ones: one row a name."""
    figure = InlineFigure(8.2, 0.9 + 0.75 * len(found), "; ".join(
        f"{name}: found {one.observed:+.2f}, permuted {one.expected:+.2f}, p {one.p:.4f}" for name, one in found.items()
    ))  # fmt: skip
    axes = figure.add_axes((0.22, 0.5 / figure.get_figheight(), 0.72, 1 - 0.8 / figure.get_figheight()))
    for row, one in enumerate(found.values()):
        low, high = np.quantile(one.null, [0.025, 0.975])
        axes.hlines(row, low, high, color="0.6", linewidth=6)
        axes.plot(one.observed, row, "D", color="#5b3a86", markersize=7)
        chance = "p < 0.001" if one.p < 0.001 else f"p = {one.p:.3f}"
        axes.text(one.observed, row - 0.22, chance, ha="center", va="bottom", fontsize=8)
    axes.axvline(0, color="0.4", linestyle="--", linewidth=1)
    axes.set(yticks=range(len(found)), ylim=(len(found) - 0.5, -0.6))
    axes.set_yticklabels(list(found), fontsize=9)
    axes.set_xlabel("Spearman's correlation: true ratings (diamond), 95 % of the permuted ones (grey)", fontsize=9)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    return figure


def plot_shares(study: Study, caption: int, methods: Sequence[str]) -> InlineFigure:
    """One caption by several methods, one row each; every word is shaded by its share of the caption's importance."""
    text = study.scenes[caption].caption
    figure = InlineFigure(9.4, 0.55 * len(methods) + 0.25, f"Shares of importance in {text!r} by {', '.join(methods)}")
    height, below = 0.55 / figure.get_figheight(), 0.25 / figure.get_figheight()
    for row, method in enumerate(methods):
        bottom = below + (len(methods) - 1 - row) * height
        axes = figure.add_axes((0.2, bottom - 0.6 * below, 0.79, height + 0.6 * below))
        sentence = "share of the caption's importance: pale 0 to dark 1" if row == len(methods) - 1 else ""
        draw_words(axes, shares(study, caption, method), vmax=1.0, sentence=sentence)
        axes.patch.set_visible(False)
        figure.text(0.005, bottom + 0.7 * height, _title(method), fontsize=9, va="center")
    return figure


def _title(method: str) -> str:
    name, comma, rest = method.partition(", ")
    return METHODS[name].title + comma + rest if name in METHODS else method


def _unlike(word: str, other: str) -> tuple[int, int]:
    """Smaller for a word that begins alike and is about as long."""
    same = next((i for i, (a, b) in enumerate(zip(word, other, strict=False)) if a != b), min(len(word), len(other)))
    return -same, abs(len(word) - len(other))
