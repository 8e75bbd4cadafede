"""Emoji scenes: the world whose truth is known, picture, caption and the exact mask of every object.

    scenes -> picture + caption -> architecture -> trace -> method -> explanation -> picture

A scene places one to four emoji, drawn by one of two artists (OpenMoji, CC BY-SA 4.0; Twemoji, CC BY 4.0), on a varied
background, and describes them in a caption written by a small grammar.

| file | holds |
| --- | --- |
| `art` | the concepts, and the vector drawings of each |
| `emoji` | drawings as pixels: `Object`, colours, `render`, `covered` |
| `grammar` | captions: words, phrases, relations |
| `compose` | `Scene`: drawn at random (`draw_scene`), arranged by hand (`arrange`), changed |
| `heldout` | what training never shows |
"""

from .art import concept, concepts
from .compose import SPLITS, Scene, arrange, companion, draw_scene, recoloured, without
from .emoji import ARTISTS, CANVAS, COLOURS, PICTURE, Object, covered, render
from .grammar import NUMBERS, POSITIONS, PREFIXES, Span, describe, relation_between, vocabulary
from .heldout import is_trained, is_withheld_colour, is_withheld_pair, withheld_artist

__all__ = [
    "ARTISTS", "CANVAS", "COLOURS", "NUMBERS", "PICTURE", "POSITIONS", "PREFIXES", "SPLITS", "Object", "Scene", "Span",
    "arrange", "companion", "concept", "concepts", "covered", "describe", "draw_scene", "is_trained",
    "is_withheld_colour", "is_withheld_pair", "recoloured", "relation_between", "render", "vocabulary",
    "withheld_artist", "without",
]  # fmt: skip
