"""Replacing a word by others of its kind: how much lower is the similarity with another word?

Leaving a word out shortens the prompt and may break its grammar. Another word in its place keeps
both. Lymperaiou and Stamou (arXiv 2503.01914) explain image retrieval by such edits.

    for word, prompts in zip(words, replaced_prompts("a red car", [(0, 1), (2, 5), (6, 9)])):
        falls = similarity - image_embedding @ explainer.embed_texts(prompts).T

`replace_words` is the mean of these falls; `replacement_falls` gives all of them.
"""

import re
from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from ..language import EVERYDAY_NOUNS, tagged_words
from ..towers import Tower, Trace
from .common import zero_maps
from .options import DEFAULTS, Options

REPLACEMENTS = 16  # of a word, at most
BATCH_SIZE = 64  # prompts in one forward pass

# A function word is replaced by another one of its list, if it stands in one.
FUNCTION_WORDS = (
    "a an the",
    "and or",
    "in on under above below behind beside near",
    "my your his her its our their",
)
# So are these; other words are replaced by words of the same tag (Penn Treebank).
CONTENT_WORDS = (
    "two three four five six seven eight nine ten",
    "red green blue yellow black white brown pink orange purple grey",
    "left right top bottom front back",
)
NOUNS = [noun for noun in EVERYDAY_NOUNS if noun != "orange"]  # which is a colour here
VERBS = (
    "burn clean climb cook float follow jump kick lift look open paint play pull roll turn walk"
).split()
ADJECTIVES = (
    "big small old new tall short wide heavy light dark bright clean dirty wet dry soft angry empty"
).split()
ADVERBS = "badly easily gently happily loudly openly quickly quietly rarely slowly".split()
WORDS_BY_TAG = {
    "NN": NOUNS,
    "NNS": [f"{noun}s" for noun in NOUNS],
    "VB": VERBS,
    "VBP": VERBS,
    "VBZ": [f"{verb}s" for verb in VERBS],
    "VBG": [f"{verb}ing" for verb in VERBS],
    "VBD": [f"{verb}ed" for verb in VERBS],
    "VBN": [f"{verb}ed" for verb in VERBS],
    "JJ": ADJECTIVES,
    "RB": ADVERBS,
}
WRONG_ARTICLE = re.compile(r"\b(?:a [aeiou]|an [^aeiou])", re.IGNORECASE)


def replace_words(
    tower: Tower,
    trace: Trace,
    directions: Tensor,
    options: Options = DEFAULTS,
) -> Tensor:
    """Replace a word: the mean over other words of S(prompt) - S(prompt with the other word).

    The score stands at the word's first token; a word that has no others of its kind has zero.
    """
    assert options.word_ids is not None
    scores = zero_maps(trace, directions)  # (B, T, N)
    falls_of_prompts = replacement_falls(tower, trace, directions, options)

    for prompt, falls_of_words in enumerate(falls_of_prompts):
        for word, falls in enumerate(falls_of_words):
            if falls.shape[1] > 0:
                first_token = int((options.word_ids[prompt] == word).int().argmax())
                scores[prompt, :, first_token] = falls.mean(dim=1)
    return scores


def replacement_falls(
    tower: Tower,
    trace: Trace,
    directions: Tensor,
    options: Options,
) -> list[tuple[Tensor, ...]]:
    """S(prompt) - S(prompt with another word), for every prompt and word: (T, K) for K others."""
    assert options.tokenize is not None
    falls_of_prompts = []
    for row, split in enumerate(options.splits):
        prompts_of_words = replaced_prompts(
            split.prompt,
            split.spans,
            vocabulary=options.vocabulary,
            seed=options.seed,
        )
        prompts = list(chain(*prompts_of_words))
        embeddings = [trace.embedding[:0]]
        for start in range(0, len(prompts), BATCH_SIZE):
            ids = options.tokenize(prompts[start : start + BATCH_SIZE])
            embeddings.append(tower.trace(ids).embedding)

        falls = directions[row] @ (trace.embedding[row] - torch.cat(embeddings)).T  # (T, sum of K)
        falls_of_prompts.append(falls.split([len(prompts) for prompts in prompts_of_words], dim=1))
    return falls_of_prompts


def replaced_prompts(
    prompt: str,
    spans: Sequence[tuple[int, int]],
    *,
    vocabulary: frozenset[str] | None = None,
    count: int = REPLACEMENTS,
    seed: int = 0,
) -> list[list[str]]:
    """For each word of an English prompt, the prompt with other words of its kind in its place.

    >>> replaced_prompts("a dog and a cat", [(0, 1), (6, 9)])
    [['the dog and a cat'], ['a dog or a cat']]

    Args:
        prompt: the prompt.
        spans: where the words stand in it, first character and end.
        vocabulary: the words that the model knows, or None if it knows any.
        count: how many prompts a word has at most; which, if there are more, is drawn.
        seed: of the draw.

    Returns:
        A list for each word. It is empty for a word of a class that has no other words here, such
        as "of", and for punctuation.
    """
    tags = {(word.start, word.end): word.tag for word in tagged_words(prompt)}
    rng = np.random.default_rng(seed)

    prompts_of_words = []
    for start, end in spans:
        prompts = []
        for other in other_words(prompt[start:end], tags.get((start, end), ""), prompt):
            replaced = prompt[:start] + other + prompt[end:]
            known = vocabulary is None or other in vocabulary
            fits = len(WRONG_ARTICLE.findall(replaced)) <= len(WRONG_ARTICLE.findall(prompt))
            if known and fits:
                prompts.append(replaced)
        if len(prompts) > count:
            drawn = sorted(rng.permutation(len(prompts))[:count])
            prompts = [prompts[i] for i in drawn]
        prompts_of_words.append(prompts)
    return prompts_of_words


def other_words(word: str, tag: str, prompt: str) -> list[str]:
    """Words of the same kind as a word of a prompt, without other content words of the prompt."""
    word = word.lower()
    for line in FUNCTION_WORDS:
        if word in line.split():
            return [other for other in line.split() if other != word]

    words = WORDS_BY_TAG.get(tag, [])
    for line in CONTENT_WORDS:
        if word in line.split():
            words = line.split()
    present = re.findall(r"\w+", prompt.lower())
    return [other for other in words if other not in present]
