"""Session: what the explorer shows, without a widget.

    Explainer -> Session: State -> ExplorerView -> explorer

A `State` says what is wanted, and `Session.view` answers with an `ExplorerView`. All relevance
comes from `Explainer`. The map of a phrase is word x region (`Explainer.interactions`), summed over
its words; where a prompt names several things, each has its map less the part that they share.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import GradeclipError, heard_by, hint, nearest
from ..explainer import Explainer
from ..explanation import Explanation, Interactions
from ..images import read_image
from ..methods import METHODS
from ..methods.interactions import named_things
from ..models import Clip
from ..plots.colours import abs_max, positive_part
from ..plots.drawing import (
    Drawing,
    Panel,
    Shade,
    of_explanation,
    rounded,
    scaled,
    title_of,
)
from ..plots.figures import image_url
from ..plots.page import as_numbers, payload
from ..scenes import Scene, as_python, phrase, recoloured, without
from ..words import Word, split_read, unknown_words, why_no_words
from .sentences import nouns, sentence

COMPARED = ("nothing", "others", "own")  # what a similarity can be compared with
_GRAD_ECLIP = "grad-eclip"  # methods that begin so have a number of layers to choose
_LONGEST = 1024  # pixels: a larger image is reduced first, so that every redraw costs the same
_NEAR = 0.75  # about one edit in four letters


@dataclass(frozen=True, eq=False)
class Source:
    """An image to explain.

    Attributes:
        name: of a file, or a caption.
        image: upright RGB.
        lines: of Python that make the image, if it is no scene.
        caption: to begin with.
        scene: whose objects are known, or None.
        before: the image before something was changed in it.
    """

    name: str
    image: Image.Image
    lines: str = ""
    caption: str = ""
    scene: Scene | None = None
    before: "Source | None" = None

    @cached_property
    def code(self) -> str:
        """The Python lines that make the image; those of a scene are searched for."""
        if self.scene is None:
            return self.lines
        return f"image = {as_python(self.scene)}.image()"

    @cached_property
    def url(self) -> str:
        """The image as an address for a browser."""
        return image_url(self.image)

    @cached_property
    def thumbnail(self) -> str:
        """The address of a small copy."""
        return image_url(self.image, 88)

    @classmethod
    def of(cls, image, name: str = "") -> "Source":
        """A scene, a PIL image, a path or a uint8 array as an image with a name."""
        if isinstance(image, cls):
            return image
        if isinstance(image, Scene):
            return cls(name or image.caption, image.image(), caption=image.caption, scene=image)

        pixels = read_image(image)
        if isinstance(image, (str, Path)) and not name:
            name = Path(image).name
            code = f"image = read_image({str(image)!r})"
        else:
            code = f"image = read_image({name or 'image.png'!r})  # your own: its path"
        if max(pixels.size) > _LONGEST:
            pixels.thumbnail((_LONGEST, _LONGEST))  # the copy that read_image made
            code += f"\nimage.thumbnail(({_LONGEST}, {_LONGEST}))"
        return cls(name or "your image", pixels, code)


@dataclass(frozen=True)
class State:
    """What is wanted: every control of the explorer.

    Attributes:
        source: an image of any form.
        prompt: what is looked for; "" shows the image alone.
        model: the name of one that the panel can choose from.
        compared: "nothing", "others" (the lead over other captions is explained) or "own".
        against: another prompt, for "own"; the lead over it is explained.
        phrase: first and last word of the prompt whose map is wanted.
        patch: row and column, from 0, of the patch whose words are wanted.
        signed: whether the map of a phrase shows relevance against, too.
        method, layers, resolution: as in `Explainer`.
    """

    source: Source
    prompt: str
    model: str = ""
    compared: str = "nothing"
    against: str = ""
    phrase: tuple[int, int] | None = None
    patch: tuple[int, int] | None = None
    signed: bool = False
    method: str = _GRAD_ECLIP
    layers: int = 1
    resolution: str = "model"

    def __post_init__(self) -> None:
        if self.compared not in COMPARED:
            raise GradeclipError(
                f"there is no compared={self.compared!r}: {hint(self.compared, COMPARED)}"
            )
        object.__setattr__(self, "source", Source.of(self.source))
        for name in ("phrase", "patch"):  # lists where a browser sent them
            place = getattr(self, name)
            if place is not None:
                first, second = place
                object.__setattr__(self, name, (first, second))

    @property
    def contrast(self) -> str | None:
        """What the prompt is explained against, as `Explainer.explain` takes it."""
        return "others" if self.compared == "others" else self.against or None

    @property
    def names(self) -> dict[str, str]:
        """What tells a map from another one of the same prompt, by kind."""
        target = "similarity"
        if self.contrast:
            target = "lead over others" if self.compared == "others" else "contrast"
        return {"model": self.model, "method": METHODS[self.method].title, "target": target}

    @property
    def unpicked(self) -> "State":
        """The state without what a reader picks in its map: one key for what is computed once."""
        return replace(self, phrase=None, patch=None, signed=False, model="")

    @property
    def layered(self) -> bool:
        """Whether the method has a number of layers to choose."""
        return self.method.startswith(_GRAD_ECLIP)


@dataclass(frozen=True, eq=False)
class ExplorerView:
    """The answer to a state: numbers, nothing drawn.

    Attributes:
        state: without the words of the prompt that the model does not know.
        explanation: of the whole prompt; None if there is no prompt.
        words: word x region; None where the method does not tell words apart.
        without: the similarity of the prompt without the phrase; None if nothing is left of it.
        struck: unknown words as {"text", "near"}, with known words near each.
        notes: the warnings of the explainer.
    """

    state: State
    explanation: Explanation | None = None
    words: Interactions | None = None
    without: float | None = None
    struck: Sequence[dict] = ()
    notes: tuple[str, ...] = ()

    @property
    def map(self) -> np.ndarray:
        """The signed map (h, w) of the prompt, or of a phrase in it."""
        if self.state.phrase and self.words:
            first, last = self.state.phrase
            return self._word_maps[first : last + 1].sum(0)
        if self.explanation is None:
            return np.zeros((1, 1), np.float32)
        return self._prompt_map

    @property
    def _prompt_map(self) -> np.ndarray:
        """The map (h, w) of the whole prompt."""
        assert self.explanation is not None
        assert self.explanation.image_maps is not None
        return self.explanation.image_maps[0]

    @property
    def _word_maps(self) -> np.ndarray:
        """The maps (W, h, w) of the words of the prompt."""
        assert self.words is not None
        assert self.words.image_maps is not None
        return self.words.image_maps

    def __repr__(self) -> str:
        if self.explanation is None:
            return "an image without a caption"
        text = f"“{self.state.prompt}”"
        if self.state.compared == "others":
            text += " rather than other captions"
        if self.state.against:
            text += f" rather than “{self.state.against}”"
        similarity = self.explanation.similarity[0]
        return f"{text}, similarity {similarity:.2f}, {self.explanation.origin}"

    # ------------------------------------------------------------------------------- drawings

    def drawing(self, pinned: "ExplorerView | None" = None, whole: bool = False) -> Drawing:
        """What is shown, beside a pinned view if there is one.

        `whole` leaves out the chosen phrase and patch.
        """
        if self.explanation is None:
            return Drawing(self.state.source.image, None, ())
        if pinned is not None and pinned.explanation is not None:
            return self._compared(pinned)
        drawing = of_explanation(self.explanation)
        if whole or self.words is None:
            return drawing
        if self.state.patch:
            drawing = self._with_patch(drawing, self.words.words[0], *self.state.patch)
        if self.state.phrase:
            drawing = self._with_phrase(drawing, self.words.words[0], *self.state.phrase)
        return drawing

    def _with_patch(
        self,
        drawing: Drawing,
        words: Sequence[Word],
        row: int,
        column: int,
    ) -> Drawing:
        """The drawing with words shaded by their relevance for one patch."""
        scores = self._word_maps[:, row, column].tolist()
        shaded = [replace(word, score=score) for word, score in zip(words, scores, strict=True)]
        panel = replace(drawing.panels[0], cells=title_of(shaded))
        return replace(drawing, panels=(panel,), word_scale=abs_max(scores))

    def _with_phrase(
        self,
        drawing: Drawing,
        words: Sequence[Word],
        first: int,
        last: int,
    ) -> Drawing:
        """The drawing with the map of the chosen words, and the bar of the prompt without them."""
        text = self.state.prompt[words[first].start : words[last].end]
        map_ = positive_part(self.map, self.state.signed)
        panel = replace(drawing.panels[0], map=map_, scale=abs_max(map_))

        if self.without is not None and panel.value is not None:
            before = rounded(panel.value - panel.start)
            after = rounded(self.without - panel.start)
            if panel.lead_over:
                after = f"lead {after}"
            cells = list(panel.cells)
            for i in range(first, last + 1):
                upper, _ = cells[i]
                cells[i] = (replace(upper, struck=True), None)
            panel = replace(
                panel,
                cells=tuple(cells),
                value=self.without,
                note=f"without “{text}”: {after}, not {before}",
            )
        panel = _with_name(panel, f"“{text}”")
        return replace(drawing, panels=(panel,), signed=self.state.signed)

    def _compared(self, pinned: "ExplorerView") -> Drawing:
        """This view, a pinned one, and the difference of their maps.

        Maps of another model or method have other units: each is divided by its maximum.
        """
        names = self.state.names
        pinned_names = pinned.state.names
        different = [kind for kind in names if names[kind] != pinned_names[kind]]
        has_one_unit = different in ([], ["target"])

        drawings = [self.drawing(), pinned.drawing()]
        (panel,) = drawings[0].panels
        (pinned_panel,) = drawings[1].panels
        panels = [
            _with_name(panel, *(names[kind] for kind in different)),
            _with_name(pinned_panel, *(pinned_names[kind] for kind in different)),
        ]
        map_, pinned_map = (np.asarray(panel.map) for panel in panels)
        if map_.shape == pinned_map.shape:
            if not has_one_unit:
                map_ = map_ / (panel.scale or 1)
                pinned_map = pinned_map / (pinned_panel.scale or 1)
            difference = map_ - pinned_map
            title = "first map minus second"
            panels.append(Panel(title, title_of((), title), difference, abs_max(difference)))

        null_counts = {drawing.null_count for drawing in drawings}
        null_maxima = [drawing.null_max for drawing in drawings if drawing.null_max is not None]
        compared = replace(
            drawings[0],
            panels=tuple(panels),
            word_scale=max(drawing.word_scale for drawing in drawings),
            null_max=max(null_maxima, default=None),
            null_count=null_counts.pop() if len(null_counts) == 1 else 0,
            origin="; ".join(dict.fromkeys(drawing.origin for drawing in drawings)),
            signed=True,
            shared=has_one_unit,
        )
        return scaled(compared)

    # -------------------------------------------------------------------------------- a scene

    @property
    def changes(self) -> dict[str, Callable[[], dict[str, Any]]]:
        """What one press can change in the scene: a button's name, and what gives fields."""
        source = self.state.source
        scene = source.scene
        if source.before is not None:
            return {"put it back": lambda: {"source": source.before}}
        if scene is None:
            return {}

        def changed(change: Callable[..., Scene], argument) -> dict[str, Any]:
            return {"source": replace(Source.of(change(scene, argument)), before=source)}

        changes: dict[str, Callable[[], dict[str, Any]]] = {}
        colours = [thing.colour for thing in scene.objects]
        names = [thing.noun for thing in scene.objects]
        moved = colours[-1:] + colours[:-1]
        if moved != colours:
            changes["swap the colours"] = partial(changed, recoloured, moved)
        if len(names) > 1:
            changes[f"take the {names[0]} away"] = partial(changed, without, 0)
        absent = phrase("guitar" if "piano" in names else "piano")
        if self.state.prompt == absent:
            changes["ask for what is there"] = lambda: {"prompt": scene.caption}
        else:
            changes[f"ask for {absent}"] = lambda: {"prompt": absent}
        return changes

    @cached_property
    def sentences(self) -> dict[str, Any]:
        """Where relevance lies: of the whole prompt ("all"), each of its "words", the "phrase"."""
        if self.explanation is None:
            return {}
        scene = self.state.source.scene
        prompt = self.state.prompt
        sentences: dict[str, Any] = {"all": sentence(scene, self._prompt_map, prompt)}
        if self.state.contrast:
            sentences["all"] = self._sentence_of_lead()
        if self.words is None:
            return sentences

        words = self.words.words[0]
        sentences["words"] = [
            sentence(scene, map_, prompt, word.start, word.end)
            for word, map_ in zip(words, self._word_maps, strict=True)
        ]
        if self.state.phrase:
            first, last = self.state.phrase
            sentences["phrase"] = sentence(
                scene,
                self.map,
                prompt,
                start=words[first].start,
                end=words[last].end,
            )
        return sentences

    def _sentence_of_lead(self) -> str:
        """By how much the prompt leads the other ones, and where what favours it lies."""
        assert self.explanation is not None
        assert self.explanation.lead is not None
        state = self.state
        lead = float(self.explanation.lead[0])
        verb = "leads" if lead >= 0 else "is behind"
        others = self.explanation.lead_over
        if self.explanation.against_others:
            others = f"the mean of {others}"
        text = f"“{state.prompt}” {verb} {others} by {rounded(abs(lead))}."

        (words,) = self.explanation.words
        shared = {word.lower() for word in state.against.split()}
        different = [word for word in words if word.text.lower() not in shared]
        if not different or self._prompt_map.max() <= 0:
            return text
        where = sentence(
            state.source.scene,
            self._prompt_map,
            state.prompt,
            start=different[0].start,
            end=different[-1].end,
            relevance_name="what favours it",
        )
        return f"{text} {where}".strip()

    # ------------------------------------------------------------------- browser and notebook

    def payload(self, pinned: "ExplorerView | None" = None) -> dict:
        """What `front/view.js` shows, as JSON has it; a pinned view stands beside this one."""
        sentences = self.sentences
        if pinned is not None:
            sentences = {place: _of_first_map(text) for place, text in sentences.items()}
        return payload(
            self.drawing(pinned, whole=pinned is None),
            self._word_maps if self.words else None,
            phrase=self.state.phrase,
            patch=self.state.patch,
            without=self.without,
            with_against=self.state.signed,
            centred=self.words is not None and self.words.provenance.centred is not None,
            sentences=sentences,
        )

    def python(self, clip: Clip) -> str:
        """A script that computes the map again and paints it: `map_` (h, w)."""
        state = self.state
        options = f"method={state.method!r}, resolution={state.resolution!r}"
        if state.layered:
            options += f", image_layers={state.layers}"
        arguments = f"image, {state.prompt!r}"
        if state.contrast:
            arguments += f", against={state.contrast!r}"

        map_ = "explanation.image_maps[0]"
        if state.phrase and self.words:
            first, last = state.phrase
            things = self.words.provenance.centred
            centred = f".centred({things})" if things else ""
            words = f"explainer.interactions(image, {state.prompt!r}){centred}"
            map_ = f"{words}.image_maps[{first}:{last + 1}].sum(0)"

        names = ("Object", "Scene", "Span", "arrange")
        drawn = [name for name in names if f"{name}(" in state.source.code]
        imports = [f"from gradeclip_utils.scenes import {', '.join(drawn)}"] if drawn else []
        model = f"load_clip({clip.name!r})"
        if clip.pretrained != "bundled":
            model = f"...  # your {clip.name!r}"
        signed = bool(state.against or (state.phrase and state.signed))
        lines = [
            "from gradeclip_utils import Explainer, load_clip, read_image",
            "from gradeclip_utils.plots import paint",
            *imports,
            "",
            state.source.code,
            f"clip = {model}",
            f"explainer = Explainer(clip, {options})",
            f"explanation = explainer.explain({arguments})",
            f"map_ = {map_}  # signed relevance of each patch",
            f"paint(image, map_, box=explanation.box, signed={signed})",
            "",
        ]
        return "\n".join(lines)


def _of_first_map(text):
    """A sentence, or sentences, that say which of several maps they are about."""
    if isinstance(text, str):
        return text and f"First map: {text}"
    return [_of_first_map(part) for part in text]


def _with_name(panel: Panel, *names: str) -> Panel:
    """The panel with names behind its title."""
    added = tuple((Shade(f"· {name}", None, True), None) for name in names)
    return replace(panel, cells=panel.cells + added)


class UnknownWords(GradeclipError):
    """A prompt of words that the model does not know; `struck` as in `ExplorerView`."""

    def __init__(self, model: str, struck: Sequence[dict]):
        words = ", ".join(f"“{word['text']}”" for word in struck)
        super().__init__(f"the model {model!r} does not know {words}")
        self.struck = struck


class Session:
    """Answers states with views for one model."""

    def __init__(self, clip: Clip):
        self.clip = clip
        self._plain = Explainer(clip)
        self.depth = self._plain.image_tower.depth
        self._explainer = lru_cache(24)(self._open)
        self._answer = lru_cache(64)(self._explain)
        self._parts = lru_cache(8)(self._head_maps)

    def view(self, state: State) -> ExplorerView:
        """The answer to a state, without the words of its prompt that the model does not know.

        Raises:
            GradeclipError: the method is unknown, there is no such layer, word or patch, or the
                model knows no word of a prompt.
        """
        methods = [name for name, method in METHODS.items() if method.image is not None]
        if state.method not in methods:
            msg = f"there is no method {state.method!r}: {hint(state.method, methods)}"
            raise GradeclipError(msg)

        prompt, struck = self._known_part(state.prompt)
        _, unknown = self._known_part(state.against)
        if unknown or (struck and not prompt):
            raise UnknownWords(self.clip.name, unknown or struck)
        state = replace(state, prompt=prompt)
        if not prompt:
            return ExplorerView(state)

        explanation, words, notes = self._answer(state.unpicked)
        _check_places(state, words)
        without = self._similarity_without(state, explanation) if state.phrase else None
        return ExplorerView(state, explanation, words, without, struck, notes)

    def heads(self, state: State) -> dict[str, Any]:
        """The part of each layer and head in the map of a prompt, as JSON has it.

        All layers of the image encoder have a row, of which `explained` are the last ones. Only a
        note is there if the method's maps are no sum over heads.
        """
        if METHODS[state.method].heads is None:
            return {"note": f"Maps of {METHODS[state.method].title} are no sum over heads."}
        maps = self._parts(replace(state.unpicked, layers=self.depth))  # (L, H, h, w)
        sums = maps.sum(axis=1)
        return {
            "maps": as_numbers(maps.reshape(*maps.shape[:2], -1)),
            "sums": as_numbers(sums.reshape(len(sums), -1)),
            "shape": maps.shape[2:],
            "scales": [abs_max(maps), abs_max(sums)],
            "explained": state.layers,
        }

    def _head_maps(self, state: State) -> np.ndarray:
        """The parts (L, H, h, w) of a prompt's map."""
        with heard_by(lambda _: None):  # the view has said it
            explanation = self._explainer_of(state).explain(
                state.source.image,
                state.prompt,
                against=state.contrast,
                words=None,
                heads="separate",
            )
        assert explanation.head_maps is not None
        return explanation.head_maps[0]

    def _similarity_without(self, state: State, explanation: Explanation) -> float | None:
        """The similarity of a prompt without its phrase; None if nothing is left of it."""
        assert state.phrase is not None
        first, last = state.phrase
        words = explanation.words[0]
        if last - first + 1 == len(words):
            return None
        if first == last and explanation.provenance.words == "leave-one-out":
            return float(explanation.similarity[0] - words[first].score)
        start, end = words[first].start, words[last].end
        shorter = state.prompt[:start] + state.prompt[end:]
        explainer = self._explainer_of(state)
        embedding = explainer.embed_texts(" ".join(shorter.split()))[0]
        return float(embedding @ explainer.embed_images(state.source.image)[0])

    def _known_part(self, prompt: str) -> tuple[str, list[dict]]:
        """A prompt without unknown words, and these, each with known words near it."""
        tower = self._plain.text_tower
        known = self.clip.vocabulary
        if not prompt.strip():
            return "", []
        if known is None or tower is None or why_no_words(self.clip.tokenizer):
            return prompt, []
        split = split_read(prompt, self.clip.tokenizer, tower)
        unknown = unknown_words(split, known)
        if not unknown:
            return prompt, []

        for start, end in reversed(split.spans):
            if prompt[start:end].lower() in unknown:
                prompt = prompt[:start] + prompt[end:]
        struck = [{"text": word, "near": nearest(word, known, cutoff=_NEAR)} for word in unknown]
        return " ".join(prompt.split()), struck

    def _explainer_of(self, state: State) -> Explainer:
        """The explainer of a state's method, layers and resolution."""
        layers = state.layers if state.layered else None
        return self._explainer(state.method, layers, state.resolution)

    def _open(self, method: str, layers: int | None, resolution: str) -> Explainer:
        """An explainer that traces the same image once."""
        return Explainer(
            self.clip,
            method=method,
            image_layers=layers,
            resolution=resolution,
            keep_trace=True,
        )

    def _explain(self, state: State) -> tuple[Explanation, Interactions | None, tuple[str, ...]]:
        """The explanation of a state, its word x region maps if there are any, and warnings."""
        notes: list[str] = []
        explainer = self._explainer_of(state)
        image = state.source.image
        words = None
        with heard_by(notes.append):
            explanation = explainer.explain(image, state.prompt, against=state.contrast)
            if state.method == _GRAD_ECLIP and explanation.words[0] and not state.against:
                words = explainer.interactions(image, state.prompt)
                things = self._things(words)
                if len(things) > 1:
                    words = words.centred(things)
        return explanation, words, tuple(dict.fromkeys(notes))

    def _things(self, interactions: Interactions) -> tuple[tuple[int, ...], ...]:
        """The words that name things, by index; of drawn scenes without a tagger."""
        words = interactions.words[0]
        if not self.clip.trained_on_drawn_scenes:
            places = [(word.start, word.end) for word in words]
            return named_things(interactions.prompts[0], places)
        return tuple((i,) for i, word in enumerate(words) if word.text.lower() in nouns())


def _check_places(state: State, words: Interactions | None) -> None:
    """Refuse a phrase or a patch that is not there."""
    if words is None:
        if state.phrase or state.patch:
            title = METHODS[state.method].title
            raise GradeclipError(f"{title} does not tell the words of this caption apart")
        return
    count, rows, columns = words.image_maps.shape
    if state.phrase:
        first, last = state.phrase
        if not 0 <= first <= last < count:
            msg = f"the caption has {count} words, and not the words {state.phrase}"
            raise GradeclipError(msg)
    if state.patch:
        row, column = state.patch
        if not (0 <= row < rows and 0 <= column < columns):
            raise GradeclipError(f"there are {rows} x {columns} patches, not {state.patch}")
