"""Make `data/art.zip` anew: the drawings of seven emoji sets, fetched with npm in fixed versions and checked.

    python -m training art --out art.zip

Iconify repackages the sets for npm, one SVG body an icon.
"""

from __future__ import annotations

import io
import json
import zipfile
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from gradeclip_utils.checks import writable
from gradeclip_utils.files import data_path, write_whole
from gradeclip_utils.scenes.art import RASTERS, draw_svg

from .npm import fetched

_KEPT_PIXELS = 384  # on a side of the drawings that are stored as pixels


class Package(NamedTuple):
    """One emoji set: its npm package in a fixed version, author, licence, and the checksum of its archive."""

    name: str
    version: str
    author: str
    licence: str
    sha256: str


PACKAGES = {
    "openmoji": Package(
        "@iconify-json/openmoji",
        "1.2.29",
        "OpenMoji",
        "CC BY-SA 4.0",
        "03181e2c156cab35cf4a62f1f7886bd971d59212e75ac3f189d5a4cae3930fc5",
    ),
    "twemoji": Package(
        "@iconify-json/twemoji",
        "1.2.5",
        "Twitter and contributors",
        "CC BY 4.0",
        "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
    ),
    "fluent": Package(
        "@iconify-json/fluent-emoji",
        "1.2.7",
        "Microsoft Corporation",
        "MIT",
        "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b",
    ),
    "fluent-flat": Package(
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "Microsoft Corporation",
        "MIT",
        "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
    ),
    "emojione": Package(
        "@iconify-json/emojione",
        "1.2.3",
        "Emoji One",
        "CC BY 4.0",
        "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e",
    ),
    "emojione-1": Package(
        "@iconify-json/emojione-v1",
        "1.2.3",
        "Emoji One",
        "CC BY-SA 4.0",
        "6641d59d48a42823fdc2b84e7427e9f302944eb98d2c7d94d6e67c139e7b37b3",
    ),
    "noto": Package(
        "@iconify-json/noto",
        "1.2.9",
        "Google Inc.",
        "Apache 2.0",
        "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
    ),
}


def _as_svg(icons: dict, name: str) -> str | None:
    """An icon, or the face that its alias stands for (`bear` is `bear-face` in some sets), as a document; else None."""
    parent = icons.get("aliases", {}).get(name, {}).get("parent", "")
    icon = icons["icons"].get(parent if parent in (f"{name}-face", f"{name}-computer") else name)
    if icon is None:
        return None
    box = {"left": 0, "top": 0, "width": 16, "height": 16}  # iconify's defaults
    view = " ".join(str(icon.get(key, icons.get(key, default))) for key, default in box.items())
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {names} viewBox="{view}">{icon["body"]}</svg>'


def build(path: Path) -> None:
    """Write the drawings of all concepts, by every set that has them, to a zip archive."""
    path = writable(path, "--out", suffixes=(".zip",), size=10_000_000)
    emoji = pd.read_csv(data_path("concepts.csv"), index_col="noun", keep_default_na=False)[
        "emoji"
    ].to_dict()
    sets = {}
    for artist, package in PACKAGES.items():
        files = fetched(
            f"{package.name}@{package.version}", package.sha256, ("icons.json", "chars.json")
        )
        sets[artist] = json.loads(files["icons.json"]) | {"chars": json.loads(files["chars.json"])}
    write_whole({path: partial(_write, emoji, sets)})


def _write(emoji: dict[str, str], sets: dict[str, dict], path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for noun, character in emoji.items():
            points = [f"{ord(c):x}" for c in character]
            codes = {"-".join(points), "-".join(p for p in points if p != "fe0f")}
            names = {
                icons["chars"][code]
                for icons in sets.values()
                for code in codes
                if code in icons["chars"]
            }
            for artist, icons in sets.items():
                found = sorted({text for name in names if (text := _as_svg(icons, name))})
                if found and artist in RASTERS:
                    pixels = io.BytesIO()
                    draw_svg(found[0], _KEPT_PIXELS).save(pixels, "WEBP", quality=90)
                    archive.writestr(
                        zipfile.ZipInfo(f"{artist}/{noun}.webp"),
                        pixels.getvalue(),
                        zipfile.ZIP_STORED,
                    )
                elif found:
                    archive.writestr(
                        zipfile.ZipInfo(f"{artist}/{noun}.svg"), found[0], zipfile.ZIP_DEFLATED, 9
                    )
