"""Few words: random scenes of few nouns, because the first raster of a drawing costs more than everything else."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytest

from gradeclip_utils.scenes import compose, concepts

WORDS = "apple dog car fruit bird food drink pet music game celebration vegetable dessert insect flower weather".split()


@contextmanager
def few_nouns(words: Iterable[str], each: int = 2) -> Iterator[list[str]]:
    """Inside, random scenes show only nouns among the words, and `each` nouns of which captions say the others."""
    keywords, some = concepts()["keywords"], dict.fromkeys(word for word in words if word in concepts().index)
    for word in words:
        some.update(dict.fromkeys([noun for noun, said in keywords.items() if word in said][:each]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compose, "_nouns", lambda: list(some))
        yield list(some)
