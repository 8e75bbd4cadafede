"""Drawing: the one description of what a figure of maps shows. Two backends draw it.

    Explanation, Interactions, maps --here--> Drawing -> maps (matplotlib), page (HTML)

A drawing is an image and one panel per prompt. A panel has a title, whose words are shaded by their
scores, a map, and below it a bar: the similarity, or in a contrast the lead. All panels share one
scale unless the drawing says otherwise.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any

import numpy as np
from PIL import Image

from ..language import is_function_word
from .colours import abs_max, is_whole, positive_part

MINUS = "\N{MINUS SIGN}"
LEAD_SHADE = 0.75  # of the colour scale: a lead in a bar
_BAR_AXIS = 1.45  # length of a bar's axis, in units of the largest similarity


@dataclass(frozen=True)
class Shade:
    """A word of a title.

    Attributes:
        text: as it was written.
        score: None: the word has no number and no colour.
        small: a function word or a sign.
        plain: the word has its number, but no colour.
        struck: the word is struck out: it is left out, or the model does not know it.
        sentence: the score in words.
    """

    text: str
    score: float | None = None
    small: bool = False
    plain: bool = False
    struck: bool = False
    sentence: str = ""

    @property
    def shade(self) -> float:
        """The score that is coloured."""
        return 0.0 if self.score is None or self.plain else self.score


# A word of a title and, in a contrast, the word below it in the other caption.
Cell = tuple[Shade, Shade | None]


@dataclass(frozen=True, eq=False)
class Panel:
    """A title, a map, and the bar below them.

    Attributes:
        name: the title in plain text.
        cells: the words of the title.
        map: (h, w) on the token grid, or in pixels of the box; None if the method has no maps.
        scale: the value of the darkest colour.
        value: the length of the bar: a similarity, or the lead in a contrast.
        digits: of the value, as it is written.
        above: the percentage of the other captions below the similarity.
        tick: a place on the axis: the median of the other captions, under a lead their mean.
        lead_over: what the value leads, in words; then the bar is coloured from the tick on.
        best: whether the bar is dark.
        note: text at the bar in place of the similarity.
    """

    name: str
    cells: tuple[Cell, ...]
    map: np.ndarray | None
    scale: float = 0.0
    value: float | None = None
    digits: int = 2
    above: float | None = None
    tick: float | None = None
    lead_over: str = ""
    best: bool = True
    note: str = ""

    @property
    def words(self) -> list[Shade]:
        """All words of the title."""
        return [word for cell in self.cells for word in cell if word is not None]

    @property
    def start(self) -> float:
        """Where the bar's number begins: at zero, or a lead at the tick."""
        if not self.lead_over:
            return 0.0
        assert self.tick is not None
        return self.tick

    @property
    def labels(self) -> tuple[str, ...]:
        """Wordings of the text at the bar, the longest first."""
        if self.note:
            return (self.note,)
        if self.value is None:
            return ()
        if self.lead_over:
            lead = f"lead {rounded(self.value - self.start, self.digits)}"
            return f"{lead} over {self.lead_over}", f"{lead} over others", lead

        value = rounded(self.value, self.digits)
        if self.above is None:
            return f"similarity {value}", value
        if self.above > 99.99:
            place = "above all other captions"
            return f"similarity {value}, {place}", f"{value}, {place}", f"{value}, above all", value
        share = f"{min(round(self.above), 99)} %"
        return (
            f"similarity {value}, above {share} of captions",
            f"{value}, above {share} of captions",
            f"{value}, above {share}",
            value,
        )


@dataclass(frozen=True, eq=False)
class Drawing:
    """An image and its panels.

    Attributes:
        image, box: the image, and the part of it that the model saw; None: all of it.
        panels: from left to right.
        signed: whether the maps show relevance against.
        word_scale: the value of the darkest word; 0 if no word has a score.
        word_legend: what the score of a word is.
        strikes: a word's score is what the bar loses without this word.
        shared: one scale for all maps, or each its own.
        lead: the bars are leads, from zero.
        null_max, null_count: the largest similarity of the other captions, and their number; 0 if
            panels differ in it.
        notes: what the model does not know, lines of the legend.
        origin: model, method and layers.
        upsample: "bilinear" or "nearest".
    """

    image: Image.Image
    box: tuple[float, float, float, float] | None
    panels: tuple[Panel, ...]
    signed: bool = False
    word_scale: float = 0.0
    word_legend: str = "relevance of a word"
    strikes: bool = False
    shared: bool = True
    lead: bool = False
    null_max: float | None = None
    null_count: int = 0
    notes: tuple[str, ...] = ()
    origin: str = ""
    upsample: str = "bilinear"

    @property
    def framed(self) -> bool:
        """Whether the model saw a part of the image only."""
        return not is_whole(self.box, self.image)

    @property
    def both(self) -> bool:
        """Whether anything in the drawing can be against."""
        scores = [word.shade for panel in self.panels for word in panel.words]
        return self.signed or min(scores, default=0) < 0

    @property
    def bars(self) -> tuple[float, float]:
        """The ends of the axis of the bars. The other captions set it, so no prompt changes it.

        A bar ends where the axis does. The axis has a part below zero for leads, and where half of
        the other captions have a similarity below zero.
        """
        values = [panel.value for panel in self.panels if panel.value is not None]
        if self.null_max is None:
            high = _BAR_AXIS * max(abs_max(values), 0.01)
            below_zero = self.lead or min(values, default=0.0) < 0
        else:
            high = _BAR_AXIS * max(abs(self.null_max), 0.01)
            ticks = [panel.tick for panel in self.panels if panel.tick is not None]
            below_zero = min(ticks, default=0.0) < 0
        return (-high if below_zero else 0.0), high

    @property
    def legend(self) -> list[str]:
        """The lines below the strip of colours: the scale, the tick and the frame."""
        lines = self._scale_lines()
        leads = {panel.lead_over for panel in self.panels if panel.lead_over}
        lines += [f"tick: mean of {others}, coloured: the lead" for others in sorted(leads)]
        if any(panel.tick is not None and not panel.lead_over for panel in self.panels):
            count = self.null_count or "the"
            lines.append(f"tick: half of {count} other captions")
        if self.framed:
            lines.append("frame: what the model saw")
        return [*lines, *self.notes]

    def _scale_lines(self) -> list[str]:
        """The largest relevance of the maps, and the largest score of the words."""
        scales = [panel.scale for panel in self.panels if panel.map is not None]
        darkest = max(scales, default=0.0)

        lines = []
        if scales and darkest == 0:
            nothing = "zero everywhere" if self.signed else "nowhere above zero"
            lines.append(f"relevance: {nothing}")
        elif len(scales) > 1 and not self.shared:
            lines.append("each map has its own scale")
        elif scales:
            lines.append(f"relevance: darkest {_number(darkest)}")
        if self.word_scale:
            lines.append(f"words: {self.word_legend}, darkest {_number(self.word_scale)}")
        return lines

    @property
    def alt(self) -> str:
        """What the drawing shows, in words."""
        if not self.panels:
            return "An image"
        parts = []
        for panel in self.panels:
            label = f" ({panel.labels[0]})" if panel.labels else ""
            parts.append(panel.name + label)
        return f"An image and its relevance maps: {'; '.join(parts)}"


def rounded(value: float, digits: int = 2) -> str:
    """A similarity with two digits or more, and zero without a sign."""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", MINUS)


def digits_to_tell_apart(values: Iterable[float]) -> int:
    """Two digits, or up to four where fewer would write different numbers alike."""
    different = {round(value, 4) for value in values}
    for digits in (2, 3):
        if len({rounded(value, digits) for value in different}) == len(different):
            return digits
    return 4


def _number(value: float) -> str:
    """A number above zero with two significant digits."""
    digits = 1 - math.floor(math.log10(value))
    return f"{value:.{max(0, min(6, digits))}f}"


def is_boxed(cell: Cell) -> bool:
    """Whether a cell has two words that make the difference of a contrast."""
    upper, lower = cell
    return lower is not None and not (upper.small and lower.small)


# ------------------------------------------------------------------------------------- titles


def title_of(words: Sequence, name: str = "", result=None) -> tuple[Cell, ...]:
    """The cells of a prompt: its words, or its name if it has none; with sentences of a result."""
    if words:
        return tuple((_shade(word, result), None) for word in words)
    return tuple((Shade(part), None) for part in name.split())


def _shade(word, result=None) -> Shade:
    """A word of a title. A function word has no colour under the published scores."""
    if word is None:
        return Shade("")
    shade = Shade(word.text, float(word.score), is_function_word(word.text))
    if result is None:
        return shade
    return replace(
        shade,
        plain=not result.is_filled(word),
        struck=result.is_unknown(word),
        sentence=result.word_sentence(word),
    )


def _stacked(words: Sequence, against: Sequence, result) -> tuple[Cell, ...]:
    """The cells of two captions: words that differ are stacked.

    A shared word stands once, with the sum of its scores and without a colour.
    """
    cells: list[Cell] = []
    first = [word.text.lower() for word in words]
    second = [word.text.lower() for word in against]
    matcher = SequenceMatcher(None, first, second, autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        for upper, lower in zip_longest(words[a:b], against[c:d]):
            if kind == "equal":
                shared = replace(upper, score=upper.score + lower.score)
                cells.append((replace(_shade(shared, result), plain=True), None))
            else:
                cell = (_shade(upper, result), _shade(lower, result))
                if not is_boxed(cell):
                    cell = (replace(cell[0], plain=True), replace(cell[1], plain=True))
                cells.append(cell)
    return tuple(cells)


# ----------------------------------------------------------------------------------- drawings


def of_explanation(
    explanation,
    *,
    shared: bool = True,
    indices: Sequence[int] | None = None,
) -> Drawing:
    """The drawing of an `Explanation`, or of its prompts with some indices."""
    if indices is None:
        indices = range(len(explanation.prompts))
    is_contrast = explanation.against is not None
    values = bar_values(explanation)
    best = max(values[i] for i in indices)
    numbers = values if explanation.lead is None else explanation.lead
    digits = digits_to_tell_apart(numbers[i] for i in indices)

    panels = []
    for i in indices:
        panel = _prompt_panel(explanation, i)
        panel = replace(
            panel,
            value=float(values[i]),
            digits=digits,
            best=bool(values[i] == best),
        )
        if is_contrast:
            panel = _contrasted(panel, explanation, i)
        elif explanation.against_others:
            panel = replace(panel, tick=explanation.null_mean, lead_over=explanation.lead_over)
        elif explanation.percentile is not None:
            above = float(explanation.percentile[i])
            panel = replace(panel, above=above, tick=explanation.null_median)
        panels.append(panel)

    return _of_result(
        explanation,
        panels,
        signed=is_contrast,
        shared=shared,
        lead=is_contrast,
        null_max=None if is_contrast else explanation.null_max,
        null_count=explanation.null_count,
    )


def bar_values(explanation) -> np.ndarray:
    """The ends (T,) of the bars: similarities, or in a contrast of two the leads."""
    similarity = np.asarray(explanation.similarity, dtype=float)
    if explanation.against is None:
        return similarity
    return similarity - explanation.against_similarity


def _prompt_panel(explanation, i: int) -> Panel:
    """Title and map of one prompt."""
    name = explanation.prompts[i]
    map_ = None
    scale = 0.0
    if explanation.image_maps is not None:
        map_ = positive_part(explanation.image_maps[i], explanation.against is not None)
        scale = abs_max(map_)
    return Panel(name, title_of(explanation.words[i], name, explanation), map_, scale)


def _contrasted(panel: Panel, explanation, i: int) -> Panel:
    """A prompt's panel with the other caption in its title, and the lead in words."""
    against = explanation.against[i]
    against_words = explanation.against_words[i]
    if explanation.words[i] and against_words:
        cells = _stacked(explanation.words[i], against_words, explanation)
    else:
        cells = panel.cells + title_of((), f"not {against}")

    lead = panel.value or 0.0
    gap = rounded(abs(lead))
    if gap == "0.00":
        gap = "less than 0.01"
    if abs(lead) <= 1e-6:
        verdict = "no difference"
    elif lead > 0:
        verdict = f"leads by {gap}"
    else:
        verdict = f"is behind by {gap}"
    similarity = rounded(explanation.similarity[i])
    against_similarity = rounded(explanation.against_similarity[i])
    return replace(
        panel,
        name=f"{panel.name}, not {against}",
        cells=cells,
        note=f"{verdict} ({similarity}, other {against_similarity})",
    )


def of_interactions(interactions, words: str | Sequence[str] = "content") -> Drawing:
    """The drawing of an `Interactions`: a signed map per word.

    `words` is "content" for nouns and adjectives, "all", or a list of words of the caption.
    """
    texts = [word.text for word in interactions.words[0]]
    if words == "content":
        indices = [i for i, text in enumerate(texts) if not is_function_word(text)]
    elif words == "all":
        indices = []
    else:
        indices = [i for i, text in enumerate(texts) if text in words]

    panels = []
    for i in indices or range(len(texts)):
        map_ = interactions.image_maps[i]
        # The score of a word is another quantity than its map, so the title has no shade.
        panels.append(Panel(texts[i], title_of((), texts[i]), map_, abs_max(map_)))
    return _of_result(interactions, panels, signed=True)


def of_caption(interactions) -> Drawing:
    """The drawing of an `Interactions` in one panel, which has the sum of all words' maps."""
    map_ = interactions.image_maps.sum(0)
    panel = Panel(
        interactions.prompts[0],
        title_of(interactions.words[0], result=interactions),
        map_,
        abs_max(map_),
        float(interactions.similarity[0]),
    )
    note = f"{panel.labels[0]}; map of all words, point at one for its own"
    return _of_result(interactions, [replace(panel, note=note)], signed=True)


def _of_result(result, panels: Sequence[Panel], **look: Any) -> Drawing:
    """The drawing of panels of a result, with its model, method and layers."""
    scores = [word.shade for panel in panels for word in panel.words]
    drawing = Drawing(
        result.image,
        result.box,
        tuple(panels),
        word_scale=abs_max(scores),
        word_legend=result.words_legend,
        strikes=result.provenance.words == "leave-one-out" and not look.get("lead"),
        notes=result.notes,
        origin=result.origin,
        **look,
    )
    return scaled(drawing)


def of_maps(
    image: Image.Image,
    maps: Iterable[tuple[str, np.ndarray]],
    *,
    signed: bool = False,
) -> Drawing:
    """The drawing of named maps of one image, each with its own scale (see `scaled`)."""
    panels = []
    for name, values in maps:
        map_ = positive_part(np.asarray(values, dtype=np.float32), signed)
        panels.append(Panel(name, title_of((), name), map_, abs_max(map_)))
    return Drawing(image, None, tuple(panels), signed)


def scaled(drawing: Drawing) -> Drawing:
    """A drawing with one scale for all its maps, unless each has its own."""
    if not drawing.shared:
        return drawing
    top = max((panel.scale for panel in drawing.panels), default=0.0)
    panels = tuple(replace(panel, scale=top) for panel in drawing.panels)
    return replace(drawing, panels=panels)
