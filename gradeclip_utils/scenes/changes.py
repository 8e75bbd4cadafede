"""Changes: a scene that differs from another one in one thing."""

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
    """A training scene of the same things, drawn anew, in which each colour (or lack of one) went to the next thing.

    Both captions have the same words if `scene` mentions all of its things and colours, so that only binding tells
    them apart. None if nothing would change, or if a colour would become one that is withheld.
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
    """The same image without one object, plainly described."""
    whole("index", index, 0, len(_objects(scene)) - 1)
    things = [t for i, t in enumerate(scene.objects) if i != index]
    unnamed = [i - (i > index) for i in scene.unnamed if i != index]
    return arrange(things, background=scene.background, unnamed=unnamed)


def recoloured(scene: Scene, colours: Sequence[str | None]) -> Scene:
    """The same objects in other colours (None: its own), plainly described; swapped colours test binding."""
    if len(listed("colours", colours)) != len(_objects(scene)):
        raise GradeclipError(f"the scene has {len(scene.objects)} objects, got {len(colours)} colours")
    things = [replace(t, colour=c) for t, c in zip(scene.objects, colours, strict=True)]
    return arrange(things, background=scene.background)


def _objects(scene: Scene) -> tuple[Object, ...]:
    """The objects of a scene."""
    if not isinstance(scene, Scene):
        raise GradeclipError(f"a scene is made by arrange or draw_scene, got {short(scene)}")
    return scene.objects
