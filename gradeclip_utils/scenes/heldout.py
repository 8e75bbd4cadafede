"""Held out: a tenth of the colour x noun and of the noun x noun combinations, which training never shows.

A checksum of the names decides which ones, so that they are the same on every machine.
"""

from __future__ import annotations

import zlib


def _draw(*parts: str) -> int:
    """A number from 0 to 9 that depends on the names alone."""
    return zlib.crc32("|".join(parts).encode()) % 10


def is_withheld_colour(noun: str, colour: str | None) -> bool:
    """Whether training never shows this noun in this colour."""
    return colour is not None and _draw("colour", noun, colour) == 0


def is_withheld_pair(noun: str, other: str) -> bool:
    """Whether training never shows these two nouns in one scene."""
    return noun != other and _draw("pair", *sorted((noun, other))) == 0
