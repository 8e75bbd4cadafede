"""The emoji world: scenes of one to four emoji, of which it is known where everything is and which word speaks of it.

    art -> emoji -> grammar, heldout -> compose -> changes

Seven artists drew the emoji, of whom training never sees one; a small grammar describes them. `draw_scene` draws a
scene at random, `arrange` makes one of what you name.
"""

from .art import ARTISTS, TRAINED_ARTISTS, UNSEEN_ARTIST, artists_of
from .changes import hard_negative, recoloured, without
from .compose import SPLITS, Scene, arrange, as_python, draw_layout, draw_scene
from .emoji import CANVAS, COLOURS, IMAGE_SIZE, Object, concept, concepts, covered, render
from .grammar import NUMBERS, POSITIONS, PREFIXES, Span, describe, grouped, phrase, relation_between, vocabulary
from .heldout import is_withheld_colour, is_withheld_pair

__all__ = [
    "ARTISTS", "CANVAS", "COLOURS", "IMAGE_SIZE", "NUMBERS", "POSITIONS", "PREFIXES", "SPLITS", "TRAINED_ARTISTS",
    "UNSEEN_ARTIST", "Object", "Scene", "Span", "arrange", "artists_of", "as_python", "concept", "concepts", "covered",
    "describe", "draw_layout", "draw_scene", "grouped", "hard_negative", "is_withheld_colour", "is_withheld_pair",
    "phrase", "recoloured", "relation_between", "render", "vocabulary", "without",
]  # fmt: skip
