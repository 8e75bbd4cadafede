"""Session: what the explorer shows, without a widget.

    Explainer -> Session: State -> ExplorerView -> explorer

A `State` is a value that says what is wanted, and `Session.view` answers with an `ExplorerView`. All
relevance comes from `Explainer`. The map of a phrase is word x region (`Explainer.interactions`),
summed over its words; where a caption names several things, each has its map less what they share.
A scene knows which pixels are which object, and which words of its caption name it, so a view also
says what a map marks and what can be changed.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..checks import chosen, nearest, short, text, whole
from ..errors import GradeclipError, heard_by
from ..explainer import Explainer
from ..explanation import Explanation, Interactions
from ..images import read_image
from ..methods import METHODS
from ..methods.interactions import named_things
from ..models import Clip
from ..plots.colours import abs_max
from ..plots.drawing import Drawing, Panel, Shade, of_explanation, scaled, title_of
from ..plots.figures import image_url
from ..plots.page import payload
from ..runtime import remembering
from ..scenes import CANVAS, Scene, as_python, concept, concepts, phrase, recoloured, without
from ..words import split_read, unknown_words, why_no_words

_GRAD_ECLIP = "grad-eclip"  # methods that begin so have a number of layers to choose
_WITH_WORDS = (_GRAD_ECLIP, "grad-eclip-single-head")  # methods with word x region maps
_LONGEST = 1024  # pixels: a larger image is reduced first, so that every redraw costs the same


@dataclass(frozen=True, eq=False)
class Source:
    """An image to explain."""

    name: str
    image: Image.Image
    lines: str = ""  # of Python that make it, if it is no scene
    caption: str = ""  # to begin with
    scene: Scene | None = None  # whose objects are known
    before: "Source | None" = None  # the image that it was before something was changed in it

    @cached_property
    def code(self) -> str:
        """The Python lines that make it, `image = ...`; for a scene they are searched for, which takes a while."""
        return self.lines if self.scene is None else f"image = {as_python(self.scene)}.image()"

    @cached_property
    def url(self) -> str:
        """The address under which a browser has it."""
        return image_url(self.image)

    @cached_property
    def thumbnail(self) -> str:
        """The address of a small copy."""
        return image_url(self.image, 88)

    @classmethod
    def of(cls, image, name: str = "") -> "Source":
        """A scene, a PIL image, a path or a uint8 array as an image with a name; errors as in `read_image`."""
        if isinstance(image, cls):
            return image
        if isinstance(image, Scene):
            return cls(name or image.caption, image.image(), caption=image.caption, scene=image)
        found, path = (
            read_image(image),
            str(image) if isinstance(image, (str, Path)) and not name else "",
        )
        code = f"image = read_image({path or name or 'image.png'!r})" + (
            "" if path else "  # your own: its path"
        )
        if max(found.size) > _LONGEST:
            found.thumbnail((_LONGEST, _LONGEST))  # on the copy that read_image made
            code += f"\nimage.thumbnail(({_LONGEST}, {_LONGEST}))"
        return cls(name or Path(path).name or "your image", found, code)


@dataclass(frozen=True)
class State:
    """What is wanted: every control of the explorer."""

    source: Source  # or an image of any form
    caption: str  # "" shows the image alone
    model: str = ""  # of those that the panel can choose from
    against: str = ""  # another caption: then the lead over it is explained
    phrase: tuple[int, int] | None = None  # first and last word of the caption whose map is wanted
    patch: tuple[int, int] | None = (
        None  # row and column, counted from 0, of the patch whose words are wanted
    )
    method: str = _GRAD_ECLIP
    layers: int = 1
    resolution: str = "model"

    def __post_init__(self) -> None:
        methods = [name for name, method in METHODS.items() if method.image is not None]
        clean: dict[str, Any] = {
            "source": Source.of(self.source),
            "layers": whole("layers", self.layers, 1),
        }
        clean |= {name: text(name, getattr(self, name)) for name in ("caption", "against")}
        clean["method"] = chosen("method", self.method, methods)
        clean["resolution"] = chosen("resolution", self.resolution, ("model", "native"))
        for name in ("phrase", "patch"):
            place = getattr(self, name)
            if place is not None and (not isinstance(place, (tuple, list)) or len(place) != 2):
                raise GradeclipError(
                    f"{name} must be two whole numbers or None, got {short(place)}"
                )
            clean[name] = None if place is None else tuple(whole(name, one) for one in place)
        for name, value in clean.items():
            object.__setattr__(self, name, value)

    @property
    def layered(self) -> bool:
        """Whether the method has a number of layers to choose."""
        return self.method.startswith(_GRAD_ECLIP)


@dataclass(frozen=True, eq=False)
class ExplorerView:
    """The answer to a state: numbers, nothing drawn."""

    state: State
    explanation: Explanation | None = None  # of the whole caption; None if there is no caption
    words: Interactions | None = None  # None where the method does not tell words apart
    struck: Sequence[
        dict
    ] = ()  # words that the model does not know, each with known ones near it (None: no word)
    notes: tuple[str, ...] = ()

    @property
    def map(self) -> np.ndarray:
        """The signed map (h, w) of the caption, or of a phrase in it."""
        if self.state.phrase and self.words:
            first, last = self.state.phrase
            return self.words.maps[first : last + 1].sum(0)
        return self.explanation.image_maps[0] if self.explanation else np.zeros((1, 1), np.float32)

    def __repr__(self) -> str:
        if self.explanation is None:
            return "an image without a caption"
        said = f"“{self.state.caption}”" + (
            f" rather than “{self.state.against}”" if self.state.against else ""
        )
        return f"{said}, similarity {self.explanation.similarity[0]:.2f}, {self.explanation.origin}"

    def drawing(self, pinned: "ExplorerView | None" = None, whole: bool = False) -> Drawing:
        """What is shown, beside a pinned view if there is one; `whole` leaves out the chosen phrase and patch."""
        if self.explanation is None:
            return Drawing(self.state.source.image, None, ())
        if pinned is not None and pinned.explanation is not None:
            return self._compared(pinned)
        made = of_explanation(self.explanation)
        if whole or self.words is None:
            return made
        panel, maps = made.panels[0], self.words.maps
        if self.state.patch:
            row, column = self.state.patch
            scored = zip(self.words.words, maps[:, row, column], strict=True)
            panel = replace(
                panel, cells=title_of([replace(word, score=float(score)) for word, score in scored])
            )
            made = replace(made, word_scale=abs_max(maps))
        if self.state.phrase:
            first, last = self.state.phrase
            said = " ".join(word.text for word in self.words.words[first : last + 1])
            panel = replace(panel, map=self.map, scale=max(abs_max(maps), abs_max(self.map)))
            panel, made = _named(panel, f"“{said}”"), replace(made, signed=True)
        return replace(made, panels=(panel,))

    def _compared(self, pinned: "ExplorerView") -> Drawing:
        """This view, a pinned one, and the difference of their maps, each divided by its largest value."""
        drawings, panels = [one.drawing() for one in (self, pinned)], []
        differing = [
            name
            for name in ("model", "method")
            if getattr(self.state, name) != getattr(pinned.state, name)
        ]
        drawings = drawings if differing else scaled(drawings)  # the same units
        for view, drawing in zip((self, pinned), drawings, strict=True):
            names = {"model": view.state.model, "method": METHODS[view.state.method].title}
            panels.append(_named(drawing.panels[0], *(names[one] for one in differing)))
        one, other = (np.asarray(panel.map) / (panel.scale or 1) for panel in panels)
        if one.shape == other.shape:
            cells, apart = title_of((), "first map minus second"), one - other
            panels.append(Panel("the first map minus the second", cells, apart, abs_max(apart)))
        words, count = (
            max(getattr(one, name) for one in drawings) for name in ("word_scale", "null_count")
        )
        drawing = replace(
            drawings[0],
            panels=tuple(panels),
            word_scale=words,
            null_count=count,
            signed=True,
            shared=False,
        )
        return replace(drawing, origin="; ".join(dict.fromkeys(one.origin for one in drawings)))

    @property
    def changes(self) -> dict[str, Callable[[], dict[str, Any]]]:
        """What one press can change in the scene that is shown: a button's name, and what gives fields of the state."""
        source, scene, caption = self.state.source, self.state.source.scene, self.state.caption
        if source.before is not None:
            return {"put it back": lambda: {"source": source.before}}
        if scene is None:
            return {}

        def changed(change: Callable[..., Scene], how) -> dict[str, Any]:
            return {"source": replace(Source.of(change(scene, how)), before=source)}

        colours, nouns = (
            [thing.colour for thing in scene.objects],
            [thing.noun for thing in scene.objects],
        )
        moved, found = colours[-1:] + colours[:-1], {}
        if moved != colours:
            found["swap the colours"] = partial(changed, recoloured, moved)
        if len(nouns) > 1:
            found[f"take the {nouns[0]} away"] = partial(changed, without, 0)
        other = phrase("guitar" if "piano" in nouns else "piano")
        asked, name = (other, other) if caption != other else (scene.caption, "what is there")
        return found | {f"ask for {name}": lambda: {"caption": asked}}

    @cached_property
    def sentences(self) -> dict[str, Any]:
        """What a map marks: of the whole caption ("all"), of each word ("words"), of the chosen "phrase"."""
        if self.explanation is None:
            return {}
        scene, caption = self.state.source.scene, self.state.caption
        found: dict[str, Any] = {"all": _sentence(scene, self.explanation.image_maps[0], caption)}
        if self.words is not None:
            pairs = list(zip(self.words.words, self.words.maps, strict=True))
            found["words"] = [
                _sentence(scene, map_, caption, word.start, word.end) for word, map_ in pairs
            ]
            if self.state.phrase:
                first, last = (pairs[i][0] for i in self.state.phrase)
                found["phrase"] = _sentence(scene, self.map, caption, first.start, last.end)
        return found

    def payload(self, pinned: "ExplorerView | None" = None) -> dict:
        """Everything that `front/view.js` shows, as JSON has it; a pinned view stands beside this one."""
        chosen = {
            "phrase": self.state.phrase,
            "patch": self.state.patch,
            "sentences": self.sentences,
        }
        return payload(
            self.drawing(pinned, whole=pinned is None),
            self.words.maps if self.words else None,
            **chosen,
        )

    def python(self, clip: Clip) -> str:
        """A script that computes the map again and paints it: `map_` (h, w)."""
        state, own = self.state, f"clip = ...  # your {clip.name!r}"
        drawn = [
            name
            for name in ("Object", "Scene", "Span", "arrange")
            if f"{name}(" in state.source.code
        ]
        layers = f", image_layers={state.layers}" if state.layered else ""
        against = f", against={state.against!r}" if state.against else ""
        maps, signed = "explanation.image_maps[0]", bool(state.against or state.phrase)
        if state.phrase and self.words:
            groups = self.words.provenance.get("centred")
            words = f"explainer.interactions(image, {state.caption!r})" + (
                f".centred({groups})" if groups else ""
            )
            maps = f"{words}.maps[{state.phrase[0]}:{state.phrase[1] + 1}].sum(0)"
        return "\n".join(
            [
                "from gradeclip_utils import Explainer, load_clip, read_image",
                "from gradeclip_utils.plots import paint",
                *([f"from gradeclip_utils.scenes import {', '.join(drawn)}"] if drawn else []),
                "",
                state.source.code,
                f"clip = load_clip({clip.name!r})" if clip.pretrained == "bundled" else own,
                f"explainer = Explainer(clip, method={state.method!r}, resolution={state.resolution!r}{layers})",
                f"explanation = explainer.explain(image, {state.caption!r}{against})",
                f"map_ = {maps}  # signed relevance of each patch",
                f"paint(image, map_, box=explanation.box, signed={signed})\n",
            ]
        )


class Session:
    """Answers states with views for one model."""

    def __init__(self, clip: Clip):
        self.clip, self._plain = clip, Explainer(clip)
        self.depth = self._plain.image_tower.depth
        self._explainer, self._found = lru_cache(24)(self._opened), lru_cache(64)(self._explained)

    def view(self, state: State) -> ExplorerView:
        """The answer to a state, without the words of its caption that the model does not know."""
        whole("layers", state.layers, 1, self.depth)
        kept, struck = self._known_part(state.caption)
        unknown = self._known_part(state.against)[1] or ([] if kept else struck)
        if unknown:
            said = ", ".join(
                word["text"] if word["near"] is None else f"“{word['text'][:60]}”"
                for word in unknown
            )
            error = GradeclipError(f"the model {self.clip.name!r} does not know {said}")
            vars(error)["struck"] = unknown  # as in a view
            raise error
        state = replace(state, caption=kept)
        if not kept:
            return ExplorerView(state)
        explanation, words, notes = self._found(replace(state, phrase=None, patch=None, model=""))
        if words is None and (state.phrase or state.patch):
            raise GradeclipError(
                f"{METHODS[state.method].title} does not tell the words of this caption apart"
            )
        if words is not None:
            count, rows, columns = words.maps.shape
            if state.phrase and not state.phrase[0] <= state.phrase[1] < count:
                raise GradeclipError(
                    f"the caption has {count} words, and not the words {state.phrase}"
                )
            if state.patch and not (state.patch[0] < rows and state.patch[1] < columns):
                raise GradeclipError(f"there are {rows} x {columns} patches, not {state.patch}")
        return ExplorerView(state, explanation, words, struck, notes)

    def _known_part(self, caption: str) -> tuple[str, list[dict]]:
        """A caption without the words that the model does not know, and these, each with known ones near it."""
        tower, known = self._plain.text_tower, self.clip.vocabulary
        if not caption.strip():
            return "", []
        if known is None or tower is None or why_no_words(self.clip.tokenizer):
            return caption, []
        split = split_read(caption, self.clip.tokenizer, tower)
        unknown = unknown_words(split, known)
        for start, end in reversed(split.spans):
            if caption[start:end].lower() in unknown:
                caption = caption[:start] + caption[end:]
        near = [{"text": word, "near": nearest(word, known, cutoff=0.6)} for word in unknown[:8]]
        more = [{"text": f"and {len(unknown) - 8} more", "near": None}] if unknown[8:] else []
        return " ".join(caption.split()) if unknown else caption, near + more

    def _opened(self, method: str, layers: int | None, resolution: str) -> Explainer:
        explainer = Explainer(self.clip, method=method, image_layers=layers, resolution=resolution)
        for tower in filter(None, (explainer.image_tower, explainer.text_tower)):
            vars(tower)["trace"] = remembering(tower.trace)
        return explainer

    def _explained(self, state: State) -> tuple[Explanation, Interactions | None, tuple[str, ...]]:
        notes, words = [], None
        explainer = self._explainer(
            state.method, state.layers if state.layered else None, state.resolution
        )
        with heard_by(notes.append):
            explanation = explainer.explain(
                state.source.image, state.caption, state.against or None
            )
            if state.method in _WITH_WORDS and explanation.words[0] and not state.against:
                words = explainer.interactions(state.source.image, state.caption)
                things = self._things(words)
                words = words.centred(things) if len(things) > 1 else words
        return explanation, words, tuple(dict.fromkeys(notes))

    def _things(self, found: Interactions) -> tuple[tuple[int, ...], ...]:
        """The words that name things, by index; without a tagger for a model of few words."""
        if self.clip.vocabulary is None:
            return named_things(found.caption, [(word.start, word.end) for word in found.words])
        return tuple((i,) for i, word in enumerate(found.words) if word.text.lower() in _nouns())


# ----------------------------------------------------------------- what a scene knows of its things


@lru_cache(maxsize=32)
def _covers(scene: Scene, shape: tuple[int, int]) -> np.ndarray:
    """The fraction of each patch that each thing covers: (things, h, w)."""
    masks = scene.masks(CANVAS).astype(np.float32)
    return np.stack(
        [
            np.asarray(Image.fromarray(mask).resize(shape[::-1], Image.Resampling.BOX))
            for mask in masks
        ]
    )


@cache
def _nouns() -> dict[str, str]:
    """The nouns of the emoji world, each of which is one word, by their forms."""
    pairs = zip(concepts()["noun"], concepts()["plural"], strict=True)
    return {form: noun for noun, plural in pairs for form in (noun, f"{noun}s", plural)}


def _things_of(scene: Scene, caption: str, start: int, end: int) -> tuple[list[int], list[str]]:
    """The things of a scene that a part of a caption names, by its nouns or else its colours; and nouns of nothing."""
    if caption == scene.caption:  # which says itself what its words name
        return sorted(
            {i for s in scene.spans if s.start < end and s.end > start for i in s.objects}
        ), []
    said, things = re.findall(r"\w+", caption[start:end].lower()), scene.objects
    nouns = [_nouns()[word] for word in said if word in _nouns()]
    named = [i for i, thing in enumerate(things) if thing.noun in nouns]
    named = named or [i for i, thing in enumerate(things) if thing.colour in said]
    return named, [noun for noun in nouns if noun not in {thing.noun for thing in things}]


def _named(panel: Panel, *names: str) -> Panel:
    """The panel with names behind its title."""
    return replace(
        panel, cells=panel.cells + tuple((Shade(f"· {name}", None, True), None) for name in names)
    )


def _sentence(
    scene: Scene | None, map_: np.ndarray, caption: str, start: int = 0, end: int | None = None
) -> str:
    """Where the map of a part of a caption has its relevance; "" where nothing is known of the image."""
    end = len(caption) if end is None else end
    said, heat = f"“{caption[start:end]}”", np.maximum(map_, 0)
    if not heat.any():
        return f"The map of {said} has no relevance for it."
    if scene is None:
        return ""
    wanted, absent = _things_of(scene, caption, start, end)
    if absent:
        return f"There is no {absent[0]} in this image. The map of {said} marks something all the same."
    if not wanted:
        return ""
    cover = _covers(scene, map_.shape)
    top = cover.reshape(len(cover), -1)[:, heat.argmax()]  # of the patch with the maximum
    part = float((heat * cover[wanted].sum(0)).sum() / heat.sum())
    area = float(cover[wanted].sum(0).mean())
    verb = "covers" if len(wanted) == 1 else "cover"
    them = _things_in_words(scene, wanted)
    found = f"{part:.0%} of the relevance of {said} lies on {them}, which {verb} {area:.0%} of the image."
    if top[wanted].max() > 0:
        return found
    where = (
        f"on {_things_in_words(scene, [int(top.argmax())])}"
        if top.max() > 0
        else "on the background"
    )
    return f"{found} The maximum lies {where}."


def _things_in_words(scene: Scene, things: Sequence[int]) -> str:
    nouns = [scene.objects[i].noun for i in things]
    several = {noun: concept(noun)["plural"] for noun in nouns if nouns.count(noun) > 1}
    names = [f"the {several.get(noun) or noun}" for noun in dict.fromkeys(nouns)]
    return " and ".join(names) if len(names) < 3 else f"the {len(things)} things that it names"
