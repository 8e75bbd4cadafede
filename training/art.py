"""Make `data/art.zip` anew: the drawings of seven emoji sets, fetched with npm and checked.

    python -m training art --out art.zip

Iconify repackages the sets for npm, one SVG body an icon.
"""

import io
import json
import zipfile
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from tqdm.auto import tqdm

from gradeclip_utils.files import data_path, write_whole
from gradeclip_utils.scenes.art import RASTERS, draw_svg

from .npm import fetched

RASTER_PIXELS = 384  # on a side of the drawings that are stored as pixels


class Package(NamedTuple):
    """One emoji set: its npm package in a fixed version, and the checksum of its archive."""

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


def build(path: Path) -> None:
    """Write the drawings of all concepts, by every set that has them, to a zip archive."""
    concepts = pd.read_csv(data_path("concepts.csv"), index_col="noun", keep_default_na=False)
    sets = {}
    for artist, package in tqdm(PACKAGES.items(), unit="set"):
        name = f"{package.name}@{package.version}"
        files = fetched(name, package.sha256, ("icons.json", "chars.json"))
        sets[artist] = json.loads(files["icons.json"])
        sets[artist]["chars"] = json.loads(files["chars.json"])
    write_whole({path: partial(write_archive, concepts["emoji"].to_dict(), sets)})


def write_archive(emoji: dict[str, str], sets: dict[str, dict], path: Path) -> None:
    """Write one drawing of each noun by each artist who has it: SVG, or pixels for `RASTERS`."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for noun, character in emoji.items():
            names = icon_names(character, sets)
            for artist, icons in sets.items():
                drawings = [as_svg(icons, name) for name in names]
                svg = min((drawing for drawing in drawings if drawing), default="")
                if not svg:
                    continue
                # entries have the date 1980, so that the archive is the same whenever it is made
                if artist in RASTERS:
                    pixels = io.BytesIO()
                    draw_svg(svg, RASTER_PIXELS).save(pixels, "WEBP", quality=90)
                    entry = zipfile.ZipInfo(f"{artist}/{noun}.webp")
                    archive.writestr(entry, pixels.getvalue(), zipfile.ZIP_STORED)
                else:
                    entry = zipfile.ZipInfo(f"{artist}/{noun}.svg")
                    archive.writestr(entry, svg, zipfile.ZIP_DEFLATED, 9)


def icon_names(character: str, sets: dict[str, dict]) -> set[str]:
    """What the sets call an emoji, of one or several code points."""
    points = [f"{ord(c):x}" for c in character]
    codes = {"-".join(points), "-".join(point for point in points if point != "fe0f")}
    names: set[str] = set()
    for icons in sets.values():
        names.update(icons["chars"][code] for code in codes if code in icons["chars"])
    return names


def as_svg(icons: dict, name: str) -> str:
    """An icon as a document, or "" if the set lacks it.

    An alias stands for the face of an animal: `bear` is `bear-face` in some sets.
    """
    parent = icons.get("aliases", {}).get(name, {}).get("parent", "")
    if parent in (f"{name}-face", f"{name}-computer"):
        name = parent
    icon = icons["icons"].get(name)
    if icon is None:
        return ""
    defaults = {"left": 0, "top": 0, "width": 16, "height": 16}  # iconify's
    view = [str(icon.get(key, icons.get(key, value))) for key, value in defaults.items()]
    namespaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {namespaces} viewBox="{" ".join(view)}">{icon["body"]}</svg>'
