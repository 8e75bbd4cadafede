"""Language: the words of a caption, their parts of speech and its noun phrases.

Phrases and parts of speech come from nltk (Bird, Klein, Loper, *Natural Language Processing with
Python*, 2009): its tokenizer, its chunk grammar, and its tagger if the tagger's data is installed.
Otherwise the lexicon of textblob tags words (De Smedt and Daelemans, "Pattern for Python", JMLR
2012); it is part of that package, and nothing is downloaded. Both libraries are imported when they
are first needed: they are slow to import, and belong to `pip install "gradeclip[notebooks]"`.
"""

from dataclasses import dataclass
from functools import cache, lru_cache
from types import ModuleType

import numpy as np

from .checks import optional_library, text, whole

# A noun phrase: what determines, counts and describes, and then nouns. A participle describes only
# behind one of those ("a parked car"), because behind a noun it is a verb ("a man riding horses",
# "a dove tagged peace"). The last two rules are for nouns that a lexicon takes for verbs ("a red
# drum", "two leaves").
_GRAMMAR = r"""
phrase: {<DT|PRP\$|CD|JJ.*>+<VBN|VBG>?<CD|JJ.*>*<NN.*>+}
        {<NN.*>+}
        {<DT|PRP\$><JJ.*>*<VB|VBP|VBD|MD>}
        {<DT|PRP\$>?<CD><JJ.*>*<VBZ>}
"""
_LEADING = ("DT", "PDT", "PRP$")  # "a", "all", "her": not part of what a phrase is about
_PRONOUNS = frozenset(  # taggers call them nouns, and no thing is named by them
    f"{first}{second}"
    for first in ("some", "any", "every", "no")
    for second in ("thing", "one", "body")
)
_AUXILIARIES = frozenset(
    "am is are was were be been being has have had do does did 's 're 've 'm".split()
)
_PLACES = frozenset(
    "left right top bottom front back side middle center centre edge".split()
)  # "to the left of"
_MISTAKEN = frozenset(
    "alien cherry dumpling floppy key kimono sled".split()
)  # nouns that textblob calls adjectives
_EVERYDAY = (  # all of them with a plural in -s
    "anchor apple ball bed bell bicycle bird boat book bridge car cat chair cow door drum egg elephant flower goat "
    "guitar hat horse house key kite lamp lemon mountain onion orange owl rocket ship shoe star train tree umbrella"
).split()
_IMAGE_NOUNS = frozenset("photo photograph picture image drawing painting sketch".split())
_PARTS = {"NN": "noun", "VB": "verb", "JJ": "adjective", "RB": "adverb", "CD": "number"}


@dataclass(frozen=True)
class _TaggedWord:
    """A word, its Penn Treebank tag, and where it stands. `caption[start:end] == text`."""

    text: str
    tag: str
    start: int
    end: int

    @property
    def part(self) -> str:
        """Part of speech: "noun", "verb", "adjective", "adverb", "number", "function" (articles, ...) or "mark"."""
        if not any(map(str.isalnum, self.text)):
            return "mark"
        word = self.text.lower()
        return (
            "function"
            if word in _PRONOUNS or word in _AUXILIARIES
            else _PARTS.get(self.tag[:2], "function")
        )


@dataclass(frozen=True)
class Phrase:
    """A noun phrase without its article, where it stands, and its head noun. `caption[start:end] == text`."""

    text: str
    start: int
    end: int
    head: str
    words: tuple[_TaggedWord, ...]


def tagged_words(caption: str) -> list[_TaggedWord]:
    """The words and marks of an English caption, each with its tag and its place.

    Contractions are split as in the Penn Treebank ("do", "n't"; "man", "'s").

    >>> [(word.text, word.part) for word in tagged_words("a red car")]
    [('a', 'function'), ('red', 'adjective'), ('car', 'noun')]
    """
    return list(_tagged(text("caption", caption), _has_nltk_tagger()))


def phrases(caption: str) -> list[Phrase]:
    """The noun phrases of an English caption, in order: adjectives, numbers and nouns, without the article.

    Every noun is in one phrase, "photo" in "a photo of a cat" too. Pronouns ("something") and parts
    of a preposition ("to the left of") make no phrase.

    >>> [(phrase.text, phrase.head) for phrase in phrases("a photo of a red car and two small dogs")]
    [('photo', 'photo'), ('red car', 'car'), ('two small dogs', 'dogs')]
    """
    words, found = tagged_words(caption), []
    if not words:
        return found
    leaves = [
        (word, _role(word, after)) for word, after in zip(words, [*words[1:], None], strict=True)
    ]
    for chunk in _chunker().parse(_library("nltk").Tree("S", leaves)):
        if not isinstance(chunk, tuple):  # a phrase, not a word alone
            inside = [word for word, _ in chunk.leaves()]
            while inside[0].tag in _LEADING:
                inside.pop(0)
            start, end = inside[0].start, inside[-1].end
            found.append(Phrase(caption[start:end], start, end, inside[-1].text, tuple(inside)))
    return found


def with_other_nouns(
    caption: str, count: int, *, known: frozenset[str] | None = None, seed: int = 0
) -> list[str]:
    """Prompts of the same form about other things: every noun is exchanged for an everyday one that is not there.

    "photo" in "a photo of a cat", and the like, is part of the form. Without a noun the caption is
    exchanged as a whole. Nouns are among the words `known` to a model; where these are too few,
    prompts repeat.

    >>> with_other_nouns("a photo of a red car", 3)
    ['a photo of a red ship', 'a photo of a red key', 'a photo of a red guitar']
    """
    last = [one.words[-1] for one in phrases(caption) if one.head.lower() not in _IMAGE_NOUNS]
    heads = [(word.start, word.end, word.tag) for word in last]
    heads, there, rng = (
        heads or [(0, len(caption), "NN")],
        caption.lower(),
        np.random.default_rng(seed),
    )
    found = []
    for _ in range(whole("count", count, 0, 10_000)):
        other = caption
        for start, end, tag in reversed(heads):
            plural, vowel = "s" * (tag == "NNS"), caption[start : start + 1].lower() in set("aeiou")
            fit = [
                noun + plural
                for noun in _EVERYDAY
                if (noun[0] in "aeiou") == vowel and noun not in there
            ]
            fit = (
                [noun for noun in fit if known is None or noun in known]
                or fit
                or ["thing" + plural]
            )
            other = other[:start] + str(rng.choice(fit)) + other[end:]
        found.append(other)
    return found


def _role(word: _TaggedWord, after: _TaggedWord | None) -> str:
    """The tag for the chunk grammar: pronouns, auxiliaries and "left" in "left of" make no phrase."""
    if word.text.lower() in _PLACES and after is not None and after.text.lower() == "of":
        return "IN"
    return "function" if word.part == "function" and word.tag[:2] in ("NN", "VB") else word.tag


def _library(name: str) -> ModuleType:
    return optional_library(name, "nouns and phrases come from nltk and textblob", "notebooks")


@cache
def _chunker():
    return _library("nltk.chunk").RegexpParser(_GRAMMAR)


@cache
def _has_nltk_tagger() -> bool:
    try:
        _library("nltk").pos_tag(["word"])
    except LookupError:
        return False
    return True


@lru_cache(maxsize=50_000)  # training asks for the same captions again
def _tagged(caption: str, by_nltk: bool) -> tuple[_TaggedWord, ...]:
    words, tokenize = [], _library("nltk.tokenize")
    for first, last in tokenize.PunktSentenceTokenizer().span_tokenize(caption):
        spans = [
            (first + a, first + b)
            for a, b in tokenize.NLTKWordTokenizer().span_tokenize(caption[first:last])
        ]
        texts = [caption[start:end] for start, end in spans]
        if by_nltk:
            tags = [tag for _, tag in _library("nltk").pos_tag(texts)]
        else:
            tagged = (
                _library("textblob.en.taggers").PatternTagger().tag(" ".join(texts), tokenize=False)
            )
            tags = ["NN" if word in _MISTAKEN else tag for word, tag in tagged]
        words += [
            _TaggedWord(text, tag, *span)
            for text, tag, span in zip(texts, tags, spans, strict=True)
        ]
    return tuple(words)
