"""Held out: the combinations and drawings that training never shows, by rule.

So a model can be asked about compositions and drawings that it never saw.
"""

from __future__ import annotations

import zlib

from .emoji import ARTISTS


def _draw(*parts: str) -> int:
    """A number in 0..9 that depends on the names alone, the same on every machine."""
    return zlib.crc32("|".join(parts).encode()) % 10


def is_withheld_colour(noun: str, colour: str | None) -> bool:
    """True for the tenth of colour x noun combinations that training never shows."""
    return colour is not None and _draw("colour", noun, colour) == 0


def is_withheld_pair(noun: str, other: str) -> bool:
    """True for the tenth of noun x noun combinations that training never shows in one picture (order is no matter)."""
    return noun != other and _draw("pair", *sorted((noun, other))) == 0


def withheld_artist(noun: str) -> str | None:
    """The artist whose drawing of this noun training never shows: one of the two for a fifth of the nouns."""
    fate = _draw("artist", noun)
    return ARTISTS[fate] if fate < 2 else None


def is_trained(scene) -> bool:
    """True if nothing in a `Scene` is withheld: no colour, no pair, no drawing."""
    things = scene.objects
    return not (
        any(is_withheld_colour(t.noun, t.colour) or withheld_artist(t.noun) == t.artist for t in things)
        or any(is_withheld_pair(a.noun, b.noun) for i, a in enumerate(things) for b in things[:i])
    )
