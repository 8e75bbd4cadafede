"""The emoji world: scenes whose truth is known, drawn by seven artists, described by a small grammar.

    art -> emoji -> grammar, heldout -> compose
"""

from .art import ARTISTS, TRAINED_ARTISTS, UNSEEN_ARTIST, artists_of
from .compose import (
    SPLITS,
    Scene,
    arrange,
    draw_layout,
    draw_scene,
    hard_negative,
    recoloured,
    without,
)
from .emoji import CANVAS, COLOURS, PICTURE, Object, concept, concepts, covered, render
from .grammar import NUMBERS, POSITIONS, PREFIXES, Span, describe, grouped, relation_between, vocabulary
from .heldout import is_trained, is_withheld_colour, is_withheld_pair

__all__ = [
    "ARTISTS", "CANVAS", "COLOURS", "NUMBERS", "PICTURE", "POSITIONS", "PREFIXES", "SPLITS", "TRAINED_ARTISTS",
    "UNSEEN_ARTIST", "Object", "Scene", "Span", "arrange", "artists_of", "concept", "concepts", "covered", "describe",
    "draw_layout", "draw_scene", "grouped", "hard_negative", "is_trained", "is_withheld_colour", "is_withheld_pair",
    "recoloured", "relation_between", "render", "vocabulary", "without",
]  # fmt: skip
