"""Pointing game: several objects in one image and one caption. Does the map of each word point at its own object?

    scene -> directions, one a question -> map -> its maximum -> one row per object and question

The pointing game of Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016,
played with one, two, three and four objects: the test that breaks first-order maps of a whole
caption (Moeller et al., arXiv 2408.14153). A game shows the first n objects of one drawn scene, so
that between n = 1 and n = 4 nothing differs but how many there are. Objects stand anywhere; a hit
is a maximum on the object's own pixels, and its area is what a guess would score.

All questions about a noun are asked by a *direction* in the space of embeddings, and Grad-ECLIP
draws the map of it:

    caption                  e(caption), the same map for all of its nouns prompt
    e("a dog"), the noun without its caption contrast                 e(caption) - e(caption without
    the object), as `Explainer.explain(against=)` asks word x region            t(noun), as
    `Explainer.interactions`; a noun of several words is their sum word x region, centred   t(noun)
    - mean of t over the caption's nouns, without what they all share

The last three are about the noun *inside* its caption. Contrast and centring need a second object.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gradeclip_utils.explainer import Explainer
from gradeclip_utils.images import model_view, onto_image, pool
from gradeclip_utils.models import Clip
from gradeclip_utils.scenes import CANVAS, Scene, arrange, draw_scene, phrase, without

from .pairs import images_of
from .relevance import Located, direction_of, located

COUNTS = (1, 2, 3, 4)  # objects in an image
QUESTIONS = ("caption", "prompt", "contrast", "word x region", "word x region, centred")
_SECOND = ("contrast", "word x region, centred")  # undefined for an object that is alone
_COLUMNS = ["image", "objects", "noun", "question", *Located._fields, "area"]


@dataclass(frozen=True)
class Game:
    """One image of a game; all images that show objects of one drawn scene have one name."""

    name: str
    scene: Scene


def games(
    n: int, *, split: str = "development", counts: Sequence[int] = COUNTS, tint: float = 0.35
) -> list[Game]:
    """Games from scenes of four objects of different nouns: for each scene one image a number of objects."""
    found, seed = [], 0
    while len(found) < n * len(counts):
        scene = draw_scene(seed, split=split, n_objects=4, tint=tint, plain=True)
        if len({thing.noun for thing in scene.objects}) == 4:
            shown = [
                arrange(list(scene.objects[:count]), background=scene.background)
                for count in counts
            ]
            found += [Game(f"{split}/{seed}", one) for one in shown]
        seed += 1
    return found


def play(
    clip: Clip,
    played: Sequence[Game],
    questions: Sequence[str] = QUESTIONS,
    *,
    image_layers: int | None = None,
) -> pd.DataFrame:
    """Ask for every noun of every game, and see where the maximum of its map by Grad-ECLIP lies."""
    explainer, rows = Explainer(clip, image_layers=image_layers), []
    for count in COUNTS:
        some = [game for game in played if len(game.scene.objects) == count]
        scenes = [game.scene for game in some]
        directions = question_directions(explainer, scenes, questions) if scenes else {}
        for question, heats in question_maps(explainer, scenes, directions).items():
            found = (row for game, own in zip(some, heats, strict=True) for row in _rows(game, own))
            rows += [{**row, "question": question} for row in found]
    return pd.DataFrame(rows, columns=_COLUMNS)


def play_true_masks(played: Sequence[Game], grid: tuple[int, int]) -> pd.DataFrame:
    """The same game, for the objects' own masks at the resolution of a map: what so coarse a map of theirs comes to."""
    rows, box = [], (0, 0, CANVAS, CANVAS)
    for game in played:
        heats = [onto_image(pool(mask, grid), box, (CANVAS, CANVAS)) for mask in _masks(game.scene)]
        rows += [{**row, "question": "true mask"} for row in _rows(game, heats)]
    return pd.DataFrame(rows, columns=_COLUMNS)


def question_directions(
    explainer: Explainer, scenes: Sequence[Scene], questions: Sequence[str]
) -> dict[str, Tensor]:
    """The directions of the questions in the space of embeddings."""
    asked = [
        question for question in questions if len(scenes[0].objects) > 1 or question not in _SECOND
    ]
    found = {}

    def embed(texts: list[str]) -> Tensor:
        """Embeddings (B, n, E) of n texts a scene."""
        return explainer.embed_texts(texts).unflatten(0, (len(scenes), -1))

    if "caption" in asked:
        found["caption"] = embed([scene.caption for scene in scenes])
    if "prompt" in asked:
        found["prompt"] = embed([phrase(thing.noun) for scene in scenes for thing in scene.objects])
    if "contrast" in asked:
        fewer = [without(scene, i).caption for scene in scenes for i in range(len(scene.objects))]
        found["contrast"] = embed([scene.caption for scene in scenes]) - embed(fewer)
    if any(question.startswith("word") for question in asked):
        words = torch.stack([_noun_directions(explainer, scene) for scene in scenes])
        found["word x region"], found["word x region, centred"] = (
            words,
            words - words.mean(1, keepdim=True),
        )
    return {question: found[question] for question in asked}


def question_maps(
    explainer: Explainer, scenes: Sequence[Scene], directions: Mapping[str, Tensor]
) -> dict[str, np.ndarray]:
    """Signed heat maps of every question."""
    if not directions:  # no games, or no questions that can be asked of an object that is alone
        return {}
    images, asked = (
        images_of(explainer.clip, scenes),
        torch.cat(list(directions.values()), dim=1),
    )  # (B, T, E)
    maps, heats = explainer.maps(images, asked).float().cpu().numpy(), []  # (B, T, h, w)
    for image, own in zip(images, maps, strict=True):
        box = tuple(
            side * CANVAS / image.width for side in model_view(explainer.clip.preprocess, image).box
        )
        heats.append([onto_image(map_, box, (CANVAS, CANVAS)) for map_ in own])
    ends = np.cumsum([part.shape[1] for part in directions.values()])[:-1]
    return dict(zip(directions, np.split(np.array(heats), ends, axis=1), strict=True))


def _rows(game: Game, heats: Iterable[np.ndarray]) -> Iterator[dict]:
    """One row per noun of one image, from the maps of one question: one for all nouns, or one each."""
    masks = _masks(game.scene)
    found = [located(heat, masks) for heat in heats]
    for i, thing in enumerate(game.scene.objects):
        about = {
            "image": game.name,
            "objects": len(masks),
            "noun": thing.noun,
            "area": float(masks[i].mean()),
        }
        yield {**about, **found[i if len(found) > 1 else 0][i]._asdict()}


def _noun_directions(explainer: Explainer, scene: Scene) -> Tensor:
    """The directions (n, E) of the nouns in the scene's caption, in the order of its objects."""
    ((split, directions),) = explainer.word_directions(scene.caption)
    split.check_read()
    nouns = sorted(
        (span for span in scene.spans if span.kind == "noun"), key=lambda span: span.objects
    )
    return torch.stack([direction_of(split, directions, noun.start, noun.end) for noun in nouns])


@lru_cache(maxsize=64)
def _masks(scene: Scene) -> np.ndarray:
    return scene.masks(CANVAS)
