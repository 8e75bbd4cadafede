"""Make `data/art.zip` anew: the drawings of seven emoji sets, fetched with npm in fixed versions and checked.

    python -m training art --out art.zip

Iconify repackages the sets for npm, one SVG body an icon.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
import zipfile
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from gradeclip_utils.checks import writable
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.files import data_path, write_whole
from gradeclip_utils.scenes.art import RASTERS, draw_svg

_KEPT_PIXELS = 384  # on a side of the drawings that are stored as pixels


class Package(NamedTuple):
    """One emoji set: its npm package in a fixed version, author, licence, and the checksum of its icons."""

    name: str
    version: str
    author: str
    licence: str
    sha256: str


PACKAGES = {
    "openmoji": Package("@iconify-json/openmoji", "1.2.29", "OpenMoji", "CC BY-SA 4.0",
                "7075331faab544067dbff4236471dd378bb5410aa05799a8a343c9ebf5c5984c"),
    "twemoji": Package("@iconify-json/twemoji", "1.2.5", "Twitter and contributors", "CC BY 4.0",
                "5d5d820790565b764f2728675d487c9ee4c1fc83916d8567d5aca8ba7527c242"),
    "fluent": Package("@iconify-json/fluent-emoji", "1.2.7", "Microsoft Corporation", "MIT",
                "87f3336be6f46747d40d046a15ffa8b23809ff7a1a280b5d3521d3782fb85de7"),
    "fluent-flat": Package("@iconify-json/fluent-emoji-flat", "1.2.6", "Microsoft Corporation", "MIT",
                "f5f4cf457c0db2ad5a2e42e033e02e0c87d10e43d0164cfffb3bb84914970a63"),
    "emojione": Package("@iconify-json/emojione", "1.2.3", "Emoji One", "CC BY 4.0",
                "e9a865faed523a7c3535b5319ae533d09fac1a62b4e96920eb178bb60e707e80"),
    "emojione-1": Package("@iconify-json/emojione-v1", "1.2.3", "Emoji One", "CC BY-SA 4.0",
                "7209a500c5607daff4969e5d5ae25da710ab1877c29efec6199d3611a8d5c942"),
    "noto": Package("@iconify-json/noto", "1.2.9", "Google Inc.", "Apache 2.0",
                "9eac6ef4e7ec122b6f0e7ac281d61008afdbc720d0ce861e398b939daaa347c6"),
}  # fmt: skip


def _icons(package: Package, folder: Path) -> dict:
    """The package's icons (iconify's JSON), fetched by npm and checked. Raises ValueError if they are others."""
    command = ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
    made = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)  # nosec B603 # all named here
    name = made.stdout.strip()
    with tarfile.open(folder / name) as tar:
        content = {file.name: read.read() for file in tar.getmembers() if (read := tar.extractfile(file)) is not None}
    icons, chars = content["package/icons.json"], content.get("package/chars.json", b"{}")
    digest = hashlib.sha256(icons).hexdigest()
    if digest != package.sha256:
        msg = f"{package.name} {package.version} holds other icons than before: sha256 {digest}, not {package.sha256}"
        raise GradeclipError(msg)
    return json.loads(icons) | {"chars": json.loads(chars)}


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
    emoji = pd.read_csv(data_path("concepts.csv"), index_col="noun", keep_default_na=False)["emoji"].to_dict()
    with tempfile.TemporaryDirectory() as folder:
        sets = {artist: _icons(package, Path(folder)) for artist, package in PACKAGES.items()}
    write_whole({path: partial(_write, emoji, sets)})


def _write(emoji: dict[str, str], sets: dict[str, dict], path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for noun, character in emoji.items():
            points = [f"{ord(c):x}" for c in character]
            codes = {"-".join(points), "-".join(p for p in points if p != "fe0f")}
            names = {icons["chars"][code] for icons in sets.values() for code in codes if code in icons["chars"]}
            for artist, icons in sets.items():
                found = sorted({text for name in names if (text := _as_svg(icons, name))})
                if found and artist in RASTERS:
                    pixels = io.BytesIO()
                    draw_svg(found[0], _KEPT_PIXELS).save(pixels, "WEBP", quality=90)
                    archive.writestr(zipfile.ZipInfo(f"{artist}/{noun}.webp"), pixels.getvalue(), zipfile.ZIP_STORED)
                elif found:
                    archive.writestr(zipfile.ZipInfo(f"{artist}/{noun}.svg"), found[0], zipfile.ZIP_DEFLATED, 9)
