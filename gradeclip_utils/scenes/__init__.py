"""The emoji world: scenes of one to four emoji with captions, masks, and the words of each thing.

    art -> emoji -> grammar -> scene

Seven artists drew the emoji; training never sees one of them. A small grammar describes the scenes.
`draw_scene` draws one at random, `arrange` makes one from your words.
"""

from .art import ARTISTS, TRAINED_ARTISTS, UNSEEN_ARTIST, artists_of
from .emoji import CANVAS, COLOURS, IMAGE_SIZE, Object, concept, concepts
from .grammar import PREFIXES, Span, describe, phrase, vocabulary
from .scene import (
    SPLITS,
    Scene,
    arrange,
    as_python,
    draw_scene,
    recoloured,
    showable,
    without,
)

__all__ = [
    "ARTISTS",
    "CANVAS",
    "COLOURS",
    "IMAGE_SIZE",
    "PREFIXES",
    "SPLITS",
    "TRAINED_ARTISTS",
    "UNSEEN_ARTIST",
    "Object",
    "Scene",
    "Span",
    "arrange",
    "artists_of",
    "as_python",
    "concept",
    "concepts",
    "describe",
    "draw_scene",
    "phrase",
    "recoloured",
    "showable",
    "vocabulary",
    "without",
]
