"""Drawing: the one description of what a figure of maps shows. Two backends draw it: `figures` and `page`.

    Explanation, Interactions, maps --here--> Drawing -> figures (matplotlib), page (HTML)

A drawing is an image and one panel per prompt. A panel has a title, whose words are shaded by their scores, a map, and
below it a bar: the similarity, or in a contrast the lead. All panels share one scale unless it says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any

import numpy as np
from PIL import Image

from .colours import is_whole, largest, shown

_SMALL_WORDS = frozenset(
    "a an the and or but of in on at to by for from with under over near behind beside between into onto is are was "
    "were be been being has have had it its this that these those there as than".split()
)


@dataclass(frozen=True)
class Shade:
    """A word of a title. `score` None: it has no score, and no colour. `small`: a function word or a sign."""

    text: str
    score: float | None = None
    small: bool = False


_Cell = tuple[Shade | None, Shade | None]  # of a title: a word; below it, in a contrast, the word in the other caption


@dataclass(frozen=True, eq=False)
class Panel:
    """A title, a map, and what stands below them."""

    name: str  # the title in plain text
    cells: tuple[_Cell, ...]
    map: np.ndarray | None  # (h, w) on the token grid, or in pixels of the box; None: the method has no maps of images
    scale: float = 0.0  # the value of the darkest colour
    value: float | None = None  # of the bar: a similarity, or the lead in a contrast
    above: float | None = None  # which part of the other captions lies below the similarity, in percent
    best: bool = True  # its bar is dark
    note: str = ""

    @property
    def labels(self) -> tuple[str, ...]:
        """What stands at the bar, the longest wording first."""
        if self.note:
            return (self.note,)
        if self.value is None:
            return ()
        value = f"{self.value:.2f}".replace("-", "\N{MINUS SIGN}")
        if self.above is None:
            return f"similarity {value}", value
        some = "all other" if self.above > 99.99 else f"{min(round(self.above), 99)} % of"
        return (
            f"similarity {value}, above {some} captions", f"{value}, above {some} captions",
            f"{value}, above {some.removesuffix(' of').removesuffix(' other')}", value,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Drawing:
    """An image and its panels."""

    image: Image.Image
    box: tuple[float, float, float, float] | None
    panels: tuple[Panel, ...]
    signed: bool = False  # whether the maps show what is against
    word_scale: float = 0.0  # the value of the darkest word; 0: no word has a score
    shared: bool = True  # one scale for all maps; else each has its own
    lead: bool = False  # the bars are leads, from zero
    median: float | None = None  # the similarity that half of the other captions lie below,
    count: int | None = None  # and how many there are
    origin: str = ""  # model, method and layers
    upsample: str = "bilinear"

    @property
    def framed(self) -> bool:
        """Whether the model saw a part of the image only."""
        return not is_whole(self.box, self.image)

    @property
    def both(self) -> bool:
        """Whether anything in the drawing can be against."""
        words = (word for panel in self.panels for cell in panel.cells for word in cell if word)
        return self.signed or any((word.score or 0) < 0 for word in words)

    @property
    def bars(self) -> tuple[float, float]:
        """The ends of the axis of the bars."""
        values = [panel.value for panel in self.panels if panel.value is not None]
        most = 1.45 * max([0.01, *map(abs, values), abs(self.median or 0)])
        return (-most if self.lead or min([0, *values]) < 0 else 0.0), most

    @property
    def legend(self) -> list[str]:
        """The lines below the strip of colours: the scale, and what tick and frame are."""
        scales = [panel.scale for panel in self.panels if panel.map is not None]
        lines = []
        if scales and not max(scales):
            lines.append("relevance: " + ("zero everywhere" if self.signed else "nowhere above zero"))
        elif scales:
            own = not self.shared and len(scales) > 1
            lines.append("relevance: darkest " + ("in each map at its largest" if own else _number(max(scales))))
        if self.word_scale:
            words = f"words: darkest {_number(self.word_scale)}" if not lines else f"words {_number(self.word_scale)}"
            lines = [", ".join([*lines, words])]
        if self.median is not None:
            lines.append(f"tick: half of {self.count or 'the'} other captions")
        if self.framed:
            lines.append("frame: what the model saw")
        return lines

    @property
    def alt(self) -> str:
        """What is shown, for those who cannot see it."""
        if not self.panels:
            return "An image"
        return "An image and its relevance maps: " + "; ".join(
            f"{panel.name}" + "".join(f" ({words})" for words in panel.labels[:1]) for panel in self.panels
        )


def _number(value: float) -> str:
    """A number above zero with two digits."""
    return f"{value:.{max(0, min(6, 1 - math.floor(math.log10(value))))}f}"


def _small(text: str) -> bool:
    """Whether a word is a function word or a sign."""
    return text.lower() in _SMALL_WORDS or not any(map(str.isalnum, text))


def title_of(words: Sequence, name: str = "") -> tuple[_Cell, ...]:
    """The cells of a prompt: its words, or its name if it has none."""
    if not words:
        return tuple((Shade(part), None) for part in name.split())
    return tuple((_shade(word), None) for word in words)


def _shade(word) -> Shade | None:
    return word and Shade(word.text, float(word.score), _small(word.text))


def _stacked(words: Sequence, others: Sequence) -> tuple[_Cell, ...]:
    """The cells of two captions: a shared word once, with the sum of its scores; words that differ stacked."""
    cells: list[_Cell] = []
    one, other = ([word.text.lower() for word in side] for side in (words, others))
    for kind, a, b, c, d in SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        if kind == "equal":
            pairs = zip(words[a:b], others[c:d], strict=True)
            cells += [(Shade(one.text, float(one.score + two.score), _small(one.text)), None) for one, two in pairs]
        else:
            nothing = Shade("")  # below a shared word stands None
            cells += [
                (_shade(one) or nothing, _shade(two) or nothing) for one, two in zip_longest(words[a:b], others[c:d])
            ]
    return tuple(cells)


def of_explanation(explanation, *, shared: bool = True, most: int | None = None) -> Drawing:
    """The drawing of an `Explanation`; `most` keeps that many prompts, the most similar ones."""
    contrast = explanation.against is not None
    similarity = np.asarray(explanation.similarity, dtype=float)
    values = similarity - explanation.against_similarity if contrast else similarity
    kept = np.arange(len(values))
    if most is not None and len(values) > most:
        kept = np.sort(np.argsort(-values, kind="stable")[:most])
    maps = None if _words_alone(explanation) else shown(explanation.image_maps, contrast)
    top = largest([maps[kept]]) if maps is not None else 0.0
    above = None if contrast else getattr(explanation, "percentile", None)
    median = None if contrast else getattr(explanation, "null_median", None)
    count = getattr(explanation, "null_count", None)
    panels = []
    for i in kept:
        words = explanation.words[i]
        name = explanation.prompts[i]
        note = ""
        if contrast:
            others = explanation.against_words[i] if explanation.against_words else ()
            cells = _stacked(words, others) if words and others else title_of(words, name)
            name, other = f"{name}, not {explanation.against[i]}", explanation.against_similarity[i]
            leads = "leads" if values[i] > 0 else "is behind"
            note = f"{leads} by {abs(values[i]):.2f} ({similarity[i]:.2f}, other {other:.2f})"
            if not (words and others):
                cells += title_of((), f"not {explanation.against[i]}")
        else:
            cells = title_of(words, name)
        scale = largest([maps[i]]) if maps is not None and not shared else top
        panels.append(Panel(
            name, cells, None if maps is None else maps[i], scale, float(values[i]),
            None if above is None else float(np.asarray(above)[i]), bool(values[i] == values[kept].max()), note,
        ))  # fmt: skip
    return Drawing(
        explanation.image, explanation.box, tuple(panels), contrast, _word_scale(panels), shared, contrast,
        None if median is None else float(median), None if count is None else int(count),
        origin=_origin(explanation),
    )  # fmt: skip


def of_interactions(found, words: str = "content") -> Drawing:
    """The drawing of an `Interactions`: one signed map per word, function words only if `words` is "all"."""
    kept = [i for i, word in enumerate(found.words) if words == "all" or not _small(word.text)]
    kept = kept or list(range(len(found.words)))
    top = largest([found.maps[kept]])
    panels = [Panel(found.words[i].text, title_of([found.words[i]]), found.maps[i], top) for i in kept]
    return Drawing(found.image, found.box, tuple(panels), True, _word_scale(panels), origin=_origin(found))


def of_maps(image: Image.Image, maps: Mapping[str, np.ndarray] | Sequence, *, signed=False, **more: Any) -> Drawing:
    """The drawing of named maps of one image."""
    pairs = list(maps.items()) if isinstance(maps, Mapping) else list(maps)
    pairs = [(name, shown(np.asarray(map_, dtype=np.float32), signed)) for name, map_ in pairs]
    panels = [Panel(name, title_of((), name), map_, largest([map_])) for name, map_ in pairs]
    return scaled([Drawing(image, None, tuple(panels), signed, **more)])[0]


def scaled(drawings: Sequence[Drawing]) -> list[Drawing]:
    """Drawings whose maps all have one scale where they share it."""
    top = max((panel.scale for one in drawings if one.shared for panel in one.panels), default=0.0)
    return [
        replace(one, panels=tuple(replace(panel, scale=top) for panel in one.panels)) if one.shared else one
        for one in drawings
    ]


def _words_alone(explanation) -> bool:
    """Whether the method of an explanation has no maps of images, so that zeros stand for none."""
    return explanation.provenance.get("image_layers", 1) is None and not explanation.image_maps.any()


def _word_scale(panels: Sequence[Panel]) -> float:
    return largest([[word.score for panel in panels for cell in panel.cells for word in cell if word and word.score]])


def _origin(found) -> str:
    """model, method and layers in one line."""
    layers = found.provenance.get("image_layers")
    return found.origin + (f", last {layers} layers" if layers and layers > 1 else ", last layer" if layers else "")
