"""A report of your own images and captions: which pairs deserve a second look? One page, the worst pairs first.

    images, captions -> explanations -> rows, thumbnails -> index.html

Every pair is asked `_QUESTIONS`, and if the data set has masks, the map is compared with them. Rows
are stored like those of an evaluation (`table`), so a report that was killed can continue, and the
page is written at the end.
"""

from __future__ import annotations

import argparse
import html
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from ..checks import as_path, flag, instance, whole, writable
from ..checks import seed as checked_seed
from ..datasets import Example, captioned_images, load
from ..errors import GradeclipError, first_line
from ..explainer import Explainer
from ..explanation import Explanation
from ..files import write_whole
from ..models import Clip, load_clip
from ..plots import paint
from ..runtime import remembering
from .evaluation import method_names, run_table
from .localisation import localisation_scores
from .table import content_digest

_PAGE, _THUMBNAILS = "index.html", "thumbnails"
_SAMPLE = 64  # images of the data set that every caption is compared with
_HEIGHT = 160  # pixels of a thumbnail
_FAR = 3.5  # robust deviations from the median that make an outlier (Iglewicz and Hoaglin 1993)
_ENOUGH = 8  # pairs, from which on a deviation is known
_QUESTIONS = {  # column -> its meaning, for the head of the page
    "fit": "fraction of other images that the caption fits less than its own: .5 is chance",
    "dependence": "1 minus the map's mean correlation with maps for prompts about other things, and its 95 % interval: "
    "at 0 the map is the same as theirs, at 1 they have nothing in common, above 1 it is high where they are low",
    "deviation": f"distance of the similarity from the median of all pairs, in robust deviations: above {_FAR} is rare",
}
_WARNINGS = {  # warning -> what the page counts
    "not explained": "pairs that could not be explained",
    "fit": "captions that fit other images as well as their own",
    "dependence": "maps that are nearly the same for any prompt",
    "deviation": "similarities far from those of the other pairs",
}
_COLUMNS = (
    "similarity",
    *_QUESTIONS,
    "pointing_game",
    "average_precision",
)  # the file of rows has all measures
_TEXTS = ("image", "prompt", "error", "content", "thumbnail")
_NUMBERS = ("similarity", "fit", "dependence", "low", "high", "largest")
_STYLE = """:root{color-scheme:light dark}body{font:15px/1.4 system-ui,sans-serif;margin:1rem;max-width:75rem}
table{border-collapse:collapse}
td,th{padding:.3rem .5rem;border-bottom:1px solid #ccc;text-align:left;vertical-align:top}
.table{overflow-x:auto}img{height:min(120px,20vw);width:auto;max-width:none;display:block}
td:nth-child(-n+2){min-width:min(9rem,24vw);overflow-wrap:anywhere}
th button{font:inherit;font-weight:600;border:0;background:none;padding:0;cursor:pointer;text-align:left}
th[aria-sort=ascending] button::after{content:" \\2191"}th[aria-sort=descending] button::after{content:" \\2193"}
dt{font-weight:600}"""
_SCRIPT = """for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.parentNode, body = document.querySelector("tbody"), column = head.cellIndex;
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = (row) => row.cells[column].textContent || row.cells[column].querySelector("img")?.title || "";
    const compare = (a, b) => {
      const [x, y] = [value(a), value(b)], [p, q] = [parseFloat(x), parseFloat(y)];
      if (Number.isNaN(p) !== Number.isNaN(q)) return Number.isNaN(p) ? 1 : -1;  // unknown values come last
      return (up ? 1 : -1) * (Number.isNaN(p) ? x.localeCompare(y) : p - q);
    };
    body.append(...[...body.rows].sort(compare));
  });
}"""


def report(
    clip: Clip,
    data: str | Sequence[Example],
    out: str | Path,
    *,
    method: str = "grad-eclip",
    limit: int | None = None,
    nulls: int = 16,
    seed: int = 0,
    progress: bool = True,
    overwrite: bool = False,
) -> pd.DataFrame:
    """Explain every pair of a data set, and write a page that shows the worst of them first.

    Args:
        clip: the model.
        data: a data set as `datasets.load` takes it, or a list of `Example`.
        out: a folder for the report: `index.html`, `thumbnails/`, and the rows as `rows.jsonl`.
        method: of `methods.METHODS`, one with maps of images.
        limit: at most this many examples, spread over the data.
        nulls: how many prompts about other things a map is compared with (`Explainer.null_maps`), 2
            to 1000.
        seed: of these prompts.
        progress: show a bar.
        overwrite: start again in a folder that holds another run.

    Returns:
        One row per pair, the worst first: image, prompt, error (why it could not be explained),
        content (a checksum of image and mask), thumbnail, similarity, fit (fraction of up to 64
        other images that the caption fits less), dependence, low and high (its interval), largest
        (value of the map), the measures of `localisation_scores` if there is a mask, deviation (of the
        similarity from the median, in robust deviations) and warnings.

    Raises:
        GradeclipError: an unknown method, no examples, a folder of another report, an image or mask
            that was replaced.
    """
    instance("clip", clip, Clip, "a Clip(model, preprocess, tokenizer)")
    (method,), out = method_names([method]), as_path(out, "out")
    nulls, seed = whole("nulls", nulls, 2, 1000), checked_seed(seed)
    for name, value in (("progress", progress), ("overwrite", overwrite)):
        flag(name, value)
    examples = load(data, limit)
    settings = {"report": method, "nulls": nulls, "seed": seed}
    with run_table(out, clip, examples, settings, ("image",), overwrite) as table:
        explainer = Explainer(clip, method=method, seed=seed)
        vars(explainer.image_tower)["trace"] = remembering(explainer.image_tower.trace)
        sample = _sample(explainer, examples) if len(table.rows) < len(examples) else {}
        failed = {}
        for number, example in enumerate(tqdm(examples, unit="pair", disable=not progress)):
            if kept := table.rows.get((example.key,)):
                if kept["content"] != content_digest(*example.read()):
                    said = f"image or mask of {example.key!r} was replaced since"
                    raise GradeclipError(f"{said}: choose another folder, or add --overwrite")
                if (table.folder / kept["thumbnail"]).is_file():
                    continue
            row = _row(
                explainer, example, sample, nulls, table.folder, f"{_THUMBNAILS}/{number:06d}.jpg"
            )
            if row["error"]:
                failed[example.key] = row  # not kept, so that a mended file is explained next time
            else:
                table.add([row])
        rows = _worst_first([failed.get(one.key) or table.rows[(one.key,)] for one in examples])
        page = _page_of(rows, clip, method).encode(errors="backslashreplace")
        write_whole({table.folder / _PAGE: page})
    return rows


def _sample(explainer: Explainer, examples: Sequence[Example]) -> dict[str, np.ndarray]:
    """Return embeddings (E,) of some images, spread over the data, by the image's checksum."""
    found = {}
    for example in load(examples, _SAMPLE):
        with suppress(GradeclipError):  # its own row says what is wrong
            image = example.read()[0]
            found[content_digest(image)] = explainer.embed_images(image)[0].cpu().numpy()
    return found


def _row(
    explainer: Explainer, example: Example, sample: dict, nulls: int, folder: Path, thumbnail: str
) -> dict:
    """Return the row of a pair, after its thumbnail is written."""
    row: dict = {"image": example.key, "prompt": example.prompt, "error": ""}
    try:
        image, mask = example.read()
        explanation = explainer.explain(image, example.prompt)
        dependence = explanation.prompt_dependence(
            explainer.null_maps(image, example.prompt, nulls)
        )
        heat = explanation.heatmap(0, signed=True)
        measures = {} if mask is None else localisation_scores(heat, mask)
    except GradeclipError as refusal:
        return {**row, "error": first_line(refusal)}
    _write_thumbnail(folder / thumbnail, explanation)
    text, own = explainer.embed_texts([example.prompt])[0].cpu().numpy(), content_digest(image)
    similarity = float(explanation.similarity[0])
    ahead = np.array(
        [similarity - other @ text for content, other in sample.items() if content != own]
    )
    row |= {
        "content": content_digest(image, mask),
        "thumbnail": thumbnail,
        "similarity": similarity,
    }
    row["fit"] = ((ahead > 0) + (ahead == 0) / 2).mean() if len(ahead) else np.nan
    row |= dict(
        zip(("dependence", "low", "high"), dependence, strict=True), largest=float(heat.max())
    )
    return row | measures


def _write_thumbnail(file: Path, explanation: Explanation) -> None:
    width, height = explanation.image.size
    size = (min(4 * _HEIGHT, max(1, round(width * _HEIGHT / height))), _HEIGHT)
    strip = Image.new("RGB", (2 * size[0] + 4, _HEIGHT), "white")
    shown = (
        explanation.image,
        paint(explanation.image, explanation.image_maps[0], box=explanation.box),
    )
    for i, image in enumerate(shown):
        strip.paste(image.resize(size, Image.Resampling.LANCZOS), (i * (size[0] + 4), 0))
    write_whole({file: partial(strip.save, format="JPEG", quality=85)})


def _worst_first(rows: Sequence[Mapping]) -> pd.DataFrame:
    """Return the rows of a report as a table, the worst first, with the columns deviation and warnings."""
    blank: dict = dict.fromkeys(_TEXTS, "") | dict.fromkeys(_NUMBERS, np.nan)
    table = pd.DataFrame([{**blank, **row} for row in rows])
    table = table.astype(dict.fromkeys(_TEXTS, object) | dict.fromkeys(_NUMBERS, float))
    apart = (table["similarity"] - table["similarity"].median()).abs()
    scale = 1.4826 * apart.median()  # of a normal distribution: its standard deviation
    table["deviation"] = apart / scale if scale > 0 and apart.notna().sum() >= _ENOUGH else np.nan
    flags = pd.DataFrame(
        {
            "not explained": table["error"] != "",
            "fit": table["fit"] <= 0.5,
            "dependence": table["high"] < 0.1,
            "deviation": table["deviation"] > _FAR,
        }
    )
    table["warnings"] = [", ".join(flags.columns[row]) for row in flags.to_numpy()]
    order = np.lexsort(
        [table["dependence"], table["fit"], -flags.sum(axis=1), table["error"] == ""]
    )  # last key first
    return table.iloc[order].reset_index(drop=True)


def _page_of(table: pd.DataFrame, clip: Clip, method: str) -> str:
    columns = [name for name in _COLUMNS if name in table and table[name].notna().any()]
    warnings = table["warnings"].where(
        table["error"] == "", table["warnings"] + ": " + table["error"]
    )
    shown = pd.DataFrame(
        {
            "caption": table["prompt"].map(_cut),
            "warnings": warnings.map(html.escape),
            f"image, {method}": [_thumbnail(row) for row in table.itertuples()],
            **{name: table[name].map("{:.2f}".format, na_action="ignore") for name in columns},
        }
    )
    if "dependence" in shown:
        shown["dependence"] += table["low"].map(" [{:.2f}, ".format) + table["high"].map(
            "{:.2f}]".format
        )
    with pd.option_context("display.max_colwidth", None):
        heads = [f"<button>{name.replace('_', ' ')}</button>" for name in shown]
        rows = shown.set_axis(heads, axis=1).to_html(index=False, escape=False, na_rep="")
    known = [name for name in _WARNINGS if name in ("not explained", *columns)]
    counts = "; ".join(
        f"{_WARNINGS[name]}: {table['warnings'].str.contains(name).sum()}" for name in known
    )
    about = "".join(
        f"<dt>{one}</dt><dd>{html.escape(_QUESTIONS[one])}</dd>"
        for one in columns
        if one in _QUESTIONS
    )
    model = html.escape(f"{clip.name} ({clip.pretrained or 'weights not named'})")
    title = f"Report of {len(table)} pair{'s' * (len(table) != 1)}"
    said = (
        f"{model}; {counts}. Pairs with most warnings come first; a click on a head sorts. Each map has its own "
        "scale, from no colour (zero or less) to dark (its largest value)."
    )
    head = "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
    head += f"<title>{title}</title><style>{_STYLE}</style><h1>{title}</h1><p>{said}</p><dl>{about}</dl>"
    return f"{head}<div class=table>{rows}</div><script>{_SCRIPT}</script></html>\n"


def _cut(text: str) -> str:
    return html.escape(text if len(text) <= 120 else f"{text[:120]}...")


def _thumbnail(row) -> str:
    """Return the image and map of a pair, or the name of one that could not be explained."""
    key, file = _cut(row.image), html.escape(row.thumbnail)
    alt = f"{key}, and its map for: {_cut(row.prompt)}"
    return key if row.error else f'<img src="{file}" loading="lazy" alt="{alt}" title="{key}">'


def command(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], str | None]:
    """Add the arguments of the command, and return the function that runs it."""
    parser.add_argument(
        "--data", required=True, help="a folder of images, or a data set, KIND:WHERE"
    )
    parser.add_argument(
        "--captions", help="with a folder: a table with the columns image and caption"
    )
    parser.add_argument("--out", required=True, help="the folder of the report")
    parser.add_argument("--method", default="grad-eclip", help="default: %(default)s")
    parser.add_argument(
        "--limit", type=int, help="at most this many pairs, spread over the data set"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the prompts that maps are compared with"
    )
    parser.add_argument(
        "--precision", default="fp32", help="fp32, bf16, fp16, pure_bf16 or pure_fp16; %(default)s"
    )
    return _run_command


def _run_command(options: argparse.Namespace) -> str:
    where, captions = options.data, options.captions
    if captions is not None:
        as_path(captions, "--captions")
    if os.path.isdir(where) == (captions is None):  # also of a name that no folder can have
        needs = "needs --captions, a table with the columns image and caption"
        msg = f"a folder of images {needs}" if captions is None else f"there is no folder {where}"
        raise GradeclipError(f"{msg}; a data set is named KIND:WHERE, without --captions")
    method_names([options.method])  # before a model is loaded, which may take minutes
    out = writable(options.out, "--out", folder=True)
    data = load(where) if captions is None else captioned_images(where, captions, check=False)
    clip = load_clip(
        options.model, options.pretrained, device=options.device, precision=options.precision
    )
    names = "method limit seed overwrite".split()
    rows = report(clip, data, out, **{name: getattr(options, name) for name in names})
    failed, said = [why for why in rows["error"] if why], f"{len(rows)} pairs: {out / _PAGE}"
    said += (
        f"; {len(failed)} could not be explained, the first because {failed[0]}" if failed else ""
    )
    if len(failed) == len(rows):
        raise GradeclipError(said)
    return said
