"""Prompts: what an image is compared with, checked: strings as token ids and words, or embeddings, which have neither.

prompt, embedding --here--> Asked --tower--> trace --method--> map, scores of words
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from .checks import short
from .errors import GradeclipError
from .notices import warn, warn_of_missing_glyphs
from .towers import Tower
from .words import Split, check_tokenizer, split_row, unknown_words, why_no_words

Prompts: TypeAlias = str | Iterable[str] | Tensor | np.ndarray
_NOUNS = (
    "airplane ambulance anchor ant apple avocado backpack ball balloon banana basket bat bath beach bear bed bee "
    "beer bell bench bicycle bird blanket boat book boot bottle bouquet bow bowl box boy bread bridge brush bucket "
    "building bus butterfly button cactus cake calendar camel camera candle candy canoe car card carpet carrot "
    "castle cat chair cheese cherry chicken child church cigarette city clock cloud clown coat coffee comb comet "
    "computer cookie corn couch cow crab cradle crayon crocodile crown cup curtain desk diamond dinosaur dog doll "
    "dolphin donkey door dragon dress drum duck eagle ear egg elephant engine envelope eye factory farm fence field "
    "fire fish flag flamingo flashlight flower fly fork fountain fox frog garden gate ghost gift giraffe girl glass "
    "globe glove goat gorilla grape guitar hamburger hammer handbag harbor hat headphone heart helicopter helmet "
    "hen hill honey horse hospital hotel house insect iron island jacket jar jeans kangaroo kettle key keyboard "
    "king kitchen kite knife koala ladder lake lamp laptop leaf lemon letter library lighthouse lightning lion "
    "lizard lobster lock mailbox man map market mask meadow medal microphone microscope milk mirror monkey moon "
    "motorcycle mountain mouse mouth mug museum mushroom nail necklace necktie nest newspaper nose notebook octopus "
    "office onion orange oven owl paintbrush painting palace pancake panda parrot peach peacock peanut pear pen "
    "pencil penguin pepper phone piano pig pillow pineapple pizza plane plate pocket pond potato printer pumpkin "
    "pyramid queen rabbit radio rainbow restaurant ribbon ring river road robot rock rocket roof rose ruler "
    "sailboat salad sandwich satellite saxophone scale scarf school scissors scorpion screen sheep shelf shell "
    "shield ship shirt shoe shop shower skull sky snail snake snowman sock soldier spider spoon squirrel stadium "
    "staircase star statue steak stone stove strawberry street suitcase sun sunflower supermarket swan sweater "
    "sword table taco taxi teapot teddy telescope television tent theater thermometer tiger toilet tomato tooth "
    "tornado towel tower toy tractor train tree trophy truck trumpet tulip turkey turtle umbrella unicorn van vase "
    "violin volcano waiter wall watch watermelon wave whale wheel window wolf woman wrench yard zebra"
).split()
MOST_CHARACTERS = 5000  # in a prompt; a model reads 77 tokens, and to find their words takes time quadratic in them


@dataclass(frozen=True)
class Asked:
    """P prompts, checked: token ids, split into words where the tokenizer tells, or embeddings.

    Attributes:
        names: what each is called: the string itself, or "embedding 3".
        splits: their words; empty where there are none.
        ids: token ids (P, context_length), or None.
        embedding: (P, E), or None.
    """

    names: tuple[str, ...]
    splits: tuple[Split, ...] = ()
    ids: Tensor | None = None
    embedding: Tensor | None = None

    def word_ids(self, some: Sequence[int], valid_mask: Tensor) -> Tensor:
        """The word of every token of some of the prompts, (B, N); -1 for SOT, EOT and padding."""
        word_ids = torch.full_like(valid_mask, -1, dtype=torch.long)
        for row, i in zip(word_ids, some, strict=True):
            split = self.splits[i]
            row[split.first : split.first + len(split.word_ids)] = torch.tensor(split.word_ids)
        return word_ids


def as_prompts(prompts: Prompts) -> list[str] | Tensor:
    """Prompts as a list of strings, or embeddings as a tensor (T, E)."""
    if isinstance(prompts, np.ndarray) and prompts.dtype.kind == "f":
        prompts = as_tensor(prompts)
    if isinstance(prompts, Tensor):
        if prompts.layout != torch.strided or prompts.is_meta:
            msg = f"prompt embeddings must be dense and have values, got {prompts.layout} on {prompts.device}"
            raise GradeclipError(msg)
        if not prompts.is_floating_point() or prompts.ndim not in (1, 2) or not prompts.numel():
            msg = f"prompt embeddings must be floats (T, E), got {prompts.dtype} {tuple(prompts.shape)}"
            raise GradeclipError(msg)
        return prompts.reshape(-1, prompts.shape[-1])  # (E,) -> (1, E)
    found = [prompts] if isinstance(prompts, str) else prompts
    if not isinstance(found, (bytes, Mapping)) and isinstance(found, Iterable) and getattr(found, "ndim", 1) > 0:
        found = list(found)
    if not isinstance(found, list) or not found or not all(isinstance(prompt, str) for prompt in found):
        msg = f"prompts must be strings, or a float array of embeddings (T, E), got {short(found)}"
        raise GradeclipError(msg)
    for prompt in found:
        if len(prompt) > MOST_CHARACTERS:
            msg = f"a prompt can have {MOST_CHARACTERS} characters, and {short(prompt, 30)} has {len(prompt)}"
            raise GradeclipError(msg)
        if any("\ud800" <= character <= "\udfff" for character in prompt):
            msg = f"{short(prompt)} holds half of a character (a lone surrogate): decode it as UTF-8"
            raise GradeclipError(msg)
    return found


def as_tensor(values: Tensor | np.ndarray | Sequence[float]) -> Tensor:
    """Numbers as a tensor; of an array a copy, because torch does not take every stride and byte order."""
    if isinstance(values, np.ndarray):
        values = values.astype(f"{values.dtype.kind}{min(values.dtype.itemsize, 8)}")
    return torch.as_tensor(values)


def null_captions(vocabulary: frozenset[str] | None) -> list[str]:
    """Captions that most images do not match: "a photo of a dog" and so on, by nouns that the model knows."""
    nouns = _NOUNS if vocabulary is None else [noun for noun in _NOUNS if noun in vocabulary]
    if len(nouns) < 20:  # the model knows other words
        nouns = sorted(word for word in vocabulary or () if word.isalpha() and len(word) > 2)
    if vocabulary is not None and not {"a", "an", "photo", "of"} <= vocabulary:
        return nouns
    return [f"a photo of {'an' if noun[0] in 'aeiou' and noun != 'unicorn' else 'a'} {noun}" for noun in nouns]


def matched(prompts: list[str] | Tensor, count: int) -> list[str] | Tensor:
    """As many prompts as there are others."""
    if len(prompts) not in (1, count):
        msg = f"against must be one prompt, or one for each of {count}, got {len(prompts)}"
        raise GradeclipError(msg)
    if len(prompts) == count:
        return prompts
    return prompts.expand(count, -1) if isinstance(prompts, Tensor) else prompts * count


def ask_embeddings(embeddings: Tensor, width: int, first: int = 0) -> Asked:
    """Embeddings in place of prompts, checked."""
    if embeddings.shape[1] != width or not torch.isfinite(embeddings).all() or (embeddings == 0).all(-1).any():
        shape = tuple(embeddings.shape)
        msg = f"prompt embeddings must be (T, {width}), finite and not zero, got {shape}"
        raise GradeclipError(msg)
    embeddings = embeddings.detach()
    # to lengths near 1 by powers of two, which is exact: squares of very large or small numbers cannot be had
    embeddings = torch.ldexp(embeddings, -torch.frexp(embeddings.abs().amax(-1, keepdim=True)).exponent)
    return Asked(tuple(f"embedding {i}" for i in range(first, first + len(embeddings))), embedding=embeddings)


def token_ids(tokenizer: Any, prompts: Sequence[str], tower: Tower) -> Tensor:
    """The token ids (P, context length) of P prompts, on the device of the text encoder."""
    if not callable(tokenizer):
        msg = f"strings need the model's tokenizer, and it has {short(tokenizer)}: give one, or prompt embeddings"
        raise GradeclipError(msg)
    check_tokenizer(tokenizer, words=False)
    ids, rule = tokenizer(list(prompts)), "a tokenizer must turn T strings into a long tensor (T, context length)"
    if not isinstance(ids, Tensor) or ids.is_floating_point():
        got = ids.dtype if isinstance(ids, Tensor) else type(ids).__name__
        raise GradeclipError(f"{rule}, and this one gives {got}")
    if ids.ndim != 2 or len(ids) != len(prompts) or ids.shape[1] > tower.context_length:
        wanted = f"({len(prompts)}, {tower.context_length})"
        raise GradeclipError(f"{rule}, here {wanted}, and this one gives {tuple(ids.shape)}")
    table = getattr(getattr(getattr(tower, "text", tower.model), "token_embedding", None), "num_embeddings", None)
    if ids.min() < 0 or (table is not None and ids.max() >= table):
        msg = f"the tokenizer gives ids from {ids.min()} to {ids.max()}, and the model knows {table}: it is not its own"
        raise GradeclipError(msg)
    return ids.to(tower.device)


def ask_strings(prompts: Sequence[str], clip: Any, tower: Tower) -> Asked:
    """Check P prompts, split them into words, and warn of what the model cannot read or does not know."""
    warn_of_missing_glyphs(prompts)
    tokenizer = clip.tokenizer
    ids = token_ids(tokenizer, prompts, tower)
    if reason := why_no_words(tokenizer):
        warn(f"the picture is explained, the words of the prompt are not: {reason}")
        return Asked(tuple(prompts), ids=ids)
    ends = tower.ends(ids).tolist()
    splits = tuple(
        split_row(prompt, tokenizer, row, end) for prompt, row, end in zip(prompts, ids.tolist(), ends, strict=True)
    )
    for split in splits:
        if split.unread:
            start, unread = split.prompt[:40], " ".join(split.unread[:10]) + " ..." * (len(split.unread) > 10)
            message = f"the model reads only {len(split.word_ids)} tokens of {start!r}...; not read: {unread}"
            warn(message)
    if clip.vocabulary is not None:
        unknown = dict.fromkeys(word for split in splits for word in unknown_words(split, clip.vocabulary))
        if unknown:
            warn(f"the model {clip.name!r} was never shown these words: {', '.join(unknown)}")
    return Asked(tuple(prompts), splits, ids)
