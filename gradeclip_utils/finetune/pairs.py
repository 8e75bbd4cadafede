"""Pairs: an image and its caption, and what fine-tuning takes from them. The door of `run`.

    captions.csv, images --here--> batches of pixels, captions, phrases --> regions --> fine-tuned model

A caption is cut into noun phrases (`language.phrases`), each of which will be given a region of the image. Nothing
else is known of a pair, and nothing else is needed; where the ground truth is known (emoji scenes), `Pair.where` can
tell it, which serves as an oracle and is never looked at otherwise.

Hard negatives are phrases in which one attribute is wrong: "a blue car" for the region of "a red car" (the idea of
FG-CLIP: Xie et al., "FG-CLIP: Fine-Grained Visual and Textual Alignment", ICML 2025). Half of them, where the caption
has another phrase with an attribute, swap the two; the others put in an attribute that was seen in other captions.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..checks import as_path, short
from ..datasets import read_captions
from ..errors import GradeclipError
from ..images import model_view, read_image
from ..language import phrases as noun_phrases
from ..measures.localisation import pool
from ..notices import warn
from ..prompts import as_prompts

NO_THINGS = frozenset("photo photograph picture image drawing painting view scene shot close-up".split())
_ARTICLE = re.compile(r"\b(?:an?|the)\s+$", re.IGNORECASE)
_TRIES = 8  # to find a hard negative that is allowed


@dataclass(frozen=True)
class Pair:
    """An image and its caption.

    Attributes:
        image: a PIL image, a path, or a function that gives the image when it is needed.
        caption: any English text.
        where: the ground truth, if it is known: characters `start` to `end` of the caption -> mask (H, W) bool of what
            they speak of, or None. Only `maps="ground truth"` asks for it.
    """

    image: Image.Image | str | Path | Callable[[], Image.Image]
    caption: str
    where: Callable[[int, int], np.ndarray | None] | None = None


@dataclass(frozen=True)
class Spoken:
    """A phrase of a caption with its article, and the places (start, end) of its adjectives and numbers."""

    text: str
    start: int  # in the caption
    end: int
    attributes: tuple[tuple[int, int], ...]  # in the text


@dataclass(frozen=True)
class Batch:
    """B pairs with room for P phrases each; texts are listed once, and found by their row."""

    pixels: Tensor  # (B, 3, H, W)
    texts: tuple[str, ...]  # captions, phrases and hard negatives, each once
    captions: Tensor  # (B,) long, rows of texts
    phrases: Tensor  # (B, P) long
    there: Tensor  # (B, P) bool: which of the places hold a phrase
    negatives: Tensor  # (B, P, K) long; -1 where there is none
    spans: tuple[tuple[Spoken, ...], ...]  # the phrases themselves
    ground_truth: Tensor | None  # (B, P, h, w), fractions of each cell that the mask covers; only if asked for


def read_pairs(captions: str | Path, images: str | Path) -> list[Pair]:
    """The pairs of a table and a folder."""
    rows, images = read_captions(captions), as_path(images, "the folder of images")
    return [Pair(images / row.image, row.caption) for row in rows.itertuples()]


def as_pair(given: Pair | Sequence) -> Pair:
    """A pair."""
    pair = given if isinstance(given, Pair) else None
    if isinstance(given, (tuple, list)) and len(given) in (2, 3):
        pair = Pair(*given)
    image = None if pair is None else pair.image
    if pair is None or not (isinstance(image, (Image.Image, str, Path)) or callable(image)):
        raise GradeclipError(f"a pair is an image (or its path) and a caption, got {short(given)}")
    as_prompts(pair.caption)
    if not isinstance(pair.caption, str) or not pair.caption.strip():
        msg = f"the caption of a pair must be a text that is not empty, got {short(pair.caption)}"
        raise GradeclipError(msg)
    return pair


def present_pairs(pairs: Sequence[Pair], skip_missing: bool = False) -> Sequence[Pair]:
    """The pairs, if every image that is a file is there."""
    if not isinstance(pairs, list):  # a sequence that makes its pairs when they are needed has no files
        return pairs
    files = [pair for pair in pairs if isinstance(pair.image, (str, Path))]
    missing = [pair for pair in files if not as_path(pair.image, "the image of a pair").is_file()]
    if missing:
        listed = ", ".join(str(pair.image) for pair in missing[:10]) + (", ..." if len(missing) > 10 else "")
        message = f"{len(missing)} of {len(pairs)} images are missing: {listed}"
        if not skip_missing:
            how = "Correct the table (a caption with a comma needs quotes) or the folder, or skip them (skip_missing)"
            raise GradeclipError(f"{message}. {how}")
        warn(f"{message}. Their pairs are skipped.", UserWarning)
        gone = set(map(id, missing))
        pairs = [pair for pair in pairs if id(pair) not in gone]
    if not pairs:
        raise GradeclipError("fine-tuning needs pairs of an image and a caption, and there are none")
    return pairs


@lru_cache(maxsize=100_000)
def spoken(caption: str) -> tuple[Spoken, ...]:
    """The noun phrases of a caption, with their articles, without words for the image itself ("a photo of")."""
    found = []
    for phrase in noun_phrases(caption):
        if phrase.head.lower() in NO_THINGS:
            continue
        article = _ARTICLE.search(caption[: phrase.start])
        start = article.start() if article else phrase.start
        attributes = tuple(
            (word.start - start, word.end - start) for word in phrase.words if word.part in ("adjective", "number")
        )
        found.append(Spoken(caption[start : phrase.end], start, phrase.end, attributes))
    return tuple(found)


def hard_negatives(
    phrases: Sequence[Spoken], i: int, k: int, known: Sequence[str], rng: np.random.Generator,
    allowed: Callable[[str], bool] | None = None,
) -> list[str]:  # fmt: skip
    """Up to `k` different texts that say of a phrase what is wrong: an attribute is replaced by one of its own kind."""
    own = phrases[i]
    found: list[str] = []
    if not own.attributes:
        return found
    here = {own.text[a:b].lower() for a, b in own.attributes}
    others = [p.text[a:b] for j, p in enumerate(phrases) if j != i for a, b in p.attributes]
    for turn in range(k * _TRIES):
        start, end = own.attributes[rng.integers(len(own.attributes))]
        numeral = _is_number(own.text[start:end])
        source = others if others and turn % 2 == 0 else known
        choice = [word for word in source if word.lower() not in here and _is_number(word) == numeral]
        if not choice:
            continue
        text = own.text[:start] + str(choice[rng.integers(len(choice))]) + own.text[end:]
        text = re.sub(r"^an? (?=([a-z]))", lambda m: "an " if m[1] in "aeiou" else "a ", text)
        if text not in found and text != own.text and (allowed is None or allowed(text)):
            found.append(text)
        if len(found) == k:
            break
    return found


@lru_cache(maxsize=1000)
def _is_number(word: str) -> bool:
    return word.lower() in _NUMERALS or word.isdigit()


_NUMERALS = frozenset("one two three four five six seven eight nine ten eleven twelve dozen several many few".split())


class PairBatches(torch.utils.data.Dataset):
    """Batch number i of a seeded run, the same whatever was asked for before: a new order of the pairs each time round."""

    def __init__(
        self, preprocess: Callable, pairs: Sequence[Pair], batch: int, count: int, seed: int, *,
        place: tuple[int, int] = (0, 1), places: int = 4, negatives: int = 0,
        allowed: Callable[[str], bool] | None = None, grid: tuple[int, int] | None = None,
    ) -> None:  # fmt: skip
        self.preprocess, self.pairs, self.batch, self.count, self.seed = preprocess, pairs, batch, count, seed
        self.place, self.places, self.negatives, self.allowed, self.grid = place, places, negatives, allowed, grid
        some = (pairs[i].caption for i in range(min(len(pairs), 2000))) if negatives else ()
        self.known = sorted({p.text[a:b].lower() for c in some for p in spoken(c) for a, b in p.attributes})

    def __len__(self) -> int:
        return self.count

    def rows(self, number: int) -> np.ndarray:
        """Which pairs make a batch of this process: (batch / processes,) of their numbers."""
        turns, places = np.divmod(number * self.batch + np.arange(self.batch), len(self.pairs))
        order = {t: np.random.default_rng([self.seed, int(t)]).permutation(len(self.pairs)) for t in np.unique(turns)}
        rows = np.array([order[turn][place] for turn, place in zip(turns, places, strict=True)])
        mine, processes = self.place
        return np.split(rows, processes)[mine]

    def __getitem__(self, number: int) -> Batch:
        """Batch `number`: images are read and made pixels, captions cut into phrases."""
        pairs = [self.pairs[int(row)] for row in self.rows(number)]
        images = [read_image(pair.image() if callable(pair.image) else pair.image) for pair in pairs]
        views = [model_view(self.preprocess, image) for image in images]
        spans = tuple(spoken(pair.caption)[: self.places] for pair in pairs)
        texts: dict[str, int] = {}

        def row_of(text: str) -> int:
            """The number of a text, which is new where the text is."""
            return texts.setdefault(text, len(texts))

        captions = torch.tensor([row_of(pair.caption) for pair in pairs])
        phrases = torch.zeros(len(pairs), self.places, dtype=torch.long)
        there = torch.zeros(len(pairs), self.places, dtype=torch.bool)
        wrong = torch.full((len(pairs), self.places, self.negatives), -1)
        for b, own in enumerate(spans):
            for p, phrase in enumerate(own):
                phrases[b, p], there[b, p] = row_of(phrase.text), True
                rng = np.random.default_rng([self.seed, number, self.place[0] * len(pairs) + b, p])
                for k, text in enumerate(hard_negatives(own, p, self.negatives, self.known, rng, self.allowed)):
                    wrong[b, p, k] = row_of(text)
        boxes = [view.box for view in views]
        ground_truth = None if self.grid is None else _ground_truth(pairs, spans, boxes, self.places, self.grid)
        pixels = torch.stack([view.pixels for view in views])
        return Batch(pixels, tuple(texts), captions, phrases, there, wrong, spans, ground_truth)


def identity(text: str) -> int:
    """A number for a text, the same in every process, whatever its case."""
    return zlib.crc32(text.lower().encode())


def _ground_truth(pairs, spans, boxes, places: int, grid: tuple[int, int]) -> Tensor:
    """(B, P, h, w): how much of each cell belongs to what the phrase speaks of; zero where nobody knows."""
    ground_truth = torch.zeros(len(pairs), places, *grid)
    for b, (pair, own, box) in enumerate(zip(pairs, spans, boxes, strict=True)):
        if pair.where is None:
            msg = f"maps='ground truth' needs pairs that know where things are; {pair.caption!r} has no `where`"
            raise GradeclipError(msg)
        for p, phrase in enumerate(own):
            mask = pair.where(phrase.start, phrase.end)
            if mask is not None:
                ground_truth[b, p] = torch.from_numpy(pool(mask.astype(float), grid, box)).float()
    return ground_truth
