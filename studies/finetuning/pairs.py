"""Pairs of an image and a caption, cut into batches of pixels, captions and noun phrases.

captions.csv, images --here--> batches --> maps, regions --> fine-tuned model
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gradeclip_utils.errors import GradeclipError, short
from gradeclip_utils.images import model_view, pool, read_image
from gradeclip_utils.language import Phrase, phrases

_NO_THINGS = frozenset(
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
        """Read the image; a function of one's own that finds no file is refused by the caption."""
        try:
            return read_image(self.image() if callable(self.image) else self.image)
        except OSError as error:
            raise GradeclipError(
                f"the image of {short(self.caption)} cannot be read: {error}"
            ) from error


@dataclass(frozen=True)
class Batch:
    """B pairs with room for P phrases each; texts are listed once, and found by their row."""

    pixels: Tensor  # (B, 3, H, W)
    texts: tuple[str, ...]  # captions and phrases, each once
    captions: Tensor  # (B,) long, rows of texts
    phrases: Tensor  # (B, P) long
    there: Tensor  # (B, P) bool: which of the places hold a phrase
    spans: tuple[tuple[Phrase, ...], ...]  # the phrases themselves
    ground_truth: (
        Tensor | None
    )  # (B, P, h, w), the fraction of each cell that the mask covers; only for that map


@lru_cache(maxsize=100_000)
def spoken(caption: str) -> tuple[Phrase, ...]:
    """The noun phrases of a caption, with their articles, without words for the image itself ("a photo of")."""
    found = []
    for phrase in phrases(caption):
        if phrase.head.lower() in _NO_THINGS:
            continue
        article = _ARTICLE.search(caption[: phrase.start])
        start = article.start() if article else phrase.start
        found.append(replace(phrase, text=caption[start : phrase.end], start=start))
    return tuple(found)


class PairBatches(torch.utils.data.Dataset):
    """Batch number i of a seeded run, in a new order of the pairs each time round."""

    def __init__(
        self,
        preprocess: Callable,
        pairs: Sequence[Pair],
        batch: int,
        count: int,
        seed: int,
        *,
        place: tuple[int, int] = (0, 1),
        places: int = 4,
        grid: tuple[int, int] | None = None,
    ) -> None:
        self.preprocess, self.pairs, self.batch, self.count, self.seed = (
            preprocess,
            pairs,
            batch,
            count,
            seed,
        )
        self.place, self.places, self.grid = place, places, grid

    def __len__(self) -> int:
        return self.count

    def rows(self, number: int) -> np.ndarray:
        """The numbers (batch / processes,) of the pairs in this process's part of a batch."""
        turns, places = np.divmod(number * self.batch + np.arange(self.batch), len(self.pairs))
        order = {
            t: np.random.default_rng([self.seed, int(t)]).permutation(len(self.pairs))
            for t in np.unique(turns)
        }
        rows = np.array([order[turn][place] for turn, place in zip(turns, places, strict=True)])
        mine, processes = self.place
        return np.split(rows, processes)[mine]

    def __getitem__(self, number: int) -> Batch:
        """Read the images of a batch and cut its captions into phrases."""
        pairs = [self.pairs[int(row)] for row in self.rows(number)]
        views = [model_view(self.preprocess, pair.read()) for pair in pairs]
        spans = tuple(spoken(pair.caption)[: self.places] for pair in pairs)
        texts: dict[str, int] = {}

        def row_of(text: str) -> int:
            return texts.setdefault(text, len(texts))

        captions = torch.tensor([row_of(pair.caption) for pair in pairs])
        phrases = torch.zeros(len(pairs), self.places, dtype=torch.long)
        there = torch.zeros(len(pairs), self.places, dtype=torch.bool)
        ground_truth = (
            None if self.grid is None else torch.zeros(len(pairs), self.places, *self.grid)
        )
        for b, own in enumerate(spans):
            for p, phrase in enumerate(own):
                phrases[b, p], there[b, p] = row_of(phrase.text), True
                if ground_truth is not None:
                    ground_truth[b, p] = _covered(
                        pairs[b], phrase, ground_truth.shape[2:], views[b].box
                    )
        pixels = torch.stack([view.pixels for view in views])
        return Batch(pixels, tuple(texts), captions, phrases, there, spans, ground_truth)


def _covered(pair: Pair, phrase: Phrase, grid: tuple[int, int], box: tuple) -> Tensor:
    """How much of each cell (h, w) the things of a phrase cover."""
    if pair.where is None:
        raise GradeclipError(
            f"maps='ground truth' needs pairs with `where`; that of {pair.caption!r} has none"
        )
    mask = pair.where(phrase.start, phrase.end)
    return (
        torch.zeros(grid)
        if mask is None
        else torch.from_numpy(pool(mask.astype(float), grid, box)).float()
    )
