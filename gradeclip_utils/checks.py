"""Checks: what a refusal says about a name that is none of those there are."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], *, most: int = 3, cutoff: float = 0.5) -> list[str]:
    """The known names that a misspelt one may have meant, best first, whatever their case.

    Args:
        name: what was given.
        known: what there is.
        most: no more than this many.
        cutoff: how like it they are, from 0 to 1 (`difflib.SequenceMatcher.ratio`).
    """
    lowered = {candidate.lower(): candidate for candidate in known}
    return [lowered[key] for key in difflib.get_close_matches(name.lower(), lowered, n=most, cutoff=cutoff)]


def hint(name: str, known: Iterable[str]) -> str:
    """The end of a refusal: `did you mean a or b?`, or `choose from` all there are where none is near."""
    known = list(known)
    near = nearest(name, known)
    return f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(known)}"
