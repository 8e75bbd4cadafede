"""Tests of the scenes, and what other tests need of them."""

from itertools import combinations

from gradeclip_utils.scenes import UNSEEN_ARTIST
from gradeclip_utils.scenes.scene import is_withheld_colour, is_withheld_pair


def is_trained(objects) -> bool:
    """Whether nothing in these objects is withheld from training: no colour, pair or drawing."""
    for thing in objects:
        if thing.artist == UNSEEN_ARTIST or is_withheld_colour(thing.noun, thing.colour):
            return False
    pairs = combinations([thing.noun for thing in objects], 2)
    return not any(is_withheld_pair(first, second) for first, second in pairs)
