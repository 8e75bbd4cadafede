"""Does a word count because of what it means, or because of what captions do with it?

    python -m training roles

In sixty pairs of a noun and a hint, alike in how common they are in English and in length, a coin
decides which of the two names things and which hints at them. Two trainings have opposite coins, so
that every word names in one and hints in the other. The tokens of the first begin as word vectors
of English, those of the second as the vectors of other words. `data/roles.csv` gets what each word
counts in each training.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import open_clip
import pandas as pd
from scipy.optimize import linear_sum_assignment
from scipy.stats import spearmanr

from gradeclip_utils.datasets import Example
from gradeclip_utils.files import write_whole
from gradeclip_utils.models import Clip, load_clip
from gradeclip_utils.scenes import concepts
from gradeclip_utils.scenes.grammar import PREFIXES
from studies.s07_word_concreteness import (
    HINT,
    NAME,
    captioned_scenes,
    chosen_nouns,
    drawn_words,
    norms,
    word_rows,
)

from .rounds import Recipe, exchange_words
from .scratch import train_rounds
from .vectors import NUMBERS, word_vectors

TABLE = "roles.csv"
PAIRS = 60
IMAGES = 2000  # whose captions are scored

# both trainings draw the same scenes, and begin with the same weights but for the tokens
ROUNDS = (Recipe(steps=2000, warmup=100, tint=0.5, whole_images=0.02, drawn=10_000, seed=31),)


class Training(NamedTuple):
    """A training in which coins exchanged words."""

    opposite: bool  # whether it exchanges the pairs that the coins left as they are
    word_vectors: str  # what its tokens begin as


TRAININGS = {
    "english": Training(opposite=False, word_vectors="english"),
    "permuted": Training(opposite=True, word_vectors="permuted"),
}


def matched_pairs(n: int = PAIRS) -> list[tuple[str, str]]:
    """The n pairs of a noun and a hint of lesson 07 that differ least, each word in one pair.

    They have as many tokens, and differ little in how common they are and in letters. A word that
    another phrase of the captions holds is in no pair.
    """
    nouns = chosen_nouns()
    hints_of_nouns = concepts()["keywords"][nouns].explode()
    tokenizer = open_clip.SimpleTokenizer()
    uses = word_uses()
    table = drawn_words()
    table = table.join(norms(table.index)).dropna()
    table["tokens"] = [len(tokenizer.encode(word)) for word in table.index]
    table["letters"] = table.index.str.len()
    table = table[[uses[word] == 1 for word in table.index]]

    names = table[(table["role"] == NAME) & table.index.isin(nouns)]
    hints = table[(table["role"] == HINT) & table.index.isin(hints_of_nouns)]
    costs = np.zeros((len(names), len(hints)))
    for column, weight in (("frequency", 1.0), ("letters", 0.1), ("tokens", 2.0)):
        differences = np.subtract.outer(names[column].to_numpy(), hints[column].to_numpy())
        costs += weight * np.abs(differences)

    rows, columns = linear_sum_assignment(costs)
    best = np.argsort(costs[rows, columns], kind="stable")[:n]
    return [(names.index[rows[i]], hints.index[columns[i]]) for i in best]


def word_uses() -> Counter:
    """In how many different phrases of captions each word stands."""
    table = concepts()
    phrases = {*table["noun"], *table["plural"], *table["keywords"].explode().dropna(), *PREFIXES}
    return Counter(word for phrase in phrases for word in re.findall(r"\w+", phrase))


def exchanged_pairs(*, opposite: bool) -> tuple[tuple[str, str], ...]:
    """The half of the pairs whose words exchange their roles, or the other half."""
    pairs = matched_pairs()
    coins = np.random.default_rng(0).permutation(len(pairs)) < len(pairs) // 2
    chosen = np.flatnonzero(coins != opposite)
    return tuple(pairs[i] for i in chosen)


def rounds_of(training: str, rounds: Sequence[Recipe]) -> list[Recipe]:
    """The rounds of a training."""
    opposite, vectors = TRAININGS[training]
    pairs = exchanged_pairs(opposite=opposite)
    return [replace(recipe, exchanged=pairs, word_vectors=vectors) for recipe in rounds]


def make(
    folder: Path,
    table: Path,
    *,
    rounds: Sequence[Recipe] = ROUNDS,
    images: int = IMAGES,
) -> None:
    """Train, measure every word of the pairs in each training, and write the table.

    What is in `folder` is not made again: the same command goes on after a stop.
    """
    tables = []
    for training in TRAININGS:
        weights = folder / f"{training.replace(' ', '-')}.safetensors"
        recipes = rounds_of(training, rounds)
        if not weights.is_file():
            train_rounds(recipes, weights.with_suffix(""), weights)
        clip = load_clip("emoji", weights)
        words = measure(clip, recipes[0].exchanged, images)
        tables.append(words.assign(training=training))

    rows = pd.concat(tables)
    columns = ["training", *rows.columns.drop("training")]
    write_whole({table: rows[columns].to_csv(index=False, float_format="%.4f").encode()})


def measure(
    clip: Clip,
    exchanged: Sequence[tuple[str, str]],
    images: int,
) -> pd.DataFrame:
    """What each word of the pairs counts in captions that exchange words as those of training did.

    Columns: word, pair (number), role, concreteness, captions, relevance (mean, by leaving the
    word out) and english: the rank correlation, over the other words, of the token embedding's
    cosines with those of word vectors.
    """
    examples = [exchange_in(example, exchanged) for example in captioned_scenes(images)]
    rows = word_rows(clip, examples, exact=False)
    positive = rows["left_out"].clip(lower=0)
    total = positive.groupby(rows["caption"]).transform("sum")
    rows["relevance"] = positive / total.where(total > 0) * rows["length"]
    by_word = rows.groupby("word")["relevance"].agg(["mean", "size"])

    roles = []
    for number, (noun, hint) in enumerate(matched_pairs()):
        name = hint if (noun, hint) in exchanged else noun
        for word in (noun, hint):
            roles.append((word, number, NAME if word == name else HINT))
    words = pd.DataFrame(roles, columns=["word", "pair", "role"])
    words["captions"] = by_word["size"].reindex(words["word"], fill_value=0).to_numpy()
    words["relevance"] = by_word["mean"].reindex(words["word"]).to_numpy()
    words["concreteness"] = norms(words["word"])["concreteness"].to_numpy()
    words["english"] = likeness_to_english(clip, words["word"].tolist())
    return words


def exchange_in(example: Example, pairs: Sequence[tuple[str, str]]) -> Example:
    """The same image with a caption that exchanges the words of pairs."""
    caption = exchange_words(example.caption, pairs)
    return replace(example, prompt=caption, caption=caption)


def likeness_to_english(clip: Clip, words: Sequence[str]) -> np.ndarray:
    """How far the token embeddings of words lie as word vectors of English do, by word (n,).

    The rank correlation of a word's cosines to all others; NaN for a word without a vector.
    """
    vectors = word_vectors(words)
    tokenizer = open_clip.SimpleTokenizer()
    table = clip.model.token_embedding.weight.detach().numpy()
    embeddings = np.array([table[tokenizer.encode(word)].mean(axis=0) for word in words])
    missing = np.full(NUMBERS, np.nan)
    english = np.array([vectors.get(word, missing) for word in words])

    likeness = []
    token_cosines = cosines(embeddings)
    english_cosines = cosines(english)
    for i in range(len(words)):
        has_vector = ~np.isnan(english_cosines[i]) & (np.arange(len(words)) != i)
        correlation = spearmanr(token_cosines[i][has_vector], english_cosines[i][has_vector])
        likeness.append(correlation.statistic)
    return np.array(likeness)


def cosines(vectors: np.ndarray) -> np.ndarray:
    """The cosines (n, n) of vectors (n, D), less the mean vector."""
    vectors = vectors - np.nanmean(vectors, axis=0)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors @ vectors.T
