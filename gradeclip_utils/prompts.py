"""Prompts: strings with their token ids and words, or embeddings, which have neither."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from .errors import GradeclipError, short, warn
from .models import Clip
from .towers import Tower
from .words import Split, check_tokenizer, split_row, unknown_words, why_no_words

Prompts: TypeAlias = str | Iterable[str] | Tensor | np.ndarray
_NOUNS = (
    "airplane ambulance anchor ant apple backpack ball balloon banana bat bath beach bear bed bee "
    "beer bell bench bicycle bird blanket boat book boot bottle bowl box bread bridge bucket "
    "building bus butterfly cake camel camera candle candy canoe car carrot castle cat chair "
    "cheese cherry chicken child church city clock cloud clown coat coffee computer cookie corn "
    "couch cow crab crocodile cup curtain desk diamond dinosaur dog doll dolphin donkey door "
    "dragon dress drum duck eagle ear egg elephant envelope eye factory farm fence field fire "
    "fish flag flower fly fork fountain fox frog garden gate gift giraffe glass globe glove goat "
    "grape guitar hamburger hammer handbag hat heart helicopter helmet hill horse hospital hotel "
    "house insect island jacket jeans kangaroo kettle key keyboard king kitchen kite knife lake "
    "lamp laptop lemon letter library lighthouse lightning lion lock man map mask microphone milk "
    "mirror monkey moon motorcycle mountain mouse mouth mug museum mushroom necklace newspaper "
    "nose octopus onion orange owl painting pancake panda parrot pear pen pencil penguin phone "
    "piano pig pillow pineapple pizza plane plate potato pumpkin queen rabbit rainbow restaurant "
    "ribbon ring river road robot rock rocket rose sailboat salad sandwich scarf school scissors "
    "sheep shell ship shirt shoe shower sky snake snowman sock spider spoon squirrel star statue "
    "stone strawberry street suitcase sun sunflower supermarket sweater sword table taxi teapot "
    "telescope television tent theater tiger toilet tomato tooth towel tower toy tractor train "
    "tree truck turkey turtle umbrella vase violin volcano watch watermelon whale window wolf "
    "woman zebra"
).split()


@dataclass(frozen=True)
class TokenizedPrompts:
    """P prompts: strings with token ids and, if the tokenizer gives them, words; or embeddings."""

    names: tuple[str, ...]  # the string itself, or "embedding 3"
    splits: tuple[Split, ...] = ()
    ids: Tensor | None = None  # (P, context length)
    embedding: Tensor | None = None  # (P, E)
    unknown: tuple[tuple[str, ...], ...] = ()  # the words of each that the model does not know


def as_prompts(prompts: Prompts) -> list[str] | Tensor:
    """Prompts as a list of strings, or embeddings as a tensor (T, E)."""
    is_array = isinstance(prompts, np.ndarray) and prompts.dtype.kind == "f"
    if not is_array and not isinstance(prompts, Tensor):
        return as_strings(prompts)

    embeddings = torch.as_tensor(prompts)
    if embeddings.ndim not in (1, 2) or not embeddings.is_floating_point():
        shape = tuple(embeddings.shape)
        raise GradeclipError(
            f"prompt embeddings must be floats (T, E), got {embeddings.dtype} {shape}"
        )
    return embeddings.reshape(-1, embeddings.shape[-1])  # (E,) -> (1, E)


def as_strings(prompts: str | Iterable[str]) -> list[str]:
    """One prompt or more as a list of strings."""
    if not isinstance(prompts, Iterable):
        raise GradeclipError(f"prompts must be strings, got {short(prompts)}")
    strings = [prompts] if isinstance(prompts, str) else list(prompts)
    if not strings:
        raise GradeclipError("there are no prompts: give at least one")
    for prompt in strings:
        if not isinstance(prompt, str):
            raise GradeclipError(f"prompts must be strings, got {short(prompt)}")
    return [str(prompt) for prompt in strings]  # numpy has strings of its own


def one_string(prompt: str | Iterable[str]) -> str:
    """The one prompt of a call that takes one, by itself or in a list."""
    strings = as_strings(prompt)
    if len(strings) > 1:
        raise GradeclipError(f"this call takes one prompt, got {len(strings)}: give one at a time")
    return strings[0]


def embeddings_as_prompts(
    embeddings: Tensor,
    width: int,
    first_index: int = 0,
) -> TokenizedPrompts:
    """Embeddings (P, E) in place of prompts, numbered from `first_index`."""
    if embeddings.shape[1] != width:
        raise GradeclipError(
            f"the model's embeddings are (T, {width}), got {tuple(embeddings.shape)}"
        )
    if not embeddings.isfinite().all() or (embeddings == 0).all(dim=-1).any():
        raise GradeclipError("prompt embeddings must be finite and not zero")
    numbers = range(first_index, first_index + len(embeddings))
    names = tuple(f"embedding {number}" for number in numbers)
    return TokenizedPrompts(names, embedding=embeddings.detach())


def tokenize(prompts: Sequence[str], clip: Clip, tower: Tower) -> TokenizedPrompts:
    """Split P prompts into tokens and words; warn of words that are not read or not known."""
    ids = token_ids(clip.tokenizer, prompts, tower)
    reason = why_no_words(clip.tokenizer)
    if reason is not None:
        warn(f"the image is explained, the words of the prompt are not: {reason}")
        return TokenizedPrompts(tuple(prompts), ids=ids)

    splits: list[Split] = []
    for prompt, row, end in zip(prompts, ids.tolist(), tower.ends(ids).tolist(), strict=True):
        split = split_row(prompt, clip.tokenizer, row, end)
        if split.unread:
            unread = short(" ".join(split.unread), 100)
            warn(
                f"the model reads only {len(split.word_ids)} tokens of {short(prompt)}; "
                f"not read: {unread}"
            )
        splits.append(split)

    unknown: tuple[tuple[str, ...], ...] = ()
    if clip.vocabulary is not None:
        unknown = tuple(tuple(unknown_words(split, clip.vocabulary)) for split in splits)
        if any(unknown):
            words = dict.fromkeys(chain(*unknown))  # in order, each word once
            warn(f"the model {clip.name!r} does not know these words: {', '.join(words)}")
    return TokenizedPrompts(tuple(prompts), tuple(splits), ids, unknown=unknown)


def token_ids(tokenizer: Any, prompts: Sequence[str], tower: Tower) -> Tensor:
    """The token ids (P, context length) of P prompts, on the device of the text encoder."""
    if not callable(tokenizer):
        raise GradeclipError(
            f"strings need the model's tokenizer, and it has {short(tokenizer)}: "
            "give one, or prompt embeddings"
        )
    check_tokenizer(tokenizer, words=False)

    ids = tokenizer(list(prompts))
    shape = (len(prompts), tower.context_length)
    if (
        not isinstance(ids, Tensor)
        or ids.ndim != 2
        or len(ids) != shape[0]
        or ids.shape[1] > shape[1]
    ):
        got = tuple(ids.shape) if isinstance(ids, Tensor) else type(ids).__name__
        raise GradeclipError(f"a tokenizer must give a long tensor, here {shape}, got {got}")

    embedding = getattr(getattr(tower, "text", tower.model), "token_embedding", None)
    count = getattr(embedding, "num_embeddings", None)
    if count is not None and ids.max() >= count:
        raise GradeclipError(
            f"the tokenizer gives the id {int(ids.max())}, and the model knows {count}: "
            "it is another model's tokenizer"
        )
    return ids.to(tower.device)


def null_captions(vocabulary: frozenset[str] | None) -> list[str]:
    """Captions that most images do not match ("a photo of a dog"), by nouns that are known."""
    return captions_of(known_nouns(vocabulary), vocabulary)


def known_nouns(vocabulary: frozenset[str] | None) -> list[str]:
    """Everyday nouns that a model knows, or if these are few, all its words."""
    if vocabulary is None:
        return _NOUNS
    nouns = [noun for noun in _NOUNS if noun in vocabulary]
    if len(nouns) < 20:  # the model knows other words
        return sorted(word for word in vocabulary if word.isalpha() and len(word) > 2)
    return nouns


def captions_of(nouns: Sequence[str], vocabulary: frozenset[str] | None) -> list[str]:
    """The captions "a photo of a dog" and so on, if the model knows these words."""
    if vocabulary is not None and not {"a", "an", "photo", "of"} <= vocabulary:
        return list(nouns)
    return [f"a photo of {'an' if noun[0] in 'aeiou' else 'a'} {noun}" for noun in nouns]
