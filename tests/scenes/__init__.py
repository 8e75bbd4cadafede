"""Tests of the scenes, and what others ask of theirs."""

from itertools import combinations

from gradeclip_utils.scenes import UNSEEN_ARTIST
from gradeclip_utils.scenes.scene import is_withheld_colour, is_withheld_pair


def is_trained(objects) -> bool:
    """Whether nothing in these objects is withheld from training: no colour, no pair, no drawing."""
    return not (
        any(
            is_withheld_colour(one.noun, one.colour) or one.artist == UNSEEN_ARTIST
            for one in objects
        )
        or any(is_withheld_pair(one.noun, other.noun) for one, other in combinations(objects, 2))
    )
