"""Pairs of an image and a caption, cut into batches of pixels, captions and noun phrases.

images, captions --here--> batches --> maps, regions --> fine-tuned model
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.images import model_view, pool, read_image
from gradeclip_utils.language import Phrase, phrases

PLACES = 4  # for phrases of a caption
# "a photo of a dog": the first noun names the image itself, and no region of it
_IMAGE_NOUNS = frozenset(
    "photo photograph picture image drawing painting view scene shot close-up".split()
)
_ARTICLE = re.compile(r"\b(?:an?|the)\s+$", re.IGNORECASE)


@dataclass(frozen=True)
class Pair:
    """An image and its caption.

    Attributes:
        image: a PIL image, a path, or a function that gives the image when it is needed.
        caption: any English text.
        where: only for `maps="ground truth"`: characters `start` to `end` of the caption -> mask
            (H, W) bool of the things that they describe, or None.
    """

    image: Image.Image | str | Path | Callable[[], Image.Image]
    caption: str
    where: Callable[[int, int], np.ndarray | None] | None = None

    def read(self) -> Image.Image:
        """The image, RGB."""
        return read_image(self.image() if callable(self.image) else self.image)


@dataclass(frozen=True)
class Batch:
    """B pairs with room for P phrases each; texts are listed once, and found by their row."""

    pixels: Tensor  # (B, 3, H, W)
    texts: tuple[str, ...]  # captions and phrases, each once
    captions: Tensor  # (B,) long, rows of texts
    phrases: Tensor  # (B, P) long, rows of texts
    phrase_mask: Tensor  # (B, P) bool: which of the P places hold a phrase
    spans: tuple[tuple[Phrase, ...], ...]  # the phrases themselves
    # (B, P, h, w), the fraction of each cell that a phrase's mask covers; only for "ground truth"
    ground_truth: Tensor | None

    def to(self, device: torch.device) -> Self:
        """The same batch with its tensors on another device."""
        tensors = {
            name: value.to(device)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, **tensors)


@lru_cache(maxsize=100_000)
def noun_phrases(caption: str) -> tuple[Phrase, ...]:
    """The noun phrases of a caption with their articles, without nouns for the image itself."""
    with_articles = []
    for phrase in phrases(caption):
        if phrase.head.lower() in _IMAGE_NOUNS:
            continue
        article = _ARTICLE.search(caption[: phrase.start])
        start = article.start() if article else phrase.start
        text = caption[start : phrase.end]
        with_articles.append(replace(phrase, text=text, start=start))
    return tuple(with_articles)


class PairBatches(torch.utils.data.Dataset):
    """Batch number i of a seeded run, in a new order of the pairs in each epoch."""

    def __init__(
        self,
        preprocess: Callable,
        pairs: Sequence[Pair],
        batch: int,
        seed: int,
        *,
        grid: tuple[int, int] | None = None,
    ) -> None:
        self.preprocess = preprocess
        self.pairs = pairs
        self.batch = batch
        self.seed = seed
        self.grid = grid  # of the true masks, if they are needed

    def rows(self, number: int) -> list[int]:
        """The numbers of the pairs in a batch."""
        draws = number * self.batch + np.arange(self.batch)
        epochs, places = np.divmod(draws, len(self.pairs))

        rows = np.empty_like(draws)
        for epoch in np.unique(epochs):
            rng = np.random.default_rng([self.seed, epoch])
            order = rng.permutation(len(self.pairs))
            in_epoch = epochs == epoch
            rows[in_epoch] = order[places[in_epoch]]
        return rows.tolist()

    def __getitem__(self, number: int) -> Batch:
        """Read the images of a batch and cut its captions into phrases."""
        pairs = [self.pairs[row] for row in self.rows(number)]
        views = [model_view(self.preprocess, pair.read()) for pair in pairs]
        spans = tuple(noun_phrases(pair.caption)[:PLACES] for pair in pairs)

        texts: dict[str, int] = {}  # to their rows
        for pair in pairs:
            texts.setdefault(pair.caption, len(texts))

        places = (len(pairs), PLACES)  # (B, P)
        phrase_rows = torch.zeros(places, dtype=torch.long)
        phrase_mask = torch.zeros(places, dtype=torch.bool)
        for b, phrases_of_pair in enumerate(spans):
            for p, phrase in enumerate(phrases_of_pair):
                phrase_rows[b, p] = texts.setdefault(phrase.text, len(texts))
                phrase_mask[b, p] = True

        ground_truth = None
        if self.grid is not None:
            ground_truth = torch.zeros(*places, *self.grid)
            for b, p in phrase_mask.nonzero().tolist():
                phrase = spans[b][p]
                ground_truth[b, p] = covered_cells(pairs[b], phrase, self.grid, views[b].box)

        return Batch(
            pixels=torch.stack([view.pixels for view in views]),
            texts=tuple(texts),
            captions=torch.tensor([texts[pair.caption] for pair in pairs]),
            phrases=phrase_rows,
            phrase_mask=phrase_mask,
            spans=spans,
            ground_truth=ground_truth,
        )


def covered_cells(pair: Pair, phrase: Phrase, grid: tuple[int, int], box: tuple) -> Tensor:
    """How much of each cell (h, w) of the model's view the things of a phrase cover."""
    if pair.where is None:
        raise GradeclipError(
            f"maps='ground truth' needs pairs with `where`; that of {pair.caption!r} has none"
        )
    mask = pair.where(phrase.start, phrase.end)
    if mask is None:
        return torch.zeros(grid)
    return torch.from_numpy(pool(mask, grid, box)).float()
