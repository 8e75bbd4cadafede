"""A diff of two models: which pairs of an image and a caption moved, where, and by which words?

    images, captions -> explanations by A and by B -> places, maps, words -> index.html

A pair's *place* is the percentile of its similarity among those of the same image with other
captions, which are the same for all models. It does not depend on the scale of a model's
similarities, and neither do the *shares* of words: a score over the sum of all magnitudes of the
prompt's scores. What two trainings of one model move is the null: a second training of A.
"""

import argparse
import hashlib
import html
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from ..datasets import Example, load
from ..errors import GradeclipError
from ..explainer import Explainer
from ..explanation import Explanation
from ..files import output
from ..images import Box, onto_image
from ..language import phrases, tagged_words
from ..models import Clip, load_clip, model_title
from ..plots import paint
from ..prompts import null_captions
from ..words import Word
from .dataset_report import add_pairs, load_pairs
from .evaluation import method_names
from .page import PAGE, fill_in, render_page, shorten, sortable, write_thumbnail
from .statistics import group_means, interpret_interval, mean_interval

BATCH_SIZE = 16  # pairs that are read and explained together
SHOWN_PAIRS = 50
SHOWN_WORDS = 30
CANVAS = 48  # pixels a side on which maps of different grids are compared
SAME = 1e-5  # differences of similarities, maps and scores that are rounding
MEANINGS = {
    "place": "percentage of other captions that the image is less similar to, by A and by B",
    "moved": "the place by B less the place by A",
    "as far": "percentage of all pairs whose place moves as far between two trainings of A",
    "map": "1 minus the correlation of the two maps: 0 if they are the same",
    "word": "the word whose share moved most: its share of all words' scores, by A and by B",
}
# Cells of the page, as `fill_in` takes them; a null has columns of its own.
PAIR_CELLS = {
    "caption": "{caption}",
    "image, A, B": '<img src="{source}" loading="lazy" alt="{key}, and its maps by A and by B '
    'for: {caption}" title="{key}">',
    "moved": "{moved:+.0f}",
    "place by A": "{place_a:.0f}",
    "place by B": "{place_b:.0f}",
    "as far": "{as_far:.0f} %",
    "map": "{map:.2f}",
    "word": "{shares}",
}
KIND_CELLS = {
    "kind": "{kind}",
    "share by A": "{share_a:.3f}",
    "share by B": "{share_b:.3f}",
    "moved": "{moved:+.3f} [{low:+.3f}, {high:+.3f}]",
    "between trainings of A": "{moved_null:+.3f} [{low_null:+.3f}, {high_null:+.3f}]",
    "pairs": "{pairs}",
}
WORD_CELLS = {
    "word": "{word}",
    "kind": "{kind}",
    "share by A": "{share_a:.3f}",
    "share by B": "{share_b:.3f}",
    "moved": "{moved:+.3f}",
    "between trainings of A": "{moved_null:+.3f}",
    "pairs": "{pairs}",
}
NULL_HEADS = ("as far", "between trainings of A")


class Reading(NamedTuple):
    """What one model says of one pair."""

    similarity: float
    place: float  # percentile
    map: np.ndarray  # (h, w), on the model's own token grid
    box: Box  # of the map, in the image's pixels
    words: tuple[Word, ...]

    def on_canvas(self, size: tuple[int, int]) -> np.ndarray:
        """The map on a canvas that all models share, of an image of `size`."""
        across, down = CANVAS / size[0], CANVAS / size[1]
        left, top, right, bottom = self.box
        box = (left * across, top * down, right * across, bottom * down)
        return onto_image(self.map, box, (CANVAS, CANVAS))

    def shares(self) -> dict[tuple[int, int], float]:
        """The share of each word by its place in the prompt."""
        total = sum(abs(word.score) for word in self.words)
        return {(word.start, word.end): word.score / (total or 1) for word in self.words}


class Pair(NamedTuple):
    """An image and a caption, and what each model says of them."""

    example: Example
    size: tuple[int, int]  # of the image
    image: str  # the same for pairs of one image, which count as one in intervals
    readings: dict[str, Reading]  # "a", "b" and, if there is one, "null"


@dataclass(frozen=True)
class Diff:
    """What changed from model A to model B.

    Attributes:
        answer: "higher" if places moved more than between two trainings of A, "lower", "about
            equal" or "undecided"; "unchanged" if the models say the same of every pair; "" if there
            is no null.
        conclusion: the same in a sentence, with the numbers.
        pairs: one row per pair, the place that moved most first: image, prompt, similarity_a,
            similarity_b, place_a, place_b, moved, map (1 - the correlation of the maps), word,
            share_a and share_b of the word whose share moved most; with a null also moved_null,
            and as_far (the percentage of pairs that moved as far in the null).
        words: one row per word of the data, the one that moved most first: word, kind, share_a,
            share_b, moved, pairs; with a null also moved_null.
        kinds: one row per kind of word (noun, adjective, ...): share_a, share_b, moved, low, high
            (95 % interval over pairs), pairs; with a null also moved_null, low_null, high_null.
    """

    answer: str
    conclusion: str
    pairs: pd.DataFrame
    words: pd.DataFrame
    kinds: pd.DataFrame


def diff(
    first: Clip,
    second: Clip,
    data: str | Sequence[Example],
    out: str | Path | None = None,
    *,
    null: Clip | None = None,
    method: str = "grad-eclip",
    words: str = "grad-eclip",
    limit: int | None = None,
    overwrite: bool = False,
) -> Diff:
    """Compare two models on pairs of images and captions: what moved, and is it more than chance?

        change = diff(load_clip("emoji"), load_clip("emoji-fine"), "scenes:development:100",
                      null=load_clip("emoji-aided"))
        print(change.conclusion)

    Each model reads every image once and, with Grad-ECLIP's words, every caption once.

    Args:
        first: model A, say before fine-tuning.
        second: model B, say after.
        data: a data set as `datasets.load` takes it, or a list of `Example`; of two images or more.
        out: a folder for a page of what moved most (`index.html`, `thumbnails/`), and for the
            tables as `pairs.csv`, `words.csv` and `kinds.csv`.
        null: a second training of A. What it moves is chance; without it nothing says whether
            a change is large.
        method: of the maps.
        words: the method of the word scores. Grad-ECLIP's cost no further pass. "leave-one-out",
            the default of `Explainer`, reads a caption once more for each of its words.
        limit: at most this many pairs, spread over the data.
        overwrite: write over the page of another diff.

    Raises:
        GradeclipError: an unknown method, fewer than two images that can be read, a model that
            embeds no captions, or a folder with another page.
    """
    (method,) = method_names(method)
    if out is not None:
        output(Path(out) / PAGE, "out", overwrite=overwrite)
    clips = {"a": first, "b": second}
    if null is not None:
        clips["null"] = null

    explainers = _open_explainers(clips, method, words)
    pairs = _read_pairs(explainers, load(data, limit))
    table = _table_of_pairs(pairs)
    shares = _table_of_shares(pairs)
    answer, conclusion = _conclude(pairs, table)
    result = Diff(
        answer=answer,
        conclusion=conclusion,
        pairs=_most_moved_first(table),
        words=_table_of_words(shares),
        kinds=_table_of_kinds(shares),
    )
    if out is not None:
        _write_page(Path(out), result, pairs, clips)
    return result


# ------------------------------------------------------------------------------------- reading


def _read_pairs(explainers: Mapping[str, Explainer], examples: Sequence[Example]) -> list[Pair]:
    """The pairs that can be read, with what each model says of them."""
    pairs: list[Pair] = []
    errors: list[str] = []
    with tqdm(total=len(examples), unit="pair", delay=1) as progress:
        for start in range(0, len(examples), BATCH_SIZE):
            images = []
            batch = []
            for example in examples[start : start + BATCH_SIZE]:
                try:
                    image, _ = example.read()
                except GradeclipError as error:
                    errors.append(str(error))
                else:
                    images.append(image)
                    batch.append(example)
            if batch:
                pairs += _read_batch(explainers, batch, images)
            progress.update(len(examples[start : start + BATCH_SIZE]))

    message = f"a diff needs pairs of two images or more, got {len(examples)} pairs"
    if errors:
        message = f"{len(errors)} of {len(examples)} pairs are not compared: {errors[0]}"
    if len({pair.image for pair in pairs}) < 2:
        raise GradeclipError(message)
    if errors:
        warnings.warn(message, stacklevel=3)
    return pairs


def _read_batch(
    explainers: Mapping[str, Explainer],
    examples: Sequence[Example],
    images: Sequence[Image.Image],
) -> list[Pair]:
    """A few pairs, each image and each caption read once by each model."""
    prompts = [example.prompt for example in examples]
    pairs = []
    for example, image in zip(examples, images, strict=True):
        digest = hashlib.sha256(image.tobytes()).hexdigest()
        pairs.append(Pair(example, image.size, digest, {}))
    for name, explainer in explainers.items():
        explanations = explainer.explain_batch(images, prompts)
        for pair, explanation in zip(pairs, explanations, strict=True):
            pair.readings[name] = _reading_of(explanation)
    return pairs


def _open_explainers(clips: Mapping[str, Clip], method: str, words: str) -> dict[str, Explainer]:
    """An explainer for each model; all compare with captions whose words every model knows."""
    vocabularies = [clip.vocabulary for clip in clips.values() if clip.vocabulary is not None]
    known = frozenset.intersection(*vocabularies) if vocabularies else None
    captions = null_captions(known)
    explainers = {}
    for name, clip in clips.items():
        explainers[name] = Explainer(clip, method=method, words=words, null_captions=captions)
    return explainers


def _reading_of(explanation: Explanation) -> Reading:
    if explanation.percentile is None:
        model = explanation.provenance.model
        raise GradeclipError(f"the model {model!r} embeds no captions, so a pair has no place")
    assert explanation.image_maps is not None  # `method_names` has methods of images alone
    return Reading(
        similarity=float(explanation.similarity[0]),
        place=float(explanation.percentile[0]),
        map=explanation.image_maps[0],
        box=explanation.box,
        words=explanation.words[0],
    )


# -------------------------------------------------------------------------------------- tables


def _table_of_pairs(pairs: Sequence[Pair]) -> pd.DataFrame:
    """One row per pair, in the order of the data."""
    rows = []
    for pair in pairs:
        a = pair.readings["a"]
        b = pair.readings["b"]
        row = {
            "image": pair.example.key,
            "prompt": pair.example.prompt,
            "similarity_a": a.similarity,
            "similarity_b": b.similarity,
            "place_a": a.place,
            "place_b": b.place,
            "moved": b.place - a.place,
            "map": _map_distance(a.on_canvas(pair.size), b.on_canvas(pair.size)),
            **_most_moved_word(pair.example.prompt, a.shares(), b.shares()),
        }
        if "null" in pair.readings:
            row["moved_null"] = pair.readings["null"].place - a.place
        rows.append(row)

    table = pd.DataFrame(rows)
    if "moved_null" in table:
        moves = table["moved"].abs().to_numpy()
        moves_null = table["moved_null"].abs().to_numpy()
        table["as_far"] = 100 * (moves_null >= moves[:, None]).mean(axis=1)
    return table


def _map_distance(map_: np.ndarray, other_map: np.ndarray) -> float:
    """1 - the correlation of two maps of one shape; a flat map is like another flat one only."""
    is_flat = [np.ptp(values) == 0 for values in (map_, other_map)]
    if any(is_flat):
        return 0.0 if all(is_flat) else 1.0
    return float(1 - np.corrcoef(map_.ravel(), other_map.ravel())[0, 1])


def _most_moved_word(prompt: str, shares_a: Mapping, shares_b: Mapping) -> dict:
    """The word of a prompt whose share moved most, with both shares."""
    spans = [span for span in shares_a if span in shares_b]
    if not spans:
        return {"word": "", "share_a": np.nan, "share_b": np.nan}
    start, end = max(spans, key=lambda span: abs(shares_b[span] - shares_a[span]))
    span = (start, end)
    return {"word": prompt[start:end], "share_a": shares_a[span], "share_b": shares_b[span]}


def _most_moved_first(pairs: pd.DataFrame) -> pd.DataFrame:
    """Pairs by how far their place moved; of equal moves, by how far the similarity did."""
    pairs = pairs.assign(rise=pairs["similarity_b"] - pairs["similarity_a"])
    pairs = pairs.sort_values(["moved", "rise"], ascending=False, key=abs, ignore_index=True)
    return pairs.drop(columns="rise")


def _table_of_shares(pairs: Sequence[Pair]) -> pd.DataFrame:
    """One row per pair and word, with its share by A and by B and how far it moved."""
    columns = ["pair", "image", "word", "kind", "share_a", "share_b", "moved"]
    if "null" in pairs[0].readings:
        columns.append("moved_null")

    rows = []
    for number, pair in enumerate(pairs):
        prompt = pair.example.prompt
        shares = {name: reading.shares() for name, reading in pair.readings.items()}
        kinds = _kinds_of_words(prompt)
        for span, share in shares["a"].items():
            if not all(span in of_model for of_model in shares.values()):
                continue  # another tokenizer has other words
            row = {
                "pair": number,
                "image": pair.image,
                "word": prompt[slice(*span)].lower(),
                "kind": kinds.get(span, "other"),
                "share_a": share,
                "share_b": shares["b"][span],
                "moved": shares["b"][span] - share,
            }
            if "null" in shares:
                row["moved_null"] = shares["null"][span] - share
            rows.append(row)
    return pd.DataFrame(rows, columns=columns)


def _kinds_of_words(prompt: str) -> dict[tuple[int, int], str]:
    """The kind of each word by its place; the last word of a noun phrase is a noun."""
    kinds = {(word.start, word.end): word.part for word in tagged_words(prompt)}
    for phrase in phrases(prompt):
        noun = phrase.words[-1]
        kinds[noun.start, noun.end] = "noun"
    return kinds


def _table_of_words(shares: pd.DataFrame) -> pd.DataFrame:
    """The mean shares of each word, and how far they moved, the one that moved most first."""
    groups = shares.groupby(["word", "kind"], sort=False)
    numbers = [name for name in shares if name.startswith(("share", "moved"))]
    table = groups[numbers].mean()
    table["pairs"] = groups["pair"].nunique()
    return table.sort_values("moved", ascending=False, key=abs, kind="stable").reset_index()


def _table_of_kinds(shares: pd.DataFrame) -> pd.DataFrame:
    """The mean shares of each kind of word, and how far they moved, with intervals over pairs."""
    images_of_kind = shares.groupby("kind")["image"].transform("nunique")
    shares = shares[images_of_kind >= 2]
    columns = {}
    for name in shares.columns:
        if name.startswith(("share", "moved")):
            means = group_means(shares, name, by="kind", unit="pair", cluster="image")
            means = means.set_index("kind")
            columns[name] = means["mean"]
            if name.startswith("moved"):
                suffix = name.removeprefix("moved")  # "" or "_null"
                columns[f"low{suffix}"] = means["low"]
                columns[f"high{suffix}"] = means["high"]
            if name == "moved":
                columns["pairs"] = means["n"]
    kinds = pd.DataFrame(columns)
    return kinds.sort_values("pairs", ascending=False, kind="stable").reset_index()


# ---------------------------------------------------------------------------------- conclusion


def _conclude(pairs: Sequence[Pair], table: pd.DataFrame) -> tuple[str, str]:
    """The answer, and a sentence with its numbers."""
    if all(_is_same(pair.readings["a"], pair.readings["b"]) for pair in pairs):
        return "unchanged", (
            f"Nothing changed: both models give {len(pairs)} pairs the same similarities, maps "
            "and words."
        )

    images = [pair.image for pair in pairs]
    moves = table["moved"].abs().to_numpy()
    low, high = mean_interval(moves, images)
    sentence = f"A place moves by {moves.mean():.1f} [{low:.1f}, {high:.1f}] points of a hundred"
    if "moved_null" not in table:
        return "", (
            f"{sentence}, the mean of {len(pairs)} pairs. A second training of A (null) would say "
            "how much of it is chance."
        )

    moves_null = table["moved_null"].abs().to_numpy()
    low, high = mean_interval(moves - moves_null, images)
    answer = interpret_interval(low, high)
    verdict = {
        "higher": "B differs from A by more than two trainings of A do",
        "lower": "B differs from A by less than two trainings of A do",
        "about equal": "B differs from A as two trainings of A do",
        "undecided": "It is undecided whether B differs from A by more than two trainings of A do",
    }[answer]
    return answer, (
        f"{verdict}. {sentence}, and by {moves_null.mean():.1f} between the trainings: "
        f"a difference of {(moves - moves_null).mean():+.1f} [{low:+.1f}, {high:+.1f}], 95 % "
        f"interval of {len(pairs)} pairs."
    )


def _is_same(a: Reading, b: Reading) -> bool:
    """Whether two models say the same of a pair, but for rounding."""
    if a.map.shape != b.map.shape or len(a.words) != len(b.words):
        return False
    numbers_a = [a.similarity, *a.map.ravel(), *(word.score for word in a.words)]
    numbers_b = [b.similarity, *b.map.ravel(), *(word.score for word in b.words)]
    return bool(np.allclose(numbers_a, numbers_b, rtol=0, atol=SAME))


# ---------------------------------------------------------------------------------------- page


def _write_page(
    folder: Path,
    result: Diff,
    pairs: Sequence[Pair],
    clips: Mapping[str, Clip],
) -> None:
    """Write the page, its thumbnails and the tables."""
    (folder / "thumbnails").mkdir(parents=True, exist_ok=True)
    for name in ("pairs", "words", "kinds"):
        getattr(result, name).to_csv(folder / f"{name}.csv", index=False)

    pair_of_key = {pair.example.key: pair for pair in pairs}
    shown = result.pairs.head(SHOWN_PAIRS)
    sources = []
    for number, key in enumerate(shown["image"]):
        source = f"thumbnails/{number:06d}.jpg"
        write_thumbnail(folder / source, _image_and_maps(pair_of_key[key]))
        sources.append(source)
    shown = shown.assign(
        source=sources,
        key=shown["image"].map(shorten),
        caption=shown["prompt"].map(shorten),
        shares=[_shares_of_word(row) for row in shown.itertuples()],
    )
    words = result.words.head(SHOWN_WORDS)
    words = words.assign(word=words["word"].map(html.escape))

    titles = {"a": "A", "b": "B", "null": "second training of A"}
    models = []
    for name, clip in clips.items():
        models.append(f"{titles[name]}: {model_title(clip.name, clip.pretrained)}")
    about = (
        f"<p><strong>{html.escape(result.conclusion)}</strong></p>"
        f"<p>{html.escape('; '.join(models))}. The {len(shown)} pairs whose place moved most come "
        "first; a click on a head sorts. Both maps of a pair have one scale, from no colour (zero "
        "or less) to dark (the largest value of the two).</p>"
    )
    has_null = "null" in clips
    tables = [
        sortable(fill_in(shown, _templates(PAIR_CELLS, has_null))),
        "<h2>By kind of word</h2><p>Mean shares, and how far they moved from A to B, with 95 % "
        "intervals over pairs.</p>",
        sortable(fill_in(result.kinds, _templates(KIND_CELLS, has_null))),
        "<h2>Words that moved most</h2>",
        sortable(fill_in(words, _templates(WORD_CELLS, has_null))),
    ]
    meanings = _templates(MEANINGS, has_null)
    page = render_page(f"Diff of {len(pairs)} pairs", about, meanings, "".join(tables))
    (folder / PAGE).write_text(page, encoding="utf-8", errors="backslashreplace")


def _image_and_maps(pair: Pair) -> list[Image.Image]:
    """The image of a pair, and its maps by A and by B on one scale."""
    image, _ = pair.example.read()
    readings = [pair.readings["a"], pair.readings["b"]]
    largest = max(0.0, *(float(reading.map.max()) for reading in readings))
    painted = [paint(image, reading.map, box=reading.box, vmax=largest) for reading in readings]
    return [image, *painted]


def _shares_of_word(row) -> str:
    """The word of a pair that moved most, with its shares, as HTML."""
    if not row.word:
        return ""
    return f"{html.escape(row.word)} {row.share_a:.2f} → {row.share_b:.2f}"


def _templates(templates: Mapping[str, str], has_null: bool) -> dict[str, str]:
    """Templates or meanings by head; without a null, without the columns of the null."""
    return {
        head: template for head, template in templates.items() if has_null or head not in NULL_HEADS
    }


# -------------------------------------------------------------------------------- the command


def command(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], str]:
    """Add the arguments of the command, and return the function that runs it."""
    form = "as --model of other commands has it, or NAME@WEIGHTS, a tag of open_clip or a file"
    parser.add_argument("first", metavar="A", help=f"a model, {form}")
    parser.add_argument("second", metavar="B", help="the model that A is compared with")
    parser.add_argument(
        "--null", metavar="A2", help="a second training of A: what it moves is chance"
    )
    add_pairs(parser)
    parser.add_argument(
        "--out", default="diff", help="the folder of the page; default: %(default)s"
    )
    parser.add_argument("--method", default="grad-eclip", help="of maps; default: %(default)s")
    parser.add_argument(
        "--words",
        default="grad-eclip",
        help="the method of word scores; 'leave-one-out' reads a caption once more for each word; "
        "default: %(default)s",
    )
    return _run_command


def _run_command(options: argparse.Namespace) -> str:
    data = load_pairs(options.data, options.captions)
    method_names(options.method)  # before models are loaded, which may take minutes
    output(Path(options.out) / PAGE, "--out", overwrite=options.overwrite)

    result = diff(
        _load(options.first, options),
        _load(options.second, options),
        data,
        options.out,
        null=_load(options.null, options) if options.null else None,
        method=options.method,
        words=options.words,
        limit=options.limit,
        overwrite=options.overwrite,
    )
    lines = [result.conclusion]
    if result.answer != "unchanged":
        for row in result.pairs.head(3).itertuples():
            lines.append(
                f"  {row.prompt!r} on {row.image}: place {row.place_a:.0f} -> {row.place_b:.0f}"
            )
    lines.append(f"page: {Path(options.out) / PAGE}")
    return "\n".join(lines)


def _load(name: str, options: argparse.Namespace) -> Clip:
    """A model by NAME or NAME@WEIGHTS."""
    name, _, weights = name.partition("@")
    return load_clip(name, weights or None, device=options.device, precision=options.precision)
