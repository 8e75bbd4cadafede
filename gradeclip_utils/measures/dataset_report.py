"""A report of your own images and captions: which pairs deserve a second look?

    images, captions -> explanations -> rows, thumbnails -> index.html, the worst pairs first

Every pair gets the numbers of `MEANINGS`, and if the data set has masks, the map is compared with
them. Rows are stored like those of an evaluation (`table`), so a report that was killed can
continue, and the page is written at the end.
"""

import argparse
import html
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from ..datasets import Example, captioned_images, load
from ..errors import GradeclipError
from ..explainer import Explainer
from ..explanation import Explanation
from ..methods import METHODS
from ..models import Clip, load_clip, model_title
from ..plots import paint
from ..words import Word
from .evaluation import describe_run, method_names
from .localisation import localisation_scores
from .page import PAGE, render_page, shaded_caption, shorten, sortable, write_thumbnail
from .table import Table

SAMPLE_SIZE = 64  # images of the data set that every caption is compared with
OUTLIER = 3.5  # robust deviations from the median (Iglewicz and Hoaglin 1993)
ENOUGH_PAIRS = 8  # from which on a deviation is known
MEANINGS = {  # column -> its meaning, for the head of the page
    "fit": "fraction of other images that the caption fits less than its own: .5 is chance",
    "dependence": "1 minus the map's mean correlation with maps for prompts about other things, "
    "and its 95 % interval: at 0 the map is the same as theirs, at 1 they have nothing in common, "
    "above 1 it is high where they are low",
    "deviation": "distance of the similarity from the median of all pairs, in robust deviations: "
    f"above {OUTLIER} is rare",
}
WARNINGS = {  # warning -> what the page counts
    "not explained": "pairs that could not be explained",
    "fit": "captions that fit other images as well as their own",
    "dependence": "maps that are nearly the same for any prompt",
    "deviation": "similarities far from those of the other pairs",
}
SHOWN_COLUMNS = ("similarity", *MEANINGS, "pointing_game", "average_precision")
PAGES = "pages"  # a folder with the page of each pair
TEXT_COLUMNS = ("image", "prompt", "error", "thumbnail", "page")
NUMBER_COLUMNS = ("similarity", "fit", "dependence", "low", "high", "largest")


def report(
    clip: Clip,
    data: str | Sequence[Example],
    out: str | Path,
    *,
    method: str = "grad-eclip",
    words: str | None = "leave-one-out",
    limit: int | None = None,
    nulls: int = 16,
    seed: int = 0,
    overwrite: bool = False,
) -> pd.DataFrame:
    """Explain every pair of a data set, and write a page that shows the worst of them first.

    >>> rows = report(load_clip(), "scenes:test:40", "report")  # doctest: +SKIP
    >>> rows[["prompt", "similarity", "fit"]].head()           # doctest: +SKIP

    Args:
        clip: the model.
        data: a data set as `datasets.load` takes it, or a list of `Example`.
        out: a folder for the report: `index.html`, `thumbnails/`, `pages/` with the page of each
            pair, and the rows as `rows.jsonl`.
        method: of `methods.METHODS`, one with maps of images.
        words: the method by which the words of captions are shaded; None for no shades.
        limit: at most this many examples, spread over the data.
        nulls: how many prompts about other things a map is compared with (`Explainer.null_maps`).
        seed: of these prompts.
        overwrite: start again in a folder that holds another run.

    Returns:
        One row per pair, the worst first: image, prompt, error (why it could not be explained),
        thumbnail, similarity, fit (fraction of up to 64 other images that the caption fits less),
        dependence, low and high (its interval), largest (value of the map), the measures of
        `localisation_scores` if there is a mask, words (of the caption, each with its place, score,
        and whether the model does not know it), guess (the model knows drawn scenes alone, and the
        image is none), deviation (of the similarity from the median, in robust deviations) and
        warnings.

    Raises:
        GradeclipError: an unknown method, no examples, or a folder of another report.
    """
    (method,) = method_names(method)
    examples = load(data, limit)
    settings = {
        **describe_run(clip, data, examples),
        "report": method,
        "words": words,
        "nulls": nulls,
        "seed": seed,
    }
    table = Table(out, settings, ("image",), overwrite=overwrite)
    thumbnails = Path(out) / "thumbnails"
    thumbnails.mkdir(exist_ok=True)
    (Path(out) / PAGES).mkdir(exist_ok=True)
    explainer = Explainer(clip, method=method, words=words, seed=seed, keep_trace=True)
    sample: dict[int, np.ndarray] = {}
    if len(table.rows) < len(examples):
        sample = _embed_sample(explainer, examples)

    rows = []
    for number, example in enumerate(tqdm(examples, unit="pair", delay=1)):
        row = table.rows.get((example.key,))
        if row is None:
            row = _explain_pair(explainer, example, sample, nulls, thumbnails / f"{number:06d}.jpg")
            if not row["error"]:  # a pair that failed is explained again by the next call
                table.add([row])
        rows.append(row)

    frame = _worst_first(rows)
    page = _render_page(frame, clip, method, words)
    (Path(out) / PAGE).write_text(page, encoding="utf-8", errors="backslashreplace")
    return frame


def _embed_sample(explainer: Explainer, examples: Sequence[Example]) -> dict[int, np.ndarray]:
    """Embeddings (E,) of some images, spread over the data, by the hash of their pixels."""
    embeddings = {}
    for example in load(examples, SAMPLE_SIZE):
        try:
            image, _ = example.read()
        except GradeclipError:
            continue  # its own row says what is wrong
        embeddings[hash(image.tobytes())] = explainer.embed_images(image)[0].cpu().numpy()
    return embeddings


def _explain_pair(
    explainer: Explainer,
    example: Example,
    sample: Mapping[int, np.ndarray],
    nulls: int,
    thumbnail: Path,
) -> dict:
    """The row of a pair, after its thumbnail is written."""
    row: dict = {"image": example.key, "prompt": example.prompt, "error": ""}
    try:
        image, mask = example.read()
        explanation = explainer.explain(image, example.prompt)
        null_maps = explainer.null_maps(image, example.prompt, nulls)
    except GradeclipError as refusal:
        row["error"] = str(refusal)
        return row

    assert explanation.image_maps is not None  # `method_names` has methods of images alone
    painted = paint(image, explanation.image_maps[0], box=explanation.box)
    write_thumbnail(thumbnail, [explanation.image, painted])
    row["thumbnail"] = f"{thumbnail.parent.name}/{thumbnail.name}"
    page = explanation.to_html(thumbnail.parent.parent / PAGES / f"{thumbnail.stem}.html")
    row["page"] = f"{PAGES}/{page.name}"
    row["similarity"] = float(explanation.similarity[0])

    text_embedding = explainer.embed_texts([example.prompt])[0].cpu().numpy()
    leads = []
    for pixels, image_embedding in sample.items():
        if pixels != hash(image.tobytes()):
            leads.append(row["similarity"] - image_embedding @ text_embedding)
    row["fit"] = np.nan
    if leads:
        row["fit"] = np.mean((np.sign(leads) + 1) / 2)  # a tie counts half

    row["dependence"], row["low"], row["high"] = explanation.prompt_dependence(null_maps)
    heat = explanation.heatmap(0, signed=True)
    row["largest"] = float(heat.max())
    row["guess"] = explanation.provenance.is_guess
    row["words"] = [_word_record(explanation, word) for word in explanation.words[0]]
    if mask is not None:
        row |= localisation_scores(heat, mask)
    return row


def _word_record(explanation: Explanation, word: Word) -> dict:
    """A word of a caption for the page."""
    return {
        "start": word.start,
        "end": word.end,
        "score": word.score,
        "filled": explanation.is_filled(word),
        "unknown": explanation.is_unknown(word),
        "sentence": explanation.word_sentence(word),
    }


def _worst_first(rows: Sequence[Mapping]) -> pd.DataFrame:
    """The rows of a report as a table, the worst first, with deviation and warnings."""
    blank: dict = dict.fromkeys(TEXT_COLUMNS, "") | dict.fromkeys(NUMBER_COLUMNS, np.nan)
    table = pd.DataFrame([{**blank, "words": (), "guess": False, **row} for row in rows])
    table = table.astype(dict.fromkeys(NUMBER_COLUMNS, float))

    distance = (table["similarity"] - table["similarity"].median()).abs()
    scale = 1.4826 * distance.median()  # of a normal distribution: its standard deviation
    table["deviation"] = np.nan
    if scale > 0 and distance.notna().sum() >= ENOUGH_PAIRS:
        table["deviation"] = distance / scale

    flags = pd.DataFrame(
        {
            "not explained": table["error"] != "",
            "fit": table["fit"] <= 0.5,
            "dependence": table["high"] < 0.1,
            "deviation": table["deviation"] > OUTLIER,
        }
    )
    table["warnings"] = [", ".join(flags.columns[row]) for row in flags.to_numpy()]
    order = table.assign(explained=~flags["not explained"], count=-flags.sum(axis=1))
    order = order.sort_values(["explained", "count", "fit", "dependence"], kind="stable")
    return table.loc[order.index].reset_index(drop=True)


def _render_page(
    table: pd.DataFrame,
    clip: Clip,
    method: str,
    words: str | None,
) -> str:
    """The page of a report, as HTML."""
    columns = [name for name in SHOWN_COLUMNS if name in table and table[name].notna().any()]
    cells = {
        "caption": [shaded_caption(row.prompt, row.words) for row in table.itertuples()],
        "warnings": [_warning_cell(row) for row in table.itertuples()],
        f"image, {method}": [_thumbnail_cell(row) for row in table.itertuples()],
    }
    for name in columns:
        cells[name] = table[name].map("{:.2f}".format, na_action="ignore")
    if "dependence" in cells:
        low = table["low"].map(" [{:.2f}, ".format)
        cells["dependence"] += low + table["high"].map("{:.2f}]".format)

    counts = []
    for name, meaning in WARNINGS.items():
        if name in ("not explained", *columns):
            counts.append(f"{meaning}: {table['warnings'].str.contains(name).sum()}")
    title = model_title(clip.name, clip.pretrained)
    about = (
        f"<p>{html.escape(title)}; {'; '.join(counts)}. Pairs with most warnings come "
        "first; a click on a head sorts, a click on an image opens its page. Each map has its own "
        "scale, from no colour (zero or less) to dark (its largest value).</p>"
    )
    if words is not None:
        change = METHODS[words].word_change
        meaning = f"the fall of the similarity {change}" if change else "its relevance"
        about += (
            f"<p>A word's shade is {meaning} ({METHODS[words].title}), red for, blue against.</p>"
        )
    if table["guess"].any():
        about += "<p>The model was trained on drawn scenes alone: on other images it guesses.</p>"
    if table["words"].map(lambda row: any(word["unknown"] for word in row)).any():
        about += "<p>Words that the model does not know are struck out.</p>"
    return render_page(
        f"Report of {len(table)} pair{'s' * (len(table) != 1)}",
        about,
        {name: meaning for name, meaning in MEANINGS.items() if name in columns},
        sortable(cells),
    )


def _thumbnail_cell(row) -> str:
    """The image and map of a pair, or the name of one that could not be explained."""
    key = shorten(row.image)
    if row.error:
        return key
    alt = f"{key}, and its map for: {shorten(row.prompt)}"
    source = html.escape(row.thumbnail)
    image = f'<img src="{source}" loading="lazy" alt="{alt}" title="{key}">'
    return f'<a href="{html.escape(row.page)}">{image}</a>'


def _warning_cell(row) -> str:
    """The warnings of a pair in words, as HTML."""
    if row.error:
        return html.escape(f"{row.warnings}: {row.error}")
    warnings = []
    for warning in row.warnings.split(", "):
        if warning == "fit":
            warning = f"fits {100 * (1 - row.fit):.0f} % of other images as well or better"
        warnings.append(warning)
    return html.escape(", ".join(warnings))


# -------------------------------------------------------------------------------- the command


def load_pairs(data: str, captions: str | None) -> list[Example]:
    """The examples of a folder of images with a table of captions, or of a data set."""
    if captions is not None:
        return captioned_images(data, captions)
    folder = Path(data)
    if not folder.is_dir():
        return load(data)
    table = folder / "captions.csv"
    if not table.is_file():
        msg = "a folder of images needs --captions, a table with the columns image and caption"
        raise GradeclipError(f"{msg}, or {table}; a data set is named KIND:WHERE, without it")
    images = folder / "images"
    return captioned_images(images if images.is_dir() else folder, table, folder / "masks")


def add_pairs(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name pairs of images and captions."""
    parser.add_argument(
        "--data", required=True, help="a folder of images, or a data set, KIND:WHERE"
    )
    parser.add_argument(
        "--captions",
        help="with a folder: a table with the columns image and caption; by default captions.csv "
        "in the folder",
    )
    parser.add_argument(
        "--limit", type=int, help="at most this many pairs, spread over the data set"
    )


def command(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], str]:
    """Add the arguments of the command, and return the function that runs it."""
    add_pairs(parser)
    parser.add_argument("--out", required=True, help="the folder of the report")
    parser.add_argument("--method", default="grad-eclip", help="default: %(default)s")
    parser.add_argument(
        "--words",
        metavar="METHOD",
        default="leave-one-out",
        help="the method by which words are shaded, or none; default: %(default)s",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the prompts that maps are compared with"
    )
    return _run_command


def _run_command(options: argparse.Namespace) -> str:
    data = load_pairs(options.data, options.captions)
    method_names(options.method)  # before a model is loaded, which may take minutes

    clip = load_clip(
        options.model,
        options.pretrained,
        device=options.device,
        precision=options.precision,
    )
    rows = report(
        clip,
        data,
        options.out,
        method=options.method,
        words=None if options.words == "none" else options.words,
        limit=options.limit,
        seed=options.seed,
        overwrite=options.overwrite,
    )
    errors = rows.loc[rows["error"] != "", "error"]
    message = f"{len(rows)} pairs: {Path(options.out) / PAGE}"
    if len(errors):
        message += f"; {len(errors)} could not be explained, the first because {errors.iloc[0]}"
    if len(errors) == len(rows):
        raise GradeclipError(message)
    return message
