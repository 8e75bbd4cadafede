"""Art: what seven emoji sets drew of each concept, in `data/art.zip`, and its rasters.

    python -m gradeclip_utils art     # makes data/art.zip anew, from the named packages, with `npm`

Iconify repackages the sets for npm, one SVG body an icon. Six sets are for training; Noto is never trained on and
stands for an artist that the model has not seen. `data/README.md` credits author and licence of each. The archive
holds vector art, but for Fluent's: its shades take a tenth of a second to draw, so it is kept as rasters.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import subprocess
import tarfile
import tempfile
import zipfile
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import resvg_py
from PIL import Image

from gradeclip_utils.checks import hint, nearest, short, writable
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.files import data_path, write_path_whole

ART = "art.zip"
RASTERS = ("fluent",)  # the artists whose drawings are kept as pixels,
_KEPT_PIXELS = 384  # this many on a side of the whole square


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
ARTISTS = tuple(PACKAGES)
UNSEEN_ARTIST = "noto"  # never trained on
TRAINED_ARTISTS = tuple(artist for artist in ARTISTS if artist != UNSEEN_ARTIST)

_LEVELS = (48, 68, 96, 136, 192, 272)  # pixels of the longest side of the rasters that are kept
_KEPT = 136  # levels up to this one are kept for every drawing: what training draws,
_MASTER = 192  # and reduced from one raster of the whole square, this many pixels on a side


@cache
def _archive() -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(data_path(ART).read_bytes()))


@cache
def _drawn() -> dict[str, tuple[str, ...]]:
    names: dict[str, list[str]] = {}
    for path in _archive().namelist():
        artist, noun = path.split("/")
        names.setdefault(noun.rpartition(".")[0], []).append(artist)
    return {noun: tuple(a for a in ARTISTS if a in artists) for noun, artists in names.items()}


def artists_of(noun: str) -> tuple[str, ...]:
    """The artists who drew this concept, in the order of `ARTISTS`."""
    if not isinstance(noun, str) or noun not in _drawn():
        near = hint(str(noun), _drawn()) if nearest(str(noun), _drawn()) else "scenes.concepts() has all of them"
        raise GradeclipError(f"{short(noun)} is no noun of the scenes: {near}")
    return _drawn()[noun]


def _square(noun: str, artist: str, pixels: int) -> Image.Image:
    """The whole square that a drawing stands in, `pixels` on a side, RGBA; KeyError if this artist did not draw it."""
    if artist in RASTERS:
        kept = Image.open(io.BytesIO(_archive().read(f"{artist}/{noun}.webp"))).convert("RGBA")
        return kept.resize((pixels, pixels), Image.Resampling.LANCZOS)
    return _drawn_square(_archive().read(f"{artist}/{noun}.svg").decode(), pixels)


def _drawn_square(svg: str, pixels: int) -> Image.Image:
    png = resvg_py.svg_to_bytes(svg_string=svg, width=pixels, height=pixels)
    return Image.open(io.BytesIO(png)).convert("RGBA")


@cache
def _small(noun: str, artist: str) -> tuple[Image.Image, tuple[float, ...]]:
    """One raster cut out along the drawing's bounding box, and that box as fractions (left, top, right, bottom)."""
    square = _square(noun, artist, _MASTER)
    box = square.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox()
    assert box is not None, f"{artist}'s {noun} is empty"
    return square.crop(box), tuple(side / _MASTER for side in box)


def _raster(noun: str, artist: str, pixels: int) -> Image.Image:
    """The drawing cut out along its own bounding box, `pixels` on its longest side, RGBA."""
    small, (left, top, right, bottom) = _small(noun, artist)
    ratio = pixels / max(small.size)
    if ratio <= 1:
        return small.resize([max(1, round(n * ratio)) for n in small.size], Image.Resampling.LANCZOS)
    square = _square(noun, artist, math.ceil(_MASTER * ratio))
    width = square.width
    return square.crop((round(left * width), round(top * width), round(right * width), round(bottom * width)))


class Layers(NamedTuple):
    """A drawing at one level, both images with alpha already multiplied in, so that they can be resampled."""

    own: Image.Image
    shade: Image.Image


def _layers(noun: str, artist: str, level: int) -> Layers:
    rgba = _raster(noun, artist, level)
    values = np.asarray(rgba, np.float32)
    alpha = values[..., 3] / 255
    luminance = values[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32)
    low, high = np.percentile(luminance[alpha > 0.5], [5, 95])
    # The drawing's own range of light and dark fills the tint's; a drawing in one flat shade stays in the middle of it.
    lightness = np.clip(0.5 + (luminance - (low + high) / 2) / max(high - low, 110), 0, 1) * 2
    own: list[np.ndarray] = [*(values[..., i] * alpha for i in range(3)), values[..., 3]]
    shade = [np.minimum(lightness, 1) * alpha * 255, np.maximum(lightness - 1, 0) * alpha * 255, alpha * 255]
    # one plane after the other is three times as fast as all of them at once
    as_bytes = [np.stack([np.rint(plane).astype(np.uint8) for plane in planes], -1) for planes in (own, shade)]
    return Layers(Image.frombuffer("CMYK", rgba.size, as_bytes[0].tobytes(), "raw", "CMYK", 0, 1),
                  Image.fromarray(as_bytes[1]))  # fmt: skip


_small_level, _large_level = cache(_layers), lru_cache(maxsize=256)(_layers)


def drawing(noun: str, artist: str, pixels: float) -> Layers:
    """The drawing on the smallest raster that is at least `pixels` long, or else on the largest."""
    level = next((n for n in _LEVELS if n >= pixels), _LEVELS[-1])
    return (_small_level if level <= _KEPT else _large_level)(noun, artist, level)


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


def build(emoji: dict[str, str], path: Path) -> None:
    """Write the drawings of emoji, by every set that has them, to a zip archive."""
    with tempfile.TemporaryDirectory() as folder:
        sets = {artist: _icons(package, Path(folder)) for artist, package in PACKAGES.items()}
    write_path_whole(path, partial(_write, emoji, sets))


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
                    _drawn_square(found[0], _KEPT_PIXELS).save(pixels, "WEBP", quality=90)
                    archive.writestr(zipfile.ZipInfo(f"{artist}/{noun}.webp"), pixels.getvalue(), zipfile.ZIP_STORED)
                elif found:
                    archive.writestr(zipfile.ZipInfo(f"{artist}/{noun}.svg"), found[0], zipfile.ZIP_DEFLATED, 9)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command `art`."""
    parser.add_argument("--out", type=Path, default=data_path(ART), metavar="FILE", help="%(default)s by default")


def run_command(options: argparse.Namespace) -> None:
    """The command `art`: make the archive of drawings anew."""
    out = writable(options.out, "--out", suffixes=(".zip",), size=10_000_000)
    table = pd.read_csv(data_path("concepts.csv"), index_col="noun", keep_default_na=False)
    build(table["emoji"].to_dict(), out)
