"""The page of a report: a table with thumbnails that can be sorted, in one file that fetches nothing.

rows -> warnings, the worst first -> index.html
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ..models import Clip

_FAR = 3.5  # robust deviations from the median that make an outlier (Iglewicz and Hoaglin 1993)
_ENOUGH = 8  # pairs, from which on a deviation is known
_QUESTIONS = {  # column -> its meaning, for the head of the page
    "fit": "fraction of other images that the caption fits less than its own: .5 is chance",
    "dependence": "1 minus the map's mean correlation with maps for prompts about other things, and its 95 % interval: "
    "near 0 the map does not depend on the caption",
    "deviation": f"distance of the similarity from the median of all pairs, in robust deviations: beyond {_FAR} is "
    "rare",
}
_WARNINGS = {  # warning -> what the page says of one pair, and of several
    "not explained": ("pair could not be explained.", "pairs could not be explained."),
    "fit": ("caption fits other images as well as its own.", "captions fit other images as well as their own."),
    "dependence": ("map stays within .1 of those of other prompts.", "maps stay within .1 of those of other prompts."),
    "deviation": (f"similarity lies beyond {_FAR} deviations.", f"similarities lie beyond {_FAR} deviations."),
}
_COLUMNS = ("similarity", *_QUESTIONS, "pointing_game", "average_precision")  # the file of rows has all measures
_TEXTS = ("image", "prompt", "error", "content", "thumbnail")
_NUMBERS = ("similarity", "fit", "dependence", "low", "high", "largest")
_STYLE = """body{font:15px/1.4 system-ui,sans-serif;margin:1rem;max-width:75rem}
table{border-collapse:collapse}
td,th{padding:.3rem .5rem;border-bottom:1px solid #ccc;text-align:left;vertical-align:top;overflow-wrap:anywhere}
.table{overflow-x:auto}img{height:120px;width:auto;max-width:none;display:block}
td:nth-child(2),td:nth-child(3){min-width:9rem}
th button{font:inherit;font-weight:600;border:0;background:none;padding:0;cursor:pointer;text-align:left}
th[aria-sort=ascending] button::after{content:" \\2191"}th[aria-sort=descending] button::after{content:" \\2193"}
dt{font-weight:600}"""
_SCRIPT = """for (const head of document.querySelectorAll("th")) {
  const button = document.createElement("button");
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => {
    const body = document.querySelector("tbody"), column = head.cellIndex;
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


def worst_first(rows: Sequence[Mapping]) -> pd.DataFrame:
    """Return the rows of a report as a table, the worst first, with the columns deviation and warnings.

    Pairs that could not be explained come first, then those with more warnings, then those whose caption fits less and
    whose map depends less on it.
    """
    table = pd.DataFrame(list(rows))
    table = table.reindex(columns=[*dict.fromkeys([*_TEXTS, *_NUMBERS, *table])])
    table = table.fillna(dict.fromkeys(_TEXTS, "")).astype(dict.fromkeys(_NUMBERS, float))
    apart = (table["similarity"] - table["similarity"].median()).abs()
    scale = 1.4826 * apart.median()  # of a normal distribution: its standard deviation
    table["deviation"] = apart / scale if scale > 0 and apart.notna().sum() >= _ENOUGH else np.nan
    flags = {
        "not explained": table["error"] != "", "fit": table["fit"] <= 0.5, "dependence": table["high"] < 0.1,
        "deviation": table["deviation"] > _FAR,
    }  # fmt: skip
    table["warnings"] = [", ".join(name for name in flags if flags[name][i]) for i in table.index]
    table = table.assign(_failed=flags["not explained"], _count=sum(flag.astype(int) for flag in flags.values()))
    table = table.sort_values(["_failed", "_count", "fit", "dependence"], ascending=[False, False, True, True])
    return table.drop(columns=["_failed", "_count"]).reset_index(drop=True)


def page_of(table: pd.DataFrame, clip: Clip, method: str) -> str:
    """Return the page of rows with the worst first."""
    columns = [name for name in _COLUMNS if name in table and table[name].notna().any()]
    warnings = table["warnings"].where(table["error"] == "", table["warnings"] + ": " + table["error"])
    shown = pd.DataFrame({
        f"image, {method}": [_thumbnail(row) for row in table.itertuples()],
        "caption": table["prompt"].map(_cut), "warnings": warnings.map(html.escape),
        **{name: table[name].map("{:.2f}".format, na_action="ignore") for name in columns},
    })  # fmt: skip
    if "dependence" in shown:
        bounds = table["low"].map(" [{:.2f}, ".format) + table["high"].map("{:.2f}]".format)
        shown["dependence"] += bounds
    with pd.option_context("display.max_colwidth", None):
        rows = shown.rename(columns=lambda name: name.replace("_", " ")).to_html(index=False, escape=False, na_rep="")
    counts = " ".join(_counted(table["warnings"].str.contains(name).sum(), *said) for name, said in _WARNINGS.items())
    about = "".join(
        f"<dt>{name}</dt><dd>{html.escape(_QUESTIONS[name])}</dd>" for name in columns if name in _QUESTIONS
    )
    model = html.escape(f"{clip.name} ({clip.pretrained or 'own weights'})")
    title = f"Report of {_counted(len(table), 'pair', 'pairs')}"
    reading = ("Pairs with most warnings come first; a click on a head sorts. Each map has its own scale, from no "
               "colour (zero or less) to dark (its largest value).")  # fmt: skip
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>"
    text = f"<h1>{title}</h1><p>{model}. {counts} {reading}</p><dl>{about}</dl>"
    return f"{head}{text}<div class=table>{rows}</div><script>{_SCRIPT}</script></html>\n"


def _counted(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"


def _cut(text: str) -> str:
    return html.escape(text if len(text) <= 120 else f"{text[:120]}...")


def _thumbnail(row) -> str:
    """Return the image and map of a pair, or the name of one that could not be explained."""
    key, file = _cut(row.image), html.escape(row.thumbnail)
    alt = f"{key}, and its map for: {_cut(row.prompt)}"
    return key if row.error else f'<img src="{file}" loading="lazy" alt="{alt}" title="{key}">'
