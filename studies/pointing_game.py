"""Pointing game: several objects in one image and one caption.

Does the map of each word point at its own object?

    scene -> directions, one a question -> map -> its maximum -> one row per object and question

The pointing game of Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016,
played with one, two, three and four objects: the test that breaks first-order maps of a whole
caption (Moeller et al., arXiv 2408.14153). A game shows the first n objects of one drawn scene, so
that between n = 1 and n = 4 nothing differs but how many there are. Objects stand anywhere; a hit
is a maximum on the object's own pixels, and its area is what a guess would score.

Each question about a noun is a *direction* in the space of embeddings, and Grad-ECLIP draws the map
of it:

| question | direction |
| --- | --- |
| caption | e(caption), the same map for all of its nouns |
| prompt | e("a dog"), the noun without its caption |
| contrast | e(caption) - e(caption without the object), as `Explainer.explain(against=)` |
| word x region | t(noun), as `Explainer.interactions`; a noun of several words is their sum |
| word x region, centred | t(noun) - mean of t over the caption's nouns |

The last three are about the noun *inside* its caption. Contrast and centring need a second object.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gradeclip_utils import Explainer
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.images import onto_image, pool
from gradeclip_utils.models import Clip
from gradeclip_utils.scenes import CANVAS, Scene, arrange, draw_scene, without

from .lesson import are_different, embed_prompts
from .pairs import images_of
from .relevance import Located, direction_of, located, on_canvas, seen_box

COUNTS = (1, 2, 3, 4)  # objects in an image
QUESTIONS = ("caption", "prompt", "contrast", "word x region", "word x region, centred")
_NEED_SECOND = ("contrast", "word x region, centred")  # undefined for an object that is alone
_COLUMNS = ["image", "objects", "noun", "question", *Located._fields, "area"]


@dataclass(frozen=True)
class Game:
    """One image of a game; all images that show objects of one drawn scene have one name."""

    name: str
    scene: Scene


def games(
    n: int,
    *,
    split: str = "development",
    counts: Sequence[int] = COUNTS,
    tint: float = 0.35,
) -> list[Game]:
    """Games from scenes of four objects of different nouns.

    For each scene one image a number of objects.
    """
    drawn: list[Game] = []
    seed = 0
    while len(drawn) < n * len(counts):
        scene = draw_scene(seed, split=split, n_objects=4, tint=tint, plain=True)
        if are_different(scene.objects):
            for count in counts:
                things = list(scene.objects[:count])
                fewer = arrange(things, background=scene.background)
                drawn.append(Game(f"{split}/{seed}", fewer))
        seed += 1
    return drawn


def play(
    clip: Clip,
    played: Sequence[Game],
    questions: Sequence[str] = QUESTIONS,
    *,
    image_layers: int | None = None,
) -> pd.DataFrame:
    """Ask for every noun of every game, and see where the maximum of its map by Grad-ECLIP lies."""
    explainer = Explainer(clip, image_layers=image_layers)
    rows: list[dict] = []
    for count in COUNTS:
        batch = [game for game in played if len(game.scene.objects) == count]
        if not batch:
            continue
        scenes = [game.scene for game in batch]
        directions = question_directions(explainer, scenes, questions)
        for question, maps in question_maps(explainer, scenes, directions).items():
            for game, heats in zip(batch, maps, strict=True):
                rows += _rows(game, heats, question)
    return pd.DataFrame(rows, columns=_COLUMNS)


def play_true_masks(played: Sequence[Game], grid: tuple[int, int]) -> pd.DataFrame:
    """The same game for the objects' own masks at the resolution of a map.

    The most that so coarse a map can score.
    """
    rows: list[dict] = []
    for game in played:
        heats = [on_canvas(pool(mask, grid)) for mask in _masks(game.scene)]
        rows += _rows(game, heats, "true mask")
    return pd.DataFrame(rows, columns=_COLUMNS)


def question_directions(
    explainer: Explainer,
    scenes: Sequence[Scene],
    questions: Sequence[str],
) -> dict[str, Tensor]:
    """The directions of the questions in the space of embeddings, (B, T, E) each."""
    if len(scenes[0].objects) == 1:
        questions = [question for question in questions if question not in _NEED_SECOND]

    def embed(texts: list[str]) -> Tensor:
        return explainer.embed_texts(texts).unflatten(0, (len(scenes), -1))

    directions: dict[str, Tensor] = {}
    captions = [scene.caption for scene in scenes]
    if "caption" in questions:
        directions["caption"] = embed(captions)
    if "prompt" in questions:
        directions["prompt"] = embed_prompts(explainer, scenes)

    if "contrast" in questions:
        captions_without = []
        for scene in scenes:
            for i in range(len(scene.objects)):
                captions_without.append(without(scene, i).caption)
        directions["contrast"] = embed(captions) - embed(captions_without)

    if any(question.startswith("word") for question in questions):
        words = torch.stack([_noun_directions(explainer, scene) for scene in scenes])
        directions["word x region"] = words
        directions["word x region, centred"] = words - words.mean(1, keepdim=True)

    return {question: directions[question] for question in questions}


def _noun_directions(explainer: Explainer, scene: Scene) -> Tensor:
    """The directions (n, E) of the nouns in the scene's caption, in the order of its objects."""
    ((split, directions),) = explainer.word_directions(scene.caption)
    if split.unread:
        raise GradeclipError(f"the model reads only the beginning of {scene.caption!r}: shorten it")
    nouns = [span for span in scene.spans if span.kind == "noun"]
    nouns.sort(key=lambda span: span.objects)
    of_nouns = [direction_of(split, directions, noun.start, noun.end) for noun in nouns]
    return torch.stack(of_nouns)


def question_maps(
    explainer: Explainer,
    scenes: Sequence[Scene],
    directions: Mapping[str, Tensor],
) -> dict[str, np.ndarray]:
    """Signed heat maps (B, T, CANVAS, CANVAS) of every question."""
    if not directions:  # no question can be asked of an object that is alone
        return {}
    images = images_of(explainer.clip, scenes)
    joined = torch.cat(list(directions.values()), dim=1)  # (B, T, E), T over all questions
    maps = explainer.maps(images, joined).float().cpu().numpy()  # (B, T, h, w)

    box = seen_box(explainer.clip.preprocess)
    size = (CANVAS, CANVAS)
    heats = [[onto_image(map_, box, size) for map_ in image_maps] for image_maps in maps]
    counts = [part.shape[1] for part in directions.values()]
    ends = np.cumsum(counts)
    parts = np.split(np.array(heats), ends[:-1], axis=1)
    return dict(zip(directions, parts, strict=True))


def _rows(game: Game, heats: Sequence[np.ndarray], question: str) -> Iterator[dict]:
    """One row per noun of one image, from the maps of one question.

    One for all nouns, or one each.
    """
    masks = _masks(game.scene)
    places = [located(heat, masks) for heat in heats]
    if len(places) == 1:  # one map for all nouns
        places *= len(masks)
    for i, thing in enumerate(game.scene.objects):
        yield {
            "image": game.name,
            "objects": len(masks),
            "noun": thing.noun,
            "area": float(masks[i].mean()),
            **places[i][i]._asdict(),
            "question": question,
        }


@lru_cache(maxsize=64)
def _masks(scene: Scene) -> np.ndarray:
    return scene.masks(CANVAS)
