"""Session: what a panel needs to redraw while somebody is watching. An image's trunk is computed once, and kept.

    architecture -> trace -> method -> explanation -> session -> explorer_view -> explorer

A frozen `State` says what is wanted: which image, caption, method, layers, and how to draw it. `Session.view` answers
with a frozen `View`, the numbers of one or two panels. All relevance comes from `Explainer`; what is added here is that
nothing is computed twice, that wrong input is refused in a sentence, and two ways of looking:

- the map of a phrase: word x region maps (`Explainer.interactions`) added over the words of the phrase, less what the
  nouns of the caption share (`centred`), so that each shows its own thing;
- the words of a patch: the same numbers, read along the words at one patch.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from PIL.Image import Image
from torch import Tensor

from ..checks import nearest
from ..errors import GradeclipError
from ..explain import Explainer
from ..explanation import Explanation
from ..methods import METHODS
from ..methods.interactions import Group, centred, named_things
from ..models import Clip
from ..notices import heard_by
from ..plots.colours import largest
from ..plots.colours import shown as visible
from ..towers.threads import is_small, one_thread
from ..words import Split, Word, check_tokenizer, split_read, unknown_words, why_no_words
from .jobs import UserError
from .state import GRAD_ECLIP, NULLS, Panel, State, View, as_source, changed, settings

Name = TypeVar("Name", bound=Hashable)
_PASSES = ("readout", "resume", "forward", "dense", "embed_pixels")  # of a tower: each runs (a part of) the model
_KEPT = {"traces": 24, "found": 64, "explainers": 24}  # how many of each are remembered


class _Remembering:
    """A tower that traces the same input once, and reports every pass, so that long work can be counted and stopped."""

    def __init__(self, tower, session: Session):
        self._tower, self._session = tower, session

    def __getattr__(self, name: str):
        found = getattr(self._tower, name)
        if name == "model":  # some methods fetch it for every pass that they make themselves
            self._session.passed()

        def reported(*arguments, **options):
            """The tower's own function, counted as a pass."""
            self._session.passed()
            return found(*arguments, **options)

        return reported if name in _PASSES else found

    def trace(self, inputs: Tensor, graph: bool = False):
        """The tower's trace of `inputs`, remembered where it is of one image or prompt."""
        if len(inputs) > 1:  # variations that a method made up, which nobody asks for again
            return self._traced(inputs, graph)
        digest = hashlib.blake2b(inputs.cpu().numpy().tobytes()).digest()
        key = (self._tower.name, self._tower.layers, tuple(inputs.shape), digest)
        return self._session.keep("traces", key, lambda: self._traced(inputs, True))

    def _traced(self, inputs: Tensor, graph: bool):
        """A new trace; how long one image takes here is noted."""
        self._session.passed()
        begun = time.perf_counter()
        found = self._tower.trace(inputs, graph)
        if self._tower.name == "image":
            self._session.seconds[""] = (time.perf_counter() - begun) / len(inputs)
        return found

    def with_one_head(self, trace):
        """The tower's trace with its heads as one, remembered."""
        key = (self._tower.name, self._tower.layers, id(trace), "one head")
        return self._session.keep("traces", key, lambda: (trace, self._tower.with_one_head(trace)))[1]


class Session:
    """Answers states with views for one model. An image is traced once for each number of explained layers.

    >>> session = Session(load_clip())                                               # doctest: +SKIP
    >>> session.view(State(as_source("dog.png"), "a dog")).panels[0].map.shape       # doctest: +SKIP
    """

    def __init__(self, clip: Clip):
        self.clip, self._plain = clip, Explainer(clip)
        self.depth, self._small = self._plain.image_tower.depth, is_small(self._plain.image_tower)
        self.lengths: dict[tuple[str, str, bool], int] = {}  # passes that a view of these two methods took,
        self.seconds: dict[str, float] = {}  # and how long a method took here; "" is one pass of the image encoder
        self.on_pass: Callable[[int], None] | None = None  # told how many passes this view took so far; may raise
        self._passes = 0
        self._kept: dict[str, OrderedDict] = {name: OrderedDict() for name in _KEPT}
        self._seen: set[Hashable] = set()  # images that were looked at, with these settings
        self._working = threading.Lock()  # one view at a time

    def view(self, state: State, on_pass: Callable[[int], None] | None = None, *, words: bool = True) -> View:
        """What the state asks for; numbers that are known already are not computed again.

        Args:
            state: what is wanted.
            on_pass: told, before every pass of the model, how many there were so far; what it raises (`Interrupted`)
                ends the work, and nothing is left half done.
            words: whether every word's map comes with it, also when nobody asked for one.

        Raises:
            UserError: in one sentence, what is wrong with the caption or another part of the state.
        """
        state = changed(state, {}, self.depth)
        alone = self._small and self.is_quick(state)
        with self._working, one_thread(alone), heard_by(lambda warning: None):  # a session has sentences of its own
            self.on_pass, self._passes = on_pass, 0
            try:
                split = self.check(state.caption)
                if state.against:
                    self.check(state.against, "other caption")
                methods = [method for method in (state.method, state.beside) if method]
                panels = [self._timed_panel(state, method, split, words or bool(state.phrase)) for method in methods]
                if state.dependence:
                    panels = [replace(one, dependence=self._dependence(state, one.method)) for one in panels]
            except (ValueError, GradeclipError) as refusal:  # of `Explainer`, which says what cannot be had
                raise UserError(str(refusal)) from refusal
            finally:
                self.on_pass = None
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
        """The explanation of one prompt, from what is known already of the image, which is one of `as_source`.

        Unlike `Explainer.explain` it reduces an image of more than `LONGEST` pixels, refuses what `check` refuses, and
        warns of nothing. ``on_pass`` and errors as in `view`.

        Args:
            image: one of `as_source`.
            prompt: what is asked.
            against: another prompt, for the difference of the two.
            method: a name in `METHODS`.
            on_pass: as in `view`.
        """
        state = State(as_source(image), prompt, against=against, method=method, layers=self.clip.image_layers or 1)
        return self.view(state, on_pass, words=False).panels[0].explanation

    def is_quick(self, state: State) -> bool:
        """Whether the image was looked at before with these settings, and the methods need nothing but a readout."""
        names = (state.method, state.beside or state.method)
        seen = self._trunk(state) in self._seen
        return seen and not state.dependence and all(name.startswith(GRAD_ECLIP) for name in names)

    def expected(self, method: str) -> float:
        """About how many seconds a method takes here: as it did, or else by its cost in passes; 0 if nobody knows.

        A backward pass counts as two passes.
        """
        if method in self.seconds:
            return self.seconds[method]
        cost = METHODS[method].cost
        passes = re.search(r"(\d+) forward", cost)
        each = 3 if "backward" in cost or method == "m2ib" else 1
        return int(passes[1]) * each * self.seconds.get("", 0.0) if passes else 0.0

    def check(self, caption: str, what: str = "caption") -> Split:
        """The words of a caption; refuses, in a sentence, what the model cannot read.

        Raises:
            UserError: it is empty, too long, or has words that the model was never shown. A tokenizer that does not
                tell words apart leaves only the first to be found; then there are no words.
            TypeError: the tokenizer drops tokens at random.
        """
        if not isinstance(caption, str):
            raise UserError(f"The {what} must be a text, got {caption!r}")
        if not caption.strip():
            raise UserError(f"The {what} is empty. Type what to look for, for example: a dog")
        check_tokenizer(self.clip.tokenizer, words=False)
        if self._plain.text_tower is None:
            raise UserError(str(self._plain.text_refusal))
        if why_no_words(self.clip.tokenizer):
            return Split(caption, (), (), ())
        split = split_read(caption, self.clip.tokenizer, self._plain.text_tower)
        if split.unread:
            raise UserError(f"The {what} is too long: the model stops reading before “{' '.join(split.unread)}”.")
        known = self.clip.vocabulary
        if known is not None and (unknown := unknown_words(split, known)):
            near = {word: nearest(word, known, cutoff=0.8) for word in unknown}
            hints = [f"“{word}”" + (f" (near: {', '.join(near[word])})" if near[word] else "") for word in unknown]
            raise UserError(f"The model {self.clip.name!r} was never shown the word {', '.join(hints)}")
        return split

    def passed(self) -> None:
        """A pass of the model is about to run."""
        self._passes += 1
        if self.on_pass is not None:
            self.on_pass(self._passes)

    def keep(self, kind: str, key: Hashable, make: Callable):
        """What ``make`` gives, made once.

        Args:
            kind: which store it is kept in.
            key: what it hangs on.
            make: makes it, without arguments.
        """
        kept = self._kept[kind]
        if key not in kept:
            kept[key] = make()
        kept.move_to_end(key)
        if len(kept) > _KEPT[kind]:
            kept.popitem(last=False)  # the one that was not asked for the longest
        return kept[key]

    @staticmethod
    def _trunk(state: State) -> Hashable:
        return state.source.pixels, state.resolution, state.layers, state.attention

    def _opened(self, chosen: dict[str, Any]) -> Explainer:
        """The encoders, opened with these settings, which remember what they traced."""
        explainer: Any = Explainer(self.clip, **chosen)
        explainer.image_tower = _Remembering(explainer.image_tower, self)
        if explainer.text_tower is not None:
            explainer.text_tower = _Remembering(explainer.text_tower, self)
        return explainer

    def _found(self, state: State, method: str, what: tuple[str, ...], ask: Callable[[Explainer, Image, str], Any]):
        """What an explainer with these settings answers on the image and ``what[0]``, a caption; it is asked once."""
        chosen = settings(state, method)
        key = (state.source.pixels, what, *chosen.values())
        explainer = self.keep("explainers", key[2:], lambda: self._opened(chosen))
        return self.keep("found", key, lambda: ask(explainer, state.source.image, what[0]))

    def _explained(self, state: State, method: str, caption: str, against: str = "") -> Explanation:
        """The explanation of one prompt."""
        what = (caption, against)
        return self._found(state, method, what, lambda one, *asked: one.explain(*asked, against=against or None))

    def _dependence(self, state: State, method: str) -> tuple[float, float, float]:
        """How much the map of the caption depends on it, and the interval."""
        found, what = self._explained(state, method, state.caption), (state.caption, "dependence", "")
        return self._found(
            state, method, what, lambda one, *asked: found.prompt_dependence(one.null_maps(*asked, NULLS))
        )

    def _word_maps(self, state: State) -> np.ndarray:
        """Word x region (W, h, w), by Grad-ECLIP with the chosen spatial weight."""

        def read(explainer: Explainer, image: Image, caption: str) -> np.ndarray:
            """All of them."""
            return explainer.maps(image, explainer.word_directions(caption)[1])[0].float().cpu().numpy()

        return self._found(state, GRAD_ECLIP, (state.caption, "words", ""), read)

    def _apart(self, state: State, split: Split) -> tuple[Group, ...]:
        """The nouns of the caption that are told apart, as groups of its words: two or more, or none."""
        found = named_things(state.caption, split.spans) if state.centred else ()
        return found if len(found) > 1 else ()

    def _timed_panel(self, state: State, method: str, split: Split, each_word: bool) -> Panel:
        begun, before = time.perf_counter(), self._passes
        panel = self._panel(state, method, split, each_word)
        if self._passes > before + 8:  # a slow method; a quick one says nothing, and what is kept takes no time
            self.seconds[method] = time.perf_counter() - begun
        return panel

    def _columns(self, state: State, method: str) -> np.ndarray | None:
        """What each patch says of each word, by Grad-ECLIP, where this model lets it; other methods do without."""
        try:
            return self._word_maps(state)
        except (ValueError, GradeclipError):
            if method == GRAD_ECLIP:
                raise
            return None

    def _panel(self, state: State, method: str, split: Split, each_word: bool) -> Panel:
        if state.phrase and not 0 <= state.phrase[0] <= state.phrase[1] < len(split.spans):
            raise UserError(f"The caption has {len(split.spans)} words, and words {state.phrase} were asked for.")
        whole = self._explained(state, method, state.caption, state.against)
        columns = self._columns(state, method) if split.spans and each_word else None
        regions: np.ndarray | None = None
        apart: tuple[Group, ...] = ()
        if method == GRAD_ECLIP and columns is not None:
            apart = self._apart(state, split)
            regions = centred(columns, apart) if apart else columns
        shown, subject, signed, note = whole, f"“{state.caption}”", bool(state.against), "the largest in this map"
        if state.against:
            subject += f" rather than “{state.against}”"
        told: dict[str, Any] = {}
        if state.phrase:
            first, last = state.phrase
            text, signed = state.caption[split.spans[first][0] : split.spans[last][1]], regions is not None
            if regions is not None:
                alone, subject = self._explained(state, method, state.caption), f"“{text}” in “{state.caption}”"
                shown = replace(alone, image_maps=regions[first : last + 1].sum(0, keepdims=True))
                if any(first <= i <= last for group in apart for i in group):
                    told["centred"] = apart
            else:  # only Grad-ECLIP can tell the words of a caption apart; another method reads the phrase by itself
                shown, subject = self._explained(state, method, text), f"“{text}” read alone"
        scale = largest([visible(shown.image_maps, signed)])
        if state.phrase and state.shared and regions is not None:
            scale, note = max(scale, largest([regions])), "the largest of any word"
        shown = replace(shown, provenance={**shown.provenance, "shown": subject, **told})
        words, words_of, most = self._words(state, whole, split)
        return Panel(method, shown, whole, regions, columns, subject, words, words_of, signed, scale, most, note)

    def _words(self, state: State, whole: Explanation, split: Split) -> tuple[tuple[Word, ...], str, float]:
        """The caption's words, what their signed scores are, and their scale; 0 where there are no scores."""
        if state.patch:
            maps, (row, column) = self._word_maps(state), state.patch
            if not (0 <= row < maps.shape[1] and 0 <= column < maps.shape[2]):
                raise UserError(f"There are {maps.shape[1]} x {maps.shape[2]} patches, and {state.patch} is not one.")
            scores = maps[:, row, column]
            spans = zip(split.spans, scores, strict=True)
            words = tuple(Word(state.caption[a:b], float(score), a, b) for (a, b), score in spans)
            most = largest([maps if state.shared else scores])
            return words, f"interaction with the patch in row {row + 1}, column {column + 1} (Grad-ECLIP)", most
        words = whole.words[0]
        if not words:
            blank = tuple(Word(state.caption[a:b], 0.0, a, b) for a, b in split.spans)
            why = "this method has no word scores" if blank else "the model's tokenizer does not tell words apart"
            return blank, why, 0.0
        words_of = "relevance of each word" + (" for the similarity gap to the other caption" if whole.against else "")
        both = [*words, *(whole.against_words[0] if whole.against_words else ())]
        return words, words_of, largest([[word.score for word in both]])


def explain_each(
    asked: Mapping[Name, Callable[..., Explanation]], report: Callable[[float], None] | None = None
) -> dict[Name, Explanation]:
    """What each of several questions finds, one after the other.

    Args:
        asked: name -> a call of `Session.explain` that lacks only ``on_pass``.
        report: told, before every question and every pass of a model, the fraction of the questions that are answered.
            What it raises ends the work, with nothing left half done.
    """
    found: dict[Name, Explanation] = {}

    def tell(*_passes) -> None:
        """Report the fraction that is done."""
        if report is not None:
            report(len(found) / len(asked))

    for name, question in asked.items():
        tell()
        found[name] = question(on_pass=tell)
    return found
