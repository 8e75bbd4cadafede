"""Finding: what the numbers of an explanation come to, in one sentence. It stands above their figure.

    Explanation, Interactions -> here -> figures

Where the ground truth is known, `panels.verdict` can say more: here nothing is known but what was computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np


def nearest(explanation, most: int):
    """The explanation of its most similar prompts alone, in their order, and what its numbers come to (`finding`)."""
    count = len(explanation.prompts)
    if count <= most:
        return explanation, finding(explanation)
    kept = np.sort(np.argsort(-_margin(explanation), kind="stable")[:most])
    names = ("prompts", "similarity", "image_maps", "words", "against", "against_similarity", "against_words")
    parts = {name: _of(getattr(explanation, name), kept) for name in names}
    scores = explanation.provenance.get("single_head_similarity")
    if scores is not None:
        scores = {name: _of(values, kept) for name, values in scores.items()}
        parts["provenance"] = {**explanation.provenance, "single_head_similarity": scores}
    rank = "most similar" if explanation.against is None else "most ahead"
    explanation = replace(explanation, **parts)
    return explanation, f"of {count} prompts the {most} {rank}; {finding(explanation)}"


def _of(part, kept: np.ndarray):
    return part[kept] if isinstance(part, np.ndarray) else part and tuple(part[i] for i in kept)


def _margin(explanation) -> np.ndarray:
    similarity = np.asarray(explanation.similarity)
    return similarity if explanation.against is None else similarity - explanation.against_similarity


def finding(explanation) -> str:
    """Which prompt is nearest, on how few patches half of its map lies, and which of its words counts most."""
    similarity, against, margin = np.asarray(explanation.similarity), explanation.against, _margin(explanation)
    best = int(margin.argmax())
    name, map_, words = (getattr(explanation, part)[best] for part in ("prompts", "image_maps", "words"))
    parts = []
    if against is not None:
        leads = f"leads “{against[best]}” by" if margin[best] > 0 else f"is behind “{against[best]}” by"
        parts.append(f"“{name}” {leads} {abs(margin[best]):.3f}")
    elif len(similarity) > 1:
        parts.append(f"most similar is “{name}”, " + f"{similarity[best]:.3f}".replace("-", "\N{MINUS SIGN}"))
    if map_.any():
        parts.append(_half(map_))
    if words:
        most = max(words, key=lambda word: word.score)
        parts.append(f"“{most.text}” speaks most for it" if most.score > 0 else "no word speaks for it")
    return "; ".join(parts)


def sharpest(texts: Sequence[str], maps: Sequence[np.ndarray] | np.ndarray) -> str:
    """Which of several words, or methods, answers to the fewest patches."""
    positive = [i for i, map_ in enumerate(maps) if (map_ > 0).any()]
    if not positive:
        return "nothing answers to any patch"
    fewest = min(positive, key=lambda i: patches_of_half(maps[i]))
    return f"“{texts[fewest]}” answers to the fewest patches: {_half(maps[fewest])}"


def _half(map_: np.ndarray) -> str:
    """On how few patches half of a map's positive relevance lies."""
    if not (map_ > 0).any():
        return "no patch speaks for it"
    count = patches_of_half(map_)
    return f"half of what speaks for it lies on {count} of {map_.size} patch{'es' * (map_.size > 1)}"


def patches_of_half(map_: np.ndarray) -> int:
    """How many patches of a map, the most relevant first, have half of its positive relevance."""
    falling = np.sort(np.maximum(map_, 0).astype(float), axis=None)[::-1].cumsum()
    return int(np.searchsorted(falling, falling[-1] / 2)) + 1
