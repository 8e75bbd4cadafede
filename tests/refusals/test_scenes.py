"""Scenes: objects that cannot be drawn, captions that do not fit, and places where nothing is."""

import numpy as np
import pytest

from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.scenes import Object, Scene, arrange, draw_scene, recoloured, without
from tests.refusals.cases import named, refused

OBJECTS = [
    ("an unknown noun", ["dgo"], {}, "'dgo' is not a noun of the scenes: did you mean .*dog"),
    (
        "an unknown artist",
        ["dog", "picasso"],
        {},
        "artist of a dog must be one of openmoji, .*got 'picasso'",
    ),
    (
        "an unknown colour",
        ["dog"],
        {"colour": "mauve"},
        "colour of an object must be one of red, .*got 'mauve'",
    ),
    ("size 0", ["dog"], {"size": 0}, "size of an object must be from 1 to 192, got 0"),
    ("text for a place", ["dog"], {"y": "left"}, "y of an object must be a number, got 'left'"),
    ("off the canvas", ["dog"], {"x": -30}, "x of an object must be from 0 to 96, got -30"),
    ("a mirror of text", ["dog"], {"mirrored": "x"}, "mirrored must be .*False.*True.*, got 'x'"),
    (
        "an array for a place",
        ["dog"],
        {"x": np.array(5)},
        "x of an object must be a number, got array",
    ),
    (
        "a darkness below zero",
        ["dog"],
        {"lightness": -1},
        "lightness of an object must be from 0 to 10",
    ),
]


@pytest.mark.parametrize(("given", "options", "message"), named(OBJECTS))
def test_an_object_that_cannot_be_drawn_is_refused_when_it_is_made(given, options, message):
    with pytest.raises(GradeclipError, match=message):
        Object(*given, **options)


TWO = ["red car", "dog"]
SCENES = [
    (
        "an unknown word",
        lambda: arrange(["mauve car"]),
        "'mauve car' is not in the world of the scenes",
    ),
    ("nothing", lambda: arrange([]), "an object or more"),
    ("five words", lambda: arrange(["dog"] * 5), "4 words at most: 5 were given"),
    ("a number", lambda: arrange([5]), "each of objects must be words or an Object, got 5"),
    (
        "background below zero",
        lambda: arrange(TWO, background=-1),
        "background of a scene must be at least 0",
    ),
    ("seed below zero", lambda: arrange(TWO, seed=-1), "seed must be at least 0"),
    (
        "an unknown relation",
        lambda: arrange(TWO, relation="beside"),
        "relation must be one of to the left of",
    ),
    (
        "a relation of three",
        lambda: arrange([*TWO, "cat"], relation="above"),
        "needs two groups of things, got 3",
    ),
    (
        "a size for all",
        lambda: arrange(TWO, size="big"),
        "size must be a list of 2, one per group, got 'big'",
    ),
    (
        "a phrase that is no list",
        lambda: arrange(["dog"], colour=True),
        "colour must be a list of 1, one per .*True",
    ),
    (
        "an unknown phrase",
        lambda: arrange(TWO, weight=["", ""]),
        "a phrase must be one of size, tag, named, colour",
    ),
    (
        "a flag that is a colour",
        lambda: arrange(TWO, colour=["blue", True]),
        "each of colour must be False or True, g",
    ),
    (
        "a huge thing",
        lambda: arrange(TWO, size=["huge", ""]),
        "each of size must be 'small' or 'big', got 'huge'",
    ),
    (
        "an unknown opening",
        lambda: arrange(TWO, prefix="zzz"),
        "prefix must be one of a photo of, .* got 'zzz'",
    ),
    (
        "a relation of Objects",
        lambda: arrange([Object("dog"), Object("cat")], relation="x"),
        "relation must be one of",
    ),
    (
        "a place that nobody has",
        lambda: arrange(TWO, unnamed=[2]),
        "each of unnamed must be at most 1, got 2",
    ),
    (
        "nobody named",
        lambda: arrange(["dog"], unnamed=[0]),
        "names an object or more, and all of them are in unnamed",
    ),
    (
        "two scissors",
        lambda: arrange(["scissors"] * 2),
        "no caption says 2 of 'scissors': up to four",
    ),
    ("five dogs", lambda: arrange([Object("dog")] * 5), "no caption says 5 of 'dog'"),
    (
        "groups of five",
        lambda: draw_scene(0, groups=[("dog", None, 3), ("cat", None, 2)]),
        "must be at most 4, got 5",
    ),
    (
        "no groups",
        lambda: draw_scene(0, groups=[]),
        "number of objects in groups must be at least 1, got 0",
    ),
    (
        "a group of a word",
        lambda: draw_scene(0, groups=["dog"]),
        r"a group of objects is \(noun, colour, number\)",
    ),
    (
        "a scene of words",
        lambda: Scene(("dog",), "a dog", ()),
        "objects of a scene must be made of Object, got 'dog'",
    ),
    (
        "words of no kind",
        lambda: arrange(TWO).words_of("nouns"),
        "kind must be one of noun, .*got 'nouns'",
    ),
    (
        "pixels 96.0",
        lambda: arrange(TWO).image(96.0),
        "size of a scene must be a whole number, got 96.0",
    ),
    (
        "150 pixels",
        lambda: arrange(TWO).masks(150),
        "cannot be drawn at 150 pixels: choose a multiple of 96",
    ),
    (
        "pixels without end",
        lambda: arrange(TWO).image(96_000),
        "size of a scene must be at most 7680",
    ),
    ("no objects", lambda: draw_scene(1, n_objects=0), "n_objects must be at least 1, got 0"),
    ("five objects", lambda: draw_scene(1, n_objects=5), "n_objects must be at most 4, got 5"),
    (
        "an unknown split",
        lambda: draw_scene(1, split="val"),
        "split must be one of train, development, test",
    ),
    ("seven tints", lambda: draw_scene(1, tint=7), "tint must be from 0 to 1, got 7"),
    ("a seed in words", lambda: draw_scene("x"), "seed must be a whole number, got 'x'"),
    (
        "colours of nothing",
        lambda: recoloured("dog", ["red"]),
        "scene must be made by arrange or draw_scene, got",
    ),
    ("plain by text", lambda: draw_scene(0, plain="x"), "plain must be .*False.*True.*, got 'x'"),
    (
        "without what is not there",
        lambda: without(arrange(TWO), 9),
        "index must be at most 1, got 9",
    ),
    ("colours of one", lambda: recoloured(arrange(TWO), ["red"]), "has 2 objects, got 1 colours"),
    (
        "a colour that is none",
        lambda: recoloured(arrange(TWO), ["mauve", None]),
        "colour of an object must be",
    ),
]

test_a_scene_that_makes_no_sense_is_refused = refused(SCENES)
