"""Scenes: words that the world does not have, and captions that no scene has."""

import pytest

from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.scenes import Object, arrange, draw_scene, recoloured

TWO = ["red car", "dog"]
REFUSALS = [
    (lambda: Object("dgo"), "'dgo' is not a noun of the scenes: did you mean .*dog"),
    (lambda: Object("dog", "picasso"), "artist of a dog must be one of openmoji, .*got 'picasso'"),
    (lambda: Object("dog", colour="mauve"), "colour of an object must be one of red, .*'mauve'"),
    (lambda: arrange(["mauve car"]), "'mauve car' is not in the world of the scenes"),
    (lambda: arrange(["dog"] * 5), "4 words at most: 5 were given"),
    (lambda: arrange(TWO, relation="beside"), "relation must be one of to the left of"),
    (lambda: arrange([*TWO, "cat"], relation="above"), "needs two groups of things, got 3"),
    (lambda: arrange(["dog"], unnamed=[0]), "all of them are in unnamed"),
    (lambda: arrange(["scissors"] * 2), "no caption says 2 of 'scissors': up to four"),
    (lambda: arrange(["cat", Object("sun", size=190)]), "no room for other objects beside these 1"),
    (lambda: arrange(TWO).masks(150), "cannot be drawn at 150 pixels: choose a multiple of 96"),
    (lambda: draw_scene(1, n_objects=5), "n_objects must be from 1 to 4, got 5"),
    (lambda: draw_scene(1, split="val"), "split must be one of train, development, test"),
    (lambda: recoloured(arrange(TWO), ["red"]), "has 2 objects, got 1 colours"),
]


@pytest.mark.parametrize(("call", "message"), REFUSALS)
def test_what_the_world_does_not_have_is_refused(call, message):
    with pytest.raises(GradeclipError, match=message):
        call()
