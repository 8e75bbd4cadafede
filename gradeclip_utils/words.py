"""Words: from the tokens of a prompt back to the words that a person wrote.

CLIP's byte-pair encoding reads a cleaned copy of the prompt (mended, HTML entities resolved, white
space collapsed, lower case) and cuts it into tokens that may be shorter than a word, and shorter
than a letter: an emoji is several. A fast Hugging Face tokenizer (byte-pair, WordPiece,
SentencePiece) gives the characters of each token; with a slow one, as SigLIP of
transformers has it, they are found by decoding. Scores belong to words, in the prompt as it was
written: `prompt[word.start:word.end] == word.text` always.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import accumulate, pairwise
from typing import Any, TypeAlias
from unicodedata import category

import regex

from .errors import GradeclipError, short

# Letters, marks and digits make a word, with an apostrophe inside. Every other visible character
# stands for itself, and so does a character of a script without spaces between words.
_APART = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = regex.compile(
    rf"(?:(?![{_APART}])[\p{{L}}\p{{M}}\p{{N}}])+(?:['’][\p{{L}}\p{{M}}]+)*|(?!\s)\X"
)
_VISIBLE = regex.compile(r"\S")
_UNIT = regex.compile(
    r"&(?:#\w+|\w+);|.", regex.DOTALL
)  # an HTML entity is cleaned into one character


Span: TypeAlias = tuple[int, int]  # of characters, or of tokens


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
    spans: tuple[Span, ...]  # of the words that were read, in characters of the prompt
    word_ids: tuple[int, ...]  # the word of each token between SOT and EOT
    unread: tuple[str, ...]  # words cut off by the context length, wholly or in part
    first: int = 1  # how many tokens stand before them: SOT, or none

    def words(self, scores: Sequence[float]) -> tuple[Word, ...]:
        """The words that were read, with their scores."""
        pairs = zip(self.spans, scores, strict=True)
        return tuple(
            Word(self.prompt[start:end], score, start, end) for (start, end), score in pairs
        )


def why_no_words(tokenizer: Any) -> str | None:
    """Why the tokens of a tokenizer cannot be put together into words; None if they can."""
    name = getattr(tokenizer, "__name__", type(tokenizer).__name__)
    if hasattr(tokenizer, "tokenizer"):  # a Hugging Face tokenizer inside
        mode = getattr(tokenizer, "tokenizer_mode", "")
        if mode:
            return f"{name} puts tokens of its own among those of the words (mode {mode!r})"
        return None
    for part in ("encode", "decoder", "pat", "clean_fn"):
        if not hasattr(tokenizer, part):
            return (
                "word scores need open_clip's SimpleTokenizer, as "
                "open_clip.get_tokenizer('ViT-B-32') returns it, or a Hugging Face one; "
                f"{name} has no {part!r}"
            )
    return None


def check_tokenizer(tokenizer: Any, words: bool = True) -> None:
    """Refuse a tokenizer that drops tokens or, with `words`, cannot tell words apart."""
    if getattr(tokenizer, "reduction_fn", None) is not None:
        raise GradeclipError(
            "a prompt can only be explained if the model reads all of it, and this tokenizer "
            "drops tokens at random (reduction_mask); make one without it"
        )
    reason = why_no_words(tokenizer) if words else None
    if reason is not None:
        raise GradeclipError(reason)


def split_read(prompt: str, tokenizer: Any, tower: Any) -> Split:
    """The words of a prompt as a text encoder reads it."""
    ids = tokenizer([prompt]).to(tower.device)
    return split_row(prompt, tokenizer, ids[0].tolist(), int(tower.ends(ids)[0]))


def split_row(prompt: str, tokenizer: Any, row: list[int], end: int) -> Split:
    """The words of a prompt, for the `row` of token ids that a model reads up to `end`."""
    cleaned, tokens, ranges = _tokens_of(prompt, tokenizer)
    first, ids = _read_part(tokens, tokenizer, row, end)
    if not ids or not tokens:
        raise GradeclipError(f"a prompt needs at least one word, got {short(prompt)}")
    if tokens[: len(ids)] != ids:
        raise GradeclipError(
            f"the tokenizer reads {short(prompt)} in a different order from its tokens; "
            "it cannot be explained"
        )

    positions = _positions_in_prompt(prompt, cleaned, tokenizer)
    starts, word_ids = _group(cleaned, ranges, positions)
    spans: list[Span] = []
    for start, next_start in pairwise([*starts, len(prompt)]):
        # what cleaning dropped belongs to the word before it, white space to none
        length = len(prompt[start:next_start].rstrip())
        spans.append((start, start + max(1, length)))

    read_words = max(word_ids[: len(ids)]) + 1
    unread = dict.fromkeys(word_ids[len(ids) :])  # in order, each once
    return Split(
        prompt,
        spans=tuple(spans[:read_words]),
        word_ids=tuple(word_ids[: len(ids)]),
        unread=tuple(prompt[slice(*spans[word])] for word in unread),
        first=first,
    )


def _read_part(
    tokens: list[int],
    tokenizer: Any,
    row: list[int],
    end: int,
) -> tuple[int, list[int]]:
    """Where a prompt's tokens begin in the row, and those of them that the model reads."""
    if not hasattr(tokenizer, "tokenizer") or not tokens:
        return 1, row[1:end]

    # a Hugging Face tokenizer may have no SOT
    start = row.index(tokens[0]) if tokens[0] in row else 0
    count = _common_length(tokens, row[start:])
    if count == 0:
        return 1, row[1:end]
    # an EOT ends the prompt, also one that was written in it
    stop = end if row[end] == tokenizer.tokenizer.eos_token_id else len(row)
    return start, row[start : min(start + count, stop)]


def unknown_words(split: Split, vocabulary: frozenset[str]) -> list[str]:
    """Words of the prompt, whole and in lower case, that a model was never shown."""
    words = list(dict.fromkeys(split.prompt[start:end].lower() for start, end in split.spans))
    spoken = [word for word in words if not _is_mark(word)]
    return [word for word in spoken or words if word not in vocabulary]


def _is_mark(word: str) -> bool:
    """Whether a word is punctuation, white space or a control character alone."""
    return all(category(letter)[0] in "PZC" for letter in word)


def _tokens_of(prompt: str, tokenizer: Any) -> tuple[str, list[int], list[Span]]:
    """The cleaned prompt, all its tokens, and the characters [first, last] of each token in it."""
    if not hasattr(tokenizer, "tokenizer"):
        tokens = tokenizer.encode(prompt)
        cleaned = tokenizer.clean_fn(prompt)
        return cleaned, tokens, _token_ranges(cleaned, tokens, tokenizer)

    inner = tokenizer.tokenizer
    cleaned = getattr(tokenizer, "clean_fn", str)(prompt)
    if inner.is_fast:
        encoding = inner(cleaned, add_special_tokens=False, return_offsets_mapping=True)
        return cleaned, encoding["input_ids"], _visible(cleaned, encoding["offset_mapping"])

    # SigLIP's own tokenizer says no characters: a token ends where longer decoded text goes on
    tokens = inner(cleaned, add_special_tokens=False)["input_ids"]
    beginnings = [inner.decode(tokens[:count]) for count in range(len(tokens) + 1)]
    decoded = beginnings[-1]
    ends = accumulate((_common_length(text, decoded) for text in beginnings), max)
    return decoded, tokens, _visible(decoded, list(pairwise(ends)))


def _common_length(first: Sequence, second: Sequence) -> int:
    """How many characters, or tokens, two sequences begin with alike."""
    for count, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return count
    return min(len(first), len(second))


def _visible(cleaned: str, offsets: Sequence[Span]) -> list[Span]:
    """The characters [first, last] of each token without white space.

    A token of white space alone has those of the next token, behind all others those of the last.
    """
    ranges: list[Span] = []
    numbers: list[int] = []  # for each token, which of `ranges` it has
    for start, end in offsets:
        numbers.append(len(ranges))
        places = [match.start() for match in _VISIBLE.finditer(cleaned, start, end)]
        if places:
            ranges.append((places[0], places[-1]))
    if not ranges:
        return []
    return [ranges[min(number, len(ranges) - 1)] for number in numbers]


def _token_ranges(cleaned: str, tokens: list[int], tokenizer: Any) -> list[Span]:
    """The characters [first, last] that each token of bytes covers in the cleaned prompt."""
    byte_places: list[int] = []  # the character that each byte belongs to
    for match in tokenizer.pat.finditer(cleaned):
        for place, character in enumerate(match.group(), start=match.start()):
            byte_places += [place] * len(character.encode("utf-8"))

    ranges: list[Span] = []
    start = 0
    for token in tokens:
        letters = tokenizer.decoder[token].removesuffix("</w>")  # one for each byte
        end = start + len(letters)
        ranges.append((byte_places[start], byte_places[end - 1]))
        start = end
    return ranges


def _group(
    cleaned: str,
    ranges: list[Span],
    positions: list[int],
) -> tuple[list[int], list[int]]:
    """The start of each word in the prompt, and the word that each token belongs to.

    Tokens that share a word, or a character of the prompt, make one group. `positions` are those of
    the cleaned characters in the prompt.
    """
    # the word at each character of the cleaned prompt: where it starts, and its number
    word_starts: dict[int, int] = {}
    word_numbers: dict[int, int] = {}
    for number, match in enumerate(_WORD.finditer(cleaned)):
        for place in range(*match.span()):
            word_starts[place] = match.start()
            word_numbers[place] = number

    starts: list[int] = []
    word_ids: list[int] = []
    reached = -1  # number of the last word in the current group
    for first, last in ranges:
        start = positions[word_starts[first]]
        if not starts or (word_numbers[first] > reached and start > starts[-1]):
            starts.append(start)
        reached = max(reached, word_numbers[last])
        word_ids.append(len(starts) - 1)
    return starts, word_ids


def _positions_in_prompt(prompt: str, cleaned: str, tokenizer: Any) -> list[int]:
    """The start of each character of the cleaned prompt in the prompt, and the end."""
    if cleaned == prompt or (cleaned == prompt.lower() and len(cleaned) == len(prompt)):
        return list(range(len(prompt) + 1))

    # each unit is cleaned alone: a curly quote is then a plain one
    units = [match.span() for match in _UNIT.finditer(prompt)]
    clean = getattr(tokenizer, "clean_fn", str)
    keys: list[str] = []
    for start, end in units:
        unit = prompt[start:end]
        keys.append((clean(unit) or unit).lower())
    characters = [character.lower() for character in cleaned]

    positions = [0] * len(cleaned) + [len(prompt)]
    matcher = SequenceMatcher(None, keys, characters, autojunk=False)
    for _, first_unit, unit_end, first, end in matcher.get_opcodes():
        last_unit = min(max(first_unit, unit_end - 1), len(units) - 1)
        # of what was replaced, each character takes a unit from the left, the rest the last one
        for place in range(first, end):
            unit_start, _ = units[min(first_unit + place - first, last_unit)]
            positions[place] = unit_start
    return positions
