"""Language: the words of a prompt, their parts of speech and its noun phrases.

nltk (Bird, Klein, Loper, *Natural Language Processing with Python*, 2009) has the tokenizer and the
chunk grammar. The lexicon of textblob (De Smedt and Daelemans, "Pattern for Python", JMLR 2012)
tags words: it is part of that package, so tags are the same on every machine, and nothing is
downloaded. Both libraries are imported when they are first needed, because that is slow.
"""

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np

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
# taggers call pronouns nouns, and no thing is named by them
_PRONOUNS = frozenset(
    "something someone somebody anything anyone anybody everything everyone everybody "
    "nothing noone nobody".split()
)
_FUNCTION_WORDS = _PRONOUNS | frozenset(
    "am is are was were be been being has have had do does did 's 're 've 'm".split()
)
_CLOSED_CLASS = frozenset(
    "a an the and or but of in on at to by for from with under over near behind beside between "
    "into onto is are was were be been being has have had it its this that these those there as "
    "than".split()
)
_PLACES = frozenset(  # "to the left of"
    "left right top bottom front back side middle center centre edge".split()
)
_MISTAKEN = frozenset(  # nouns that textblob calls adjectives
    "alien cherry dumpling floppy key kimono sled".split()
)
EVERYDAY_NOUNS = (  # all of them with a plural in -s
    "anchor apple ball bed bell bicycle bird boat book bridge car cat chair cow door drum egg "
    "elephant flower goat guitar hat horse house key kite lamp lemon mountain onion orange owl "
    "rocket ship shoe star train tree umbrella"
).split()
_IMAGE_NOUNS = frozenset("photo photograph picture image drawing painting sketch".split())
_PARTS = {"NN": "noun", "VB": "verb", "JJ": "adjective", "RB": "adverb", "CD": "number"}


@dataclass(frozen=True)
class TaggedWord:
    """A word, its Penn Treebank tag, and where it stands. `prompt[start:end] == text`."""

    text: str
    tag: str
    start: int
    end: int

    @property
    def part(self) -> str:
        """Part of speech: noun, verb, adjective, adverb, number, function (as "the") or mark."""
        if not any(letter.isalnum() for letter in self.text):
            return "mark"
        if self.text.lower() in _FUNCTION_WORDS:
            return "function"
        return _PARTS.get(self.tag[:2], "function")


@dataclass(frozen=True)
class Phrase:
    """A noun phrase without its article, and its head noun. `prompt[start:end] == text`."""

    text: str
    start: int
    end: int
    head: str
    words: tuple[TaggedWord, ...]


def is_function_word(text: str) -> bool:
    """Whether a word is of a closed class ("the", "of"), or a sign. Needs no tagger.

    >>> [word for word in "a dog and an umbrella .".split() if not is_function_word(word)]
    ['dog', 'umbrella']
    """
    return text.lower() in _CLOSED_CLASS or not any(map(str.isalnum, text))


def tagged_words(prompt: str) -> list[TaggedWord]:
    """The words and marks of an English prompt, each with its tag and its place.

    Contractions are split as in the Penn Treebank ("do", "n't"; "man", "'s").

    >>> [(word.text, word.part) for word in tagged_words("a red car")]
    [('a', 'function'), ('red', 'adjective'), ('car', 'noun')]
    """
    return list(_tag(prompt))


def phrases(prompt: str) -> list[Phrase]:
    """The noun phrases of an English prompt, in order, without their articles.

    Every noun is in one phrase, "photo" in "a photo of a cat" too. Pronouns ("something") and parts
    of a preposition ("to the left of") make no phrase.

    >>> [phrase.text for phrase in phrases("a photo of a red car and two small dogs")]
    ['photo', 'red car', 'two small dogs']
    """
    words = tagged_words(prompt)
    if not words:
        return []
    import nltk

    leaves = []
    for word, next_word in zip(words, [*words[1:], None], strict=True):
        leaves.append((word, _chunk_tag(word, next_word)))

    noun_phrases: list[Phrase] = []
    for chunk in _chunker().parse(nltk.Tree("S", leaves)):
        if isinstance(chunk, tuple):  # a word alone
            continue
        inside = [word for word, _ in chunk.leaves()]
        while inside[0].tag in _LEADING:
            inside.pop(0)
        start, end = inside[0].start, inside[-1].end
        noun_phrases.append(Phrase(prompt[start:end], start, end, inside[-1].text, tuple(inside)))
    return noun_phrases


def with_other_nouns(
    prompt: str,
    count: int,
    *,
    known: frozenset[str] | None = None,
    seed: int = 0,
) -> list[str]:
    """Prompts of the same form about other things: every noun is exchanged for an everyday one.

    "photo" in "a photo of a cat", and the like, is part of the form. Without a noun the prompt is
    exchanged as a whole. Nouns are among the words `known` to a model; where these are too few,
    prompts repeat.

    >>> with_other_nouns("a photo of a red car", 3)
    ['a photo of a red ship', 'a photo of a red key', 'a photo of a red guitar']
    """
    places: list[tuple[int, int, list[str]]] = []  # where a noun stands, and what may replace it
    for phrase in phrases(prompt):
        if phrase.head.lower() not in _IMAGE_NOUNS:
            noun = phrase.words[-1]
            choices = _other_nouns(prompt, noun.text, noun.tag == "NNS", known)
            places.append((noun.start, noun.end, choices))
    if not places:
        places.append((0, len(prompt), _other_nouns(prompt, prompt, False, known)))

    rng = np.random.default_rng(seed)
    prompts: list[str] = []
    for _ in range(count):
        changed = prompt
        for start, end, choices in reversed(places):
            changed = changed[:start] + str(rng.choice(choices)) + changed[end:]
        prompts.append(changed)
    return prompts


def _other_nouns(
    prompt: str,
    noun: str,
    is_plural: bool,
    known: frozenset[str] | None,
) -> list[str]:
    """Everyday nouns that are not in a prompt and may stand for one of its nouns."""
    ending = "s" if is_plural else ""
    has_vowel = noun[:1].lower() in tuple("aeiou")
    nouns: list[str] = []
    for everyday in EVERYDAY_NOUNS:
        if (everyday[0] in "aeiou") == has_vowel and everyday not in prompt.lower():
            nouns.append(everyday + ending)

    known_nouns = [other for other in nouns if known is None or other in known]
    return known_nouns or nouns or ["thing" + ending]


def _chunk_tag(word: TaggedWord, next_word: TaggedWord | None) -> str:
    """The tag for the grammar: pronouns, auxiliaries and "left" in "left of" make no phrase."""
    before_of = next_word is not None and next_word.text.lower() == "of"
    if before_of and word.text.lower() in _PLACES:
        return "IN"
    if word.part == "function" and word.tag[:2] in ("NN", "VB"):
        return "function"
    return word.tag


@cache
def _chunker() -> Any:
    import nltk

    return nltk.RegexpParser(_GRAMMAR)


@lru_cache(maxsize=50_000)  # training asks for the same captions again
def _tag(prompt: str) -> tuple[TaggedWord, ...]:
    """The words of a prompt with their tags, sentence by sentence."""
    from nltk.tokenize import NLTKWordTokenizer, PunktSentenceTokenizer
    from textblob.en.taggers import PatternTagger

    words: list[TaggedWord] = []
    for first, last in PunktSentenceTokenizer().span_tokenize(prompt):
        sentence = prompt[first:last]
        spans = list(NLTKWordTokenizer().span_tokenize(sentence))
        texts = [sentence[start:end] for start, end in spans]
        tagged = PatternTagger().tag(" ".join(texts), tokenize=False)
        for text, (_, tag), (start, end) in zip(texts, tagged, spans, strict=True):
            if text in _MISTAKEN:
                tag = "NN"
            words.append(TaggedWord(text, tag, first + start, first + end))
    return tuple(words)
