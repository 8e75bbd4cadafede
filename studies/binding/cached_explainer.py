"""What an explainer said before: embeddings and word directions of captions, and the trace of the last images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from torch import Tensor

from gradeclip_utils.explain import PROMPTS_AT_ONCE
from gradeclip_utils.explain import Explainer
from gradeclip_utils.models import Clip
from gradeclip_utils.scenes import Span
from gradeclip_utils.towers import Tower
from gradeclip_utils.towers.remembering import RememberingTower
from gradeclip_utils.words import Split


class CachedExplainer:
    """An `Explainer` that reads every caption once, and does not look at the same image twice in a row."""

    def __init__(self, clip: Clip) -> None:
        self.explainer = Explainer(clip)
        if self.explainer.text_refusal is not None:
            raise self.explainer.text_refusal
        self.explainer.image_tower = cast(Tower, RememberingTower(self.explainer.image_tower))
        self._embeddings: dict[str, Tensor] = {}
        self._words: dict[str, tuple[Split, Tensor]] = {}

    def embedding(self, caption: str) -> Tensor:
        """A caption's unit embedding (E,)."""
        self.read([caption])
        return self._embeddings[caption]

    def read(self, captions: Iterable[str]) -> None:
        """Embed captions together: one after the other, each costs a batch of its own."""
        if new := [one for one in dict.fromkeys(captions) if one not in self._embeddings]:
            self._embeddings |= zip(new, self.explainer.embed_texts(new), strict=True)

    def words(self, caption: str) -> tuple[Split, Tensor]:
        """A caption's words, and the direction (W, E) of each."""
        self.read_words([caption])
        return self._words[caption]

    def read_words(self, captions: Iterable[str]) -> None:
        """Read the words of captions together."""
        new = [one for one in dict.fromkeys(captions) if one not in self._words]
        for some in (new[start : start + PROMPTS_AT_ONCE] for start in range(0, len(new), PROMPTS_AT_ONCE)):
            for caption, (split, directions) in zip(some, self.explainer.directions_of_words(some), strict=True):
                split.check_read()
                self._words[caption] = split, directions

    def word_indices(self, caption: str, start: int, end: int) -> list[int]:
        """Which words make up a part of the caption."""
        return [i for i, (a, b) in enumerate(self.words(caption)[0].spans) if a < end and b > start]

    def direction(self, caption: str, span: Span) -> Tensor:
        """The direction (E,) of what a span of the caption says."""
        return self.words(caption)[1][self.word_indices(caption, span.start, span.end)].sum(0)
