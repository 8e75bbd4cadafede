"""Prompts, checked: strings with their token ids and words, or embeddings, which have neither."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from .checks import listed, short
from .errors import GradeclipError, first_line, warn
from .towers import Tower
from .words import Split, check_tokenizer, split_row, unknown_words, why_no_words

Prompts: TypeAlias = str | Iterable[str] | Tensor | np.ndarray
_NOUNS = (
    "airplane ambulance anchor ant apple backpack ball balloon banana bat bath beach bear bed bee beer bell bench "
    "bicycle bird blanket boat book boot bottle bowl box bread bridge bucket building bus butterfly cake camel camera "
    "candle candy canoe car carrot castle cat chair cheese cherry chicken child church city clock cloud clown coat "
    "coffee computer cookie corn couch cow crab crocodile cup curtain desk diamond dinosaur dog doll dolphin donkey "
    "door dragon dress drum duck eagle ear egg elephant envelope eye factory farm fence field fire fish flag flower "
    "fly fork fountain fox frog garden gate gift giraffe glass globe glove goat grape guitar hamburger hammer handbag "
    "hat heart helicopter helmet hill horse hospital hotel house insect island jacket jeans kangaroo kettle key "
    "keyboard king kitchen kite knife lake lamp laptop lemon letter library lighthouse lightning lion lock man map "
    "mask microphone milk mirror monkey moon motorcycle mountain mouse mouth mug museum mushroom necklace newspaper "
    "nose octopus onion orange owl painting pancake panda parrot pear pen pencil penguin phone piano pig pillow "
    "pineapple pizza plane plate potato pumpkin queen rabbit rainbow restaurant ribbon ring river road robot rock "
    "rocket rose sailboat salad sandwich scarf school scissors sheep shell ship shirt shoe shower sky snake snowman "
    "sock spider spoon squirrel star statue stone strawberry street suitcase sun sunflower supermarket sweater sword "
    "table taxi teapot telescope television tent theater tiger toilet tomato tooth towel tower toy tractor train tree "
    "truck turkey turtle umbrella vase violin volcano watch watermelon whale window wolf woman zebra"
).split()
_MOST_CHARACTERS = 5000  # in a prompt; a model reads 77 tokens, and to find their words takes time quadratic in them


@dataclass(frozen=True)
class TokenizedPrompts:
    """P prompts, checked: token ids and, if the tokenizer gives them, words; or embeddings."""

    names: tuple[str, ...]  # the string itself, or "embedding 3"
    splits: tuple[Split, ...] = ()
    ids: Tensor | None = None  # (P, context_length)
    embedding: Tensor | None = None  # (P, E)


def as_prompts(prompts: Prompts) -> list[str] | Tensor:
    """Prompts as a list of strings, or embeddings as a tensor (T, E)."""
    if isinstance(prompts, Tensor) or (
        isinstance(prompts, np.ndarray) and prompts.dtype.kind in "fc"
    ):
        found = dense("prompt embeddings", prompts)
        if found.ndim not in (1, 2) or not found.numel():
            raise GradeclipError(
                f"prompt embeddings must be floats (T, E), got shape {tuple(found.shape)}"
            )
        found = found.reshape(-1, found.shape[-1])  # (E,) -> (1, E)
    else:
        rule = "prompts must be strings, or a float array of embeddings (T, E)"
        try:
            found = listed("prompts", prompts, (str,))
        except GradeclipError as refusal:
            raise GradeclipError(str(refusal).replace("prompts must be a list", rule, 1)) from None
        wrong = [one for one in found if not isinstance(one, str)]
        if wrong or not found:
            raise GradeclipError(f"{rule}, got {short(wrong[0] if wrong else found)}")
        for prompt in found:
            if len(prompt) > _MOST_CHARACTERS:
                msg = f"a prompt can have {_MOST_CHARACTERS} characters, and {short(prompt, 30)} has {len(prompt)}"
                raise GradeclipError(msg)
            try:
                prompt.encode()
            except UnicodeEncodeError:
                msg = f"{short(prompt)} holds half of a character (a lone surrogate)"
                raise GradeclipError(
                    f"{msg}: read it as UTF-8 (in a terminal, set the locale to UTF-8)"
                ) from None
    return found


def dense(name: str, values: Tensor | np.ndarray | Sequence[float]) -> Tensor:
    """Floats as a dense tensor; of an array a copy, because torch does not take every stride and byte order."""
    if isinstance(values, np.ndarray) and values.dtype.kind == "f":
        values = values.astype(f"f{min(values.dtype.itemsize, 8)}")
    found = values if isinstance(values, Tensor) else torch.as_tensor(values, device="cpu")
    if found.layout != torch.strided or found.is_meta or found.is_nested:
        raise GradeclipError(
            f"{name} must be dense and have values, got {found.layout} on {found.device}"
        )
    if not found.is_floating_point():
        raise GradeclipError(f"{name} must be floats, got {found.dtype} {tuple(found.shape)}")
    return found.float() if found.dtype.itemsize == 1 else found  # float8


def null_captions(vocabulary: frozenset[str] | None) -> list[str]:
    """Captions that most images do not match: "a photo of a dog" and so on, by nouns that the model knows."""
    nouns = _NOUNS if vocabulary is None else [noun for noun in _NOUNS if noun in vocabulary]
    if len(nouns) < 20:  # the model knows other words
        nouns = sorted(word for word in vocabulary or () if word.isalpha() and len(word) > 2)
    if vocabulary is not None and not {"a", "an", "photo", "of"} <= vocabulary:
        return nouns
    return [f"a photo of {'an' if noun[0] in 'aeiou' else 'a'} {noun}" for noun in nouns]


def embeddings_as_prompts(embeddings: Tensor, width: int, first: int) -> TokenizedPrompts:
    """Embeddings in place of prompts, checked."""
    if (
        embeddings.shape[1] != width
        or not torch.isfinite(embeddings).all()
        or (embeddings == 0).all(-1).any()
    ):
        shape = tuple(embeddings.shape)
        raise GradeclipError(
            f"prompt embeddings must be (T, {width}), finite and not zero, got {shape}"
        )
    embeddings = embeddings.detach()
    # to lengths near 1 by powers of two, which is exact: squares of very large or small numbers
    # overflow
    embeddings = torch.ldexp(
        embeddings, -torch.frexp(embeddings.abs().amax(-1, keepdim=True)).exponent
    )
    return TokenizedPrompts(
        tuple(f"embedding {i}" for i in range(first, first + len(embeddings))), embedding=embeddings
    )


def token_ids(tokenizer: Any, prompts: Sequence[str], tower: Tower) -> Tensor:
    """The token ids (P, context length) of P prompts, on the device of the text encoder."""
    if not callable(tokenizer):
        msg = f"strings need the model's tokenizer, and it has {short(tokenizer)}: give one, or prompt embeddings"
        raise GradeclipError(msg)
    check_tokenizer(tokenizer, words=False)
    rule = "a tokenizer must turn T strings into a long tensor (T, context length)"
    try:
        ids = tokenizer(list(prompts))
    except (TypeError, ValueError, AttributeError, LookupError, RuntimeError) as error:
        raise GradeclipError(f"{rule}, and this one fails: {first_line(error)}") from error
    if not isinstance(ids, Tensor) or ids.dtype not in (torch.int64, torch.int32) or ids.is_meta:
        got = f"{ids.dtype} on {ids.device}" if isinstance(ids, Tensor) else type(ids).__name__
        raise GradeclipError(f"{rule}, and this one gives {got}")
    if ids.ndim != 2 or len(ids) != len(prompts) or not 0 < ids.shape[1] <= tower.context_length:
        wanted = f"({len(prompts)}, {tower.context_length})"
        raise GradeclipError(f"{rule}, here {wanted}, and this one gives {tuple(ids.shape)}")
    table = getattr(
        getattr(getattr(tower, "text", tower.model), "token_embedding", None),
        "num_embeddings",
        None,
    )
    if ids.min() < 0 or (table is not None and ids.max() >= table):
        msg = f"the tokenizer gives ids from {ids.min()} to {ids.max()}, and the model knows {table}: it is not its own"
        raise GradeclipError(msg)
    return ids.to(tower.device)


def tokenize(prompts: Sequence[str], clip: Any, tower: Tower) -> TokenizedPrompts:
    """Check P prompts, split them into words, and warn of words that the model cannot read or does not know."""
    tokenizer = clip.tokenizer
    ids = token_ids(tokenizer, prompts, tower)
    if reason := why_no_words(tokenizer):
        warn(f"the image is explained, the words of the prompt are not: {reason}")
        return TokenizedPrompts(tuple(prompts), ids=ids)
    ends = tower.ends(ids).tolist()
    splits = tuple(
        split_row(prompt, tokenizer, row, end)
        for prompt, row, end in zip(prompts, ids.tolist(), ends, strict=True)
    )
    for split in splits:
        if split.unread:
            start, unread = split.prompt[:40], " ".join(split.unread)
            unread = unread if len(unread) <= 100 else f"{unread[:100]} ..."
            warn(
                f"the model reads only {len(split.word_ids)} tokens of {start!r}...; not read: {unread}"
            )
    if clip.vocabulary is not None:
        unknown = dict.fromkeys(
            word for split in splits for word in unknown_words(split, clip.vocabulary)
        )
        if unknown:
            said = ", ".join(word[:60] for word in unknown)
            warn(f"the model {clip.name!r} does not know these words: {said}")
    return TokenizedPrompts(tuple(prompts), splits, ids)
