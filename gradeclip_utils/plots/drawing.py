"""Drawing: the one description of what a figure of maps shows. Two backends draw it: `figures` and `page`.

    Explanation, Interactions, maps --here--> Drawing -> figures (matplotlib), page (HTML)

A drawing is an image and one panel per prompt. A panel has a title, whose words are shaded by their
scores, a map, and below it a bar: the similarity, or in a contrast the lead. All panels share one
scale unless it says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any

import numpy as np
from PIL import Image

from .colours import abs_max, is_whole, positive_part

OWN_SCALE = "each map has its own scale"
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


_Cell = tuple[
    Shade, Shade | None
]  # of a title: a word; below it, in a contrast, the word in the other caption


@dataclass(frozen=True, eq=False)
class Panel:
    """A title, a map, and what stands below them."""

    name: str  # the title in plain text
    cells: tuple[_Cell, ...]
    map: (
        np.ndarray | None
    )  # (h, w) on the token grid, or in pixels of the box; None: the method has no maps of images
    scale: float = 0.0  # the value of the darkest colour
    value: float | None = None  # of the bar: a similarity, or the lead in a contrast
    above: float | None = (
        None  # which part of the other captions lies below the similarity, in percent
    )
    median: float | None = (
        None  # the tick: the similarity that half of the other captions lie below
    )
    best: bool = True  # its bar is dark
    note: str = ""

    @property
    def words(self) -> list[Shade]:
        """All words of the title."""
        return [word for cell in self.cells for word in cell if word]

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
            f"similarity {value}, above {some} captions",
            f"{value}, above {some} captions",
            f"{value}, above {some.removesuffix(' of').removesuffix(' other')}",
            value,
        )


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
    count: int = 0  # of the other captions
    origin: str = ""  # model, method and layers
    upsample: str = "bilinear"

    @property
    def framed(self) -> bool:
        """Whether the model saw a part of the image only."""
        return not is_whole(self.box, self.image)

    @property
    def both(self) -> bool:
        """Whether anything in the drawing can be against."""
        return self.signed or any(
            (word.score or 0) < 0 for panel in self.panels for word in panel.words
        )

    @property
    def bars(self) -> tuple[float, float]:
        """The ends of the axis of the bars."""
        values = [panel.value for panel in self.panels if panel.value is not None]
        most = 1.45 * max(
            [0.01, *map(abs, values), *(abs(panel.median or 0) for panel in self.panels)]
        )
        return (-most if self.lead or min([0, *values]) < 0 else 0.0), most

    @property
    def legend(self) -> list[str]:
        """The lines below the strip of colours: the scale, and what tick and frame are."""
        scales = [panel.scale for panel in self.panels if panel.map is not None]
        most, lines = max(scales, default=0.0), []
        own = most > 0 and len(scales) > 1 and not self.shared
        if own:
            lines.append(OWN_SCALE)
        elif scales:
            nothing = "zero everywhere" if self.signed else "nowhere above zero"
            lines.append(f"relevance: {f'darkest {_number(most)}' if most else nothing}")
        if self.word_scale:
            words = _number(self.word_scale)
            lines = (
                [*lines, f"words: darkest {words}"]
                if own or not lines
                else [f"{lines[0]}, words {words}"]
            )
        if any(panel.median is not None for panel in self.panels):
            lines.append(f"tick: half of {self.count} other captions")
        if self.framed:
            lines.append("frame: what the model saw")
        return lines

    @property
    def alt(self) -> str:
        """What is shown, for those who cannot see it."""
        if not self.panels:
            return "An image"
        return "An image and its relevance maps: " + "; ".join(
            panel.name + "".join(f" ({words})" for words in panel.labels[:1])
            for panel in self.panels
        )


def _number(value: float) -> str:
    """A number above zero with two digits."""
    return f"{value:.{max(0, min(6, 1 - math.floor(math.log10(value))))}f}"


def _small(text: str) -> bool:
    """Whether a word is a function word or a sign."""
    return text.lower() in _SMALL_WORDS or not any(map(str.isalnum, text))


def title_of(words: Sequence, name: str = "") -> tuple[_Cell, ...]:
    """The cells of a prompt: its words, or its name if it has none."""
    shades = map(_shade, words) if words else map(Shade, name.split())
    return tuple((shade, None) for shade in shades)


def _shade(word) -> Shade:
    return Shade(word.text, float(word.score), _small(word.text)) if word else Shade("")


def _stacked(words: Sequence, others: Sequence) -> tuple[_Cell, ...]:
    """The cells of two captions: a shared word once, with the sum of its scores; words that differ stacked."""
    cells: list[_Cell] = []
    first, second = ([word.text.lower() for word in side] for side in (words, others))
    for kind, a, b, c, d in SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        for one, other in zip_longest(words[a:b], others[c:d]):
            if kind == "equal":
                cells.append((_shade(replace(one, score=one.score + other.score)), None))
            else:
                cells.append((_shade(one), _shade(other)))
    return tuple(cells)


def of_explanation(explanation, *, shared: bool = True, most: int | None = None) -> Drawing:
    """The drawing of an `Explanation`; `most` keeps that many prompts, the most similar ones."""
    contrast = explanation.against is not None
    similarity = np.asarray(explanation.similarity, dtype=float)
    values = similarity - explanation.against_similarity if contrast else similarity
    words_alone = (
        explanation.provenance.get("image_layers", 1) is None and not explanation.image_maps.any()
    )
    panels = []
    for i in np.sort(np.argsort(-values, kind="stable")[:most]):
        name, words = explanation.prompts[i], explanation.words[i]
        map_ = None if words_alone else positive_part(explanation.image_maps[i], contrast)
        scale, best = 0.0 if map_ is None else abs_max(map_), bool(values[i] == values.max())
        panel = Panel(name, title_of(words, name), map_, scale, float(values[i]), best=best)
        if contrast:
            other, others = explanation.against[i], explanation.against_words[i]
            cells = (
                _stacked(words, others)
                if words and others
                else panel.cells + title_of((), f"not {other}")
            )
            gap = f"{abs(values[i]):.2f}"
            leads = f"{'leads' if values[i] > 0 else 'is behind'} by {gap if gap > '0.00' else 'less than 0.01'}"
            leads = leads if abs(values[i]) > 1e-6 else "no difference"
            note = f"{leads} ({similarity[i]:.2f}, other {explanation.against_similarity[i]:.2f})"
            panel = replace(panel, name=f"{name}, not {other}", cells=cells, note=note)
        elif explanation.percentile is not None:
            panel = replace(
                panel, above=float(explanation.percentile[i]), median=explanation.null_median
            )
        panels.append(panel)
    count = explanation.null_count
    return _of_result(
        explanation, panels, signed=contrast, shared=shared, lead=contrast, count=count
    )


def of_interactions(found, words: str = "content") -> Drawing:
    """The drawing of an `Interactions`: a signed map per word, of "content" words or "all", or of all "together"."""
    if words == "together":
        map_ = found.maps.sum(0)
        panel = Panel(found.caption, title_of(found.words), map_, abs_max(map_), found.similarity)
        panels = [
            replace(panel, note=f"{panel.labels[0]}; map of all words, point at one for its own")
        ]
    else:
        pairs = list(zip(found.words, found.maps, strict=True))
        kept = [pair for pair in pairs if words == "all" or not _small(pair[0].text)]
        panels = [
            Panel(word.text, title_of([word]), map_, abs_max(map_)) for word, map_ in kept or pairs
        ]
    return _of_result(found, panels, signed=True)


def _of_result(found, panels: Sequence[Panel], **look: Any) -> Drawing:
    """The drawing of panels of an `Explanation` or `Interactions`, whose model, method and layers are named."""
    words = abs_max([word.score or 0 for panel in panels for word in panel.words])
    layers = found.provenance.get("image_layers")
    origin = found.origin + (
        f", last {layers} layers" if layers and layers > 1 else ", last layer" if layers else ""
    )
    drawing = Drawing(
        found.image, found.box, tuple(panels), word_scale=words, origin=origin, **look
    )
    return scaled([drawing])[0]


def of_maps(
    image: Image.Image, maps: Iterable[tuple[str, np.ndarray]], *, signed=False, **more: Any
) -> Drawing:
    """The drawing of named maps of one image, each with its own scale (see `scaled`)."""
    each = [
        (name, positive_part(np.asarray(map_, dtype=np.float32), signed)) for name, map_ in maps
    ]
    panels = [Panel(name, title_of((), name), map_, abs_max(map_)) for name, map_ in each]
    return Drawing(image, None, tuple(panels), signed, **more)


def scaled(drawings: Sequence[Drawing]) -> list[Drawing]:
    """Drawings whose maps all have one scale where they share it."""
    top = max((panel.scale for one in drawings if one.shared for panel in one.panels), default=0.0)
    return [
        replace(one, panels=tuple(replace(panel, scale=top) for panel in one.panels))
        if one.shared
        else one
        for one in drawings
    ]
