"""Session: what a panel needs to redraw while somebody is watching. An image's trunk is computed once, and kept.

    architecture -> trace -> method -> explanation -> session -> explorer_view -> explorer

A frozen `State` says what is wanted: which image, caption, method, layers, and how to draw it. `Session.view` answers
with a frozen `View`, the numbers of one or two panels. All relevance comes from `Explainer`; what is added here is that
nothing is computed twice, that wrong input is refused in a sentence, and two ways of looking:

- the map of a phrase: word x region maps (`Explainer.interactions`) added over the words of the phrase, less what the
  nouns of the caption share (`centred`), so that each shows its own thing;
- the words of a patch: the same numbers, read along the words at one patch.
"""

import re
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
from PIL.Image import Image

from ..checks import nearest, whole
from ..errors import GradeclipError
from ..explain import Explainer
from ..explanation import Explanation
from ..methods import METHODS
from ..methods.interactions import centred, named_things
from ..models import Clip
from ..notices import heard_by
from ..plots import colours
from ..towers.base import is_small, one_thread
from ..towers.remembering import RememberingTower
from ..words import Split, Word, check_tokenizer, split_read, unknown_words, why_no_words
from .explorer_view import Panel, View
from .jobs import ANSWERS
from .state import GRAD_ECLIP, NULLS, Source, State, as_source, settings

_KEPT = 64  # of what explainers found, how much is remembered


class Session:
    """Answers states with views for one model. An image is traced once for each number of explained layers."""

    def __init__(self, clip: Clip):
        self.clip, self._plain = clip, Explainer(clip)
        self.depth = self._plain.image_tower.depth
        self.lengths: dict[tuple[str, str, bool], int] = {}  # passes that a view of these two methods took,
        self.seconds: dict[tuple[str, str], float] = {}  # and how long a method took at a resolution; "" is one pass
        self._on_pass: Callable[[int], None] | None = None  # told how many passes this view took so far; may raise
        self._passes, self._traces = 0, []
        self._explainer, self._found = lru_cache(24)(self._opened), lru_cache(_KEPT)(self._asked)
        self._seen: set[Hashable] = set()  # images that were looked at, with these settings
        self._working = threading.Lock()  # one view at a time

    def view(self, state: State, on_pass: Callable[[int], None] | None = None, *, words: bool = True) -> View:
        """What the state asks for; numbers that are known already are not computed again."""
        whole("layers", state.layers, 1, self.depth)
        alone = is_small(self._plain.image_tower) and self.is_quick(state)
        silent = heard_by(lambda warning: None)  # a session has sentences of its own
        with self._working, one_thread(alone), silent, ExitStack() as after:
            self._on_pass, self._passes = on_pass, 0
            after.callback(setattr, self, "_on_pass", None)
            split = self._split(state.caption)
            if state.against:
                self._split(state.against, "other caption")
            methods = [method for method in (state.method, state.beside) if method]
            panels = [self._panel(state, method, split, words or bool(state.phrase)) for method in methods]
            self._seen.add(self._trunk(state))
            asked = state.method, state.beside, state.dependence
            self.lengths[asked] = max(self._passes, self.lengths.get(asked, 0))
        same_units = len(panels) == 2 and all(panel.method.startswith(GRAD_ECLIP) for panel in panels)
        if state.shared and same_units and not state.phrase:
            most = max(panel.scale for panel in panels)
            panels = [replace(panel, scale=most, note="the largest in both maps") for panel in panels]
        first = state.source.before
        return View(state, tuple(panels), None if first is None else self.explain(first, state.caption))

    def explain(
        self, image, prompt: str, against: str = "", *, method: str = GRAD_ECLIP, on_pass: Callable | None = None
    ) -> Explanation:
        """The explanation of one prompt, from what is known already of the image."""
        state = State(as_source(image), prompt, against=against, method=method, layers=self.clip.image_layers or 1)
        return self.view(state, on_pass, words=False).panels[0].explanation

    def is_quick(self, state: State) -> bool:
        """Whether nothing but a readout is needed."""
        names = (state.method, state.beside or state.method)
        seen = self._trunk(state) in self._seen
        return seen and not state.dependence and all(name.startswith(GRAD_ECLIP) for name in names)

    def expected(self, method: str, resolution: str = "model") -> float:
        """About how many seconds a method takes here; 0 if nobody knows."""
        cost = METHODS[method].cost
        passes, each = re.search(r"(\d+) forward", cost), 3 if "backward" in cost or method == "m2ib" else 1
        guess = int(passes[1]) * each * self.seconds.get(("", resolution), 0.0) if passes else 0.0
        return self.seconds.get((method, resolution), guess)

    def _split(self, caption: str, what: str = "caption") -> Split:
        """The words of a caption that is neither empty nor too long, and has none that the model was never shown."""
        if not caption.strip():
            raise GradeclipError(f"The {what} is empty. Type what to look for, for example: a dog")
        check_tokenizer(self.clip.tokenizer, words=False)
        if self._plain.text_tower is None:
            raise self._plain.text_refusal or AssertionError
        if why_no_words(self.clip.tokenizer):
            return Split(caption, (), (), ())
        split = split_read(caption, self.clip.tokenizer, self._plain.text_tower)
        if split.unread:
            msg = f"The {what} is too long: the model stops reading before “{_cut(' '.join(split.unread))}”."
            raise GradeclipError(msg)
        known = self.clip.vocabulary
        if known is not None and (unknown := unknown_words(split, known)):
            near = [(_cut(word), ", ".join(nearest(word, known, cutoff=0.8))) for word in unknown[:6]]
            hints = ", ".join(f"“{word}”" + f" (near: {like})" * bool(like) for word, like in near)
            said = f"the word{'s' * (len(unknown) > 1)} {hints}" + f" and {len(unknown) - 6} more" * (len(unknown) > 6)
            raise GradeclipError(f"The model {self.clip.name!r} was never shown {said}")
        return split

    def _passed(self) -> None:
        """A pass of the model is about to run."""
        self._passes += 1
        if self._on_pass is not None:
            self._on_pass(self._passes)

    @staticmethod
    def _trunk(state: State) -> Hashable:
        return state.source, state.resolution, state.layers, state.attention

    def _opened(self, **chosen: Any) -> Explainer:
        """The encoders, opened with these settings, which remember what they traced."""
        explainer: Any = Explainer(self.clip, **chosen)
        for name in ("image_tower", "text_tower"):
            if (tower := getattr(explainer, name)) is not None:
                setattr(explainer, name, RememberingTower(tower, self._traces, self._passed))
        return explainer

    def _asked(self, source: Source, ask: Callable[..., Any], *asked: Any, **chosen: Any) -> Any:
        """What `ask` finds on an image by an explainer with these settings."""
        explainer: Any = self._explainer(**chosen)
        found = ask(explainer, source.image, *asked)
        if took := explainer.image_tower.seconds:
            self.seconds["", chosen["resolution"]] = took
        return found

    def _panel(self, state: State, method: str, split: Split, each_word: bool) -> Panel:
        if state.phrase and not 0 <= state.phrase[0] <= state.phrase[1] < len(split.spans):
            raise GradeclipError(f"The caption has {len(split.spans)} words, and not the words {state.phrase}")
        begun, before = time.perf_counter(), self._passes
        found = partial(self._found, state.source, **settings(state, method))
        explained = partial(found, Explainer.explain)
        entire: Explanation = explained(state.caption, state.against or None)
        columns = regions = dependence = None
        told: dict[str, Any] = {}
        first, last = state.phrase or (0, -1)
        try:
            if split.spans and each_word:
                columns = self._columns(state)
        except ANSWERS:  # this model does not let it; then other methods do without
            if method == GRAD_ECLIP:
                raise
        if method == GRAD_ECLIP and columns is not None:
            things = named_things(state.caption, split.spans) if state.centred else ()
            regions = centred(columns, things) if len(things) > 1 else columns  # the nouns are told apart
            if state.phrase and len(things) > 1 and any(first <= i <= last for group in things for i in group):
                told["centred"] = things
        said = state.caption[split.spans[first][0] : split.spans[last][1]] if state.phrase else ""
        if not said:
            shown, signed, subject = entire, bool(state.against), f"“{state.caption}”"
            subject += f" rather than “{state.against}”" * signed
        elif regions is None:  # only Grad-ECLIP can tell the words of a caption apart; others read the phrase by itself
            shown, signed, subject = explained(said, None), False, f"“{said}” read alone"
        else:
            summed = regions[first : last + 1].sum(0, keepdims=True)
            shown, signed = replace(explained(state.caption, None), image_maps=summed), True
            subject = f"“{said}” in “{state.caption}”"
        scale, note = colours.largest([colours.shown(shown.image_maps, signed)]), "the largest in this map"
        if said and state.shared and regions is not None:
            scale, note = max(scale, colours.largest([regions])), "the largest of any word"
        shown = replace(shown, provenance={**shown.provenance, "shown": subject, **told})
        words = self._words(state, entire, split)
        if self._passes > before + 8:  # a slow method; a quick one says nothing, and what is kept takes no time
            self.seconds[method, state.resolution] = time.perf_counter() - begun
        if state.dependence:
            nulls = found(Explainer.null_maps, state.caption, NULLS)
            dependence = explained(state.caption, None).prompt_dependence(nulls)
        return Panel(method, shown, entire, regions, columns, subject, *words, signed, scale, note, dependence)

    def _columns(self, state: State) -> np.ndarray:
        return self._found(state.source, _word_maps, state.caption, **settings(state, GRAD_ECLIP))

    def _words(self, state: State, whole: Explanation, split: Split) -> tuple[tuple[Word, ...], str, float]:
        """The caption's words, what their signed scores are, and their scale; 0 where there are no scores."""
        if whole.words[0] and not state.patch:
            of = "relevance of each word" + (" for the similarity gap to the other caption" if whole.against else "")
            both = [*whole.words[0], *(whole.against_words[0] if whole.against_words else ())]
            return whole.words[0], of, colours.largest([[word.score for word in both]])
        scores, most = np.zeros(len(split.spans)), 0.0
        of = "this method has no word scores" if split.spans else "the model's tokenizer does not tell words apart"
        if state.patch:
            maps, (row, column) = self._columns(state), state.patch
            if not (0 <= row < maps.shape[1] and 0 <= column < maps.shape[2]):
                raise GradeclipError(f"There are {maps.shape[1]} x {maps.shape[2]} patches, not {state.patch}")
            scores, most = maps[:, row, column], colours.largest([maps if state.shared else maps[:, row, column]])
            of = f"interaction with the patch in row {row + 1}, column {column + 1} (Grad-ECLIP)"
        spans = zip(split.spans, scores, strict=True)
        return tuple(Word(state.caption[a:b], float(score), a, b) for (a, b), score in spans), of, most


def _cut(said: str, most: int = 60) -> str:
    """What a user typed, cut to a length that fits a sentence."""
    return said if len(said) <= most else f"{said[:most]} …"


def _word_maps(explainer: Explainer, image: Image, caption: str) -> np.ndarray:
    """Word x region (W, h, w), by Grad-ECLIP with the chosen spatial weight."""
    return explainer.maps(image, explainer.word_directions(caption)[1])[0].float().cpu().numpy()


def explain_each(
    asked: Mapping[Any, Callable[..., Explanation]], report: Callable[[float], None] | None = None
) -> dict[Any, Explanation]:
    """What each of several questions finds, one after the other."""
    found: dict[Any, Explanation] = {}
    tell = report or (lambda fraction: None)
    for name, question in asked.items():
        tell(len(found) / len(asked))
        found[name] = question(on_pass=lambda passes: tell(len(found) / len(asked)))
    return found
