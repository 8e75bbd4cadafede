"""Held out: what training never shows, a tenth of the colour x noun and noun x noun combinations, and one artist.

Which ones is decided by a checksum of their names, so that it is the same on every machine. A model can then be asked
about compositions and drawings that it has not seen.
"""

from __future__ import annotations

import zlib


def _draw(*parts: str) -> int:
    """A number in 0..9 that depends on the names alone."""
    return zlib.crc32("|".join(parts).encode()) % 10


def is_withheld_colour(noun: str, colour: str | None) -> bool:
    """Whether this is of the tenth of colour x noun combinations that training never shows."""
    return colour is not None and _draw("colour", noun, colour) == 0


def is_withheld_pair(noun: str, other: str) -> bool:
    """Whether this is of the tenth of noun x noun combinations that training never shows in one scene."""
    return noun != other and _draw("pair", *sorted((noun, other))) == 0
