"""Test scenes that lessons draw: each list has its own seed and begins the same at any length."""

from collections.abc import Iterator
from itertools import count, islice
from typing import Any

from gradeclip_utils.scenes import CANVAS, Object, Scene, draw_scene


def different_things(*seed: int, split: str = "test", **options: Any) -> Iterator[Scene]:
    """Scenes of different things and plain captions, of seeds (*seed, 0), (*seed, 1), ...

    The options are those of `draw_scene`.
    """
    for number in count():
        scene = draw_scene([*seed, number], split=split, plain=True, **options)
        if len({thing.noun for thing in scene.objects}) == len(scene.objects):
            yield scene


def shown_scenes(n: int, n_objects: int = 2, *, whole: bool = True) -> list[Scene]:
    """The first n test scenes of different things.

    With `whole`, no thing is cut or below an eighth of the side.
    """
    scenes = different_things(n_objects=n_objects, tint=0)
    if whole:
        scenes = (scene for scene in scenes if all(map(_is_whole, scene.objects)))
    return list(islice(scenes, n))


def _is_whole(thing: Object) -> bool:
    to_border = min(thing.x, thing.y, CANVAS - thing.x, CANVAS - thing.y)
    return CANVAS / 8 <= thing.size <= 2 * to_border


def two_coloured(n: int) -> list[Scene]:
    """The first n test scenes of two things of two colours: "a red dog and a blue drum"."""
    scenes = different_things(81, n_objects=2, tint=1)
    coloured = (scene for scene in scenes if len({thing.colour for thing in scene.objects}) == 2)
    return list(islice(coloured, n))


def two_plain(n: int) -> list[Scene]:
    """The first n test scenes of two things without colours: "a dog and a drum"."""
    return list(islice(different_things(82, n_objects=2, tint=0), n))
