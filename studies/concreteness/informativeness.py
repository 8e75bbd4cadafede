"""Informativeness: how often training said each word of the world, and how much a word says about what is shown.

    scenes, training --here--> words: exposure, informativeness --> studies of what a model reads

Both are known exactly here, and of no model that was trained on photographs. Exposure is counted from the very scenes
that training drew (`rounds.scenes_of_training`); the counts of all of them are kept in `data/word_exposure.csv`:

    python -m gradeclip_utils study exposure --write    # counts the whole training

Informativeness is computed from the caption grammar (`scenes`), and not from samples.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable
from functools import cache

import numpy as np
import pandas as pd
from scipy.stats import entropy
from tqdm.auto import tqdm

from gradeclip_utils.checks import writable
from gradeclip_utils.files import data_path, write_whole
from gradeclip_utils.scenes import COLOURS, NUMBERS, POSITIONS, PREFIXES, concepts, vocabulary
from studies.shards import add_no_shard, refuse_shard
from training.rounds import ROUNDS, scenes_of_training

EVERY = 8  # batch of the training is counted: all of them would take half an hour
COUNTED = range(0, sum(one.steps for one in ROUNDS), EVERY)  # these are in `data/word_exposure.csv`
SAMPLES = 8  # of these batches stand in the file on their own, to be counted again
FEWEST, MOST = 0.00035, 0.007  # of the training's captions: words said by less or more of them are left out of studies
# The probabilities of the caption grammar, which a test compares with captions:
TAGGED, NOUNLESS = 0.25, 0.5  # how often the grammar tags a thing, and leaves out the noun of one that it tags
OPENED = 0.4  # how often a caption begins with one of the openings
COLOUR_SAID, SIZE_SAID = 0.65, 0.5  # how often it says a colour, a size, of what is tinted, small or big
SIZES = {"small": 0.295, "big": 0.211}  # how often a thing is drawn so, in 4,000 layouts
_FILE = "word_exposure.csv"


def caption_words(caption: str) -> list[str]:
    """The words of a caption of this world, in order, without commas."""
    return caption.replace(",", " ").split()


def sampled_batches() -> list[int]:
    """`SAMPLES` of the batches that are counted, evenly apart."""
    return list(COUNTED[:: len(COUNTED) // SAMPLES])[:SAMPLES]


def count_words(batches: Iterable[int]) -> pd.Series:
    """How many captions of some batches of the bundled model's training hold each word."""
    counts: Counter = Counter()
    for batch in batches:
        for scene in scenes_of_training(batch):
            counts.update(set(caption_words(scene.caption)))
    words = sorted({*vocabulary(), *counts})
    return pd.Series([counts[word] for word in words], index=pd.Index(words, name="word"), name="captions")


@cache
def training_exposure() -> pd.DataFrame:
    """What `data/word_exposure.csv` holds, by word: `captions` of every eighth batch that hold it, and `sample`."""
    return pd.read_csv(data_path(_FILE), comment="#", keep_default_na=False, index_col="word")


def chosen_words() -> pd.DataFrame:
    """The words that a study of nouns and associations is about, chosen by exposure and role alone."""
    table = concepts()
    associations = table["keywords"].explode().dropna().value_counts().sort_index()
    others = {*table["noun"], *table["plural"], *_grammar()}
    rows = [(noun, "noun", 1) for noun in table["noun"]]
    rows += [(word, "association", n) for word, n in associations.items() if word not in others]
    words = pd.DataFrame(rows, columns=["word", "role", "concepts"]).set_index("word")
    words["exposure"] = training_exposure()["captions"].reindex(words.index, fill_value=0)
    captions = len(COUNTED) * ROUNDS[0].batch
    return words[(words["exposure"] / captions).between(FEWEST, MOST)]


def informativeness() -> pd.DataFrame:
    """How much each word says about what is shown, in bits; from the caption grammar, exact but for `SIZES`."""
    table = concepts()
    tags = _tag_fractions(table["keywords"])  # (concepts, associations)
    tagged = TAGGED * (tags.sum(axis=1) > 0).to_numpy()  # (concepts,)
    named = 1 - NOUNLESS * tagged
    said = {noun: named * (table.index == noun) for noun in table.index}
    said |= {word: TAGGED * tags[word].to_numpy() for word in tags}
    said |= {"tagged": tagged, "something": NOUNLESS * tagged}
    for word in {word for phrase in PREFIXES for word in phrase.split()} - {"a", "an"}:
        opening = OPENED * sum(word in phrase.split() for phrase in PREFIXES) / len(PREFIXES)  # whatever is shown
        said[word] = 1 - (1 - opening) * (1 - said.get(word, np.zeros(len(table))))
    each = np.full(len(table), 1 / len(table))
    bits = {word: _bits(each, fraction) for word, fraction in said.items()}
    tints, scenes = zip(*((one.tint, one.steps * one.batch) for one in ROUNDS), strict=True)
    tinted = np.average(tints, weights=scenes)
    looks = {word: (tinted / len(COLOURS), COLOUR_SAID) for word in COLOURS}
    looks |= {word: (p, SIZE_SAID) for word, p in SIZES.items()}
    for word, (has, spoken) in looks.items():  # said of a thing that looks so and is named
        bits[word] = _bits(np.outer([has, 1 - has], each).ravel(), np.outer([spoken, 0], named).ravel())
    columns = ["mutual_information", "when_said"]
    return pd.DataFrame.from_dict(bits, orient="index", columns=columns).rename_axis("word").sort_index()


def _tag_fractions(keywords: pd.Series) -> pd.DataFrame:
    """How a tag falls on the associations of each concept: in inverse proportion to how many concepts share them."""
    pairs = keywords.explode().dropna()
    weights = 1 / pairs.map(pairs.value_counts())
    long = pd.DataFrame({"noun": pairs.index, "word": pairs.to_numpy(), "weight": weights.to_numpy()})
    fractions = long.pivot(index="noun", columns="word", values="weight").fillna(0.0)
    return fractions.div(fractions.sum(axis=1), axis=0).reindex(keywords.index, fill_value=0.0)


def _bits(p: np.ndarray, said: np.ndarray) -> tuple[float, float]:
    """Mutual information and information when said, from p(x) and p(word said | x), both (X,)."""
    overall = float(p @ said)
    if overall == 0:
        return 0.0, 0.0
    gained = np.log2(np.where(said > 0, said, overall) / overall)
    before, after = (entropy([part, 1 - part], base=2, axis=0) for part in (overall, said))
    return max(0.0, float(before - p @ after)), max(0.0, float((p * said / overall) @ gained))


@cache
def _grammar() -> frozenset[str]:
    """Words that captions say for other reasons than a thing's name or association."""
    phrases = (*PREFIXES, *POSITIONS, "bigger than", "smaller than", "small", "big", "something tagged", "and")
    return frozenset(word for phrase in phrases for word in phrase.split()) | {*NUMBERS.values(), *COLOURS}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the argument of the command `study exposure`."""
    parser.add_argument("--write", action="store_true", help=f"write data/{_FILE}; else print it")
    add_no_shard(parser)


def run_command(given: argparse.Namespace) -> None:
    """The command `study exposure`: count the words of the whole training, and print or keep the table."""
    refuse_shard(given)
    if given.write:
        writable(data_path(_FILE), "--write", size=1_000_000)
    sample = sampled_batches()
    table = pd.DataFrame({"captions": count_words(tqdm(COUNTED)), "sample": count_words(sample)})
    comment = (
        "# Captions of the training that hold each word: "
        f"every {EVERY}th of its batches, {len(COUNTED)} of {ROUNDS[0].batch}, "
        f"seeds {', '.join(str(one.seed) for one in ROUNDS)}; "
        f"sample: of the batches {' '.join(map(str, sample))} alone.\n"
        "# Made by python -m gradeclip_utils study exposure --write\n"
    )
    text = comment + table.to_csv()
    if given.write:
        write_whole(data_path(_FILE), lambda stream: stream.write(text.encode("utf-8")))
    else:
        print(text)
