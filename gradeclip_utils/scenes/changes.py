"""Changes: a scene in which one thing differs from another's, so that what it makes of an answer can be told.

Scene -> without an object, in other colours, colours passed on -> Scene
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..checks import listed, short, whole
from ..errors import GradeclipError
from .compose import Scene, arrange, draw_scene
from .emoji import Object
from .grammar import grouped
from .heldout import is_withheld_colour


def hard_negative(scene: Scene, seed: int | Sequence[int]) -> Scene | None:
    """Another training scene of the same things, in which every colour (or lack of one) has gone to the next thing.

    Both captions hold the same names and colours if `scene` says all of its own, so that only who has which colour
    tells the two apart. All else is drawn anew.

    Args:
        scene: whose things they are.
        seed: as for `draw_scene`.

    Returns:
        The scene; None if nothing would change, or if a colour would become one that is withheld.
    """
    members = grouped(scene.objects)
    nouns = [scene.objects[m[0]].noun for m in members]
    colours = [scene.objects[m[0]].colour for m in members]
    passed_on = colours[-1:] + colours[:-1]
    if passed_on == colours or any(map(is_withheld_colour, nouns, passed_on)):
        return None
    groups = [(noun, colour, len(m)) for noun, colour, m in zip(nouns, passed_on, members, strict=True)]
    return draw_scene(seed, groups=groups)


def without(scene: Scene, index: int) -> Scene:
    """The same image with one object gone, plainly described: what did it contribute?

    Args:
        scene: with all of its objects.
        index: of the one that goes.

    Raises:
        ValueError: there is no such object.
    """
    whole("index", index, 0, len(_objects(scene)) - 1)
    things = [t for i, t in enumerate(scene.objects) if i != index]
    unnamed = [i - (i > index) for i in scene.unnamed if i != index]
    return arrange(things, background=scene.background, unnamed=unnamed)


def _objects(scene: Scene) -> tuple[Object, ...]:
    """Those of a scene; GradeclipError if it is none."""
    if not isinstance(scene, Scene):
        raise GradeclipError(f"a scene is what arrange or draw_scene gives, got {short(scene)}")
    return scene.objects


def recoloured(scene: Scene, colours: Sequence[str | None]) -> Scene:
    """The same objects in other colours, plainly described; swapping two colours gives the binding test.

    Args:
        scene: whose objects they are.
        colours: one an object; None is its own colours.

    Raises:
        ValueError: a colour is unknown, or they are not one an object.
    """
    if len(listed("colours", colours)) != len(_objects(scene)):
        raise GradeclipError(f"the scene has {len(scene.objects)} objects, got {len(colours)} colours")
    things = [replace(t, colour=c) for t, c in zip(scene.objects, colours, strict=True)]
    return arrange(things, background=scene.background)
