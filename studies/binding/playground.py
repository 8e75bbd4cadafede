"""The playground: two things of your own, a true and a false caption, and what the model answers to both.

state -> scene, captions -> similarities, maps -> a figure
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from gradeclip_utils.checks import chosen
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.images import model_view, onto_image
from gradeclip_utils.plots import InlineFigure, axes_at, draw_heatmap, show_image
from gradeclip_utils.plots.axes import FULL_WIDTH, NOTE, entitle, headed
from gradeclip_utils.plots.colours import largest, shown
from gradeclip_utils.scenes import CANVAS, COLOURS, Object, Scene, arrange, describe, relation_between

from .cached_explainer import CachedExplainer
from .plots import draw_bars, folded

_NEAR, _FAR = CANVAS // 4, CANVAS * 3 // 4
PLACES = {
    "upper left": (_NEAR, _NEAR), "upper right": (_FAR, _NEAR), "lower left": (_NEAR, _FAR), "lower right": (_FAR, _FAR)
}  # fmt: skip
QUESTIONS = ("colours exchanged", "places exchanged")
NO_COLOUR = "no colour"
_SIZE = 38  # of a thing, in units of the canvas


@dataclass(frozen=True, eq=False)
class PlaygroundAnswers:
    """What a model answers to a true and a false caption of one image."""

    image: Image.Image
    captions: tuple[str, str]
    similarity: tuple[float, float]
    maps: Mapping[str, np.ndarray]
    box: tuple[float, float, float, float]  # what the model saw of the image, in pixels

    @property
    def gap(self) -> str:
        """By how much the true caption is ahead, in words."""
        right, wrong = self.similarity
        digits = 3 if abs(right - wrong) >= 0.0005 else 5  # else it would be +0.000, and somebody right
        gap = f"similarity gap {right - wrong:+.{digits}f}".replace("-", "\N{MINUS SIGN}")
        return f"{gap}: the model is {'right' if right > wrong else 'wrong'}"

    def figure(self) -> InlineFigure:
        """Image, similarities and maps. The captions' maps share one scale, the others have their own."""
        told = [f"{text}: similarity {value:.3f}" for text, value in zip(self.captions, self.similarity, strict=True)]
        beside = [0.15, *[0.9] * (len(self.maps) - 1)]  # inches: from the second map on there is a scale
        side = (FULL_WIDTH - 0.15 - sum(beside)) / len(self.maps)
        figure = InlineFigure(FULL_WIDTH, 2.95 + side, f"{self.gap}; {'; '.join(told)}")
        head = headed(figure, self.gap)
        show_image(axes_at(figure, 0.1, head + 0.3, 1.7, 1.7), self.image, "image")
        draw_bars(axes_at(figure, 2.2, head + 0.4, FULL_WIDTH - 2.3, 1.5), self.captions, self.similarity, right=0)
        shared = largest(list(self.maps.values())[:2])
        for i, (name, map_) in enumerate(self.maps.items()):
            axes = axes_at(figure, 0.1 + side * i + sum(beside[:i]), head + 2.45, side, side)
            heat = onto_image(map_, self.box, self.image.size)
            vmax = shared if i < 2 else largest([map_])
            draw_heatmap(axes, self.image, heat, signed=i == 2, vmax=vmax, colour_bar=i > 0, note="")
            entitle(axes, folded(name, int(13 * (side + beside[i]))))
        sentence = (
            "The captions' maps share one scale, the others have their own; in “true rather than false” orange speaks "
            "for the true caption, purple for the false one."
        )
        figure.text(0.1 / FULL_WIDTH, 0.1 / figure.get_figheight(), textwrap.fill(sentence, 105), **NOTE)
        return figure


def playground(
    cached: CachedExplainer, first: str = "car", first_colour: str = "red", first_place: str = "upper left",
    second: str = "cat", second_colour: str = "blue", second_place: str = "lower right",
    question: str = "colours exchanged", background: int = 0, report: Callable[[float], None] | None = None,
) -> PlaygroundAnswers:  # fmt: skip
    """Two things of your own, a true and a false caption: both similarities, and the maps that go with them."""
    things = (first, first_colour, first_place), (second, second_colour, second_place)
    scene, false = playground_scene(things, question, background)
    image, report = scene.image(), report or (lambda fraction: None)
    kind = "colour" if question == QUESTIONS[0] else "relation"
    spans = [span for span in scene.spans if span.kind == kind]
    report(0.0)
    right, wrong = cached.embedding(scene.caption), cached.embedding(false)
    words = [cached.words(scene.caption)[1][cached.word_indices(scene.caption, s.start, s.end)] for s in spans]
    directions = torch.stack([right, wrong, right - wrong, *(word.sum(0) for word in words)])
    report(0.5)
    maps = cached.explainer.maps([image], directions)[0].float().cpu().numpy()
    similarity = tuple((cached.explainer.embed_images([image]) * directions[:2]).sum(-1).tolist())
    heats = [shown(map_, i == 2) for i, map_ in enumerate(maps)]
    said = [f"the word{'s' if kind == 'relation' else ''} {scene.caption[s.start : s.end]!r}" for s in spans]
    names = ["the true caption", "the false caption", "true rather than false", *said]
    box = model_view(cached.explainer.clip.preprocess, image).box
    return PlaygroundAnswers(image, (scene.caption, false), similarity, dict(zip(names, heats, strict=True)), box)


def playground_scene(asked: Sequence[tuple[str, str, str]], question: str, background: int = 0) -> tuple[Scene, str]:
    """The scene of the playground with its true caption, and the false caption; errors as there."""
    things = [_thing(*one) for one in asked]
    chosen("the question", question, QUESTIONS)
    nouns, tints, places = zip(*asked, strict=True)
    if len(set(nouns)) < 2 or len(set(places)) < 2:
        same = f"both are a {nouns[0]}" if len(set(nouns)) < 2 else f"both are {places[0]}"
        raise GradeclipError(f"{same}: choose two different things in two different places")
    if question == QUESTIONS[0]:
        if len(set(tints)) < 2 or NO_COLOUR in tints:
            msg = f"nothing to exchange between {tints[0]!r} and {tints[1]!r}: choose two different colours"
            raise GradeclipError(msg)
        colours = [thing.colour for thing in things][::-1]
        false, _ = describe([replace(thing, colour=colour) for thing, colour in zip(things, colours, strict=True)])
        caption, spans = describe(things)
    else:
        moved = [replace(a, x=b.x, y=b.y) for a, b in (things, things[::-1])]
        false, _ = describe(things, relation_between(moved[0], moved[1]))
        caption, spans = describe(things, relation_between(things[0], things[1]))
    return Scene(tuple(things), caption, spans, background), false


def _thing(noun: str, colour: str, place: str) -> Object:
    """The thing in its place; checked."""
    x, y = PLACES[chosen("a place", place, PLACES)]
    chosen("a colour", colour, (*COLOURS, NO_COLOUR))
    (thing,) = arrange([noun]).objects
    return replace(thing, colour=None if colour == NO_COLOUR else colour, x=x, y=y, size=_SIZE)
