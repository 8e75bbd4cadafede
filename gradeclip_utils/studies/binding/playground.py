"""The playground: two things of your own, a true and a false caption, and what the model answers to both.

state -> scene, captions -> similarities, maps -> a figure, or a page for a panel
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from ...explain import isolated_torch_state
from ...images import onto_picture
from ...methods.grad_eclip import grad_eclip
from ...panels.jobs import is_small, one_thread
from ...plots import InlineFigure, axes_at, draw_heatmap, paint, show_image
from ...plots.axes import NOTE, entitle
from ...plots.colours import largest, number, shown
from ...plots.html import Page, bars_html, note_html, picture_html, print_html, row_html
from ...scenes import ARTISTS, COLOURS, Object, Scene, concepts, describe, relation_between, withheld_artist
from .binding_index import Reader
from .plots import draw_bars, folded

PLACES = {"upper left": (24, 24), "upper right": (72, 24), "lower left": (24, 72), "lower right": (72, 72)}
QUESTIONS = ("colours exchanged", "places exchanged")
NO_COLOUR = "no colour"


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model answers to a true and a false caption of one picture: numbers, for a figure or a page.

    Attributes:
        captions, similarity: the true one, the false one.
        maps: name -> (h, w): of both captions, of the one rather than the other (signed), and of what differs.
        box: what the model saw of the picture, as in `plots.paint`.
    """

    picture: Image.Image
    captions: tuple[str, str]
    similarity: tuple[float, float]
    maps: Mapping[str, np.ndarray]
    box: tuple[float, float, float, float]

    @property
    def margin(self) -> str:
        """By how much the true caption is ahead, in words."""
        right, wrong = self.similarity
        margin = f"margin {right - wrong:+.3f}".replace("-", "\N{MINUS SIGN}")
        return f"{margin}: the model is {'right' if right > wrong else 'wrong'}"

    @property
    def alt(self) -> str:
        """All of it in a line."""
        pairs = [f"{text}: similarity {value:.3f}" for text, value in zip(self.captions, self.similarity, strict=True)]
        return f"{'; '.join(pairs)}; {self.margin}"

    def scales(self) -> list[tuple[bool, float]]:
        """For each map whether it is signed, and the value of its darkest ink: the captions' maps share one."""
        shared = largest(list(self.maps.values())[:2])
        return [(i == 2, shared if i < 2 else largest([map_])) for i, map_ in enumerate(self.maps.values())]

    def sentence(self) -> str:
        """What the colours mean."""
        shared = self.scales()[0][1]
        return (
            f"The captions' maps share one scale (darkest {number(shared, shared)}), the others have their own; in "
            "“true rather than false” orange speaks for the true caption, purple for the false one."
        )

    def figure(self) -> InlineFigure:
        """All of it, for what stays."""
        figure = InlineFigure(0.2 + 2.5 * len(self.maps), 4.65, self.alt)
        show_image(axes_at(figure, 0.1, 0.3, 1.7, 1.7), self.picture, "picture")
        draw_bars(axes_at(figure, 2.6, 0.55, 4.4, 1.4), self.captions, self.similarity, right=0)
        figure.text(2.6 / figure.get_figwidth(), 1 - 0.3 / 4.65, self.margin, fontsize=10, va="center")
        for i, ((name, map_), (signed, vmax)) in enumerate(zip(self.maps.items(), self.scales(), strict=True)):
            axes, heat = axes_at(figure, 0.1 + 2.5 * i, 2.4, 1.7, 1.7), onto_picture(map_, self.box, self.picture.size)
            draw_heatmap(axes, self.picture, heat, signed=signed, vmax=vmax, note="")
            entitle(axes, folded(name, 30))
        figure.text(0.1 / figure.get_figwidth(), 0.12 / 4.65, self.sentence(), **NOTE)
        return figure

    def page(self) -> Page:
        """The same for a panel, in a fifth of the time."""
        true, false = self.captions
        bars = bars_html(list(zip((f"{true} (true)", false), self.similarity, strict=True)), self.margin)
        prints = []
        for (name, map_), (signed, vmax) in zip(self.maps.items(), self.scales(), strict=True):
            image = paint(self.picture, map_, box=self.box, signed=signed, vmax=vmax)
            prints.append(print_html(image, name, signed=signed, vmax=vmax, alt=f"map of {name}"))
        upper = row_html(picture_html(self.picture), bars, align="flex-start")
        return Page(upper + row_html(*prints) + note_html(self.sentence()), self.alt)


def playground(
    reader: Reader, first: str = "car", first_colour: str = "red", first_place: str = "upper left",
    second: str = "cat", second_colour: str = "blue", second_place: str = "lower right",
    question: str = "colours exchanged", background: int = 0, report: Callable[[float], None] | None = None,
) -> Answers:  # fmt: skip
    """Two things of your own, a true and a false caption: both similarities, and the maps that go with them.

    The maps are those of both captions, of the one rather than the other, and of the two words (or the one relation) on
    which they differ, inside the true caption. Nothing is kept between calls but what `reader` has read.

        playground(reader, "car", "red", second="cat", second_colour="blue").figure()

    Args:
        first, second: nouns of `scenes.concepts`; `first_colour`, `second_colour`: a colour or "no colour".
        first_place, second_place: names in `PLACES`.
        question: how the false caption is made, one of `QUESTIONS`.
        background: number of the background.
        report: told, before the picture is looked at and before the captions are asked, the share that is done. What it
            raises ends the work.

    Raises:
        ValueError: a noun, colour, place or question that does not exist; two things of one name or in one place; an
            exchange that changes nothing.
    """
    scene, false = playground_scene(
        first, first_colour, first_place, second, second_colour, second_place, question, background
    )
    picture, explainer = scene.image(), reader.explainer
    kind = "colour" if question == QUESTIONS[0] else "relation"
    spans = [span for span in scene.spans if span.kind == kind]
    tower, report = explainer.image_tower, report or (lambda share: None)
    report(0.0)
    with isolated_torch_state(tower.device):
        view, trace = reader.seen(picture)
    report(0.5)
    with isolated_torch_state(tower.device), one_thread(is_small(tower)):
        right, wrong = reader.embedding(scene.caption), reader.embedding(false)
        own = [reader.words(scene.caption)[1][reader.members(scene.caption, s.start, s.end)].sum(0) for s in spans]
        directions = torch.stack([right, wrong, right - wrong, *own])
        maps = grad_eclip(tower, trace, directions[None])[0, :, -trace.grid[0] * trace.grid[1] :]
        similarity = float(trace.embedding[0] @ right), float(trace.embedding[0] @ wrong)
    heats = [shown(map_, i == 2) for i, map_ in enumerate(maps.unflatten(-1, trace.grid).float().cpu().numpy())]
    words = [f"the word{'s' if kind == 'relation' else ''} {scene.caption[s.start : s.end]!r}" for s in spans]
    names = ["the true caption", "the false caption", "true rather than false", *words]
    return Answers(picture, (scene.caption, false), similarity, dict(zip(names, heats, strict=True)), view.box)


def playground_scene(
    first: str, first_colour: str, first_place: str, second: str, second_colour: str, second_place: str,
    question: str, background: int = 0,
) -> tuple[Scene, str]:  # fmt: skip
    """The scene of the playground with its true caption, and the false caption; raises as `playground`."""
    things = [
        _thing(noun, colour, place)
        for noun, colour, place in ((first, first_colour, first_place), (second, second_colour, second_place))
    ]
    if question not in QUESTIONS:
        raise ValueError(f"the question must be one of {', '.join(QUESTIONS)}, got {question!r}")
    if first == second or first_place == second_place:
        same = f"both are a {first}" if first == second else f"both are {first_place}"
        raise ValueError(f"{same}: choose two different things in two different places")
    if question == QUESTIONS[0]:
        if first_colour == second_colour or NO_COLOUR in (first_colour, second_colour):
            raise ValueError(f"nothing to exchange between {first_colour!r} and {second_colour!r}: choose two colours")
        colours = [thing.colour for thing in things][::-1]
        false, _ = describe([replace(thing, colour=colour) for thing, colour in zip(things, colours, strict=True)])
        caption, spans = describe(things)
    else:
        moved = [replace(a, x=b.x, y=b.y) for a, b in (things, things[::-1])]
        false, _ = describe(things, relation_between(*moved))
        caption, spans = describe(things, relation_between(*things))
    return Scene(tuple(things), caption, spans, background), false


def _thing(noun: str, colour: str, place: str) -> Object:
    if noun not in concepts().index:
        raise ValueError(f"{noun!r} is no noun of the scenes: choose one of sprites.concepts(), such as 'car' or 'cat'")
    if colour not in (*COLOURS, NO_COLOUR) or place not in PLACES:
        known = f"colours are {', '.join(COLOURS)} and {NO_COLOUR}; places {', '.join(PLACES)}"
        raise ValueError(f"no {noun} can be {colour!r} and {place!r}: {known}")
    x, y = PLACES[place]
    return Object(noun, _artist(noun), None if colour == NO_COLOUR else colour, x, y, 38)


def _artist(noun: str) -> str:
    return next(artist for artist in ARTISTS if artist != withheld_artist(noun))
