"""The page of a report: a table with thumbnails that can be sorted, in one file that fetches nothing.

rows -> order, worst first -> index.html
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import BinaryIO

import numpy as np
import pandas as pd

FAR = 3.5  # robust deviations from the median that make an outlier (Iglewicz and Hoaglin 1993)
_ENOUGH = 8  # pairs, from which on a deviation is known
_QUESTIONS = {  # column -> its meaning, for the head of the page
    "fit": "fraction of other images that the caption fits less than its own: .5 is chance",
    "dependence": "1 minus the map's mean correlation with maps for prompts about other things, and its 95 % interval: "
    "near 0 the map does not depend on the caption",
    "deviation": f"distance of the similarity from the median of all pairs, in robust deviations: beyond {FAR} is rare",
}
_MORE = {"agreement": "rank correlation of the given map with the model's map", "deletion": "area, lower is better",
         "insertion": "area, higher is better"}  # fmt: skip
_SHOWN = ("pointing_game", "average_precision")  # of the measures of localisation; the file of rows has all
_STYLE = """body{font:15px/1.4 system-ui,sans-serif;margin:1rem;max-width:75rem}
table{border-collapse:collapse}
td,th{padding:.3rem .5rem;border-bottom:1px solid #ccc;text-align:left;vertical-align:top}
td.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}td.t{overflow-wrap:anywhere;min-width:9rem}
.bad{background:#fde0c5;font-weight:600}.table{overflow-x:auto}img{height:120px;width:auto;max-width:none;display:block}
th button{font:inherit;font-weight:600;border:0;background:none;padding:0;cursor:pointer;text-align:left}
th[aria-sort=ascending] button::after{content:" \\2191"}th[aria-sort=descending] button::after{content:" \\2193"}
dt{font-weight:600}"""
_SCRIPT = """for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => {
  const head = button.closest("th"), body = document.querySelector("tbody"), column = head.cellIndex;
  const up = head.getAttribute("aria-sort") !== "ascending";
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
  const compare = (a, b) => {
    const [x, y] = [value(a), value(b)], [p, q] = [parseFloat(x), parseFloat(y)];
    if (Number.isNaN(p) !== Number.isNaN(q)) return Number.isNaN(p) ? 1 : -1;  // unknown values come last
    return (up ? 1 : -1) * (Number.isNaN(p) ? x.localeCompare(y) : p - q);
  };
  body.append(...[...body.rows].sort(compare));
});"""


def ordered(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a report, the worst first, with the columns deviation and warnings.

    Pairs that could not be explained come first, then those with more warnings, then those whose caption fits less and
    whose map depends less on it.
    """
    own = rows.drop_duplicates("image")
    apart = (own["similarity"] - own["similarity"].median()).abs()
    scale = 1.4826 * apart.median()  # of a normal distribution: its standard deviation
    deviation = apart / scale if scale > 0 and apart.notna().sum() >= _ENOUGH else apart * np.nan
    failed = own["error"] != "" if "error" in own else pd.Series(False, own.index)
    flags = pd.DataFrame({"not explained": failed, "fit": own["fit"] <= 0.5, "dependence": own["high"] < 0.1,
                          "deviation": deviation > FAR})  # fmt: skip
    found = pd.DataFrame({
        "image": own["image"], "deviation": deviation, "warnings": flags.dot(flags.columns + ", ").str.rstrip(", "),
        "failed": failed, "count": flags.sum(axis=1),
    })  # fmt: skip
    table = rows.merge(found, on="image", how="left").reset_index()
    first = table.groupby("image")[["fit", "dependence"]].transform("first")
    table = table.assign(_fit=first["fit"], _dependence=first["dependence"])
    table = table.sort_values(["failed", "count", "_fit", "_dependence", "index"], ascending=[False, False, 1, 1, 1])
    return table.drop(columns=["index", "failed", "count", "_fit", "_dependence"]).reset_index(drop=True)


def write_page(stream: BinaryIO, rows: pd.DataFrame, settings: Mapping, method: str, given: str) -> None:
    """Write the page, a row at a time."""
    table = ordered(rows)
    measures = [name for name in (*_SHOWN, *_MORE) if name in table and table[name].notna().any()]
    questions = [name for name in _QUESTIONS if table[name].notna().any()]
    columns = ["similarity", *questions, *measures]
    own = table[table["method"] == method]
    model = f"{settings['model']} ({settings['pretrained'] or 'own weights'}, {settings['weights']})"
    both = bool((table["method"] == given).any())
    maps = f"image, {method}" + f", {given}" * both
    counts = " ".join(_counted(own["warnings"].str.contains(name).sum(), *said) for name, said in {
        "not explained": ("pair could not be explained.", "pairs could not be explained."),
        "fit": ("caption fits other images as well as its own.", "captions fit other images as well as their own."),
        "dependence": ("map stays within .1 of those of other prompts.", "maps stay within .1 of those of other "
                       "prompts."),
        "deviation": (f"similarity lies beyond {FAR} deviations.", f"similarities lie beyond {FAR} deviations."),
    }.items())  # fmt: skip
    about = "".join(f"<dt>{name}</dt><dd>{html.escape(text)}</dd>" for name, text in {**_QUESTIONS, **_MORE}.items()
                    if name in columns)  # fmt: skip
    heads = "".join(f'<th scope="col"><button>{html.escape(name.replace("_", " "))}</button></th>' for name in
                    (maps, "caption", *["map of"] * both, "warnings", *columns))  # fmt: skip
    title = f"Report of {_counted(len(own), 'pair', 'pairs')}"
    reading = ("Pairs with most warnings come first; a click on a head sorts. Each map has its own scale, from no "
               "colour (zero or less) to dark (its largest value).")  # fmt: skip
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>"
    text = f"<h1>{title}</h1><p>{html.escape(model)}. {counts} {reading}</p><dl>{about}</dl>"
    stream.write(f"{head}{text}<div class=table><table><thead><tr>{heads}</tr></thead><tbody>\n".encode())
    for row in table.to_dict("records"):
        stream.write(_row(row, columns, method, both).encode(errors="backslashreplace"))
    stream.write(f"</tbody></table></div><script>{_SCRIPT}</script></html>\n".encode())


def _counted(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"


def _row(row: dict, columns: list[str], method: str, both: bool) -> str:
    """Return one row of the table, with all texts escaped."""
    cut = {name: str(row[name]) if len(str(row[name])) <= 120 else f"{row[name][:120]}..." for name in row if name in
           ("image", "prompt", "thumbnail")}  # fmt: skip
    key, prompt, thumbnail = (html.escape(cut[name], quote=True) for name in ("image", "prompt", "thumbnail"))
    alt = f"{key}, and maps for: {prompt}"
    shown = f'<img src="{thumbnail}" loading="lazy" alt="{alt}" title="{key}">' if row["method"] == method else ""
    warnings = html.escape(str(row["warnings"]))
    if error := html.escape(str(row.get("error") or "")):
        shown, warnings = key, f"{warnings}: {error}"
    cells = "".join(_cell(row, name) for name in columns)
    bad = " bad" * bool(error)
    of = f"<td>{html.escape(row['method'])}</td>" * both
    return (f'<tr><td data-value="{key}">{shown}</td><td class="t">{prompt}</td>{of}'
            f'<td class="t{bad}">{warnings}</td>{cells}</tr>\n')  # fmt: skip


def _cell(row: dict, name: str) -> str:
    value = row[name]
    if pd.isna(value):
        return '<td class="n"></td>'
    bad = {"fit": value <= 0.5, "dependence": row["high"] < 0.1, "deviation": value > FAR}.get(name, False)
    text = f"{value:.2f}" + (f" [{row['low']:.2f}, {row['high']:.2f}]" if name == "dependence" else "")
    return f'<td class="n{" bad" if bad else ""}" data-value="{value!r}">{text}</td>'
