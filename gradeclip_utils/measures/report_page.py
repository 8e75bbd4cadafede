"""The page of a report: a table with thumbnails that can be sorted, in one file that fetches nothing.

rows -> order, worst first -> index.html
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import BinaryIO

import numpy as np
import pandas as pd

from .localisation import MEASURES

FAR = 3.5  # robust deviations from the median that make an outlier (Iglewicz and Hoaglin 1993)
_QUESTIONS = {  # column -> what it answers, for the head of the page
    "fit": "fraction of other images to which the caption is less similar than to its own: .5 is chance, so a caption "
    "near or below it does not depend on the image",
    "dependence": "1 less the map's mean correlation with the maps of prompts about other things, and its 95 % "
    "interval: near 0 the map does not depend on the caption",
    "deviation": f"how far the similarity lies from the median of all, in robust deviations: beyond {FAR} is rare",
}
_MORE = {"agreement": "rank correlation of the given map with ours", "deletion": "area, lower is better",
         "insertion": "area, higher is better"}  # fmt: skip
_STYLE = """body{font:15px/1.4 system-ui,sans-serif;margin:1.5rem;max-width:90rem}table{border-collapse:collapse}
td,th{padding:.3rem .6rem;border-bottom:1px solid #ccc;text-align:left;vertical-align:top}
td.n{text-align:right;font-variant-numeric:tabular-nums}td.bad{background:#fde0c5;font-weight:600}
th button{font:inherit;font-weight:600;border:0;background:none;padding:0;cursor:pointer;text-align:left}
th[aria-sort=ascending] button::after{content:" \\2191"}th[aria-sort=descending] button::after{content:" \\2193"}
img{height:160px;display:block}dt{font-weight:600}"""
_SCRIPT = """for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => {
  const head = button.closest("th"), body = document.querySelector("tbody"), column = head.cellIndex;
  const up = head.getAttribute("aria-sort") !== "ascending";
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
  const compare = (a, b) => {
    const [x, y] = [value(a), value(b)], [p, q] = [parseFloat(x), parseFloat(y)];
    if (Number.isNaN(p) !== Number.isNaN(q)) return Number.isNaN(p) ? 1 : -1;  // what is not known comes last
    return (up ? 1 : -1) * (Number.isNaN(p) ? x.localeCompare(y) : p - q);
  };
  body.append(...[...body.rows].sort(compare));
});"""


def ordered(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of a report, the worst first, with the columns deviation, place and worst."""
    own = rows.drop_duplicates("image")
    apart = (own["similarity"] - own["similarity"].median()).abs()
    scale = 1.4826 * apart.median()  # of a normal distribution: its standard deviation
    deviation = apart / scale if scale > 0 else apart * np.nan
    bad = {"fit": own["fit"], "dependence": own["dependence"], "deviation": -deviation}
    places = pd.DataFrame({name: values.rank(method="min", na_option="bottom") for name, values in bad.items()})
    found = pd.DataFrame({"image": own["image"], "deviation": deviation, "place": places.min(axis=1),
                          "worst": places.idxmin(axis=1)})  # fmt: skip
    table = rows.merge(found, on="image", how="left")
    return table.sort_values(["place", "image"], kind="stable").reset_index(drop=True)


def write_page(stream: BinaryIO, rows: pd.DataFrame, settings: Mapping, method: str, given: str) -> None:
    """Write the page, a row at a time."""
    table = ordered(rows)
    measures = [name for name in (*MEASURES, *_MORE) if name in table and table[name].notna().any()]
    columns = ["similarity", *_QUESTIONS, *measures]
    mine = table[table["method"] == method]
    model = f"{settings['model']} ({settings['pretrained'] or 'own weights'}, {settings['weights']})"
    maps = f"image, {method}" + (f", {given}" if (table["method"] == given).any() else "")
    counts = (f"{len(mine)} pairs. {int((mine['fit'] <= 0.5).sum())} captions fit other images as well as their own; "
              f"{int((mine['high'] < 0.1).sum())} maps stay within .1 of those of other prompts; "
              f"{int((mine['deviation'] > FAR).sum())} similarities lie beyond {FAR} deviations.")  # fmt: skip
    about = "".join(f"<dt>{name}</dt><dd>{html.escape(text)}</dd>" for name, text in {**_QUESTIONS, **_MORE}.items()
                    if name in columns)  # fmt: skip
    heads = "".join(f'<th scope="col"><button>{html.escape(name)}</button></th>' for name in
                    (maps, "caption", "map of", "worst in", *columns))  # fmt: skip
    title = f"Report of {len(mine)} pairs"
    reading = ("The worst come first; a click on a head sorts. Each map has its own scale, from white (zero or less) "
               "to dark (its largest value).")  # fmt: skip
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>"
    text = f"<h1>{title}</h1><p>{html.escape(model)}. {counts} {reading}</p><dl>{about}</dl>"
    stream.write(f"{head}{text}<table><thead><tr>{heads}</tr></thead><tbody>\n".encode())
    for row in table.to_dict("records"):
        stream.write(_row(row, columns, method).encode())
    stream.write(f"</tbody></table><script>{_SCRIPT}</script></html>\n".encode())


def _row(row: dict, columns: list[str], method: str) -> str:
    """One row of the table; what somebody wrote is escaped."""
    key, prompt, thumbnail = (html.escape(str(row[name]), quote=True) for name in ("image", "prompt", "thumbnail"))
    alt = f"{key}, and maps for: {prompt}"
    shown = f'<img src="{thumbnail}" loading="lazy" alt="{alt}" title="{key}">' if row["method"] == method else ""
    place = f"{row['place']:06.0f}"
    worst = html.escape(str(row["worst"]))
    cells = "".join(_cell(row, name) for name in columns)
    return (f'<tr><td data-value="{key}">{shown}</td><td>{prompt}</td><td>{html.escape(row["method"])}</td>'
            f'<td data-value="{place}">{worst}</td>{cells}</tr>\n')  # fmt: skip


def _cell(row: dict, name: str) -> str:
    value = row[name]
    if pd.isna(value):
        return '<td class="n"></td>'
    bad = {"fit": value <= 0.5, "dependence": row["high"] < 0.1, "deviation": value > FAR}.get(name, False)
    text = f"{value:.3f}" + (f" [{row['low']:.2f}, {row['high']:.2f}]" if name == "dependence" else "")
    return f'<td class="n{" bad" if bad else ""}" data-value="{value!r}">{text}</td>'
