"""Session: what a panel needs to redraw while somebody is watching. What is computed for an image is kept.

    architecture -> trace -> method -> explanation -> session -> explorer_view -> explorer

A frozen `State` says what is wanted, and `Session.view` answers with a frozen `View`. All relevance comes from
`Explainer`. A session adds the map of a phrase: word x region maps (`Explainer.interactions`) added over the words of
the phrase, less what the nouns of the caption share (`centred`), so that each shows its own thing.
"""

import threading
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

import numpy as np
from PIL.Image import Image

from ..checks import nearest, whole
from ..errors import GradeclipError, heard_by
from ..explain import Explainer
from ..explanation import Explanation
from ..methods import METHODS
from ..methods.interactions import centred, named_things
from ..models import Clip
from ..plots import colours
from ..scenes import Scene, concepts
from ..words import check_tokenizer, split_read, unknown_words, why_no_words
from .explorer_view import View
from .jobs import ANSWERS
from .remembering import RememberingTower
from .state import GRAD_ECLIP, Source, State, as_source, settings

_KEPT = 64  # of what explainers found, how much is remembered


class Session:
    """Answers states with views for one model. An image is traced once for each number of explained layers."""

    def __init__(self, clip: Clip):
        self.clip, self._plain = clip, Explainer(clip)
        self.depth = self._plain.image_tower.depth
        self._on_pass: Callable[[], None] | None = None  # called before each pass of the model; it may raise
        self._traces: list = []
        self._explainer, self._found = lru_cache(24)(self._opened), lru_cache(_KEPT)(self._asked)
        self._working = threading.Lock()  # one view at a time

    def view(self, state: State, on_pass: Callable[[], None] | None = None, *, words: bool = True) -> View:
        """Return what the state asks for; what is known already is not computed again."""
        whole("layers", state.layers, 1, self.depth)
        with self._working, heard_by(lambda warning: None):
            self._on_pass = on_pass
            try:
                return self._view(state, words)
            finally:
                self._on_pass = None

    def explain(
        self, image, prompt: str, against: str = "", *, method: str = GRAD_ECLIP, on_pass: Callable | None = None
    ) -> Explanation:
        """Return the explanation of one prompt, from what is known already of the image."""
        state = State(as_source(image), prompt, against=against, method=method, layers=self.clip.image_layers or 1)
        explanation = self.view(state, on_pass, words=False).explanation
        assert explanation is not None
        return explanation

    def scene_maps(self, scene: Scene, prompts: list[str]) -> np.ndarray:
        """Return the maps (T, h, w) of a scene for prompts."""
        with self._working, heard_by(lambda warning: None):
            return self._plain.explain(scene.image(), prompts).image_maps

    def known_part(self, caption: str) -> tuple[str, list[dict]]:
        """Return a caption without the words that the model does not know, and these, each with known ones near it."""
        tower, known = self._plain.text_tower, self.clip.vocabulary
        if known is None or tower is None or not caption.strip() or why_no_words(self.clip.tokenizer):
            return caption, []
        split = split_read(caption, self.clip.tokenizer, tower)
        unknown = unknown_words(split, known)
        kept, last = "", 0
        for start, end in split.spans:
            if caption[start:end].lower() in unknown:
                kept, last = kept + caption[last:start], end
        kept = " ".join((kept + caption[last:]).split())
        return kept, [{"text": word, "near": list(nearest(word, known, cutoff=0.6))} for word in unknown[:8]]

    def _check(self, caption: str) -> None:
        """Refuse a caption that is empty, too long, or holds a word that the model does not know."""
        check_tokenizer(self.clip.tokenizer, words=False)
        if not caption.strip():
            raise GradeclipError("the caption is empty: type what to look for, for example a dog")
        if self._plain.text_tower is None:
            raise self._plain.text_refusal or AssertionError
        if not why_no_words(self.clip.tokenizer):
            split_read(caption, self.clip.tokenizer, self._plain.text_tower).check_read()
        if unknown := self.known_part(caption)[1]:
            said = ", ".join(f"“{word['text'][:60]}”" for word in unknown)
            raise GradeclipError(f"the model {self.clip.name!r} does not know {said}")

    def _opened(self, **chosen: Any) -> Explainer:
        """Return the encoders, opened with these settings, which remember what they traced."""
        explainer: Any = Explainer(self.clip, **chosen)
        for name in ("image_tower", "text_tower"):
            if (tower := getattr(explainer, name)) is not None:
                setattr(explainer, name, RememberingTower(tower, self._traces, self._passed))
        return explainer

    def _passed(self) -> None:
        if self._on_pass is not None:
            self._on_pass()

    def _asked(self, source: Source, ask: Callable[..., Any], *asked: Any, **chosen: Any) -> Any:
        """Return what `ask` finds on an image by an explainer with these settings."""
        return ask(self._explainer(**chosen), source.image, *asked)

    def _view(self, state: State, words: bool) -> View:
        if not state.caption.strip() and words:
            return View(state, None, np.zeros((1, 1), np.float32), None, None, False, 0.0)
        self._check(state.caption)
        if state.against:
            self._check(state.against)
        found = partial(self._found, state.source, **settings(state, state.method))
        explanation: Explanation = found(Explainer.explain, state.caption, state.against or None)
        columns: np.ndarray | None = None
        regions: np.ndarray | None = None
        groups: tuple = ()
        spans = [(word.start, word.end) for word in explanation.words[0]]
        if state.method == GRAD_ECLIP and spans and not state.against and (words or state.phrase):
            try:
                columns = found(_word_maps, state.caption)
            except ANSWERS:  # this model does not let it
                pass
            else:
                groups = self._things(state.caption, spans) if state.centred and len(spans) > 2 else ()
                regions = centred(columns, groups) if len(groups) > 1 else columns
        signed, map_, told = bool(state.against), explanation.image_maps[0], False
        if state.phrase or state.patch:
            if regions is None:
                raise GradeclipError(f"{METHODS[state.method].title} does not tell the words of this caption apart")
            self._check_places(state, regions)
        if state.phrase:
            first, last = state.phrase
            assert regions is not None
            signed, map_ = True, regions[first : last + 1].sum(0)
            told = len(groups) > 1 and any(first <= i <= last for group in groups for i in group)
        scale = colours.largest([colours.shown(map_, signed), *([regions] if state.phrase else [])])
        return View(state, explanation, map_, regions, columns, signed, scale, groups if told else ())

    def _things(self, caption: str, spans: list[tuple[int, int]]) -> tuple[tuple[int, ...], ...]:
        """Return the words that name things, by index; without a tagger for a model of few words."""
        if self.clip.vocabulary is None:
            return named_things(caption, spans)
        table, groups, i = concepts(), [], 0
        nouns, words = {*table["noun"], *table["plural"]}, [caption[a:b].lower() for a, b in spans]
        while i < len(words):
            long = next((n for n in (3, 2, 1) if " ".join(words[i : i + n]) in nouns), 0)
            groups += [tuple(range(i, min(i + long, len(words))))] * bool(long)
            i += max(long, 1)
        return tuple(groups)

    @staticmethod
    def _check_places(state: State, regions: np.ndarray) -> None:
        count, rows, across = regions.shape
        if state.phrase and not 0 <= state.phrase[0] <= state.phrase[1] < count:
            raise GradeclipError(f"the caption has {count} words, and not the words {state.phrase}")
        if state.patch and not (0 <= state.patch[0] < rows and 0 <= state.patch[1] < across):
            raise GradeclipError(f"there are {rows} x {across} patches, not {state.patch}")


def _word_maps(explainer: Explainer, image: Image, caption: str) -> np.ndarray:
    """Return word x region (W, h, w), by Grad-ECLIP with the chosen spatial weight."""
    return explainer.maps(image, explainer.word_directions(caption)[0][1])[0].float().cpu().numpy()


def explain_each(asked: Mapping[Any, Callable[..., Explanation]], report: Callable | None = None) -> dict:
    """Return what each of several questions finds; `report(fraction)` is called in between and may raise."""
    found: dict[Any, Explanation] = {}
    tell = report or (lambda fraction: None)
    for name, question in asked.items():
        tell(len(found) / len(asked))
        found[name] = question(on_pass=lambda: tell(len(found) / len(asked)))
    return found
