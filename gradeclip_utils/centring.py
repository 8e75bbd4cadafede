"""Centring: word x region maps without the part that all named things share.

    methods -> Interactions --here--> the region of a noun rather than of its neighbours

Every word of a caption pushes its embedding in a direction, and these directions have a part in common, which answers
to whatever is in the picture. Take the mean of the caption's nouns away from each of them, and what is left tells them
apart: the map of a noun *rather than of the nouns of this caption*, a contrast in the sense of `Explainer.explain`'s
``against``. Directions and maps are linear, so it is the same whether it is done before or after the map.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Group = tuple[int, ...]


def named_things(caption: str, spans: Sequence[tuple[int, int]]) -> tuple[Group, ...]:
    """The words that name things: for each noun phrase of a caption its nouns, as indices into the words.

    >>> named_things("a red car and a traffic light", [(0, 1), (2, 5), (6, 9), (10, 13), (14, 15), (16, 23), (24, 29)])
    ((2,), (5, 6))

    `spans`: where each word stands. "photo" in "a photo of a cat" counts as a thing: the caption names it.
    """
    from .language import phrases  # its taggers are slow to import, and most explanations do without

    groups = []
    for phrase in phrases(caption):
        nouns = [word for word in phrase.words if word.part == "noun"] or [phrase.words[-1]]
        found = (i for i, (start, end) in enumerate(spans) if any(start < n.end and end > n.start for n in nouns))
        if group := tuple(found):
            groups.append(group)
    return tuple(groups)


def centred(maps: np.ndarray, groups: Sequence[Group]) -> np.ndarray:
    """Maps (W, ...) of words, in which the mean over the groups is taken away from each group; other words stay.

    A group's map is the sum of its words'. What is taken from it is spread evenly over its words, so that a word that
    stands alone and a noun of several words are treated alike, and the sum over all groups is zero.

    Raises:
        ValueError: fewer than two groups, an empty one, a word that is not there, or one in two groups.
    """
    members = [i for group in groups for i in group]
    if len(groups) < 2 or not all(groups):
        raise ValueError(f"centring needs two groups of words or more, none of them empty, got {list(groups)!r}")
    if len(set(members)) < len(members) or not all(0 <= i < len(maps) for i in members):
        raise ValueError(f"groups must hold words 0 to {len(maps) - 1}, each at most once, got {list(groups)!r}")
    shared = np.mean([maps[list(group)].sum(0) for group in groups], axis=0)
    found = np.array(maps)
    for group in groups:
        found[list(group)] -= shared / len(group)
    return found
