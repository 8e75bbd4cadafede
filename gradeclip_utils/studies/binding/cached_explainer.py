"""What an explainer said before: embeddings and word directions of captions, and the trace of the last images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from torch import Tensor

from ...encoders import PROMPTS_AT_ONCE
from ...explain import Explainer
from ...models import Clip
from ...scenes import Span
from ...towers import Tower
from ...towers.remembering import RememberingTower
from ...words import Split


class CachedExplainer:
    """An `Explainer` that reads every caption once, and does not look at the same image twice in a row.

    Args:
        clip: the model.

    Raises:
        UnsupportedModel: the text encoder cannot be opened.
    """

    def __init__(self, clip: Clip) -> None:
        self.explainer = Explainer(clip)
        if self.explainer.text_refusal is not None:
            raise self.explainer.text_refusal
        self.explainer.image_tower = cast(Tower, RememberingTower(self.explainer.image_tower))
        self._embeddings: dict[str, Tensor] = {}
        self._words: dict[str, tuple[Split, Tensor]] = {}

    def embedding(self, caption: str) -> Tensor:
        """A caption's unit embedding (E,).

        Args:
            caption: at most as long as the model reads.
        """
        self.read([caption])
        return self._embeddings[caption]

    def read(self, captions: Iterable[str]) -> None:
        """Embed captions together: one after the other, each costs a batch of its own.

        Args:
            captions: each at most as long as the model reads.
        """
        if new := [one for one in dict.fromkeys(captions) if one not in self._embeddings]:
            self._embeddings |= zip(new, self.explainer.embed_texts(new), strict=True)

    def words(self, caption: str) -> tuple[Split, Tensor]:
        """A caption's words, and the direction (W, E) of each.

        Args:
            caption: at most as long as the model reads.

        Raises:
            ValueError: the caption is longer than the model reads.
        """
        self.read_words([caption])
        return self._words[caption]

    def read_words(self, captions: Iterable[str]) -> None:
        """Read the words of captions together.

        Args:
            captions: as for `words`.

        Raises:
            ValueError: as `words`.
        """
        new = [one for one in dict.fromkeys(captions) if one not in self._words]
        for some in (new[start : start + PROMPTS_AT_ONCE] for start in range(0, len(new), PROMPTS_AT_ONCE)):
            for caption, (split, directions) in zip(some, self.explainer.directions_of_words(some), strict=True):
                split.check_read()
                self._words[caption] = split, directions

    def word_indices(self, caption: str, start: int, end: int) -> list[int]:
        """Which words make up a part of the caption.

        Args:
            caption: the caption.
            start: number of the part's first character.
            end: number of the character behind its last.
        """
        return [i for i, (a, b) in enumerate(self.words(caption)[0].spans) if a < end and b > start]

    def direction(self, caption: str, span: Span) -> Tensor:
        """The direction (E,) of what a span of the caption says.

        Args:
            caption: the caption.
            span: of the scene that it describes.
        """
        return self.words(caption)[1][self.word_indices(caption, span.start, span.end)].sum(0)
