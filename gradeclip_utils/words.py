"""Words: from the tokens of a prompt back to the words that a person wrote.

CLIP's byte-pair encoding reads a cleaned copy of the prompt (mended, HTML entities resolved, white
space collapsed, lower case) and cuts it into tokens that may be shorter than a word, and shorter
than a letter: an emoji is several. A fast Hugging Face tokenizer (byte-pair, WordPiece,
SentencePiece) gives the characters of each token; with a slow one they are found by decoding.
Scores belong to words, in the prompt as it was written: `prompt[word.start:word.end] == word.text`
always.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import accumulate, pairwise
from typing import Any
from unicodedata import category

import regex

from .errors import GradeclipError, short

# Letters, marks and digits make a word, with an apostrophe inside. Every other visible character
# stands for itself, and so does a character of a script without spaces between words.
_APART = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = regex.compile(
    rf"(?:(?![{_APART}])[\p{{L}}\p{{M}}\p{{N}}])+(?:['’][\p{{L}}\p{{M}}]+)*|(?!\s)\X"
)
_SEEN = regex.compile(r"\S")
_UNIT = regex.compile(
    r"&(?:#\w+|\w+);|.", regex.DOTALL
)  # an HTML entity is cleaned into one character


@dataclass(frozen=True)
class Word:
    """A word of a prompt, where it stands, and its signed score. `prompt[start:end] == text`."""

    text: str
    score: float
    start: int
    end: int


@dataclass(frozen=True)
class Split:
    """How the tokens that the model read make up the words of one prompt."""

    prompt: str
    spans: tuple[tuple[int, int], ...]  # of the words that were read, in characters of the prompt
    word_ids: tuple[int, ...]  # the word of each token between SOT and EOT
    unread: tuple[str, ...]  # words cut off by the context length, wholly or in part
    first: int = 1  # how many tokens stand before them: SOT, or none

    def check_read(self) -> None:
        """Refuse a prompt whose end the model does not read."""
        if self.unread:
            unread = " ".join(self.unread)
            raise GradeclipError(
                f"the model reads only the beginning of {self.prompt!r}, not {unread!r}: shorten it"
            )

    def words(self, scores: Sequence[float]) -> tuple[Word, ...]:
        """The words that were read, with their scores."""
        return tuple(
            Word(self.prompt[a:b], score, a, b)
            for (a, b), score in zip(self.spans, scores, strict=True)
        )


def why_no_words(tokenizer: Any) -> str | None:
    """Why the tokens of a tokenizer cannot be put together into words; None if they can."""
    name = getattr(tokenizer, "__name__", type(tokenizer).__name__)
    if hasattr(tokenizer, "tokenizer"):  # a Hugging Face tokenizer inside
        mode = getattr(tokenizer, "tokenizer_mode", "")
        return (
            f"{name} puts tokens of its own among those of the words (mode {mode!r})"
            if mode
            else None
        )
    missing = [
        name for name in ("encode", "decoder", "pat", "clean_fn") if not hasattr(tokenizer, name)
    ]
    if not missing:
        return None
    return (
        f"word scores need open_clip's SimpleTokenizer, as open_clip.get_tokenizer('ViT-B-32') returns it, or a "
        f"Hugging Face one; with {name} pieces cannot be put back together, because it has no {missing[0]!r}"
    )


def check_tokenizer(tokenizer: Any, words: bool = True) -> None:
    """Refuse a tokenizer that drops tokens or, with `words`, that does not say which tokens make up a word."""
    if getattr(tokenizer, "reduction_fn", None) is not None:
        drops = "this tokenizer drops tokens at random (reduction_mask); make one without it"
        raise GradeclipError(
            f"a prompt can only be explained if the model reads all of it, and {drops}"
        )
    if words and (reason := why_no_words(tokenizer)):
        raise GradeclipError(reason)


def split_read(prompt: str, tokenizer: Any, tower) -> Split:
    """The words of a prompt as a text encoder reads it; as `split_row`, which gets the tokens in hand."""
    ids = tokenizer([prompt]).to(tower.device)
    return split_row(prompt, tokenizer, ids[0].tolist(), int(tower.ends(ids)[0]))


def split_row(prompt: str, tokenizer: Any, row: list[int], end: int) -> Split:
    """The words of a prompt and the tokens that make them up, for the `row` of ids that a model reads up to `end`."""
    cleaned, tokens, ranges = _tokenised(prompt, tokenizer)
    first, ids = 1, row[1:end]
    if hasattr(tokenizer, "tokenizer") and tokens:  # one of Hugging Face, which may have no SOT
        start = row.index(tokens[0]) if tokens[0] in row else 0
        if read := _alike(tokens, row[start:]):
            stop = (
                end if row[end] == tokenizer.tokenizer.eos_token_id else len(row)
            )  # one in the prompt ends it
            first, ids = start, row[start : min(start + read, stop)]
    if not ids or not tokens:
        raise GradeclipError(f"a prompt needs at least one word, got {short(prompt)}")
    if tokens[: len(ids)] != ids:
        msg = f"the tokenizer reads {short(prompt)} in a different order from its tokens; it cannot be explained"
        raise GradeclipError(msg)
    firsts, word_ids = _group(cleaned, ranges, _positions_in_prompt(prompt, cleaned, tokenizer))
    spans = [  # a word reaches to the next one, less white space: what cleaning dropped belongs to the word before it
        (start, start + max(1, len(prompt[start:end].rstrip())))
        for start, end in zip(firsts, [*firsts[1:], len(prompt)], strict=True)
    ]
    read = max(word_ids[: len(ids)]) + 1
    unread = [prompt[slice(*spans[word])] for word in dict.fromkeys(word_ids[len(ids) :])]
    return Split(prompt, tuple(spans[:read]), tuple(word_ids[: len(ids)]), tuple(unread), first)


def unknown_words(split: Split, vocabulary: frozenset[str]) -> list[str]:
    """Words of the prompt, whole and in lower case, that a model was never shown."""
    words = dict.fromkeys(split.prompt[start:end].lower() for start, end in split.spans)
    said = [word for word in words if any(category(letter)[0] not in "PZC" for letter in word)]
    return [word for word in said or words if word not in vocabulary]


def _tokenised(prompt: str, tokenizer: Any) -> tuple[str, list[int], list[tuple[int, int]]]:
    """The cleaned prompt, all its tokens, and the characters of each token in it."""
    if not hasattr(tokenizer, "tokenizer"):
        tokens, cleaned = tokenizer.encode(prompt), tokenizer.clean_fn(prompt)
        return cleaned, tokens, _token_ranges(cleaned, tokens, tokenizer)
    inner, cleaned = tokenizer.tokenizer, getattr(tokenizer, "clean_fn", str)(prompt)
    if inner.is_fast:
        found = inner(cleaned, add_special_tokens=False, return_offsets_mapping=True)
        return cleaned, found["input_ids"], _seen(cleaned, found["offset_mapping"])
    tokens = inner(cleaned, add_special_tokens=False)["input_ids"]
    begun = [inner.decode(tokens[:count]) for count in range(len(tokens) + 1)]
    ends = accumulate((_alike(text, begun[-1]) for text in begun), max)
    return begun[-1], tokens, _seen(begun[-1], list(pairwise(ends)))


def _alike(one: Sequence, other: Sequence) -> int:
    """How many characters, or tokens, two sequences begin with alike."""
    return next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
        min(len(one), len(other)),
    )


def _seen(cleaned: str, offsets: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The characters [first, last] of each token without white space."""
    seen = [
        [match.start() for match in _SEEN.finditer(cleaned, start, end)] for start, end in offsets
    ]
    ranges = [(places[0], places[-1]) for places in seen if places]
    before = accumulate(map(bool, seen), initial=0)  # how many such tokens stand before each token
    # a token of white space alone belongs to the next token, behind all others to the last one
    return (
        [ranges[min(count, len(ranges) - 1)] for _, count in zip(seen, before, strict=False)]
        if ranges
        else []
    )


def _token_ranges(cleaned: str, tokens: list[int], tokenizer: Any) -> list[tuple[int, int]]:
    """The characters of the cleaned prompt [first, last] that each token covers, through UTF-8's bytes."""
    byte_places = [
        match.start() + offset
        for match in tokenizer.pat.finditer(cleaned)
        for offset, character in enumerate(match.group())
        for _ in character.encode("utf-8")
    ]
    lengths = [
        len(tokenizer.decoder[token].removesuffix("</w>")) for token in tokens
    ]  # of one letter a byte
    ends = accumulate(lengths)
    return [
        (byte_places[end - length], byte_places[end - 1])
        for length, end in zip(lengths, ends, strict=True)
    ]


def _group(
    cleaned: str, ranges: list[tuple[int, int]], positions: list[int]
) -> tuple[list[int], list[int]]:
    """The start of each word in the prompt, and the word that each token belongs to."""
    begins, number = {}, {}  # of the word at each character of the cleaned prompt
    for index, match in enumerate(_WORD.finditer(cleaned)):
        begins.update(dict.fromkeys(range(*match.span()), match.start()))
        number.update(dict.fromkeys(range(*match.span()), index))
    firsts: list[int] = []
    word_ids: list[int] = []
    reached = -1  # number of the last word in the current group
    for first, last in ranges:
        start = positions[begins[first]]
        if not firsts or (number[first] > reached and start > firsts[-1]):
            firsts.append(start)
        reached = max(reached, number[last])
        word_ids.append(len(firsts) - 1)
    return firsts, word_ids


def _positions_in_prompt(prompt: str, cleaned: str, tokenizer: Any) -> list[int]:
    """The start of each character of the cleaned prompt in the prompt; one position more for the end."""
    if cleaned == prompt or (cleaned == prompt.lower() and len(cleaned) == len(prompt)):
        return list(range(len(prompt) + 1))
    units = [match.span() for match in _UNIT.finditer(prompt)]
    clean = getattr(
        tokenizer, "clean_fn", str
    )  # of each unit alone: a curly quote is then a plain one
    keys = [(clean(prompt[start:end]) or prompt[start:end]).lower() for start, end in units]
    positions = [0] * len(cleaned) + [len(prompt)]
    lowered = [character.lower() for character in cleaned]
    for _, a, a_end, b, b_end in SequenceMatcher(None, keys, lowered, autojunk=False).get_opcodes():
        for offset in range(b_end - b):  # what was replaced is shared out from the left
            unit = min(a + offset, max(a_end - 1, a), len(units) - 1)
            positions[b + offset] = units[unit][0]
    return positions
