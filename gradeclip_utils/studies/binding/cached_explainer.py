"""What an explainer said before: embeddings and word directions of captions, and the trace of the last image."""

from __future__ import annotations

from PIL import Image
from torch import Tensor

from ...explain import Explainer
from ...images import View, model_view
from ...models import Clip
from ...towers import Trace
from ...towers.base import isolated_torch_state
from ...words import Split


class CachedExplainer:
    """An `Explainer` that reads every caption once, because reading takes longer than the maps.

    Args:
        clip: the model.

    Raises:
        UnsupportedModel: the text encoder cannot be opened.
    """

    def __init__(self, clip: Clip) -> None:
        self.explainer = Explainer(clip)
        if self.explainer.text_refusal is not None:
            raise self.explainer.text_refusal
        self._embeddings: dict[str, Tensor] = {}
        self._words: dict[str, tuple[Split, Tensor]] = {}
        self._traced: tuple[Image.Image, View, Trace] | None = None

    def embedding(self, caption: str) -> Tensor:
        """The caption's unit embedding (E,)."""
        if caption not in self._embeddings:
            self._embeddings[caption] = self.explainer.embed_texts(caption)[0]
        return self._embeddings[caption]

    def words(self, caption: str) -> tuple[Split, Tensor]:
        """The caption's words, and the direction (W, E) of each.

        Raises:
            ValueError: the caption is longer than the model reads.
        """
        if caption not in self._words:
            split, directions = self.explainer.word_directions(caption)
            split.check_read()
            self._words[caption] = split, directions
        return self._words[caption]

    def word_indices(self, caption: str, start: int, end: int) -> list[int]:
        """Which words make up a part of the caption.

        Args:
            caption: the caption.
            start: number of the part's first character.
            end: number of the character behind its last.
        """
        return [i for i, (a, b) in enumerate(self.words(caption)[0].spans) if a < end and b > start]

    def traced(self, image: Image.Image) -> tuple[View, Trace]:
        """What the model sees of the image, and the trace of that; the last image is kept."""
        last = self._traced  # a panel may ask from two threads, for two images
        if last is None or last[0] != image:
            view, tower = model_view(self.explainer.clip.preprocess, image), self.explainer.image_tower
            with isolated_torch_state(tower.device):
                trace = tower.trace(view.pixels[None].to(tower.device), graph=True)
            self._traced = last = image.copy(), view, trace  # a copy, because the caller may draw on theirs
        return last[1], last[2]
